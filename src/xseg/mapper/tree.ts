/**
 * The map: a persistent tree of pages (docs/format.md, "Map"). Walks it, loads pages, copies them before a write.
 *
 * Frames come back as numbers: > 0 a frame, EMPTY nothing there, WAIT no frame to be had now, BROKEN the page cannot be
 * read (EIO for what it covers).
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { RELEASE_PAGE } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import { EXCLUSIVE, type Frames, OWNED } from './frames.ts';
import type { Resource } from './resource.ts';

export const EMPTY = 0;
export const WAIT = -1;
export const BROKEN = -2;

/** stamp of a page that nobody writes in place */
const NOBODY = 0xffffffff;

/** Leaves below one entry of a page of `level` ≥ 1. */
export function leavesPerEntry(level: number): number {
  return PAGE_ENTRIES ** (level - 1);
}

/** Height of the tree that covers `size` bytes: 0 is a single leaf. */
export function heightFor(size: number, blockSize: number): number {
  let height = 0;
  let blocks = PAGE_ENTRIES;
  const wanted = Math.ceil(size / blockSize);
  while (blocks < wanted) {
    blocks *= PAGE_ENTRIES;
    height++;
  }
  return height;
}

export interface TreeHost {
  nextPage(): number;
  /** @param blocks of a pool that the released page maps: of these some become free */
  nextRelease(pool: number, blocks: number): number;
  /** a new page has this base, in memory and not yet in the store */
  baseAdded(page: number, base: number): void;
  changed(resource: Resource): void;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

export class Tree {
  loads = 0;
  /** told of each leaf that reactors are to see, before they do */
  shown: ((pool: number, frame: number) => void) | null = null;
  #header = new Float64Array(8);

  constructor(
    readonly frames: Frames,
    readonly reader: StoreReader,
    readonly native: Native,
    readonly core: number,
    readonly host: TreeHost,
  ) {}

  /** A page by id, from memory or the store. `level` is what its parent expects. */
  load(id: number, level: number): number {
    const frames = this.frames;
    const resident = frames.byPage.get(id);
    if (resident !== undefined) {
      frames.touch(resident);
      return resident;
    }
    const frame = frames.allocate(id);
    if (frame === 0) return WAIT;
    const blob = this.reader.page(id);
    const header = this.#header;
    const status = blob === undefined ? -1 : this.native.decodePage(this.core, blob, id, frame, header);
    if (status !== 0 || header[0] !== level) {
      frames.abandon(frame);
      this.host.log('error', 'map page is damaged', { page: id, level, status });
      return BROKEN;
    }
    this.loads++;
    frames.level[frame] = level;
    frames.base[frame] = header[2];
    frames.owner[frame] = header[3];
    frames.generation[frame] = header[4];
    frames.mapped[frame] = header[5];
    this.native.stamp(this.core, frame, NOBODY, 0);
    return frame;
  }

  /** The page of `level` that covers leaf number `leaf`; EMPTY when an entry above it is. */
  find(resource: Resource, leaf: number, level = 0): number {
    let id = resource.row.root;
    for (let at = resource.row.height; ; at--) {
      if (id === 0) return EMPTY;
      const frame = this.load(id, at);
      if (frame <= 0 || at === level) return frame;
      id = this.frames.value(frame, this.index(leaf, at));
    }
  }

  /** Entry of a page of `level` ≥ 1 that leads to leaf number `leaf`. */
  index(leaf: number, level: number): number {
    return Math.floor(leaf / leavesPerEntry(level)) % PAGE_ENTRIES;
  }

  inPlace(resource: Resource, frame: number): boolean {
    return this.frames.owner[frame] === resource.id && this.frames.generation[frame] === resource.row.generation;
  }

  /** Shows a leaf to reactors: writable in place when it is the resource's own. */
  expose(resource: Resource, leaf: number, frame: number): void {
    if (resource.handle < 0) return;
    if (frame !== 0 && this.inPlace(resource, frame)) {
      this.native.stamp(this.core, frame, resource.handle, resource.row.generation);
      this.frames.position[frame] = leaf;
    } else if (frame !== 0 && this.frames.stampedFor(frame) === resource.handle) {
      // left from a resource that had this handle before
      this.native.stamp(this.core, frame, NOBODY, 0);
    }
    if (frame !== 0) this.shown?.(resource.row.pool, frame);
    this.frames.hash(resource.handle, leaf, frame);
  }

