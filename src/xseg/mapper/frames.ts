/**
 * The page cache: map pages in frames of the shared segment, off the JavaScript heap. Owned by the mapper peer.
 *
 * Frame 0 is the page of all empty entries, shared by everybody and never written. A frame that reactors may have found
 * through the leaf hash is used again only after every reactor passed the epoch of its removal.
 */

import { FRAME_BYTES, FrameMeta, SegmentHeader } from '../layout.gen.ts';
import type { Native } from '../native.ts';

/** bit 62 of an entry, seen in its high word: this page holds the reference */
export const OWNED = 0x40000000;
/** bit 63 of an entry, seen in its high word: may be written in place */
export const EXCLUSIVE = 0x80000000;
/** bit 61 of an entry, seen in its high word: the slot does not hold what it should; in memory only */
export const BAD = 0x20000000;
/** bits 32–47 of an entry's value, in its high word */
export const VALUE_HI_MASK = 0xffff;
const TWO32 = 2 ** 32;
/** key of a leaf in the hash: handle * LEAF_KEYS + leaf number */
const LEAF_KEYS = 2 ** 30;
/** Entries of the leaf hash per frame; the hash has room for twice as many. */
const HASHED_PER_FRAME_MAX = 1;
/** Frames evicted at once: one epoch for all of them. */
const EVICT_BATCH = 128;
/** Frames looked at per eviction before giving up: two rounds of the clock. */
const CLOCK_ROUNDS = 2;
/** Frames that nobody needed for so long give their memory back, so many in a turn. */
const IDLE_MS = 60_000;
const IDLE_BATCH = 32;
/** Pages that are not durable yet, changed since or on their way: share of the frames that are not of volumes that failed. */
export const UNSETTLED_SHARE_MAX = 0.6;

export class Frames {
  readonly count: number;
  readonly words: Uint32Array;
  /** the same memory, for what reactors read as one u64 */
  readonly longs: BigUint64Array;
  readonly pageId: Float64Array;
  readonly base: Float64Array;
  /** resource id whose page this is, in place */
  readonly owner: Float64Array;
  readonly generation: Uint32Array;
  readonly level: Uint8Array;
  /** blocks below this page whose entries are not empty */
  readonly mapped: Float64Array;
  /** index of the page among those of its level; known for pages written in place */
  readonly position: Float64Array;
  /** change of `mapped` that its ancestors have not seen; leaves only */
  readonly delta: Int32Array;
  readonly pins: Uint32Array;
  /** 1: changed since it was last put in a batch */
  readonly dirty: Uint8Array;
  /** batches on their way that contain it */
  readonly flying: Uint8Array;
  /** 1: a batch that contained it failed */
  readonly lost: Uint8Array;
  readonly byPage = new Map<number, number>();
  dirtyCount = 0;
  /** frames that are dirty, in batches on their way, or were in one that failed */
  unsettledCount = 0;
  /** of these, the last: they are what their volume reads, and stay until it is deleted */
  lostCount = 0;
  evictions = 0;
  #hashed = 0;
  /** leaves in the hash: handle → leaf number → frame (0: an empty leaf) */
  readonly leaves = new Map<number, Map<number, number>>();
  #users: (number[] | undefined)[];
  /** last in, first out */
  #free: number[] = [];
  /** of `#free`, so many at the bottom have no memory */
  #bare: number;
  /** fewest that were free since it was last looked: those at the bottom of `#free` */
  #idle: number;
  #idleAt = 0;
  /** of `#free`, those before this one are to give their memory back */
  #bareTo = 0;
  #limbo: { epoch: number; frames: number[] }[] = [];
  #limboFrames = 0;
  #hand = 1;
  #wordsAt: number;
  #meta: Uint32Array;
  #metaAt: number;

