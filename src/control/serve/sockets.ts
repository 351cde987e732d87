/** Unix sockets of the daemon: what is in the way of one, and whom it lets in. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import { ControlError } from '../errors.ts';
import { makeFolders } from '../folders.ts';

/** an old socket that does not answer by then has a listener that hangs; it is not ours to remove */
const PROBE_MS_MAX = 2_000;

export const MODE_PRIVATE = 0o600;
export const MODE_GROUP = 0o660;
const FOLDER_MODE_GROUP = 0o750;

/** The folder of the sockets: one that is there is left as it is, a new one lets in whom the sockets let in. */
export function prepareSocketFolder(folder: string, gid: number | null): void {
  if (fs.existsSync(folder)) return;
  makeFolders(folder);
  if (gid === null) return;
  fs.chownSync(folder, -1, gid);
  fs.chmodSync(folder, FOLDER_MODE_GROUP);
}

/**
 * Makes room for a socket: removes one that nobody listens on any more.
 * @throws {ControlError} HELD when somebody does, NOT_OURS when something else is there
 */
export async function clearSocketPath(socket: string): Promise<void> {
  const stat = fs.lstatSync(socket, { throwIfNoEntry: false });
  if (!stat) return;
  if (!stat.isSocket())
    throw new ControlError('NOT_OURS', `${socket} is in the way and is no socket; move it elsewhere`);
  if (await answers(socket)) {
    throw new ControlError('HELD', `another program serves ${socket}; stop it, or choose another --socket-dir`);
  }
  fs.rmSync(socket, { force: true });
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = net.connect({ path: socket });
    const timer = setTimeout(() => done(true), PROBE_MS_MAX);
    const done = (answer: boolean) => {
      clearTimeout(timer);
      probe.destroy();
      resolve(answer);
    };
    probe.once('connect', () => done(true));
    probe.once('error', (error: NodeJS.ErrnoException) => {
      // EAGAIN: somebody listens and is too busy to answer.
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') return done(false);
      if (error.code === 'EAGAIN') return done(true);
      clearTimeout(timer);
      reject(error);
    });
  });
}

/** Lets the group in, when there is one; the socket was made for its owner alone. */
export function openToGroup(socket: string, gid: number | null): void {
  if (gid !== null) fs.chownSync(socket, -1, gid);
  fs.chmodSync(socket, gid === null ? MODE_PRIVATE : MODE_GROUP);
}

/**
 * @param group name or number
 * @throws {ControlError} NOT_FOUND
 */
export function groupId(group: string): number {
  if (/^\d{1,10}$/.test(group)) return Number(group);
  const entry = groupEntry(group);
  const gid = entry?.split(':')[2];
  if (gid === undefined)
    throw new ControlError('NOT_FOUND', `there is no group ${JSON.stringify(group)} on this machine`);
  return Number(gid);
}

/** getent knows every source of groups; the file is for systems without it */
function groupEntry(group: string): string | undefined {
  if (group.startsWith('-') || /[\s:]/.test(group)) return undefined;
  try {
    return execFileSync('getent', ['group', group], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch (error) {
    if ((error as { code?: string }).code !== 'ENOENT') return undefined;
    const lines = fs.readFileSync('/etc/group', 'utf8').split('\n');
    return lines.find((line) => line.startsWith(`${group}:`));
  }
}
