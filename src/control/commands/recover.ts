/** atoll backup, atoll recover */
import fs from 'node:fs';
import path from 'node:path';
import { type Command, Option } from 'commander';
import type { RecoverReport } from '../../xseg/engine.ts';
import type { HomeBackup } from '../backup.ts';
import { cloudFolder, hasCatalog, refuseCatalog } from '../catalog/operator-files.ts';
import { catalogUrl, parseCatalogUrl } from '../catalog/place.ts';
import { route } from '../client.ts';
import { ControlError, EXIT } from '../errors.ts';
import { prepareHome, resolveHome, STORE_FILE } from '../home.ts';
import { duration, ProgressBar, shortTime, sizeFact } from '../output.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { daemonLeaf, leaf } from './context.ts';

interface RecoverCommandOptions extends CommonOptions {
  from?: string;
  force?: boolean;
  catalog?: string;
}

export function recoverCommands(program: Command, world: World): void {
  leaf(program, 'backup <path>', 'copy store and catalog, while serving, into a new folder').action(
    async (to: string, options: CommonOptions) => {
      const absolute = path.resolve(to);
      const target = to.endsWith('/') && absolute !== '/' ? `${absolute}/` : absolute;
      const made = await clientOf(options, world).post<HomeBackup>(route('backup'), { path: target });
      print(
        world,
        options,
        made,
        () => `${made.path}: ${whatOf(made)} as of ${shortTime(made.takenAt)}, ${sizeFact(made.bytes)}\n`,
      );
    },
  );

  daemonLeaf(
    program,
    'recover [pool...]',
    'make a home that lost its store again, from its pools: folders, files, devices',
  )
    .option('--from <backup>', 'take this backup, not the pools’ own copies; without a pool, its catalog only')
    .option(
      '--catalog <url>',
      'put the backup’s catalog into this PostgreSQL database (default: $ATOLL_CATALOG, else a file in the home)',
      (url) => parseCatalogUrl(url, false),
    )
    .option('--force', 'take the backup although a pool cannot prove that it fits')
    // The other commands have it; this one asks no daemon.
    .addOption(new Option('--socket <path>').hideHelp())
    .action(async (pools: string[], options: RecoverCommandOptions) => {
      if (options.socket !== undefined)
        throw new ControlError('USAGE', 'recover asks no daemon: it takes --home, not --socket');
      const report = await recover(pools, options, world);
      print(world, options, report, () => reportText(report));
      if ('check' in report && !report.check.ok) world.setExitCode(EXIT.damage);
    });
}

function whatOf({ catalogBytes }: HomeBackup): string {
  return catalogBytes === null ? 'the store' : 'store and catalog';
}

/** `catalog`: one was put back. */
type Recovered = (RecoverReport | { home: string }) & { catalog: boolean };

/** What `--from` says: a folder that `atoll backup` made, or the store in it. */
function partsOf(from: string | undefined): { store: string | undefined; cloud: string | null } {
  if (from === undefined || !fs.statSync(from, { throwIfNoEntry: false })?.isDirectory())
    return { store: from, cloud: null };
  return { store: path.join(from, STORE_FILE), cloud: hasCatalog(cloudFolder(from)) ? cloudFolder(from) : null };
}

async function recover(pools: string[], options: RecoverCommandOptions, world: World): Promise<Recovered> {
  if (options.force && options.from === undefined) throw new ControlError('USAGE', '--force goes with --from');
  const { store, cloud } = partsOf(options.from);
  if (pools.length === 0 && options.from === undefined)
    throw new ControlError('USAGE', 'say which pool, or with --from which backup’s catalog');
  if (pools.length === 0 && cloud === null)
    throw new ControlError('NOT_FOUND', `${options.from} has no catalog; to recover a store, say which pool`);
  const url = catalogUrl(options.catalog, world.env);
  const home = resolveHome(options.home, world.env);
  prepareHome(home);
  if (cloud !== null && url === undefined) refuseCatalog(cloudFolder(home));
  if (cloud !== null && url !== undefined)
    await (await import('../catalog/postgres-copy.ts')).refusePostgresCatalog(url);
  const report = pools.length === 0 ? { home } : await recoverStore(pools, home, store, options, world);
  if (cloud !== null) await restoreCatalog(cloud, home, url);
  return { ...report, catalog: cloud !== null };
}

async function recoverStore(
  pools: string[],
  home: string,
  from: string | undefined,
  options: RecoverCommandOptions,
  world: World,
): Promise<RecoverReport> {
  const { recoverHome } = await import('../../xseg/engine.ts');
  const bar = new ProgressBar('check', world.terminal && !options.json ? world.err : null);
  try {
    return recoverHome({
      pools,
      home,
      ...(from === undefined ? {} : { from }),
      force: options.force ?? false,
      onProgress: (done, total) => bar.update(total > 0 ? done / total : 0),
    });
  } finally {
    bar.clear();
  }
}

/** @throws {EngineError} HELD while a daemon runs there */
async function restoreCatalog(cloud: string, home: string, url: string | undefined): Promise<void> {
  const { openHome } = await import('../../xseg/engine.ts');
  const { restoreCloud } = await import('../catalog/copying.ts');
  const held = openHome(home);
  try {
    await restoreCloud(cloud, cloudFolder(home), url);
  } finally {
    held.unlock();
  }
}

function reportText(report: Recovered): string {
  const catalog = report.catalog ? 'catalog: put back; all tokens have ended\n' : '';
  return 'check' in report ? `${storeText(report)}${catalog}` : `home ${report.home}\n${catalog}`;
}

function storeText(report: RecoverReport): string {
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
