/**
 * What is mounted (docs/fuse.md): mounts and unmounts trees, and writes down which, so that a daemon that was killed mounts them
 * again. Looks at mounts through /proc only: whoever touches his own waits for himself.
 */
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { Tree } from '../frontends/fuse/tree.ts';
import type { Engine } from '../xseg/types.ts';
import { ControlError, describeError, oneLine } from './errors.ts';
import type { Log } from './log.ts';

export interface MountInfo {
  path: string;
  allowOther: boolean;
}

/** mounts of one daemon */
export const MOUNTS_MAX = 16;
const MOUNTS_FILE = 'mounts.json';
const FILE_SYSTEM = 'fuse.atoll';

const run = promisify(execFile);

interface Mounted extends MountInfo {
  tree: Tree;
}

export class Mounts {
  readonly #file: string;
  readonly #mounted = new Map<string, Mounted>();
  /** asked for and not there: they could not be mounted at the start */
  readonly #missing = new Map<string, MountInfo>();
  /** that memory can wait for a mount: once */
  #warned = false;
  /** one change after another */
  #changes: Promise<unknown> = Promise.resolve();

  constructor(
    readonly engine: Engine,
    home: string,
    readonly log: Log,
  ) {
    this.#file = path.join(home, MOUNTS_FILE);
  }

  list(): MountInfo[] {
    return [...this.#mounted.values()]
      .map(({ path: at, allowOther }) => ({ path: at, allowOther }))
      .sort((a, b) => a.path.localeCompare(b.path));
  }

  /** Resolves when the tree is live. @throws {ControlError} */
  add(wanted: MountInfo): Promise<MountInfo> {
    return this.#oneChange(async () => {
      const info = { path: await this.#folder(wanted.path), allowOther: wanted.allowOther };
      if (this.#mounted.size >= MOUNTS_MAX) throw new ControlError('BUSY', `a daemon has at most ${MOUNTS_MAX} mounts`);
      await this.#mount(info);
      this.#missing.delete(info.path);
      this.#write();
      return info;
    });
  }

  /** @throws {ControlError} NOT_FOUND; BUSY when files are open there and `lazy` is not given */
  remove(at: string, lazy: boolean): Promise<void> {
    return this.#oneChange(async () => {
      const mounted = this.#mounted.get(at);
      if (mounted === undefined) {
        if (this.#missing.delete(at)) return this.#write();
        throw new ControlError('NOT_FOUND', `${at} is not mounted by this daemon`);
      }
      if (!lazy) await this.#unmountUnused(at);
      await mounted.tree.close();
      this.#mounted.delete(at);
      this.#write();
    });
  }

