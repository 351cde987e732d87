/** What a reading connection knows of sealing: the index, hashes of pages and resources, settings. */
import { KIND_SNAPSHOT } from './batch.ts';
import type { StoreDatabase } from './schema.ts';
import { defaultSealPool, HASH_BYTES, type SealPoolRow } from './seal-batch.ts';

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
      hold: p(
        `SELECT slot FROM sealed WHERE pool = ? AND slot >= ? AND slot < ? AND bad IS NULL
        AND hash = substr(?, (slot - ?) * ${HASH_BYTES} + 1, ${HASH_BYTES})`,
      ).pluck(),
      run: p(
        `SELECT count(*) FROM sealed WHERE pool = ? AND slot >= ? AND slot < ? AND bad IS NULL
        AND hash = substr(?, (slot - ?) * ${HASH_BYTES} + 1, ${HASH_BYTES})`,
      ).pluck(),
      between: p('SELECT slot, hash, bad FROM sealed WHERE pool = ? AND slot >= ? AND slot < ?'),
      // The least slot: whoever looks at the same rows takes the same one. They name their index: left to itself, SQLite
      // takes the primary key, and goes through all rows of the pool.
      same: p(
        'SELECT slot FROM sealed INDEXED BY sealed_hash WHERE pool = ? AND substr(hash, 1, 8) = ? AND bad IS NULL AND hash = ? AND slot <> ? ORDER BY slot LIMIT 1',
      ).pluck(),
      // As many hashes as a blob has: with 16 million rows 4 us each, where looks one by one take 10 to 16.
      sameAll: p(`WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < @count)
        SELECT i, (SELECT slot FROM sealed INDEXED BY sealed_hash
          WHERE pool = @pool AND substr(hash, 1, 8) = substr(@hashes, n.i * ${HASH_BYTES} + 1, 8) AND bad IS NULL
          AND hash = substr(@hashes, n.i * ${HASH_BYTES} + 1, ${HASH_BYTES}) ORDER BY slot LIMIT 1) FROM n`).raw(),
      bad: p('SELECT slot FROM sealed INDEXED BY sealed_bad WHERE pool = ? AND bad IS NOT NULL ORDER BY slot').pluck(),
      page: p('SELECT hash FROM page_hash WHERE id = ?').pluck(),
      resource: p('SELECT hash FROM resource_hash WHERE id = ?').pluck(),
      firstUnsealed: p(`SELECT r.id FROM resource r LEFT JOIN resource_hash h ON h.id = r.id
        WHERE r.id > ? AND r.id <= ? AND r.kind = ${KIND_SNAPSHOT} AND r.pool = ? AND h.id IS NULL ORDER BY r.id LIMIT 1`).pluck(),
      unsealedSize:
        p(`SELECT count(*) AS snapshots, coalesce(sum(r.mapped), 0) AS mapped FROM resource r LEFT JOIN resource_hash h ON h.id = r.id
        WHERE r.id > ? AND r.kind = ${KIND_SNAPSHOT} AND r.pool = ? AND h.id IS NULL`),
      lastResource: p('SELECT max(id) FROM resource').pluck(),
      mapped: p('SELECT mapped FROM resource WHERE id = ?').pluck(),
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
  /**
   * 1 for each slot that has a row, which is well and has that hash. Slots beside each other are looked up together, and no
   * row comes out of SQLite: each would be an object with a Buffer.
   *
   * @param slots in any order, also more than once; below 0: not looked up
   * @param hashes HASH_BYTES for each
   */
  hold(pool: number, slots: Float64Array, hashes: Uint8Array): Uint8Array {
    const held = new Uint8Array(slots.length);
    const bytes = Buffer.from(hashes.buffer, hashes.byteOffset, hashes.length);
    const order: number[] = [];
    for (let i = 0; i < slots.length; i++) if (slots[i] >= 0) order.push(i);
    order.sort((a, b) => slots[a] - slots[b]);
    const sameAsBefore = (k: number): boolean => {
      const [a, b] = [order[k - 1] * HASH_BYTES, order[k] * HASH_BYTES];
      return (
        slots[order[k - 1]] === slots[order[k]] && bytes.compare(bytes, a, a + HASH_BYTES, b, b + HASH_BYTES) === 0
      );
    };
    for (let k = 0; k < order.length; ) {
      if (k > 0 && sameAsBefore(k)) {
        held[order[k]] = held[order[k - 1]];
        k++;
        continue;
      }
      const from = slots[order[k]];
      let count = 1;
      while (k + count < order.length && slots[order[k + count]] === from + count) count++;
      const wanted = Buffer.allocUnsafe(count * HASH_BYTES);
      for (let n = 0; n < count; n++) {
        const at = order[k + n] * HASH_BYTES;
        bytes.copy(wanted, n * HASH_BYTES, at, at + HASH_BYTES);
      }
      for (const slot of this.#statements.hold.all(pool, from, from + count, wanted, from) as number[])
        held[order[k + slot - from]] = 1;
      k += count;
    }
    return held;
  }
  /** a slot with these bytes, another than `except`; −1 none */
  slotOf(pool: number, hash: Buffer, except = -1): number {
    return (this.#statements.same.get(pool, hash.subarray(0, 8), hash, except) as number | undefined) ?? -1;
  }
  /**
   * the same for many
   *
   * @param hashes HASH_BYTES each, one after the other
   * @param guess where the first may be, and the others behind it: looking there is five times as fast. They are taken even
   * where lesser slots have the same bytes.
   */
  slotsOf(pool: number, hashes: Uint8Array, guess = -1): Float64Array {
    const count = hashes.length / HASH_BYTES;
    const slots = new Float64Array(count).fill(-1);
    if (count === 0) return slots;
    if (guess >= 0 && this.#statements.run.get(pool, guess, guess + count, hashes, guess) === count)
      return slots.map((_, i) => guess + i);
    const found = this.#statements.sameAll.all({ pool, hashes, count }) as [number, number | null][];
    for (const [i, slot] of found) slots[i] = slot ?? -1;
    return slots;
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
  /** the least snapshot of a pool that has no hash, of those with `from` < id ≤ `to` */
  firstUnsealed(pool: number, from: number, to: number): number | undefined {
    return this.#statements.firstUnsealed.get(from, to, pool) as number | undefined;
  }
  /** how many snapshots of a pool with a greater id than `from` have no hash, and the blocks that they map */
  unsealedSize(pool: number, from: number): { snapshots: number; mapped: number } {
    return this.#statements.unsealedSize.get(from, pool) as { snapshots: number; mapped: number };
  }
  /** the greatest id; 0 when there is none */
  lastResource(): number {
    return (this.#statements.lastResource.get() as number | null) ?? 0;
  }
  /** blocks that a resource maps */
  mapped(id: number): number {
    return (this.#statements.mapped.get(id) as number | undefined) ?? 0;
  }
  pool(id: number): SealPoolRow {
    return (this.#statements.pool.get(id) as SealPoolRow | undefined) ?? defaultSealPool(id);
  }
}
