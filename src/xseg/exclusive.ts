/**
 * How much of each resource nobody else has: what deleting it would free (docs/format.md, "Space in numbers").
 *
 * A *family* is what descends from one volume: its snapshots, their clones, and so on. Its members share pages, and slots at
 * equal block numbers, so one walk down all maps at once finds what is one member's alone; where two have the same page
 * everything below is theirs together and is not read. Slots that sealing folded are shared across families and block
 * numbers: `slot_ref` counts them.
 */
import { ENTRIES, ZEROES } from './page-table.ts';

/** Values of entries held at once per level of the walk: 8 MiB. */
const VALUES_MAX = 2 ** 20;
/** Slots with extra references that are kept apart; beyond, they count as shared. */
const FOLDED_MAX = 2 ** 20;
/** Pages between two chances to stop. */
const TURN_PAGES = 1024;
/** several members have it */
const SHARED = -1;

export interface Member {
  id: number;
  root: number;
  height: number;
}

/** What the walk reads. */
export interface FamilyStore {
  /** Fills 512 × (low, high). False: the page is missing or damaged. */
  entries(page: number, into: Uint32Array): boolean;
  /** blocks mapped below a page, from its header; −1 missing or damaged */
  mapped(page: number): number;
  /** no slot of the pool has more than one reference */
  readonly noExtras: boolean;
  /** every block that headers count has a slot: none of zeroes was folded away */
  readonly noZeroes: boolean;
  /** slots of [first, first + count) that have more than one reference */
  slotExtras(first: number, count: number): { slot: number; extra: number }[];
}

export interface FamilyResult {
  /** blocks that only this member has, by its id; null: a page cannot be read */
  blocks: Map<number, number> | null;
  /** slots with references that no member of the family holds: another family's, or of what is being freed */
  foreign: boolean;
}

/** Pages (or, negative, a root that a higher tree does not have levels for) at one place of the tree. */
interface Group {
  page: number;
  /** who alone has it, or SHARED */
  member: number;
}

export class FamilyWalk {
  readonly #blocks = new Map<number, number>();
  readonly #heights = new Map<number, number>();
  /** slots with extras that one member alone has here: who, and how often */
  readonly #folded = new Map<number, { member: number; seen: number; wanted: number }>();
  readonly #entries = new Uint32Array(ENTRIES * 2);
  #foreign = false;
  #pages = 0;

  /** @param turn called every so many pages; may throw to end the walk */
  constructor(
    readonly store: FamilyStore,
    readonly turn: () => void = () => undefined,
  ) {}

  run(members: readonly Member[]): FamilyResult {
    const groups = new Map<number, Group>();
    let level = 0;
    for (const { id, root, height } of members) {
      this.#blocks.set(id, 0);
      if (root === 0) continue;
      this.#heights.set(root, height);
      level = Math.max(level, height);
      const same = groups.get(root);
      if (same === undefined) groups.set(root, { page: root, member: id });
      else same.member = SHARED;
    }
    const top = [...groups.values()].map((g) =>
      (this.#heights.get(g.page) as number) < level ? { ...g, page: -g.page } : g,
    );
    try {
      this.#place(level, top);
    } catch (error) {
      if (error instanceof Unreadable) return { blocks: null, foreign: false };
      throw error;
    }
    this.#countFolded();
    return { blocks: this.#blocks, foreign: this.#foreign };
  }

  #add(member: number, blocks: number): void {
    this.#blocks.set(member, (this.#blocks.get(member) as number) + blocks);
  }

  /** One place of the tree: the pages of `level` that members have there. */
  #place(level: number, groups: Group[]): void {
    if (groups.every(({ member }) => member === SHARED)) return;
    const [first] = groups;
    if (groups.length === 1 && first.page > 0 && this.store.noExtras && this.store.noZeroes) {
      const blocks = this.store.mapped(first.page);
      if (blocks < 0) throw new Unreadable();
      this.#add(first.member, blocks);
      return;
    }
    const width = Math.min(ENTRIES, Math.max(1, Math.floor(VALUES_MAX / groups.length)));
    for (let from = 0; from < ENTRIES; from += width) {
      const to = Math.min(ENTRIES, from + width);
      const values = this.#values(level, groups, from, to);
      if (level === 0) this.#leaf(groups, values, to - from);
      else
        for (let i = 0; i < to - from; i++) {
          const below = this.#at(groups, values, i, to - from);
          if (below.size > 0) this.#place(level - 1, [...below.values()]);
        }
    }
  }

