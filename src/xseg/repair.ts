/**
 * `atoll check --repair`: rebuilds what is derived (docs/format.md, "Repair") from what is not: resources, map entries, and
 * the queue of releases. One transaction, so that a crash leaves the store as it was or mended; pools are not even opened.
 *
 * Where a page is damaged or missing, what it holds is not known. Then nothing is freed and no count is lowered: what may
 * be somebody's stays his.
 */
import { type CheckProgress, idBounds, liveVolumes } from './check.ts';
import type { Native } from './native.ts';
import { ENTRIES, EXCLUSIVE_HI, LEVEL_UNKNOWN, OWNED_HI, PageTable, type PageView, ZEROES } from './page-table.ts';
import { type GroupRow, inPlace, type Live, type SlotWindow, SlotWindows } from './slot-windows.ts';
import {
  GROUP_ACTIVE,
  type PoolRow,
  RELEASE_GHOST,
  RELEASE_PAGE,
  RELEASE_SLOT,
  type ResourceRow,
} from './store/batch.ts';
import { bitCount, bitFill, bitGet } from './store/bitmap.ts';
import { openWriter, type StoreDatabase } from './store/schema.ts';
import { HASH_BYTES } from './store/seal-batch.ts';
import { fileProblems } from './store/soundness.ts';
import { EngineError, type RepairReport } from './types.ts';

/** docs/format.md: the longest blob of a page */
const PAGE_BLOB_MAX = 48 + ENTRIES * 12;
/** Pages changed between two readings of all pages, at most: they are kept in memory meanwhile. */
const EDITS_MAX = 4096;
/** Groups of a pool at most: a PiB in groups of 64 MiB. Entries that name others are damage that stays. */
const GROUPS_MAX = 2 ** 24;

export class Repair {
  readonly report: RepairReport = {
    pages: 0,
    pagesRemoved: 0,
    pageRefs: 0,
    slotRefs: 0,
    slotsFreed: 0,
    slotsTaken: 0,
    groups: 0,
    resources: 0,
    releases: 0,
    meta: 0,
    seal: 0,
    indexes: 0,
    inDoubt: false,
  };
  readonly #pools: PoolRow[];
  readonly #resources: ResourceRow[];
  readonly #live: Live;
  #table: PageTable;
  readonly #blob = Buffer.alloc(PAGE_BLOB_MAX);
  readonly #putPage;

  constructor(
    readonly db: StoreDatabase,
    readonly native: Native,
    readonly windowSlots?: number,
  ) {
    this.#pools = db.prepare('SELECT * FROM pool ORDER BY id').all() as PoolRow[];
    this.#resources = db.prepare('SELECT * FROM resource').all() as ResourceRow[];
    this.#live = liveVolumes(this.#resources);
    this.#table = new PageTable(db, native);
    this.#putPage = db.prepare('UPDATE page SET base = ?, data = ? WHERE id = ?');
  }

  /** In the transaction that the caller opened. @throws {EngineError} CORRUPT when the store is no sound SQLite file */
  run(onProgress: CheckProgress): RepairReport {
    this.#soundFile();
    this.#allPools();
    this.#dropReleases();
    this.#entries(onProgress);
    this.#table = new PageTable(this.db, this.native);
    const table = this.#table;
    const nothing = () => undefined;
    table.learn(nothing, nothing, (pages) => onProgress(pages, table.count * 3));
    table.reachAll((id) => this.#pools.findIndex((pool) => pool.id === id));
    this.report.inDoubt = table.damagedCount > 0 || table.missing.size > 0;
    this.#removeUnreachable();
    this.#mappedCounts();
    this.#pageRefs();
    this.#slots((pages) => onProgress(table.count + Math.min(pages, table.count), table.count * 3));
    this.#sealing();
    this.#resourceCounts();
    this.#meta();
    onProgress(1, 1);
    return this.report;
  }

  /** Indexes are derived too; tables that SQLite cannot read are not ours to guess at. */
  #soundFile(): void {
    const sound = () => fileProblems(this.db, 1).length === 0;
    if (sound()) return;
    this.db.exec('REINDEX');
    if (!sound())
      throw new EngineError('CORRUPT', 'the store is damaged as a file; rebuild the home from its pool or a backup');
    this.report.indexes = this.db
      .prepare("SELECT count(*) FROM sqlite_schema WHERE type = 'index'")
      .pluck()
      .get() as number;
  }

