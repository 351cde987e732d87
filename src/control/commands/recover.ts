/** atoll backup, atoll recover */
import path from 'node:path';
import { type Command, Option } from 'commander';
import type { RecoverReport } from '../../xseg/engine.ts';
import type { BackupReport } from '../../xseg/types.ts';
import { route } from '../client.ts';
import { ControlError, EXIT } from '../errors.ts';
import { prepareHome, resolveHome } from '../home.ts';
import { duration, ProgressBar, shortTime, sizeFact } from '../output.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { daemonLeaf, leaf } from './context.ts';

interface RecoverCommandOptions extends CommonOptions {
  from?: string;
  force?: boolean;
}

export function recoverCommands(program: Command, world: World): void {
  leaf(program, 'backup <path>', 'copy the store, while serving, to a new file or into a folder').action(
    async (to: string, options: CommonOptions) => {
      const absolute = path.resolve(to);
      const target = to.endsWith('/') && absolute !== '/' ? `${absolute}/` : absolute;
      const made = await clientOf(options, world).post<BackupReport>(route('backup'), { path: target });
      print(
        world,
        options,
        made,
        () => `${made.path}: the store as of ${shortTime(made.takenAt)}, ${sizeFact(made.bytes)}\n`,
      );
    },
  );

  daemonLeaf(
    program,
    'recover <pool...>',
    'make a home that lost its store again, from its pools: folders, files, devices',
  )
    .option('--from <backup>', 'take this backup of the store, not the pools’ own copies')
    .option('--force', 'take the backup although a pool cannot prove that it fits')
    // The other commands have it; this one asks no daemon.
    .addOption(new Option('--socket <path>').hideHelp())
    .action(async (pools: string[], options: RecoverCommandOptions) => {
      if (options.socket !== undefined)
        throw new ControlError('USAGE', 'recover asks no daemon: it takes --home, not --socket');
      const report = await recover(pools, options, world);
      print(world, options, report, () => reportText(report));
      if (!report.check.ok) world.setExitCode(EXIT.damage);
    });
}

async function recover(pools: string[], options: RecoverCommandOptions, world: World): Promise<RecoverReport> {
  if (options.force && options.from === undefined) throw new ControlError('USAGE', '--force goes with --from');
  const home = resolveHome(options.home, world.env);
  prepareHome(home);
  const { recoverHome } = await import('../../xseg/engine.ts');
  const bar = new ProgressBar('check', world.terminal && !options.json ? world.err : null);
  try {
    return recoverHome({
      pools,
      home,
      ...(options.from === undefined ? {} : { from: options.from }),
      force: options.force ?? false,
      onProgress: (done, total) => bar.update(total > 0 ? done / total : 0),
    });
  } finally {
    bar.clear();
  }
}

function reportText(report: RecoverReport): string {
  const lines = [`home ${report.home}: ${report.volumes} volumes, ${report.snapshots} snapshots`];
  for (const pool of report.pools) {
    for (const { file, reason } of pool.damaged) lines.push(`pool ${pool.name}: ${file} is no good: ${reason}`);
    if (pool.takenAt === null) lines.push(`pool ${pool.name}: as in ${pool.source}`);
    else if (pool.complete)
      lines.push(`pool ${pool.name}: nothing is lost; it was stopped at ${shortTime(pool.takenAt)}`);
    else
      lines.push(
        `pool ${pool.name}: as of ${shortTime(pool.takenAt)}, ${duration(pool.ageSeconds ?? 0)} ago; what came after is lost`,
      );
  }
  if (report.pools.some(({ complete }) => !complete))
    lines.push('snapshots are what they were; blocks of live volumes may be newer than that: check their file systems');
  for (const { from, to } of report.renamed) lines.push(`volume ${from} of another pool is now ${to}`);
  for (const { name, path: at } of report.missingPools)
    lines.push(`pool ${name} (${at}) was not given; its volumes are not in this home`);
  const { check } = report;
  lines.push(check.ok ? 'check: ok' : `check: ${check.problemCount} problems; run \`atoll check\``);
  return `${lines.join('\n')}\n`;
}