  constructor(
    readonly native: Native,
    readonly core: number,
  ) {
    const segment = native.segment(core);
    const view = new DataView(segment);
    this.count = view.getUint32(SegmentHeader.frameCount, true);
    this.words = new Uint32Array(segment);
    this.longs = new BigUint64Array(segment);
    this.#meta = this.words;
    this.#wordsAt = Number(view.getBigUint64(SegmentHeader.framesOffset, true)) / 4;
    this.#metaAt = Number(view.getBigUint64(SegmentHeader.frameMetaOffset, true)) / 4;
    const n = this.count;
    this.pageId = new Float64Array(n);
    this.base = new Float64Array(n);
    this.owner = new Float64Array(n);
    this.generation = new Uint32Array(n);
    this.level = new Uint8Array(n);
    this.mapped = new Float64Array(n);
    this.position = new Float64Array(n);
    this.delta = new Int32Array(n);
    this.pins = new Uint32Array(n);
    this.dirty = new Uint8Array(n);
    this.flying = new Uint8Array(n);
    this.lost = new Uint8Array(n);
    this.#users = new Array(n);
    for (let f = n - 1; f >= 1; f--) this.#free.push(f);
    this.#bare = this.#free.length;
    this.#idle = this.#free.length;
  }

  /** index of the low word of entry 0 of a frame in `words` */
  at(frame: number): number {
    return this.#wordsAt + frame * (FRAME_BYTES / 4);
  }

  /** value of an entry: slot + 1 or page id, 0 when empty */
  value(frame: number, index: number): number {
    const at = this.at(frame) + index * 2;
    return this.words[at] + (this.words[at + 1] & VALUE_HI_MASK) * TWO32;
  }

  /** high word of an entry: flags and bits 32–47 */
  high(frame: number, index: number): number {
    return this.words[this.at(frame) + index * 2 + 1];
  }

  /** flags of an entry, as bits of its high word */
  flags(frame: number, index: number): number {
    return (this.high(frame, index) & (OWNED | EXCLUSIVE | BAD)) >>> 0;
  }

  set(frame: number, index: number, value: number, flags: number): void {
    const hi = Math.floor(value / TWO32);
    this.native.publish(this.core, frame, index, value - hi * TWO32, (hi | flags) >>> 0);
  }

