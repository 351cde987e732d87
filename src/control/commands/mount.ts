/** atoll mount, atoll umount */
import path from 'node:path';
import type { Command } from 'commander';
import { withQuery } from '../client.ts';
import { ControlError } from '../errors.ts';
import type { MountInfo } from '../mounts.ts';
import { type Column, table } from '../output.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { leaf } from './context.ts';

const COLUMNS: readonly Column<MountInfo>[] = [
  { title: 'PATH', value: ({ path: at }) => at },
  { title: 'OTHERS', value: ({ allowOther }) => (allowOther ? 'yes' : 'no') },
];

export function mountCommands(program: Command, world: World): void {
  leaf(program, 'mount [dir]', 'show volumes and snapshots as files in a folder; without one, list mounts')
    .option('--allow-other', 'let other users in, as far as file modes do')
    .action(async (dir: string | undefined, options: CommonOptions & { allowOther?: boolean }) => {
      const client = clientOf(options, world);
      if (dir === undefined) {
        if (options.allowOther) throw new ControlError('USAGE', '--allow-other needs a folder');
        const answer = await client.get<{ mounts: MountInfo[] }>('/v1/mounts');
        return print(world, options, answer, () => table(answer.mounts, COLUMNS));
      }
      const body = { path: path.resolve(dir), allowOther: options.allowOther ?? false };
      const info = await client.post<MountInfo>('/v1/mounts', body);
      print(world, options, info, () => `mounted on ${info.path}\n`);
    });
  leaf(program, 'umount <dir>', 'take a mount away')
    .option('--lazy', 'although files are open there: who has them open gets errors')
    .action(async (dir: string, options: CommonOptions & { lazy?: boolean }) => {
      const at = path.resolve(dir);
      await clientOf(options, world).delete(withQuery('/v1/mounts', { path: at, lazy: options.lazy }));
      print(world, options, { path: at }, () => `unmounted ${at}\n`);
    });
}
