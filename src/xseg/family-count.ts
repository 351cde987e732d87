/** Counts what the resources of a family have alone, on a connection to the store: what exclusive.ts walks. */
import { type FamilyResult, type FamilyStore, FamilyWalk, type Member } from './exclusive.ts';
import type { Native } from './native.ts';
import { ENTRIES } from './page-table.ts';
import type { StoreDatabase } from './store/schema.ts';

export interface FamilyRequest {
  id: number;
  pool: number;
  family: number;
}

export interface FamilyAnswer {
  id: number;
  /** [resource id, blocks] */
  blocks: [number, number][] | null;
  /** it has slots that others than its members have too */
  foreign: boolean;
  /** it may change while the queue of releases is worked on */
  transient: boolean;
}

export class FamilyCount {
  readonly #statements;
  readonly #header = new Float64Array(8);
  readonly #scratch = new Uint32Array(ENTRIES * 2);

  /** @param turn called every so many pages; may throw to end the walk */
  constructor(
    readonly db: StoreDatabase,
    readonly native: Pick<Native, 'decodePageTo'>,
    readonly turn: () => void = () => undefined,
  ) {
    this.#statements = {
      page: db.prepare('SELECT data FROM page WHERE id = ?').pluck(),
      extras: db.prepare('SELECT slot, extra FROM slot_ref WHERE pool = ? AND slot >= ? AND slot < ?'),
      hashed: db.prepare('SELECT 1 FROM seal_pool WHERE pool = ? AND hashed > 0').pluck(),
      anyExtra: db.prepare('SELECT 1 FROM slot_ref WHERE pool = ? LIMIT 1').pluck(),
      members: db.prepare('SELECT id, root, height FROM resource WHERE pool = ? AND grp = ?'),
      queued: db.prepare('SELECT 1 FROM release LIMIT 1').pluck(),
    };
  }

  /** Of one moment: in a transaction, where others write meanwhile. */
  count({ id, pool, family }: FamilyRequest): FamilyAnswer {
    const members = this.#statements.members.all(pool, family) as Member[];
    const result: FamilyResult = new FamilyWalk(this.#storeOf(pool), this.turn).run(members);
    return {
      id,
      blocks: result.blocks && [...result.blocks],
      foreign: result.foreign,
      transient: result.foreign && this.#statements.queued.get() !== undefined,
    };
  }

  #storeOf(pool: number): FamilyStore {
    const { page, extras, anyExtra, hashed } = this.#statements;
    const entries = (id: number, into: Uint32Array): boolean => {
      const blob = page.get(id) as Buffer | undefined;
      return blob !== undefined && this.native.decodePageTo(blob, id, into, this.#header) === 0;
    };
    return {
      entries,
      mapped: (id) => (entries(id, this.#scratch) ? this.#header[5] : -1),
      noExtras: anyExtra.get(pool) === undefined,
      noZeroes: hashed.get(pool) === undefined,
      slotExtras: (first, count) => extras.all(pool, first, first + count) as { slot: number; extra: number }[],
    };
  }
}
