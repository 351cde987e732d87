/**
 * The committer: the one writing connection of the store. Runs in its own thread (`committer-worker.ts`) so that a slow
 * fsync stops nobody's map faults. Applies batches in the order they come, several in one transaction when they queue up.
 */
import { statSync } from 'node:fs';
import { EngineError } from '../types.ts';
import type { CommitBatch, PoolRow, ResourceRow } from './batch.ts';
import { GROUP_ACTIVE } from './batch.ts';
import { bitFill } from './bitmap.ts';
import { BUSY_MS_MAX, openWriter, type StoreDatabase, WAL_BYTES_MAX } from './schema.ts';
import { SealWriter } from './seal-writer.ts';

/** Group bitmaps kept in memory by the committer (2 KiB each at the default geometry). */
const GROUPS_CACHED_MAX = 4096;
/** A checkpoint that did not get through is tried again after this. */
const CHECKPOINT_RETRY_MS = 1000;

interface GroupState {
  used: number;
  state: number;
  bitmap: Uint8Array;
  dirty: Uint8Array | null;
}

export class Committer {
  readonly db: StoreDatabase;
  #path: string;
  #groups = new Map<string, GroupState>();
  #touched = new Set<string>();
  #geometry = new Map<number, number>();
  /** some slot has lost a reference in this transaction: rows may come to 0, by gains as well */
  #refsFell = false;
  /** milliseconds that the last COMMIT took: writing the log, and its fsync */
  syncMs = 0;
  /** monotonic ms before which no checkpoint is tried */
  #checkpointAt = 0;
  /** of this writer: the store has the newest one's */
  readonly epoch: number;
  #statements;
  #seal: SealWriter;

