/** What `atoll top` shows: two looks at a daemon, and what happened between them. Rates are per second. */
import {
  type Activity,
  type Distribution,
  FAULT_KINDS,
  type FaultKind,
  type OpenActivity,
  type Queue,
  WAIT_KINDS,
  type WaitKind,
} from '../../xseg/activity.ts';
import type { EngineStatus, PoolInfo } from '../../xseg/types.ts';
import { sumOf, waitsOf } from '../metrics/sum.ts';
import { countOf, difference, type Times, timesOf } from './times.ts';

/** One look. */
export interface Sample {
  status: EngineStatus;
  activity: Activity;
}

export interface TopView {
  version: string;
  pid: number;
  uptimeSeconds: number;
  /** what rates and times are about */
  intervalSeconds: number;
  requests: {
    perSecond: number;
    errorsPerSecond: number;
    readsPerSecond: number;
    writesPerSecond: number;
    readBytesPerSecond: number;
    writeBytesPerSecond: number;
    /** complete at once, of all; null without requests */
    inlineShare: number | null;
    connections: number;
    inFlight: number;
  };
  /** of requests that were not complete at once */
  waits: Record<WaitKind, Times>;
  faults: Record<FaultKind, Times>;
  faultErrorsPerSecond: number;
  mapper: {
    /** 0..1 */
    busyShare: number;
    /** records taken at once, on average; null without any */
    batchMean: number | null;
  };
  commits: Times;
  storeSyncs: Times;
  dataSyncs: Times;
  queues: Record<Queue, number>;
  map: { cachePages: number; residentPages: number; dirtyPages: number; loadsPerSecond: number };
  freeing: {
    releases: number;
    reclaimingBytes: number;
    freedBytesPerSecond: number;
    zeroedBytesPerSecond: number;
  };
  failedVolumes: number;
  pools: PoolInfo[];
  /** those that are open, the busiest first */
  open: OpenView[];
}

export interface OpenView {
  name: string;
  connections: number;
  readsPerSecond: number;
  writesPerSecond: number;
  readBytesPerSecond: number;
  writeBytesPerSecond: number;
  faultsPerSecond: number;
}

/** @param before and `after`: of the same run of the daemon, `after` later */
export function viewOf(before: Sample, after: Sample): TopView {
  const [was, now] = [before.activity, after.activity];
  const seconds = now.uptimeSeconds - was.uptimeSeconds;
  const { status } = after;
  return {
    version: status.version,
    pid: status.pid,
    uptimeSeconds: now.uptimeSeconds,
    intervalSeconds: seconds,
    requests: requestsOf(was, now, seconds),
    waits: timesBy(WAIT_KINDS, waitsOf(was.reactors), waitsOf(now.reactors), seconds),
    faults: timesBy(FAULT_KINDS, was.faults, now.faults, seconds),
    faultErrorsPerSecond: (total(now.faultErrors) - total(was.faultErrors)) / seconds,
    mapper: {
      busyShare: Math.min(1, (now.mapper.busySeconds - was.mapper.busySeconds) / seconds),
      batchMean: meanOf(difference(was.mapper.batches, now.mapper.batches)),
    },
    commits: timesOf(difference(was.commits.times, now.commits.times), seconds),
    storeSyncs: timesOf(difference(was.store.syncs, now.store.syncs), seconds),
    dataSyncs: timesOf(difference(was.dataSyncs.times, now.dataSyncs.times), seconds),
    queues: now.queues,
    map: {
      cachePages: status.map.cacheBytes / PAGE_BYTES,
      residentPages: status.map.residentPages,
      dirtyPages: status.map.dirtyPages,
      loadsPerSecond: (status.map.loads - before.status.map.loads) / seconds,
    },
    freeing: freeingOf(was, after, seconds),
    failedVolumes: now.volumesFailed,
    pools: status.pools,
    open: openOf(was.open, now.open, seconds),
  };
}

const PAGE_BYTES = 4096;

function requestsOf(was: Activity, now: Activity, seconds: number): TopView['requests'] {
  type Counter = Parameters<typeof sumOf>[1];
  const grown = (counter: Counter) => sumOf(now.reactors, counter) - sumOf(was.reactors, counter);
  const rate = (counter: Counter) => grown(counter) / seconds;
  const ended = grown('inline') + grown('waited');
  return {
    perSecond: ended / seconds,
    errorsPerSecond: rate('errors'),
    readsPerSecond: rate('reads'),
    writesPerSecond: rate('writes'),
    readBytesPerSecond: rate('readBytes'),
    writeBytesPerSecond: rate('writeBytes'),
    inlineShare: ended === 0 ? null : grown('inline') / ended,
    connections: now.nbd.connections,
    inFlight: now.nbd.inFlight,
  };
}

function freeingOf(was: Activity, { status, activity: now }: Sample, seconds: number): TopView['freeing'] {
  const bytes = (activity: Activity, counter: 'slotsFreed' | 'slotsZeroed') =>
    activity.pools.reduce((sum, pool) => sum + pool[counter] * blockSizeOf(status.pools, pool.name), 0);
  return {
    releases: now.queues.releases,
    reclaimingBytes: status.pools.reduce((sum, pool) => sum + pool.reclaimingBytes, 0),
    freedBytesPerSecond: (bytes(now, 'slotsFreed') - bytes(was, 'slotsFreed')) / seconds,
    zeroedBytesPerSecond: (bytes(now, 'slotsZeroed') - bytes(was, 'slotsZeroed')) / seconds,
  };
}

function blockSizeOf(pools: readonly PoolInfo[], name: string): number {
  return pools.find((pool) => pool.name === name)?.blockSize ?? 0;
}

function openOf(was: readonly OpenActivity[], now: readonly OpenActivity[], seconds: number): OpenView[] {
  const before = new Map(was.map((one) => [one.name, one]));
  const views = now.map((one): OpenView => {
    const old = before.get(one.name);
    // Closed and opened in between, or another one by the same name: it began at nothing.
    const rate = (counter: 'reads' | 'writes' | 'readBytes' | 'writeBytes' | 'faults') =>
      (one[counter] - (old !== undefined && old[counter] <= one[counter] ? old[counter] : 0)) / seconds;
    return {
      name: one.name,
      connections: one.openCount,
      readsPerSecond: rate('reads'),
      writesPerSecond: rate('writes'),
      readBytesPerSecond: rate('readBytes'),
      writeBytesPerSecond: rate('writeBytes'),
      faultsPerSecond: rate('faults'),
    };
  });
  const work = (one: OpenView) => one.readsPerSecond + one.writesPerSecond;
  return views.sort((a, b) => work(b) - work(a) || a.name.localeCompare(b.name));
}

function timesBy<Kind extends string>(
  kinds: readonly Kind[],
  was: Readonly<Record<Kind, Distribution>>,
  now: Readonly<Record<Kind, Distribution>>,
  seconds: number,
): Record<Kind, Times> {
  const times = kinds.map((kind) => [kind, timesOf(difference(was[kind], now[kind]), seconds)] as const);
  return Object.fromEntries(times) as Record<Kind, Times>;
}

function meanOf(distribution: Distribution): number | null {
  const count = countOf(distribution);
  return count === 0 ? null : distribution.sum / count;
}

function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}
