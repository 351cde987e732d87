/** atoll status, atoll check */
import fs from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import type { CheckReport, EngineStatus, PoolInfo, RepairReport } from '../../xseg/types.ts';
import { NOBODY, route } from '../client.ts';
import { ControlError, EXIT } from '../errors.ts';
import { resolveHome, STORE_FILE } from '../home.ts';
import { duration, facts, fullPools, ProgressBar, table } from '../output.ts';
import { formatSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { leaf } from './context.ts';
import { POOL_COLUMNS } from './pool.ts';
import { scrubLine, sealLine } from './seal.ts';

/** What GET /v1/status answers. */
export interface DaemonStatus extends EngineStatus {
  /** `metrics`: a URL, when they are served over TCP */
  sockets: { control: string; nbd: string[]; metrics: string | null; http?: string | null };
  transfers: number;
}

export function daemonCommands(program: Command, world: World): void {
  leaf(program, 'status', 'how the daemon is doing').action(async (options: CommonOptions) => {
    const status = await clientOf(options, world).get<DaemonStatus>(route('status'));
    print(world, options, status, () => statusText(status));
  });

  leaf(program, 'check', 'prove that maps, slots and references agree; changes nothing unless told to')
    .option('--repair', 'rebuild counts and free space from the maps; without a daemon, never touches data')
    .action(async (options: CheckOptions) => {
      const { report, repaired, offline } = options.repair
        ? await repairOffline(options, world)
        : await runCheck(options, world);
      const document = { ...report, offline, ...(repaired === null ? {} : { repaired }) };
      print(world, options, document, () => `${repaired === null ? '' : repairText(repaired)}${reportText(report)}`);
      if (!report.ok) world.setExitCode(EXIT.damage);
    });
}

interface CheckOptions extends CommonOptions {
  repair?: boolean;
}

interface Checked {
  report: CheckReport;
  repaired: RepairReport | null;
  /** no daemon took part */
  offline: boolean;
}

/** By the daemon; where none runs, a home that was meant is read here. */
async function runCheck(options: CommonOptions, world: World): Promise<Checked> {
  try {
    return { report: await checkOnline(options, world), repaired: null, offline: false };
  } catch (error) {
    const home = resolveHome(options.home, world.env);
    const noDaemon = error instanceof ControlError && error.code === 'NO_DAEMON' && error.message.startsWith(NOBODY);
    const elsewhere = options.socket !== undefined || (options.home === undefined && world.env.ATOLL_SOCKET);
    if (!noDaemon || elsewhere || !fs.existsSync(path.join(home, STORE_FILE))) throw error;
    return checkOffline(options, world, home);
  }
}

async function checkOffline(options: CommonOptions, world: World, home: string): Promise<Checked> {
  const bar = new ProgressBar('check', world.terminal && !options.json ? world.err : null);
  const { checkHome } = await import('../../xseg/engine.ts');
  const onProgress = (done: number, total: number) => bar.update(total > 0 ? done / total : 0);
  try {
    const report = await checkHome(home, { onProgress, signal: world.signal });
    return { report, repaired: null, offline: true };
  } catch (error) {
    throw world.signal.aborted ? new ControlError('INTERRUPTED', 'interrupted; nothing was changed') : error;
  } finally {
    bar.clear();
  }
}

async function repairOffline(options: CheckOptions, world: World): Promise<Checked> {
  if (options.socket !== undefined)
    throw new ControlError('USAGE', 'a repair needs the home itself, with no daemon running: use --home');
  let state = 'it was repaired as a whole, or not at all';
  const onRepaired = () => {
    state = 'it is repaired, and was not checked again';
  };
  const bar = new ProgressBar('repair', world.terminal && !options.json ? world.err : null);
  const { repairHome } = await import('../../xseg/engine.ts');
  const onProgress = (done: number, total: number) => bar.update(total > 0 ? done / total : 0);
  try {
    const home = resolveHome(options.home, world.env);
    return { ...(await repairHome(home, { onProgress, onRepaired, signal: world.signal })), offline: true };
  } catch (error) {
    throw world.signal.aborted ? new ControlError('INTERRUPTED', `interrupted; ${state}`) : error;
  } finally {
    bar.clear();
  }
}

function repairText(repaired: RepairReport): string {
  const words: [number, string][] = [
    [repaired.pages, 'map pages put right'],
    [repaired.pagesRemoved, 'map pages that nothing reached removed'],
    [repaired.pageRefs, 'reference counts of pages put right'],
    [repaired.slotRefs, 'reference counts of slots put right'],
    [repaired.slotsFreed, 'slots freed'],
    [repaired.slotsTaken, 'slots marked used'],
    [repaired.groups, 'slot groups put right'],
    [repaired.resources, 'records put right'],
    [repaired.releases, 'rows of the queue of releases put right'],
    [repaired.meta, 'bounds of ids put right'],
    [repaired.seal, 'rows of sealing put right'],
    [repaired.indexes, "indexes of the store's tables made anew"],
  ];
  const done = words.filter(([count]) => count > 0).map(([count, what]) => `repaired: ${count} ${what}\n`);
  const doubt = 'a map page is damaged or missing, so nothing was freed and no count lowered\n';
  return `${done.join('') || 'nothing to repair\n'}${repaired.inDoubt ? doubt : ''}`;
}

async function checkOnline(options: CommonOptions, world: World): Promise<CheckReport> {
  const bar = new ProgressBar('check', world.terminal && !options.json ? world.err : null);
  try {
    for await (const line of clientOf(options, world).lines(route('check'))) {
      if (line.report) return line.report as CheckReport;
      const { done, total } = line.progress as { done: number; total: number };
      bar.update(total > 0 ? done / total : 0);
    }
  } finally {
    bar.clear();
  }
  throw new ControlError('NO_DAEMON', 'the daemon went away during the check; its log says why');
}

function statusText(status: DaemonStatus): string {
  const { map, commits, background } = status;
  const lines = facts([
    ['daemon', `atoll ${status.version}, process ${status.pid}, up ${duration(status.uptimeSeconds)}`],
    ['home', status.home],
    ['control', status.sockets.control],
    ['nbd', status.sockets.nbd.join(' ') || '-'],
    ...(status.sockets.metrics === null ? [] : ([['metrics', status.sockets.metrics]] as const)),
    ...(status.sockets.http ? ([['http', status.sockets.http]] as const) : []),
    ['volumes', `${status.volumes}, and ${status.snapshots} snapshots`],
    ['map', `${map.residentPages} pages in ${formatSize(map.cacheBytes)}, ${map.dirtyPages} not durable yet`],
    ['map faults', `${map.faults}; ${spread(map.faultP50Us, map.faultP99Us, 'µs')}`],
    ['commits', `${commits.count}; ${spread(commits.p50Ms, commits.p99Ms, 'ms')}`],
    ['space to free', freeing(background, status.pools)],
  ]);
  const full = fullPools(status.pools)
    .map((line) => `${line}\n`)
    .join('');
  const failed = status.pools.filter(({ reason }) => reason !== null);
  const reasons = failed.map(({ name, reason }) => `pool ${name}: ${reason}\n`).join('');
  const sealing = status.pools
    .filter(({ seal }) => seal !== null && (seal.on || seal.entries > 0))
    .map(({ name, seal }) => `sealing ${name}: ${sealLine(seal!)}\nscrubbing ${name}: ${scrubLine(seal!)}\n`)
    .join('');
  return `${lines}\n${table(status.pools, POOL_COLUMNS)}${full}${reasons}${sealing}`;
}

/** Until it is none, space is still on its way back: what is mapped by what was deleted, then what is freed, on every step. */
function freeing({ dropQueue, freeQueueBytes }: DaemonStatus['background'], pools: readonly PoolInfo[]): string {
  const freedBytes = pools.reduce((sum, pool) => sum + pool.reclaimingBytes, 0);
  const heldBytes = pools.reduce((sum, pool) => sum + (pool.copies?.heldBytes ?? 0), 0);
  const parts: string[] = [];
  if (dropQueue > 0) parts.push(`about ${formatSize(freeQueueBytes)} in ${dropQueue} map pages`);
  if (freedBytes > 0) parts.push(`${formatSize(freedBytes)} to zero`);
  if (heldBytes > 0) parts.push(`${formatSize(heldBytes)} of that when copies of the store are newer`);
  return parts.join(', ') || 'none';
}

/** A daemon that has done nothing yet has no times to tell. */
function spread(p50: number, p99: number, unit: string): string {
  if (!Number.isFinite(p50) || !Number.isFinite(p99)) return 'no times yet';
  return `half within ${p50.toFixed(1)} ${unit}, 99 % within ${p99.toFixed(1)} ${unit}`;
}

function reportText(report: CheckReport): string {
  const seen = `${report.resources} resources, ${report.pages} pages, ${report.slots} slots in ${report.seconds.toFixed(1)} s`;
  if (report.ok) return `ok: ${seen}\n`;
  const lines = report.problems.map(
    ({ code, message, resource }) => `${code}${resource ? ` ${resource}` : ''}: ${message}\n`,
  );
  const more = report.problemCount - report.problems.length;
  return `${lines.join('')}${more > 0 ? `and ${more} more\n` : ''}${report.problemCount} problems: ${seen}\n`;
}
