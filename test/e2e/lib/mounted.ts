/** A daemon with its tree mounted, for one test file: `const m = new Mounted()`, `beforeAll(() => m.start())`, `afterAll(() => m.end())`. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Daemon } from '../../../bench/daemon.ts';
import { World } from './daemon.ts';

export const MOUNTED_MS_MAX = 300_000;
const WAIT_MS_MAX = 20_000;
const POLL_MS = 50;
/** a command that takes longer hangs; seconds */
const COMMAND_S_MAX = 60;

/** Why nothing can be mounted here, or null. */
export const missing = obstacle();
if (missing) console.warn(`FUSE tests are skipped: ${missing}`);

function obstacle(): string | null {
  if (process.getuid?.() !== 0) return 'only root may mount';
  if (!fs.existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  if (spawnSync('fusermount3', ['--version']).status !== 0) return 'there is no fusermount3 (package fuse3)';
  return null;
}

/**
 * Files of a mount are only touched by other processes: a daemon that hangs must not take the test with it, which could not end
 * it any more. Numbers of `code` are Linux's errno.
 */
const AGENT = `
import sys, os, json, mmap, fcntl, ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
def fallocate(fd, mode, at, n):
    if libc.fallocate(fd, mode, at, n) != 0: raise OSError(ctypes.get_errno(), 'fallocate')
def errno_of(work):
    try: work()
    except OSError as e: return e.errno
    return 0
`;

export class Mounted {
  readonly world = new World();
  daemon!: Daemon;
  /** where it is mounted */
  dir = '';
  readonly #mounts: string[] = [];
  readonly #loops = new Set<string>();

  async start(): Promise<void> {
    this.daemon = await this.world.start();
    this.dir = await this.mount('m');
  }

  /** Mounts the tree once more. */
  async mount(name: string, ...options: string[]): Promise<string> {
    const at = this.folder(name);
    await this.daemon.cli('mount', at, ...options);
    return at;
  }

  /** A folder that is unmounted at the end, whatever is mounted on it. */
  folder(name: string): string {
    const at = this.world.file(name);
    fs.mkdirSync(at, { recursive: true });
    this.#mounts.push(at);
    return at;
  }

  /** of a path in the tree */
  at(name: string): string {
    return path.join(this.dir, name);
  }

  /** Runs a command that touches the tree, for a bounded time. */
  run(command: string, ...argv: string[]): Promise<string> {
    return this.world.run('timeout', String(COMMAND_S_MAX), command, ...argv);
  }

  /** Python with AGENT before it; what it prints is JSON. */
  async agent(code: string, ...argv: string[]): Promise<unknown> {
    return JSON.parse(await this.run('python3', '-c', AGENT + code, ...argv));
  }

  async until(what: string, done: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + WAIT_MS_MAX;
    while (!(await done())) {
      if (Date.now() > deadline) throw new Error(`not within ${WAIT_MS_MAX} ms: ${what}`);
      await sleep(POLL_MS);
    }
  }

  /** @param folder of the tree, or absolute */
  async names(folder: string): Promise<string[]> {
    return (await this.run('ls', '-1', path.resolve(this.dir, folder))).split('\n').filter((name) => name !== '');
  }

  show(name: string): Promise<{ clonedFrom: string | null; size: number; mappedBytes: number; openCount: number }> {
    return this.daemon.cli('volume', 'show', name);
  }

  /** A loop device on a file; null where there are none. */
  async loop(file: string): Promise<string | null> {
    if (spawnSync('losetup', ['--find']).status !== 0) return null;
    const device = (await this.run('losetup', '--find', '--show', file)).trim();
    this.#loops.add(device);
    return device;
  }

  async detach(device: string): Promise<void> {
    await this.world.run('losetup', '--detach', device);
    this.#loops.delete(device);
  }

  async end(): Promise<void> {
    for (const device of this.#loops) spawnSync('losetup', ['--detach', device]);
    for (const at of this.#mounts.reverse()) spawnSync('umount', ['--lazy', at], { stdio: 'ignore' });
    await this.world.end();
  }
}
