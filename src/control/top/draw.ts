/** `atoll top` as text. */
import type { PoolInfo } from '../../xseg/types.ts';
import { type Column, duration, fullPools, table } from '../output.ts';
import { formatSize } from '../sizes.ts';
import type { Times } from './times.ts';
import type { OpenView, TopView } from './view.ts';

/** The whole, as many lines as there are. */
export function topLines(view: TopView): string[] {
  const { requests, map, freeing, mapper } = view;
  const inline = requests.inlineShare === null ? '' : `, ${percent(requests.inlineShare)} at once`;
  const errors = requests.errorsPerSecond > 0 ? `, ${rate(requests.errorsPerSecond)} ERRORS` : '';
  const batch = mapper.batchMean === null ? '' : `, ${mapper.batchMean.toFixed(1)} records a turn`;
  const lines = [
    `atoll ${view.version}, process ${view.pid}, up ${duration(view.uptimeSeconds)}; over ${view.intervalSeconds.toFixed(1)} s`,
    ...warnings(view),
    '',
    `requests   ${rate(requests.perSecond)}/s${inline}${errors}; ${requests.connections} connections, ${requests.inFlight} on their way`,
    `reads      ${rate(requests.readsPerSecond)}/s  ${bytes(requests.readBytesPerSecond)}/s`,
    `writes     ${rate(requests.writesPerSecond)}/s  ${bytes(requests.writeBytesPerSecond)}/s`,
    `waited     ${kinds(view.waits)}`,
    `faults     ${kinds(view.faults)}`,
    `mapper     ${percent(mapper.busyShare)} busy${batch}`,
    `waiting    ${queues(view)}`,
    `commits    ${times(view.commits)}   store sync ${times(view.storeSyncs)}   data sync ${times(view.dataSyncs)}`,
    `map        ${map.residentPages} of ${map.cachePages} pages, ${map.dirtyPages} not durable yet; ${rate(map.loadsPerSecond)} loads/s`,
    `freeing    ${freeing.releases} references, ${formatSize(freeing.reclaimingBytes)} to zero; freed ${bytes(freeing.freedBytesPerSecond)}/s, zeroed ${bytes(freeing.zeroedBytesPerSecond)}/s`,
    '',
    ...lineList(table(view.pools, POOLS)),
    '',
    ...lineList(table(view.open, OPEN)),
  ];
  return lines;
}

/** What fits a screen: the first lines, and of each as much as there is room for. */
export function fitScreen(lines: readonly string[], columns: number, rows: number): string[] {
  return lines.slice(0, rows).map((line) => [...line].slice(0, columns).join(''));
}

const POOLS: readonly Column<PoolInfo>[] = [
  { title: 'POOL', value: ({ name }) => name },
  { title: 'STATE', value: ({ state }) => state },
  { title: 'USED', value: ({ usedBytes }) => formatSize(usedBytes), right: true },
  { title: 'FREE', value: ({ freeBytes }) => formatSize(freeBytes), right: true },
  {
    title: 'FULL',
    value: (pool) => percent(pool.capacityBytes > 0 ? pool.usedBytes / pool.capacityBytes : 0),
    right: true,
  },
  { title: 'ON DISK', value: ({ physicalBytes }) => formatSize(physicalBytes), right: true },
];

const OPEN: readonly Column<OpenView>[] = [
  { title: 'OPEN', value: ({ name }) => name },
  { title: 'CLIENTS', value: ({ connections }) => String(connections), right: true },
  { title: 'READS/S', value: ({ readsPerSecond }) => rate(readsPerSecond), right: true },
  { title: 'BYTES/S', value: ({ readBytesPerSecond }) => bytes(readBytesPerSecond), right: true },
  { title: 'WRITES/S', value: ({ writesPerSecond }) => rate(writesPerSecond), right: true },
  { title: 'BYTES/S', value: ({ writeBytesPerSecond }) => bytes(writeBytesPerSecond), right: true },
  { title: 'FAULTS/S', value: ({ faultsPerSecond }) => rate(faultsPerSecond), right: true },
];

function warnings(view: TopView): string[] {
  const found = view.pools
    .filter(({ reason }) => reason !== null)
    .map(({ name, reason }) => `! pool ${name}: ${reason}`);
  found.push(...fullPools(view.pools).map((line) => `! ${line}`));
  if (view.failedVolumes > 0) found.push(`! ${view.failedVolumes} volumes refuse writes; the log says why`);
  return found;
}

function queues(view: TopView): string {
  const waiting = Object.entries(view.queues).filter(([, length]) => length > 0);
  return waiting.length === 0 ? 'nothing' : waiting.map(([queue, length]) => `${queue} ${length}`).join('  ');
}

function kinds(all: Readonly<Record<string, Times>>): string {
  const seen = Object.entries(all).filter(([, { perSecond }]) => perSecond > 0);
  return seen.length === 0 ? 'none' : seen.map(([kind, one]) => `${kind} ${times(one)}`).join('   ');
}

/** `1.2k/s 0.05/2.1 ms`: half of them within the first, 99 % within the second */
function times({ perSecond, p50Ms, p99Ms }: Times): string {
  if (p50Ms === null || p99Ms === null) return 'none';
  return `${rate(perSecond)}/s ${milliseconds(p50Ms)}/${milliseconds(p99Ms)} ms`;
}

function milliseconds(ms: number): string {
  return ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(1) : ms.toFixed(3);
}

/** `0`, `3.4`, `250`, `12.3k`, `1.2M` */
export function rate(perSecond: number): string {
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(1)}M`;
  if (perSecond >= 1e4) return `${(perSecond / 1e3).toFixed(1)}k`;
  if (perSecond >= 10 || perSecond === 0) return perSecond.toFixed(0);
  return perSecond.toFixed(1);
}

function bytes(perSecond: number): string {
  return formatSize(Math.round(perSecond));
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

function lineList(text: string): string[] {
  return text.trimEnd().split('\n');
}
