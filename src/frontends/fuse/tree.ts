/**
 * The tree of files that a mount shows (docs/fuse.md): answers what the kernel asks about names, attributes and opening, and tells
 * it what changed. Data passes by in native code (native/fuse). Start at `#answer`.
 */
import { nameProblem } from '../../xseg/names.ts';
import {
  type Engine,
  EngineError,
  type FileNode,
  type Files,
  type MountAnswer,
  type MountSettings,
  type NodeChange,
  type NodeFolder,
} from '../../xseg/types.ts';
import { EINVAL, EIO, EISDIR, ENAMETOOLONG, ENOENT, EOPNOTSUPP, EPERM, EROFS, errnoOf, Refusal } from './errno.ts';
import { ownerIno, placeOf, ROOT, SNAPSHOTS, snapshotIno, VOLUMES, volumeIno } from './numbers.ts';
import { SnapshotCopy } from './snapshot-copy.ts';

/** native/fuse/names.h */
const ASK = {
  lookup: 1,
  getattr: 2,
  setattr: 3,
  open: 4,
  release: 5,
  create: 6,
  mknod: 7,
  unlink: 8,
  rename: 9,
  statfs: 10,
  list: 11,
  copy: 12,
  grow: 13,
  settle: 14,
  mkdir: 15,
} as const;

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const O_ACCMODE = 3;
const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const SET_MODE = 1;
const SET_UID = 2;
const SET_GID = 4;
const SET_SIZE = 8;
const SET_TIMES = 0x10 | 0x20 | 0x80 | 0x100;
const SET_MTIME = 0x20 | 0x100;
const RENAME_NOREPLACE = 1;
/** longest name, bytes */
const NAME_BYTES_MAX = 255;
const SECTOR = 512;
/** what programs read and write at once when they ask */
const IO_BYTES = 128 * 1024;
const NODE_NUMBERS = 8;
/** A file that was closed a moment ago may still be being released: deleting it is tried again for so long. */
const RELEASE_WAIT_MS = 500;
const RELEASE_STEP_MS = 10;
/** a mount that is not live by then is none */
const LIVE_MS_MAX = 10_000;

interface Question {
  token: number;
  what: number;
  ino: number;
  ino2: number;
  name: string;
  name2: string;
  a: number;
  b: number;
  c: number;
  d: number;
}

export interface TreeOptions extends MountSettings {
  log: (level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>) => void;
  /** it was unmounted by somebody else */
  onEnd: () => void;
}

export class Tree {
  #mount = -1;
  #deaf: () => void = () => undefined;
  /** names and numbers that this mount is changing itself, about which the kernel need not be told */
  readonly #own = new Map<string, number>();
  /** by ino: handle, and how often it is open here */
  readonly #opens = new Map<number, { handle: number; count: number; blockSize: number }>();
  /** by ino: volumes that are being copied into */
  readonly #copies = new Map<number, SnapshotCopy>();
  /** pieces of copies, one after another */
  #copying: Promise<unknown> = Promise.resolve();
  /** by ino: when it changed last, as far as somebody looked; and what its counter said then */
  readonly #times = new Map<number, { ms: number; changes: number }>();
  /** snapshots that were made here and are open since */
  readonly #made = new Set<number>();
  readonly #started = Date.now();

  private constructor(
    readonly engine: Engine,
    readonly files: Files,
    readonly options: TreeOptions,
  ) {}

  /** Resolves when the kernel uses it. @throws {EngineError} */
  static async mount(engine: Engine, options: TreeOptions): Promise<Tree> {
    const { files } = engine;
    if (files === undefined) throw new EngineError('UNSUPPORTED', 'this engine has no files to mount');
    const tree = new Tree(engine, files, options);
    await tree.#start();
    return tree;
  }

