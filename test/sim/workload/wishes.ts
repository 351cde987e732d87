/** How likely what is; each life of the daemon has its own. */
import type { Rng } from '../rng.ts';

export type Wish =
  | 'write'
  | 'read'
  | 'trim'
  | 'zeroes'
  | 'flush'
  | 'status'
  | 'open'
  | 'close'
  | 'create'
  | 'import'
  | 'snapshot'
  | 'clone'
  | 'rollback'
  | 'resize'
  | 'rename'
  | 'dropSnapshot'
  | 'drop'
  | 'verify'
  | 'flushAll'
  | 'setPool'
  | 'rot';

/** Of a list each life picks one. */
export interface Likes {
  /** weights that every life has */
  readonly wishes: Partial<Record<Wish, number>>;
  /** share of the writes that write what others wrote */
  readonly equal: readonly number[];
  /** share of the writes that a flush follows at once */
  readonly flushed: readonly number[];
}

export class Wishes {
  readonly #kinds: Wish[];
  readonly #weights: number[];
  /** share of the writes that write what others wrote */
  readonly equal: number;
  /** share of the writes that a flush follows at once */
  readonly flushed: number;

  /** @param rots media forget in this seed */
  constructor(
    readonly rng: Rng,
    likes: Likes,
    rots: boolean,
  ) {
    const much = () => rng.pick([0, 0.5, 1, 1, 2]);
    const weights: Record<Wish, number> = {
      write: 30,
      read: 8 * much(),
      trim: 6 * much(),
      zeroes: 4 * much(),
      flush: 6 * much() + 1,
      status: 2 * much(),
      open: 8,
      close: 1.5 * much(),
      create: 2,
      import: 2 * much(),
      snapshot: 4 * much(),
      clone: 4 * much(),
      rollback: 1.5 * much(),
      resize: 2 * much(),
      rename: 0.5 * much(),
      dropSnapshot: 4 * much(),
      drop: 1 * much(),
      verify: 1.5 * much(),
      flushAll: 0.2 * much(),
      setPool: 0.7 * much(),
      rot: rots ? 3 : 0,
    };
    Object.assign(weights, likes.wishes);
    this.equal = rng.pick(likes.equal);
    this.flushed = rng.pick(likes.flushed);
    this.#kinds = Object.keys(weights) as Wish[];
    this.#weights = Object.values(weights);
  }

  pick(): Wish {
    return this.#kinds[this.rng.weighted(this.#weights)];
  }
}
