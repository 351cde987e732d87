/**
 * Where a pool's next group comes from: groups that the store has and nobody has loaded, new ones, those that could not be
 * prepared before. Knows numbers and counts of groups, and no slots.
 */
import { FILES_MAX } from '../layout.gen.ts';
import { GROUP_ACTIVE } from '../store/batch.ts';
import type { Clock } from './clock.ts';

/** Groups of the store with fewer than this share used are prepared before new ones; the others only when nothing else is left. */
const FULL_SHARE = 0.95;
/** No group is prepared for so long after one could not be; whatever failed it may fail them all. */
const PREPARE_RETRY_MS = 1000;
/** Groups that could not be prepared, at most, before they are tried again instead of others. */
const FAILED_GROUPS_MAX = 16;

export interface StoredGroup {
  grp: number;
  /** slots */
  used: number;
  state: number;
}

/** What it asks its pool. */
export interface SupplyHost {
  readonly groupSlots: number;
  /** each group is a file of its own, which reads as zeroes when it is made */
  readonly isDirectory: boolean;
  /** of the pool; Infinity for thin ones */
  slotLimit(): number;
  isLoaded(grp: number): boolean;
  /** groups on their way */
  preparing(): number;
  /** a loaded group has slots to hand out */
  hasRoom(): boolean;
  /** free slots that are not known to be zero stay as they are, since an old copy of the store may name them */
  holdsBack(): boolean;
}

export class Supply {
  /** groups that there were at the start; `used` is kept for those that are not loaded */
  readonly #stored = new Map<number, StoredGroup>();
  #nextNew = 0;
  /** could not be prepared, the last try last */
  readonly #failed = new Set<number>();
  /** monotonic ms before which no new group is prepared, nor one that failed */
  #newAt = 0;
  /** … none at all, when one of the store's failed */
  #anyAt = 0;

  constructor(
    stored: Iterable<StoredGroup>,
    readonly host: SupplyHost,
    readonly clock: Clock,
  ) {
    for (const group of stored) {
      this.#stored.set(group.grp, { ...group });
      this.#nextNew = Math.max(this.#nextNew, group.grp + 1);
    }
  }

  /** Groups that there were at the start. */
  get stored(): number[] {
    return [...this.#stored.keys()];
  }

  /** It is being prepared. */
  taken(grp: number): void {
    if (grp >= this.#nextNew) this.#nextNew = grp + 1;
  }

  prepared(grp: number): void {
    this.#failed.delete(grp);
  }

  /** @param fromStore the store had it before */
  couldNotBe(grp: number, fromStore: boolean): void {
    this.#failed.delete(grp);
    this.#failed.add(grp);
    this.#newAt = this.clock.now() + PREPARE_RETRY_MS;
    if (fromStore) this.#anyAt = this.#newAt;
  }

  /** What failed may go well now. */
  tryAgain(): void {
    this.#newAt = 0;
    this.#anyAt = 0;
  }

  /** Slots of a group that is not loaded were freed. */
  freed(grp: number, slots: number): void {
    const stored = this.#stored.get(grp);
    if (stored !== undefined) stored.used -= slots;
  }

  /**
   * The group to prepare next: one of the store that has free slots, a new one, one that failed before, one of the store that has
   * hardly any; −1 none now.
   */
  next(): number {
    const now = this.clock.now();
    if (now < this.#anyAt) return -1;
    // of an active one nothing is known: while copies hold that back, it has nothing to give
    const known = this.#storedBelow(FULL_SHARE, ({ state }) => !this.host.holdsBack() || state !== GROUP_ACTIVE);
    if (known >= 0) return known;
    const rests = now < this.#newAt;
    const fits = !rests && this.#failed.size < FAILED_GROUPS_MAX && this.#newFits();
    if (fits && this.#failed.size === 0) return this.#nextNew;
    const left = this.#leftOver();
    if (left >= 0) return left;
    if (fits) return this.#nextNew;
    if (!rests) for (const grp of this.#failed) if (!this.host.isLoaded(grp)) return grp;
    return -1;
  }

  /** A group that never was, and reads as zeroes as soon as it is made; −1 when there is none. */
  fresh(): number {
    const fits = this.host.isDirectory && this.#failed.size === 0 && this.#newFits();
    return fits && this.clock.now() >= this.#newAt ? this.#nextNew : -1;
  }

  #newFits(): boolean {
    if (this.host.isDirectory && this.#nextNew >= FILES_MAX) return false;
    return this.#nextNew * this.host.groupSlots < this.host.slotLimit();
  }

  /** A group of the store with hardly anything free, or of which nothing is known, when none that is loaded has room; −1 none. */
  #leftOver(): number {
    if (this.host.holdsBack()) {
      const unknown = this.#storedBelow(FULL_SHARE);
      if (unknown >= 0) return unknown;
    }
    if (this.host.preparing() > 0 || this.host.hasRoom()) return -1;
    return this.#storedBelow(1);
  }

  /** A group of the store that is not loaded, with less than that share of it used; −1 when there is none. */
  #storedBelow(share: number, wanted: (group: StoredGroup) => boolean = () => true): number {
    for (const group of this.#stored.values()) {
      const { grp, used } = group;
      if (used >= this.host.groupSlots * share || this.host.isLoaded(grp) || this.#failed.has(grp)) continue;
      if (wanted(group)) return grp;
    }
    return -1;
  }
}
