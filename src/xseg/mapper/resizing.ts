/** A volume's new size: a taller tree, or blocks unmapped and the last block's tail zeroed (invariant 12: shrink, then grow). */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { ZEROES } from '../page-table.ts';
import { EngineError } from '../types.ts';
import type { Faults } from './faults.ts';
import { EXCLUSIVE, type Frames } from './frames.ts';
import type { Handles } from './handles.ts';
import type { Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { BROKEN, heightFor, type Tree, WAIT } from './tree.ts';

export interface ResizingHost {
  /** @throws {EngineError} IO when it is not open */
  pool(r: Resource): SlotPool;
  blockSize(r: Resource): number;
  /** runs `work` at a consistent cut */
  freeze(r: Resource, work: () => void): void;
  /** calls back when the resource's changes so far are durable */
  durable(r: Resource, end: (error: EngineError | null) => void): void;
  commitAll(): void;
  whenFrames(run: () => void): void;
  /** the slot is in quarantine */
  isBad(pool: number, slot: number): boolean;
  /** its size is another one now */
  sized(r: Resource): void;
}

export class Resizing {
  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly faults: Faults,
    readonly handles: Handles,
    readonly native: Native,
    readonly core: number,
    readonly host: ResizingHost,
  ) {}

  /** `lazily`: it is durable with the volume's next flush, like what will be written there. */
  grow(r: Resource, size: number, end: (error: EngineError | null) => void, lazily = false): void {
    const wanted = heightFor(size, this.host.blockSize(r));
    // no grant is out: each holds the pages that lead to its leaf, the root too
    this.faults.barrier(r, (release) => {
      const step = () => {
        while (r.row.height < wanted) {
          const result = this.tree.grow(r);
          if (result === WAIT) {
            this.host.commitAll();
            this.host.whenFrames(step);
            return;
          }
          if (result === BROKEN) {
            release();
            end(new EngineError('CORRUPT', `the root page of ${r.row.name} is damaged`));
            return;
          }
        }
        // first: who sees the size may write up to it in place, and a flush of that must find the map changed
        this.faults.entries.mapChanged(r);
        this.#setSize(r, size);
        release();
        if (lazily) end(null);
        else this.host.durable(r, end);
      };
      step();
    });
  }

  #setSize(r: Resource, size: number): void {
    r.row.size = size;
    r.changes.row = true;
    if (r.handle >= 0) this.handles.publishSize(r);
    this.host.sized(r);
  }

  /**
   * Beyond the new end everything is unmapped; the last block's tail becomes zeroes (invariant 12: shrink, then grow).
   * @throws {EngineError} BUSY when no handle is to be had
   */
  shrink(r: Resource, size: number, end: (error: EngineError | null) => void): void {
    const pool = this.host.pool(r);
    const oldBlocks = Math.ceil(r.row.size / pool.blockSize);
    const keep = Math.ceil(size / pool.blockSize);
    const before = r.row.size;
    // also where nobody has it open: the tail is data, which only batches of what has a handle sync before they name it
    this.handles.open(r, pool, false);
    this.host.freeze(r, () => {
      r.sizeInStore = before;
      this.#setSize(r, size);
      // From here, so that no write of the old generation is in a slot that goes or is copied.
      this.faults.barrier(r, (release) => {
        this.faults.unmapping.range(
          r,
          keep,
          () => oldBlocks,
          false,
          (error) => {
            const tail = size % pool.blockSize;
            const finish = (tailError: EngineError | null) => {
              r.sizeInStore = null;
              // What was unmapped is zeroes now; the volume keeps its size.
              this.#setSize(r, tailError === null ? size : before);
              release();
              this.host.durable(r, (error) => {
                this.handles.release(r.handle, false);
                end(tailError ?? error);
              });
            };
            if (error !== 0) finish(new EngineError('IO', `shrinking stopped: errno ${error}`));
            else if (tail === 0) finish(null);
            else this.#zeroTail(r, keep - 1, tail, finish);
          },
        );
      });
    });
  }

  /** The block's bytes from `tail` on become zeroes: where they are when nobody else has them, else in a new slot. */
  #zeroTail(r: Resource, block: number, tail: number, done: (error: EngineError | null) => void): void {
    const pool = this.host.pool(r);
    const index = block % PAGE_ENTRIES;
    const frame = this.tree.writable(r, Math.floor(block / PAGE_ENTRIES));
    const retry = () => this.#zeroTail(r, block, tail, done);
    if (frame === WAIT) {
      this.host.commitAll();
      this.host.whenFrames(retry);
      return;
    }
    if (frame === BROKEN) {
      done(new EngineError('CORRUPT', 'a map page of the last block is damaged'));
      return;
    }
    const old = this.frames.value(frame, index);
    if (old === 0 || old === ZEROES) {
      done(null);
      return;
    }
    // It was given back by a page that went since the cut: writes below the tail are in it already, and would miss a copy.
    if ((this.frames.high(frame, index) & EXCLUSIVE) !== 0) {
      done(this.#zeroed(r, pool, (old - 1) * pool.blockSize + tail, new Uint8Array(pool.blockSize - tail)));
      return;
    }
    // a copy of wrong bytes would be where no hash tells
    if (this.host.isBad(pool.id, old - 1)) {
      done(new EngineError('CORRUPT', 'the last block does not hold what it should'));
      return;
    }
    const run = pool.allocate(r, 1);
    if (run === 'wait') {
      this.host.commitAll();
      pool.waiters.push(retry);
      return;
    }
    if (run === 'full') {
      done(new EngineError('NO_SPACE', `pool ${pool.row.name} is full`));
      return;
    }
    if (run === 'failed') {
      done(new EngineError('POOL_FAILED', `pool ${pool.row.name} has failed; see the log`));
      return;
    }
    const bytes = new Uint8Array(pool.blockSize);
    const error =
      this.#read(pool, old - 1, bytes) ?? this.#zeroed(r, pool, run.slot * pool.blockSize, bytes.fill(0, tail));
    if (error === null) this.faults.entries.publish({ resource: r, frame, block, count: 1, slot: run.slot });
    else pool.abandon(run.slot, run.count);
    done(error);
  }

  #read(pool: SlotPool, slot: number, bytes: Uint8Array): EngineError | null {
    try {
      this.native.readNow(this.core, pool.handle, slot * pool.blockSize, bytes);
      return null;
    } catch (error) {
      return new EngineError('IO', (error as Error).message);
    }
  }

  /** Writes bytes that end in zeroes; the volume's next batch syncs them. */
  #zeroed(r: Resource, pool: SlotPool, address: number, bytes: Uint8Array): EngineError | null {
    try {
      this.native.writeNow(this.core, pool.handle, address, bytes);
    } catch (error) {
      return new EngineError('IO', (error as Error).message);
    }
    this.native.markFile(this.core, r.handle, pool.fileOf(Math.floor(address / pool.blockSize)));
    r.changes.syncData = true;
    return null;
  }
}
