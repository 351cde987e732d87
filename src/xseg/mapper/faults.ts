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
  OP_HASH,
  OP_LOAD,
  OP_MAP_WRITE,
  OP_ROTTEN,
  OP_STATUS,
  OP_UNMAP,
  PAGE_ENTRIES,
  RECORD_BYTES,
  REPLY_HASH,
  Reply,
  Request,
  SCRATCH_EXTENTS,
  SCRATCH_SLOTS,
  SLOT_NONE,
} from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { ZEROES } from '../page-table.ts';
import { KIND_SNAPSHOT } from '../store/batch.ts';
import { type Clock, systemClock } from './clock.ts';
import { Entries, type EntriesHost, type Run } from './entries.ts';
import { EINVAL, EIO, ENOSPC, EROFS, ESHUTDOWN } from './errors.ts';
import { Walk } from './extents.ts';
import { BAD, EXCLUSIVE, type Frames } from './frames.ts';
import type { Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { BROKEN, EMPTY, type Tree, WAIT } from './tree.ts';
import { Unmapping, type UnmappingHost } from './unmapping.ts';

/** Leaves made resident by one load fault. */
const LOAD_LEAVES_MAX = 64;
/** Blocks granted at once; contiguous slots. */
const GRANT_BLOCKS_MAX = 128;
/** Grants out at once; a reactor has at most a few hundred faults on its way. */
const GRANTS_MAX = 65536;
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

interface Grant extends Run {
  handle: number;
  /** pages above it, pinned like it: the count of what is published goes to them */
  above: number[];
  at: number;
}

export interface FaultsHost extends EntriesHost, UnmappingHost {
  resourceOf(handle: number): Resource | undefined;
  /** asks for a batch of the resource as soon as none is on its way */
  commitSoon(resource: Resource): void;
  /** a fault was served, microseconds after it was taken */
  sampleFault(op: number, us: number): void;
  /** HASH_BYTES: what the index has for a slot; null nothing */
  hashOf(pool: SlotPool, slot: number): Uint8Array | null;
  /** a reader found other bytes in it: errno that it gets, 0 when it is to look again */
  rotten(pool: SlotPool, slot: number): number;
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
  readonly entries: Entries;
  readonly unmapping: Unmapping;

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
    this.entries = new Entries(frames, tree, native, core, recordAt, host);
    this.unmapping = new Unmapping(frames, tree, this.entries, native, core, host);
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
      case OP_HASH:
        this.#hash(f, resource);
        break;
      case OP_ROTTEN: {
        const error = this.host.rotten(this.host.poolOf(resource), f.block);
        if (error === 0) this.#reply(f);
        else this.#fail(f, error);
        break;
      }
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

  #ok(f: Fault, count = 0): void {
    const at = this.#reply(f);
    this.#out[at + Reply.count / 4] = count;
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
    const oldSlot = old === 0 || old === ZEROES ? SLOT_NONE : old - 1;
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
      this.entries.publish(grant);
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
    const end = f.block + f.count;
    // What lies behind the end that the volume had may be in use by now: the last block is zeroed up to there by who asked.
    const grown = () => f.length !== 0 && resource.row.size > (end - 1) * pool.blockSize + f.length;
    const until = () => Math.min(grown() ? end - 1 : end, Math.ceil(resource.row.size / pool.blockSize));
    this.barrier(resource, (release) => {
      this.unmapping.range(resource, f.block, until, allocate, (error) => {
        const left = grown() ? 1 : 0;
        release();
        if (error !== 0) this.#fail(f, error);
        else this.#ok(f, left);
      });
    });
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

  // ---- verify on read

  /** `block` is a slot. It may be anybody's by now: who reads it looks it up again. */
  #hash(f: Fault, resource: Resource): void {
    const hash = this.host.hashOf(this.host.poolOf(resource), f.block);
    const at = this.#reply(f);
    if (hash !== null) {
      this.#out[at + Reply.count / 4] = 1;
      this.replies.set(hash, at * 4 + REPLY_HASH);
    }
    this.#served(f.op, f.at);
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
    this.#ok(f, count);
  }
}