  /**
   * The page of `level` that covers `leaf`, made so that the resource may change it: missing pages are made, shared
   * ones copied, from the root down. The resource's next batch has them all.
   */
  writable(resource: Resource, leaf: number, level = 0): number {
    const { frames, native, core } = this;
    const row = resource.row;
    let parent = 0;
    let parentIndex = 0;
    let id = row.root;
    const pinned: number[] = [];
    let result = WAIT;
    for (let at = row.height; ; at--) {
      let frame: number;
      if (id === 0) {
        frame = this.#make(resource, at);
        if (frame > 0) native.clearFrame(core, frame);
      } else {
        frame = this.load(id, at);
        if (frame > 0 && !this.inPlace(resource, frame)) {
          frames.pins[frame]++;
          const copy = this.#make(resource, at);
          frames.pins[frame]--;
          if (copy > 0) {
            native.copyFrameShared(core, frame, copy);
            frames.base[copy] = id;
            frames.mapped[copy] = frames.mapped[frame];
            this.host.baseAdded(frames.pageId[copy], id);
          }
          frame = copy;
        }
      }
      if (frame <= 0) {
        result = frame;
        break;
      }
      const newId = frames.pageId[frame];
      if (newId !== id) {
        if (parent === 0) {
          if (id !== 0) this.#loseParent(resource, id, 0);
          row.root = newId;
          resource.changes.row = true;
        } else {
          if (id !== 0 && (frames.high(parent, parentIndex) & OWNED) !== 0) this.#loseParent(resource, id, 0);
          frames.set(parent, parentIndex, newId, OWNED);
          this.touch(resource, parent);
        }
        this.touch(resource, frame);
      }
      frames.position[frame] = at === 0 ? leaf : Math.floor(leaf / leavesPerEntry(at + 1));
      if (at === level) {
        if (at === 0) this.expose(resource, leaf, frame);
        result = frame;
        break;
      }
      frames.pins[frame]++;
      pinned.push(frame);
      parent = frame;
      parentIndex = this.index(leaf, at);
      id = frames.value(frame, parentIndex);
    }
    for (const frame of pinned) frames.pins[frame]--;
    return result;
  }

  /** Adds a level: the old root becomes entry 0 of a new one. @returns 0, WAIT or BROKEN */
  grow(resource: Resource): number {
    const row = resource.row;
    const old = row.root;
    if (old !== 0) {
      const oldFrame = this.load(old, row.height);
      if (oldFrame <= 0) return oldFrame;
      this.frames.pins[oldFrame]++;
      const frame = this.#make(resource, row.height + 1);
      this.frames.pins[oldFrame]--;
      if (frame <= 0) return frame;
      this.native.clearFrame(this.core, frame);
      this.frames.set(frame, 0, old, OWNED);
      this.frames.mapped[frame] = this.frames.mapped[oldFrame];
      this.frames.position[frame] = 0;
      row.root = this.frames.pageId[frame];
      this.touch(resource, frame);
    }
    row.height++;
    resource.changes.row = true;
    this.host.changed(resource);
    return 0;
  }

  /**
   * Puts a page of the resource into its next batch. With a leaf whose count changed go the pages above it, so that they are
   * there when `settle` carries the count to them; who changes a leaf has them in memory (`writable`) or pinned.
   */
  touch(resource: Resource, frame: number): void {
    const { frames } = this;
    const changed = resource.changes.frames;
    if (frames.markDirty(frame)) changed.push(frame);
    if (frames.delta[frame] !== 0) {
      for (const above of this.above(resource, frames.position[frame]))
        if (frames.markDirty(above)) changed.push(above);
    }
    this.host.changed(resource);
  }

  /** The pages of levels > `level` on the way to leaf number `leaf`, the root first, as far as they are in memory. */
  above(resource: Resource, leaf: number, level = 0): number[] {
    const found: number[] = [];
    let id = resource.row.root;
    for (let at = resource.row.height; at > level && id !== 0; at--) {
      const frame = this.frames.byPage.get(id);
      if (frame === undefined) break;
      found.push(frame);
      id = this.frames.value(frame, this.index(leaf, at));
    }
    return found;
  }

