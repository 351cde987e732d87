/**
 * Which snapshots are to be sealed. The store says which have no hash; a place per pool keeps what lies before it, and needs
 * no look any more, from being gone through again. Owned by the sealer.
 */
import type { SealReader } from '../store/seal-reader.ts';

/** Resources gone through in one look, at most. */
const LOOK_IDS_MAX = 4096;

export interface BacklogHost {
  /** least resource that is named and may not be in the store yet; no snapshot that is to come there has a lesser one */
  pendingFrom(): number;
  /** it is there, and not going */
  there(id: number): boolean;
}

interface PutOff {
  pool: number;
  /** monotonic ms */
  until: number;
}

export class Backlog {
  /** pool → every snapshot up to this one is sealed, put off, or going */
  #places = new Map<number, number>();
  #putOff = new Map<number, PutOff>();

  constructor(
    readonly seal: SealReader,
    readonly host: BacklogHost,
    readonly lookIds = LOOK_IDS_MAX,
  ) {}

  /** The oldest of these pools that may be sealed now; 'more' when there is more to look at, null when there is none. */
  next(pools: readonly number[], now: number): { id: number; pool: number } | 'more' | null {
    let oldest: { id: number; pool: number } | null = null;
    for (const pool of pools) {
      const id = this.#inPool(pool);
      if (id === 'more') return 'more';
      if (id !== null && (oldest === null || id < oldest.id)) oldest = { id, pool };
    }
    for (const [id, { pool, until }] of this.#putOff) {
      if (until > now || !pools.includes(pool) || (oldest !== null && oldest.id < id)) continue;
      if (this.host.there(id)) oldest = { id, pool };
      else this.#putOff.delete(id);
    }
    if (oldest !== null) this.#putOff.delete(oldest.id);
    return oldest;
  }

  #inPool(pool: number): number | 'more' | null {
    const last = this.seal.lastResource();
    for (let from = this.#placeOf(pool); ; ) {
      const to = from + this.lookIds;
      const id = this.seal.firstUnsealed(pool, from, to);
      if (id === undefined) {
        this.#pass(pool, Math.min(to, last));
        return to < last ? 'more' : null;
      }
      if (this.host.there(id) && !this.#putOff.has(id)) {
        this.#pass(pool, id - 1);
        return id;
      }
      this.#pass(pool, id);
      from = id;
    }
  }

  #placeOf(pool: number): number {
    return this.#places.get(pool) ?? 0;
  }

  /** Whatever comes into the store from here on has a greater one, and stays before the place. */
  #pass(pool: number, id: number): void {
    this.#places.set(pool, Math.max(this.#placeOf(pool), Math.min(id, this.host.pendingFrom() - 1)));
  }

  /** One that `next` named was given up: the pool is gone through again. */
  again(pool: number): void {
    this.#places.delete(pool);
  }

  /** It is tried again at that time. */
  putOff(id: number, pool: number, until: number): void {
    this.#putOff.set(id, { pool, until });
  }

  /** Some wait for their time. */
  get waits(): boolean {
    return this.#putOff.size > 0;
  }

  /** Snapshots of a pool without a hash, and the blocks that they map. */
  size(pool: number): { snapshots: number; mapped: number } {
    const size = this.seal.unsealedSize(pool, this.#placeOf(pool));
    for (const [id, one] of this.#putOff) {
      if (one.pool !== pool || id > this.#placeOf(pool) || !this.host.there(id)) continue;
      size.snapshots++;
      size.mapped += this.seal.mapped(id);
    }
    return size;
  }
}
