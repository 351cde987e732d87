/**
 * `atoll check`: proves the invariants at the end of docs/format.md on one consistent view of the store. Reads only; runs
 * beside a serving daemon (SQLite's snapshot isolation) or on a home that nobody serves. Memory: what `PageTable` takes,
 * and one window of slots.
 */
import { SealCheck } from './check-seal.ts';
import type { Native } from './native.ts';
import { ENTRIES, EXCLUSIVE_HI, LEVEL_UNKNOWN, OWNED_HI, PageTable, type PageView, ZEROES } from './page-table.ts';
import { type Live, type SlotWindow, SlotWindows } from './slot-windows.ts';
import {
  KIND_INGEST,
  KIND_SNAPSHOT,
  KIND_VOLUME,
  type PoolRow,
  RELEASE_GHOST,
  RELEASE_PAGE,
  RELEASE_SLOT,
  type ResourceRow,
} from './store/batch.ts';
import { bitCount, bitGet } from './store/bitmap.ts';
import { APPLICATION_ID, openReader, type StoreDatabase } from './store/schema.ts';
import { fileProblems } from './store/soundness.ts';
import { FORMAT_OLDEST, FORMAT_VERSION } from './store/upgrade.ts';
import { type CheckReport, EngineError } from './types.ts';

/** Problems listed; all are counted. */
export const PROBLEMS_MAX = 100;
/** …of them what SQLite finds. */
const FILE_PROBLEMS_MAX = 10;
/** Problems whose resources are looked for: each takes a walk through all maps. */
const WHOSE_MAX = 20;

export type CheckProgress = (done: number, total: number) => void;

export class Check {
  readonly #problems: CheckReport['problems'] = [];
  #problemCount = 0;
  #slots = 0;
  #whoseLeft = WHOSE_MAX;
  readonly #baseEntries = new Uint32Array(ENTRIES * 2);
  readonly #table: PageTable;
  readonly #pools: PoolRow[];
  readonly #resources: ResourceRow[];
  readonly #live: Live;

  constructor(
    readonly db: StoreDatabase,
    native: Native,
    readonly windowSlots?: number,
  ) {
    this.#pools = db.prepare('SELECT * FROM pool ORDER BY id').all() as PoolRow[];
    this.#resources = db.prepare('SELECT * FROM resource').all() as ResourceRow[];
    this.#live = liveVolumes(this.#resources);
    this.#table = new PageTable(db, native);
  }

  /** In the view that the caller opened (a transaction). */
  run(onProgress: CheckProgress): CheckReport {
    const started = performance.now();
    this.#integrity();
    const table = this.#table;
    const windows = new SlotWindows(this.db, table, this.#pools, this.#live, this.windowSlots);
    const total = table.count * (1 + windows.count);
    table.learn(
      (page) => this.#page(page),
      (index, why) => this.#problem('PAGE', `map page ${table.ids[index]} is damaged (${why})`),
      (pages) => onProgress(pages, total),
    );
    table.reachAll((id) => this.#pools.findIndex((pool) => pool.id === id));
    this.#pageReferences();
    this.#innerPages();
    this.#sealing();
    windows.each(
      (window) => this.#window(window),
      (pages) => onProgress(table.count + pages, total),
    );
    this.#strayReferences();
    this.#releases();
    this.#checkResources();
    this.#meta();
    return {
      ok: this.#problemCount === 0,
      pages: table.count,
      slots: this.#slots,
      resources: this.#resources.length,
      problems: this.#problems,
      problemCount: this.#problemCount,
      seconds: (performance.now() - started) / 1000,
    };
  }

  #problem(code: string, message: string, resource?: string): void {
    this.#problemCount++;
    if (this.#problems.length < PROBLEMS_MAX)
      this.#problems.push(resource === undefined ? { code, message } : { code, message, resource });
  }

  /** What a page that cannot be read holds is not known: fewer references than counted are expected then. */
  get #inDoubt(): boolean {
    return this.#table.damagedCount > 0 || this.#table.missing.size > 0;
  }

  #integrity(): void {
    const version = this.db.pragma('user_version', { simple: true });
    if (version !== FORMAT_VERSION) this.#problem('FORMAT', `format ${String(version)}, wanted ${FORMAT_VERSION}`);
    for (const told of fileProblems(this.db, FILE_PROBLEMS_MAX)) this.#problem('STORE', told);
  }

  // ---- pages

