/**
 * Ingests: streams of bytes that become sealed snapshots (docs/format.md, "Ingest"). Their bytes never come here. A thread says
 * of each block which bytes it has (zero, a hash, a slot of the index with the same); this decides where it goes, and makes
 * the map, in batches that are sent in order, each when the data it names is durable. Owned by the mapper peer.
 *
 * What is unfinished hangs on a record of kind KIND_INGEST, which has no name; opening a home removes those.
 */
import { randomUUID } from 'node:crypto';
import { BLOCK_ZERO, type Decided, type IngestBegun, type Piece } from '../ingest/job.ts';
import type { Native } from '../native.ts';
import { resourceHash } from '../seal/tree-hash.ts';
import {
  type CommitBatch,
  type CommitResult,
  KIND_INGEST,
  KIND_SNAPSHOT,
  KIND_VOLUME,
  NOT_ATTACHED,
  RELEASE_PAGE,
  type ResourceRow,
} from '../store/batch.ts';
import { emptySeal, HASH_BYTES, type SealChanges } from '../store/seal-batch.ts';
import { EngineError, type IngestSpec } from '../types.ts';
import type { Commits } from './commits.ts';
import { type BuiltPages, MapBuilder } from './map-builder.ts';
import type { Registry } from './registry.ts';
import type { Resource } from './resource.ts';
import type { Group, SlotPool } from './slots.ts';
import { heightFor } from './tree.ts';

/** Blocks and bytes of a batch: its rows are one transaction, which flushes of guests wait for. */
const BATCH_BLOCKS_MAX = 4096;
const BATCH_BYTES_MAX = 256 * 1024 * 1024;
/** A batch that makes so many pages is full too: of a stream with few blocks in each leaf, pages are what takes memory. */
const BATCH_PAGES_MAX = 256;
/** A batch that keeps slots from being freed is closed when it is so old, however slowly its stream comes. */
export const PINS_MS_MAX = 2000;
/** Batches of one ingest whose data is not durable yet; pieces wait beyond. */
const BATCHES_MAX = 3;
/** Of those, how many are synced at once: one beside the one before it, and threads are left for what guests flush. */
const SYNCS_MAX = 2;

type Done<T> = (error: EngineError | null, value?: T) => void;

export interface IngestsHost {
  pools: Map<number, SlotPool>;
  poolNamed(name: string | undefined): SlotPool;
  nextResource(): number;
  nextPage(): number;
  nextRelease(pool: number, blocks: number): number;
  /** a group of releases is on its way */
  freeing(): boolean;
  poke(): void;
  commitAll(): void;
  /** the slot is in quarantine, durably or not yet */
  isBad(pool: number, slot: number): boolean;
  ticket(done: (error: number) => void): number;
  /** rows of the index were added */
  indexed(pool: number, rows: number): void;
  snapshotInfo(r: Resource): unknown;
  /** Unix milliseconds */
  date(): number;
}

/** What a batch has, until it is sent. */
interface Batch {
  taken: number[];
  slotRefs: number[];
  sealed: number[];
  hashes: Buffer[];
  hashed: number;
  folded: number;
  blocks: number;
  /** pool files to sync */
  files: Set<number>;
  /** slots of the index that it names: kept from being freed until it is durable */
  pins: number[];
  /** monotonic ms since when it has some, about; 0: not yet */
  pinnedAt: number;
  /** pieces decided and not written yet */
  unwritten: number;
  /** of the data that it names */
  sync: 'no' | 'out' | 'done';
  built: BuiltPages | null;
  /** closes it: nothing more comes in */
  cut: boolean;
  last: ((batch: CommitBatch) => void) | null;
  left: (() => void) | null;
}

