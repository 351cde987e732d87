/**
 * `atoll check`: proves the invariants at the end of docs/format.md on one consistent view of the store. Reads only; runs
 * beside a serving daemon (SQLite's snapshot isolation) or on a home that nobody serves.
 */
import { SealCheck } from './check-seal.ts';
import type { Native } from './native.ts';
import { KIND_VOLUME, type PoolRow, RELEASE_GHOST, RELEASE_PAGE, type ResourceRow } from './store/batch.ts';
import { bitCount, bitGet } from './store/bitmap.ts';
import { openReader, type StoreDatabase } from './store/schema.ts';
import { FORMAT_VERSION } from './store/upgrade.ts';
import type { CheckReport } from './types.ts';

/** Problems listed; all are counted. */
export const PROBLEMS_MAX = 100;
const OWNED_HI = 0x40000000;
const EXCLUSIVE_HI = 0x80000000;
const ENTRIES = 512;
/** Pages between two progress calls. */
const PROGRESS_EVERY = 256;

interface PageFacts {
  level: number;
  base: number;
  mapped: number;
  /** blocks counted: leaves by entries, inner pages by their children's `mapped` */
  counted: number;
  parents: number;
  children: number;
  damaged: boolean;
}

export class Check {
  readonly #problems: CheckReport['problems'] = [];
  #problemCount = 0;
  readonly #pages = new Map<number, PageFacts>();
  /** slot use: pool → group → references counted per slot (255 saturates into #many) */
  readonly #uses = new Map<number, Map<number, Uint8Array>>();
  readonly #many = new Map<string, number>();
  readonly #damaged = new Set<number>();
  readonly #poolOfPage = new Map<number, number>();
  /** pages that wait to be dissolved: one whose last child died is reached by that alone */
  readonly #ghosts = new Set<number>();
  #slots = 0;
  #seal!: SealCheck;

  constructor(
    readonly db: StoreDatabase,
    readonly native: Native,
  ) {}

  run(onProgress: (done: number, total: number) => void): CheckReport {
    const started = performance.now();
    this.db.exec('BEGIN');
    try {
      this.#integrity();
      const pools = this.db.prepare('SELECT * FROM pool').all() as PoolRow[];
      const resources = this.db.prepare('SELECT * FROM resource').all() as ResourceRow[];
      this.#seal = new SealCheck(this.db, (...problem) => this.#problem(...problem), resources);
      this.#rootsAndQueue(resources);
      this.#readPages(pools, onProgress);
      this.#checkPages(resources);
      this.#checkSlots(pools);
      this.#seal.finish(pools, (page) => this.#whose(page, resources));
      this.#checkResources(resources);
      return {
        ok: this.#problemCount === 0,
        pages: this.#pages.size,
        slots: this.#slots,
        resources: resources.length,
        problems: this.#problems,
        problemCount: this.#problemCount,
        seconds: (performance.now() - started) / 1000,
      };
    } finally {
      this.db.exec('COMMIT');
    }
  }

  #problem(code: string, message: string, resource?: string): void {
    this.#problemCount++;
    if (this.#problems.length < PROBLEMS_MAX)
      this.#problems.push(resource === undefined ? { code, message } : { code, message, resource });
  }