  /** What one page says of itself and of its base. */
  #page(page: PageView): void {
    const { id } = page;
    const table = this.#table;
    if (page.baseColumn !== page.base)
      this.#problem('PAGE', `map page ${id}: base column ${page.baseColumn}, header ${page.base}`);
    if (page.base >= id) this.#problem('PAGE', `map page ${id} has base ${page.base}, which is not older`);
    let present = 0;
    let borrowed = 0;
    for (let i = 0; i < ENTRIES; i++) {
      if (table.value(i) === 0) continue;
      present++;
      const owned = (table.high(i) & OWNED_HI) !== 0;
      if (page.level === 0 && table.value(i) === ZEROES) {
        if (owned) this.#problem('PAGE', `map page ${id} entry ${i} is of zeroes and owned`);
      } else if (!owned) borrowed++;
      if ((table.high(i) & EXCLUSIVE_HI) !== 0 && !owned)
        this.#problem('PAGE', `map page ${id} entry ${i} is exclusive but not owned`);
    }
    if (page.level === 0 && present !== page.mapped)
      this.#problem('MAPPED', `map page ${id} says ${page.mapped} blocks, has ${present}`);
    if (borrowed > 0) this.#borrowed(page, borrowed);
  }

  /** A borrowed entry is its base's; what the base borrows is checked at the base. */
  #borrowed(page: PageView, borrowed: number): void {
    const table = this.#table;
    const base = page.base === 0 ? -1 : table.indexOf(page.base);
    if (page.base === 0) {
      this.#problem('BORROWED', `map page ${page.id} borrows ${borrowed} entries without a base`);
      return;
    }
    // that it is missing or damaged is told elsewhere
    if (base < 0 || !table.entriesOf(base, this.#baseEntries)) return;
    for (let i = 0; i < ENTRIES; i++) {
      if (table.value(i) === 0 || (table.high(i) & OWNED_HI) !== 0) continue;
      if (page.level === 0 && table.value(i) === ZEROES) continue;
      const theirs = this.#baseEntries[i * 2] + (this.#baseEntries[i * 2 + 1] & 0xffff) * 2 ** 32;
      if (theirs !== table.value(i))
        this.#problem('BORROWED', `map page ${page.id} borrows entry ${i}, which page ${page.base} does not have`);
    }
  }

  #pageReferences(): void {
    const table = this.#table;
    const counted = new Uint8Array(table.count);
    for (const id of table.missing)
      this.#problem('PAGE', `map page ${id} is named and does not exist`, this.#whose(id));
    const rows = this.db.prepare('SELECT id, extra FROM page_ref').iterate() as Iterable<{ id: number; extra: number }>;
    for (const { id, extra } of rows) {
      const index = table.indexOf(id);
      if (index < 0) {
        if (!table.missing.has(id))
          this.#problem('PAGE_REFS', `references are counted for page ${id}, which does not exist`);
        continue;
      }
      counted[index] = 1;
      this.#parentsOf(index, 1 + extra);
    }
    for (let index = 0; index < table.count; index++) {
      if (counted[index] === 0) this.#parentsOf(index, 1);
      if (table.pool[index] === 0 && !this.#inDoubt)
        this.#problem('UNREACHABLE', `map page ${table.ids[index]} is reached by nothing`);
      if (table.parents[index] === 0 && table.children[index] > 0 && table.dissolving[index] === 0 && !this.#inDoubt)
        this.#problem('GHOST', `map page ${table.ids[index]} has no parent and nothing will dissolve it`);
      if (table.level[index] === LEVEL_UNKNOWN) {
        const names = this.#whose(table.ids[index]);
        if (names !== undefined)
          this.#problem('DAMAGED', `reads of what map page ${table.ids[index]} covers answer EIO`, names);
      }
    }
  }

  #parentsOf(index: number, wanted: number): void {
    const { parents, ids } = this.#table;
    const found = parents[index];
    if (this.#inDoubt ? found <= wanted : found === wanted) return;
    const message = `map page ${ids[index]} has ${found} parents, counted ${wanted}`;
    this.#problem('PAGE_REFS', message, this.#whose(ids[index]));
  }

  /** `mapped` of inner pages is the sum of their children's, who are one level below. */
  #innerPages(): void {
    const table = this.#table;
    for (let index = 0; index < table.count; index++) {
      if (table.level[index] === 0 || table.level[index] === LEVEL_UNKNOWN) continue;
      const page = table.read(index);
      if (page === null) continue;
      const blocks = table.blocksBelow((child) => {
        const { ids, level } = table;
        if (level[child] !== page.level - 1)
          this.#problem(
            'PAGE',
            `map page ${ids[child]} of level ${level[child]} below ${page.id} of level ${page.level}`,
          );
      });
      if (blocks !== null && blocks !== page.mapped)
        this.#problem('MAPPED', `map page ${page.id} says ${page.mapped} blocks, has ${blocks}`);
    }
  }

  /** Names of resources whose map reaches a page (walks from their roots; only for pages with problems). */
  #whose(wanted: number): string | undefined {
    if (this.#whoseLeft <= 0) return undefined;
    this.#whoseLeft--;
    const table = this.#table;
    const names: string[] = [];
    // pages are walked once for all that is not found below them: sharing makes maps far larger than what they are made of
    const without = new Set<number>();
    const reaches = (id: number): boolean => {
      if (id === wanted) return true;
      const index = table.indexOf(id);
      if (index < 0 || without.has(index)) return false;
      if (table.level[index] !== 0 && table.level[index] !== LEVEL_UNKNOWN && table.read(index) !== null) {
        const children: number[] = [];
        for (let i = 0; i < ENTRIES; i++) if (table.value(i) !== 0) children.push(table.value(i));
        if (children.some(reaches)) return true;
      }
      without.add(index);
      return false;
    };
    for (const r of this.#resources) if (r.root !== 0 && reaches(r.root)) names.push(this.#nameOf(r));
    return names.length === 0 ? undefined : names.join(', ');
  }

  /** Which of the pages some resource's map reaches. */
  #reached(wanted: ReadonlyMap<number, unknown>): Set<number> {
    const table = this.#table;
    const found = new Set<number>();
    const seen = new Uint8Array(table.count);
    const next = this.#resources.map((r) => r.root);
    for (let id = next.pop(); id !== undefined && found.size < wanted.size; id = next.pop()) {
      const index = table.indexOf(id);
      if (index < 0 || seen[index]) continue;
      seen[index] = 1;
      if (wanted.has(id)) found.add(id);
      if (table.level[index] === 0 || table.level[index] === LEVEL_UNKNOWN || table.read(index) === null) continue;
      for (let i = 0; i < ENTRIES; i++) if (table.value(i) !== 0) next.push(table.value(i));
    }
    return found;
  }

  // ---- sealing

  #sealing(): void {
    const table = this.#table;
    const seal = new SealCheck(this.db, (...problem) => this.#problem(...problem), this.#resources);
    const header = new Float64Array(8);
    if (this.db.prepare('SELECT 1 FROM sealed LIMIT 1').get() !== undefined)
      table.scan(
        (page) => {
          const pool = this.#pools[table.pool[page.index] - 1];
          if (page.level !== 0 || pool === undefined) return;
          header.set([page.level, page.id, page.base, page.owner, page.generation, page.mapped]);
          seal.leaf(header, page.entries, pool);
        },
        () => undefined,
        () => undefined,
      );
    seal.finish(
      this.#pools,
      (pages) => this.#reached(pages),
      (page) => this.#whose(page),
    );
  }

  // ---- slots

  #window(window: SlotWindow): void {
    const { pool, groups } = window;
    for (const grp of window.strays)
      this.#problem('SLOTS', `slots of group ${grp} of pool ${pool.name} are named; the group does not exist`);
    for (const { page, slot } of window.notAlone)
      this.#problem(
        'EXCLUSIVE',
        `map page ${page} may write slot ${slot} of pool ${pool.name} in place; others have it`,
      );
    for (const [i, row] of groups.entries()) {
      const used = bitCount(row.bitmap);
      if (used !== row.used)
        this.#problem('SLOTS', `group ${row.grp} of pool ${pool.name} says ${row.used} used, its bitmap ${used}`);
      this.#slots += used;
      for (let s = 0; s < pool.group_slots; s++) this.#slot(window, i * pool.group_slots + s, row.grp, s, row.bitmap);
    }
  }

  #slot({ pool, found, extra }: SlotWindow, place: number, grp: number, index: number, bitmap: Uint8Array): void {
    const used = bitGet(bitmap, index);
    const wanted = (used ? 1 : 0) + extra[place];
    if (found[place] === wanted || (this.#inDoubt && found[place] < wanted)) return;
    const name = `slot ${grp * pool.group_slots + index} of pool ${pool.name}`;
    if (!used && found[place] > 0) this.#problem('SLOTS', `${name} is named by ${found[place]} entries and free`);
    else if (found[place] === 0 && used) this.#problem('LEAK', `${name} is used and named by nothing`);
    else this.#problem('SLOT_REFS', `${name} has ${found[place]} references, counted ${wanted}`);
  }

  /** Counts for slots of groups or pools that do not exist, and counts that cannot be. */
  #strayReferences(): void {
    const known = new Map(this.#pools.map((pool) => [pool.id, pool]));
    const groups = new Map<number, Set<number>>();
    for (const pool of this.#pools) {
      const sql = 'SELECT grp FROM slot_group WHERE pool = ?';
      groups.set(pool.id, new Set(this.db.prepare(sql).pluck().all(pool.id) as number[]));
    }
    const rows = this.db.prepare('SELECT pool, slot, extra FROM slot_ref').iterate() as Iterable<{
      pool: number;
      slot: number;
      extra: number;
    }>;
    for (const row of rows) {
      const pool = known.get(row.pool);
      if (pool === undefined || !groups.get(row.pool)?.has(Math.floor(row.slot / pool.group_slots)))
        this.#problem(
          'SLOT_REFS',
          `references are counted for slot ${row.slot} of pool ${row.pool}, which has no group`,
        );
      else if (row.extra < 1) this.#problem('SLOT_REFS', `slot ${row.slot} of pool ${row.pool} has extra ${row.extra}`);
    }
  }

  // ---- the rest

  #releases(): void {
    const kinds = [RELEASE_PAGE, RELEASE_GHOST, RELEASE_SLOT].join(', ');
    const unknown = this.db
      .prepare(`SELECT count(*) FROM release WHERE kind NOT IN (${kinds})`)
      .pluck()
      .get() as number;
    if (unknown > 0) this.#problem('RELEASE', `${unknown} rows of the queue of releases are of no known kind`);
  }

  #checkResources(): void {
    const table = this.#table;
    const ids = new Set(this.#resources.map((r) => r.id));
    for (const r of this.#resources) {
      const name = this.#nameOf(r);
      if (r.kind === KIND_SNAPSHOT && !ids.has(r.volume)) this.#problem('RESOURCE', `snapshot ${r.name} has no volume`);
      if (!this.#pools.some((pool) => pool.id === r.pool)) this.#problem('RESOURCE', `its pool does not exist`, name);
      const index = r.root === 0 ? -1 : table.indexOf(r.root);
      const level = index < 0 ? LEVEL_UNKNOWN : table.level[index];
      if (level !== LEVEL_UNKNOWN && level !== r.height)
        this.#problem('RESOURCE', `root has level ${level}, height is ${r.height}`, name);
      const mapped = r.root === 0 ? 0 : level === LEVEL_UNKNOWN ? r.mapped : table.mapped[index];
      if (mapped !== r.mapped) this.#problem('RESOURCE', `record says ${r.mapped} blocks, map ${mapped}`, name);
    }
  }

  /** Ids are given out once: the next ones are behind all that there are. */
  #meta(): void {
    for (const { key, max } of idBounds(this.db)) {
      const next = Number(this.db.prepare('SELECT value FROM meta WHERE key = ?').pluck().get(key) ?? 1);
      if (next <= max) this.#problem('META', `${key} is ${next}, and ${max} is in use`);
    }
  }

  #nameOf(r: ResourceRow): string {
    if (r.kind === KIND_INGEST) return `ingest ${r.id}`;
    if (r.kind === KIND_VOLUME) return r.name;
    return `${this.#resources.find((v) => v.id === r.volume)?.name ?? '?'}@${r.name}`;
  }
}