interface Stream {
  id: number;
  pool: SlotPool;
  row: ResourceRow;
  /** for the pool's allocator */
  owner: { id: number; group: Group | null };
  builder: MapBuilder;
  /** the one that is filled, behind those that wait or are on their way */
  batch: Batch;
  queue: Batch[];
  /** of all pieces: which batch has it */
  pieces: Map<number, Batch>;
  nextPiece: number;
  /** hash → slot, of batches since `fresh[0].batch`: not in the index yet, or not when pieces were hashed */
  fresh: { batch: number; slots: Map<string, number> }[];
  batches: number;
  durable: number;
  /** a commit of the queue's first is on its way */
  busy: boolean;
  /** batches whose syncs are out */
  syncing: number;
  /** pieces and the end wait in line */
  waiting: (() => void)[];
  /** the record is in the store, or on its way there */
  stored: boolean;
  root: number;
  mapped: number;
  failed: EngineError | null;
  aborted: Done<void> | null;
  ending: boolean;
  /** a piece is being decided: part of it may be in the batch */
  deciding: boolean;
}

export class Ingests {
  #streams = new Map<number, Stream>();
  /** pool → slot → batches that name it and are not durable */
  #pins = new Map<number, Map<number, number>>();
  #waiting: (() => void)[] = [];

  constructor(
    readonly native: Native,
    readonly core: number,
    readonly registry: Registry,
    readonly commits: Commits,
    readonly host: IngestsHost,
  ) {}

  get active(): number {
    return this.#streams.size;
  }

  /** The slot got a reference that is not durable yet: it must not be freed. */
  pinned(pool: number, slot: number): boolean {
    return this.#pins.get(pool)?.has(slot) === true;
  }

  /** Some slot is pinned. */
  get pinning(): boolean {
    return this.#pins.size > 0;
  }

  /** Removes what an earlier life of the daemon did not finish. */
  sweep(): void {
    for (const id of this.registry.reader.resourceIds(KIND_INGEST)) {
      const row = this.registry.reader.resource(id) as ResourceRow;
      this.#remove(row.id, row.pool, row.root, row.mapped, () => undefined);
    }
  }

