/**
 * The command line of the benchmark.
 */
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { CHECKOUT } from './daemon.ts';

export interface Options {
  rounds: number;
  /** seconds of one measurement */
  runtimeSeconds: number;
  /** smaller data and fewer repetitions: to see that it works, not to be quoted */
  quick: boolean;
  only: RegExp | null;
  peers: RegExp | null;
  out: string;
  dir: string;
  list: boolean;
}

export const USAGE = `usage: npm run bench -- [options]

  --rounds N         rounds per row, each measures every contender once (default 7)
  --runtime SECONDS  length of one measurement (default 3)
  --quick            small data, 3 rounds of 1 s: to see that it works, not to be quoted
  --only REGEX       rows whose id matches (see --list)
  --peers REGEX      contenders whose name matches, e.g. "atoll|nbdkit"
  --dir DIR          where data goes (default $ATOLL_BENCH_DIR, else the temporary folder); must not be tmpfs
  --out DIR          where the report goes (default bench/out)
  --list             names the rows and ends
`;

export class UsageError extends Error {}

export function parseOptions(argv: readonly string[], env: NodeJS.ProcessEnv): Options {
  let values: ReturnType<typeof parse>;
  try {
    values = parse(argv);
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  if (values.help) throw new UsageError('');
  const quick = values.quick ?? false;
  return {
    quick,
    rounds: whole('rounds', values.rounds ?? (quick ? '3' : '7')),
    runtimeSeconds: whole('runtime', values.runtime ?? (quick ? '1' : '3')),
    only: regex('only', values.only),
    peers: regex('peers', values.peers),
    out: path.resolve(values.out ?? path.join(CHECKOUT, 'bench/out')),
    dir: path.resolve(values.dir ?? env.ATOLL_BENCH_DIR ?? os.tmpdir()),
    list: values.list ?? false,
  };
}

function parse(argv: readonly string[]) {
  return parseArgs({
    args: [...argv],
    options: {
      rounds: { type: 'string' },
      runtime: { type: 'string' },
      quick: { type: 'boolean' },
      only: { type: 'string' },
      peers: { type: 'string' },
      dir: { type: 'string' },
      out: { type: 'string' },
      list: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  }).values;
}

function whole(name: string, text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text))
    throw new UsageError(`--${name} wants a whole number from 1 to 9999, not "${text}"`);
  return Number(text);
}

function regex(name: string, text: string | undefined): RegExp | null {
  if (text === undefined) return null;
  try {
    return new RegExp(text);
  } catch {
    throw new UsageError(`--${name}: "${text}" is no regular expression`);
  }
}