  /** Entries [from, to) of every group's page, one group after another. */
  #values(level: number, groups: Group[], from: number, to: number): Float64Array {
    const width = to - from;
    const values = new Float64Array(groups.length * width);
    for (const [g, { page }] of groups.entries()) {
      if (page < 0) {
        const root = -page;
        if (from === 0) values[g * width] = (this.#heights.get(root) as number) < level - 1 ? page : root;
        continue;
      }
      if (++this.#pages % TURN_PAGES === 0) this.turn();
      if (!this.store.entries(page, this.#entries)) throw new Unreadable();
      for (let i = from; i < to; i++) {
        const value = this.#entries[i * 2] + (this.#entries[i * 2 + 1] & 0xffff) * 2 ** 32;
        values[g * width + i - from] = level === 0 && value === ZEROES ? 0 : value;
      }
    }
    return values;
  }

  /** What the members have at entry `i`: by value, who alone has it or SHARED. */
  #at(groups: Group[], values: Float64Array, i: number, width: number): Map<number, Group> {
    const found = new Map<number, Group>();
    for (let g = 0; g < groups.length; g++) {
      const value = values[g * width + i];
      if (value === 0) continue;
      const same = found.get(value);
      if (same === undefined) found.set(value, { page: value, member: groups[g].member });
      else same.member = SHARED;
    }
    return found;
  }

  #leaf(groups: Group[], values: Float64Array, width: number): void {
    const alone: { slot: number; member: number }[] = [];
    for (let i = 0; i < width; i++) {
      if (groups.length === 1) {
        if (values[i] !== 0) alone.push({ slot: values[i] - 1, member: groups[0].member });
        continue;
      }
      for (const { page, member } of this.#at(groups, values, i, width).values())
        if (member !== SHARED) alone.push({ slot: page - 1, member });
    }
    if (this.store.noExtras) {
      for (const { member } of alone) this.#add(member, 1);
      return;
    }
    alone.sort((a, b) => a.slot - b.slot);
    for (let at = 0; at < alone.length; ) {
      let end = at + 1;
      while (end < alone.length && alone[end].slot <= alone[end - 1].slot + 1) end++;
      this.#run(alone.slice(at, end));
      at = end;
    }
  }

  /** Slots in a row, each named by one member here. */
  #run(run: { slot: number; member: number }[]): void {
    const first = run[0].slot;
    const extras = new Map<number, number>();
    for (const { slot, extra } of this.store.slotExtras(first, run[run.length - 1].slot - first + 1))
      extras.set(slot, extra);
    for (const { slot, member } of run) {
      const extra = extras.get(slot) ?? 0;
      if (extra === 0) this.#add(member, 1);
      else this.#fold(slot, member, 1 + extra);
    }
  }

  #fold(slot: number, member: number, wanted: number): void {
    const known = this.#folded.get(slot);
    if (known !== undefined) {
      known.seen++;
      if (known.member !== member) known.member = SHARED;
    } else if (this.#folded.size < FOLDED_MAX) {
      this.#folded.set(slot, { member, seen: 1, wanted });
    }
  }

  /** A slot with several references is one member's when all of them are. */
  #countFolded(): void {
    for (const { member, seen, wanted } of this.#folded.values()) {
      if (seen < wanted) this.#foreign = true;
      else if (member !== SHARED) this.#add(member, 1);
    }
  }
}

class Unreadable extends Error {}
