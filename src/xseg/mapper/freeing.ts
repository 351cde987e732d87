/**
 * Freeing in the background (docs/format.md, "Dying"): takes durable `release` rows and gives back pages and slots.
 * The only place where references go down and where pages and shared slots die.
 *
 * One group of releases is on its way at a time: what it decided from is what is durable. A group is one batch, of the
 * store's own or of the live resource whose pages it changes.
 *
 * It yields: a group is short (GROUP_MS_MAX), and while guests work it takes BUSY_SHARE of the time at most, more only when
 * guests make rows faster than that works them off. What is queued is in the store, so a restart goes on where it was;
 * memory is bounded by the length of the queue, which is kept short (QUEUE_LONG).
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { type CommitBatch, RELEASE_GHOST, RELEASE_PAGE, RELEASE_SLOT, type ReleaseRow } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import { type Clock, systemClock } from './clock.ts';
import type { Commits } from './commits.ts';
import { BAD, EXCLUSIVE, type Frames, OWNED, VALUE_HI_MASK } from './frames.ts';
import { Changes, type Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { BROKEN, type Tree } from './tree.ts';

/** Rows read from the queue at once. */
const READ_MAX = 1024;
/** Rows of one group… */
export const GROUP_MAX = 128;
/** …of which one that releases a slot is such a part, as it is the least work. */
const SLOT_WEIGHT = 1 / 8;
/** A group takes no more rows after this: a guest's map fault waits about so long for it. */
const GROUP_MS_MAX = 2;
/** Between two groups, at least. */
const PAUSE_MS = 1;
/**
 * Share of the time that groups and their commits take while guests work. Each group holds up what is in flight just then:
 * of 80,000 requests a second at depth 32 no more than one in a hundred is to see one (docs/benchmarks.md, `freeing`).
 */
export const BUSY_SHARE = 0.025;
/** The same when that does not keep up with what is deleted and overwritten meanwhile. */
export const BUSY_SHARE_BEHIND = 0.1;
/** It does not when so many rows wait that freeing did not make itself: a group's. */
export const BEHIND_MIN = GROUP_MAX;
const BUSY_PAUSE_MS_MAX = 200;
/** After a round in which nothing could be done; it doubles as long as nothing can. */
const FRUITLESS_MS = 20;
const FRUITLESS_MS_MAX = 1000;
/** From this many rows on the newest go first: those of pages further down, which add fewer rows than they take. */
const QUEUE_LONG = 65536;
/** Rows looked at per turn after a start, to know how much there is to free. */
const SURVEY_MAX = 128;
/** Bytes 36–43 of a page's blob: blocks mapped below it. */
const MAPPED_AT = 36;

