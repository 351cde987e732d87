/** Pools that are made, grown, and set otherwise while they are open; in force when it is durable. */
import type { CopyPlace } from '../copies/place.ts';
import type { PoolRow } from '../store/batch.ts';
import { emptySeal, type SealPoolRow } from '../store/seal-batch.ts';
import { EngineError, type PoolSettings } from '../types.ts';
import type { Commits } from './commits.ts';
import type { Handles } from './handles.ts';
import type { Scrubber } from './scrubber.ts';
import type { Sealer } from './sealer.ts';
import type { SlotPool } from './slots.ts';

export class PoolChanges {
  /** settings of pools that were asked for last and are not durable yet */
  #settings = new Map<number, SealPoolRow>();

  constructor(
    readonly pools: ReadonlyMap<number, SlotPool>,
    readonly commits: Commits,
    readonly sealer: Sealer,
    readonly scrubber: Scrubber,
    readonly handles: Handles,
    readonly add: (row: PoolRow, handle: number, place: CopyPlace | null) => void,
  ) {}

  insert(row: PoolRow, handle: number, place: CopyPlace | null, done: (error: EngineError | null) => void): void {
    const batch = this.commits.newBatch();
    batch.pools.push(row);
    this.commits.sendLoose(batch, (error) => {
      if (error === null) this.add(row, handle, place);
      done(error === null ? null : new EngineError('IO', error.message));
    });
  }

  /** Settings of sealing and scrubbing; what is not given stays. */
  set(id: number, change: PoolSettings, done: (error: EngineError | null) => void): void {
    if (!this.pools.has(id)) return done(new EngineError('NOT_FOUND', 'the pool is not open'));
    // on top of what was asked before, and is not durable yet
    const row = { ...(this.#settings.get(id) ?? this.sealer.settings(id)) };
    if (change.seal !== undefined) row.seal = change.seal ? 1 : 0;
    if (change.sealPaused !== undefined) row.paused = change.sealPaused ? 1 : 0;
    if (change.sealRate !== undefined) row.rate = change.sealRate;
    if (change.scrubRate !== undefined) row.scrub_rate = change.scrubRate;
    if (change.verifyOnRead !== undefined) row.verify = change.verifyOnRead ? 1 : 0;
    const batch = this.commits.newBatch();
    batch.seal = { ...emptySeal(), pools: [row] };
    this.#settings.set(id, row);
    this.commits.sendLoose(batch, (error) => {
      if (this.#settings.get(id) === row) this.#settings.delete(id);
      if (error === null) {
        this.sealer.changed(row);
        if (change.scrubRate !== undefined) this.scrubber.changed(id);
        this.handles.publishVerify(id);
      }
      done(error === null ? null : new EngineError('IO', error.message));
    });
  }

  grow(id: number, size: number, done: (error: EngineError | null) => void): void {
    const pool = this.pools.get(id);
    if (pool === undefined) return done(new EngineError('NOT_FOUND', 'there is no such pool'));
    const batch = this.commits.newBatch();
    batch.pools.push({ ...pool.row, size });
    this.commits.sendLoose(batch, (error) => {
      if (error === null) pool.resized(size);
      done(error === null ? null : new EngineError('IO', error.message));
    });
  }
}
