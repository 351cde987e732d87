/** Walks maps: which blocks are mapped (allocation), which differ between two resources (changed since, diff). */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import { ZEROES } from '../page-table.ts';
import type { Frames } from './frames.ts';
import type { Resource } from './resource.ts';
import { BROKEN, type Tree, WAIT } from './tree.ts';

/** Pages one walk may look at before it answers with what it has. */
export const WALK_PAGES_MAX = 1024;

/** Called with runs of blocks in order, without gaps; false ends the walk. */
export type Emit = (first: number, count: number, changed: boolean, data: boolean) => boolean;

/** id of a page that only stands for levels a shorter tree does not have */
const VIRTUAL = -1;

export interface WalkResult {
  /** first block not walked */
  next: number;
  /** 0, WAIT (no frames) or BROKEN (block `next` cannot be known) */
  status: number;
}

/**
 * Walks blocks [from, to) of `a` against `b` (null: against nothing, so that changed means mapped).
 * Equal page ids are skipped whole: the cost is that of the difference.
 */
export class Walk {
  #pages = 0;
  #next = 0;
  #status = 0;

  constructor(
    readonly tree: Tree,
    readonly frames: Frames,
    readonly a: Resource,
    readonly b: Resource | null,
    readonly from: number,
    readonly to: number,
    readonly emit: Emit,
    /** entries of blocks that are known to be zero are data too */
    readonly zeroes = false,
  ) {}

  run(): WalkResult {
    const { a, b } = this;
    this.#next = this.from;
    let level = Math.max(a.row.height, b?.row.height ?? 0);
    while (PAGE_ENTRIES ** (level + 1) < this.to) level++;
    const rootOf = (r: Resource) => (level > r.row.height ? VIRTUAL : r.row.root);
    this.#page(level, rootOf(a), b === null ? 0 : rootOf(b), 0);
    return { next: this.#next, status: this.#status };
  }

  /** A page pair of `level` whose first block is `first`. False ends the walk. */
  #page(level: number, idA: number, idB: number, first: number): boolean {
    const span = PAGE_ENTRIES ** level;
    const end = Math.min(this.to, first + span * PAGE_ENTRIES);
    if (idA === 0 && idB === 0) return this.#run(end, false, false);
    if (idA === idB && idA !== VIRTUAL) return this.#run(end, false, true);
    const frameA = this.#load(idA, level);
    if (frameA < 0) return false;
    if (frameA > 0) this.frames.pins[frameA]++;
    const frameB = this.#load(idB, level);
    if (frameB > 0) this.frames.pins[frameB]++;
    let go = frameB >= 0;
    for (let i = Math.floor((this.#next - first) / span); go && i < PAGE_ENTRIES && first + i * span < this.to; i++) {
      const a = this.#entry(this.a, idA, frameA, level, i);
      const b = this.b === null ? 0 : this.#entry(this.b, idB, frameB, level, i);
      if (level === 0) go = this.#run(first + i + 1, a !== b, a !== 0);
      else go = this.#page(level - 1, a, b, first + i * span);
    }
    if (frameA > 0) this.frames.pins[frameA]--;
    if (frameB > 0) this.frames.pins[frameB]--;
    return go;
  }

  #entry(r: Resource, id: number, frame: number, level: number, index: number): number {
    if (id === VIRTUAL) return index === 0 ? (level - 1 > r.row.height ? VIRTUAL : r.row.root) : 0;
    const value = frame === 0 ? 0 : this.frames.value(frame, index);
    return level === 0 && value === ZEROES && !this.zeroes ? 0 : value;
  }

  #load(id: number, level: number): number {
    if (id === 0 || id === VIRTUAL) return 0;
    if (++this.#pages > WALK_PAGES_MAX) return WAIT;
    const frame = this.tree.load(id, level);
    if (frame < 0) this.#status = frame === BROKEN ? BROKEN : WAIT;
    return frame;
  }

  #run(end: number, changed: boolean, data: boolean): boolean {
    const from = this.#next;
    if (end <= from) return true;
    this.#next = Math.min(end, this.to);
    return this.emit(from, this.#next - from, changed, data) && this.#next < this.to;
  }
}