  /** A pool's row cannot be derived, and without it what its volumes have would look like nobody's. */
  #allPools(): void {
    const lost = this.db.prepare('SELECT pool FROM resource EXCEPT SELECT id FROM pool').pluck().all() as number[];
    if (lost.length > 0)
      throw new EngineError(
        'CORRUPT',
        `volumes are in pools that the store does not have (${lost.join(', ')}); rebuild the home from its pool or a backup`,
      );
  }

  /** Rows of the queue that can do nothing. */
  #dropReleases(): void {
    const known = [RELEASE_PAGE, RELEASE_GHOST, RELEASE_SLOT].join(', ');
    const pages = `kind IN (${RELEASE_PAGE}, ${RELEASE_GHOST}) AND id NOT IN (SELECT id FROM page)`;
    const groups = `kind = ${RELEASE_SLOT} AND NOT EXISTS (SELECT 1 FROM pool p JOIN slot_group g ON g.pool = p.id
      WHERE p.id = release.pool AND g.grp = release.id / p.group_slots)`;
    const sql = `DELETE FROM release WHERE kind NOT IN (${known}) OR (${pages}) OR (${groups})`;
    this.report.releases += this.db.prepare(sql).run().changes;
  }

  // ---- pages

  /** Flags of entries and the base column: what one page and its base decide. */
  #entries(onProgress: CheckProgress): void {
    const base = new Uint32Array(ENTRIES * 2);
    this.#editPages(
      (page) => (this.#mendEntries(page, base) || page.baseColumn !== page.base ? page.mapped : null),
      (pages) => onProgress(pages, this.#table.count * 3),
    );
  }

  /**
   * Puts those pages again of which `edit`, which may change the view, says how many blocks they map. What is read is not
   * written meanwhile: it goes on where it was after EDITS_MAX of them.
   */
  #editPages(edit: (page: PageView) => number | null, progress: (pages: number) => void): void {
    let from = 0;
    while (from >= 0) {
      const edits: { index: number; blob: Buffer; base: number }[] = [];
      let again = -1;
      this.#table.scan(
        (page) => {
          if (page.index < from || again >= 0) return;
          const mapped = edit(page);
          if (mapped === null) return;
          edits.push({ index: page.index, blob: this.#encode(page, mapped), base: page.base });
          if (edits.length >= EDITS_MAX) again = page.index + 1;
        },
        () => undefined,
        progress,
      );
      for (const { index, base, blob } of edits) this.#put(index, base, blob);
      from = again;
    }
  }

  /** True when entries of the page in view were changed: they are, in the view. */
  #mendEntries(page: PageView, base: Uint32Array): boolean {
    const table = this.#table;
    const { entries } = page;
    let changed = false;
    const index = page.base === 0 || page.base >= page.id ? -1 : table.indexOf(page.base);
    const known = index >= 0 && table.entriesOf(index, base);
    for (let i = 0; i < ENTRIES; i++) {
      const value = table.value(i);
      if (value === 0) continue;
      const high = table.high(i);
      if (page.level === 0 && value === ZEROES) {
        if ((high & (OWNED_HI | EXCLUSIVE_HI)) === 0) continue;
        entries[i * 2 + 1] = (high & ~(OWNED_HI | EXCLUSIVE_HI)) >>> 0;
        changed = true;
        continue;
      }
      const theirs = base[i * 2] + (base[i * 2 + 1] & 0xffff) * 2 ** 32;
      // What nobody lends is held by who names it. A base that cannot be read may lend it.
      const lent = known ? theirs === value : index >= 0;
      if ((high & OWNED_HI) === 0 && !lent) {
        entries[i * 2 + 1] = ((high | OWNED_HI) & ~EXCLUSIVE_HI) >>> 0;
        changed = true;
      } else if ((high & OWNED_HI) === 0 && (high & EXCLUSIVE_HI) !== 0) {
        entries[i * 2 + 1] = (high & ~EXCLUSIVE_HI) >>> 0;
        changed = true;
      }
    }
    if (page.base === 0 || index >= 0) return changed;
    page.base = 0; // it lends nothing any more
    return true;
  }

  #encode(page: PageView, mapped: number): Buffer {
    const { entries, level, id, base, owner, generation } = page;
    const length = this.native.encodePageFrom(entries, level, id, base, owner, generation, mapped, this.#blob, 0);
    return Buffer.from(this.#blob.subarray(0, length));
  }

  #put(index: number, base: number, blob: Buffer): void {
    this.#putPage.run(base === 0 ? null : base, blob, this.#table.ids[index]);
    this.report.pages++;
  }

  #removeUnreachable(): void {
    if (this.report.inDoubt) return;
    const table = this.#table;
    const remove = this.db.prepare('DELETE FROM page WHERE id = ?');
    for (let index = 0; index < table.count; index++) {
      if (table.pool[index] !== 0) continue;
      // what it held is held by one less
      if (table.base[index] >= 0) table.children[table.base[index]]--;
      if (table.level[index] > 0 && table.read(index) !== null)
        for (let i = 0; i < ENTRIES; i++) {
          const child = (table.high(i) & OWNED_HI) === 0 ? -1 : table.indexOf(table.value(i));
          if (child >= 0) table.parents[child]--;
        }
      remove.run(table.ids[index]);
      this.report.pagesRemoved++;
    }
  }

  /** From the leaves up, level by level. */
  #mappedCounts(): void {
    const table = this.#table;
    let highest = 0;
    for (const level of table.level) if (level !== LEVEL_UNKNOWN) highest = Math.max(highest, level);
    for (let level = 0; level <= highest; level++)
      for (let index = 0; index < table.count; index++) {
        if (table.level[index] !== level || (table.pool[index] === 0 && !this.report.inDoubt)) continue;
        const page = table.read(index);
        if (page === null) continue;
        const blocks = table.blocksBelow();
        if (blocks === null || blocks === page.mapped) continue;
        table.mapped[index] = blocks;
        this.#put(index, page.base, this.#encode(page, blocks));
      }
  }

  #pageRefs(): void {
    const table = this.#table;
    const rows = this.db.prepare('SELECT id, extra FROM page_ref').all() as { id: number; extra: number }[];
    const stored = new Map(rows.map((row) => [row.id, row.extra]));
    const put = this.db.prepare('INSERT OR REPLACE INTO page_ref (id, extra) VALUES (?, ?)');
    const drop = this.db.prepare('DELETE FROM page_ref WHERE id = ?');
    for (let index = 0; index < table.count; index++) {
      const id = table.ids[index];
      if (table.pool[index] === 0 && !this.report.inDoubt) continue;
      const before = stored.get(id) ?? 0;
      stored.delete(id);
      const found = table.parents[index] - 1;
      const extra = this.report.inDoubt ? Math.max(before, found) : found;
      if (extra !== before) {
        if (extra === 0) drop.run(id);
        else put.run(id, extra);
        this.report.pageRefs++;
      }
      if (extra === -1 && table.children[index] > 0 && table.dissolving[index] === 0) this.#dissolve(id, index);
    }
    // pages that are gone; of those that should be there, the counts wait with what names them
    for (const id of stored.keys()) {
      if (table.missing.has(id)) continue;
      drop.run(id);
      this.report.pageRefs++;
    }
  }

  /** A ghost that no row of the queue names would stay for ever. */
  #dissolve(id: number, index: number): void {
    const seq = (this.db.prepare('SELECT max(seq) FROM release').pluck().get() as number | null) ?? 0;
    const next = Number(this.db.prepare("SELECT value FROM meta WHERE key = 'next_release'").pluck().get() ?? 1);
    const pool = this.#pools[this.#table.pool[index] - 1];
    if (pool === undefined) return;
    const sql = 'INSERT INTO release (seq, kind, id, pool) VALUES (?, ?, ?, ?)';
    this.db.prepare(sql).run(Math.max(seq + 1, next), RELEASE_GHOST, id, pool.id);
    this.report.releases++;
  }

  // ---- slots

  #slots(progress: (pages: number) => void): void {
    const windows = new SlotWindows(this.db, this.#table, this.#pools, this.#live, this.windowSlots);
    // a group without a row is made first, so that its slots are counted like others
    for (const pool of this.#pools) for (const grp of this.#strayGroups(pool)) this.#makeGroup(pool, grp);
    windows.each((window) => this.#window(window), progress);
    this.#strayReferences();
  }

  /** Groups that leaf entries name and that have no row; those beyond any pool are nobody's. */
  #strayGroups(pool: PoolRow): Set<number> {
    const table = this.#table;
    const known = this.db.prepare('SELECT grp FROM slot_group WHERE pool = ?').pluck().all(pool.id) as number[];
    const all = new Set(known);
    const strays = new Set<number>();
    table.scan(
      (page) => {
        if (page.level !== 0 || this.#pools[table.pool[page.index] - 1] !== pool) return;
        for (let i = 0; i < ENTRIES; i++) {
          if ((table.high(i) & OWNED_HI) === 0) continue;
          const grp = Math.floor((table.value(i) - 1) / pool.group_slots);
          if (!all.has(grp) && grp < GROUPS_MAX) strays.add(grp);
        }
      },
      () => undefined,
      () => undefined,
    );
    return strays;
  }

  #makeGroup(pool: PoolRow, grp: number): void {
    const sql = 'INSERT INTO slot_group (pool, grp, used, state, bitmap, dirty) VALUES (?, ?, 0, ?, ?, NULL)';
    this.db.prepare(sql).run(pool.id, grp, GROUP_ACTIVE, Buffer.alloc(pool.group_slots / 8));
    this.report.groups++;
  }

  #window(window: SlotWindow): void {
    const { pool, groups, found, extra } = window;
    let shared = false;
    for (const [i, row] of groups.entries()) {
      const bitmap = Buffer.from(row.bitmap);
      const dirty = row.dirty === null ? null : Buffer.from(row.dirty);
      for (let s = 0; s < pool.group_slots; s++) {
        const place = i * pool.group_slots + s;
        this.#bit(bitmap, dirty, s, found[place] > 0);
        const counted = Math.max(0, found[place] - 1);
        const wanted = this.report.inDoubt ? Math.max(extra[place], counted) : counted;
        if (wanted !== extra[place]) this.#slotRef(pool.id, row.grp * pool.group_slots + s, wanted);
        extra[place] = wanted;
        if (wanted > 0) shared = true;
      }
      this.#group(pool, row, bitmap, dirty);
    }
    if (shared) this.#notAlone(window);
  }

  /** A slot becomes used or free. A free one is not known to be zero. */
  #bit(bitmap: Buffer, dirty: Buffer | null, index: number, used: boolean): void {
    const before = bitGet(bitmap, index);
    if (before === used || (before && this.report.inDoubt)) return;
    bitFill(bitmap, index, 1, used);
    if (!used && dirty !== null) bitFill(dirty, index, 1, true);
    if (used) this.report.slotsTaken++;
    else this.report.slotsFreed++;
  }

  #group(pool: PoolRow, row: GroupRow, bitmap: Buffer, dirty: Buffer | null): void {
    const used = bitCount(bitmap);
    if (used === row.used && bitmap.equals(row.bitmap)) return;
    this.report.groups++;
    const sql = 'UPDATE slot_group SET used = ?, bitmap = ?, dirty = ? WHERE pool = ? AND grp = ?';
    this.db.prepare(sql).run(used, bitmap, dirty, pool.id, row.grp);
  }

  #slotRef(pool: number, slot: number, extra: number): void {
    this.report.slotRefs++;
    if (extra === 0) this.db.prepare('DELETE FROM slot_ref WHERE pool = ? AND slot = ?').run(pool, slot);
    else this.db.prepare('INSERT OR REPLACE INTO slot_ref (pool, slot, extra) VALUES (?, ?, ?)').run(pool, slot, extra);
  }

  /** Slots that others have too are not written in place. */
  #notAlone({ pool, groups, extra }: SlotWindow): void {
    const size = pool.group_slots;
    const offsets = new Map(groups.map(({ grp }, i) => [grp, i * size]));
    this.#notInPlace(pool, (slot) => {
      const offset = offsets.get(Math.floor(slot / size));
      return offset !== undefined && extra[offset + (slot % size)] > 0;
    });
  }

  /** Clears EXCLUSIVE of slots that volumes may not write in place. */
  #notInPlace(pool: PoolRow, forbidden: (slot: number) => boolean): void {
    const table = this.#table;
    this.#editPages(
      (page) => {
        if (page.level !== 0 || this.#pools[table.pool[page.index] - 1] !== pool || !inPlace(page, this.#live))
          return null;
        let changed = false;
        for (let i = 0; i < ENTRIES; i++) {
          if ((table.high(i) & EXCLUSIVE_HI) === 0 || !forbidden(table.value(i) - 1)) continue;
          page.entries[i * 2 + 1] = (page.entries[i * 2 + 1] & ~EXCLUSIVE_HI) >>> 0;
          changed = true;
        }
        return changed ? table.mapped[page.index] : null;
      },
      () => undefined,
    );
  }

  #strayReferences(): void {
    const sql = `DELETE FROM slot_ref WHERE extra < 1 OR NOT EXISTS (SELECT 1 FROM pool p JOIN slot_group g ON g.pool = p.id
      WHERE p.id = slot_ref.pool AND g.grp = slot_ref.slot / p.group_slots)`;
    this.report.slotRefs += this.db.prepare(sql).run().changes;
  }

  // ---- sealing

  /** The index names used slots, which nobody writes in place; hashes are of what there is, and whole. */
  #sealing(): void {
    const broken = this.db.prepare('DELETE FROM sealed WHERE length(hash) <> ?').run(HASH_BYTES);
    this.report.seal += broken.changes;
    for (const pool of this.#pools) {
      const gone: number[] = [];
      let grp = -1;
      let bitmap: Buffer | undefined;
      const group = this.db.prepare('SELECT bitmap FROM slot_group WHERE pool = ? AND grp = ?').pluck();
      const slots = this.db.prepare('SELECT slot FROM sealed WHERE pool = ? ORDER BY slot').pluck().iterate(pool.id);
      for (const slot of slots as Iterable<number>) {
        const at = Math.floor(slot / pool.group_slots);
        if (at !== grp) bitmap = group.get(pool.id, at) as Buffer | undefined;
        grp = at;
        if (bitmap === undefined || !bitGet(bitmap, slot - at * pool.group_slots)) gone.push(slot);
      }
      const drop = this.db.prepare('DELETE FROM sealed WHERE pool = ? AND slot = ?');
      for (const slot of gone) this.report.seal += drop.run(pool.id, slot).changes;
      const sql = `UPDATE seal_pool SET entries = (SELECT count(*) FROM sealed s WHERE s.pool = seal_pool.pool)
        WHERE pool = ? AND entries != (SELECT count(*) FROM sealed s WHERE s.pool = seal_pool.pool)`;
      this.report.seal += this.db.prepare(sql).run(pool.id).changes;
      const sealed = this.db.prepare('SELECT 1 FROM sealed WHERE pool = ? AND slot = ?').pluck();
      if (this.db.prepare('SELECT 1 FROM sealed WHERE pool = ? LIMIT 1').pluck().get(pool.id) !== undefined)
        this.#notInPlace(pool, (slot) => sealed.get(pool.id, slot) !== undefined);
    }
    for (const [table, of] of [
      ['page_hash', 'page'],
      ['resource_hash', 'resource'],
    ])
      this.report.seal += this.db.prepare(`DELETE FROM ${table} WHERE id NOT IN (SELECT id FROM ${of})`).run().changes;
  }

  // ---- the rest

  #resourceCounts(): void {
    const table = this.#table;
    const put = this.db.prepare('UPDATE resource SET mapped = ? WHERE id = ?');
    for (const r of this.#resources) {
      const index = r.root === 0 ? -1 : table.indexOf(r.root);
      if (r.root !== 0 && (index < 0 || table.level[index] === LEVEL_UNKNOWN)) continue;
      const mapped = r.root === 0 ? 0 : table.mapped[index];
      if (mapped === r.mapped) continue;
      put.run(mapped, r.id);
      this.report.resources++;
    }
  }

  #meta(): void {
    for (const { key, max } of idBounds(this.db)) {
      const next = Number(this.db.prepare('SELECT value FROM meta WHERE key = ?').pluck().get(key) ?? 1);
      if (next > max) continue;
      this.db.prepare('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)').run(key, max + 1);
      this.report.meta++;
    }
  }
}

/** Repairs a home's store, which nobody else has open for writing. @throws {EngineError} */
export function repairStore(storePath: string, native: Native, onProgress: CheckProgress): RepairReport {
  const db = openWriter(storePath);
  try {
    db.exec('BEGIN IMMEDIATE');
    const report = new Repair(db, native).run(onProgress);
    db.exec('COMMIT');
    db.pragma('wal_checkpoint(TRUNCATE)');
    return report;
  } finally {
    // an open transaction goes back
    db.close();
  }
}
