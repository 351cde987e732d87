/** What `atoll check` proves of sealing (docs/format.md, "Sealing" and the invariants at its end). */
import { KIND_VOLUME, type PoolRow, type ResourceRow } from './store/batch.ts';
import { bitGet } from './store/bitmap.ts';
import type { StoreDatabase } from './store/schema.ts';
import { HASH_BYTES } from './store/seal-batch.ts';

const EXCLUSIVE_HI = 0x80000000;

export class SealCheck {
  /** leaves that name blocks in quarantine, and how many */
  readonly badPages = new Map<number, number>();
  #bad = new Map<number, Set<number>>();
  #inPlace = new Map<number, number>();
  #sealed;

  constructor(
    readonly db: StoreDatabase,
    readonly problem: (code: string, message: string, resource?: string) => void,
    resources: ResourceRow[],
  ) {
    this.#sealed = db.prepare('SELECT 1 FROM sealed WHERE pool = ? AND slot = ?').pluck();
    for (const row of db.prepare('SELECT pool, slot FROM sealed WHERE bad IS NOT NULL').iterate() as Iterable<{
      pool: number;
      slot: number;
    }>) {
      const slots = this.#bad.get(row.pool) ?? new Set();
      slots.add(row.slot);
      this.#bad.set(row.pool, slots);
    }
    for (const r of resources) if (r.kind === KIND_VOLUME) this.#inPlace.set(r.id, r.generation);
  }

  /** A leaf: [level, id, base, owner, generation, …] and its entries as (lo, hi) words. */
  leaf(header: Float64Array, entries: Uint32Array, pool: PoolRow): void {
    const bad = this.#bad.get(pool.id);
    const live = this.#inPlace.get(header[3]) === header[4];
    if (bad === undefined && !live) return;
    for (let i = 0; i < entries.length; i += 2) {
      const value = entries[i] + (entries[i + 1] & 0xffff) * 2 ** 32;
      if (value === 0) continue;
      if (bad?.has(value - 1)) this.badPages.set(header[1], (this.badPages.get(header[1]) ?? 0) + 1);
      if (live && (entries[i + 1] & EXCLUSIVE_HI) !== 0 && this.#sealed.get(pool.id, value - 1) !== undefined)
        this.problem(
          'SEAL',
          `slot ${value - 1} of pool ${pool.name} is sealed, and map page ${header[1]} may write it in place`,
        );
    }
  }

  /** Tables beside the map. `reached`: of these pages, those in somebody's map; `whose` names the resources, of the first. */
  finish(
    pools: PoolRow[],
    reached: (pages: ReadonlyMap<number, unknown>) => Set<number>,
    whose: (page: number) => string | undefined,
  ): void {
    for (const pool of pools) this.#index(pool);
    this.#orphans('page_hash', 'page', 'map page');
    this.#orphans('resource_hash', 'resource', 'resource');
    if (this.badPages.size === 0) return;
    for (const page of reached(this.badPages)) {
      const count = this.badPages.get(page);
      this.problem(
        'BAD_BLOCK',
        `${count} block(s) of map page ${page} are in quarantine; reads answer EIO`,
        whose(page),
      );
    }
  }

  #index(pool: PoolRow): void {
    let count = 0;
    let grp = -1;
    let used: Uint8Array | undefined;
    const group = this.db.prepare('SELECT bitmap FROM slot_group WHERE pool = ? AND grp = ?').pluck();
    for (const { slot, bytes } of this.db
      .prepare('SELECT slot, length(hash) AS bytes FROM sealed WHERE pool = ? ORDER BY slot')
      .iterate(pool.id) as Iterable<{ slot: number; bytes: number }>) {
      count++;
      if (bytes !== HASH_BYTES)
        this.problem('SEAL', `the hash of slot ${slot} of pool ${pool.name} has ${bytes} bytes`);
      const at = Math.floor(slot / pool.group_slots);
      if (at !== grp) {
        grp = at;
        used = group.get(pool.id, grp) as Buffer | undefined;
      }
      if (used === undefined || !bitGet(used, slot - grp * pool.group_slots))
        this.problem('SEAL', `slot ${slot} of pool ${pool.name} is in the index and free`);
    }
    const counted = this.db.prepare('SELECT entries FROM seal_pool WHERE pool = ?').pluck().get(pool.id) ?? 0;
    if (counted !== count)
      this.problem('SEAL', `pool ${pool.name} has ${count} sealed slots, counted ${String(counted)}`);
  }

  #orphans(table: string, of: string, noun: string): void {
    const rows = this.db.prepare(`SELECT id FROM ${table} WHERE id NOT IN (SELECT id FROM ${of}) LIMIT 10`).all() as {
      id: number;
    }[];
    for (const { id } of rows) this.problem('SEAL', `there is a hash of ${noun} ${id}, which does not exist`);
  }
}