export interface FreeingHost {
  /** references on slots that have several changed, durably */
  slotsDropped(): void;
  /** @param blocks mapped below what loses a reference: of these some become free */
  nextRelease(pool: number, blocks: number): number;
  /** the live resource whose page in place this is, if its record still says so */
  ownerOf(resourceId: number, generation: number): Resource | undefined;
  pool(id: number): SlotPool | undefined;
  changed(resource: Resource): void;
  commitSoon(resource: Resource): void;
  /** pages whose base this is, made but not in the store yet */
  hasNewChildren(page: number): boolean;
  /** it is being sealed: nothing of it may go, or become writable in place */
  held(page: number): boolean;
  /** somebody refers to the slot in a batch that is not durable: it must not be freed */
  pinned(pool: number, slot: number): boolean;
  /** some slot is pinned */
  pinning(): boolean;
  /** [pool, slot, count] triples are free for good */
  freed(runs: number[]): void;
  /** the slot is in the index of sealed blocks */
  indexed(pool: number, slot: number): boolean;
  /** guests sent requests lately */
  guestsBusy(now: number): boolean;
  /** what was unpublished before `epochAdvance` is unused once `epochSafe` is no less than what that returned */
  epochAdvance(): number;
  epochSafe(): number;
  /** deltas of page_ref and slot_ref that are in batches of others, not durable yet */
  pendingPageRefs(page: number): number;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

export class Freeing {
  /** rows that wait, those that are not durable yet too */
  queued: number;
  pagesFreed = 0;
  slotsFreed = 0;
  /** durable rows above it were not read yet */
  #cursor = 0;
  /** the same from the other end, while the queue is long */
  #newest = Number.MAX_SAFE_INTEGER;
  #rows: ReleaseRow[] = [];
  /**
   * Until it is safe somebody may read slots that the rows' pages had and have no more: nobody writes there in place. One for
   * each group, since the one before may have changed pages that this one's rows are about.
   */
  #rowsEpoch = 0;
  /** `#rows` are the newest, newest first */
  #backwards = false;
  #busy = false;
  #pausedUntil = 0;
  #startedAt = 0;
  #fruitlessMs = FRUITLESS_MS;
  /** something of this round was done */
  #fruit = false;
  #more = true;
  /** in-group deltas, so that one group may name a page or slot twice: page → delta, pool → slot → delta */
  #pageDelta = new Map<number, number>();
  #slotDelta = new Map<number, Map<number, number>>();
  #deadPages = new Set<number>();
  /** pages that this group gave a child: the store does not know it yet */
  #newBases = new Set<number>();
  /** blocks that a queued row may free: seq → pool, blocks; rows that are not here free none */
  #weights = new Map<number, { pool: number; blocks: number }>();
  #blocksLeft = new Map<number, number>();
  /** rows that wait and that others made */
  #others = new Set<number>();
  /** rows that are made now are freeing's own */
  #grouping = false;
  /** rows that were there at the start are weighed before any is worked on */
  #surveyed = 0;
  readonly #surveyEnd: number;
  #toldDamaged = new Set<number>();
  readonly #entries = new Uint32Array(PAGE_ENTRIES * 2);
  readonly #header = new Float64Array(8);

  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly reader: StoreReader,
    readonly commits: Commits,
    readonly native: Native,
    readonly host: FreeingHost,
    readonly clock: Clock = systemClock,
    readonly queueLong = QUEUE_LONG,
  ) {
    this.queued = reader.releaseCount();
    this.#surveyEnd = this.queued === 0 ? 0 : reader.releaseMax();
  }

  /** a group is on its way */
  get busy(): boolean {
    return this.#busy;
  }

  /** something may have been queued */
  poke(): void {
    this.#more = true;
  }

