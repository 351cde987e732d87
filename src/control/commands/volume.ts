/** atoll volume … */
import type { Command } from 'commander';
import type { VolumeInfo } from '../../xseg/types.ts';
import { route, withQuery } from '../client.ts';
import { ControlError } from '../errors.ts';
import { type Column, facts, shortTime, sizeFact, table } from '../output.ts';
import { formatSize, parseVolumeSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { group, leaf } from './context.ts';

const COLUMNS: readonly Column<VolumeInfo>[] = [
  { title: 'NAME', value: ({ name }) => name },
  { title: 'SIZE', value: ({ size }) => formatSize(size), right: true },
  { title: 'MAPPED', value: ({ mappedBytes }) => formatSize(mappedBytes), right: true },
  { title: 'POOL', value: ({ pool }) => pool },
  { title: 'SNAPSHOTS', value: ({ snapshots }) => String(snapshots), right: true },
  { title: 'OPEN', value: ({ openCount }) => String(openCount), right: true },
  { title: 'CREATED', value: ({ createdAt }) => shortTime(createdAt) },
];

interface CreateOptions extends CommonOptions {
  size?: number;
  pool?: string;
  from?: string;
}

interface DeleteOptions extends CommonOptions {
  force?: boolean;
  withSnapshots?: boolean;
}

export function volumeCommands(program: Command, world: World): void {
  const volume = group(program, 'volume', 'live disks');

  leaf(volume, 'create <name>', 'make a thin volume, empty or from a snapshot')
    .option('--size <size>', 'such as 10G; needed unless it comes from a snapshot', parseVolumeSize)
    .option('--pool <pool>', 'where its blocks are kept (default: local, or the snapshot’s)')
    .option('--from <vol@snap>', 'begin with what the snapshot has')
    .action(async (name: string, options: CreateOptions) => {
      const { size, pool, from } = options;
      if (size === undefined && from === undefined) {
        throw new ControlError('USAGE', 'say --size SIZE, --from VOL@SNAP, or both');
      }
      const made = await clientOf(options, world).post<VolumeInfo>(route('volumes'), { name, size, pool, from });
      print(world, options, made, () => madeLine(made));
    });

  leaf(volume, 'list', 'all volumes').action(async (options: CommonOptions) => {
    const answer = await clientOf(options, world).get<{ volumes: VolumeInfo[] }>(route('volumes'));
    print(world, options, answer, () => table(answer.volumes, COLUMNS));
  });

  leaf(volume, 'show <name>', 'one volume').action(async (name: string, options: CommonOptions) => {
    const found = await clientOf(options, world).get<VolumeInfo>(withQuery(route('volumes', name), { account: true }));
    print(world, options, found, () => volumeFacts(found));
  });

  leaf(volume, 'resize <name>', 'make a volume larger or smaller; clients see it when they connect again')
    .requiredOption('--size <size>', 'new size, such as 20G', parseVolumeSize)
    .action(async (name: string, options: CommonOptions & { size: number }) => {
      const body = { size: options.size };
      const resized = await clientOf(options, world).post<VolumeInfo>(route('volumes', name, 'resize'), body);
      print(world, options, resized, () => `volume ${resized.name}: ${sizeFact(resized.size)}\n`);
    });

  leaf(volume, 'rename <name> <new-name>', 'give a volume another name').action(
    async (name: string, to: string, options: CommonOptions) => {
      const renamed = await clientOf(options, world).post<VolumeInfo>(route('volumes', name, 'rename'), { name: to });
      print(world, options, renamed, () => `volume ${name} is now ${renamed.name}\n`);
    },
  );

  leaf(volume, 'delete <name>', 'delete a volume; clones of it stand alone')
    .option('--force', 'even while it is open: its clients are disconnected')
    .option('--with-snapshots', 'and its snapshots')
    .action(async (name: string, options: DeleteOptions) => {
      const { force, withSnapshots } = options;
      await clientOf(options, world).delete(withQuery(route('volumes', name), { force, withSnapshots }));
      print(world, options, { deleted: name }, () => `volume ${name} deleted\n`);
    });

  leaf(volume, 'protect <name>', 'refuse to delete a volume, roll it back, or import onto it')
    .option('--off', 'allow it again')
    .action(async (name: string, options: CommonOptions & { off?: boolean }) => {
      const body = { on: !options.off };
      const answer = await clientOf(options, world).post<VolumeInfo>(route('volumes', name, 'protect'), body);
      print(world, options, answer, () => `volume ${name} is ${answer.protected ? '' : 'not '}protected\n`);
    });

  leaf(volume, 'attach <name>', 'give a volume to one writer alone; others may read it')
    .requiredOption('--to <who>', 'whom: a name of a host or of a machine')
    .action(async (name: string, options: CommonOptions & { to: string }) => {
      const answer = await clientOf(options, world).post<VolumeInfo>(route('volumes', name, 'attach'), {
        to: options.to,
      });
      print(
        world,
        options,
        answer,
        () => `volume ${name} is attached to ${options.to}: export ${answer.attached?.export}\n`,
      );
    });

  leaf(volume, 'detach <name>', 'take it back: whoever opens the volume may write again')
    .option('--force', 'even while it is open: NBD clients of the volume are disconnected')
    .action(async (name: string, options: CommonOptions & { force?: boolean }) => {
      const body = { force: options.force === true };
      const answer = await clientOf(options, world).post<VolumeInfo>(route('volumes', name, 'detach'), body);
      print(world, options, answer, () => `volume ${name} is not attached\n`);
    });
}

/** What deleting it would free. */
export function exclusiveFact({ exclusiveBytes }: { exclusiveBytes: number | null }): string {
  return exclusiveBytes === null ? 'being computed' : sizeFact(exclusiveBytes);
}

export function madeLine(volume: VolumeInfo): string {
  return `volume ${volume.name}: ${formatSize(volume.size)} in pool ${volume.pool}\n`;
}

function volumeFacts(volume: VolumeInfo): string {
  return facts([
    ['name', volume.name],
    ['id', volume.id],
    ['size', sizeFact(volume.size)],
    ['mapped', sizeFact(volume.mappedBytes)],
    ['exclusive', exclusiveFact(volume)],
    ['pool', volume.pool],
    ['block size', formatSize(volume.blockSize)],
    ['snapshots', String(volume.snapshots)],
    ['cloned from', volume.clonedFrom ?? '-'],
    ['protected', volume.protected ? 'yes' : 'no'],
    ['open', volume.openCount === 0 ? 'no' : `${volume.openCount} connections`],
    [
      'attached to',
      volume.attached === null ? '-' : `${volume.attached.to}, since ${shortTime(volume.attached.since)}`,
    ],
    ['export', volume.attached?.export ?? volume.name],
    ['created', shortTime(volume.createdAt)],
  ]);
}
