/**
 * The native core as the mapper sees it, simulated: segment, leaf hash, generations, epochs, rings, background work. It does
 * what native/ does (core.cc, map/, ring/, volume/syncer.cc), in steps that the simulation takes when it likes.
 * The page codec is the real one.
 */
import {
  FILES_MAX,
  FRAME_BYTES,
  FrameMeta,
  OP_SYNC_DONE,
  OP_ZERO_DONE,
  PAGE_ENTRIES,
  RECORD_BYTES,
  Request,
  SCRATCH_EXTENTS,
  SCRATCH_SLOTS,
  SegmentHeader,
  STAMP_NONE,
  VOLUMES_MAX,
  VolumeRecord,
} from '../../src/xseg/layout.gen.ts';
import type { Clock } from '../../src/xseg/mapper/clock.ts';
import { EIO } from '../../src/xseg/mapper/errors.ts';
import { loadNative, type Native } from '../../src/xseg/native.ts';
import type { Bugs } from './bugs.ts';
import { bytesOf, SECTOR, type SimDisk } from './disk.ts';
import { SimReactor } from './reactor/reactor.ts';
import type { Rng } from './rng.ts';

const TWO32 = 2 ** 32;
/** key of a leaf: handle * LEAF_KEYS + leaf number */
const LEAF_KEYS = 2 ** 30;
const VALUE_HI_MASK = 0xffff;
/** Work of a background thread; `step` does a piece of it and says whether that was the last. */
interface Job {
  step(): boolean;
}

/** A record on a request ring. */
export interface RequestRecord {
  op: number;
  volume?: number;
  reactor?: number;
  flags?: number;
  ticket: number;
  grant?: number;
  block?: number;
  count?: number;
  offset?: number;
  length?: number;
  error?: number;
  arg?: number;
}

/** What of `Native` the mapper and the committer use. */
type Used = Pick<
  Native,
  | 'segment'
  | 'poolUsage'
  | 'ensureFile'
  | 'readNow'
  | 'writeNow'
  | 'hashBlocks'
  | 'take'
  | 'reply'
  | 'publish'
  | 'publishRun'
  | 'clearRun'
  | 'copyFrameShared'
  | 'clearFrame'
  | 'dropFrame'
  | 'stamp'
  | 'hashInsert'
  | 'hashFind'
  | 'hashRemove'
  | 'advanceGeneration'
  | 'writersDrained'
  | 'epochAdvance'
  | 'reactorStats'
  | 'epochSafe'
  | 'syncVolume'
  | 'markFile'
  | 'forgetFiles'
  | 'zeroRuns'
  | 'syncFile'
  | 'encodePage'
  | 'encodePageFrom'
  | 'decodePage'
  | 'decodePageTo'
>;

export interface CoreShape {
  reactors: number;
  frames: number;
}

/** A slot of a pool, by the pool's id. */
export interface Place {
  pool: number;
  slot: number;
}

export class SimNative implements Used {
  /** the addon's own: it computes, and nothing else */
  readonly hashBlocks: Native['hashBlocks'] = loadNative().hashBlocks;
  readonly buffer: ArrayBuffer;
  readonly words: Uint32Array;
  readonly reactors: SimReactor[] = [];
  readonly #jobs: Job[] = [];
  readonly #requests: RequestRecord[][] = [];
  readonly #misc: RequestRecord[] = [];
  readonly #hash = new Map<number, number>();
  readonly #dirtyFiles = new Map<number, Set<number>>();
  /** writers admitted: [handle][reactor][parity] */
  readonly #admitted: Uint32Array;
  readonly #syncs = new Map<number, SyncJob>();
  readonly #framesAt: number;
  readonly #metaAt: number;
  readonly scratchAt: number;
  #epoch = 1;
  /** how fast the clock runs */
  time = 1;
  /** share of the block I/O that takes long */
  slowShare = 0.1;
  /** flushes until the sync of one fails, −1 never */
  flushFails = -1;
  /** hears of blocks that are copied, and when the slots they are copied from were told */
  copied: (block: Uint32Array, from: Place, told: number) => void = () => undefined;
  /** what the mapper read last: what it writes next comes from there, if it is a copy */
  #readLast: Place = { pool: 0, slot: 0 };
  /** hears of records that the mapper takes from reactors and from background work */
  taken: (record: RequestRecord) => void = () => undefined;