  /** A zeroed or undefined frame for a page, pinned by nobody; 0 when none can be had now (all dirty, pinned, or not yet quiet). */
  allocate(pageId: number): number {
    let frame = this.#take();
    if (frame === undefined) {
      this.#collect();
      frame = this.#take();
      if (frame === undefined) {
        // What is in limbo already will do: evicting more while a reactor is held up would only empty the cache.
        if (this.#limboFrames < EVICT_BATCH) this.evict(EVICT_BATCH);
        this.#collect();
        frame = this.#take();
        if (frame === undefined) return 0;
      }
    } else if (this.#free.length < EVICT_BATCH && this.#limbo.length === 0) {
      this.evict(EVICT_BATCH);
    }
    this.pageId[frame] = pageId;
    this.byPage.set(pageId, frame);
    this.pins[frame] = 0;
    this.dirty[frame] = 0;
    this.flying[frame] = 0;
    this.delta[frame] = 0;
    this.position[frame] = -1;
    this.#meta[this.#metaAt + frame * 16 + FrameMeta.referenced / 4] = 1;
    return frame;
  }

  #take(): number | undefined {
    const frame = this.#free.pop();
    const left = this.#free.length;
    if (left < this.#bare) this.#bare = left;
    if (left < this.#idle) this.#idle = left;
    return frame;
  }

  /** Called every turn: memory that was wanted in a bad moment only is not kept for ever. */
  turn(now: number): void {
    if (now >= this.#idleAt) {
      this.#idleAt = now + IDLE_MS;
      this.#bareTo = this.#idle;
      this.#idle = this.#free.length;
    }
    const end = Math.min(this.#bareTo, this.#free.length, this.#bare + IDLE_BATCH);
    for (; this.#bare < end; this.#bare++) this.native.dropFrame(this.core, this.#free[this.#bare]);
  }

  /** Gives a frame back that no reactor can have seen (a load that failed). */
  abandon(frame: number): void {
    this.#unname(frame);
    this.#free.push(frame);
  }

  /** Takes a page out of the cache whatever it holds (its page died). */
  discard(frame: number): void {
    if (this.dirty[frame]) this.markClean(frame);
    this.unhashAll(frame);
    this.#unname(frame);
    this.#retire([frame]);
  }

  /** Frames that reactors may have found come back when all have passed this moment. */
  #retire(frames: number[]): void {
    // Where none is short, what was used is used again: frames take memory once they are touched.
    if (this.#free.length >= EVICT_BATCH) this.#collect();
    this.#limbo.push({ epoch: this.native.epochAdvance(this.core), frames });
    this.#limboFrames += frames.length;
  }

  #unname(frame: number): void {
    if (this.byPage.get(this.pageId[frame]) === frame) this.byPage.delete(this.pageId[frame]);
    this.pageId[frame] = 0;
  }

  /**
   * So many pages wait to be committed, or to become durable, that a disk which does not answer would leave no frame for what
   * others read. Those of volumes that have failed stay as they are; the rest is for those that have not.
   */
  get crowded(): boolean {
    const { unsettledCount, lostCount, count } = this;
    return unsettledCount - lostCount >= (count - lostCount) * UNSETTLED_SHARE_MAX;
  }

  /** It is in one more batch, and cannot be evicted. */
  fly(frame: number): void {
    if (this.flying[frame]++ === 0 && !this.dirty[frame]) this.unsettledCount++;
  }

  /** A batch that it was in is durable. */
  land(frame: number): void {
    if (--this.flying[frame] === 0 && !this.dirty[frame]) this.unsettledCount--;
  }

  /** A batch that it was in failed: it flies until its volume is deleted. */
  lose(frame: number): void {
    if (this.lost[frame]) return;
    this.lost[frame] = 1;
    this.lostCount++;
  }

  /** What was never durable, and nobody reads any more, goes. */
  forget(frame: number): void {
    if (this.lost[frame]) {
      this.lost[frame] = 0;
      this.lostCount--;
      this.flying[frame] = 0;
      if (!this.dirty[frame]) this.unsettledCount--;
    }
    this.discard(frame);
  }

  markDirty(frame: number): boolean {
    if (this.dirty[frame]) return false;
    this.dirty[frame] = 1;
    this.dirtyCount++;
    if (!this.flying[frame]) this.unsettledCount++;
    return true;
  }

  markClean(frame: number): void {
    if (!this.dirty[frame]) return;
    this.dirty[frame] = 0;
    this.dirtyCount--;
    if (!this.flying[frame]) this.unsettledCount--;
  }

  /** Makes a leaf visible to reactors as leaf `leaf` of an open resource. Frame 0: it is empty. */
  hash(handle: number, leaf: number, frame: number): void {
    let leaves = this.leaves.get(handle);
    if (leaves === undefined) {
      leaves = new Map();
      this.leaves.set(handle, leaves);
    }
    const old = leaves.get(leaf);
    // there, unless the table had no place for it when it was made anew
    if (old === frame && this.native.hashFind(this.core, handle, leaf) === frame) return;
    if (old !== undefined) this.#forgetUser(handle, leaf, old);
    else if (frame === 0 && leaves.size >= this.count) this.#dropEmpty(handle, leaves);
    if (old === undefined && this.#hashed >= this.count * HASHED_PER_FRAME_MAX) this.#dropOthers(handle);
    if (!this.native.hashInsert(this.core, handle, leaf, frame)) {
      // no place near where it belongs: once all are gone there is
      for (const one of this.leaves.keys()) this.unhashRange(one, 0, Number.MAX_SAFE_INTEGER);
      if (!this.native.hashInsert(this.core, handle, leaf, frame)) throw new Error('an empty leaf hash has no place');
    }
    if (!leaves.has(leaf)) this.#hashed++;
    leaves.set(leaf, frame);
    if (frame === 0) return;
    const key = handle * LEAF_KEYS + leaf;
    const users = this.#users[frame];
    if (users === undefined) this.#users[frame] = [key];
    else users.push(key);
  }

  unhash(handle: number, leaf: number): void {
    const leaves = this.leaves.get(handle);
    const frame = leaves?.get(leaf);
    if (leaves === undefined || frame === undefined) return;
    this.#remove(handle, leaf, leaves);
    this.#forgetUser(handle, leaf, frame);
  }

  #remove(handle: number, leaf: number, leaves: Map<number, number>): void {
    this.native.hashRemove(this.core, handle, leaf);
    if (leaves.delete(leaf)) this.#hashed--;
  }

  /** Many clones of one map can be hashed more often than there are frames: those of one other resource go, in turn. */
  #dropOthers(handle: number): void {
    for (const other of this.leaves.keys()) {
      if (other === handle) continue;
      this.unhashRange(other, 0, Number.MAX_SAFE_INTEGER);
      this.leaves.delete(other);
      return;
    }
    this.unhashRange(handle, 0, Number.MAX_SAFE_INTEGER);
  }

  /** Hides leaves [from, to) of an open resource. */
  unhashRange(handle: number, from: number, to: number): void {
    const leaves = this.leaves.get(handle);
    if (leaves === undefined) return;
    if (to - from < leaves.size) {
      for (let leaf = from; leaf < to; leaf++) this.unhash(handle, leaf);
    } else {
      for (const leaf of [...leaves.keys()]) if (leaf >= from && leaf < to) this.unhash(handle, leaf);
    }
  }

  unhashAll(frame: number): void {
    const users = this.#users[frame];
    if (users === undefined) return;
    this.#users[frame] = undefined;
    for (const key of users) {
      const handle = Math.floor(key / LEAF_KEYS);
      const leaf = key - handle * LEAF_KEYS;
      const leaves = this.leaves.get(handle);
      if (leaves !== undefined) this.#remove(handle, leaf, leaves);
    }
  }

  #forgetUser(handle: number, leaf: number, frame: number): void {
    const users = this.#users[frame];
    if (users === undefined) return;
    const at = users.indexOf(handle * LEAF_KEYS + leaf);
    if (at >= 0) users.splice(at, 1);
  }

  /** Negative entries are bounded too: past one per frame a resource's go all at once. */
  #dropEmpty(handle: number, leaves: Map<number, number>): void {
    for (const [leaf, frame] of leaves) {
      if (frame === 0) this.#remove(handle, leaf, leaves);
    }
  }