  #integrity(): void {
    const version = this.db.pragma('user_version', { simple: true });
    if (version !== FORMAT_VERSION) this.#problem('FORMAT', `format ${String(version)}, wanted ${FORMAT_VERSION}`);
    const rows = this.db.pragma('quick_check(10)') as { quick_check: string }[];
    for (const row of rows) if (row.quick_check !== 'ok') this.#problem('STORE', row.quick_check);
  }

  #facts(id: number): PageFacts {
    let facts = this.#pages.get(id);
    if (facts === undefined) {
      facts = { level: -1, base: 0, mapped: 0, counted: 0, parents: 0, children: 0, damaged: false };
      this.#pages.set(id, facts);
    }
    return facts;
  }

  #rootsAndQueue(resources: ResourceRow[]): void {
    for (const r of resources) if (r.root !== 0) this.#facts(r.root).parents++;
    for (const row of this.db.prepare('SELECT kind, id FROM release').iterate() as Iterable<{
      kind: number;
      id: number;
    }>) {
      if (row.kind === RELEASE_PAGE) this.#facts(row.id).parents++;
      else if (row.kind === RELEASE_GHOST) this.#ghosts.add(row.id);
    }
  }

  #readPages(pools: PoolRow[], onProgress: (done: number, total: number) => void): void {
    const total = (this.db.prepare('SELECT count(*) AS n FROM page').get() as { n: number }).n;
    const entries = new Uint32Array(ENTRIES * 2);
    const header = new Float64Array(8);
    let done = 0;
    this.#spreadPools();
    const onlyPool = pools.length === 1 ? pools[0] : undefined;
    for (const row of this.db.prepare('SELECT id, base, data FROM page').iterate() as Iterable<{
      id: number;
      base: number | null;
      data: Buffer;
    }>) {
      if (done++ % PROGRESS_EVERY === 0) onProgress(done, total);
      const facts = this.#facts(row.id);
      const status = this.native.decodePageTo(row.data, row.id, entries, header);
      if (status !== 0) {
        facts.level = row.data.length > 3 ? row.data[3] : 0;
        facts.damaged = true;
        facts.base = row.base ?? 0;
        this.#damaged.add(row.id);
        this.#problem(
          'PAGE',
          `map page ${row.id} is damaged (${['', 'checksum', 'format', 'version', 'another page'][status] ?? status})`,
        );
      } else {
        facts.level = header[0];
        facts.base = header[2];
        facts.mapped = header[5];
        if ((row.base ?? 0) !== header[2])
          this.#problem('PAGE', `map page ${row.id}: base column ${row.base ?? 0}, header ${header[2]}`);
        const pool = onlyPool ?? pools.find((p) => p.id === this.#poolOfPage.get(row.id));
        this.#entries(row.id, facts, entries, pool);
        if (facts.level === 0 && pool !== undefined) this.#seal.leaf(header, entries, pool);
      }
      if (facts.base !== 0) this.#facts(facts.base).children++;
    }
    onProgress(total, total);
  }

  /** Which pool a page's slots are in, when there are several: from the roots down. */
  #spreadPools(): void {
    const pools = (this.db.prepare('SELECT count(*) AS n FROM pool').get() as { n: number }).n;
    if (pools < 2) return;
    const page = this.db.prepare('SELECT base, data FROM page WHERE id = ?');
    const stack: [number, number][] = [];
    for (const r of this.db.prepare('SELECT root, pool FROM resource WHERE root != 0').iterate() as Iterable<{
      root: number;
      pool: number;
    }>)
      stack.push([r.root, r.pool]);
    for (const r of this.db.prepare('SELECT id, pool FROM release WHERE kind != 3').iterate() as Iterable<{
      id: number;
      pool: number;
    }>)
      stack.push([r.id, r.pool]);
    const entries = new Uint32Array(ENTRIES * 2);
    const header = new Float64Array(8);
    for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
      const [id, pool] = next;
      if (this.#poolOfPage.has(id)) continue;
      this.#poolOfPage.set(id, pool);
      const row = page.get(id) as { base: number | null; data: Buffer } | undefined;
      if (row === undefined || this.native.decodePageTo(row.data, id, entries, header) !== 0) continue;
      if (header[2] !== 0) stack.push([header[2], pool]);
      if (header[0] === 0) continue;
      for (let i = 0; i < ENTRIES; i++) {
        const value = entries[i * 2] + (entries[i * 2 + 1] & 0xffff) * 2 ** 32;
        if (value !== 0) stack.push([value, pool]);
      }
    }
  }

  #entries(id: number, facts: PageFacts, entries: Uint32Array, pool: PoolRow | undefined): void {
    for (let i = 0; i < ENTRIES; i++) {
      const lo = entries[i * 2];
      const hi = entries[i * 2 + 1];
      const value = lo + (hi & 0xffff) * 2 ** 32;
      if (value === 0) continue;
      const owned = (hi & OWNED_HI) !== 0;
      if (facts.level === 0) facts.counted++;
      if ((hi & EXCLUSIVE_HI) !== 0 && !owned)
        this.#problem('PAGE', `map page ${id} entry ${i} is exclusive but not owned`);
      if (!owned && facts.base === 0) this.#problem('PAGE', `map page ${id} entry ${i} borrows without a base`);
      if (!owned) continue;
      if (facts.level > 0) this.#facts(value).parents++;
      else if (pool !== undefined) this.#use(pool, value - 1);
    }
  }

  #use(pool: PoolRow, slot: number): void {
    const grp = Math.floor(slot / pool.group_slots);
    let groups = this.#uses.get(pool.id);
    if (groups === undefined) {
      groups = new Map();
      this.#uses.set(pool.id, groups);
    }
    let uses = groups.get(grp);
    if (uses === undefined) {
      uses = new Uint8Array(pool.group_slots);
      groups.set(grp, uses);
    }
    const index = slot - grp * pool.group_slots;
    if (uses[index] === 255) this.#many.set(`${pool.id}/${slot}`, (this.#many.get(`${pool.id}/${slot}`) ?? 255) + 1);
    else uses[index]++;
  }

  #checkPages(resources: ResourceRow[]): void {
    const extras = new Map<number, number>();
    for (const row of this.db.prepare('SELECT id, extra FROM page_ref').iterate() as Iterable<{
      id: number;
      extra: number;
    }>)
      extras.set(row.id, row.extra);
    for (const [id, facts] of this.#pages) {
      if (facts.level < 0) {
        this.#problem('PAGE', `map page ${id} is named and does not exist`, this.#whose(id, resources));
        continue;
      }
      const wanted = 1 + (extras.get(id) ?? 0);
      extras.delete(id);
      // what a damaged page owns cannot be counted: fewer references than counted are then expected
      const exact = this.#damaged.size === 0 ? facts.parents === wanted : facts.parents <= wanted;
      if (!exact)
        this.#problem(
          'PAGE_REFS',
          `map page ${id} has ${facts.parents} parents, counted ${wanted}`,
          this.#whose(id, resources),
        );
      if (facts.parents === 0 && facts.children === 0 && !this.#ghosts.has(id) && this.#damaged.size === 0)
        this.#problem('UNREACHABLE', `map page ${id} is reached by nothing`);
    }
    for (const id of extras.keys())
      this.#problem('PAGE_REFS', `references are counted for page ${id}, which does not exist`);
    this.#checkMapped();
    for (const id of this.#damaged) {
      const names = this.#whose(id, resources);
      if (names !== undefined) this.#problem('DAMAGED', `reads of what map page ${id} covers answer EIO`, names);
    }
  }

  /** `mapped` of inner pages is the sum of their children's. */
  #checkMapped(): void {
    const entries = new Uint32Array(ENTRIES * 2);
    const header = new Float64Array(8);
    const page = this.db.prepare('SELECT data FROM page WHERE id = ?').pluck();
    for (const [id, facts] of this.#pages) {
      if (facts.damaged || facts.level < 0) continue;
      if (facts.level > 0) {
        if (this.native.decodePageTo(page.get(id) as Buffer, id, entries, header) !== 0) continue;
        for (let i = 0; i < ENTRIES; i++) {
          const value = entries[i * 2] + (entries[i * 2 + 1] & 0xffff) * 2 ** 32;
          const child = value === 0 ? undefined : this.#pages.get(value);
          if (child === undefined) continue;
          facts.counted += child.mapped;
          if (!child.damaged && child.level !== facts.level - 1)
            this.#problem('PAGE', `map page ${value} of level ${child.level} below ${id} of level ${facts.level}`);
        }
      }
      if (facts.counted !== facts.mapped && this.#damaged.size === 0)
        this.#problem('MAPPED', `map page ${id} says ${facts.mapped} blocks, has ${facts.counted}`);
    }
  }

  /** Names of resources whose map reaches a page (walks from their roots; only for pages with problems). */
  #whose(wanted: number, resources: ResourceRow[]): string | undefined {
    const entries = new Uint32Array(ENTRIES * 2);
    const header = new Float64Array(8);
    const page = this.db.prepare('SELECT data FROM page WHERE id = ?').pluck();
    const reaches = (id: number, seen: Set<number>): boolean => {
      if (id === wanted) return true;
      if (id === 0 || seen.has(id)) return false;
      seen.add(id);
      const blob = page.get(id) as Buffer | undefined;
      if (blob === undefined || this.native.decodePageTo(blob, id, entries, header) !== 0 || header[0] === 0)
        return false;
      const children: number[] = [];
      for (let i = 0; i < ENTRIES; i++) {
        const value = entries[i * 2] + (entries[i * 2 + 1] & 0xffff) * 2 ** 32;
        if (value !== 0) children.push(value);
      }
      return children.some((child) => reaches(child, seen));
    };
    const names: string[] = [];
    for (const r of resources) if (reaches(r.root, new Set())) names.push(nameOf(r, resources));
    return names.length === 0 ? undefined : names.join(', ');
  }

  #checkSlots(pools: PoolRow[]): void {
    const pendingSlots = new Map<string, number>();
    for (const row of this.db.prepare('SELECT id, pool FROM release WHERE kind = 3').iterate() as Iterable<{
      id: number;
      pool: number;
    }>) {
      const key = `${row.pool}/${row.id}`;
      pendingSlots.set(key, (pendingSlots.get(key) ?? 0) + 1);
    }
    const extras = new Map<string, number>();
    for (const row of this.db.prepare('SELECT pool, slot, extra FROM slot_ref').iterate() as Iterable<{
      pool: number;
      slot: number;
      extra: number;
    }>) {
      extras.set(`${row.pool}/${row.slot}`, row.extra);
      if (row.extra < 1) this.#problem('SLOT_REFS', `slot ${row.slot} of pool ${row.pool} has extra ${row.extra}`);
    }
    for (const pool of pools) {
      const groups = this.#uses.get(pool.id) ?? new Map<number, Uint8Array>();
      for (const row of this.db
        .prepare('SELECT grp, used, state, bitmap FROM slot_group WHERE pool = ?')
        .iterate(pool.id) as Iterable<{ grp: number; used: number; bitmap: Buffer }>) {
        const uses = groups.get(row.grp) ?? new Uint8Array(pool.group_slots);
        groups.delete(row.grp);
        if (bitCount(row.bitmap) !== row.used)
          this.#problem(
            'SLOTS',
            `group ${row.grp} of pool ${pool.name} says ${row.used} used, its bitmap ${bitCount(row.bitmap)}`,
          );
        this.#slots += row.used;
        this.#checkGroup(pool, row.grp, row.bitmap, uses, extras, pendingSlots);
      }
      for (const [grp, uses] of groups) {
        if (uses.some((n) => n > 0))
          this.#problem('SLOTS', `slots of group ${grp} of pool ${pool.name} are named; the group does not exist`);
      }
    }
  }

  #checkGroup(
    pool: PoolRow,
    grp: number,
    bitmap: Uint8Array,
    uses: Uint8Array,
    extras: Map<string, number>,
    pending: Map<string, number>,
  ): void {
    for (let i = 0; i < pool.group_slots; i++) {
      const used = bitGet(bitmap, i);
      if (!used && uses[i] === 0) continue;
      const slot = grp * pool.group_slots + i;
      const key = `${pool.id}/${slot}`;
      const counted = (this.#many.get(key) ?? uses[i]) + (pending.get(key) ?? 0);
      const wanted = used ? 1 + (extras.get(key) ?? 0) : 0;
      if (counted === wanted) continue;
      if (this.#damaged.size > 0 && counted < wanted) continue;
      if (!used) this.#problem('SLOTS', `slot ${slot} of pool ${pool.name} is named by ${counted} entries and free`);
      else if (counted === 0) this.#problem('LEAK', `slot ${slot} of pool ${pool.name} is used and named by nothing`);
      else this.#problem('SLOT_REFS', `slot ${slot} of pool ${pool.name} has ${counted} references, counted ${wanted}`);
    }
  }

  #checkResources(resources: ResourceRow[]): void {
    const ids = new Map(resources.map((r) => [r.id, r]));
    for (const r of resources) {
      const name = nameOf(r, resources);
      if (r.kind !== KIND_VOLUME && !ids.has(r.volume)) this.#problem('RESOURCE', `snapshot ${r.name} has no volume`);
      const root = r.root === 0 ? undefined : this.#pages.get(r.root);
      if (root !== undefined && !root.damaged && root.level !== r.height)
        this.#problem('RESOURCE', `root has level ${root.level}, height is ${r.height}`, name);
      const mapped = root === undefined ? 0 : root.mapped;
      if (!root?.damaged && mapped !== r.mapped)
        this.#problem('RESOURCE', `record says ${r.mapped} blocks, map ${mapped}`, name);
    }
  }
}

function nameOf(r: ResourceRow, resources: ResourceRow[]): string {
  if (r.kind === KIND_VOLUME) return r.name;
  return `${resources.find((v) => v.id === r.volume)?.name ?? '?'}@${r.name}`;
}

/** Checks a home's store. */
export function checkStore(
  storePath: string,
  native: Native,
  onProgress: (done: number, total: number) => void,
): CheckReport {
  const db = openReader(storePath);
  try {
    return new Check(db, native).run(onProgress);
  } finally {
    db.close();
  }
}
