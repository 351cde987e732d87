/** Reads an image through qemu-nbd: for who wants its bytes in order, whatever lies where in the file. */
import fs from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlError } from '../errors.ts';
import { SOCKET_PATH_BYTES_MAX } from '../home.ts';
import { NbdClient } from '../nbd/client.ts';
import { failureOf, interrupted, type QemuToolOptions, type RunningTool, startTool } from './qemu-tool.ts';

export interface QemuNbdOptions extends Omit<QemuToolOptions, 'args'> {
  /** a `json:` file name (images.ts) */
  image: string;
  /** how the source is called in messages */
  sourceName: string;
}

/** what it serves, in messages */
const EXPORT = 'image';
/** a tool that does not listen by then is given up, in ms; and how often we look */
const LISTEN_MS_MAX = 30_000;
const LISTEN_POLL_MS = 5;
/** in which it ends, without a connection or asked to, in ms */
const END_MS_MAX = 2_000;

/**
 * Serves the image on a socket that only this user reaches, for as long as `work` takes.
 * @throws {ControlError} TOOL_MISSING, INTERRUPTED, DAMAGED, …
 */
export async function withQemuNbd<T>(options: QemuNbdOptions, work: (nbd: NbdClient) => Promise<T>): Promise<T> {
  // 0700
  const folder = await fs.mkdtemp(path.join(os.tmpdir(), 'atoll-import-'));
  const forget = () => fs.rm(folder, { recursive: true, force: true });
  try {
    const socket = path.join(folder, 'nbd.sock');
    if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX)
      throw new ControlError('INVALID', `${os.tmpdir()} is too long for a socket in it; set TMPDIR to a shorter one`);
    // Not --persistent: from when we are connected it ends with us, however we end.
    const args = ['--read-only', '--export-name', EXPORT, '--socket', socket, options.image];
    const tool = startTool('qemu-nbd', { ...options, args });
    tool.child.stdout?.resume();
    try {
      const nbd = await connect(tool, socket);
      try {
        await forget();
        return await work(nbd);
      } finally {
        await nbd.close();
      }
    } catch (error) {
      throw options.signal.aborted ? interrupted() : await reasonOf(tool, error, options.sourceName);
    } finally {
      await end(tool);
    }
  } finally {
    await forget();
  }
}

/** As soon as it listens. */
async function connect({ ended }: RunningTool, socket: string): Promise<NbdClient> {
  const over = ended.then(() => {
    throw new ControlError('PROTOCOL', 'qemu-nbd ended');
  });
  over.catch(() => undefined);
  const until = performance.now() + LISTEN_MS_MAX;
  for (;;) {
    try {
      return await Promise.race([NbdClient.connect({ socket, exportName: EXPORT }), over]);
    } catch (error) {
      const listens = !(error instanceof ControlError && error.code === 'NO_DAEMON');
      if (listens || performance.now() > until) throw error;
    }
    await Promise.race([sleep(LISTEN_POLL_MS), over]);
  }
}

/** It listens before it has opened its image, and what it says of that is better than that its connection broke. */
async function reasonOf({ ended }: RunningTool, error: unknown, sourceName: string): Promise<unknown> {
  const how = await Promise.race([ended, sleep(END_MS_MAX, null, { ref: false })]);
  return how === null || how.status === 0 ? error : failureOf('qemu-nbd', how.stderr, sourceName);
}

async function end({ child, ended }: RunningTool): Promise<void> {
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), END_MS_MAX);
  await ended.catch(() => undefined);
  clearTimeout(timer);
}
