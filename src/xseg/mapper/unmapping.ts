/** Unmapping: whole blocks of a range lose their slots, or get fresh ones that read as zeroes, a slice of one page at a time. */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import type { Entries } from './entries.ts';
import { EIO, ENOSPC } from './errors.ts';
import { EXCLUSIVE, type Frames, OWNED } from './frames.ts';
import type { Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { BROKEN, EMPTY, type Tree, WAIT } from './tree.ts';

/** Pages an unmapping touches before others get a turn. */
const UNMAP_PAGES_PER_TURN = 64;
/** a slice waits for slots and will run again by itself */
const PARKED = -3;
const NO_SLOTS = -4;

export interface UnmappingHost {
  poolOf(resource: Resource): SlotPool;
  /** asks for batches of all that is dirty: frames or slots ran out */
  commitAll(): void;
  /** true when so much is dirty that new changes must wait */
  tooDirty(): boolean;
  /** runs again when frames may be had, or less is dirty */
  whenFrames(run: () => void): void;
  /** runs again next turn */
  nextTurn(run: () => void): void;
}

export class Unmapping {
  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly entries: Entries,
    readonly native: Native,
    readonly core: number,
    readonly host: UnmappingHost,
  ) {}

  /**
   * Unmaps (or gives fresh zero slots to) blocks [from, until) in slices; under a barrier.
   * @param until is asked every time, and last right before `done`: the size of the volume may change while this waits
   */
  range(resource: Resource, from: number, until: () => number, allocate: boolean, done: (error: number) => void): void {
    let at = from;
    const turn = () => {
      const to = until();
      // Every time: barriers do not exclude each other, and what another unmapping cleared meanwhile may be unlinked here.
      this.tree.settle(resource);
      for (let pages = 0; at < to; pages++) {
        if (pages >= UNMAP_PAGES_PER_TURN) {
          this.host.nextTurn(turn);
          return;
        }
        if (this.host.tooDirty()) {
          this.host.commitAll();
          this.host.whenFrames(turn);
          return;
        }
        const next = allocate ? this.#allocateSlice(resource, at, to, turn) : this.#clearSlice(resource, at, to);
        if (next === WAIT) {
          this.host.commitAll();
          this.host.whenFrames(turn);
          return;
        }
        if (next === PARKED) return;
        if (next < 0) {
          done(next === BROKEN ? EIO : ENOSPC);
          return;
        }
        at = next;
      }
      done(0);
    };
    turn();
  }

  /** One page's worth of unmapping from block `at`; returns the next block, WAIT or BROKEN. */
  #clearSlice(resource: Resource, at: number, to: number): number {
    const { tree, frames } = this;
    const height = resource.row.height;
    if (at >= PAGE_ENTRIES ** (height + 1)) return to;
    let level = 0;
    while (level < height && at % PAGE_ENTRIES ** (level + 1) === 0 && at + PAGE_ENTRIES ** (level + 1) <= to) level++;
    const leaf = Math.floor(at / PAGE_ENTRIES);
    const span = PAGE_ENTRIES ** level;
    // an empty place high up is skipped whole, without making pages for it
    for (let l = height; l >= level; l--) {
      const frame = tree.find(resource, leaf, l);
      if (frame === EMPTY) {
        const skipped = PAGE_ENTRIES ** (l + 1);
        return Math.min(to, (Math.floor(at / skipped) + 1) * skipped);
      }
      if (frame < 0 && l === level) {
        if (frame === WAIT) return WAIT;
        return BROKEN;
      }
    }
    const frame = tree.writable(resource, leaf, level);
    if (frame < 0) return frame;
    const index = Math.floor(at / span) % PAGE_ENTRIES;
    const count = Math.min(PAGE_ENTRIES - index, Math.floor((to - at) / span));
    if (level === 0) {
      const present = tree.clear(resource, frame, index, index + count, (value, exclusive) =>
        this.entries.drop(resource, value - 1, exclusive ? OWNED | EXCLUSIVE : OWNED),
      );
      frames.delta[frame] -= present;
      if (present > 0) tree.touch(resource, frame);
    } else {
      const leaves = span / PAGE_ENTRIES;
      const firstLeaf = Math.floor(at / PAGE_ENTRIES);
      if (resource.handle >= 0) frames.unhashRange(resource.handle, firstLeaf, firstLeaf + count * leaves);
      if (tree.unlink(resource, frame, index, index + count) === WAIT) return WAIT;
    }
    this.entries.mapChanged(resource);
    return at + count * span;
  }

  /** NO_HOLE: fresh zero slots for blocks of one leaf from `at`. Returns the next block, WAIT, BROKEN, PARKED or NO_SLOTS. */
  #allocateSlice(resource: Resource, at: number, to: number, again: () => void): number {
    const { frames } = this;
    const frame = this.tree.writable(resource, Math.floor(at / PAGE_ENTRIES));
    if (frame < 0) return frame;
    const index = at % PAGE_ENTRIES;
    const pool = this.host.poolOf(resource);
    const run = pool.allocate(resource, Math.min(PAGE_ENTRIES - index, to - at));
    if (run === 'full') return NO_SLOTS;
    if (run === 'failed') return BROKEN;
    if (run === 'wait') {
      if (pool.freeingSlots > 0) this.host.commitAll();
      pool.waiters.push(again);
      return PARKED;
    }
    // its zeroes may be a hole that is not durable yet
    this.native.markFile(this.core, resource.handle, pool.fileOf(run.slot));
    frames.pins[frame]++;
    this.entries.publish({ resource, block: at, count: run.count, slot: run.slot, frame });
    frames.pins[frame]--;
    return at + run.count;
  }
}
