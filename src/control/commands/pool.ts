/** atoll pool … */
import path from 'node:path';
import type { Command } from 'commander';
import type { PoolCopies, PoolInfo } from '../../xseg/types.ts';
import { route, withQuery } from '../client.ts';
import { type Column, facts, shortTime, sizeFact, table } from '../output.ts';
import { formatSize, parseSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { group, leaf } from './context.ts';
import { poolSetCommand, scrubLine, sealLine } from './seal.ts';
import { exclusiveFact } from './volume.ts';

interface CreateOptions extends CommonOptions {
  path: string;
  size?: number;
  blockSize?: number;
  direct?: boolean;
  preallocate?: boolean;
}

export const POOL_COLUMNS: readonly Column<PoolInfo>[] = [
  { title: 'NAME', value: ({ name }) => name },
  { title: 'STATE', value: ({ state }) => state },
  {
    title: 'FULL',
    value: ({ fullPercent, level }) => `${Math.round(fullPercent)} %${level === 'ok' ? '' : '!'}`,
    right: true,
  },
  { title: 'USED', value: ({ usedBytes }) => formatSize(usedBytes), right: true },
  { title: 'FREE', value: ({ freeBytes }) => formatSize(freeBytes), right: true },
  { title: 'CAPACITY', value: ({ capacityBytes }) => formatSize(capacityBytes), right: true },
  { title: 'BLOCK', value: ({ blockSize }) => formatSize(blockSize), right: true },
  { title: 'DRIVER', value: ({ driver }) => driver },
  { title: 'PATH', value: ({ path: at }) => at },
];

export function poolCommands(program: Command, world: World): void {
  const pool = group(program, 'pool', 'where blocks are kept');

  leaf(pool, 'create <name>', 'make a pool in a folder, a file or on a device')
    .requiredOption('--path <path>', 'folder (new ones with a / at the end), file or block device')
    .option('--size <size>', 'how much it may hold (default: thin, as much as the file system has)', parseSize)
    .option('--block-size <size>', 'a power of two, 4K to 4M (default 64K)', parseSize)
    .option('--direct', 'O_DIRECT: past the page cache')
    .option('--preallocate', 'allocate files whole, before the first write into each; needs --size')
    .action(async (name: string, options: CreateOptions) => {
      const { size, blockSize, direct, preallocate } = options;
      const spec = { name, path: absolute(options.path), size, blockSize, direct, preallocate };
      const made = await clientOf(options, world).post<PoolInfo>(route('pools'), spec);
      print(world, options, made, () => `pool ${made.name}: ${formatSize(made.freeBytes)} free at ${made.path}\n`);
    });

  leaf(pool, 'list', 'all pools').action(async (options: CommonOptions) => {
    const answer = await clientOf(options, world).get<{ pools: PoolInfo[] }>(route('pools'));
    print(world, options, answer, () => table(answer.pools, POOL_COLUMNS));
  });

  leaf(pool, 'show <name>', 'one pool').action(async (name: string, options: CommonOptions) => {
    const found = await clientOf(options, world).get<PoolInfo>(withQuery(route('pools', name), { account: true }));
    print(world, options, found, () => poolFacts(found));
  });

  leaf(pool, 'grow <name>', 'let a pool hold more')
    .option('--size <size>', 'new size (default: what its file or device has grown to)', parseSize)
    .action(async (name: string, options: CommonOptions & { size?: number }) => {
      const body = options.size === undefined ? {} : { size: options.size };
      const grown = await clientOf(options, world).post<PoolInfo>(route('pools', name, 'grow'), body);
      print(world, options, grown, () => `pool ${grown.name}: ${sizeFact(grown.capacityBytes)}\n`);
    });

  poolSetCommand(pool, world);
}

/** Absolute, and with the slash that says that a folder is meant where there is nothing yet. */
function absolute(text: string): string {
  const resolved = path.resolve(text);
  return text.endsWith('/') && resolved !== '/' ? `${resolved}/` : resolved;
}

function poolFacts(pool: PoolInfo): string {
  return facts([
    ['name', pool.name],
    ['id', pool.id],
    ['state', pool.reason === null ? pool.state : `${pool.state}: ${pool.reason}`],
    ['driver', `${pool.driver}, ${pool.kind}${pool.direct ? ', O_DIRECT' : ''}`],
    ['path', pool.path],
    ['block size', formatSize(pool.blockSize)],
    ['capacity', sizeFact(pool.capacityBytes)],
    ['used', sizeFact(pool.usedBytes)],
    ['full', `${pool.fullPercent} %${pool.level === 'ok' ? '' : `, ${pool.level}`}`],
    ['free', sizeFact(pool.freeBytes)],
    ['volumes and snapshots', `${sizeFact(pool.logicalBytes)}, of which mapped ${sizeFact(pool.mappedBytes)}`],
    ['exclusive', exclusiveFact(pool)],
    ['shared', pool.sharedBytes === null ? 'being computed' : sizeFact(pool.sharedBytes)],
    ['on its backend', sizeFact(pool.physicalBytes)],
    ['being freed', `about ${sizeFact(pool.releasingBytes)}`],
    ['coming back', sizeFact(pool.reclaimingBytes)],
    ['copy of the store', copyFact(pool.copies)],
    ['sealing', pool.seal === null ? '-' : sealLine(pool.seal)],
    ['scrubbing', pool.seal === null ? '-' : scrubLine(pool.seal)],
  ]);
}

function copyFact(copies: PoolCopies | null): string {
  if (copies === null) return '-';
  const { takenAt, bytes, generations, heldBytes, reason } = copies;
  if (takenAt === null) return `none: ${reason}`;
  const held = heldBytes > 0 ? `; ${formatSize(heldBytes)} held for it` : '';
  const older = generations > 1 ? ', and an older one' : '';
  return `${shortTime(takenAt)}, ${formatSize(bytes)}${older}${held}${reason === null ? '' : `; ${reason}`}`;
}