  /** After a start: what was mounted before is again. What a killed daemon left is detached first. */
  async restore(): Promise<void> {
    for (const info of this.#read()) {
      try {
        await this.#oneChange(async () => {
          await detachStale(info.path);
          await this.#mount(info);
        });
      } catch (error) {
        this.#missing.set(info.path, info);
        this.log('warn', 'mount.failed', { path: info.path, reason: describeError(error).message });
      }
    }
  }

  /** Detaches all; the next start mounts them again. */
  async close(): Promise<void> {
    await this.#changes;
    for (const { tree } of this.#mounted.values()) await tree.close();
    this.#mounted.clear();
  }

  /**
   * Refuses a path of the daemon's own work that lies in one of its mounts, also through symbolic links, or is a loop device on
   * a file there. @throws {ControlError} INVALID
   */
  async refuseInside(file: string): Promise<void> {
    if (this.#mounted.size === 0) return;
    this.#refuse(file, path.resolve(file));
    const real = await realPathOf(path.resolve(file));
    this.#refuse(file, real);
    const backing = await backingFile(real);
    if (backing !== null) this.#refuse(file, backing);
  }

  /** The same, asked. */
  async isInside(file: string): Promise<boolean> {
    try {
      await this.refuseInside(file);
      return false;
    } catch (error) {
      if (error instanceof ControlError) return true;
      throw error;
    }
  }

  #refuse(file: string, at: string): void {
    for (const mount of this.#mounted.keys())
      if (at === mount || at.startsWith(`${mount}/`))
        throw new ControlError(
          'INVALID',
          `${file} is in ${mount}, which this daemon serves itself; choose another place`,
        );
  }

  #oneChange<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#changes.then(work);
    this.#changes = result.catch(() => undefined);
    return result;
  }

  async #folder(at: string): Promise<string> {
    if (!path.isAbsolute(at)) throw new ControlError('INVALID', 'the path of a mount has to be absolute');
    await this.refuseInside(at);
    // not on this thread, which answers for the mounts
    const real = await fs.promises.realpath(at);
    if (!(await fs.promises.stat(real)).isDirectory()) throw new ControlError('INVALID', `${at} is not a folder`);
    if (fileSystemAt(real) === FILE_SYSTEM) throw new ControlError('BUSY', `another daemon is mounted on ${real}`);
    return real;
  }

  async #mount(info: MountInfo): Promise<void> {
    const uid = process.getuid?.() ?? 0;
    const gid = process.getgid?.() ?? 0;
    const tree = await Tree.mount(this.engine, {
      ...info,
      uid,
      gid,
      log: this.log,
      onEnd: () => this.#ended(info.path),
    });
    this.#mounted.set(info.path, { ...info, tree });
    this.log('info', 'mounted', { path: info.path });
    if (this.engine.files?.ioFlusher === false && !this.#warned) {
      this.#warned = true;
      const reason =
        'CAP_SYS_RESOURCE is missing: with a loop device on a file of it, this machine can run out of memory';
      this.log('warn', 'mount.io_flusher', { path: info.path, reason });
    }
  }

  /** Somebody unmounted it, and that is what he wanted. */
  #ended(at: string): void {
    if (!this.#mounted.delete(at)) return;
    this.log('info', 'unmounted', { path: at });
    this.#write();
  }

  async #unmountUnused(at: string): Promise<void> {
    try {
      await run('fusermount3', ['-u', at]);
    } catch (error) {
      const { code, stderr, message } = error as { code?: unknown; stderr?: string; message: string };
      if (code === 'ENOENT') throw new ControlError('TOOL_MISSING', 'fusermount3 is missing (Debian: fuse3)');
      const said = oneLine(stderr || message);
      if (/busy/i.test(said))
        throw new ControlError('BUSY', `${at} is in use; close what is open there, or use --lazy`);
      throw new ControlError('IO', said);
    }
  }

  #read(): MountInfo[] {
    try {
      const list = JSON.parse(fs.readFileSync(this.#file, 'utf8')) as MountInfo[];
      return list.filter((one) => typeof one.path === 'string' && path.isAbsolute(one.path)).slice(0, MOUNTS_MAX);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT')
        this.log('warn', 'mounts.unreadable', { file: this.#file, reason: (error as Error).message });
      return [];
    }
  }

  #write(): void {
    const list = [...this.list(), ...this.#missing.values()];
    fs.writeFileSync(`${this.#file}.new`, `${JSON.stringify(list)}\n`, { mode: 0o600 });
    fs.renameSync(`${this.#file}.new`, this.#file);
  }
}

/** Of what is there of a path, links followed; the rest as it is. Not on this thread, which answers for the mounts. */
async function realPathOf(at: string): Promise<string> {
  try {
    return await fs.promises.realpath(at);
  } catch {
    const parent = path.dirname(at);
    return parent === at ? at : path.join(await realPathOf(parent), path.basename(at));
  }
}

/** The file that a loop device is on; null for others. */
async function backingFile(device: string): Promise<string | null> {
  const name = /^\/dev\/(loop\d+)$/.exec(device)?.[1];
  if (name === undefined) return null;
  try {
    return (await fs.promises.readFile(`/sys/block/${name}/loop/backing_file`, 'utf8')).trimEnd();
  } catch {
    return null;
  }
}

/** What is mounted on a folder, last; null nothing. */
function fileSystemAt(at: string): string | null {
  let found: string | null = null;
  for (const line of fs.readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
    const [left, right] = line.split(' - ');
    const point = left
      ?.split(' ')[4]
      ?.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)));
    if (point === at) found = right?.split(' ')[0] ?? null;
  }
  return found;
}

async function detachStale(at: string): Promise<void> {
  for (let i = 0; i < MOUNTS_MAX && fileSystemAt(at) === FILE_SYSTEM; i++) await run('fusermount3', ['-u', '-z', at]);
}
