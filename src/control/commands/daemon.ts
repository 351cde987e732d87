/** atoll status, atoll check */
import type { Command } from 'commander';
import type { CheckReport, EngineStatus } from '../../xseg/types.ts';
import { route } from '../client.ts';
import { ControlError, EXIT } from '../errors.ts';
import { duration, facts, ProgressBar, table } from '../output.ts';
import { formatSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { leaf } from './context.ts';
import { POOL_COLUMNS } from './pool.ts';
import { scrubLine, sealLine } from './seal.ts';

/** What GET /v1/status answers. */
export interface DaemonStatus extends EngineStatus {
  /** `metrics`: a URL, when they are served over TCP */
  sockets: { control: string; nbd: string[]; metrics: string | null };
  transfers: number;
}

export function daemonCommands(program: Command, world: World): void {
  leaf(program, 'status', 'how the daemon is doing').action(async (options: CommonOptions) => {
    const status = await clientOf(options, world).get<DaemonStatus>(route('status'));
    print(world, options, status, () => statusText(status));
  });

  leaf(program, 'check', 'prove that maps, slots and references agree; changes nothing').action(
    async (options: CommonOptions) => {
      const report = await runCheck(options, world);
      print(world, options, report, () => reportText(report));
      if (!report.ok) world.setExitCode(EXIT.damage);
    },
  );
}

async function runCheck(options: CommonOptions, world: World): Promise<CheckReport> {
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
    ['volumes', `${status.volumes}, and ${status.snapshots} snapshots`],
    ['map', `${map.residentPages} pages in ${formatSize(map.cacheBytes)}, ${map.dirtyPages} not durable yet`],
    ['map faults', `${map.faults}; ${spread(map.faultP50Us, map.faultP99Us, 'µs')}`],
    ['commits', `${commits.count}; ${spread(commits.p50Ms, commits.p99Ms, 'ms')}`],
    ['space to free', `${formatSize(background.zeroQueueBytes)} to zero, ${background.dropQueue} trees to drop`],
  ]);
  const failed = status.pools.filter(({ reason }) => reason !== null);
  const reasons = failed.map(({ name, reason }) => `pool ${name}: ${reason}\n`).join('');
  const sealing = status.pools
    .filter(({ seal }) => seal !== null && (seal.on || seal.entries > 0))
    .map(({ name, seal }) => `sealing ${name}: ${sealLine(seal!)}\nscrubbing ${name}: ${scrubLine(seal!)}\n`)
    .join('');
  return `${lines}\n${table(status.pools, POOL_COLUMNS)}${reasons}${sealing}`;
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
