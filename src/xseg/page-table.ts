/**
 * All map pages of a store in flat arrays, for check and repair: about 32 bytes a page, whatever hangs on it. A page maps
 * up to 512 blocks, so a TiB in blocks of 64 KiB takes one MiB here.
 */
import type { Native } from './native.ts';
import { RELEASE_GHOST, RELEASE_PAGE } from './store/batch.ts';
import type { StoreDatabase } from './store/schema.ts';

export const ENTRIES = 512;
export const OWNED_HI = 0x40000000;
export const EXCLUSIVE_HI = 0x80000000;
/** value of a leaf's entry whose block of zeroes was folded away: no slot, nobody's; reads as an empty one, counts as mapped */
export const ZEROES = 2 ** 48 - 1;
const VALUE_HI = 0xffff;
/** level of a page that nobody could decode */
export const LEVEL_UNKNOWN = 255;
/** Pages between two looks at progress. */
const PROGRESS_EVERY = 256;
/** Missing pages that are listed; all are counted. */
const MISSING_MAX = 1000;
/** Codes of `decodePageTo`. */
const DECODE_ERRORS = ['', 'checksum', 'format', 'version', 'another page'];

/** One page, decoded. The same object and array for every page: copy what you keep. */
export interface PageView {
  id: number;
  /** in the table */
  index: number;
  level: number;
  base: number;
  /** the same as the store's index has it */
  baseColumn: number;
  owner: number;
  generation: number;
  mapped: number;
  /** entries that are not empty, as the header says */
  present: number;
  /** 512 × (low, high) */
  readonly entries: Uint32Array;
}

export class PageTable {
  readonly count: number;
  /** ascending */
  readonly ids: Float64Array;
  readonly level: Uint8Array;
  /** index of the base; −1 none, −2 it does not exist */
  readonly base: Int32Array;
  /** pages that have it as base */
  readonly children: Uint32Array;
  /** owned inner entries, roots and releases that name it */
  readonly parents: Uint32Array;
  readonly mapped: Float64Array;
  /** 1 + index of the pool whose slots it leads to; 0: nothing reaches it */
  readonly pool: Uint16Array;
  /** 1: a release will dissolve it */
  readonly dissolving: Uint8Array;
  /** ids that something names and that do not exist */
  readonly missing = new Set<number>();
  damagedCount = 0;
  readonly view: PageView;
  readonly #header = new Float64Array(8);
  readonly #other = new Float64Array(8);
  readonly #one;

  constructor(
    readonly db: StoreDatabase,
    readonly native: Native,
  ) {
    const n = db.prepare('SELECT count(*) FROM page').pluck().get() as number;
    this.ids = new Float64Array(n);
    this.level = new Uint8Array(n).fill(LEVEL_UNKNOWN);
    this.base = new Int32Array(n).fill(-1);
    this.children = new Uint32Array(n);
    this.parents = new Uint32Array(n);
    this.mapped = new Float64Array(n);
    this.pool = new Uint16Array(n);
    this.dissolving = new Uint8Array(n);
    this.view = {
      ...{ id: 0, index: 0, level: 0, base: 0, baseColumn: 0, owner: 0, generation: 0, mapped: 0, present: 0 },
      entries: new Uint32Array(ENTRIES * 2),
    };
    this.#one = db.prepare('SELECT data FROM page WHERE id = ?').pluck();
    let at = 0;
    const ids = db.prepare('SELECT id FROM page ORDER BY id').pluck().iterate() as Iterable<number>;
    for (const id of ids) this.ids[at++] = id;
    this.count = at;
  }

  /** −1 when there is no such page */
  indexOf(id: number): number {
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const middle = (low + high) >>> 1;
      const found = this.ids[middle];
      if (found === id) return middle;
      if (found < id) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  /** value of an entry of the page in `view` */
  value(i: number): number {
    const { entries } = this.view;
    return entries[i * 2] + (entries[i * 2 + 1] & VALUE_HI) * 2 ** 32;
  }

  /** its flags, in the high word */
  high(i: number): number {
    return this.view.entries[i * 2 + 1];
  }

  /** Something holds a reference on a page. */
  name(id: number): void {
    const index = this.indexOf(id);
    if (index >= 0) this.parents[index]++;
    else this.#miss(id);
  }

  #miss(id: number): void {
    if (this.missing.size < MISSING_MAX) this.missing.add(id);
  }

  /** Every page in turn. `damaged` hears of those that cannot be decoded; `progress` of how many are behind it. */
  scan(
    each: (page: PageView) => void,
    damaged: (index: number, why: string) => void,
    progress: (pages: number) => void,
  ): void {
    let index = 0;
    const rows = this.db.prepare('SELECT id, base, data FROM page ORDER BY id').iterate() as Iterable<{
      id: number;
      base: number | null;
      data: Buffer;
    }>;
    for (const { id, base, data } of rows) {
      if (index % PROGRESS_EVERY === 0) progress(index);
      this.view.baseColumn = base ?? 0;
      const status = this.#decode(id, index, data);
      if (status === 0) each(this.view);
      else damaged(index, DECODE_ERRORS[status] ?? String(status));
      index++;
    }
    progress(this.count);
  }

