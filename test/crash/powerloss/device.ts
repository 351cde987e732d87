/**
 * A disk with ext4 on it that logs every write and every flush: an image behind qemu's `blklogwrites` driver, which
 * nbdfuse makes a file, on which a loop device stands.
 *
 * Everything lies in one folder, and one process, take-down.sh, takes it down, also when the tests are killed: it waits
 * for the end of its input, which it gets from us.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Children, describe } from '../../../bench/children.ts';

/** A folder in memory makes each flush of an image cost nothing; it must have room for the images and the log. */
const MEMORY_DIR = '/dev/shm';
const MEMORY_BYTES_MIN = 4 * 1024 ** 3;
/** The file of nbdfuse is there soon, or never. */
const MOUNT_MS_MAX = 20_000;
const POLL_MS = 10;
const JOURNAL_MIB = 8;
const PROGRAMS = ['qemu-storage-daemon', 'nbdfuse', 'losetup', 'mkfs.ext4', 'mount', 'umount', 'awk', 'cc'];

/** Why there can be no such disk here, or null. */
export function whyNoDevice(): string | null {
  if (process.getuid?.() !== 0) return 'mounting needs root';
  for (const file of ['/dev/fuse', '/dev/loop-control']) if (!fs.existsSync(file)) return `there is no ${file}`;
  const folders = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`.split(':');
  const missing = PROGRAMS.filter((name) => !folders.some((folder) => fs.existsSync(path.join(folder, name))));
  if (missing.length > 0) return `not installed: ${missing.join(' ')}`;
  if (!/\bext4\b/.test(fs.readFileSync('/proc/filesystems', 'utf8'))) return 'this kernel has no ext4';
  return null;
}

/** A folder that is taken down for certain. */
export class Stand {
  readonly dir: string;
  readonly children = new Children();
  private readonly taker: ChildProcess;
  private readonly taken: Promise<string | null>;

  constructor() {
    this.dir = fs.mkdtempSync(path.join(standDir(), 'atoll-power-'));
    const script = new URL('take-down.sh', import.meta.url).pathname;
    // A group of its own: what is sent to that of the tests must not reach it.
    this.taker = spawn('sh', [script, this.dir], { stdio: ['pipe', 'ignore', 'pipe'], detached: true });
    let said = '';
    this.taker.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    this.taken = new Promise((resolve) => {
      this.taker.once('error', (error) => resolve(error.message));
      this.taker.once('close', (code) => resolve(code === 0 ? null : `exit ${code}: ${said.trim()}`));
    });
  }

  file(name: string): string {
    return path.join(this.dir, name);
  }

  /** A process that uses the mounts. */
  uses(pid: number): void {
    this.taker.stdin?.write(`first ${pid}\n`);
  }

  /** A process that serves them. */
  serves(pid: number): void {
    this.taker.stdin?.write(`last ${pid}\n`);
  }

  run(command: string, ...argv: string[]): Promise<string> {
    const env = { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` };
    return this.children.run(command, argv, { cwd: this.dir, env });
  }

  /** @throws when anything is left of it */
  async end(): Promise<void> {
    this.taker.stdin?.end();
    const failure = await this.taken;
    if (failure !== null) throw new Error(`the disk could not be taken down: ${failure}`);
  }
}

function standDir(): string {
  if (process.env.ATOLL_TEST_DIR) return process.env.ATOLL_TEST_DIR;
  try {
    const { bavail, bsize } = fs.statfsSync(MEMORY_DIR);
    if (bavail * bsize >= MEMORY_BYTES_MIN) return MEMORY_DIR;
  } catch {
    // No such folder: the ordinary one will do.
  }
  return os.tmpdir();
}

/** Mounts an image of ext4, whose journal is replayed by that. */
export async function mountImage(stand: Stand, image: string, at: string): Promise<void> {
  fs.mkdirSync(at, { recursive: true });
  // The loop device goes with the mount.
  await stand.run('mount', '-t', 'ext4', '-o', 'loop', image, at);
}