  #make(resource: Resource, level: number): number {
    const frames = this.frames;
    const id = this.host.nextPage();
    const frame = frames.allocate(id);
    if (frame === 0) return WAIT;
    frames.level[frame] = level;
    frames.base[frame] = 0;
    frames.owner[frame] = resource.id;
    frames.generation[frame] = resource.row.generation;
    frames.mapped[frame] = 0;
    this.native.stamp(this.core, frame, NOBODY, 0);
    return frame;
  }

  /** @param blocks mapped below it, as far as nobody else has them */
  #loseParent(resource: Resource, page: number, blocks: number): void {
    resource.changes.releases.push({
      seq: this.host.nextRelease(resource.row.pool, blocks),
      kind: RELEASE_PAGE,
      id: page,
      pool: resource.row.pool,
    });
  }

  /**
   * Empties entries [from, to) of a page that the resource may change: `owned(value, exclusive)` is told of each reference
   * that goes. `to - from` entries are looked at.
   */
  clear(
    resource: Resource,
    frame: number,
    from: number,
    to: number,
    owned: (value: number, exclusive: boolean) => void,
  ): number {
    const { frames } = this;
    const words = frames.words;
    let at = frames.at(frame) + from * 2;
    let present = 0;
    for (let i = from; i < to; i++, at += 2) {
      const lo = words[at];
      const hi = words[at + 1];
      if (lo === 0 && hi === 0) continue;
      present++;
      if ((hi & OWNED) !== 0) owned(lo + (hi & 0xffff) * 2 ** 32, (hi & EXCLUSIVE) !== 0);
    }
    if (present > 0) {
      this.native.clearRun(this.core, frame, from, to - from);
      this.touch(resource, frame);
    }
    return present;
  }

  /**
   * Unlinks the children [from, to) of an inner page that the resource may change, and takes what they had from `mapped`
   * of the pages above; nothing below them may be unsettled. @returns 0, or WAIT (some are gone, call again)
   */
  unlink(resource: Resource, frame: number, from: number, to: number): number {
    const { frames } = this;
    const level = frames.level[frame];
    const leaf = frames.position[frame] * leavesPerEntry(level + 1);
    const pinned = [...this.above(resource, leaf, level), frame];
    let blocks = 0;
    let result = 0;
    for (const one of pinned) frames.pins[one]++;
    for (let i = from; i < to; i++) {
      const id = frames.value(frame, i);
      if (id === 0) continue;
      const child = this.load(id, level - 1);
      if (child === WAIT) {
        result = WAIT;
        break;
      }
      // a damaged child goes like any other
      const below = child > 0 ? frames.mapped[child] : 0;
      blocks += below;
      if ((frames.high(frame, i) & OWNED) !== 0) this.#loseParent(resource, id, below);
      frames.set(frame, i, 0, 0);
      this.touch(resource, frame);
    }
    this.addMapped(resource, leaf, level, -blocks);
    for (const one of pinned) frames.pins[one]--;
    return result;
  }

  /** Adds to `mapped` of the pages of levels ≥ `lowest` above leaf number `leaf`; they are the resource's own. */
  addMapped(resource: Resource, leaf: number, lowest: number, delta: number): void {
    if (delta === 0) return;
    for (let at = resource.row.height; at >= lowest; at--) {
      const page = this.find(resource, leaf, at);
      if (page <= 0) {
        // `touch` and `unlink` keep them in memory
        this.host.log('error', 'a map page was lost before its count of mapped blocks was settled', {
          resource: resource.id,
          level: at,
          leaf,
        });
        return;
      }
      this.frames.mapped[page] += delta;
      this.touch(resource, page);
    }
  }

  /** Carries what leaves gained and lost to the pages above them, before a batch is made. */
  settle(resource: Resource): void {
    const { frames } = this;
    const changed = resource.changes.frames;
    const leaves = changed.length;
    for (let i = 0; i < leaves; i++) {
      const frame = changed[i];
      const delta = frames.delta[frame];
      if (delta === 0) continue;
      frames.delta[frame] = 0;
      frames.mapped[frame] += delta;
      this.addMapped(resource, frames.position[frame], 1, delta);
    }
  }
}
