/** What a reading connection knows of sealing: the index, hashes of pages and resources, settings. */
import type { StoreDatabase } from './schema.ts';
import { defaultSealPool, type SealPoolRow } from './seal-batch.ts';

export interface SealedRow {
  slot: number;
  hash: Buffer;
  /** Unix ms at which other bytes were found; null when well */
  bad: number | null;
}

export class SealReader {
  #statements;

  constructor(db: StoreDatabase) {
    const p = (sql: string) => db.prepare(sql);
    this.#statements = {
      row: p('SELECT slot, hash, bad FROM sealed WHERE pool = ? AND slot = ?'),
      any: p('SELECT 1 FROM sealed LIMIT 1').pluck(),
      from: p('SELECT slot, hash, bad FROM sealed WHERE pool = ? AND slot >= ? ORDER BY slot LIMIT ?'),
      between: p('SELECT slot, hash, bad FROM sealed WHERE pool = ? AND slot >= ? AND slot < ?'),
      // The least slot: whoever looks at the same rows takes the same one. Both name their index: left to itself, SQLite
      // takes the primary key, and goes through all rows of the pool.
      same: p(
        'SELECT slot FROM sealed INDEXED BY sealed_hash WHERE pool = ? AND substr(hash, 1, 8) = ? AND bad IS NULL AND hash = ? AND slot <> ? ORDER BY slot LIMIT 1',
      ).pluck(),
      bad: p('SELECT slot FROM sealed INDEXED BY sealed_bad WHERE pool = ? AND bad IS NOT NULL ORDER BY slot').pluck(),
      page: p('SELECT hash FROM page_hash WHERE id = ?').pluck(),
      resource: p('SELECT hash FROM resource_hash WHERE id = ?').pluck(),
      unsealed: p(`SELECT r.id, r.pool, r.mapped FROM resource r LEFT JOIN resource_hash h ON h.id = r.id
        WHERE r.kind = 2 AND h.id IS NULL ORDER BY r.id`),
      pool: p('SELECT * FROM seal_pool WHERE pool = ?'),
    };
  }

  row(pool: number, slot: number): SealedRow | undefined {
    return this.#statements.row.get(pool, slot) as SealedRow | undefined;
  }
  any(): boolean {
    return this.#statements.any.get() !== undefined;
  }
  /** rows of slots >= `slot`, ascending */
  from(pool: number, slot: number, max: number): SealedRow[] {
    return this.#statements.from.all(pool, slot, max) as SealedRow[];
  }
  /** rows of slots `from` ≤ slot < `to` */
  between(pool: number, from: number, to: number): SealedRow[] {
    return this.#statements.between.all(pool, from, to) as SealedRow[];
  }
  /** a slot with these bytes, another than `except`; −1 none */
  slotOf(pool: number, hash: Buffer, except = -1): number {
    return (this.#statements.same.get(pool, hash.subarray(0, 8), hash, except) as number | undefined) ?? -1;
  }
  /** slots in quarantine, ascending */
  bad(pool: number): number[] {
    return this.#statements.bad.all(pool) as number[];
  }
  page(id: number): Buffer | undefined {
    return this.#statements.page.get(id) as Buffer | undefined;
  }
  resource(id: number): Buffer | undefined {
    return this.#statements.resource.get(id) as Buffer | undefined;
  }
  /** snapshots that have no hash yet, the oldest first */
  unsealed(): { id: number; pool: number; mapped: number }[] {
    return this.#statements.unsealed.all() as { id: number; pool: number; mapped: number }[];
  }
  pool(id: number): SealPoolRow {
    return (this.#statements.pool.get(id) as SealPoolRow | undefined) ?? defaultSealPool(id);
  }
}
