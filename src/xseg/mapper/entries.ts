/** Leaf entries of a resource's own pages change here and nowhere else: a slot comes in, what was there goes. */
import { PAGE_ENTRIES, VolumeRecord } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { RELEASE_SLOT } from '../store/batch.ts';
import { EXCLUSIVE, type Frames, OWNED } from './frames.ts';
import type { Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import type { Tree } from './tree.ts';

/** Blocks that get slots: `count` of one leaf from `block` on, `slot` and those behind it. */
export interface Run {
  resource: Resource;
  block: number;
  count: number;
  slot: number;
  /** of the leaf, the resource's own */
  frame: number;
}

export interface EntriesHost {
  poolOf(resource: Resource): SlotPool;
  nextRelease(pool: number, blocks: number): number;
  changed(resource: Resource): void;
}

export class Entries {
  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly native: Native,
    readonly core: number,
    readonly recordAt: (handle: number) => number,
    readonly host: EntriesHost,
  ) {}

  /** What the blocks had goes. */
  publish(run: Run): void {
    const { resource, frame } = run;
    const index = run.block % PAGE_ENTRIES;
    let fresh = 0;
    for (let i = 0; i < run.count; i++) {
      const old = this.frames.value(frame, index + i);
      if (old === 0) fresh++;
      else this.drop(resource, old - 1, this.frames.high(frame, index + i));
    }
    // First: from the moment the entries are there others write in place, and their flush must find the map changed.
    this.mapChanged(resource);
    this.native.publishRun(this.core, frame, index, run.count, run.slot, OWNED | EXCLUSIVE);
    this.frames.delta[frame] += fresh;
    resource.changes.taken.push(resource.row.pool, run.slot, run.count);
    this.tree.touch(resource, frame);
  }

  /** A leaf entry of the resource's own page goes: its slot is free at once when nobody else can have it. */
  drop(resource: Resource, slot: number, high: number): void {
    if ((high & OWNED) === 0) return;
    if ((high & EXCLUSIVE) !== 0) {
      resource.changes.freed.push(resource.row.pool, slot, 1);
      this.host.poolOf(resource).freeingSlots++;
    } else {
      resource.changes.releases.push({
        seq: this.host.nextRelease(resource.row.pool, 1),
        kind: RELEASE_SLOT,
        id: slot,
        pool: resource.row.pool,
      });
    }
  }

  mapChanged(resource: Resource): void {
    resource.mapDirty = (resource.mapDirty + 1) >>> 0;
    if (resource.handle >= 0)
      Atomics.store(this.frames.words, this.recordAt(resource.handle) + VolumeRecord.mapDirty / 4, resource.mapDirty);
    this.host.changed(resource);
  }
}
