/**
 * What operations and reads cost, counted in rows and pages (invariant 4): a snapshot or a clone is a few rows, whatever the
 * resource's size, and a read loads one page a level, however many snapshots and clones its map went through. Looks on, and
 * changes nothing.
 */
import { OP_LOAD, PAGE_ENTRIES } from '../../src/xseg/layout.gen.ts';
import type { Mapper } from '../../src/xseg/mapper/mapper.ts';
import { type CommitBatch, KIND_SNAPSHOT, KIND_VOLUME, type ResourceRow } from '../../src/xseg/store/batch.ts';
import type { RequestRecord } from './native.ts';
import type { Profile } from './profiles.ts';
import type { SimStore } from './store.ts';

/** As in faults.ts. */
const LOAD_LEAVES_MAX = 64;
/** docs/format.md, "Map page" */
const LEVEL_AT = 3;
const OWNER_AT = 24;
const GENERATION_AT = 32;

export interface CostsHost {
  readonly mapper: Mapper;
  readonly store: SimStore;
  readonly profile: Profile;
  fail(reason: string): never;
}

export class Costs {
  /** snapshots, clones and turns of reads that were looked at */
  readonly looks = { snapshots: 0, clones: 0, reads: 0 };
  /** pages that the reads of this turn may load; null: it has other work too */
  #pages: number | null = null;
  #loads = 0;

  /** what is wrong with a batch: the mapper is in the middle of something, and takes what is thrown there for its own */
  #wrong: string | null = null;

  constructor(readonly host: CostsHost) {}

  // ---- snapshots and clones

  /** A batch goes to the store. */
  sent(batch: CommitBatch): void {
    for (const row of batch.resources) {
      if (!this.#isNew(row)) continue;
      if (row.kind === KIND_VOLUME && row.cloned_from !== null) this.#clone(row, batch);
      // what an ingest makes comes with its volume
      const volume = row.kind === KIND_SNAPSHOT ? batch.resources.find(({ id }) => id === row.volume) : undefined;
      if (volume !== undefined && !this.#isNew(volume)) this.#snapshot(row, volume, batch);
    }
  }

  #isNew(row: ResourceRow): boolean {
    return this.host.store.reader.resource(row.id) === undefined;
  }

  /** Its record and one reference; and, where it is larger than what it was cloned from, a page for each level more. */
  #clone(row: ResourceRow, batch: CommitBatch): void {
    this.looks.clones++;
    const what = `clone ${row.name} of ${row.cloned_from}`;
    this.#rows(what, batch, 1);
    this.#references(what, batch);
    for (const part of ['slotRefs', 'taken', 'freed', 'releases', 'pagesDeleted'] as const)
      if (batch[part].length > 0) this.#found(`${what} writes ${part}`);
    const levels = pagesOf(batch).map(({ level }) => level);
    if (levels.includes(0) || new Set(levels).size < levels.length)
      this.#found(`${what} writes pages of levels ${levels}`);
  }

  /**
   * Its record, its volume's, and one reference. Pages that the volume had changed go with it, and what freeing and folding
   * had to change in them; of its own it has none.
   */
  #snapshot(row: ResourceRow, volume: ResourceRow, batch: CommitBatch): void {
    this.looks.snapshots++;
    const what = `snapshot ${volume.name}@${row.name}`;
    this.#rows(what, batch, 2);
    const pages = pagesOf(batch);
    if (pages.some(({ owner, generation }) => owner === volume.id && generation === volume.generation))
      this.#found(`${what} copies pages`);
    if (batch.releasesDone.length > 0) return;
    this.#references(what, batch);
    // folding counts references of slots
    const folds = this.host.profile.sealing.on > 0;
    if (!folds && batch.slotRefs.length > 0) this.#found(`${what} writes references of slots`);
    if (batch.taken.length + batch.freed.length + batch.releases.length + batch.slotRefs.length > 0) return;
    for (const { id, blob } of pages)
      if (this.host.store.reader.page(id)?.equals(blob)) this.#found(`${what} writes page ${id}, which is as it was`);
  }

  #rows(what: string, batch: CommitBatch, most: number): void {
    const { resources, resourcesDeleted } = batch;
    if (resources.length > most || resourcesDeleted.length > 0)
      this.#found(`${what} writes ${resources.length} records and deletes ${resourcesDeleted.length}`);
  }

  /** One more on the root, when there is one. */
  #references(what: string, { pageRefs }: CommitBatch): void {
    if (pageRefs.length > 2 || (pageRefs.length > 0 && pageRefs[1] !== 1))
      this.#found(`${what} writes references of ${pageRefs.length / 2} pages: ${pageRefs}`);
  }

  #found(wrong: string): void {
    this.#wrong ??= wrong;
  }

  // ---- reads

  /** A turn of the mapper begins. @param asked control requests wait */
  begins(asked: boolean): void {
    const { mapper, store } = this.host;
    const { frames, turns } = mapper.waiting();
    const other = asked || store.mail || frames + turns > 0 || !this.#idle();
    this.#pages = other ? null : 0;
    this.#loads = mapper.tree.loads;
  }

  /** Nobody who loads pages in the background has anything to do. */
  #idle(): boolean {
    const { mapper } = this.host;
    if (mapper.freeing.queued > 0 || mapper.freeing.busy || !mapper.sealer.folding.done) return false;
    for (const pool of mapper.pools.values()) if (pool.waiters.length > 0) return false;
    return true;
  }

  /** The mapper has taken a record. */
  taken({ op, volume, block, count }: RequestRecord): void {
    if (this.#pages === null) return;
    const resource = op === OP_LOAD ? this.host.mapper.handles.resourceOf(volume as number) : undefined;
    if (resource === undefined) {
      this.#pages = null;
      return;
    }
    const first = Math.floor((block as number) / PAGE_ENTRIES);
    const last = Math.floor(((block as number) + (count as number) - 1) / PAGE_ENTRIES);
    this.#pages += Math.min(LOAD_LEAVES_MAX, last - first + 1) * (resource.row.height + 1);
  }

  /** The turn has ended. */
  ends(): void {
    if (this.#wrong !== null) this.host.fail(this.#wrong);
    if (this.#pages === null || this.#pages === 0 || !this.#idle()) return;
    this.looks.reads++;
    const loads = this.host.mapper.tree.loads - this.#loads;
    if (loads > this.#pages) this.host.fail(`reads that have ${this.#pages} pages on their way loaded ${loads}`);
  }
}

function pagesOf({ pages, blob }: CommitBatch): {
  id: number;
  level: number;
  owner: number;
  generation: number;
  blob: Buffer;
}[] {
  const found = [];
  for (let i = 0; i < pages.length; i += 4) {
    const page = Buffer.from(blob.buffer, blob.byteOffset + pages[i + 2], pages[i + 3]);
    found.push({
      id: pages[i],
      level: page[LEVEL_AT],
      owner: Number(page.readBigUInt64LE(OWNER_AT)),
      generation: page.readUInt32LE(GENERATION_AT),
      blob: page,
    });
  }
  return found;
}