  /** One page, in `view`; null when it cannot be decoded. */
  read(index: number): PageView | null {
    const data = this.#one.get(this.ids[index]) as Buffer | undefined;
    return data !== undefined && this.#decode(this.ids[index], index, data) === 0 ? this.view : null;
  }

  /** Entries of another page than the one in `view`, which stays. False when it cannot be decoded. */
  entriesOf(index: number, into: Uint32Array): boolean {
    const data = this.#one.get(this.ids[index]) as Buffer | undefined;
    return data !== undefined && this.native.decodePageTo(data, this.ids[index], into, this.#other) === 0;
  }

  /**
   * Blocks that the page in `view` maps: its entries, or what its children map as the table has it. null when a child cannot
   * be read. `child` hears of every child that can.
   */
  blocksBelow(child?: (index: number) => void): number | null {
    let blocks = 0;
    let known = true;
    for (let i = 0; i < ENTRIES; i++) {
      const value = this.value(i);
      if (value === 0) continue;
      const index = this.view.level === 0 ? -1 : this.indexOf(value);
      if (this.view.level === 0) blocks++;
      else if (index < 0 || this.level[index] === LEVEL_UNKNOWN) known = false;
      else {
        blocks += this.mapped[index];
        child?.(index);
      }
    }
    return known ? blocks : null;
  }

  #decode(id: number, index: number, data: Buffer): number {
    const { view } = this;
    const header = this.#header;
    const status = this.native.decodePageTo(data, id, view.entries, header);
    if (status !== 0) return status;
    view.id = id;
    view.index = index;
    view.level = header[0];
    view.base = header[2];
    view.owner = header[3];
    view.generation = header[4];
    view.mapped = header[5];
    view.present = header[6];
    return 0;
  }

  /** Reads every page: levels, bases, and the parents that pages are to each other. `each` sees it too. */
  learn(
    each: (page: PageView) => void,
    damaged: (index: number, why: string) => void,
    progress: (pages: number) => void,
  ): void {
    this.scan(
      (page) => {
        this.level[page.index] = page.level;
        this.mapped[page.index] = page.mapped;
        if (page.base !== 0) this.#learnBase(page.index, page.base);
        if (page.level > 0)
          for (let i = 0; i < ENTRIES; i++) if ((this.high(i) & OWNED_HI) !== 0) this.name(this.value(i));
        each(page);
      },
      (index, why) => {
        this.damagedCount++;
        damaged(index, why);
      },
      progress,
    );
  }

  #learnBase(index: number, id: number): void {
    const base = this.indexOf(id);
    this.base[index] = base < 0 ? -2 : base;
    if (base >= 0) this.children[base]++;
    else this.#miss(id);
  }

  /** Marks all that resources and the queue of releases lead to, and counts them as parents. Behind `learn`. */
  reachAll(poolIndex: (id: number) => number): void {
    const roots = this.db.prepare('SELECT root AS id, pool FROM resource WHERE root != 0').all() as Named[];
    for (const { id, pool } of roots) {
      this.name(id);
      this.#reach(id, poolIndex(pool));
    }
    const rows = this.db.prepare('SELECT kind, id, pool FROM release ORDER BY seq').iterate() as Iterable<
      Named & { kind: number }
    >;
    for (const { kind, id, pool } of rows) {
      if (kind === RELEASE_PAGE) this.name(id);
      else if (kind !== RELEASE_GHOST) continue;
      const index = this.indexOf(id);
      if (kind === RELEASE_GHOST && index >= 0) this.dissolving[index] = 1;
      this.#reach(id, poolIndex(pool));
    }
  }

  #reach(from: number, pool: number): void {
    const stack: number[] = [];
    const visit = (index: number) => {
      if (index < 0 || this.pool[index] !== 0) return;
      this.pool[index] = pool + 1;
      stack.push(index);
    };
    visit(this.indexOf(from));
    for (let index = stack.pop(); index !== undefined; index = stack.pop()) {
      visit(this.base[index]);
      // a leaf leads to no page, and nobody knows where a damaged one led
      if (this.level[index] === 0 || this.level[index] === LEVEL_UNKNOWN || this.read(index) === null) continue;
      for (let i = 0; i < ENTRIES; i++) {
        const child = this.value(i);
        if (child !== 0) visit(this.indexOf(child));
      }
    }
  }
}

interface Named {
  id: number;
  pool: number;
}