  constructor(
    readonly shape: CoreShape,
    readonly disks: readonly SimDisk[],
    readonly codec: Native,
    readonly rng: Rng,
    readonly bugs: Bugs,
    readonly clock: Clock,
    memory?: ArrayBuffer,
  ) {
    const volumes = SegmentHeader.BYTES;
    const meta = volumes + VOLUMES_MAX * VolumeRecord.BYTES;
    const frames = meta + shape.frames * FrameMeta.BYTES;
    const scratch = frames + shape.frames * FRAME_BYTES;
    const total = scratch + shape.reactors * SCRATCH_SLOTS * SCRATCH_EXTENTS * 16;
    this.buffer = memory?.byteLength === total ? memory : new ArrayBuffer(total);
    this.words = new Uint32Array(this.buffer);
    // what a restart finds is zeroes, and stamps of nobody; scratch is written before it is read
    if (memory === this.buffer) this.words.fill(0, 0, scratch / 4);
    const view = new DataView(this.buffer);
    view.setUint32(SegmentHeader.frameCount, shape.frames, true);
    view.setBigUint64(SegmentHeader.volumesOffset, BigInt(volumes), true);
    view.setBigUint64(SegmentHeader.frameMetaOffset, BigInt(meta), true);
    view.setBigUint64(SegmentHeader.framesOffset, BigInt(frames), true);
    view.setBigUint64(SegmentHeader.scratchOffset, BigInt(scratch), true);
    this.#framesAt = frames / 4;
    this.#metaAt = meta / 4;
    this.scratchAt = scratch / 4;
    for (let f = 0; f < shape.frames; f++) this.words[this.#metaAt + f * 16] = STAMP_NONE;
    this.#admitted = new Uint32Array(VOLUMES_MAX * shape.reactors * 2);
    for (let r = 0; r < shape.reactors; r++) {
      this.#requests.push([]);
      this.reactors.push(new SimReactor(this, r, rng, bugs));
    }
  }

  // ---- memory

  segment(): ArrayBuffer {
    return this.buffer;
  }

  recordAt(handle: number): number {
    return (SegmentHeader.BYTES + handle * VolumeRecord.BYTES) / 4;
  }

  frameAt(frame: number): number {
    return this.#framesAt + frame * (FRAME_BYTES / 4);
  }

  publish(_core: number, frame: number, index: number, lo: number, hi: number): void {
    if (frame === 0) throw new Error('the shared empty frame is written');
    const at = this.frameAt(frame) + index * 2;
    this.words[at] = lo;
    this.words[at + 1] = hi;
  }

  publishRun(_core: number, frame: number, index: number, count: number, slot: number, bits: number): void {
    for (let i = 0; i < count; i++) {
      const value = slot + 1 + i;
      this.publish(0, frame, index + i, value % TWO32, (Math.floor(value / TWO32) | bits) >>> 0);
    }
  }

  clearRun(_core: number, frame: number, index: number, count: number): void {
    const at = this.frameAt(frame) + index * 2;
    this.words.fill(0, at, at + count * 2);
  }

  clearFrame(_core: number, frame: number): void {
    this.clearRun(0, frame, 0, PAGE_ENTRIES);
  }

  /** Undefined is what nobody may rely on. */
  dropFrame(_core: number, frame: number): void {
    const at = this.frameAt(frame);
    this.words.fill(0xffffffff, at, at + PAGE_ENTRIES * 2);
  }

  copyFrameShared(_core: number, source: number, target: number): void {
    const from = this.frameAt(source);
    const to = this.frameAt(target);
    for (let i = 0; i < PAGE_ENTRIES * 2; i += 2) {
      this.words[to + i] = this.words[from + i];
      this.words[to + i + 1] = this.words[from + i + 1] & VALUE_HI_MASK;
    }
  }

  stamp(_core: number, frame: number, volume: number, generation: number): void {
    this.words[this.#metaAt + frame * 16 + FrameMeta.stampVolume / 4] = volume;
    this.words[this.#metaAt + frame * 16 + FrameMeta.stampGeneration / 4] = generation;
  }

  stampedFor(frame: number, volume: number, generation: number): boolean {
    const at = this.#metaAt + frame * 16;
    if (this.words[at + FrameMeta.stampVolume / 4] !== volume) return false;
    return this.bugs.has('stamp-ignored') || this.words[at + FrameMeta.stampGeneration / 4] === generation;
  }

  touch(frame: number): void {
    this.words[this.#metaAt + frame * 16 + FrameMeta.referenced / 4] = 1;
  }

  hashInsert(_core: number, volume: number, leaf: number, frame: number): boolean {
    this.#hash.set(volume * LEAF_KEYS + leaf, frame);
    return true;
  }

  hashFind(_core: number, volume: number, leaf: number): number {
    return this.find(volume, leaf);
  }

  hashRemove(_core: number, volume: number, leaf: number): void {
    this.#hash.delete(volume * LEAF_KEYS + leaf);
  }

  /** frame number, or −1 */
  find(volume: number, leaf: number): number {
    return this.#hash.get(volume * LEAF_KEYS + leaf) ?? -1;
  }

  // ---- generations and epochs

  advanceGeneration(_core: number, volume: number): number {
    const at = this.recordAt(volume) + VolumeRecord.generation / 4;
    const next = this.words[at] + 1;
    if (!this.bugs.has('generation-not-advanced')) this.words[at] = next;
    return next;
  }

  writersDrained(_core: number, volume: number): boolean {
    const old = (this.words[this.recordAt(volume) + VolumeRecord.generation / 4] + 1) & 1;
    for (let r = 0; r < this.shape.reactors; r++)
      if (this.#admitted[this.#admittedAt(volume, r, old)] > 0) return false;
    return true;
  }

  #admittedAt(volume: number, reactor: number, parity: number): number {
    return (volume * this.shape.reactors + reactor) * 2 + parity;
  }

  admit(volume: number, reactor: number, generation: number, by: number): void {
    this.#admitted[this.#admittedAt(volume, reactor, generation & 1)] += by;
  }

  get epoch(): number {
    return this.#epoch;
  }

  reactorStats(): never[] {
    return [];
  }

  epochAdvance(): number {
    return ++this.#epoch;
  }

  epochSafe(): number {
    let oldest = this.#epoch;
    for (const reactor of this.reactors) oldest = Math.min(oldest, reactor.published);
    return oldest;
  }

  // ---- rings

  send(reactor: number, record: RequestRecord): void {
    this.#requests[reactor].push(record);
  }

  /** True when the mapper would not wait. */
  get mail(): boolean {
    return this.#misc.length > 0 || this.#requests.some((ring) => ring.length > 0);
  }

  take(_core: number, staging: Uint8Array, max: number): number {
    const words = new Uint32Array(staging.buffer, staging.byteOffset, staging.byteLength / 4);
    const rings = [...this.#requests, this.#misc].filter((ring) => ring.length > 0);
    let taken = 0;
    // any ring first, and now and then not all that there is
    while (rings.length > 0 && taken < max) {
      const at = this.rng.int(rings.length);
      const ring = rings[at];
      const some = this.rng.chance(0.8) ? ring.length : 1 + this.rng.int(ring.length);
      for (const record of ring.splice(0, Math.min(some, max - taken))) {
        this.taken(record);
        encode(record, words, (taken++ * RECORD_BYTES) / 4);
      }
      rings.splice(at, 1);
    }
    return taken;
  }

  reply(_core: number, staging: Uint8Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const words = new Uint32Array(staging.slice(i * RECORD_BYTES, (i + 1) * RECORD_BYTES).buffer);
      this.reactors[words[2]].replies.push(words);
    }
  }

  #done(op: number, ticket: number, error: number): void {
    this.#misc.push({ op, ticket, error });
  }

  // ---- pools

  poolUsage(_core: number, pool: number): { capacityBytes: number; physicalBytes: number; failed: boolean } {
    const disk = this.disks[pool];
    return { capacityBytes: disk.freeBytes, physicalBytes: 0, failed: disk.failed };
  }

  ensureFile(_core: number, pool: number, file: number): void {
    throwErrno(this.disks[pool].ensure(file));
  }

  readNow(_core: number, pool: number, address: number, buffer: Uint8Array): void {
    const sectors = new Uint32Array(buffer.length / SECTOR);
    const { row } = this.disks[pool];
    this.#readLast = { pool: row.id, slot: Math.floor(address / 2 ** row.block_shift) };
    throwErrno(this.disks[pool].read(address, sectors, 0, sectors.length));
    buffer.set(bytesOf(sectors));
  }

  writeNow(_core: number, pool: number, address: number, buffer: Uint8Array): void {
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length);
    const sectors = Uint32Array.from({ length: buffer.length / SECTOR }, (_, i) => view.getUint32(i * SECTOR, true));
    this.copied(sectors, this.#readLast, this.clock.now());
    throwErrno(this.disks[pool].write(address, sectors, 0, sectors.length));
  }

  // ---- background work

  /** Pieces of background work that could be done. */
  get jobs(): number {
    return this.#jobs.length;
  }

  step(): void {
    const at = this.rng.int(this.#jobs.length);
    if (this.#jobs[at].step()) this.#jobs.splice(at, 1);
  }

  markFile(_core: number, volume: number, file: number): void {
    if (file >= FILES_MAX) throw new Error('no such pool file');
    let files = this.#dirtyFiles.get(volume);
    if (files === undefined) {
      files = new Set();
      this.#dirtyFiles.set(volume, files);
    }
    files.add(file);
  }

  forgetFiles(_core: number, volume: number): void {
    this.#dirtyFiles.delete(volume);
  }

  /** Takes the files that a volume wrote since its last sync. */
  takeDirty(volume: number): number[] {
    const files = [...(this.#dirtyFiles.get(volume) ?? [])];
    this.#dirtyFiles.delete(volume);
    if (this.bugs.has('sync-forgets-a-file')) files.pop();
    return files;
  }

  diskOf(volume: number): SimDisk {
    return this.disks[this.words[this.recordAt(volume) + VolumeRecord.pool / 4]];
  }

  /** volume/syncer.h: everything the volume wrote and marked before this call is durable when `done(0)` runs. */
  sync(volume: number, done: (error: number) => void): void {
    const running = this.#syncs.get(volume);
    if (running !== undefined) {
      running.next.push(done);
      return;
    }
    const job = new SyncJob(this, volume, () => this.#syncs.delete(volume));
    job.next.push(done);
    this.#syncs.set(volume, job);
    job.begin();
    this.#jobs.push(job);
  }

  /** The same at once, where no sync of the volume runs and there is nothing to do; −1 where there is. */
  trySyncInline(volume: number): number {
    if (this.#syncs.has(volume) || (this.#dirtyFiles.get(volume)?.size ?? 0) > 0) return -1;
    return this.words[this.recordAt(volume) + VolumeRecord.failed / 4] || (this.diskOf(volume).failed ? EIO : 0);
  }

  syncVolume(_core: number, volume: number, ticket: number): void {
    if (this.bugs.has('sync-skipped')) {
      this.#done(OP_SYNC_DONE, ticket, 0);
      return;
    }
    if (this.bugs.has('sync-answered-early')) {
      this.#done(OP_SYNC_DONE, ticket, 0);
      this.sync(volume, () => undefined);
      return;
    }
    this.sync(volume, (error) => this.#done(OP_SYNC_DONE, ticket, error));
  }

  syncFile(_core: number, pool: number, file: number, ticket: number): void {
    const disk = this.disks[pool];
    const version = disk.syncBegins();
    this.#jobs.push({
      step: () => {
        this.#done(OP_SYNC_DONE, ticket, disk.syncEnds(file, version));
        return true;
      },
    });
  }

  zeroRuns(_core: number, pool: number, runs: Float64Array, count: number, ticket: number): void {
    if (this.bugs.has('zeroing-lost') && this.rng.chance(0.2)) return;
    const disk = this.disks[pool];
    const list = runs.slice(0, count * 2);
    if (this.bugs.has('zeroing-short')) list[count * 2 - 1] -= 2 ** disk.row.block_shift;
    let at = 0;
    let error = 0;
    this.#jobs.push({
      step: () => {
        if (at < list.length && error === 0) {
          const [address, length] = [list[at], list[at + 1]];
          if (this.reactors.some((reactor) => reactor.holds(disk, address, length)))
            throw new Error(`bytes ${address}+${length} are zeroed while a reactor holds them`);
          if (!this.bugs.has('zeroing-skipped')) error = disk.zero(list[at], list[at + 1]);
          at += 2;
          return false;
        }
        this.#done(OP_ZERO_DONE, ticket, error);
        return true;
      },
    });
  }

  // ---- map page codec

  #entries(frame: number): Uint32Array {
    const at = this.frameAt(frame);
    return this.words.subarray(at, at + PAGE_ENTRIES * 2);
  }

  encodePage(
    _core: number,
    frame: number,
    level: number,
    pageId: number,
    base: number,
    owner: number,
    generation: number,
    mapped: number,
    out: Uint8Array,
    at: number,
  ): number {
    return this.codec.encodePageFrom(this.#entries(frame), level, pageId, base, owner, generation, mapped, out, at);
  }

  encodePageFrom(...args: Parameters<Native['encodePageFrom']>): number {
    return this.codec.encodePageFrom(...args);
  }

  decodePageTo(blob: Uint8Array, expected: number, entries: Uint32Array, header: Float64Array): number {
    return this.codec.decodePageTo(blob, expected, entries, header);
  }

  decodePage(_core: number, blob: Uint8Array, expected: number, frame: number, header: Float64Array): number {
    return this.codec.decodePageTo(blob, expected, this.#entries(frame), header);
  }
}

/** fdatasync of every file a volume wrote; who asks while one runs waits for the next one. */
class SyncJob implements Job {
  readonly next: ((error: number) => void)[] = [];
  #current: ((error: number) => void)[] = [];
  #files: { file: number; version: number }[] = [];
  #unsynced: number[] = [];
  #error = 0;

  constructor(
    readonly native: SimNative,
    readonly volume: number,
    readonly ended: () => void,
  ) {}

  begin(): void {
    const { native, volume } = this;
    const disk = native.diskOf(volume);
    this.#current = this.next.splice(0);
    this.#unsynced = [];
    this.#error = native.words[native.recordAt(volume) + VolumeRecord.failed / 4] || (disk.failed ? EIO : 0);
    const version = disk.syncBegins();
    this.#files = this.#error === 0 ? native.takeDirty(volume).map((file) => ({ file, version })) : [];
  }

  step(): boolean {
    const { native, volume } = this;
    if (this.#files.length > 0) {
      const [{ file, version }] = this.#files.splice(native.rng.int(this.#files.length), 1);
      if (this.#error !== 0 || native.diskOf(volume).syncEnds(file, version) !== 0) {
        this.#error = EIO;
        this.#unsynced.push(file);
      }
      return false;
    }
    for (const file of this.#unsynced) native.markFile(0, volume, file);
    const failedAt = native.recordAt(volume) + VolumeRecord.failed / 4;
    if (this.#error !== 0 && !native.bugs.has('sync-retried')) native.words[failedAt] ||= this.#error;
    const finished = this.#current;
    const error = this.#error;
    const again = this.next.length > 0;
    if (again) this.begin();
    else this.ended();
    for (const done of finished) done(error);
    return !again;
  }
}

function throwErrno(error: number): void {
  if (error !== 0) throw Object.assign(new Error(`errno ${error}`), { code: error === EIO ? 'EIO' : 'ENOSPC' });
}

function encode(record: RequestRecord, words: Uint32Array, at: number): void {
  words.fill(0, at, at + RECORD_BYTES / 4);
  words[at + Request.op / 4] = record.op;
  words[at + Request.volume / 4] = record.volume ?? 0;
  words[at + Request.reactor / 4] = record.reactor ?? 0;
  words[at + Request.flags / 4] = record.flags ?? 0;
  words[at + Request.ticket / 4] = record.ticket;
  words[at + Request.grant / 4] = record.grant ?? 0;
  long(words, at + Request.block / 4, record.block ?? 0);
  long(words, at + Request.count / 4, record.count ?? 0);
  long(words, at + Request.offset / 4, record.offset ?? 0);
  long(words, at + Request.length / 4, record.length ?? 0);
  words[at + Request.error / 4] = record.error ?? 0;
  words[at + Request.arg / 4] = record.arg ?? 0;
}

function long(words: Uint32Array, at: number, value: number): void {
  words[at] = value % TWO32;
  words[at + 1] = Math.floor(value / TWO32);
}