  #remove(id: number, pool: number, root: number, mapped: number, done: () => void): void {
    // before the batch: that has the number of the next one
    const seq = root === 0 ? 0 : this.host.nextRelease(pool, mapped);
    const batch = this.commits.newBatch();
    batch.resourcesDeleted.push(id);
    if (root !== 0) batch.releases.push({ seq, kind: RELEASE_PAGE, id: root, pool });
    this.commits.sendLoose(batch, () => {
      this.host.poke();
      done();
    });
  }

  /** Called every turn. */
  turn(now: number): void {
    for (const stream of this.#streams.values()) this.#age(stream, now);
    if (this.#waiting.length === 0 || this.host.freeing()) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const run of waiting) run();
  }

  #age(stream: Stream, now: number): void {
    const { batch } = stream;
    if (batch.pins.length === 0) return;
    if (batch.pinnedAt === 0) batch.pinnedAt = now;
    const free = !stream.deciding && !stream.ending && stream.failed === null && stream.queue.length < BATCHES_MAX;
    if (free && now - batch.pinnedAt >= PINS_MS_MAX) this.#cut(stream);
  }

  /** Something waits for a group of releases that is on its way. */
  get waits(): boolean {
    return this.#waiting.length > 0;
  }

  // ---- the beginning

  begin(spec: IngestSpec, done: Done<IngestBegun>): void {
    this.#refuseName(spec.volume);
    const pool = this.host.poolNamed(spec.pool);
    const id = this.host.nextResource();
    const uuid = randomUUID();
    const row: ResourceRow = {
      ...{ id, uuid, name: uuid, kind: KIND_INGEST, volume: 0, pool: pool.id, size: 0 },
      ...{ root: 0, height: 0, generation: 1, protected: 0, created_at: this.host.date(), cloned_from: null },
      ...{ grp: id, mapped: 0, ...NOT_ATTACHED },
    };
    this.#streams.set(id, {
      ...{ id, pool, row, owner: { id, group: null }, batch: newBatch(), queue: [], pieces: new Map() },
      builder: new MapBuilder(this.native, id, row.generation, () => this.host.nextPage()),
      ...{ nextPiece: 1, fresh: [{ batch: 0, slots: new Map() }], batches: 0, durable: 0, busy: false, syncing: 0 },
      ...{
        waiting: [],
        stored: false,
        root: 0,
        mapped: 0,
        failed: null,
        aborted: null,
        ending: false,
        deciding: false,
      },
    });
    const target = { pool: pool.id, handle: pool.handle, blockSize: pool.blockSize, groupSlots: pool.groupSlots };
    done(null, { id, blockSize: pool.blockSize, poolName: pool.row.name, target });
  }

  #refuseName(volume: string): void {
    if (this.registry.volume(volume) !== undefined)
      throw new EngineError('EXISTS', `a volume named ${volume} exists; an import makes a new one with its snapshot`);
  }

  #stream(id: number): Stream {
    const stream = this.#streams.get(id);
    if (stream === undefined) throw new EngineError('NOT_FOUND', 'there is no such ingest');
    return stream;
  }

  // ---- pieces

  /** Answers with where the blocks of a piece go, and its number; `written` is to follow. In the order of the stream. */
  decide(piece: Piece, done: Done<Decided & { piece: number }>): void {
    const stream = this.#stream(piece.ingest);
    const slots = new Float64Array(piece.blocks).fill(-1);
    let at = 0;
    let begun = false;
    const work = (): void => {
      if (stream.failed !== null) return done(stream.failed);
      if (!begun) {
        if (stream.queue.length >= BATCHES_MAX) return void stream.waiting.push(work);
        begun = true;
        stream.deciding = true;
        this.#forgetFresh(stream, piece.seen);
      }
      // what is being freed now is decided; what is pinned from here on is not
      if (this.host.freeing()) return void this.#waiting.push(work);
      const result = this.registry.reader.look(() => {
        let outcome: EngineError | 'wait' | null = null;
        const { seal } = this.registry.reader;
        const from = at;
        const held = seal.hold(stream.pool.id, piece.same.subarray(from), piece.hashes.subarray(from * HASH_BYTES));
        const hashes = Buffer.from(piece.hashes.buffer, piece.hashes.byteOffset, piece.hashes.length);
        while (at < piece.blocks && outcome === null) {
          const hash = hashes.subarray(at * HASH_BYTES, (at + 1) * HASH_BYTES);
          outcome = this.#block(stream, piece, at, hash, held[at - from] === 1, slots);
          if (outcome === null) at++;
        }
        return outcome;
      });
      if (result === 'wait') {
        this.host.commitAll();
        stream.pool.waiters.push(work);
        return;
      }
      stream.deciding = false;
      if (result !== null) {
        stream.failed = result;
        return done(result);
      }
      const number = stream.nextPiece++;
      stream.batch.unwritten++;
      stream.pieces.set(number, stream.batch);
      if (this.#full(stream)) this.#cut(stream);
      done(null, { slots, durable: stream.durable, piece: number });
    };
    work();
  }

  #full(stream: Stream): boolean {
    const { blocks } = stream.batch;
    const bytes = blocks * stream.pool.blockSize;
    return blocks >= BATCH_BLOCKS_MAX || bytes >= BATCH_BYTES_MAX || stream.builder.pending >= BATCH_PAGES_MAX;
  }

  /** Where one block goes. null when that is known. @param held the slot that a thread found still is what it was */
  #block(
    stream: Stream,
    piece: Piece,
    at: number,
    hash: Buffer,
    held: boolean,
    slots: Float64Array,
  ): EngineError | 'wait' | null {
    const { batch, builder, pool } = stream;
    if (piece.states[at] === BLOCK_ZERO) {
      builder.skip(1);
      batch.blocks++;
      return null;
    }
    const good = (slot: number | undefined) =>
      slot !== undefined && !this.host.isBad(pool.id, slot) ? slot : undefined;
    const own = good(findFresh(stream, hash));
    const same = own ?? (held ? good(piece.same[at]) : undefined);
    if (same !== undefined) {
      if (own === undefined) this.#pin(batch, pool.id, same);
      batch.slotRefs.push(pool.id, same, 1);
      batch.folded++;
      builder.add(same, hash);
    } else {
      const run = pool.allocate(stream.owner, 1);
      if (run === 'wait') return 'wait';
      if (run === 'full') return new EngineError('NO_SPACE', `pool ${pool.row.name} is full`);
      if (run === 'failed') return new EngineError('POOL_FAILED', `pool ${pool.row.name} has failed; see the log`);
      slots[at] = run.slot;
      addRun(batch.taken, pool, run.slot);
      batch.files.add(pool.fileOf(run.slot));
      batch.sealed.push(pool.id, run.slot);
      batch.hashes.push(Buffer.from(hash));
      stream.fresh[stream.fresh.length - 1].slots.set(keyOf(hash), run.slot);
      builder.add(run.slot, hash);
    }
    batch.hashed++;
    batch.blocks++;
    return null;
  }

  /** What was durable when a piece was hashed, its thread found in the index. */
  #forgetFresh(stream: Stream, seen: number): void {
    while (stream.fresh.length > 1 && stream.fresh[0].batch < seen) stream.fresh.shift();
  }

  #pin(batch: Batch, pool: number, slot: number): void {
    let slots = this.#pins.get(pool);
    if (slots === undefined) {
      slots = new Map();
      this.#pins.set(pool, slots);
    }
    slots.set(slot, (slots.get(slot) ?? 0) + 1);
    batch.pins.push(slot);
  }

  #unpin(batch: Batch, pool: number): void {
    const slots = this.#pins.get(pool);
    for (const slot of batch.pins) {
      const left = (slots?.get(slot) ?? 0) - 1;
      if (left > 0) slots?.set(slot, left);
      else slots?.delete(slot);
    }
    batch.pins = [];
    if (slots?.size === 0) this.#pins.delete(pool);
    this.host.poke();
  }

  /** A thread has written what `decide` said of a piece. @param error null when all of it was */
  written(ingest: number, piece: number, error: { code: string; message: string } | null, done: Done<number>): void {
    const stream = this.#stream(ingest);
    const batch = stream.pieces.get(piece);
    if (batch === undefined) throw new EngineError('INVALID', 'there is no such piece');
    stream.pieces.delete(piece);
    batch.unwritten--;
    if (error !== null) stream.failed ??= writeError(error, stream.pool.row.name);
    this.#launch(stream);
    this.#settle(stream);
    done(null, stream.durable);
  }

  /** Blocks without a slot follow. */
  skip(ingest: number, blocks: number, done: Done<void>): void {
    const stream = this.#stream(ingest);
    if (stream.failed !== null) return done(stream.failed);
    stream.builder.skip(blocks);
    done(null);
  }

  // ---- batches

  #cut(stream: Stream): void {
    const { batch } = stream;
    batch.cut = true;
    batch.built = stream.builder.batch();
    batch.left = stream.pool.leave(stream.owner);
    stream.batches++;
    stream.queue.push(batch);
    stream.batch = newBatch();
    stream.fresh.push({ batch: stream.batches, slots: new Map() });
    this.#launch(stream);
  }

  /**
   * Batches whose data is written are synced, one beside the other: the disk has little to do in a commit. The first of the
   * queue is sent when its data is durable.
   */
  #launch(stream: Stream): void {
    for (const batch of stream.queue) {
      if (stream.failed !== null || stream.syncing === SYNCS_MAX) break;
      if (batch.sync === 'no' && batch.unwritten === 0) this.#sync(stream, batch);
    }
    const [first] = stream.queue;
    if (stream.busy || stream.failed !== null || first?.sync !== 'done') return;
    stream.busy = true;
    this.#send(stream, first);
  }

  #sync(stream: Stream, batch: Batch): void {
    batch.sync = 'out';
    stream.syncing++;
    let left = batch.files.size;
    let failed = 0;
    const synced = (error: number): void => {
      if (error !== 0) failed = error;
      if (--left > 0) return;
      stream.syncing--;
      batch.sync = 'done';
      batch.left?.();
      batch.left = null;
      if (failed !== 0)
        stream.failed ??= new EngineError('POOL_FAILED', `data could not be made durable: errno ${failed}`);
      this.#launch(stream);
      // who waits for the end waits for a commit
      if (stream.failed !== null) this.#settle(stream);
    };
    if (left === 0) {
      left = 1;
      synced(0);
      return;
    }
    for (const file of batch.files) this.native.syncFile(this.core, stream.pool.handle, file, this.host.ticket(synced));
  }

  #send(stream: Stream, batch: Batch): void {
    const built = batch.built as BuiltPages;
    const pool = stream.pool.id;
    const out = this.commits.newBatch();
    out.pages = built.pages;
    out.blob = built.blob;
    out.taken = batch.taken;
    out.slotRefs = batch.slotRefs;
    out.seal = emptySeal();
    out.seal.sealed = batch.sealed;
    out.seal.hashes = Buffer.concat(batch.hashes);
    out.seal.pages = built.hashed;
    out.seal.pageHashes = Buffer.concat(built.hashes);
    out.seal.counts.push(pool, batch.hashed, batch.folded);
    if (batch.last === null) {
      stream.stored = true;
      stream.root = built.root;
      stream.mapped = built.mapped;
      const { root, height, mapped } = built;
      out.resources.push({ ...stream.row, size: mapped * stream.pool.blockSize, root, height, mapped });
    } else {
      try {
        batch.last(out);
      } catch (error) {
        stream.busy = false;
        stream.failed = error instanceof EngineError ? error : new EngineError('IO', (error as Error).message);
        this.#settle(stream);
        return;
      }
    }
    this.host.indexed(pool, batch.sealed.length / 2);
    // an error of the store is fatal, and does not come back here
    this.commits.sendLoose(out, (error) => this.#landed(stream, batch, error));
  }

  #landed(stream: Stream, batch: Batch, error: CommitResult['error']): void {
    stream.busy = false;
    stream.queue.shift();
    stream.durable++;
    this.#unpin(batch, stream.pool.id);
    if (error !== null) stream.failed = new EngineError('IO', error.message);
    this.#launch(stream);
    this.#settle(stream);
  }

  /** Whoever waits looks again. */
  #settle(stream: Stream): void {
    const waiting = stream.waiting;
    stream.waiting = [];
    for (const run of waiting) run();
    const idle = !stream.busy && stream.syncing === 0 && stream.pieces.size === 0;
    if (stream.aborted !== null && idle) this.#bury(stream);
  }

  // ---- the end

  /** Makes the volume and its snapshot, when all data is durable; answers when that is. @param size bytes, told in blocks */
  finish(ingest: number, size: number, spec: IngestSpec, done: Done<unknown>): void {
    const stream = this.#stream(ingest);
    const { pool, builder } = stream;
    const fail = (error: EngineError): void => {
      stream.ending = false;
      done(error);
    };
    if (stream.ending) throw new EngineError('BUSY', 'the ingest is ending');
    if (builder.blocks !== Math.ceil(size / pool.blockSize))
      throw new EngineError('INVALID', `${size} bytes are not the ${builder.blocks} blocks that came`);
    stream.ending = true;
    const work = (): void => {
      if (stream.failed !== null) return fail(stream.failed);
      if (stream.queue.length > 0 || stream.pieces.size > 0) {
        // what is left is synced beside the batches before it
        if (stream.pieces.size === 0 && stream.batch.blocks > 0) this.#cut(stream);
        return void stream.waiting.push(work);
      }
      if (this.registry.whenForgotten(spec.volume, work)) return;
      const height = heightFor(size, pool.blockSize);
      const { built, hash } = builder.finish(height);
      const { batch } = stream;
      batch.built = built;
      batch.cut = true;
      const rows = this.#rows(stream, spec, size, height, built);
      const resource = resourceHash(size, Math.log2(pool.blockSize), height, hash);
      let release: () => void = () => undefined;
      batch.last = (out) => {
        this.#refuseName(spec.volume);
        if (this.registry.givenUp(spec.volume)) throw new EngineError('EXISTS', `${spec.volume} is just being deleted`);
        const made = rows.map((row) => this.registry.add(row));
        // nobody changes them before they are in the store
        this.registry.exclusive(made, (free) => {
          release = free;
        });
        out.resources.push(...rows.map((row) => ({ ...row })));
        if (stream.stored) out.resourcesDeleted.push(stream.id);
        if (built.root !== 0) out.pageRefs.push(built.root, 1);
        const seal = out.seal as SealChanges;
        seal.resources.push(rows[1].id);
        seal.resourceHashes = resource;
      };
      stream.queue.push(batch);
      stream.batch = newBatch();
      stream.waiting.push(() => {
        if (stream.failed !== null) return fail(stream.failed);
        for (const row of rows) this.registry.settleName(row, row.id);
        // before others have their turn with them: one may delete them
        const info = this.host.snapshotInfo(this.registry.get(rows[1].id) as Resource);
        release();
        this.#streams.delete(stream.id);
        pool.releaseOwner(stream.owner);
        done(null, info);
      });
      this.#launch(stream);
    };
    work();
  }

  /** The volume, and its snapshot. Pages are neither's in place: their owner is the ingest. */
  #rows(stream: Stream, spec: IngestSpec, size: number, height: number, built: BuiltPages): ResourceRow[] {
    const id = this.host.nextResource();
    const common = {
      ...{ pool: stream.pool.id, size, root: built.root, height, generation: 1, protected: 0 },
      ...{ created_at: this.host.date(), cloned_from: null, grp: id, mapped: built.mapped },
      ...NOT_ATTACHED,
    };
    const volume = { ...common, id, uuid: randomUUID(), name: spec.volume, kind: KIND_VOLUME, volume: 0 };
    const snapshot = {
      ...{ ...common, id: this.host.nextResource(), uuid: randomUUID(), name: spec.snapshot },
      ...{ kind: KIND_SNAPSHOT, volume: id },
    };
    return [volume, snapshot];
  }

  /** Takes everything back; answers when that is durable. Pieces that were decided are written, or will not be. */
  abort(ingest: number, done: Done<void>): void {
    const stream = this.#streams.get(ingest);
    if (stream === undefined) return done(null);
    if (stream.aborted !== null) throw new EngineError('BUSY', 'the ingest is being aborted');
    if (stream.ending && stream.failed === null) throw new EngineError('BUSY', 'the ingest is being finished');
    stream.failed ??= new EngineError('SHUTTING_DOWN', 'the ingest was aborted');
    stream.aborted = done;
    this.#settle(stream);
  }

  #bury(stream: Stream): void {
    const { pool } = stream;
    const done = stream.aborted as Done<void>;
    this.#streams.delete(stream.id);
    for (const batch of [...stream.queue, stream.batch]) {
      batch.left?.();
      this.#unpin(batch, pool.id);
      // no commit ever named them
      for (let i = 0; i < batch.taken.length; i += 3) pool.abandon(batch.taken[i + 1], batch.taken[i + 2]);
    }
    pool.releaseOwner(stream.owner);
    if (!stream.stored) return done(null);
    this.#remove(stream.id, pool.id, stream.root, stream.mapped, () => done(null));
  }
}

