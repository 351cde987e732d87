/**
 * The tree of files that a mount shows (docs/fuse.md): answers what the kernel asks about names, attributes and opening, and tells
 * it what changed. Data passes by in native code (native/fuse). Start at `#answer`.
 */
import { nameProblem } from '../../xseg/names.ts';
import {
  type Access,
  type Engine,
  EngineError,
  type Files,
  type MountAnswer,
  type MountSettings,
  type NodeChange,
} from '../../xseg/types.ts';
import { Attributes } from './attributes.ts';
import { Copies, type Open } from './copies.ts';
import { EINVAL, EIO, EISDIR, ENAMETOOLONG, ENOENT, EOPNOTSUPP, EPERM, EROFS, errnoOf, Refusal } from './errno.ts';
import { Listing } from './listing.ts';
import { ownerIno, placeOf, SNAPSHOTS, VOLUMES, volumeIno } from './numbers.ts';

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

/** what changes nothing that a listing shows */
const READING = new Set<number>([ASK.lookup, ASK.getattr, ASK.open, ASK.release, ASK.statfs, ASK.list]);
const O_ACCMODE = 3;
const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const SET_MODE = 1;
const SET_UID = 2;
const SET_GID = 4;
const SET_SIZE = 8;
const SET_MTIME = 0x20 | 0x100;
const SET_ANYTHING = SET_MODE | SET_UID | SET_GID | SET_SIZE | 0x10 | 0x80 | SET_MTIME;
const RENAME_NOREPLACE = 1;
/** longest name, bytes */
const NAME_BYTES_MAX = 255;
const SECTOR = 512;
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
  readonly #opens = new Map<number, Open>();
  readonly #copies: Copies;
  readonly #attributes: Attributes;
  readonly #listing: Listing;
  /** what was made here and is open since */
  readonly #made = new Set<number>();

  private constructor(
    readonly engine: Engine,
    readonly files: Files,
    readonly options: TreeOptions,
  ) {
    this.#copies = new Copies(files, this.#opens, (keys, work) => this.#owning(keys, work));
    this.#attributes = new Attributes(options.allowOther, (ino) => this.#copies.sizeOf(ino));
    this.#listing = new Listing(files, this.#attributes);
  }

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
    for (const ino of this.#copies.unsettled())
      await this.#copies
        .settle(ino)
        .catch((error: Error) => this.options.log('error', 'fuse.copy_lost', { ino, reason: error.message }));
    for (const open of this.#opens.values()) this.#giveBack(open);
    this.#opens.clear();
  }

  async #asked(q: Question): Promise<void> {
    try {
      const answer = await this.#answerFresh(q);
      if (q.what !== ASK.release) this.files.answer(this.#mount, q.token, 0, answer);
    } catch (error) {
      const errno = errnoOf(error);
      if (errno === EIO)
        this.options.log('error', 'fuse.failed', { what: q.what, name: q.name, reason: (error as Error).message });
      if (q.what !== ASK.release) this.files.answer(this.#mount, q.token, errno);
    }
  }

  async #answerFresh(q: Question): Promise<MountAnswer> {
    try {
      return await this.#answer(q);
    } finally {
      if (!READING.has(q.what)) this.#listing.drop();
    }
  }

  async #answer(q: Question): Promise<MountAnswer> {
    switch (q.what) {
      case ASK.lookup:
        return { node: await this.#lookup(q.ino, q.name) };
      case ASK.getattr:
        return { node: await this.#look(q.ino) };
      case ASK.setattr:
        return { node: await this.#setAttributes(q) };
      case ASK.open:
        return { open: await this.#open(q.ino, q.a) };
      case ASK.release:
        return this.#release(q.ino, q.a, q.b === 1);
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
        return this.#listing.list(placeOf(q.ino), q.a);
      case ASK.grow:
        return this.#grow(q.ino, q.a);
      case ASK.copy:
        return { copy: Float64Array.of(await this.#copies.piece(q.ino, q.a, q.ino2, q.b, q.c)) };
      case ASK.settle:
        await this.#copies.settle(q.ino);
        return {};
      case ASK.mkdir:
        throw new Refusal(EPERM);
      default:
        throw new Refusal(EOPNOTSUPP);
    }
  }

  // ---- nodes

  async #lookup(ino: number, name: string): Promise<Float64Array> {
    if (Buffer.byteLength(name) > NAME_BYTES_MAX) throw new Refusal(ENAMETOOLONG);
    const place = placeOf(ino);
    switch (place?.kind) {
      case 'root':
        if (name === 'volumes') return this.#attributes.folder(VOLUMES);
        if (name === 'snapshots') return this.#attributes.folder(SNAPSHOTS);
        throw new Refusal(ENOENT);
      case 'volumes':
        return this.#attributes.file(await this.files.lookup('volumes', name));
      case 'snapshots':
        return this.#attributes.folder(ownerIno((await this.files.lookup('owners', name)).id));
      case 'owner':
        return this.#attributes.file(await this.files.lookup(place.id, name));
      default:
        throw new Refusal(ENOENT);
    }
  }

  async #look(ino: number): Promise<Float64Array> {
    const place = placeOf(ino);
    switch (place?.kind) {
      case 'root':
      case 'volumes':
      case 'snapshots':
        return this.#attributes.folder(ino);
      case 'owner':
        await this.files.node(place.id);
        return this.#attributes.folder(ino);
      case 'volume':
      case 'snapshot':
        return this.#attributes.file(await this.files.node(place.id));
      default:
        throw new Refusal(ENOENT);
    }
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
    const before = await this.#look(q.ino);
    const made = this.#made.has(q.ino);
    // `touch` sets the times of what it has just made and still has open, which changes nothing
    const taken = made ? SET_SIZE : SET_ANYTHING;
    if (place?.kind === 'snapshot' && (q.a & taken) !== 0) throw new Refusal(EROFS);
    // Modes and owners are not kept. Where they decide, only who copies (`cp -p`, `tar`) hears nothing of it.
    if (this.options.allowOther && !made && this.#denies(q, before[1])) throw new Refusal(EPERM);
    if ((q.a & SET_SIZE) !== 0) {
      if (place?.kind !== 'volume') throw new Refusal(EISDIR);
      await this.#copies.resize(q.ino, place.id, Math.ceil(q.b / SECTOR) * SECTOR);
    }
    if (place?.kind === 'volume' && (q.a & SET_MTIME) !== 0)
      this.#attributes.setTime(q.ino, q.c === 0 ? Date.now() : q.c, (await this.files.node(place.id)).changes);
    return this.#look(q.ino);
  }

  /** Whether a mode or an owner is wanted that it does not have. */
  #denies(q: Question, modeNow: number): boolean {
    const [mode, uid, gid] = q.name2.split(' ').map(Number);
    if ((q.a & SET_MODE) !== 0 && mode !== (modeNow & 0o7777)) return true;
    if ((q.a & SET_UID) !== 0 && uid !== this.options.uid) return true;
    return (q.a & SET_GID) !== 0 && gid !== this.options.gid;
  }

  async #grow(ino: number, size: number): Promise<MountAnswer> {
    const place = placeOf(ino);
    if (place?.kind !== 'volume') throw new Refusal(EROFS);
    const { id } = place;
    await this.#copies.settle(ino);
    await this.#owning([`${id}`], () => this.files.grow(id, size));
    return {};
  }

  async #open(ino: number, flags: number): Promise<Float64Array> {
    const place = placeOf(ino);
    if (place?.kind !== 'volume' && place?.kind !== 'snapshot') throw new Refusal(EISDIR);
    if (place.kind === 'snapshot' && ((flags & O_ACCMODE) !== 0 || (flags & O_TRUNC) !== 0)) throw new Refusal(EROFS);
    const { id } = place;
    const { fullName, size } = await this.files.node(id);
    if ((flags & O_TRUNC) !== 0 && (size !== 0 || this.#copies.has(ino))) await this.#copies.resize(ino, id, 0);
    return this.#opened(ino, fullName, (flags & O_ACCMODE) === 0 ? 'read' : 'write');
  }

  async #opened(ino: number, fullName: string, access: Access): Promise<Float64Array> {
    const { handle, readOnly, blockSize } = await this.engine.open(fullName, access);
    const open = this.#opens.get(ino) ?? { handle, count: 0, writers: 0, blockSize };
    open.count++;
    if (!readOnly) open.writers++;
    this.#opens.set(ino, open);
    return Float64Array.of(handle, readOnly ? 1 : 0);
  }

  async #release(ino: number, handle: number, readOnly: boolean): Promise<MountAnswer> {
    const known = this.#opens.get(ino);
    // revoked: given back already
    if (known === undefined || known.handle !== handle) return {};
    if (known.count === 1) await this.#copies.settle(ino);
    known.count--;
    if (!readOnly) known.writers--;
    if (known.count === 0) {
      this.#opens.delete(ino);
      this.#made.delete(ino);
    }
    await this.engine.release(handle, readOnly);
    return {};
  }

  #giveBack({ handle, count, writers }: Open): void {
    for (let i = 0; i < count; i++) void this.engine.release(handle, i >= writers).catch(() => undefined);
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
    this.#made.add(node[0]);
    return { node, open: await this.#opened(node[0], (await this.files.node(place.id)).fullName, 'write') };
  }

  /** `volumes/NAME` is an empty volume, `snapshots/VOL/NAME` a snapshot of what the volume is now. */
  async #make(folder: number, name: string): Promise<Float64Array> {
    this.#checkName(name);
    const place = placeOf(folder);
    if (place?.kind === 'volumes') {
      await this.#owning([`0/${name}`], () => this.files.create(name));
    } else if (place?.kind === 'owner') {
      const { id } = place;
      await this.#copies.settle(volumeIno(id));
      const volume = await this.files.node(id);
      await this.#owning([`${id}/${name}`], () => this.engine.createSnapshot(volume.fullName, name));
    } else {
      throw new Refusal(EPERM);
    }
    return this.#lookup(folder, name);
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
    this.#listing.drop();
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
        this.#giveBack(open);
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
