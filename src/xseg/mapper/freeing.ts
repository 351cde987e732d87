/**
 * Freeing in the background (docs/format.md, "Dying"): takes durable `release` rows and gives back pages and slots.
 * The only place where references go down and where pages and shared slots die.
 *
 * One group of releases is on its way at a time: what it decided from is what is durable. A group is one batch, of the
 * store's own or of the live resource whose pages it changes.
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { type CommitBatch, RELEASE_GHOST, RELEASE_PAGE, RELEASE_SLOT, type ReleaseRow } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import type { Commits } from './commits.ts';
import { BAD, EXCLUSIVE, type Frames, OWNED } from './frames.ts';
import { Changes, type Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { BROKEN, type Tree } from './tree.ts';

/** Rows read from the queue at once. */
const READ_MAX = 256;
/** Rows of one group. */
const GROUP_MAX = 128;
/** Turns of the mapper with guest faults in them between two groups: freeing yields. */
const PAUSE_MS = 1;

export interface FreeingHost {
  nextRelease(): number;
  /** the live resource whose page in place this is, if its record still says so */
  ownerOf(resourceId: number, generation: number): Resource | undefined;
  pool(id: number): SlotPool | undefined;
  changed(resource: Resource): void;
  commitSoon(resource: Resource): void;
  /** pages whose base this is, made but not in the store yet */
  hasNewChildren(page: number): boolean;
  /** it is being sealed: nothing of it may go, or become writable in place */
  held(page: number): boolean;
  /** [pool, slot, count] triples are free for good */
  freed(runs: number[]): void;
  /** the slot is in the index of sealed blocks */
  indexed(pool: number, slot: number): boolean;
  /** deltas of page_ref and slot_ref that are in batches of others, not durable yet */
  pendingPageRefs(page: number): number;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

export class Freeing {
  /** rows waiting in the store, as last counted */
  queued = 0;
  pagesFreed = 0;
  slotsFreed = 0;
  #cursor = 0;
  #rows: ReleaseRow[] = [];
  #busy = false;
  #pausedUntil = 0;
  #more = true;
  /** in-group deltas, so that one group may name a page or slot twice */
  #pageDelta = new Map<number, number>();
  #slotDelta = new Map<string, number>();
  #deadPages = new Set<number>();

  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly reader: StoreReader,
    readonly commits: Commits,
    readonly native: Native,
    readonly host: FreeingHost,
  ) {
    this.queued = reader.releaseCount();
  }

  /** a group is on its way */
  get busy(): boolean {
    return this.#busy;
  }

  /** something may have been queued */
  poke(): void {
    this.#more = true;
  }

  get idle(): boolean {
    return !this.#busy && !this.#more && this.#rows.length === 0;
  }

  /** One group, when none is on its way. Called every turn of the mapper. */
  turn(now: number): void {
    if (this.#busy || now < this.#pausedUntil) return;
    if (this.#rows.length === 0) {
      if (!this.#more) return;
      this.#rows = this.reader.releases(this.#cursor, READ_MAX);
      if (this.#rows.length === 0) {
        // rows that were put off stay below the cursor: look at the start again, once
        if (this.#cursor === 0) this.#more = false;
        this.#cursor = 0;
        this.queued = this.reader.releaseCount();
        if (this.queued === 0) this.#more = false;
        else this.#pausedUntil = now + 20;
        return;
      }
    }
    this.#group(now);
  }

  #group(now: number): void {
    const changes = new Changes();
    this.#pageDelta.clear();
    this.#slotDelta.clear();
    this.#deadPages.clear();
    let target: Resource | null | undefined;
    const dirty: number[] = [];
    let taken = 0;
    while (this.#rows.length > 0 && taken < GROUP_MAX) {
      const row = this.#rows[0];
      const outcome = this.#one(row, changes, target, dirty);
      if (outcome === 'other target') break;
      this.#rows.shift();
      this.#cursor = Math.max(this.#cursor, row.seq);
      if (outcome === 'later') continue;
      taken++;
      if (outcome !== null) target = outcome;
      else if (target === undefined) target = null;
    }
    if (taken === 0) {
      this.#pausedUntil = now + PAUSE_MS;
      return;
    }
    this.#busy = true;
    this.#pausedUntil = now + PAUSE_MS;
    if (target) this.#sendWith(target, changes, dirty);
    else this.#send(changes, dirty);
  }

  #sendWith(resource: Resource, changes: Changes, dirty: number[]): void {
    for (const frame of dirty) {
      this.tree.touch(resource, frame);
      this.frames.pins[frame]--;
    }
    const into = resource.changes;
    into.freed.push(...changes.freed);
    into.releases.push(...changes.releases);
    into.releasesDone.push(...changes.releasesDone);
    into.pageRefs.push(...changes.pageRefs);
    into.slotRefs.push(...changes.slotRefs);
    into.pagesDeleted.push(...changes.pagesDeleted);
    into.row = true;
    into.waiters.push((error) => this.#landed(error, changes));
    this.host.changed(resource);
    this.host.commitSoon(resource);
  }

  #send(changes: Changes, dirty: number[]): void {
    for (const frame of dirty) {
      this.frames.markDirty(frame);
      this.frames.pins[frame]--;
    }
    const batch: CommitBatch = this.commits.newBatch();
    const flying = this.commits.encodeInto(batch, dirty);
    batch.freed = changes.freed;
    batch.releases = changes.releases;
    batch.releasesDone = changes.releasesDone;
    batch.pageRefs = changes.pageRefs;
    batch.slotRefs = changes.slotRefs;
    batch.pagesDeleted = changes.pagesDeleted;
    this.commits.sendLoose(batch, (error) => {
      if (error === null) for (const frame of flying) this.frames.flying[frame]--;
      this.#landed(error === null ? 0 : 1, changes);
      if (error === null) this.host.freed(changes.freed);
    });
  }

  #landed(error: number, changes: Changes): void {
    this.#busy = false;
    if (error !== 0) return;
    for (const page of changes.pagesDeleted) {
      const frame = this.frames.byPage.get(page);
      if (frame !== undefined) this.frames.discard(frame);
    }
    this.pagesFreed += changes.pagesDeleted.length;
    this.#more = true;
  }

