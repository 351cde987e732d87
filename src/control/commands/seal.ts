/** atoll pool set, atoll seal … */
import { type Command, InvalidArgumentError } from 'commander';
import type { PoolInfo, PoolSettings, SealInfo } from '../../xseg/types.ts';
import { route } from '../client.ts';
import { ControlError } from '../errors.ts';
import { shortTime } from '../output.ts';
import { formatSize, parseSize } from '../sizes.ts';
import { type CommonOptions, clientOf, print, type World } from '../world.ts';
import { group, leaf } from './context.ts';

interface SetOptions extends CommonOptions {
  seal?: boolean;
  sealRate?: number;
  scrubRate?: number;
  verifyOnRead?: boolean;
}

function onOff(text: string): boolean {
  if (text !== 'on' && text !== 'off') throw new InvalidArgumentError('It has to be on or off.');
  return text === 'on';
}

/** A size per second; `word` stands for 0. */
function rate(word: string): (text: string) => number {
  return (text) => (text === word ? 0 : parseSize(text));
}

/** `atoll pool set`: the group is pool.ts's. */
export function poolSetCommand(pool: Command, world: World): void {
  leaf(pool, 'set <name>', 'how a pool is sealed and scrubbed; what is not given stays')
    .option('--seal <on|off>', 'hash snapshots in the background and keep equal blocks once', onOff)
    .option('--seal-rate <size>', 'bytes per second read for it, or max', rate('max'))
    .option('--scrub-rate <size>', 'bytes per second read to verify what is sealed, or off', rate('off'))
    .option(
      '--verify-on-read <on|off>',
      'compare sealed blocks with their hashes before their bytes are returned',
      onOff,
    )
    .action(async (name: string, options: SetOptions) => {
      const { seal, sealRate, scrubRate, verifyOnRead } = options;
      if ([seal, sealRate, scrubRate, verifyOnRead].every((one) => one === undefined))
        throw new ControlError('USAGE', 'say what to set: --seal, --seal-rate, --scrub-rate, --verify-on-read');
      const pool = await clientOf(options, world).post<PoolInfo>(route('pools', name, 'set'), {
        seal,
        sealRate,
        scrubRate,
        verifyOnRead,
      });
      print(
        world,
        options,
        pool,
        () => `pool ${pool.name}: ${pool.seal === null ? 'not open' : sealLine(pool.seal)}\n`,
      );
    });
}

export function sealCommands(program: Command, world: World): void {
  const seal = group(program, 'seal', 'the sealing of snapshots');
  for (const [word, paused, description] of [
    ['pause', true, 'stop sealing for now, in one pool or in all'],
    ['resume', false, 'go on with it'],
  ] as const) {
    leaf(seal, `${word} [pool]`, description).action(async (name: string | undefined, options: CommonOptions) => {
      const client = clientOf(options, world);
      const names = name === undefined ? await openPools(client) : [name];
      const settings: PoolSettings = { sealPaused: paused };
      const pools: PoolInfo[] = [];
      for (const one of names) pools.push(await client.post<PoolInfo>(route('pools', one, 'set'), settings));
      print(world, options, { pools }, () =>
        pools.map((p) => `pool ${p.name}: ${p.seal === null ? 'not open' : sealLine(p.seal)}\n`).join(''),
      );
    });
  }
}

async function openPools(client: ReturnType<typeof clientOf>): Promise<string[]> {
  const { pools } = await client.get<{ pools: PoolInfo[] }>(route('pools'));
  return pools.filter((pool) => pool.seal !== null).map((pool) => pool.name);
}

/** What sealing does in a pool, in one line. */
export function sealLine(seal: SealInfo): string {
  if (!seal.on && seal.entries === 0) return 'off';
  const state = seal.on ? (seal.paused ? 'paused' : 'on') : 'off';
  const pace = seal.rate > 0 ? ` at ${formatSize(seal.rate)}/s` : '';
  const index = `index ${seal.entries} blocks, about ${formatSize(seal.indexBytes)}`;
  const done = `${formatSize(seal.hashedBytes)} hashed, ${formatSize(seal.foldedBytes)} folded (ratio ${seal.dedupRatio.toFixed(2)})`;
  const left = `${seal.backlogSnapshots} snapshots to go, at most ${formatSize(seal.backlogBytes)}`;
  return `${state}${pace}; ${done}; ${index}; ${left}`;
}

/** What scrubbing found in a pool, in one line. */
export function scrubLine(seal: SealInfo): string {
  const pace = seal.scrubRate > 0 ? `at ${formatSize(seal.scrubRate)}/s` : 'off';
  const last = seal.scrubbedAt === null ? 'no whole pass yet' : `last whole pass ended ${shortTime(seal.scrubbedAt)}`;
  const reads = seal.verifyOnRead ? '; reads are verified' : '';
  return `${pace}; ${last}; ${seal.quarantined} blocks in quarantine${reads}`;
}
