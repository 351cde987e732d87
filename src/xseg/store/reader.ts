/** The mapper's reading connection: pages, references, groups, resources and the release queue, as committed. */
import type { PoolRow, ReleaseRow, ResourceRow } from './batch.ts';
import { atOneMoment } from './moment.ts';
import { openReader, type StoreDatabase } from './schema.ts';
import { SealReader } from './seal-reader.ts';

export interface GroupRow {
  grp: number;
  used: number;
  state: number;
  bitmap: Uint8Array;
  dirty: Uint8Array | null;
}

export class StoreReader {
  readonly db: StoreDatabase;
  readonly seal: SealReader;
  #statements;

  /** @param store path of the store, or a connection to read on */
  constructor(store: string | StoreDatabase) {
    this.db = typeof store === 'string' ? openReader(store) : store;
    this.seal = new SealReader(this.db);
    const p = (sql: string) => this.db.prepare(sql);
    this.#statements = {
      page: p('SELECT data FROM page WHERE id = ?').pluck(),
      pageRef: p('SELECT extra FROM page_ref WHERE id = ?').pluck(),
      slotRef: p('SELECT extra FROM slot_ref WHERE pool = ? AND slot = ?').pluck(),
      slotRefs: p('SELECT slot, extra FROM slot_ref WHERE pool = ? AND slot >= ? AND slot < ?'),
      children: p('SELECT id FROM page WHERE base = ? LIMIT ?').pluck(),
      childrenAfter: p('SELECT id FROM page WHERE base = ? AND id > ? ORDER BY id LIMIT ?').pluck(),
      group: p('SELECT grp, used, state, bitmap, dirty FROM slot_group WHERE pool = ? AND grp = ?'),
      groupList: p('SELECT grp, used, state FROM slot_group WHERE pool = ? ORDER BY grp'),
      resource: p('SELECT * FROM resource WHERE id = ?'),
      byName: p('SELECT id FROM resource WHERE kind = ? AND volume = ? AND name = ?').pluck(),
      // by number: an index on kinds would sort all of them for each page
      ofKind: p('SELECT id FROM resource WHERE +kind = ? AND id > ? ORDER BY id LIMIT ?').pluck(),
      byKind: p('SELECT id FROM resource WHERE kind = ? ORDER BY name').pluck(),
      snapshotsOf: p('SELECT id FROM resource WHERE volume = ? AND kind = 2 ORDER BY id').pluck(),
      idsOf: p('SELECT id FROM resource WHERE pool = ?').pluck(),
      sums: p('SELECT pool, sum(size) AS size, sum(mapped) AS mapped FROM resource GROUP BY pool'),
      countOf: p('SELECT count(*) FROM resource WHERE kind = ?').pluck(),
      releases: p('SELECT seq, kind, id, pool FROM release WHERE seq > ? ORDER BY seq LIMIT ?'),
      newestReleases: p('SELECT seq, kind, id, pool FROM release WHERE seq < ? ORDER BY seq DESC LIMIT ?'),
      releaseCount: p('SELECT count(*) FROM release').pluck(),
      releaseMax: p('SELECT max(seq) FROM release').pluck(),
      pools: p('SELECT * FROM pool ORDER BY id'),
      meta: p('SELECT value FROM meta WHERE key = ?').pluck(),
      used: p('SELECT sum(used) FROM slot_group WHERE pool = ?').pluck(),
    };
  }

  /** All that `work` reads is of one moment. */
  look<T>(work: () => T): T {
    return atOneMoment(this.db, work);
  }

  page(id: number): Buffer | undefined {
    return this.#statements.page.get(id) as Buffer | undefined;
  }
  pageExtra(id: number): number {
    return (this.#statements.pageRef.get(id) as number | undefined) ?? 0;
  }
  slotExtra(pool: number, slot: number): number {
    return (this.#statements.slotRef.get(pool, slot) as number | undefined) ?? 0;
  }
  /** of slots [first, first + count), those that have a row */
  slotExtras(pool: number, first: number, count: number): { slot: number; extra: number }[] {
    return this.#statements.slotRefs.all(pool, first, first + count) as { slot: number; extra: number }[];
  }
  /** pages that have `id` as base, at most `max` */
  children(id: number, max: number): number[] {
    return this.#statements.children.all(id, max) as number[];
  }
  /** those with ids above `after`, ascending */
  childrenAfter(id: number, after: number, max: number): number[] {
    return this.#statements.childrenAfter.all(id, after, max) as number[];
  }
  group(pool: number, grp: number): GroupRow | undefined {
    return this.#statements.group.get(pool, grp) as GroupRow | undefined;
  }
  groups(pool: number): { grp: number; used: number; state: number }[] {
    return this.#statements.groupList.all(pool) as { grp: number; used: number; state: number }[];
  }
  resource(id: number): ResourceRow | undefined {
    return this.#statements.resource.get(id) as ResourceRow | undefined;
  }
  /** id, or undefined */
  resourceByName(kind: number, volume: number, name: string): number | undefined {
    return this.#statements.byName.get(kind, volume, name) as number | undefined;
  }
  resourceIds(kind: number): number[] {
    return this.#statements.byKind.all(kind) as number[];
  }
  /** those above `after`, ascending */
  resourceIdsAfter(kind: number, after: number, max: number): number[] {
    return this.#statements.ofKind.all(kind, after, max) as number[];
  }
  snapshotIds(volume: number): number[] {
    return this.#statements.snapshotsOf.all(volume) as number[];
  }
  resourceIdsOf(pool: number): number[] {
    return this.#statements.idsOf.all(pool) as number[];
  }
  /** bytes and mapped blocks of each pool's resources */
  resourceSums(): { pool: number; size: number; mapped: number }[] {
    return this.#statements.sums.all() as { pool: number; size: number; mapped: number }[];
  }
  resourceCount(kind: number): number {
    return this.#statements.countOf.get(kind) as number;
  }
  releases(after: number, max: number): ReleaseRow[] {
    return this.#statements.releases.all(after, max) as ReleaseRow[];
  }
  /** the same from the end, newest first */
  newestReleases(before: number, max: number): ReleaseRow[] {
    return this.#statements.newestReleases.all(before, max) as ReleaseRow[];
  }
  releaseCount(): number {
    return this.#statements.releaseCount.get() as number;
  }
  releaseMax(): number {
    return (this.#statements.releaseMax.get() as number | null) ?? 0;
  }
  pools(): PoolRow[] {
    return this.#statements.pools.all() as PoolRow[];
  }
  meta(key: string): number | string | undefined {
    return this.#statements.meta.get(key) as number | string | undefined;
  }
  usedSlots(pool: number): number {
    return (this.#statements.used.get(pool) as number | null) ?? 0;
  }
  close(): void {
    this.db.close();
  }
}
