/** Copies of snapshots into open, empty volumes (docs/fuse.md, "Clones"). */

import type { ResourceRow } from '../store/batch.ts';
import { EngineError } from '../types.ts';
import type { Burials } from './burials.ts';
import { Walk } from './extents.ts';
import type { Frames } from './frames.ts';
import type { Resource } from './resource.ts';
import type { Done, Steps } from './steps.ts';
import { BROKEN, type Tree, WAIT } from './tree.ts';

/** Gaps of a copy that are looked at before others get a turn. */
const WALKS_PER_TURN = 64;

export class Fills {
  constructor(
    readonly steps: Steps,
    readonly burials: Burials,
    readonly frames: Frames,
    readonly tree: Tree,
  ) {}

  /**
   * The volume, which is open and has no bytes, becomes a snapshot of which only some was copied, if the rest holds nothing.
   * @param copied blocks [from, to) after each other, ascending
   * @param size of the volume then: a multiple of a block, or the snapshot's
   * @param done gives what the snapshot has in blocks that were not copied, [from, to) after each other; nothing was done then
   */
  fill(id: number, from: string, size: number, copied: number[], done: Done<number[]>): void {
    this.steps.holding<number[]>(
      () => [this.#needEmpty(id), this.steps.needSnapshot(from)],
      done,
      (finish) => {
        const r = this.#needEmpty(id);
        const source = this.steps.needSnapshot(from);
        if (r.row.pool !== source.row.pool) throw new EngineError('UNSUPPORTED', 'only one pool can share its blocks');
        this.#mappedBesides(source, size, copied, (error, besides) => {
          if (error !== null || besides.length > 0) finish(error, besides);
          else
            this.steps.guard(finish, () =>
              this.steps.freeze(r, () => {
                this.#becomesOpen(r, { ...source.row, size });
                r.row.cloned_from = from;
                if (source.row.root !== 0) this.steps.addPageRef(r, source.row.root);
                this.steps.durable(r, (error) => finish(error, []));
              }),
            );
        });
      },
    );
  }

  /** Blocks [from, to) after each other lose what they have; nobody has the volume open. */
  clear(name: string, blocks: number[], done: Done<void>): void {
    this.steps.holding<void>(
      () => [this.steps.needVolume(name)],
      done,
      (finish) => {
        const r = this.steps.needVolume(name);
        this.steps.faults.barrier(r, (release) => {
          const next = (i: number) => {
            if (i < blocks.length) {
              this.steps.faults.unmapping.range(
                r,
                blocks[i],
                () => blocks[i + 1],
                false,
                (error) => {
                  // in a turn of its own: there may be tens of thousands
                  if (error === 0) return this.steps.host.nextTurn(() => next(i + 2));
                  release();
                  finish(new EngineError('IO', `a copy could not be cleared: errno ${error}`));
                },
              );
              return;
            }
            release();
            this.steps.durable(r, finish);
          };
          next(0);
        });
      },
    );
  }

  /** The volume, which is open and has no bytes, becomes one that nobody has open, and that is gone then. */
  take(id: number, stagedName: string, done: Done<void>): void {
    this.steps.holding<void>(
      () => [this.#needEmpty(id), this.steps.needVolume(stagedName)],
      done,
      (finish) => {
        const r = this.#needEmpty(id);
        const staged = this.steps.needVolume(stagedName);
        if (staged.openCount > 0) throw new EngineError('BUSY', `${stagedName} is open; it must be closed`);
        staged.changes.syncData = true;
        const taken = (error: EngineError | null): void => {
          if (error !== null) return finish(error);
          this.steps.guard(finish, () =>
            this.steps.freeze(r, () => {
              if (!staged.settled) return this.steps.settled(staged, taken);
              this.steps.handles.close(staged);
              this.#becomesOpen(r, staged.row);
              r.row.cloned_from = staged.row.cloned_from;
              r.changes.rowsDeleted.push(staged.id);
              this.steps.registry.unname(staged.row);
              this.steps.registry.kill(staged);
              this.burials.finish(r, [staged], finish);
            }),
          );
        };
        this.steps.settled(staged, taken);
      },
    );
  }

  #needEmpty(id: number): Resource {
    const r = this.steps.registry.get(id);
    if (r === undefined || r.dead) throw new EngineError('NOT_FOUND', `there is no resource ${id} any more`);
    if (r.failed !== 0) throw new EngineError('POOL_FAILED', `${r.row.name} has failed; see the log`);
    if (r.row.size !== 0) throw new EngineError('BUSY', `${r.row.name} was given bytes by somebody else`);
    return r;
  }

  /** At a consistent cut of `r`, which has no bytes: no request of the reactors reaches its map. */
  #becomesOpen(r: Resource, other: ResourceRow): void {
    this.steps.handles.forgetLeaves(r);
    this.steps.host.cut(r);
    this.steps.takeMap(r, other);
    this.steps.faults.entries.mapChanged(r);
    if (r.handle >= 0) this.steps.handles.publishSize(r);
  }

  /** Which blocks of a snapshot hold something and are in none of the ranges; those behind `size` must have no entries even. */
  #mappedBesides(
    source: Resource,
    size: number,
    ranges: number[],
    done: (error: EngineError | null, besides: number[]) => void,
  ): void {
    const blockSize = this.steps.views.blockSize(source);
    const blocks = Math.ceil(source.row.size / blockSize);
    const end = Math.min(blocks, Math.ceil(size / blockSize));
    const gaps: number[] = [];
    let known = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      if (ranges[i] > known) gaps.push(known, ranges[i]);
      known = ranges[i + 1];
    }
    if (known < end) gaps.push(known, end);
    if (end < blocks) gaps.push(Math.max(known, end), blocks);
    const besides: number[] = [];
    let gap = 0;
    const turn = () => {
      for (let walks = 0; gap < gaps.length; walks++) {
        if (walks === WALKS_PER_TURN) return this.steps.host.nextTurn(turn);
        const walk = new Walk(
          this.tree,
          this.frames,
          source,
          null,
          gaps[gap],
          gaps[gap + 1],
          (first, count, _changed, data) => {
            if (!data) return true;
            if (besides.length > 0 && besides[besides.length - 1] === first) besides[besides.length - 1] += count;
            else besides.push(first, first + count);
            return true;
          },
          gaps[gap] >= end,
        );
        const { next, status } = walk.run();
        if (status === BROKEN)
          return done(new EngineError('CORRUPT', 'a map page of the snapshot is damaged; `atoll check` names it'), []);
        gaps[gap] = next;
        if (next >= gaps[gap + 1]) gap += 2;
        else if (status === WAIT) {
          this.steps.host.commitAll();
          return this.steps.host.whenFrames(turn);
        }
      }
      done(null, besides);
    };
    turn();
  }
}
