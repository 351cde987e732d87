/**
 * Commits: what resources changed becomes batches; a batch goes to the committer when the data it points to is durable
 * (invariant 2). One batch of a resource is on its way at a time, those of others beside it.
 */

import { DURATION_BUCKETS, Histogram } from '../histogram.ts';
import { VolumeRecord } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import type { CommitBatch, CommitResult, ReleaseRow } from '../store/batch.ts';
import { emptyBatch } from '../store/batch.ts';
import { type Clock, systemClock } from './clock.ts';
import { EIO } from './errors.ts';
import type { Frames } from './frames.ts';
import { Changes, type Resource } from './resource.ts';
import type { Tree } from './tree.ts';

/** docs/format.md: the longest blob of a page. */
export const PAGE_BLOB_MAX = 48 + 512 * 12;
/** Samples kept for percentiles of commit times. */
const SAMPLES = 512;
/** Batches of at most so many pages are encoded in memory that is kept: pages take a fraction of what they may. */
const SCRATCH_PAGES = 64;
/** Pages of one batch: 1, 2, 4 … 2^14, and beyond. */
const PAGE_BUCKETS = 16;
/** Batches of one transaction: 1, 2, 4 … 64, and beyond. */
const BATCH_BUCKETS = 8;

export interface CommitsHost {
  send(batch: CommitBatch): void;
  ticket(done: (error: number) => void): number;
  /** runs `run` when what an earlier life of the daemon wrote to the resource's pool is durable, or could not be made so */
  whenSettled(resource: Resource, run: (error: number) => void): void;
  /** that is so already */
  settled(resource: Resource): boolean;
  /** [pool, slot, count] triples are free for good */
  freed(runs: number[]): void;
  /** pages of a batch ([id, base, at, length] quads) are in the store: their bases can be seen there */
  pagesDurable(pages: number[]): void;
  /** rows of a batch that failed */
  releasesLost(rows: ReleaseRow[]): void;
  /** runs [pool, slot, count, …] that were to be freed stay used: the batch failed */
  freedLost(runs: number[]): void;
  meta(): Record<string, number | string>;
  fatal(reason: string): void;
  /** no batch of the resource is on its way any more */
  landed(resource: Resource): void;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

interface Flight {
  start(): void;
}

export class Commits {
  count = 0;
  pages = 0;
  logBytes = 0;
  /** microseconds from the cut of a resource's batch until it is durable */
  readonly times = new Histogram(DURATION_BUCKETS);
  readonly batchPages = new Histogram(PAGE_BUCKETS);
  /** microseconds in the store, and in its COMMIT */
  readonly transactionTimes = new Histogram(DURATION_BUCKETS);
  readonly syncTimes = new Histogram(DURATION_BUCKETS);
  readonly transactionBatches = new Histogram(BATCH_BUCKETS);
  #seq = 1;
  #ms: number[] = [];
  readonly #scratch = new Uint8Array(SCRATCH_PAGES * PAGE_BLOB_MAX);
  #waiting = new Map<number, (result: CommitResult) => void>();

  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly native: Native,
    readonly core: number,
    readonly recordAt: (handle: number) => number,
    readonly host: CommitsHost,
    readonly clock: Clock = systemClock,
  ) {}

  get inFlight(): number {
    return this.#waiting.size;
  }

  /** Times of the last commits, milliseconds, ascending. */
  lastTimes(): number[] {
    return [...this.#ms].sort((a, b) => a - b);
  }

  /** Sends a batch that belongs to no resource's order. */
  sendLoose(batch: CommitBatch, done: (error: CommitResult['error']) => void): void {
    this.#send(batch, (result) => done(result.error));
  }

  newBatch(): CommitBatch {
    const batch = emptyBatch(this.#seq++);
    batch.meta = this.host.meta();
    return batch;
  }

  /** The resource's changes as a batch behind those before it. No-op when there is nothing and nobody waits. */
  cut(resource: Resource): void {
    const changes = resource.changes;
    if (changes.empty && changes.waiters.length === 0) return;
    const cutAt = this.clock.now();
    this.tree.settle(resource);
    resource.changes = new Changes();
    resource.dirtySince = 0;
    const batch = this.newBatch();
    const frames = this.#encode(batch, changes.frames);
    // one that is gone may have changed pages, which are others' by now; its record is theirs to delete
    if ((changes.row || changes.frames.length > 0) && !changes.deleted && !resource.dead) {
      const root = resource.row.root === 0 ? 0 : this.frames.byPage.get(resource.row.root);
      if (root !== undefined) resource.row.mapped = root === 0 ? 0 : this.frames.mapped[root];
      batch.resources.push({ ...resource.row, size: resource.sizeInStore ?? resource.row.size });
    }
    if (changes.deleted) batch.resourcesDeleted.push(resource.id);
    batch.resources.push(...changes.rows.map((row) => ({ ...row })));
    batch.resourcesDeleted.push(...changes.rowsDeleted);
    batch.taken = changes.taken;
    changes.giveBackIn(batch);
    const mapSeq = resource.mapDirty;
    const handle = resource.handle;
    // Without that, nobody may be told that his flush has nothing to wait for: it covers what an earlier life answered.
    let settled = changes.syncData;
    const needSync = handle >= 0 && !changes.deleted && (changes.syncData || changes.taken.length > 0);
    const finish = (error: number) => {
      if (error !== 0) {
        // pages stay where they are, unevictable: reads go on from memory, nothing goes back silently
        for (const frame of frames) this.frames.lose(frame);
        if (resource.failed === 0) this.#fail(resource, error);
        this.host.releasesLost(batch.releases);
        if (batch.freed.length > 0) this.host.freedLost(batch.freed);
      } else {
        for (const frame of frames) this.frames.land(frame);
        if (settled && handle >= 0 && handle === resource.handle)
          Atomics.store(this.frames.words, this.recordAt(handle) + VolumeRecord.mapDurable / 4, mapSeq);
        if (batch.freed.length > 0) this.host.freed(batch.freed);
        this.host.pagesDurable(batch.pages);
      }
      // it flies until they have run: what they cut goes behind the batches that wait
      resource.landing = true;
      for (const waiter of changes.waiters) waiter(error);
      resource.landing = false;
      const next = resource.flights.shift();
      if (next !== undefined) {
        this.#launch(resource, next);
      } else {
        resource.flying = false;
        this.host.landed(resource);
      }
    };
    const commit = (error: number) => {
      if (error !== 0 || resource.failed !== 0) {
        finish(error || resource.failed);
        return;
      }
      if (isEmpty(batch)) {
        finish(0);
        return;
      }
      this.batchPages.observe(batch.pages.length / 4);
      this.#send(batch, (result) => {
        if (result.error === null) this.times.observe((this.clock.now() - cutAt) * 1000);
        finish(result.error === null ? 0 : EIO);
      });
    };
    const sync = (error: number) => {
      if (error === 0 && needSync) this.native.syncVolume(this.core, handle, this.host.ticket(commit));
      else commit(error);
    };
    const flight: Flight = {
      start: () => {
        settled ||= this.host.settled(resource);
        if (changes.syncData && !changes.deleted) this.host.whenSettled(resource, sync);
        else sync(0);
      },
    };
    if (resource.flying) resource.flights.push(flight);
    else this.#launch(resource, flight);
  }

