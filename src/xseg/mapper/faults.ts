/**
 * Map faults: what reactors cannot answer from the map as it stands. Records come in batches from the rings; each is
 * answered by exactly one reply. What has to wait (a lock on its block, a barrier, frames, slots) is parked and run again.
 */
import {
  EXTENT_CHANGED,
  EXTENT_HOLE,
  EXTENT_ZERO,
  FLAG_ALLOCATE,
  FLAG_CHANGED_SINCE,
  FLAG_FULL,
  GRANT_IN_PLACE,
  OP_DONE,
  OP_FLUSH,
  OP_LOAD,
  OP_MAP_WRITE,
  OP_STATUS,
  OP_UNMAP,
  PAGE_ENTRIES,
  RECORD_BYTES,
  Reply,
  Request,
  SCRATCH_EXTENTS,
  SCRATCH_SLOTS,
  SLOT_NONE,
  VolumeRecord,
} from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { KIND_SNAPSHOT, RELEASE_SLOT } from '../store/batch.ts';
import { type Clock, systemClock } from './clock.ts';
import { EINVAL, EIO, ENOSPC, EROFS, ESHUTDOWN } from './errors.ts';
import { Walk } from './extents.ts';
import { BAD, EXCLUSIVE, type Frames, OWNED } from './frames.ts';
import type { Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { BROKEN, EMPTY, type Tree, WAIT } from './tree.ts';

/** Leaves made resident by one load fault. */
const LOAD_LEAVES_MAX = 64;
/** Blocks granted at once; contiguous slots. */
const GRANT_BLOCKS_MAX = 128;
/** Grants out at once; a reactor has at most a few hundred faults on its way. */
const GRANTS_MAX = 65536;
/** Pages an unmapping touches before others get a turn. */
const UNMAP_PAGES_PER_TURN = 64;
const TWO32 = 2 ** 32;
const LOCK_BLOCKS = 2 ** 39;
const REPLY_WORDS = RECORD_BYTES / 4;

/** A copy of a request record, for those that wait. */
interface Fault {
  op: number;
  handle: number;
  reactor: number;
  flags: number;
  ticket: number;
  block: number;
  count: number;
  offset: number;
  length: number;
  arg: number;
  grant: number;
  /** monotonic ms it was taken */
  at: number;
}

interface Grant {
  resource: Resource;
  handle: number;
  block: number;
  count: number;
  slot: number;
  frame: number;
  /** pages above it, pinned like it: the count of what is published goes to them */
  above: number[];
  at: number;
}

export interface FaultsHost {
  resourceOf(handle: number): Resource | undefined;
  poolOf(resource: Resource): SlotPool;
  nextRelease(pool: number, blocks: number): number;
  changed(resource: Resource): void;
  /** asks for a batch of the resource as soon as none is on its way */
  commitSoon(resource: Resource): void;
  /** asks for batches of all that is dirty: frames or slots ran out */
  commitAll(): void;
  /** true when so much is dirty that new changes must wait */
  tooDirty(): boolean;
  /** runs again when frames may be had, or less is dirty */
  whenFrames(run: () => void): void;
  /** runs again next turn */
  nextTurn(run: () => void): void;
  /** a fault was served, microseconds after it was taken */
  sampleFault(op: number, us: number): void;
  /** a fault failed with this errno */
  faultFailed(error: number): void;
}

export class Faults {
  count = 0;
  readonly staging: Uint8Array;
  #in: Uint32Array;
  #out: Uint32Array;
  readonly replies: Uint8Array;
  replyCount = 0;
  #locks = new Map<number, Fault[]>();
  #grants: (Grant | undefined)[] = [];
  #grantFree: number[] = [];
  #scratchAt: number;

  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly native: Native,
    readonly core: number,
    readonly recordAt: (handle: number) => number,
    scratchOffset: number,
    readonly host: FaultsHost,
    readonly batchMax: number,
    readonly clock: Clock = systemClock,
  ) {
    this.staging = new Uint8Array(batchMax * RECORD_BYTES);
    this.#in = new Uint32Array(this.staging.buffer);
    this.replies = new Uint8Array(batchMax * RECORD_BYTES);
    this.#out = new Uint32Array(this.replies.buffer);
    this.#scratchAt = scratchOffset / 4;
  }

  /** Serves record `i` of the staging area. */
  serve(i: number, now: number): void {
    const at = i * REPLY_WORDS;
    const w = this.#in;
    const f: Fault = {
      op: w[at + Request.op / 4],
      handle: w[at + Request.volume / 4],
      reactor: w[at + Request.reactor / 4],
      flags: w[at + Request.flags / 4],
      ticket: w[at + Request.ticket / 4],
      grant: w[at + Request.grant / 4],
      block: w[at + Request.block / 4] + w[at + Request.block / 4 + 1] * TWO32,
      count: w[at + Request.count / 4] + w[at + Request.count / 4 + 1] * TWO32,
      offset: w[at + Request.offset / 4] + w[at + Request.offset / 4 + 1] * TWO32,
      length: w[at + Request.length / 4] + w[at + Request.length / 4 + 1] * TWO32,
      arg: w[at + Request.arg / 4],
      at: now,
    };
    this.count++;
    if (f.op === OP_DONE) this.#done(f, w[at + Request.error / 4]);
    else this.#run(f);
  }

  #run(f: Fault): void {
    const resource = this.host.resourceOf(f.handle);
    if (resource === undefined) {
      this.#fail(f, ESHUTDOWN);
      return;
    }
    switch (f.op) {
      case OP_LOAD:
        this.#load(f, resource);
        break;
      case OP_MAP_WRITE:
        if (this.#mayChange(f, resource)) this.#mapWrite(f, resource);
        break;
      case OP_UNMAP:
        if (this.#mayChange(f, resource)) this.#unmap(f, resource);
        break;
      case OP_FLUSH:
        this.#flush(f, resource);
        break;
      case OP_STATUS:
        this.#status(f, resource);
        break;
      default:
        this.#fail(f, EINVAL);
    }
  }

  /** Read-only and failed resources refuse; behind a barrier it waits. */
  #mayChange(f: Fault, resource: Resource): boolean {
    if (resource.row.kind === KIND_SNAPSHOT) this.#fail(f, EROFS);
    else if (resource.failed !== 0) this.#fail(f, resource.failed);
    else if (resource.barriers > 0) resource.parked.push(() => this.#run(f));
    else return true;
    return false;
  }

  // ---- replies

  #reply(f: { op: number; handle: number; reactor: number; ticket: number }): number {
    if (this.replyCount === this.batchMax) this.flushReplies();
    const at = this.replyCount++ * REPLY_WORDS;
    const o = this.#out;
    o[at + Reply.op / 4] = f.op;
    o[at + Reply.volume / 4] = f.handle;
    o[at + Reply.reactor / 4] = f.reactor;
    o[at + Reply.flags / 4] = 0;
    o[at + Reply.ticket / 4] = f.ticket;
    o[at + Reply.grant / 4] = 0;
    o[at + Reply.error / 4] = 0;
    o[at + Reply.count / 4] = 0;
    return at;
  }

  flushReplies(): void {
    if (this.replyCount === 0) return;
    this.native.reply(this.core, this.replies, this.replyCount);
    this.replyCount = 0;
  }

  #fail(f: Fault, error: number): void {
    const at = this.#reply(f);
    this.#out[at + Reply.error / 4] = error;
    this.host.faultFailed(error);
  }

  #ok(f: Fault): void {
    this.#reply(f);
    this.#served(f.op, f.at);
  }

  #served(op: number, since: number): void {
    this.host.sampleFault(op, (this.clock.now() - since) * 1000);
  }

  /** Faults behind a grant on the same block. */
  get lockWaiters(): number {
    let waiters = 0;
    for (const waiting of this.#locks.values()) waiters += waiting.length;
    return waiters;
  }

  /** Grants that reactors hold. */
  get grantsOut(): number {
    return this.#grants.length - this.#grantFree.length;
  }

  // ---- loads

  #load(f: Fault, resource: Resource): void {
    const first = Math.floor(f.block / PAGE_ENTRIES);
    const last = Math.min(Math.floor((f.block + Math.max(1, f.count) - 1) / PAGE_ENTRIES), first + LOAD_LEAVES_MAX - 1);
    for (let leaf = first; leaf <= last; leaf++) {
      const frame = this.#leafOf(resource, leaf);
      if (frame === WAIT || frame === BROKEN) {
        if (leaf > first) break;
        if (frame === BROKEN) this.#fail(f, EIO);
        else this.host.whenFrames(() => this.#run(f));
        return;
      }
      this.tree.expose(resource, leaf, frame);
    }
    this.#ok(f);
  }

  #leafOf(resource: Resource, leaf: number): number {
    const leaves = PAGE_ENTRIES ** resource.row.height;
    return leaf >= leaves ? EMPTY : this.tree.find(resource, leaf);
  }

  // ---- writes

  #mapWrite(f: Fault, resource: Resource): void {
    const key = f.handle * LOCK_BLOCKS + f.block;
    const waiting = this.#locks.get(key);
    if (waiting !== undefined) {
      waiting.push(f);
      return;
    }
    const pool = this.host.poolOf(resource);
    // Checked when it came in, but the volume may have become smaller while it waited.
    const end =
      (f.flags & FLAG_FULL) !== 0
        ? (f.block + f.count) * pool.blockSize
        : f.block * pool.blockSize + f.offset + f.length;
    if (end > resource.row.size) {
      this.#fail(f, ENOSPC);
      return;
    }
    const leaf = Math.floor(f.block / PAGE_ENTRIES);
    if (leaf >= PAGE_ENTRIES ** resource.row.height) {
      this.#fail(f, ENOSPC);
      return;
    }
    if (this.host.tooDirty()) {
      this.host.commitAll();
      this.host.whenFrames(() => this.#run(f));
      return;
    }
    const frame = this.tree.writable(resource, leaf);
    if (frame === WAIT) {
      this.host.commitAll();
      this.host.whenFrames(() => this.#run(f));
      return;
    }
    if (frame === BROKEN) {
      this.#fail(f, EIO);
      return;
    }
    this.#grant(f, resource, pool, frame);
  }

  #grant(f: Fault, resource: Resource, pool: SlotPool, frame: number): void {
    const { frames } = this;
    const index = f.block % PAGE_ENTRIES;
    if ((frames.high(frame, index) & EXCLUSIVE) !== 0) {
      const at = this.#reply(f);
      this.#out[at + Reply.flags / 4] = GRANT_IN_PLACE;
      this.#out[at + Reply.count / 4] = 1;
      this.#served(f.op, f.at);
      return;
    }
    const full = (f.flags & FLAG_FULL) !== 0;
    if (!full && (frames.high(frame, index) & BAD) !== 0) {
      this.#fail(f, EIO); // the rest of the block is not to be had
      return;
    }
    let wanted = 1;
    if (full) {
      const end = Math.min(f.count, PAGE_ENTRIES - index, GRANT_BLOCKS_MAX);
      while (wanted < end && (frames.high(frame, index + wanted) & EXCLUSIVE) === 0) {
        if (this.#locks.has(f.handle * LOCK_BLOCKS + f.block + wanted)) break;
        wanted++;
      }
    }
    const run = pool.allocate(resource, wanted);
    if (run === 'full' || run === 'failed') {
      this.#fail(f, run === 'full' ? ENOSPC : EIO);
      return;
    }
    if (run === 'wait') {
      if (pool.freeingSlots > 0) this.host.commitAll();
      pool.waiters.push(() => this.#run(f));
      return;
    }
    for (let i = 0; i < run.count; i++) this.#locks.set(f.handle * LOCK_BLOCKS + f.block + i, []);
    const above = this.tree.above(resource, Math.floor(f.block / PAGE_ENTRIES));
    frames.pins[frame]++;
    for (const page of above) frames.pins[page]++;
    resource.outstanding++;
    const id = this.#grantFree.pop() ?? this.#grants.length;
    if (id >= GRANTS_MAX) throw new Error('grants beyond GRANTS_MAX');
    this.#grants[id] = {
      resource,
      handle: f.handle,
      block: f.block,
      count: run.count,
      slot: run.slot,
      frame,
      above,
      at: f.at,
    };
    const old = full ? 0 : frames.value(frame, index);
    const oldSlot = old === 0 ? SLOT_NONE : old - 1;
    const at = this.#reply(f);
    const o = this.#out;
    o[at + Reply.grant / 4] = id;
    o[at + Reply.count / 4] = run.count;
    o[at + Reply.slotNew / 4] = run.slot % TWO32;
    o[at + Reply.slotNew / 4 + 1] = Math.floor(run.slot / TWO32);
    o[at + Reply.slotOld / 4] = oldSlot % TWO32;
    o[at + Reply.slotOld / 4 + 1] = Math.floor(oldSlot / TWO32);
  }

  #done(f: Fault, error: number): void {
    const grant = this.#grants[f.grant];
    if (grant === undefined || grant.handle !== f.handle)
      throw new Error(`reactor ${f.reactor} ended a grant it does not hold`);
    this.#grants[f.grant] = undefined;
    this.#grantFree.push(f.grant);
    const { resource, frame } = grant;
    const pool = this.host.poolOf(resource);
    if (error !== 0) {
      pool.abandon(grant.slot, grant.count);
      this.#fail(f, error);
    } else {
      this.#publish(grant, pool);
      this.#reply(f);
      this.#served(OP_MAP_WRITE, grant.at);
    }
    this.frames.pins[frame]--;
    for (const page of grant.above) this.frames.pins[page]--;
    resource.outstanding--;
    for (let i = 0; i < grant.count; i++) {
      const key = grant.handle * LOCK_BLOCKS + grant.block + i;
      const waiting = this.#locks.get(key) as Fault[];
      this.#locks.delete(key);
      for (const next of waiting) this.#run(next);
    }
    if (resource.outstanding === 0) {
      const drained = resource.drained;
      resource.drained = [];
      for (const run of drained) run();
    }
  }

  #publish(grant: Grant, pool: SlotPool): void {
    const { resource, frame } = grant;
    const index = grant.block % PAGE_ENTRIES;
    let fresh = 0;
    for (let i = 0; i < grant.count; i++) {
      const old = this.frames.value(frame, index + i);
      if (old === 0) fresh++;
      else this.#dropSlot(resource, pool, old - 1, this.frames.high(frame, index + i));
    }
    // First: from the moment the entries are there others write in place, and their flush must find the map changed.
    this.#mapChanged(resource);
    this.native.publishRun(this.core, frame, index, grant.count, grant.slot, OWNED | EXCLUSIVE);
    this.frames.delta[frame] += fresh;
    resource.changes.taken.push(resource.row.pool, grant.slot, grant.count);
    this.tree.touch(resource, frame);
  }

  /** Puts another slot in the place of a block's, under a barrier; what it had goes. */
  replaceBlock(resource: Resource, frame: number, block: number, slot: number): void {
    this.#publish(
      { resource, handle: resource.handle, block, count: 1, slot, frame, above: [], at: 0 },
      this.host.poolOf(resource),
    );
  }

  /** A leaf entry of the resource's own page goes: its slot is free at once when nobody else can have it. */
  #dropSlot(resource: Resource, pool: SlotPool, slot: number, high: number): void {
    if ((high & OWNED) === 0) return;
    if ((high & EXCLUSIVE) !== 0) {
      resource.changes.freed.push(resource.row.pool, slot, 1);
      pool.freeingSlots++;
    } else {
      resource.changes.releases.push({
        seq: this.host.nextRelease(resource.row.pool, 1),
        kind: RELEASE_SLOT,
        id: slot,
        pool: resource.row.pool,
      });
    }
  }

  #mapChanged(resource: Resource): void {
    resource.mapDirty = (resource.mapDirty + 1) >>> 0;
    if (resource.handle >= 0)
      Atomics.store(this.frames.words, this.recordAt(resource.handle) + VolumeRecord.mapDirty / 4, resource.mapDirty);
    this.host.changed(resource);
  }

  // ---- unmapping

  /** Runs `work` when no grant of the resource is out; new changes wait until `release` is called. */
  barrier(resource: Resource, work: (release: () => void) => void): void {
    resource.barriers++;
    let done = false;
    const release = () => {
      if (done) return;
      done = true;
      resource.barriers--;
      if (resource.barriers > 0) return;
      const parked = resource.parked;
      resource.parked = [];
      for (const run of parked) run();
    };
    if (resource.outstanding === 0) work(release);
    else resource.drained.push(() => work(release));
  }

  #unmap(f: Fault, resource: Resource): void {
    const pool = this.host.poolOf(resource);
    const allocate = (f.flags & FLAG_ALLOCATE) !== 0;
    this.barrier(resource, (release) => {
      const end = Math.min(f.block + f.count, Math.ceil(resource.row.size / pool.blockSize));
      this.unmapRange(resource, f.block, end, allocate, (error) => {
        release();
        if (error !== 0) this.#fail(f, error);
        else this.#ok(f);
      });
    });
  }

  /** Unmaps (or gives fresh zero slots to) blocks [from, to) in slices; under a barrier. */
  unmapRange(resource: Resource, from: number, until: number, allocate: boolean, done: (error: number) => void): void {
    const pool = this.host.poolOf(resource);
    let at = from;
    const turn = () => {
      // The volume may become smaller while this waits.
      const to = allocate ? Math.min(until, Math.ceil(resource.row.size / pool.blockSize)) : until;
      // Every time: barriers do not exclude each other, and what another unmapping cleared meanwhile may be unlinked here.
      this.tree.settle(resource);
      for (let pages = 0; at < to; pages++) {
        if (pages >= UNMAP_PAGES_PER_TURN) {
          this.host.nextTurn(turn);
          return;
        }
        if (this.host.tooDirty()) {
          this.host.commitAll();
          this.host.whenFrames(turn);
          return;
        }
        const next = allocate ? this.#allocateSlice(resource, at, to, turn) : this.#unmapSlice(resource, at, to);
        if (next === WAIT) {
          this.host.commitAll();
          this.host.whenFrames(turn);
          return;
        }
        if (next === PARKED) return;
        if (next < 0) {
          done(next === BROKEN ? EIO : ENOSPC);
          return;
        }
        at = next;
      }
      done(0);
    };
    turn();
  }

  /** One page's worth of unmapping from block `at`; returns the next block, WAIT or BROKEN. */
  #unmapSlice(resource: Resource, at: number, to: number): number {
    const { tree, frames } = this;
    const height = resource.row.height;
    if (at >= PAGE_ENTRIES ** (height + 1)) return to;
    let level = 0;
    while (level < height && at % PAGE_ENTRIES ** (level + 1) === 0 && at + PAGE_ENTRIES ** (level + 1) <= to) level++;
    const leaf = Math.floor(at / PAGE_ENTRIES);
    const span = PAGE_ENTRIES ** level;
    // an empty place high up is skipped whole, without making pages for it
    for (let l = height; l >= level; l--) {
      const frame = tree.find(resource, leaf, l);
      if (frame === EMPTY) {
        const skipped = PAGE_ENTRIES ** (l + 1);
        return Math.min(to, (Math.floor(at / skipped) + 1) * skipped);
      }
      if (frame < 0 && l === level) {
        if (frame === WAIT) return WAIT;
        return BROKEN;
      }
    }
    const frame = tree.writable(resource, leaf, level);
    if (frame < 0) return frame;
    const index = Math.floor(at / span) % PAGE_ENTRIES;
    const count = Math.min(PAGE_ENTRIES - index, Math.floor((to - at) / span));
    if (level === 0) {
      const pool = this.host.poolOf(resource);
      const present = tree.clear(resource, frame, index, index + count, (value, exclusive) =>
        this.#dropSlot(resource, pool, value - 1, exclusive ? OWNED | EXCLUSIVE : OWNED),
      );
      frames.delta[frame] -= present;
      if (present > 0) tree.touch(resource, frame);
    } else {
      const leaves = span / PAGE_ENTRIES;
      const firstLeaf = Math.floor(at / PAGE_ENTRIES);
      if (resource.handle >= 0) frames.unhashRange(resource.handle, firstLeaf, firstLeaf + count * leaves);
      if (tree.unlink(resource, frame, index, index + count) === WAIT) return WAIT;
    }
    this.#mapChanged(resource);
    return at + count * span;
  }

  /** NO_HOLE: fresh zero slots for blocks of one leaf from `at`. Returns the next block, WAIT, BROKEN, PARKED or NO_SLOTS. */
  #allocateSlice(resource: Resource, at: number, to: number, again: () => void): number {
    const { frames } = this;
    const frame = this.tree.writable(resource, Math.floor(at / PAGE_ENTRIES));
    if (frame < 0) return frame;
    const index = at % PAGE_ENTRIES;
    const pool = this.host.poolOf(resource);
    const run = pool.allocate(resource, Math.min(PAGE_ENTRIES - index, to - at));
    if (run === 'full') return NO_SLOTS;
    if (run === 'failed') return BROKEN;
    if (run === 'wait') {
      if (pool.freeingSlots > 0) this.host.commitAll();
      pool.waiters.push(again);
      return PARKED;
    }
    // its zeroes may be a hole that is not durable yet
    this.native.markFile(this.core, resource.handle, pool.fileOf(run.slot));
    frames.pins[frame]++;
    this.#publish(
      { resource, handle: resource.handle, block: at, count: run.count, slot: run.slot, frame, above: [], at: 0 },
      pool,
    );
    frames.pins[frame]--;
    return at + run.count;
  }

  // ---- flush

  #flush(f: Fault, resource: Resource): void {
    if (resource.failed !== 0) {
      this.#fail(f, resource.failed);
      return;
    }
    resource.changes.syncData = true;
    resource.changes.waiters.push((error) => (error !== 0 ? this.#fail(f, error) : this.#ok(f)));
    this.host.commitSoon(resource);
  }

  // ---- block status

  #status(f: Fault, resource: Resource): void {
    const slot = f.arg & 0xff;
    const max = Math.min(f.arg >>> 8, SCRATCH_EXTENTS);
    if (slot >= SCRATCH_SLOTS || max === 0) {
      this.#fail(f, EINVAL);
      return;
    }
    const changedSince = (f.flags & FLAG_CHANGED_SINCE) !== 0;
    const against = changedSince ? this.host.resourceOf(f.grant) : undefined;
    if (changedSince && against === undefined) {
      this.#fail(f, EINVAL);
      return;
    }
    const at = this.#scratchAt + (f.reactor * SCRATCH_SLOTS + slot) * SCRATCH_EXTENTS * 4;
    const words = this.frames.words;
    const blockSize = this.host.poolOf(resource).blockSize;
    const end = f.offset + f.length;
    let count = 0;
    let lastFlags = -1;
    const emit = (first: number, blocks: number, changed: boolean): boolean => {
      const flags = changedSince ? (changed ? EXTENT_CHANGED : 0) : changed ? 0 : EXTENT_HOLE | EXTENT_ZERO;
      const from = Math.max(f.offset, first * blockSize);
      const length = Math.min(end, (first + blocks) * blockSize) - from;
      if (flags === lastFlags) {
        const o = at + (count - 1) * 4;
        const sum = words[o] + words[o + 1] * TWO32 + length;
        words[o] = sum % TWO32;
        words[o + 1] = Math.floor(sum / TWO32);
        return true;
      }
      if (count === max) return false;
      const o = at + count * 4;
      words[o] = length % TWO32;
      words[o + 1] = Math.floor(length / TWO32);
      words[o + 2] = flags;
      count++;
      lastFlags = flags;
      return true;
    };
    const walk = new Walk(
      this.tree,
      this.frames,
      resource,
      against ?? null,
      Math.floor(f.offset / blockSize),
      Math.ceil(end / blockSize),
      emit,
    );
    const result = walk.run();
    if (count === 0) {
      if (result.status === BROKEN) this.#fail(f, EIO);
      else {
        this.host.commitAll();
        this.host.whenFrames(() => this.#run(f));
      }
      return;
    }
    const reply = this.#reply(f);
    this.#out[reply + Reply.count / 4] = count;
    this.#served(f.op, f.at);
  }
}

/** unmapRange: the slice waits for slots and will run again by itself */
const PARKED = -3;
const NO_SLOTS = -4;