  /** Evicts up to `wanted` clean, unpinned pages by a second-chance clock. */
  evict(wanted: number): number {
    const victims: number[] = [];
    const looks = this.count * CLOCK_ROUNDS;
    for (let i = 0; i < looks && victims.length < wanted; i++) {
      const frame = this.#hand;
      this.#hand = frame + 1 >= this.count ? 1 : frame + 1;
      if (this.pageId[frame] === 0 || this.pins[frame] !== 0 || this.dirty[frame] !== 0 || this.flying[frame] !== 0)
        continue;
      const refAt = this.#metaAt + frame * 16 + FrameMeta.referenced / 4;
      if (this.#meta[refAt] !== 0) {
        this.#meta[refAt] = 0;
        continue;
      }
      this.unhashAll(frame);
      this.#unname(frame);
      victims.push(frame);
    }
    if (victims.length > 0) {
      this.evictions += victims.length;
      this.#retire(victims);
    }
    return victims.length;
  }

  /** handle that may write the page in place, if its generation agrees */
  stampedFor(frame: number): number {
    return this.#meta[this.#metaAt + frame * 16 + FrameMeta.stampVolume / 4];
  }

  touch(frame: number): void {
    this.#meta[this.#metaAt + frame * 16 + FrameMeta.referenced / 4] = 1;
  }

  #collect(): void {
    if (this.#limbo.length === 0) return;
    const safe = this.native.epochSafe(this.core);
    while (this.#limbo.length > 0 && this.#limbo[0].epoch <= safe) {
      const { frames } = this.#limbo.shift() as { frames: number[] };
      for (const frame of frames) this.#free.push(frame);
      this.#limboFrames -= frames.length;
    }
  }

  get resident(): number {
    return this.byPage.size;
  }
}