  /** Takes the store over: whoever wrote before is refused from now on. @param store its path, or a connection */
  constructor(store: string | StoreDatabase) {
    this.db = typeof store === 'string' ? openWriter(store) : store;
    this.#path = this.db.name;
    this.#seal = new SealWriter(this.db);
    const p = (sql: string) => this.db.prepare(sql);
    this.#statements = {
      pagePut: p(
        'INSERT INTO page (id, base, data) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET base = excluded.base, data = excluded.data',
      ),
      pageDelete: p('DELETE FROM page WHERE id = ?'),
      pageRef: p(
        'INSERT INTO page_ref (id, extra) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET extra = extra + excluded.extra',
      ),
      pageRefSweep: p('DELETE FROM page_ref WHERE id = ? AND extra = 0'),
      pageRefDrop: p('DELETE FROM page_ref WHERE id = ?'),
      slotRef: p(
        'INSERT INTO slot_ref (pool, slot, extra) VALUES (?, ?, ?) ON CONFLICT (pool, slot) DO UPDATE SET extra = extra + excluded.extra',
      ),
      slotRefSweep: p('DELETE FROM slot_ref WHERE pool = ? AND slot = ? AND extra = 0'),
      groupGet: p('SELECT used, state, bitmap, dirty FROM slot_group WHERE pool = ? AND grp = ?'),
      groupPut: p(
        'INSERT OR REPLACE INTO slot_group (pool, grp, used, state, bitmap, dirty) VALUES (?, ?, ?, ?, ?, ?)',
      ),
      resourcePut:
        p(`INSERT INTO resource (id, uuid, name, kind, volume, pool, size, root, height, generation, protected, created_at, cloned_from, grp, mapped,
        attached, attached_to, attached_at)
        VALUES (@id, @uuid, @name, @kind, @volume, @pool, @size, @root, @height, @generation, @protected, @created_at, @cloned_from, @grp, @mapped,
        @attached, @attached_to, @attached_at)
        ON CONFLICT (id) DO UPDATE SET name = @name, size = @size, root = @root, height = @height, generation = @generation,
        protected = @protected, cloned_from = @cloned_from, grp = @grp, mapped = @mapped,
        attached = @attached, attached_to = @attached_to, attached_at = @attached_at`),
      resourceDelete: p('DELETE FROM resource WHERE id = ?'),
      releasePut: p('INSERT INTO release (seq, kind, id, pool) VALUES (?, ?, ?, ?)'),
      releaseDone: p('DELETE FROM release WHERE seq = ?'),
      poolPut:
        p(`INSERT INTO pool (id, uuid, name, driver, kind, path, block_shift, group_slots, size, direct, preallocate, created_at)
        VALUES (@id, @uuid, @name, @driver, @kind, @path, @block_shift, @group_slots, @size, @direct, @preallocate, @created_at)
        ON CONFLICT (id) DO UPDATE SET name = @name, size = @size, path = @path`),
      poolGet: p('SELECT group_slots FROM pool WHERE id = ?'),
      metaMax: p(
        `INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)`,
      ),
      metaPut: p('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)'),
      epochGet: p("SELECT value FROM meta WHERE key = 'epoch'").pluck(),
      epochNext: p(`INSERT INTO meta (key, value) VALUES ('epoch', 1)
        ON CONFLICT (key) DO UPDATE SET value = value + 1 RETURNING value`).pluck(),
    };
    this.epoch = this.#statements.epochNext.get() as number;
  }

  /** Applies batches as one transaction; all of them or none. Throws on any error. @throws {EngineError} STALE_LEASE */
  apply(batches: CommitBatch[]): void {
    try {
      this.db.exec('BEGIN IMMEDIATE');
      this.#stillOurs();
      this.#refsFell = false;
      for (const batch of batches) this.#applyOne(batch);
      this.#writeGroups();
      this.#seal.finish();
      const started = performance.now();
      this.db.exec('COMMIT');
      this.syncMs = performance.now() - started;
    } catch (error) {
      this.#groups.clear();
      this.#touched.clear();
      this.#seal.forget();
      if (this.db.inTransaction) this.db.exec('ROLLBACK');
      throw error;
    }
    this.#trimGroups();
  }

  /** Nobody can take it over before the transaction ends. */
  #stillOurs(): void {
    const epoch = this.#statements.epochGet.get();
    if (epoch !== this.epoch)
      throw new EngineError(
        'STALE_LEASE',
        `another daemon has taken the store over (epoch ${epoch}, ours ${this.epoch})`,
      );
  }

  #applyOne(batch: CommitBatch): void {
    const s = this.#statements;
    for (const pool of batch.pools) s.poolPut.run(pool satisfies PoolRow);
    for (const group of batch.groups) this.#changeGroup(group.pool, group.grp, group.state, group.dirty);
    this.#mark(batch.taken, true);
    this.#mark(batch.freed, false);
    this.#seal.freed(batch.freed);
    for (let i = 0; i < batch.pages.length; i += 4) {
      const base = batch.pages[i + 1];
      const at = batch.pages[i + 2];
      const blob = Buffer.from(batch.blob.buffer, batch.blob.byteOffset + at, batch.pages[i + 3]);
      s.pagePut.run(batch.pages[i], base === 0 ? null : base, blob);
    }
    for (let i = 0; i < batch.pageRefs.length; i += 2) {
      s.pageRef.run(batch.pageRefs[i], batch.pageRefs[i + 1]);
      s.pageRefSweep.run(batch.pageRefs[i]);
    }
    for (const id of batch.pagesDeleted) {
      s.pageDelete.run(id);
      s.pageRefDrop.run(id);
      this.#seal.pageGone(id);
    }
    for (let i = 0; i < batch.slotRefs.length; i += 3) {
      const delta = batch.slotRefs[i + 2];
      if (delta < 0) this.#refsFell = true;
      s.slotRef.run(batch.slotRefs[i], batch.slotRefs[i + 1], delta);
      // no row has less than 1 when a transaction begins
      if (this.#refsFell) s.slotRefSweep.run(batch.slotRefs[i], batch.slotRefs[i + 1]);
    }
    for (const id of batch.resourcesDeleted) {
      s.resourceDelete.run(id);
      this.#seal.resourceGone(id);
    }
    for (const row of batch.resources) s.resourcePut.run(row satisfies ResourceRow);
    for (const row of batch.releases) s.releasePut.run(row.seq, row.kind, row.id, row.pool);
    for (const seq of batch.releasesDone) s.releaseDone.run(seq);
    if (batch.seal !== null) this.#seal.apply(batch.seal);
    for (const [key, value] of Object.entries(batch.meta)) {
      if (key.startsWith('next_')) s.metaMax.run(key, value);
      else s.metaPut.run(key, value);
    }
  }

  #group(pool: number, grp: number): GroupState | null {
    const key = `${pool}/${grp}`;
    let state = this.#groups.get(key);
    if (state === undefined) {
      const row = this.#statements.groupGet.get(pool, grp) as GroupState | undefined;
      if (row === undefined) return null;
      state = {
        used: row.used,
        state: row.state,
        bitmap: Uint8Array.from(row.bitmap),
        dirty: row.dirty && Uint8Array.from(row.dirty),
      };
      this.#groups.set(key, state);
    }
    return state;
  }

  #changeGroup(pool: number, grp: number, state: number, dirty: Uint8Array | null): void {
    let group = this.#group(pool, grp);
    if (group === null) {
      const slots = (this.#statements.poolGet.get(pool) as { group_slots: number }).group_slots;
      group = { used: 0, state, bitmap: new Uint8Array(slots / 8), dirty };
      this.#groups.set(`${pool}/${grp}`, group);
    }
    group.state = state;
    group.dirty = state === GROUP_ACTIVE ? null : dirty;
    this.#touched.add(`${pool}/${grp}`);
  }

  #mark(runs: number[], used: boolean): void {
    for (let i = 0; i < runs.length; i += 3) {
      const pool = runs[i];
      const slots = this.#slotsPerGroup(pool);
      const grp = Math.floor(runs[i + 1] / slots);
      const group = this.#group(pool, grp);
      if (group === null) throw new EngineError('CORRUPT', `slot group ${grp} of pool ${pool} does not exist`);
      if (used && group.state !== GROUP_ACTIVE)
        throw new EngineError('CORRUPT', `slots taken from sealed group ${grp} of pool ${pool}`);
      const changed = bitFill(group.bitmap, runs[i + 1] % slots, runs[i + 2], used);
      if (changed !== runs[i + 2]) {
        throw new EngineError(
          'CORRUPT',
          `slots ${runs[i + 1]}+${runs[i + 2]} of pool ${pool} were not all ${used ? 'free' : 'used'}`,
        );
      }
      group.used += used ? changed : -changed;
      // a slot freed in a sealed group is not known to be zero any more
      if (!used && group.state !== GROUP_ACTIVE && group.dirty !== null)
        bitFill(group.dirty, runs[i + 1] % slots, runs[i + 2], true);
      this.#touched.add(`${pool}/${grp}`);
    }
  }

  #slotsPerGroup(pool: number): number {
    let slots = this.#geometry.get(pool);
    if (slots === undefined) {
      slots = (this.#statements.poolGet.get(pool) as { group_slots: number }).group_slots;
      this.#geometry.set(pool, slots);
    }
    return slots;
  }

  #writeGroups(): void {
    for (const key of this.#touched) {
      const group = this.#groups.get(key) as GroupState;
      const slash = key.indexOf('/');
      this.#statements.groupPut.run(
        Number(key.slice(0, slash)),
        Number(key.slice(slash + 1)),
        group.used,
        group.state,
        group.bitmap,
        group.dirty,
      );
    }
    this.#touched.clear();
  }

  #trimGroups(): void {
    for (const key of this.#groups.keys()) {
      if (this.#groups.size <= GROUPS_CACHED_MAX) break;
      this.#groups.delete(key);
    }
  }

  /** Bytes in the write-ahead log. */
  logBytes(): number {
    return statSync(`${this.#path}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  }

  /**
   * Moves the log into the database when it has grown; readers go on. What cannot be moved now (a reader holds it, the disk
   * is full) stays in the log, which is as durable, for a later try: no commit waits for it.
   */
  checkpoint(force = false): void {
    if (!force && (this.logBytes() < WAL_BYTES_MAX / 2 || performance.now() < this.#checkpointAt)) return;
    this.#checkpointAt = performance.now() + CHECKPOINT_RETRY_MS;
    try {
      this.db.pragma('busy_timeout = 0');
      // where a reader is in the way it does what PASSIVE does; else the log is empty again
      const [{ busy }] = this.db.pragma('wal_checkpoint(TRUNCATE)') as { busy: number }[];
      if (busy === 0) this.#checkpointAt = 0;
    } catch (error) {
      const code = (error as { code?: string }).code ?? '';
      if (!code.startsWith('SQLITE_FULL') && !code.startsWith('SQLITE_BUSY')) throw error;
    } finally {
      this.db.pragma(`busy_timeout = ${BUSY_MS_MAX}`);
    }
  }

  /** Gives back the pages of the store that it keeps. */
  shrink(): void {
    this.db.pragma('shrink_memory');
  }

  close(): void {
    this.db.close();
  }
}