  #launch(resource: Resource, flight: Flight): void {
    resource.flying = true;
    flight.start();
  }

  #fail(resource: Resource, error: number): void {
    resource.failed = error;
    if (resource.handle >= 0)
      Atomics.store(this.frames.words, this.recordAt(resource.handle) + VolumeRecord.failed / 4, error);
    this.host.log('error', 'volume failed: its data could not be made durable; writes and flushes are refused', {
      volume: resource.row.name,
      errno: error,
    });
  }

  /** Puts pages into a batch as they are now. Returns their frames, which fly until the batch is durable. */
  #encode(batch: CommitBatch, dirty: number[]): number[] {
    const live: number[] = [];
    for (const frame of dirty) if (this.frames.dirty[frame]) live.push(frame);
    if (live.length === 0) return live;
    const blob = live.length > SCRATCH_PAGES ? new Uint8Array(live.length * PAGE_BLOB_MAX) : this.#scratch;
    let at = 0;
    for (const frame of live) {
      const length = this.encodeFrame(frame, blob, at);
      batch.pages.push(this.frames.pageId[frame], this.frames.base[frame], at, length);
      at += length;
      this.frames.markClean(frame);
      this.frames.fly(frame);
    }
    batch.blob = blob.slice(0, at);
    this.pages += live.length;
    return live;
  }

  /** Puts frames of no resource (shared pages that a dissolve changed) into a batch. */
  encodeInto(batch: CommitBatch, dirty: number[]): number[] {
    return this.#encode(batch, dirty);
  }

  encodeFrame(frame: number, out: Uint8Array, at: number): number {
    const f = this.frames;
    return this.native.encodePage(
      this.core,
      frame,
      f.level[frame],
      f.pageId[frame],
      f.base[frame],
      f.owner[frame],
      f.generation[frame],
      f.mapped[frame],
      out,
      at,
    );
  }

  #send(batch: CommitBatch, done: (result: CommitResult) => void): void {
    this.#waiting.set(batch.seq, done);
    this.host.send(batch);
  }

  /** The committer's answer. */
  result(result: CommitResult): void {
    const done = this.#waiting.get(result.seq);
    this.#waiting.delete(result.seq);
    if (result.error?.fatal) {
      this.host.fatal(`store: ${result.error.message}`);
      return;
    }
    if (result.error === null) {
      this.count++;
      this.logBytes = result.logBytes;
      this.#ms[(this.count - 1) % SAMPLES] = result.ms;
      if (result.transaction !== undefined) {
        this.transactionTimes.observe(result.ms * 1000);
        this.syncTimes.observe(result.transaction.syncMs * 1000);
        this.transactionBatches.observe(result.transaction.batches);
      }
    }
    done?.(result);
  }
}

function isEmpty(batch: CommitBatch): boolean {
  return (
    batch.pages.length === 0 &&
    batch.resources.length === 0 &&
    batch.resourcesDeleted.length === 0 &&
    batch.taken.length === 0 &&
    batch.freed.length === 0 &&
    batch.releases.length === 0 &&
    batch.releasesDone.length === 0 &&
    batch.pageRefs.length === 0 &&
    batch.slotRefs.length === 0 &&
    batch.pagesDeleted.length === 0 &&
    batch.groups.length === 0 &&
    batch.pools.length === 0
  );
}