  /**
   * One release. @returns the live resource whose batch it must be in, null for any batch, 'later' to put it off, or
   * 'other target' when it needs another batch than this group's
   */
  #one(
    row: ReleaseRow,
    changes: Changes,
    target: Resource | null | undefined,
    dirty: number[],
  ): Resource | null | 'later' | 'other target' {
    if (row.kind === RELEASE_SLOT) {
      this.#dropSlot(row.pool, row.id, changes);
      changes.releasesDone.push(row.seq);
      return null;
    }
    if (this.#deadPages.has(row.id)) return 'later';
    if (row.kind === RELEASE_PAGE) return this.#page(row, changes);
    if (row.kind === RELEASE_GHOST) return this.#ghost(row, changes, target, dirty);
    this.host.log('error', 'release of unknown kind', { seq: row.seq, kind: row.kind });
    return 'later';
  }

  #page(row: ReleaseRow, changes: Changes): null | 'later' {
    const id = row.id;
    if (this.host.hasNewChildren(id) || this.host.held(id)) return 'later';
    const extra = this.#extraOf(id);
    if (extra > 0) {
      this.#addPageRef(id, -1, changes);
      changes.releasesDone.push(row.seq);
      return null;
    }
    if (this.reader.children(id, 1).length > 0) {
      this.#addPageRef(id, -1, changes);
      changes.releases.push({ seq: this.host.nextRelease(), kind: RELEASE_GHOST, id, pool: row.pool });
      changes.releasesDone.push(row.seq);
      return null;
    }
    if (!this.#kill(id, row.pool, changes)) return 'later';
    changes.releasesDone.push(row.seq);
    return null;
  }

  /** Extra parents of a page: durable, in others' batches, and in this group. */
  #extraOf(id: number): number {
    return this.reader.pageExtra(id) + this.host.pendingPageRefs(id) + (this.#pageDelta.get(id) ?? 0);
  }

  #addPageRef(id: number, delta: number, changes: Changes): void {
    changes.pageRefs.push(id, delta);
    this.#pageDelta.set(id, (this.#pageDelta.get(id) ?? 0) + delta);
  }

  /** The slot loses a reference; the last one frees it. True when it became free. */
  #dropSlot(pool: number, slot: number, changes: Changes): void {
    const key = `${pool}/${slot}`;
    const extra = this.reader.slotExtra(pool, slot) + (this.#slotDelta.get(key) ?? 0);
    if (extra > 0) {
      changes.slotRefs.push(pool, slot, -1);
      this.#slotDelta.set(key, (this.#slotDelta.get(key) ?? 0) - 1);
      return;
    }
    const freed = changes.freed;
    const n = freed.length;
    if (n > 0 && freed[n - 3] === pool && freed[n - 2] + freed[n - 1] === slot && !this.#groupBorder(pool, slot))
      freed[n - 1]++;
    else freed.push(pool, slot, 1);
    const slots = this.host.pool(pool);
    if (slots !== undefined) slots.freeingSlots++;
    this.slotsFreed++;
  }

  #groupBorder(pool: number, slot: number): boolean {
    const slots = this.host.pool(pool);
    return slots === undefined || slot % slots.groupSlots === 0;
  }

  #addSlotRef(pool: number, slot: number, changes: Changes): void {
    const key = `${pool}/${slot}`;
    changes.slotRefs.push(pool, slot, 1);
    this.#slotDelta.set(key, (this.#slotDelta.get(key) ?? 0) + 1);
  }

  /** The page of whatever level, loaded. */
  #load(id: number): number {
    const resident = this.frames.byPage.get(id);
    if (resident !== undefined) return resident;
    const blob = this.reader.page(id);
    if (blob === undefined) return BROKEN;
    return this.tree.load(id, blob[3]);
  }

  /** A page without parents and children: its references go with it. */
  #kill(id: number, pool: number, changes: Changes): boolean {
    const frame = this.#load(id);
    if (frame < 0) {
      if (frame === BROKEN)
        this.host.log('warn', 'a damaged page cannot be freed; `atoll check` names it', { page: id });
      return false;
    }
    const { frames } = this;
    if (frames.dirty[frame] || frames.flying[frame]) return false;
    const leaf = frames.level[frame] === 0;
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      if ((frames.high(frame, i) & OWNED) === 0) continue;
      const value = frames.value(frame, i);
      if (leaf) this.#dropSlot(pool, value - 1, changes);
      else changes.releases.push({ seq: this.host.nextRelease(), kind: RELEASE_PAGE, id: value, pool });
    }
    const base = frames.base[frame];
    if (base !== 0 && this.reader.pageExtra(base) === -1) {
      changes.releases.push({ seq: this.host.nextRelease(), kind: RELEASE_GHOST, id: base, pool });
    }
    changes.pagesDeleted.push(id);
    this.#deadPages.add(id);
    return true;
  }

  /** One child of a ghost takes over what it borrows. */
  #ghost(
    row: ReleaseRow,
    changes: Changes,
    target: Resource | null | undefined,
    dirty: number[],
  ): Resource | null | 'later' | 'other target' {
    const id = row.id;
    if (this.#extraOf(id) !== -1 || this.reader.page(id) === undefined) {
      changes.releasesDone.push(row.seq); // an older row did it
      return null;
    }
    if (this.host.hasNewChildren(id) || this.host.held(id)) return 'later';
    const children = this.reader.children(id, 2);
    if (children.some((child) => this.host.held(child))) return 'later';
    if (children.length === 0) {
      if (!this.#kill(id, row.pool, changes)) return 'later';
      changes.releasesDone.push(row.seq);
      return null;
    }
    const ghost = this.#load(id);
    if (ghost < 0) return 'later';
    const { frames } = this;
    frames.pins[ghost]++;
    const child = this.#load(children[0]);
    frames.pins[ghost]--;
    if (child < 0 || this.#deadPages.has(children[0])) return 'later';
    if (dirty.includes(child) || dirty.includes(ghost)) return 'other target';
    const owner = this.host.ownerOf(frames.owner[child], frames.generation[child]);
    const wanted = owner ?? null;
    if (target !== undefined && target !== wanted) return 'other target';
    if (wanted === null && (frames.dirty[child] || frames.flying[child])) return 'later';
    const last = children.length === 1;
    this.#adopt(ghost, child, last, wanted, row.pool, changes);
    dirty.push(child);
    // not dirty before the group is whole: what the group loads until then must not push it out
    frames.pins[child]++;
    if (last) {
      const base = frames.base[ghost];
      if (base !== 0 && this.reader.pageExtra(base) === -1) {
        changes.releases.push({ seq: this.host.nextRelease(), kind: RELEASE_GHOST, id: base, pool: row.pool });
      }
      changes.pagesDeleted.push(id);
      this.#deadPages.add(id);
    } else {
      // the same ghost again, behind what is durable by then
      changes.releases.push({ seq: this.host.nextRelease(), kind: RELEASE_GHOST, id, pool: row.pool });
    }
    changes.releasesDone.push(row.seq);
    return wanted;
  }

  #adopt(ghost: number, child: number, last: boolean, live: Resource | null, pool: number, changes: Changes): void {
    const { frames } = this;
    const leaf = frames.level[ghost] === 0;
    // A grant that is out copies from what the entry names now: written in place meanwhile, that write would be lost. And
    // a copy of the store may show the slot in a snapshot that is gone since.
    const granted = frames.pins[child] !== 0 || this.host.pool(pool)?.holding.on === true;
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const ghostHigh = frames.high(ghost, i);
      if ((ghostHigh & OWNED) === 0) continue;
      const value = frames.value(ghost, i);
      const childHigh = frames.high(child, i);
      const borrows = (childHigh & OWNED) === 0 && frames.value(child, i) === value;
      if (borrows) {
        if (!last) {
          if (leaf) this.#addSlotRef(pool, value - 1, changes);
          else this.#addPageRef(value, 1, changes);
        }
        // nobody else has it: the live page may write it in place again
        const alone =
          last &&
          leaf &&
          live !== null &&
          !granted &&
          !this.host.indexed(pool, value - 1) &&
          this.reader.slotExtra(pool, value - 1) === 0 &&
          !this.#slotDelta.has(`${pool}/${value - 1}`);
        frames.set(child, i, value, (alone ? OWNED | EXCLUSIVE : OWNED) | (childHigh & BAD));
      } else if (last) {
        if (leaf) this.#dropSlot(pool, value - 1, changes);
        else changes.releases.push({ seq: this.host.nextRelease(), kind: RELEASE_PAGE, id: value, pool });
      }
    }
    frames.base[child] = frames.base[ghost];
  }
}
