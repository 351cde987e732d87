/**
 * References of slots, counted for check and repair: as many slots at a time as WINDOW_SLOTS, with one reading of all pages
 * for each, so that the memory it takes does not grow with the pool.
 */
import { ENTRIES, EXCLUSIVE_HI, OWNED_HI, type PageTable, type PageView } from './page-table.ts';
import { type PoolRow, RELEASE_SLOT } from './store/batch.ts';
import type { StoreDatabase } from './store/schema.ts';

/** 8 bytes each: 64 MiB, and half a TiB in blocks of 64 KiB at once. */
export const WINDOW_SLOTS = 8 * 1024 * 1024;
const STRAYS_MAX = 1000;

export interface GroupRow {
  grp: number;
  used: number;
  state: number;
  bitmap: Buffer;
  dirty: Buffer | null;
}

/** Some groups of one pool, with what is counted for their slots. */
export interface SlotWindow {
  pool: PoolRow;
  /** ascending */
  groups: GroupRow[];
  /** references found: owned leaf entries and releases; group after group */
  found: Uint32Array;
  /** references that `slot_ref` counts beyond the first */
  extra: Uint32Array;
  /** entries that may be written in place although `slot_ref` counts others */
  notAlone: { page: number; slot: number }[];
  /** groups that entries name and that have no row; in a pool's first window, as many as STRAYS_MAX */
  strays: Set<number>;
}

/** Generation of a live volume, by id: pages of its own of that generation are written in place. */
export type Live = ReadonlyMap<number, number>;

export function inPlace(page: PageView, live: Live): boolean {
  return live.get(page.owner) === page.generation;
}

export class SlotWindows {
  constructor(
    readonly db: StoreDatabase,
    readonly table: PageTable,
    readonly pools: readonly PoolRow[],
    readonly live: Live,
    readonly windowSlots = WINDOW_SLOTS,
  ) {}

  /** Number of windows, each of which reads all pages. */
  get count(): number {
    let windows = 0;
    for (const pool of this.pools)
      windows += Math.max(1, Math.ceil(this.#groupsOf(pool).length / this.#perWindow(pool)));
    return windows;
  }

  #perWindow(pool: PoolRow): number {
    return Math.max(1, Math.floor(this.windowSlots / pool.group_slots));
  }

  #groupsOf(pool: PoolRow): number[] {
    const sql = 'SELECT grp FROM slot_group WHERE pool = ? ORDER BY grp';
    return this.db.prepare(sql).pluck().all(pool.id) as number[];
  }

  /** All windows in turn, an empty one for a pool without groups. The arrays are used again for the next. */
  each(see: (window: SlotWindow) => void, progress: (pages: number) => void): void {
    let found = new Uint32Array(0);
    let extra = new Uint32Array(0);
    let behind = 0;
    for (const [index, pool] of this.pools.entries()) {
      const numbers = this.#groupsOf(pool);
      const step = this.#perWindow(pool);
      for (let at = 0; at < Math.max(1, numbers.length); at += step) {
        const groups = numbers.slice(at, at + step).map((grp) => this.#row(pool.id, grp));
        if (found.length < groups.length * pool.group_slots) {
          found = new Uint32Array(groups.length * pool.group_slots);
          extra = new Uint32Array(found.length);
        }
        const window = { pool, groups, found: found.fill(0), extra: extra.fill(0), notAlone: [], strays: new Set() };
        this.#fill(window as SlotWindow, index, at === 0 ? new Set(numbers) : null, (pages) =>
          progress(behind + pages),
        );
        behind += this.table.count;
        see(window as SlotWindow);
      }
    }
  }

  #row(pool: number, grp: number): GroupRow {
    const sql = 'SELECT grp, used, state, bitmap, dirty FROM slot_group WHERE pool = ? AND grp = ?';
    return this.db.prepare(sql).get(pool, grp) as GroupRow;
  }

  /** @param all every group of the pool, when strays are looked for */
  #fill(window: SlotWindow, poolIndex: number, all: Set<number> | null, progress: (pages: number) => void): void {
    const { pool, groups, found, extra, strays } = window;
    const size = pool.group_slots;
    const offsets = new Map(groups.map(({ grp }, i) => [grp, i * size]));
    /** place of a slot in the window, −1 outside */
    const placeOf = (slot: number): number => {
      const grp = Math.floor(slot / size);
      const offset = offsets.get(grp);
      if (offset !== undefined) return offset + (slot - grp * size);
      if (all !== null && !all.has(grp) && strays.size < STRAYS_MAX) strays.add(grp);
      return -1;
    };
    if (groups.length > 0) {
      const extras = this.db
        .prepare('SELECT slot, extra FROM slot_ref WHERE pool = ? AND slot >= ? AND slot < ?')
        .iterate(pool.id, groups[0].grp * size, (groups[groups.length - 1].grp + 1) * size);
      for (const row of extras as Iterable<{ slot: number; extra: number }>) {
        const place = placeOf(row.slot);
        if (place >= 0) extra[place] = Math.max(0, row.extra);
      }
    }
    const pending = this.db.prepare('SELECT id FROM release WHERE kind = ? AND pool = ?').pluck();
    for (const slot of pending.iterate(RELEASE_SLOT, pool.id) as Iterable<number>) {
      const place = placeOf(slot);
      if (place >= 0) found[place]++;
    }
    this.table.scan(
      (page) => {
        if (page.level !== 0 || this.table.pool[page.index] !== poolIndex + 1) return;
        const own = inPlace(page, this.live);
        for (let i = 0; i < ENTRIES; i++) {
          const high = this.table.high(i);
          if ((high & OWNED_HI) === 0) continue;
          const slot = this.table.value(i) - 1;
          const place = placeOf(slot);
          if (place < 0) continue;
          found[place]++;
          if (own && (high & EXCLUSIVE_HI) !== 0 && extra[place] > 0) window.notAlone.push({ page: page.id, slot });
        }
      },
      () => undefined,
      progress,
    );
  }
}
