/**
 * Handles: the volume records in the segment through which reactors see a resource. One is given at the first open, stays warm
 * after the last release, and is taken back when they run out or the resource changes its map whole.
 */
import type { OpenActivity } from '../activity.ts';
import { VOLUME_FREE, VOLUME_OPEN, VOLUME_READ_ONLY, VOLUME_VERIFY, VOLUMES_MAX, VolumeRecord } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { KIND_SNAPSHOT, KIND_VOLUME } from '../store/batch.ts';
import { EngineError } from '../types.ts';
import type { Frames } from './frames.ts';
import type { Registry } from './registry.ts';
import type { Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import type { Tree } from './tree.ts';

export interface HandlesHost {
  /** those that are open */
  pools: Map<number, SlotPool>;
  changed(resource: Resource): void;
  commitSoon(resource: Resource): void;
  /** a batch now, behind those before it */
  cut(resource: Resource): void;
  /** false: what an earlier life of the daemon wrote to the pool may not be durable yet */
  settled(pool: number): boolean;
  /** reads of the pool are to be verified */
  verifies(pool: number): boolean;
}

export class Handles {
  #resources: (Resource | undefined)[] = [];
  #free: number[] = [];
  #retired: { epoch: number; handle: number }[] = [];

  constructor(
    readonly registry: Registry,
    readonly frames: Frames,
    readonly tree: Tree,
    readonly native: Native,
    readonly core: number,
    readonly recordAt: (handle: number) => number,
    readonly host: HandlesHost,
  ) {
    for (let h = VOLUMES_MAX - 1; h >= 0; h--) this.#free.push(h);
  }

  resourceOf(handle: number): Resource | undefined {
    return this.#resources[handle];
  }

  /** What is open, and what its record counts since it was given its handle. */
  opened(): OpenActivity[] {
    const { longs } = this.frames;
    const found: OpenActivity[] = [];
    for (const r of this.#resources) {
      if (r === undefined || r.openCount === 0) continue;
      const at = this.recordAt(r.handle) / 2;
      const count = (offset: number) => Number(longs[at + offset / 8]);
      found.push({
        name: this.registry.fullName(r),
        openCount: r.openCount,
        reads: count(VolumeRecord.reads),
        writes: count(VolumeRecord.writes),
        readBytes: count(VolumeRecord.readBytes),
        writeBytes: count(VolumeRecord.writeBytes),
        faults: count(VolumeRecord.faults),
      });
    }
    return found;
  }

  /** One more user of the resource. @throws {EngineError} BUSY when no handle is to be had */
  open(r: Resource, pool: SlotPool, writes: boolean): void {
    if (r.handle < 0) this.#give(r, pool);
    r.openCount++;
    if (writes) r.writers++;
  }

  #give(r: Resource, pool: SlotPool): void {
    this.#collect();
    let handle = this.#free.pop();
    if (handle === undefined) {
      this.#closeIdle();
      this.#collect();
      handle = this.#free.pop();
      if (handle === undefined)
        throw new EngineError('BUSY', `${VOLUMES_MAX} volumes and snapshots are open; disconnect some`);
    }
    // what a deleted volume wrote under this handle was never synced, and its files may be another pool's
    this.native.forgetFiles(this.core, handle);
    r.handle = handle;
    this.#resources[handle] = r;
    const words = this.frames.words;
    const at = this.recordAt(handle);
    words.fill(0, at, at + VolumeRecord.BYTES / 4);
    words[at + VolumeRecord.flags / 4] = this.#flagsOf(r);
    words[at + VolumeRecord.generation / 4] = r.row.generation;
    words[at + VolumeRecord.blockShift / 4] = pool.row.block_shift;
    this.publishSize(r);
    words[at + VolumeRecord.pool / 4] = pool.handle;
    words[at + VolumeRecord.failed / 4] = r.failed;
    // the first flush comes to the mapper when there is more to it than the volume's own files
    r.mapDirty = r.clean && this.host.settled(r.row.pool) ? 0 : 1;
    words[at + VolumeRecord.mapDirty / 4] = r.mapDirty;
    Atomics.store(words, at + VolumeRecord.state / 4, VOLUME_OPEN);
  }

  /** @param wrote it was opened for writing; of no meaning for a snapshot */
  release(handle: number, wrote: boolean): void {
    const r = this.#resources[handle];
    if (r === undefined || r.openCount === 0) return;
    r.openCount--;
    if (wrote && r.row.kind === KIND_VOLUME) r.writers--;
    if (r.openCount === 0) {
      // the next one that writes goes on in its group: thousands of clones are not thousands of files
      this.host.pools.get(r.row.pool)?.releaseOwner(r);
      r.changes.syncData = true;
      this.host.changed(r);
      this.host.commitSoon(r);
    }
  }

  /** Handles stay warm after the last release; when they run out, idle ones go. */
  #closeIdle(): void {
    for (const r of this.#resources) if (r !== undefined && r.openCount === 0 && r.clean) this.close(r);
  }

  /** Reactors lose sight of the resource. Its openCount is 0: no request is on its way. */
  close(r: Resource): void {
    const handle = r.handle;
    if (handle < 0) return;
    if (!r.dead) this.host.cut(r);
    this.forgetLeaves(r);
    this.#resources[handle] = undefined;
    r.handle = -1;
    this.host.pools.get(r.row.pool)?.releaseOwner(r);
    // batches on their way sync data through the handle: it lives until they have landed
    if (r.flying || r.flights.length > 0) r.closing.push(handle);
    else this.#retire(handle);
  }

  /** Reactors ask again for what they know of the map. */
  forgetLeaves(r: Resource): void {
    const leaves = this.frames.leaves.get(r.handle);
    if (leaves === undefined) return;
    for (const frame of leaves.values())
      if (frame !== 0 && this.tree.inPlace(r, frame)) this.native.stamp(this.core, frame, 0xffffffff, 0);
    this.frames.unhashRange(r.handle, 0, Number.MAX_SAFE_INTEGER);
    this.frames.leaves.delete(r.handle);
  }

  #retire(handle: number): void {
    Atomics.store(this.frames.words, this.recordAt(handle) + VolumeRecord.state / 4, VOLUME_FREE);
    this.#retired.push({ epoch: this.native.epochAdvance(this.core), handle });
  }

  /** No batch of the resource is on its way any more. */
  landed(r: Resource): void {
    for (const handle of r.closing) this.#retire(handle);
    r.closing = [];
  }

  #collect(): void {
    const safe = this.native.epochSafe(this.core);
    while (this.#retired.length > 0 && this.#retired[0].epoch <= safe)
      this.#free.push((this.#retired.shift() as { handle: number }).handle);
  }

  #flagsOf(r: Resource): number {
    const readOnly = r.row.kind === KIND_SNAPSHOT ? VOLUME_READ_ONLY : 0;
    return this.host.verifies(r.row.pool) ? readOnly | VOLUME_VERIFY : readOnly;
  }

  /** Whether reads of a pool are verified has changed: for requests that come from now on. */
  publishVerify(pool: number): void {
    for (const r of this.#resources)
      if (r !== undefined && r.row.pool === pool)
        Atomics.store(this.frames.words, this.recordAt(r.handle) + VolumeRecord.flags / 4, this.#flagsOf(r));
  }

  /** In one store: reactors hold requests against it at any time. */
  publishSize(r: Resource): void {
    Atomics.store(this.frames.longs, (this.recordAt(r.handle) + VolumeRecord.size / 4) / 2, BigInt(r.row.size));
  }
}