/** Generations of the volumes: pages of their own of that generation are written in place. */
export function liveVolumes(resources: readonly ResourceRow[]): Live {
  return new Map(resources.filter((r) => r.kind === KIND_VOLUME).map((r) => [r.id, r.generation]));
}

/** The upper bounds in `meta`, with the largest id of each that is in use. */
export function idBounds(db: StoreDatabase): { key: string; max: number }[] {
  const max = (sql: string) => (db.prepare(sql).pluck().get() as number | null) ?? 0;
  return [
    { key: 'next_page', max: max('SELECT max(id) FROM page') },
    { key: 'next_resource', max: max('SELECT max(id) FROM resource') },
    { key: 'next_release', max: max('SELECT max(seq) FROM release') },
  ];
}

/** Checks a home's store. */
export function checkStore(storePath: string, native: Native, onProgress: CheckProgress): CheckReport {
  const db = openReader(storePath);
  try {
    if (db.pragma('application_id', { simple: true }) !== APPLICATION_ID)
      throw new EngineError('NOT_OURS', `${storePath} is not an Atoll store`);
    const version = db.pragma('user_version', { simple: true }) as number;
    if (version > FORMAT_VERSION)
      throw new EngineError('FORMAT_NEWER', `${storePath} has format ${version}, this Atoll knows ${FORMAT_VERSION}`);
    if (version >= FORMAT_OLDEST && version < FORMAT_VERSION) {
      const text = `has format ${version}; \`atoll serve\` upgrades it to ${FORMAT_VERSION}, and it is checked after that`;
      throw new EngineError('UNSUPPORTED', `${storePath} ${text}`);
    }
    db.exec('BEGIN');
    try {
      return new Check(db, native).run(onProgress);
    } finally {
      db.exec('COMMIT');
    }
  } finally {
    db.close();
  }
}