  /** Milliseconds until it wants a turn; what it waits for otherwise wakes the mapper. */
  waitMs(now: number): number {
    if (this.#surveyed < this.#surveyEnd) return 0;
    if (this.#busy || (!this.#more && this.#rows.length === 0)) return Number.POSITIVE_INFINITY;
    return Math.max(0, this.#pausedUntil - now);
  }

  /** Queued work will give the pool slots back before long: it is not stuck on pages that cannot be read. */
  comes(pool: number): boolean {
    return this.blocksLeft(pool) > 0 && this.#fruitlessMs < FRUITLESS_MS_MAX;
  }

  /** Blocks of a pool that are still to be released, as estimated; 0 when nothing is queued. */
  blocksLeft(pool: number): number {
    return this.#blocksLeft.get(pool) ?? 0;
  }

  /** A row was made that will come through the store. */
  made(seq: number, pool: number, blocks: number): void {
    this.queued++;
    if (!this.#grouping) this.#others.add(seq);
    if (blocks > 0) this.#weigh(seq, pool, blocks);
  }

  #weigh(seq: number, pool: number, blocks: number): void {
    this.#weights.set(seq, { pool, blocks });
    this.#blocksLeft.set(pool, this.blocksLeft(pool) + blocks);
  }

  #forget(seq: number): void {
    this.queued--;
    this.#others.delete(seq);
    const weight = this.#weights.get(seq);
    if (weight === undefined) return;
    this.#weights.delete(seq);
    this.#blocksLeft.set(weight.pool, this.blocksLeft(weight.pool) - weight.blocks);
  }

  /** Rows that were made and will not come: the batch they were in failed. */
  lost(rows: readonly ReleaseRow[]): void {
    for (const { seq } of rows) this.#forget(seq);
  }

  /** One group, when none is on its way. Called every turn of the mapper. */
  turn(now: number): void {
    if (this.#surveyed < this.#surveyEnd) {
      this.#survey();
      return;
    }
    if (this.#busy || now < this.#pausedUntil) return;
    if (this.#rows.length === 0) {
      if (!this.#more) return;
      this.#read();
      if (this.#rows.length === 0) {
        this.#roundEnded(now);
        return;
      }
      this.#rowsEpoch = this.host.epochAdvance();
    }
    if (this.host.epochSafe() < this.#rowsEpoch) {
      this.#pausedUntil = now + PAUSE_MS;
      return;
    }
    this.#grouping = true;
    try {
      this.reader.look(() => this.#group(now));
    } finally {
      this.#grouping = false;
    }
  }

  #read(): void {
    this.#backwards = this.queued >= this.queueLong;
    if (this.#backwards) this.#rows = this.reader.newestReleases(this.#newest, READ_MAX);
    else this.#rows = this.reader.releases(this.#cursor, READ_MAX);
  }

  /** All rows were looked at; those that were put off are looked at again. */
  #roundEnded(now: number): void {
    if (this.#cursor === 0 && this.#newest === Number.MAX_SAFE_INTEGER) this.#more = false;
    this.#cursor = 0;
    this.#newest = Number.MAX_SAFE_INTEGER;
    if (this.reader.releaseCount() === 0) {
      this.#more = false;
      return;
    }
    this.#fruitlessMs = this.#fruit ? FRUITLESS_MS : Math.min(this.#fruitlessMs * 2, FRUITLESS_MS_MAX);
    this.#fruit = false;
    this.#pausedUntil = now + this.#fruitlessMs;
  }

  #survey(): void {
    for (const row of this.reader.releases(this.#surveyed, SURVEY_MAX)) {
      if (row.seq > this.#surveyEnd) break;
      this.#surveyed = row.seq;
      if (row.kind === RELEASE_SLOT) this.#weigh(row.seq, row.pool, 1);
      if (row.kind !== RELEASE_PAGE) continue;
      const blob = this.reader.page(row.id);
      const blocks = blob === undefined || blob.length < MAPPED_AT + 8 ? 0 : Number(blob.readBigUInt64LE(MAPPED_AT));
      if (blocks > 0) this.#weigh(row.seq, row.pool, blocks);
    }
  }

  #group(now: number): void {
    const changes = new Changes();
    this.#pageDelta.clear();
    this.#slotDelta.clear();
    this.#deadPages.clear();
    this.#newBases.clear();
    this.#startedAt = now;
    const started = this.clock.now();
    let target: Resource | null | undefined;
    const dirty: number[] = [];
    let taken = 0;
    while (this.#rows.length > 0 && taken < GROUP_MAX) {
      if (this.clock.now() - started > GROUP_MS_MAX) break;
      const row = this.#rows[0];
      const beside = this.#slotsBeside(Math.ceil((GROUP_MAX - taken) / SLOT_WEIGHT));
      if (beside > 0) {
        this.#dropRun(row.pool, row.id, beside, changes);
        changes.releasesDone.push(...this.#take(beside));
        taken += beside * SLOT_WEIGHT;
        target ??= null;
        continue;
      }
      const outcome = this.#one(row, changes, target, dirty);
      if (outcome === 'other target') break;
      this.#take(1);
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
    this.#fruit = true;
    if (target) this.#sendWith(target, changes, dirty);
    else this.#send(changes, dirty);
  }

  /** How many of the next rows release slots that lie one behind the other; 0 when the next one does not, or must wait. */
  #slotsBeside(max: number): number {
    const first = this.#rows[0];
    let count = 0;
    for (; count < Math.min(max, this.#rows.length); count++) {
      const { kind, pool, id } = this.#rows[count];
      if (kind !== RELEASE_SLOT || pool !== first.pool || id !== first.id + count || this.host.pinned(pool, id)) break;
    }
    return count;
  }

  /** The next rows are done, or put off. @returns their numbers */
  #take(count: number): number[] {
    const seqs = this.#rows.splice(0, count).map(({ seq }) => seq);
    for (const seq of seqs) {
      if (this.#backwards) this.#newest = Math.min(this.#newest, seq);
      else this.#cursor = Math.max(this.#cursor, seq);
    }
    return seqs;
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
    changes.giveBackIn(batch);
    this.commits.sendLoose(batch, (error) => {
      if (error === null) for (const frame of flying) this.frames.land(frame);
      this.#landed(error === null ? 0 : 1, changes);
      if (error === null) this.host.freed(changes.freed);
    });
  }

  #landed(error: number, changes: Changes): void {
    this.#busy = false;
    this.#rowsEpoch = this.host.epochAdvance();
    const now = this.clock.now();
    const took = now - this.#startedAt;
    const share = this.#others.size >= BEHIND_MIN ? BUSY_SHARE_BEHIND : BUSY_SHARE;
    const pause = this.host.guestsBusy(now) ? Math.min(BUSY_PAUSE_MS_MAX, took * (1 / share - 1)) : 0;
    this.#pausedUntil = now + Math.max(PAUSE_MS, pause);
    if (error !== 0) return;
    for (const seq of changes.releasesDone) this.#forget(seq);
    if (changes.slotRefs.length > 0) this.host.slotsDropped();
    for (const page of changes.pagesDeleted) {
      const frame = this.frames.byPage.get(page);
      if (frame !== undefined) this.frames.discard(frame);
    }
    this.pagesFreed += changes.pagesDeleted.length;
    this.#more = true;
    if (this.queued < this.queueLong || changes.releases.length === 0) return;
    // what it queued is newer than anything that was read
    this.#newest = Number.MAX_SAFE_INTEGER;
    this.#rows = [];
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
    // somebody has it pinned
    if (row.kind === RELEASE_SLOT) return 'later';
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
      changes.releases.push({ seq: this.host.nextRelease(row.pool, 0), kind: RELEASE_GHOST, id, pool: row.pool });
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

  /** Slots lose a reference each; those that lose the last one become free. */
  #dropRun(pool: number, first: number, count: number, changes: Changes): void {
    const extras = this.reader.slotExtras(pool, first, count);
    const delta = this.#slotDelta.get(pool);
    if (extras.length === 0 && delta === undefined) {
      this.#freeRun(pool, first, count, changes);
      return;
    }
    const extraOf = new Map<number, number>();
    for (const { slot, extra } of extras) extraOf.set(slot, extra);
    for (let slot = first; slot < first + count; slot++) {
      if ((extraOf.get(slot) ?? 0) + (delta?.get(slot) ?? 0) > 0) this.#addSlotRef(pool, slot, -1, changes);
      else this.#freeRun(pool, slot, 1, changes);
    }
  }

  #freeRun(pool: number, first: number, count: number, changes: Changes): void {
    const slots = this.host.pool(pool);
    const freed = changes.freed;
    let at = first;
    const end = first + count;
    while (at < end) {
      const border = slots === undefined ? at + 1 : (Math.floor(at / slots.groupSlots) + 1) * slots.groupSlots;
      const length = Math.min(end, border) - at;
      const n = freed.length;
      const joins = n > 0 && freed[n - 3] === pool && freed[n - 2] + freed[n - 1] === at;
      if (joins && slots !== undefined && at % slots.groupSlots !== 0) freed[n - 1] += length;
      else freed.push(pool, at, length);
      at += length;
    }
    if (slots !== undefined) slots.freeingSlots += count;
    this.slotsFreed += count;
  }

  #addSlotRef(pool: number, slot: number, by: number, changes: Changes): void {
    changes.slotRefs.push(pool, slot, by);
    let deltas = this.#slotDelta.get(pool);
    if (deltas === undefined) {
      deltas = new Map();
      this.#slotDelta.set(pool, deltas);
    }
    deltas.set(slot, (deltas.get(slot) ?? 0) + by);
  }

  /** The page of whatever level, loaded. */
  #load(id: number): number {
    const resident = this.frames.byPage.get(id);
    if (resident !== undefined) return resident;
    const blob = this.reader.page(id);
    if (blob === undefined) return BROKEN;
    return this.tree.load(id, blob[3]);
  }

  /**
   * Entries of a page that dies, in `#entries`, its header in `#header`; past the cache, which is the guests'.
   * False when they cannot be had now.
   */
  #open(id: number): boolean {
    const { frames } = this;
    const frame = frames.byPage.get(id);
    if (frame !== undefined) {
      if (frames.dirty[frame] || frames.flying[frame]) return false;
      const at = frames.at(frame);
      this.#entries.set(frames.words.subarray(at, at + PAGE_ENTRIES * 2));
      this.#header[0] = frames.level[frame];
      this.#header[2] = frames.base[frame];
      this.#header[5] = frames.mapped[frame];
      return true;
    }
    const blob = this.reader.page(id);
    if (blob !== undefined && this.native.decodePageTo(blob, id, this.#entries, this.#header) === 0) return true;
    if (!this.#toldDamaged.has(id)) {
      this.#toldDamaged.add(id);
      this.host.log('warn', 'a damaged page cannot be freed; `atoll check` names it', { page: id });
    }
    return false;
  }

  /** A page without parents and children: its references go with it. */
  #kill(id: number, pool: number, changes: Changes): boolean {
    if (!this.#open(id)) return false;
    if (this.#header[0] === 0 && this.host.pinning() && this.#ownsPinned(pool)) return false;
    const base = this.#header[2];
    if (this.#header[0] === 0) this.#dropEntries(pool, changes);
    else this.#dropChildren(pool, this.#header[5], changes);
    if (base !== 0 && this.reader.pageExtra(base) === -1) {
      changes.releases.push({ seq: this.host.nextRelease(pool, 0), kind: RELEASE_GHOST, id: base, pool });
    }
    changes.pagesDeleted.push(id);
    this.#deadPages.add(id);
    return true;
  }

  /** The opened leaf owns a slot that must not be freed now. */
  #ownsPinned(pool: number): boolean {
    const entries = this.#entries;
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const high = entries[i * 2 + 1];
      const slot = entries[i * 2] + (high & VALUE_HI_MASK) * 2 ** 32 - 1;
      if ((high & OWNED) !== 0 && this.host.pinned(pool, slot)) return true;
    }
    return false;
  }

  /** The slots that the opened leaf owns, in runs. */
  #dropEntries(pool: number, changes: Changes): void {
    const entries = this.#entries;
    let first = 0;
    let count = 0;
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const high = entries[i * 2 + 1];
      if ((high & OWNED) === 0) continue;
      const slot = entries[i * 2] + (high & VALUE_HI_MASK) * 2 ** 32 - 1;
      if (count > 0 && slot === first + count) {
        count++;
        continue;
      }
      if (count > 0) this.#dropRun(pool, first, count, changes);
      first = slot;
      count = 1;
    }
    if (count > 0) this.#dropRun(pool, first, count, changes);
  }

  /** The pages that the opened inner page owns. How much each frees is not known before it is read: an equal share. */
  #dropChildren(pool: number, mapped: number, changes: Changes): void {
    const entries = this.#entries;
    const owned: number[] = [];
    let present = 0;
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const high = entries[i * 2 + 1];
      const id = entries[i * 2] + (high & VALUE_HI_MASK) * 2 ** 32;
      if (id === 0) continue;
      present++;
      if ((high & OWNED) !== 0) owned.push(id);
    }
    const share = present === 0 ? 0 : Math.floor(mapped / present);
    for (const id of owned)
      changes.releases.push({ seq: this.host.nextRelease(pool, share), kind: RELEASE_PAGE, id, pool });
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
    if (this.host.hasNewChildren(id) || this.#newBases.has(id) || this.host.held(id)) return 'later';
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
    if (frames.level[ghost] === 0 && this.host.pinning() && this.#ghostOwnsPinned(ghost, row.pool)) return 'later';
    frames.pins[ghost]++;
    const child = this.#load(children[0]);
    frames.pins[ghost]--;
    if (child < 0 || this.#deadPages.has(children[0])) return 'later';
    if (dirty.includes(child) || dirty.includes(ghost)) return 'other target';
    const owner = this.host.ownerOf(frames.owner[child], frames.generation[child]);
    const wanted = owner ?? null;
    if (target !== undefined && target !== wanted) return 'other target';
    // its batches do not get through any more
    if (wanted !== null && wanted.failed !== 0) return 'later';
    if (wanted === null && (frames.dirty[child] || frames.flying[child])) return 'later';
    const last = children.length === 1;
    this.#adopt(ghost, child, last, wanted, row.pool, changes);
    dirty.push(child);
    // not dirty before the group is whole: what the group loads until then must not push it out
    frames.pins[child]++;
    if (last) {
      const base = frames.base[ghost];
      if (base !== 0 && this.reader.pageExtra(base) === -1) {
        changes.releases.push({
          seq: this.host.nextRelease(row.pool, 0),
          kind: RELEASE_GHOST,
          id: base,
          pool: row.pool,
        });
      }
      changes.pagesDeleted.push(id);
      this.#deadPages.add(id);
    } else {
      // the same ghost again, behind what is durable by then
      changes.releases.push({ seq: this.host.nextRelease(row.pool, 0), kind: RELEASE_GHOST, id, pool: row.pool });
    }
    changes.releasesDone.push(row.seq);
    return wanted;
  }

  #ghostOwnsPinned(ghost: number, pool: number): boolean {
    const { frames } = this;
    for (let i = 0; i < PAGE_ENTRIES; i++)
      if ((frames.high(ghost, i) & OWNED) !== 0 && this.host.pinned(pool, frames.value(ghost, i) - 1)) return true;
    return false;
  }

  #adopt(ghost: number, child: number, last: boolean, live: Resource | null, pool: number, changes: Changes): void {
    const { frames } = this;
    const leaf = frames.level[ghost] === 0;
    // A grant that is out copies from what the entry names now: written in place meanwhile, that write would be lost. And
    // a copy of the store may show the slot in a snapshot that is gone since; who knows what a pool that is not open carries.
    const slots = this.host.pool(pool);
    const granted = frames.pins[child] !== 0 || slots === undefined || slots.holding.on;
    const share = leaf || !last ? 0 : Math.floor(frames.mapped[ghost] / PAGE_ENTRIES);
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const ghostHigh = frames.high(ghost, i);
      if ((ghostHigh & OWNED) === 0) continue;
      const value = frames.value(ghost, i);
      const childHigh = frames.high(child, i);
      const borrows = (childHigh & OWNED) === 0 && frames.value(child, i) === value;
      if (borrows) {
        if (!last) {
          if (leaf) this.#addSlotRef(pool, value - 1, 1, changes);
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
          this.#slotDelta.get(pool)?.has(value - 1) !== true;
        frames.set(child, i, value, (alone ? OWNED | EXCLUSIVE : OWNED) | (childHigh & BAD));
      } else if (last) {
        if (leaf) this.#dropRun(pool, value - 1, 1, changes);
        else changes.releases.push({ seq: this.host.nextRelease(pool, share), kind: RELEASE_PAGE, id: value, pool });
      }
    }
    frames.base[child] = frames.base[ghost];
    if (frames.base[child] !== 0) this.#newBases.add(frames.base[child]);
  }
}