function newBatch(): Batch {
  return {
    ...{ taken: [], slotRefs: [], sealed: [], hashes: [], hashed: 0, folded: 0, blocks: 0, pinnedAt: 0 },
    ...{ files: new Set<number>(), pins: [], unwritten: 0, built: null, cut: false, last: null, left: null },
    sync: 'no',
  };
}

const keyOf = (hash: Buffer): string => hash.toString('latin1');

function findFresh(stream: Stream, hash: Buffer): number | undefined {
  if (stream.fresh.every(({ slots }) => slots.size === 0)) return undefined;
  const key = keyOf(hash);
  for (const { slots } of stream.fresh) {
    const slot = slots.get(key);
    if (slot !== undefined) return slot;
  }
  return undefined;
}

/** One more slot: [pool, slot, count] triples, runs that stay in their group. */
function addRun(taken: number[], pool: SlotPool, slot: number): void {
  const n = taken.length;
  const joins = n > 0 && taken[n - 2] + taken[n - 1] === slot && slot % pool.groupSlots !== 0;
  if (joins) taken[n - 1]++;
  else taken.push(pool.id, slot, 1);
}

function writeError({ code, message }: { code: string; message: string }, pool: string): EngineError {
  if (code === 'ENOSPC' || code === 'EDQUOT') return new EngineError('NO_SPACE', `pool ${pool} is full`);
  return new EngineError('IO', `pool ${pool} could not be written: ${message}`);
}
