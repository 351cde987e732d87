/** What every command gets, and the options that every command has. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { ControlClient } from '../client.ts';
import { describeError } from '../errors.ts';
import { findControlSocket, resolveHome } from '../home.ts';
import { parseSize, parseVolumeSize } from '../sizes.ts';

/** The world as a command sees it; tests have their own. */
export interface World {
  out: (text: string) => void;
  err: (text: string) => void;
  /** stderr is a terminal: progress bars make sense */
  terminal: boolean;
  env: NodeJS.ProcessEnv;
  /** aborted by SIGINT and SIGTERM */
  signal: AbortSignal;
  /** what the process ends with when a command says so without failing */
  setExitCode: (code: number) => void;
}

export interface CommonOptions {
  json?: boolean;
  home?: string;
  socket?: string;
}

/** A leaf of the command tree, with the options that all leaves have. */
export function leaf(parent: Command, usage: string, description: string): Command {
  return parent
    .command(usage)
    .description(description)
    .option('--json', 'machine-readable output: one JSON document')
    .addOption(new Option('--home <dir>', 'the daemon’s home (default: $ATOLL_HOME, else ./var/atoll)'))
    .addOption(
      new Option('--socket <path>', 'the daemon’s control socket, when it is not in the home').env('ATOLL_SOCKET'),
    );
}

export function group(parent: Command, name: string, description: string): Command {
  return parent.command(name).description(description);
}

export function clientOf(options: CommonOptions, world: World): ControlClient {
  const home = resolveHome(options.home, world.env);
  const socket = options.socket ?? findControlSocket(home);
  const startHint = options.home || world.env.ATOLL_HOME ? `atoll serve --home ${shellWord(home)}` : 'atoll serve';
  return new ControlClient({ socket, startHint });
}

/** One document, for programs; or text, for people. */
export function print(world: World, options: CommonOptions, document: unknown, text: () => string): void {
  world.out(options.json ? `${JSON.stringify(document)}\n` : text());
}

/** Option parsers: what commander reports as a wrong argument. */
export const sizeOption = (text: string): number => asArgument(() => parseSize(text));
export const volumeSizeOption = (text: string): number => asArgument(() => parseVolumeSize(text));

export function countOption(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`It has to be a number, ${min} to ${max}.`);
    return value;
  };
}

function asArgument<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new InvalidArgumentError(describeError(error).message);
  }
}

/** A word as a shell would want it typed. */
export function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
