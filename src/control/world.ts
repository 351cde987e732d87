/** What every command gets of its surroundings, and how it finds the daemon and answers. */
import { ControlClient } from './client.ts';
import { findControlSocket, resolveHome } from './home.ts';
import { shellWord } from './output.ts';

/** The world as a command sees it; tests have their own. */
export interface World {
  out: (text: string) => void;
  err: (text: string) => void;
  /** stderr is a terminal: progress bars make sense */
  terminal: boolean;
  /** stdout, when that is a terminal */
  screen?: Screen | null;
  env: NodeJS.ProcessEnv;
  /** aborted by SIGINT and SIGTERM */
  signal: AbortSignal;
  /** what the process ends with when a command says so without failing */
  setExitCode: (code: number) => void;
}

/** A terminal that a command may take over. */
export interface Screen {
  /** as they are now */
  size(): { columns: number; rows: number };
  write: (text: string) => void;
  /** hears of every key until what it returns is called */
  keys(hear: (key: string) => void): () => void;
}

export interface CommonOptions {
  json?: boolean;
  home?: string;
  socket?: string;
}

export function clientOf(options: CommonOptions, world: World): ControlClient {
  const home = resolveHome(options.home, world.env);
  // A home that was typed is meant, whatever the environment says.
  const socket = options.socket || (options.home ? undefined : world.env.ATOLL_SOCKET) || findControlSocket(home);
  const startHint = options.home || world.env.ATOLL_HOME ? `atoll serve --home ${shellWord(home)}` : 'atoll serve';
  return new ControlClient({ socket, startHint });
}

/** One document, for programs; or text, for people. */
export function print(world: World, options: CommonOptions, document: unknown, text: () => string): void {
  world.out(options.json ? `${JSON.stringify(document)}\n` : text());
}