  async #start(): Promise<void> {
    const { path, allowOther, uid, gid } = this.options;
    let heard: (live: boolean) => void = () => undefined;
    const live = new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => resolve(false), LIVE_MS_MAX);
      heard = (answer) => {
        clearTimeout(timer);
        resolve(answer);
      };
    });
    try {
      this.#mount = this.files.mount(
        { path, allowOther, uid, gid },
        {
          ask: (token, what, ino, ino2, name, name2, a, b, c, d) =>
            void this.#asked({ token, what, ino, ino2, name, name2, a, b, c, d }),
          live: () => heard(true),
          ended: () => {
            heard(false);
            void this.close();
            this.options.onEnd();
          },
        },
      );
    } catch (error) {
      heard(false);
      throw mountError(error as Error);
    }
    this.#deaf = this.files.onChange((change) => this.#changed(change));
    if (await live) return;
    await this.close();
    throw new EngineError('IO', `the kernel does not use ${path}`);
  }

  /** Detaches it; whoever has files open gets ENOTCONN. Resolves when what was copied is there. */
  async close(): Promise<void> {
    this.#deaf();
    if (this.#mount < 0) return;
    this.files.unmount(this.#mount);
    this.#mount = -1;
    for (const ino of this.#copies.keys())
      await this.#settle(ino).catch((error: Error) =>
        this.options.log('error', 'fuse.copy_lost', { ino, reason: error.message }),
      );
    for (const { handle, count } of this.#opens.values())
      for (let i = 0; i < count; i++) void this.engine.release(handle).catch(() => undefined);
    this.#opens.clear();
  }

  async #asked(q: Question): Promise<void> {
    try {
      const answer = await this.#answer(q);
      if (q.what !== ASK.release) this.files.answer(this.#mount, q.token, 0, answer);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === EIO)
        this.options.log('error', 'fuse.failed', { what: q.what, name: q.name, reason: (error as Error).message });
      if (q.what !== ASK.release) this.files.answer(this.#mount, q.token, errno);
    }
  }

  async #answer(q: Question): Promise<MountAnswer> {
    switch (q.what) {
      case ASK.lookup:
        return { node: await this.#lookup(q.ino, q.name) };
      case ASK.getattr:
        return { node: await this.#attributes(q.ino) };
      case ASK.setattr:
        return { node: await this.#setAttributes(q) };
      case ASK.open:
        return { open: await this.#open(q.ino, q.a) };
      case ASK.release:
        return this.#release(q.ino, q.a);
      case ASK.create:
        return this.#create(q.ino, q.name, q.a);
      case ASK.mknod:
        return { node: await this.#make(q.ino, q.name) };
      case ASK.unlink:
        return this.#unlink(q.ino, q.name);
      case ASK.rename:
        return this.#rename(q);
      case ASK.statfs:
        return { statistics: await this.#statistics(q.ino) };
      case ASK.list:
        return this.#list(q.ino, q.a);
      case ASK.grow:
        return this.#grow(q.ino, q.a);
      case ASK.copy:
        return { copy: Float64Array.of(await this.#copy(q.ino, q.a, q.ino2, q.b, q.c)) };
      case ASK.settle:
        return this.#settle(q.ino);
      case ASK.mkdir:
        throw new Refusal(EPERM);
      default:
        throw new Refusal(EOPNOTSUPP);
    }
  }

  // ---- nodes

  #folder(ino: number, links: number): Float64Array {
    const mode = S_IFDIR | (this.options.allowOther ? 0o770 : 0o700);
    return Float64Array.of(ino, mode, links, 0, 0, IO_BYTES, this.#started, this.#started);
  }

  #file(node: FileNode): Float64Array {
    const write = node.kind === 'volume' ? 0o220 : 0;
    const mode = S_IFREG | ((0o440 | write) & (this.options.allowOther ? 0o660 : 0o600));
    const ino = node.kind === 'volume' ? volumeIno(node.id) : snapshotIno(node.id);
    const time = this.#time(ino, node);
    const size = this.#copies.get(ino)?.size ?? node.size;
    // a snapshot seems to have no holes: from files with holes `cp` reads, and asks for no clone (docs/fuse.md, "Clones")
    const blocks = (node.kind === 'snapshot' ? size : Math.min(node.mappedBytes, size)) / SECTOR;
    return Float64Array.of(ino, mode, 1, size, Math.ceil(blocks), IO_BYTES, time, time);
  }

  /** Times of volumes are not stored: since it was made, or since something here saw that it changed. */
  #time(ino: number, node: FileNode): number {
    const known = this.#times.get(ino);
    if (node.changes !== 0 && node.changes !== known?.changes) {
      const ms = Date.now();
      this.#times.set(ino, { ms, changes: node.changes });
      return ms;
    }
    return known?.ms ?? node.createdMs;
  }

  async #lookup(ino: number, name: string): Promise<Float64Array> {
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw new Refusal(ENAMETOOLONG);
    const place = placeOf(ino);
    switch (place?.kind) {
      case 'root':
        if (name === 'volumes') return this.#folder(VOLUMES, 2);
        if (name === 'snapshots') return this.#folder(SNAPSHOTS, 2);
        throw new Refusal(ENOENT);
      case 'volumes':
        return this.#file(await this.files.lookup('volumes', name));
      case 'snapshots':
        return this.#folder(ownerIno((await this.files.lookup('owners', name)).id), 2);
      case 'owner':
        return this.#file(await this.files.lookup(place.id, name));
      default:
        throw new Refusal(ENOENT);
    }
  }

  async #attributes(ino: number): Promise<Float64Array> {
    const place = placeOf(ino);
    switch (place?.kind) {
      case 'root':
        return this.#folder(ROOT, 4);
      case 'volumes':
      case 'snapshots':
        return this.#folder(ino, 2);
      case 'owner':
        await this.files.node(place.id);
        return this.#folder(ino, 2);
      case 'volume':
      case 'snapshot':
        return this.#file(await this.files.node(place.id));
      default:
        throw new Refusal(ENOENT);
    }
  }

  async #list(ino: number, afterIno: number): Promise<MountAnswer> {
    const place = placeOf(ino);
    const after = Math.floor(afterIno / 8);
    if (place?.kind === 'root') {
      const all = [
        { name: 'volumes', ino: VOLUMES },
        { name: 'snapshots', ino: SNAPSHOTS },
      ].filter((one) => one.ino > afterIno);
      const list = new Float64Array(all.length * NODE_NUMBERS);
      all.forEach((one, i) => {
        list.set(this.#folder(one.ino, 2), i * NODE_NUMBERS);
      });
      return { list, names: all.map(({ name }) => name), end: true };
    }
    let folder: NodeFolder;
    if (place?.kind === 'volumes') folder = 'volumes';
    else if (place?.kind === 'snapshots') folder = 'owners';
    else if (place?.kind === 'owner') folder = place.id;
    else throw new Refusal(ENOENT);
    // a page may hold nothing but what is hidden
    let page = await this.files.list(folder, after);
    while (page.nodes.length === 0 && !page.end) page = await this.files.list(folder, page.last);
    const list = new Float64Array(page.nodes.length * NODE_NUMBERS);
    page.nodes.forEach((node, i) => {
      list.set(folder === 'owners' ? this.#folder(ownerIno(node.id), 2) : this.#file(node), i * NODE_NUMBERS);
    });
    return { list, names: page.nodes.map(({ name }) => name), end: page.end };
  }

  // ---- changing

  /** Runs `work` while changes of what it names are not told to this mount: it makes them. */
  async #owning<T>(keys: string[], work: () => Promise<T>): Promise<T> {
    for (const key of keys) this.#own.set(key, (this.#own.get(key) ?? 0) + 1);
    try {
      return await work();
    } finally {
      for (const key of keys) {
        const left = (this.#own.get(key) as number) - 1;
        if (left === 0) this.#own.delete(key);
        else this.#own.set(key, left);
      }
    }
  }

  async #setAttributes(q: Question): Promise<Float64Array> {
    const place = placeOf(q.ino);
    const before = await this.#attributes(q.ino);
    const [mode, uid, gid] = q.name2.split(' ').map(Number);
    if ((q.a & SET_MODE) !== 0 && mode !== (before[1] & 0o7777)) throw new Refusal(EPERM);
    if ((q.a & SET_UID) !== 0 && uid !== this.options.uid) throw new Refusal(EPERM);
    if ((q.a & SET_GID) !== 0 && gid !== this.options.gid) throw new Refusal(EPERM);
    // `touch` sets the times of what it has just made and still has open, which changes nothing
    const made = this.#made.has(q.ino) && (q.a & SET_SIZE) === 0;
    if (place?.kind === 'snapshot' && (q.a & (SET_SIZE | SET_TIMES)) !== 0 && !made) throw new Refusal(EROFS);
    if ((q.a & SET_SIZE) !== 0) {
      if (place?.kind !== 'volume') throw new Refusal(EISDIR);
      const size = Math.ceil(q.b / SECTOR) * SECTOR;
      await this.#resize(q.ino, place.id, size);
    }
    if (place?.kind === 'volume' && (q.a & SET_MTIME) !== 0)
      this.#times.set(q.ino, { ms: q.c === 0 ? Date.now() : q.c, changes: (await this.files.node(place.id)).changes });
    return this.#attributes(q.ino);
  }

  /** `cp` gives a copy that ends with a hole its size this way. */
  #resize(ino: number, id: number, size: number): Promise<void> {
    return this.#oneCopy(async () => {
      const copy = this.#copies.get(ino);
      if (copy !== undefined && copy.source.size === size) {
        copy.size = size;
        return;
      }
      await this.#settleNow(ino);
      await this.#owning([`${id}`], () => this.files.resize(id, size));
    });
  }

  async #grow(ino: number, size: number): Promise<MountAnswer> {
    const place = placeOf(ino);
    if (place?.kind !== 'volume') throw new Refusal(EROFS);
    const { id } = place;
    await this.#settle(ino);
    await this.#owning([`${id}`], () => this.files.grow(id, size));
    return {};
  }

  async #open(ino: number, flags: number): Promise<Float64Array> {
    const place = placeOf(ino);
    if (place?.kind !== 'volume' && place?.kind !== 'snapshot') throw new Refusal(EISDIR);
    if (place.kind === 'snapshot' && ((flags & O_ACCMODE) !== 0 || (flags & O_TRUNC) !== 0)) throw new Refusal(EROFS);
    const { id } = place;
    const { fullName, size } = await this.files.node(id);
    if ((flags & O_TRUNC) !== 0 && (size !== 0 || this.#copies.has(ino))) await this.#resize(ino, id, 0);
    return this.#opened(ino, fullName);
  }

  async #opened(ino: number, fullName: string): Promise<Float64Array> {
    const { handle, readOnly, blockSize } = await this.engine.open(fullName);
    const known = this.#opens.get(ino);
    this.#opens.set(ino, { handle, count: (known?.count ?? 0) + 1, blockSize });
    return Float64Array.of(handle, readOnly ? 1 : 0);
  }

  async #release(ino: number, handle: number): Promise<MountAnswer> {
    const known = this.#opens.get(ino);
    // revoked: given back already
    if (known === undefined || known.handle !== handle) return {};
    if (known.count === 1) await this.#settle(ino);
    known.count--;
    if (known.count === 0) {
      this.#opens.delete(ino);
      this.#made.delete(ino);
    }
    await this.engine.release(handle);
    return {};
  }

  async #create(folder: number, name: string, flags: number): Promise<MountAnswer> {
    let node: Float64Array;
    try {
      node = await this.#make(folder, name);
    } catch (error) {
      // somebody else was first, and whoever asks did not insist on being it
      if (!(error instanceof EngineError && error.code === 'EXISTS') || (flags & O_EXCL) !== 0) throw error;
      node = await this.#lookup(folder, name);
      return { node, open: await this.#open(node[0], flags) };
    }
    const place = placeOf(node[0]) as { kind: string; id: number };
    if (place.kind === 'snapshot') this.#made.add(node[0]);
    return { node, open: await this.#opened(node[0], (await this.files.node(place.id)).fullName) };
  }

  /** `volumes/NAME` is an empty volume, `snapshots/VOL/NAME` a snapshot of what the volume is now. */
  async #make(folder: number, name: string): Promise<Float64Array> {
    this.#checkName(name);
    const place = placeOf(folder);
    if (place?.kind === 'volumes') {
      await this.#owning([`0/${name}`], () => this.files.create(name));
    } else if (place?.kind === 'owner') {
      const { id } = place;
      await this.#settle(volumeIno(id));
      const volume = await this.files.node(id);
      await this.#owning([`${id}/${name}`], () => this.engine.createSnapshot(volume.fullName, name));
    } else {
      throw new Refusal(EPERM);
    }
    return this.#lookup(folder, name);
  }

  // ---- copying from snapshots

  #oneCopy<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#copying.then(work);
    this.#copying = result.catch(() => undefined);
    return result;
  }

  /**
   * A piece of a snapshot that goes to the same place of a volume without bytes: remembered, and done when the volume is closed
   * or something else is done with it. Others are refused, and the kernel copies their bytes.
   * @returns bytes
   */
  #copy(from: number, offset: number, to: number, toOffset: number, length: number): Promise<number> {
    return this.#oneCopy(async () => {
      const source = placeOf(from);
      const copy = this.#copies.get(to) ?? (await this.#newCopy(from, to));
      const count =
        copy === null || source?.kind !== 'snapshot' || source.id !== copy.source.id || offset !== toOffset
          ? 0
          : copy.add(offset, length);
      if (copy !== null && count > 0) {
        this.#copies.set(to, copy);
        return count;
      }
      await this.#settleNow(to);
      throw new Refusal(EOPNOTSUPP);
    });
  }

  async #newCopy(from: number, to: number): Promise<SnapshotCopy | null> {
    const [source, target] = [placeOf(from), placeOf(to)];
    const open = this.#opens.get(to);
    const blockSize = this.#opens.get(from)?.blockSize;
    if (source?.kind !== 'snapshot' || target?.kind !== 'volume' || open === undefined || blockSize === undefined)
      return null;
    const [snapshot, volume] = [await this.files.node(source.id), await this.files.node(target.id)];
    // whom nobody else sees: they would see it without bytes until it is closed
    const alone = volume.size === 0 && volume.openCount === open.count;
    return alone && volume.pool === snapshot.pool ? new SnapshotCopy(snapshot, blockSize) : null;
  }

  async #settle(ino: number): Promise<MountAnswer> {
    await this.#oneCopy(() => this.#settleNow(ino));
    return {};
  }

  /** What was copied is there, or never will be: who asked for this is told. */
  async #settleNow(ino: number): Promise<void> {
    const copy = this.#copies.get(ino);
    const place = placeOf(ino);
    if (copy === undefined || place?.kind !== 'volume') return;
    const { source, size, blocks } = copy;
    try {
      const { fullName } = await this.files.node(source.id);
      await this.#owning([`${place.id}`], () => this.files.fill(place.id, fullName, size, blocks));
    } finally {
      this.#copies.delete(ino);
    }
  }

  #checkName(name: string): void {
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw new Refusal(ENAMETOOLONG);
    if (nameProblem(name) !== null || name.startsWith('.atoll-')) throw new Refusal(EINVAL);
  }

  async #unlink(folder: number, name: string): Promise<MountAnswer> {
    const place = placeOf(folder);
    if (place?.kind === 'volumes') {
      const { fullName } = await this.files.lookup('volumes', name);
      await this.#owning([`0/${name}`], () => this.#whenReleased(() => this.engine.deleteVolume(fullName, {})));
    } else if (place?.kind === 'owner') {
      const { fullName } = await this.files.lookup(place.id, name);
      await this.#owning([`${place.id}/${name}`], () => this.#whenReleased(() => this.engine.deleteSnapshot(fullName)));
    } else {
      throw new Refusal(place?.kind === 'snapshots' ? EISDIR : EPERM);
    }
    return {};
  }

  /** The kernel does not wait for the release of what was closed. */
  async #whenReleased(work: () => Promise<void>): Promise<void> {
    const until = Date.now() + RELEASE_WAIT_MS;
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof EngineError && error.code === 'BUSY') || Date.now() > until) throw error;
        await new Promise((resolve) => setTimeout(resolve, RELEASE_STEP_MS));
      }
    }
  }

  async #rename(q: Question): Promise<MountAnswer> {
    const from = placeOf(q.ino);
    if (from?.kind !== 'volumes' || q.ino2 !== q.ino || (q.a & ~RENAME_NOREPLACE) !== 0) throw new Refusal(EPERM);
    this.#checkName(q.name2);
    await this.files.lookup('volumes', q.name);
    await this.#owning([`0/${q.name}`, `0/${q.name2}`], async () => {
      // A disk is not overwritten by a name.
      await this.engine.renameVolume(q.name, q.name2);
    });
    return {};
  }

  async #statistics(ino: number): Promise<Float64Array> {
    const place = placeOf(ino);
    const own =
      place?.kind === 'volume' || place?.kind === 'snapshot' ? (await this.files.node(place.id)).pool : undefined;
    const status = await this.engine.status();
    const pools = status.pools.filter(({ name, state }) => state === 'ok' && (own === undefined || name === own));
    const block = 4096;
    const sum = (of: (pool: (typeof pools)[number]) => number) =>
      Math.floor(pools.reduce((total, pool) => total + of(pool), 0) / block);
    return Float64Array.of(
      block,
      sum((p) => p.capacityBytes),
      sum((p) => p.freeBytes),
      status.volumes + status.snapshots,
    );
  }

  // ---- what others change

  #changed({ id, name, handle }: NodeChange): void {
    if (handle !== undefined) return this.#revoke(handle);
    const tell = (folder: number, ino: number, text = '') => this.files.tell(this.#mount, folder, ino, text);
    if (name === undefined) {
      if (!this.#own.has(`${id}`)) tell(0, volumeIno(id));
    } else if (this.#own.has(`${name.volume}/${name.name}`)) {
      if (name.volume === 0) tell(SNAPSHOTS, 0, name.name);
    } else if (name.volume === 0) {
      tell(VOLUMES, 0, name.name);
      tell(SNAPSHOTS, 0, name.name);
    } else {
      tell(ownerIno(name.volume), 0, name.name);
    }
  }

  /** A forced delete: open files of it answer EIO, and are given back when nothing of them is on its way. */
  #revoke(handle: number): void {
    for (const [ino, open] of this.#opens) {
      if (open.handle !== handle) continue;
      this.#opens.delete(ino);
      const look = () => {
        if (this.files.revoke(this.#mount, ino) > 0) return void setTimeout(look, RELEASE_STEP_MS);
        for (let i = 0; i < open.count; i++) void this.engine.release(handle).catch(() => undefined);
      };
      look();
    }
  }
}

function mountError(error: Error): EngineError {
  const { code } = error as NodeJS.ErrnoException;
  const known = code === 'EBUSY' ? 'BUSY' : code === 'ENOENT' || code === 'ENOTDIR' ? 'NOT_FOUND' : 'IO';
  return new EngineError(known, error.message);
}
