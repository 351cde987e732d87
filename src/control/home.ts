/** Where a daemon lives, and how a client finds it. */
import fs from 'node:fs';
import path from 'node:path';
import { ControlError, describeError } from './errors.ts';
import { makeFolders } from './folders.ts';

/** the path of a unix socket has to fit into sockaddr_un, with a zero behind it (unix(7)) */
export const SOCKET_PATH_BYTES_MAX = 107;

const CONTROL_SOCKET = 'control.sock';
const NBD_SOCKET = 'nbd.sock';
/** says where a running daemon's sockets are; only a hint, the sockets themselves are asked */
const DAEMON_FILE = 'daemon.json';

/** what a home may have in it before its store is made, besides what a lost or unfinished store leaves (`store.db…`) */
const OWN_FILES = new Set([
  CONTROL_SOCKET,
  NBD_SOCKET,
  DAEMON_FILE,
  `${DAEMON_FILE}.new`,
  'mounts.json',
  'mounts.json.new',
  'lock',
  'lock-journal',
  'holder',
  'pools',
  'cloud',
  'lost+found',
]);
/** what makes a folder a home of ours (docs/format.md) */
export const STORE_FILE = 'store.db';

export interface HomePaths {
  home: string;
  control: string;
  nbd: string;
  daemonFile: string;
}

/** `--home`, else $ATOLL_HOME, else ./var/atoll */
export function resolveHome(option: string | undefined, env: NodeJS.ProcessEnv): string {
  return path.resolve(option || env.ATOLL_HOME || path.join('var', 'atoll'));
}

/** @throws {ControlError} INVALID when a socket's path is longer than the system allows */
export function homePaths(home: string, socketDir: string | undefined): HomePaths {
  const dir = socketDir === undefined ? home : path.resolve(socketDir);
  const paths = {
    home,
    control: path.join(dir, CONTROL_SOCKET),
    nbd: path.join(dir, NBD_SOCKET),
    daemonFile: path.join(home, DAEMON_FILE),
  };
  checkSocketPath(paths.control);
  checkSocketPath(paths.nbd);
  return paths;
}

export function checkSocketPath(socket: string): void {
  const bytes = Buffer.byteLength(socket);
  if (bytes <= SOCKET_PATH_BYTES_MAX) return;
  const what = `the path of a socket may have ${SOCKET_PATH_BYTES_MAX} bytes, ${socket} has ${bytes}`;
  throw new ControlError('INVALID', `${what}; use a shorter home, or --socket-dir`);
}

/**
 * Makes the home, 0700, where there is none.
 * @throws {ControlError} NOT_OURS when something else lives there
 */
export function prepareHome(home: string): void {
  try {
    makeFolders(home);
  } catch (error) {
    const { code, message } = describeError(error);
    throw new ControlError(code, `cannot make the home: ${message}; choose another with --home`);
  }
  if (!fs.statSync(home).isDirectory()) {
    throw new ControlError('NOT_OURS', `${home} is not a folder; choose another with --home`);
  }
  const entries = fs.readdirSync(home);
  if (entries.includes(STORE_FILE)) return;
  const foreign = entries.find((name) => !OWN_FILES.has(name) && !name.startsWith(STORE_FILE));
  if (foreign !== undefined) {
    const text = `${home} holds other things (${foreign}) and is no Atoll home; choose an empty or a new folder`;
    throw new ControlError('NOT_OURS', text);
  }
}

export interface DaemonFile {
  pid: number;
  control: string;
  nbd: string[];
}

export function writeDaemonFile(file: string, content: DaemonFile): void {
  fs.writeFileSync(`${file}.new`, `${JSON.stringify(content)}\n`, { mode: 0o600 });
  fs.renameSync(`${file}.new`, file);
}

/** Where the control socket of a home is: what the daemon wrote down, else the default place. */
export function findControlSocket(home: string): string {
  try {
    const content = JSON.parse(fs.readFileSync(path.join(home, DAEMON_FILE), 'utf8')) as Partial<DaemonFile>;
    if (typeof content.control === 'string') return content.control;
  } catch {
    // Not there, not readable by us, or half a file of an old crash: the default place is as good a guess as any.
  }
  return path.join(home, CONTROL_SOCKET);
}
