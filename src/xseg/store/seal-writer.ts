/** The committer's part of sealing: rows of `sealed` and what hangs on them, inside the committer's transaction. */
import type { StoreDatabase } from './schema.ts';
import { HASH_BYTES, type SealChanges } from './seal-batch.ts';

export class SealWriter {
  #statements;
  /** rows of `sealed` by pool, as of this transaction; loaded when asked for */
  #entries = new Map<number, number>();
  #touched = new Set<number>();

  constructor(db: StoreDatabase) {
    const p = (sql: string) => db.prepare(sql);
    this.#statements = {
      entries: p('SELECT entries FROM seal_pool WHERE pool = ?').pluck(),
      entriesPut: p(
        'INSERT INTO seal_pool (pool, entries) VALUES (?, ?) ON CONFLICT (pool) DO UPDATE SET entries = excluded.entries',
      ),
      put: p('INSERT INTO sealed (pool, slot, hash) VALUES (?, ?, ?)'),
      drop: p('DELETE FROM sealed WHERE pool = ? AND slot >= ? AND slot < ?'),
      bad: p('UPDATE sealed SET bad = ? WHERE pool = ? AND slot = ?'),
      page: p(
        'INSERT OR REPLACE INTO page_hash (id, hash) SELECT @id, @hash WHERE EXISTS (SELECT 1 FROM page WHERE id = @id)',
      ),
      pageDrop: p('DELETE FROM page_hash WHERE id = ?'),
      resource: p(
        'INSERT OR REPLACE INTO resource_hash (id, hash) SELECT @id, @hash WHERE EXISTS (SELECT 1 FROM resource WHERE id = @id)',
      ),
      resourceDrop: p('DELETE FROM resource_hash WHERE id = ?'),
      count: p(`INSERT INTO seal_pool (pool, hashed, folded) VALUES (?, ?, ?)
        ON CONFLICT (pool) DO UPDATE SET hashed = hashed + excluded.hashed, folded = folded + excluded.folded`),
      pool: p(`INSERT INTO seal_pool (pool, seal, paused, rate, scrub_rate, verify)
        VALUES (@pool, @seal, @paused, @rate, @scrub_rate, @verify)
        ON CONFLICT (pool) DO UPDATE SET seal = @seal, paused = @paused, rate = @rate, scrub_rate = @scrub_rate,
        verify = @verify`),
      cursor: p(`INSERT INTO seal_pool (pool, scrub_at, scrubbed_at) VALUES (@pool, @scrub_at, @scrubbed_at)
        ON CONFLICT (pool) DO UPDATE SET scrub_at = @scrub_at, scrubbed_at = @scrubbed_at`),
    };
  }

  apply(changes: SealChanges): void {
    const s = this.#statements;
    for (let i = 0; i < changes.sealed.length; i += 2) {
      s.put.run(changes.sealed[i], changes.sealed[i + 1], hashAt(changes.hashes, i / 2));
      this.#add(changes.sealed[i], 1);
    }
    for (let i = 0; i < changes.pages.length; i++)
      s.page.run({ id: changes.pages[i], hash: hashAt(changes.pageHashes, i) });
    for (let i = 0; i < changes.resources.length; i++)
      s.resource.run({ id: changes.resources[i], hash: hashAt(changes.resourceHashes, i) });
    for (let i = 0; i < changes.counts.length; i += 3)
      s.count.run(changes.counts[i], changes.counts[i + 1], changes.counts[i + 2]);
    for (let i = 0; i < changes.bad.length; i += 3)
      s.bad.run(changes.bad[i + 2] === 0 ? null : changes.bad[i + 2], changes.bad[i], changes.bad[i + 1]);
    for (const row of changes.pools) s.pool.run(row);
    for (const { pool, scrub_at, scrubbed_at } of changes.cursors) s.cursor.run({ pool, scrub_at, scrubbed_at });
  }

  /** Runs [pool, slot, count, …] are freed: what was known of their bytes goes. */
  freed(runs: number[]): void {
    for (let i = 0; i < runs.length; i += 3) {
      const pool = runs[i];
      if (this.#entriesOf(pool) === 0) continue;
      const gone = this.#statements.drop.run(pool, runs[i + 1], runs[i + 1] + runs[i + 2]).changes;
      if (gone > 0) this.#add(pool, -gone);
    }
  }

  pageGone(id: number): void {
    this.#statements.pageDrop.run(id);
  }

  resourceGone(id: number): void {
    this.#statements.resourceDrop.run(id);
  }

  #entriesOf(pool: number): number {
    let entries = this.#entries.get(pool);
    if (entries === undefined) {
      entries = (this.#statements.entries.get(pool) as number | undefined) ?? 0;
      this.#entries.set(pool, entries);
    }
    return entries;
  }

  #add(pool: number, delta: number): void {
    this.#entries.set(pool, this.#entriesOf(pool) + delta);
    this.#touched.add(pool);
  }

  /** Before the transaction ends. */
  finish(): void {
    for (const pool of this.#touched) this.#statements.entriesPut.run(pool, this.#entriesOf(pool));
    this.#touched.clear();
  }

  /** The transaction is rolled back. */
  forget(): void {
    this.#entries.clear();
    this.#touched.clear();
  }
}

function hashAt(hashes: Uint8Array, index: number): Buffer {
  return Buffer.from(hashes.buffer, hashes.byteOffset + index * HASH_BYTES, HASH_BYTES);
}