/** A process that ended may hold its files a little longer (io_uring lets go of them behind it). */
export async function unmount(stand: Stand, at: string): Promise<void> {
  const deadline = Date.now() + MOUNT_MS_MAX;
  for (;;) {
    try {
      await stand.run('umount', at);
      return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await sleep(POLL_MS);
    }
  }
}

export class LoggedDisk {
  /** where the file system is */
  readonly mount: string;
  /** the device before the first entry of the log */
  readonly pristine: string;
  /** the device */
  readonly image: string;
  readonly log: string;
  private logFd = -1;

  private constructor(readonly stand: Stand) {
    this.mount = stand.file('mnt');
    this.pristine = stand.file('pristine.raw');
    this.image = stand.file('disk.raw');
    this.log = stand.file('writes.log');
  }

  /** An empty file system, mounted; what is written from now on is logged. */
  static async make(stand: Stand, bytes: number): Promise<LoggedDisk> {
    const disk = new LoggedDisk(stand);
    fs.writeFileSync(disk.pristine, '');
    fs.truncateSync(disk.pristine, bytes);
    const options = ['-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard', '-J', `size=${JOURNAL_MIB}`];
    await stand.run('mkfs.ext4', '-q', '-F', ...options, disk.pristine);
    await stand.run('cp', '--sparse=always', disk.pristine, disk.image);
    fs.writeFileSync(disk.log, '');
    disk.logFd = fs.openSync(disk.log, 'r');
    await disk.serve();
    await mountImage(stand, path.join(stand.file('fuse'), 'disk'), disk.mount);
    return disk;
  }

  private async serve(): Promise<void> {
    const { stand } = this;
    const socket = stand.file('nbd.sock');
    // Flushes are entries of the log; whether our own disk has the image does not matter.
    const file = (name: string, filename: string): string =>
      `driver=file,node-name=${name},filename=${filename},cache.no-flush=on`;
    const server = await stand.children.server(
      'qemu-storage-daemon',
      [
        ...['--blockdev', file('data', this.image)],
        ...['--blockdev', file('log', this.log)],
        ...['--blockdev', 'driver=blklogwrites,node-name=logged,file=data,log=log,log-sector-size=512'],
        ...['--nbd-server', `addr.type=unix,addr.path=${socket}`],
        ...['--export', 'type=nbd,id=disk,node-name=logged,name=,writable=on'],
      ],
      socket,
      stand.file('qemu.log'),
    );
    stand.serves(server.pid);
    fs.mkdirSync(stand.file('fuse'));
    const output = fs.openSync(stand.file('nbdfuse.log'), 'a');
    // One request at a time: the log then says what was complete when.
    const mounting = stand.children.spawn(
      'nbdfuse',
      ['-s', '-C', '1', stand.file('fuse/disk'), `nbd+unix:///?socket=${socket}`],
      { stdio: ['ignore', output, output] },
    );
    fs.closeSync(output);
    stand.serves(mounting.pid);
    const deadline = Date.now() + MOUNT_MS_MAX;
    while (!fs.existsSync(stand.file('fuse/disk'))) {
      const why = mounting.finished ? `ended with ${describe(mounting.finished)}` : 'did not mount its file in time';
      if (mounting.finished || Date.now() > deadline)
        throw new Error(`nbdfuse ${why}: ${fs.readFileSync(stand.file('nbdfuse.log'), 'utf8')}`);
      await sleep(POLL_MS);
    }
  }

  /** How long the log is. */
  position(): number {
    return fs.fstatSync(this.logFd).size;
  }

  /** Unmounts it; the log is complete then. */
  async close(): Promise<void> {
    await unmount(this.stand, this.mount);
    await unmount(this.stand, this.stand.file('fuse'));
    fs.closeSync(this.logFd);
  }
}
