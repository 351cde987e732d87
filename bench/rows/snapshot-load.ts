/**
 * Snapshots of a volume under 4 × 16 random writes: the longest gap between two of its writes around each snapshot,
 * and the time to the snapshot's answer, which is something else (it waits for durable data, writers do not).
 *
 * fio logs the end of every write with a resolution of a millisecond. The same windows without a snapshot are
 * measured beside, since two cores that five processes share make gaps of their own. So are those of a flush under the same
 * load, of Atoll and of nbdkit's file plugin: before a snapshot is answered, what it holds is durable, and what that costs the
 * file system's writers it costs any server's.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import { createFile, nbdkitFile } from '../peers/nbdkit.ts';
import { type Export, flush, NBDKIT_FILE } from '../peers/server.ts';
import { addLatencies, atMost, newRow, type RowResult } from '../result.ts';
import { MIB } from '../size.ts';
import { nearestRank } from '../stats.ts';
import type { Row } from './row.ts';

const GOAL_GAP_P99_MS = 5;
const BYTES = 512 * MIB;
/** As many snapshots as come into it; at 50 ms each it is 240. */
const LOAD_SECONDS = 60;
const LOAD_SECONDS_QUICK = 8;
const PAUSE_MS = 200;
/** Snapshots kept; the older are deleted, or the copies would fill the disk. */
const KEPT = 4;
/** A gap is a snapshot's when it overlaps the time from its request to this long after its answer. */
const AFTER_MS = 20;
/** fio's start and its end are not measured. */
const WARM_MS = 1000;
const END_MS = 1000;

interface Window {
  from: number;
  to: number;
}

export const snapshotLoad: Row = {
  ids: ['snapshot-load'],
  async *run(bench): AsyncIterable<RowResult> {
    bench.needsAtoll();
    const row = newRow(
      'snapshot-load',
      'snapshots under 4 × 16 random writes: longest gap between two writes',
      'ms',
      'lower',
    );
    bench.say(`${row.id}: ${row.title}`);
    const { daemon, end } = await bench.ownDaemon();
    await daemon.createVolume('busy', BYTES);
    const target = bench.exportOf(daemon, 'busy');
    await bench.fill(target, BYTES);
    const snapshots = await underLoad(bench, target, snapshotOf(daemon));
    addLatencies(row, 'time to answer', snapshots.answers, 'ms');
    row.facts.writes_per_second = snapshots.iops;
    const flushes = await underLoad(bench, target, { act: () => flush(target) });
    await end();
    const measured: [string, number[]][] = [
      ['with a snapshot', snapshots.during],
      ['without', snapshots.quiet],
      ['with a flush', flushes.during],
    ];
    if (bench.wants(NBDKIT_FILE)) {
      const image = bench.file('busy.raw');
      createFile(image, BYTES);
      const server = await nbdkitFile(bench.children, image);
      await bench.fill(server, BYTES);
      const peer = await underLoad(bench, server, { act: () => flush(server) });
      await server.stop();
      bench.remove(image);
      measured.push([`${NBDKIT_FILE}, with a flush`, peer.during], [`${NBDKIT_FILE}, without`, peer.quiet]);
      row.facts.nbdkit_file_writes_per_second = peer.iops;
    }
    for (const [name, values] of measured) {
      row.series.push({ name, samples: values.map((value) => ({ value, cpuPerMillion: null })) });
      addLatencies(row, `longest gap, ${name}`, values, 'ms');
    }
    atMost(row, `longest gap, p99 ≤ ${GOAL_GAP_P99_MS} ms`, nearestRank(snapshots.during, 0.99), GOAL_GAP_P99_MS, 'ms');
    row.notes.push('gaps have a resolution of 1 ms');
    yield row;
  },
};

/** What disturbs the writers, again and again, and what comes behind its window. */
interface Disturbance {
  act: () => Promise<unknown>;
  after?: () => Promise<unknown>;
}

interface Gaps {
  /** ms: the longest gap in each act's window, and in as long a one without */
  during: number[];
  quiet: number[];
  /** ms that each act took */
  answers: number[];
  /** writes a second */
  iops: number;
}

async function underLoad(bench: Bench, target: Export, disturbance: Disturbance): Promise<Gaps> {
  const log = bench.file('busy');
  const seconds = bench.options.quick ? LOAD_SECONDS_QUICK : LOAD_SECONDS;
  const load = bench.fio(target, {
    rw: 'randwrite',
    blockSize: '4k',
    depth: 16,
    jobs: 4,
    runtimeSeconds: seconds,
    latencyLog: log,
  });
  const acting = repeat(disturbance, Date.now() + seconds * 1000 - END_MS);
  const [result, { during, quiet, answers }] = await Promise.all([load, acting]);
  if (during.length === 0) throw new Error('nothing was answered while the load ran');
  const ends = readEnds(path.dirname(log), path.basename(log));
  const longest = (windows: Window[]) => windows.map((window) => longestGap(ends, window));
  return { during: longest(during), quiet: longest(quiet), answers, iops: result.iops };
}

function snapshotOf(daemon: Daemon): Disturbance {
  const kept: string[] = [];
  let next = 0;
  return {
    act: async () => kept.push(await daemon.snapshot('busy', `s${next++}`)),
    after: async () => {
      if (kept.length > KEPT) await daemon.deleteSnapshot(kept.shift()!);
    },
  };
}

/** @param until Unix milliseconds; what is answered later does not count */
async function repeat({ act, after }: Disturbance, until: number) {
  const during: Window[] = [];
  const quiet: Window[] = [];
  const answers: number[] = [];
  await sleep(WARM_MS);
  for (;;) {
    await sleep(PAUSE_MS / 2);
    // As long as an act's own window was, at a moment without one.
    const length = AFTER_MS + (answers.at(-1) ?? 0);
    quiet.push({ from: Date.now(), to: Date.now() + length });
    await sleep(Math.max(PAUSE_MS / 2, length));
    const from = Date.now();
    const started = process.hrtime.bigint();
    await act();
    answers.push(Number(process.hrtime.bigint() - started) / 1e6);
    if (Date.now() + AFTER_MS > until) {
      answers.pop();
      return { during, quiet, answers };
    }
    during.push({ from, to: Date.now() + AFTER_MS });
    await sleep(AFTER_MS);
    await after?.();
  }
}

/** Unix milliseconds at which writes ended, ascending, from the logs of all jobs. */
function readEnds(dir: string, prefix: string): number[] {
  const ends: number[] = [];
  for (const name of fs.readdirSync(dir)) {
    if (!name.startsWith(`${prefix}_`) || !name.endsWith('.log')) continue;
    const file = path.join(dir, name);
    if (name.startsWith(`${prefix}_clat.`)) {
      for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
        if (line !== '') ends.push(Number(line.slice(0, line.indexOf(','))));
      }
    }
    fs.rmSync(file);
  }
  return ends.sort((a, b) => a - b);
}

/**
 * @param ends ascending
 * @returns the longest time between two neighbours in `ends` that overlaps the window
 */
export function longestGap(ends: readonly number[], window: Window): number {
  let low = 0;
  let high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle]! < window.from) low = middle + 1;
    else high = middle;
  }
  let longest = 0;
  for (let i = Math.max(1, low); i < ends.length && ends[i - 1]! <= window.to; i++) {
    longest = Math.max(longest, ends[i]! - ends[i - 1]!);
  }
  return longest;
}
