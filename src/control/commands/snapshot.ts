/** atoll snapshot …, clone, rollback, diff */
import type { Command } from 'commander';
import { splitName } from '../../xseg/names.ts';
import type { ExtentInfo, SnapshotInfo, VolumeInfo } from '../../xseg/types.ts';
import { type ControlClient, route, withQuery } from '../client.ts';
import { diffPages } from '../diff.ts';
import { ControlError } from '../errors.ts';
import { type Column, facts, shortTime, sizeFact, table } from '../output.ts';
import { formatSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { group, leaf } from './context.ts';
import { exclusiveFact, madeLine } from './volume.ts';

const COLUMNS: readonly Column<SnapshotInfo>[] = [
  { title: 'NAME', value: ({ name }) => name },
  { title: 'SIZE', value: ({ size }) => formatSize(size), right: true },
  { title: 'MAPPED', value: ({ mappedBytes }) => formatSize(mappedBytes), right: true },
  { title: 'OPEN', value: ({ openCount }) => String(openCount), right: true },
  { title: 'CREATED', value: ({ createdAt }) => shortTime(createdAt) },
];

const EXTENT_COLUMNS: readonly Column<ExtentInfo>[] = [
  { title: 'OFFSET', value: ({ offset }) => String(offset), right: true },
  { title: 'LENGTH', value: ({ length }) => String(length), right: true },
  { title: 'NOW', value: ({ data }) => (data ? 'data' : 'zero') },
];

/** @throws {ControlError} INVALID unless it is VOL@SNAP */
export function snapshotPath(name: string): { volume: string; snapshot: string } {
  const { volume, snapshot } = splitName(name);
  if (snapshot === null) throw new ControlError('USAGE', `${name} is no snapshot; write VOLUME@SNAPSHOT`);
  return { volume, snapshot };
}

function snapshotRoute(name: string, ...rest: string[]): string {
  const { volume, snapshot } = snapshotPath(name);
  return route('volumes', volume, 'snapshots', snapshot, ...rest);
}

export function snapshotCommands(program: Command, world: World): void {
  const snapshot = group(program, 'snapshot', 'sealed moments of volumes');

  leaf(snapshot, 'create <volume> <snapshot>', 'keep what a volume has now; it may be in use').action(
    async (volume: string, name: string, options: CommonOptions) => {
      const client = clientOf(options, world);
      const made = await client.post<SnapshotInfo>(route('volumes', volume, 'snapshots'), { name });
      print(world, options, made, () => `snapshot ${made.name}\n`);
    },
  );

  leaf(snapshot, 'list [volume]', 'snapshots of one volume, or all').action(
    async (volume: string | undefined, options: CommonOptions) => {
      const target = withQuery(route('snapshots'), { volume });
      const answer = await clientOf(options, world).get<{ snapshots: SnapshotInfo[] }>(target);
      print(world, options, answer, () => table(answer.snapshots, COLUMNS));
    },
  );

  leaf(snapshot, 'show <volume@snapshot>', 'one snapshot').action(async (name: string, options: CommonOptions) => {
    const found = await clientOf(options, world).get<SnapshotInfo>(withQuery(snapshotRoute(name), { account: true }));
    print(world, options, found, () => snapshotFacts(found));
  });

  leaf(snapshot, 'delete <volume@snapshot>', 'delete a snapshot; clones of it stand alone')
    .option('--force', 'even while it is open: its clients are disconnected')
    .action(async (name: string, options: CommonOptions & { force?: boolean }) => {
      await clientOf(options, world).delete(withQuery(snapshotRoute(name), { force: options.force }));
      print(world, options, { deleted: name }, () => `snapshot ${name} deleted\n`);
    });

  leaf(snapshot, 'protect <volume@snapshot>', 'refuse to delete a snapshot')
    .option('--off', 'allow it again')
    .action(async (name: string, options: CommonOptions & { off?: boolean }) => {
      const body = { on: !options.off };
      const answer = await clientOf(options, world).post<SnapshotInfo>(snapshotRoute(name, 'protect'), body);
      print(world, options, answer, () => `snapshot ${name} is ${answer.protected ? '' : 'not '}protected\n`);
    });

  leaf(
    program,
    'clone <volume@snapshot> <new-volume>',
    'make a volume that begins as the snapshot; takes no space',
  ).action(async (from: string, name: string, options: CommonOptions) => {
    const made = await clientOf(options, world).post<VolumeInfo>(snapshotRoute(from, 'clone'), { name });
    print(world, options, made, () => madeLine(made));
  });

  leaf(program, 'rollback <volume@snapshot>', 'give a closed volume back what the snapshot has').action(
    async (name: string, options: CommonOptions) => {
      const volume = await clientOf(options, world).post<VolumeInfo>(snapshotRoute(name, 'rollback'));
      print(world, options, volume, () => `volume ${volume.name} is as ${name}\n`);
    },
  );

  leaf(program, 'diff <from> <to>', 'what changed from a snapshot to a later one, or to the volume').action(
    async (from: string, to: string, options: CommonOptions) => {
      snapshotPath(from);
      splitName(to);
      await printDiff(clientOf(options, world), from, to, options, world);
    },
  );
}

async function printDiff(
  client: ControlClient,
  from: string,
  to: string,
  options: CommonOptions,
  world: World,
): Promise<void> {
  let separator = '';
  let changed = 0;
  // A missing name is reported before the document begins.
  const pages = diffPages(client, from, to);
  let page = await pages.next();
  if (options.json) world.out('{"extents":[');
  while (!page.done) {
    if (options.json) {
      for (const extent of page.value) {
        world.out(separator + JSON.stringify(extent));
        separator = ',';
      }
    } else if (page.value.length > 0 || changed === 0) {
      world.out(table(page.value, EXTENT_COLUMNS));
    }
    for (const { length } of page.value) changed += length;
    page = await pages.next();
  }
  world.out(options.json ? `],"changedBytes":${changed}}\n` : `${sizeFact(changed)} changed\n`);
}

function snapshotFacts(snapshot: SnapshotInfo): string {
  return facts([
    ['name', snapshot.name],
    ['id', snapshot.id],
    ['size', sizeFact(snapshot.size)],
    ['mapped', sizeFact(snapshot.mappedBytes)],
    ['exclusive', exclusiveFact(snapshot)],
    ['pool', snapshot.pool],
    ['block size', formatSize(snapshot.blockSize)],
    ['protected', snapshot.protected ? 'yes' : 'no'],
    ['open', snapshot.openCount === 0 ? 'no' : `${snapshot.openCount} connections`],
    ['created', shortTime(snapshot.createdAt)],
    ['hash', snapshot.hash ?? 'not sealed'],
  ]);
}
