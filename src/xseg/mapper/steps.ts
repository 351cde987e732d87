/**
 * What operations on resources are made of: finding them, having them alone, a consistent cut, maps that change hands, an
 * answer when all is durable.
 */
import type { Native } from '../native.ts';
import {
  type CommitBatch,
  type CommitResult,
  RELEASE_PAGE,
  type ReleaseRow,
  type ResourceRow,
} from '../store/batch.ts';
import { EngineError } from '../types.ts';
import type { Faults } from './faults.ts';
import type { Frames } from './frames.ts';
import type { Handles } from './handles.ts';
import type { Registry } from './registry.ts';
import type { Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { Views, type ViewsHost } from './views.ts';

/** Largest resource: 1 PiB. */
export const SIZE_MAX = 2 ** 50;
/** Sizes are multiples of this. */
export const SECTOR_BYTES = 512;

export type Done<T> = (error: EngineError | null, value?: T) => void;

export interface StepsHost extends ViewsHost {
  /** those that are open */
  pools: Map<number, SlotPool>;
  nextResource(): number;
  nextRelease(pool: number, blocks: number): number;
  nextPage(): number;
  changed(resource: Resource): void;
  commitSoon(resource: Resource): void;
  commitAll(): void;
  /** a batch now, behind those before it */
  cut(resource: Resource): void;
  nextTurn(run: () => void): void;
  newBatch(): CommitBatch;
  /** a batch of no resource's order */
  sendLoose(batch: CommitBatch, done: (error: CommitResult['error']) => void): void;
  /** pages of a volume that are not as the store has them leave the cache */
  forgetPages(resource: Resource): void;
  whenFrames(run: () => void): void;
  /** counts +1 of page_ref in batches that are not durable */
  pageRefAdded(page: number): void;
  pageRefDurable(page: number): void;
  poke(): void;
  /** the slot is in quarantine */
  isBad(pool: number, slot: number): boolean;
  /** its map, or who shares it, changed */
  accountChanged(row: ResourceRow): void;
  /** not by a write: what of it somebody keeps elsewhere is old now */
  bytesChanged(r: Resource): void;
  /** Unix milliseconds */
  date(): number;
}

export class Steps {
  readonly views: Views;

  constructor(
    readonly registry: Registry,
    frames: Frames,
    readonly faults: Faults,
    readonly handles: Handles,
    readonly native: Native,
    readonly core: number,
    readonly host: StepsHost,
  ) {
    this.views = new Views(registry, frames, host);
  }

  // ---- finding

  pool(r: Resource): SlotPool {
    const pool = this.host.pools.get(r.row.pool);
    if (pool === undefined) throw new EngineError('IO', `the pool of ${r.row.name} is not open`);
    return pool;
  }

  need(name: string): Resource {
    const r = this.registry.byFullName(name);
    if (r === undefined || r.dead) {
      throw new EngineError('NOT_FOUND', `there is no ${name.includes('@') ? 'snapshot' : 'volume'} named ${name}`);
    }
    return r;
  }

  needVolume(name: string): Resource {
    if (name.includes('@')) throw new EngineError('INVALID', `${name} names a snapshot; a volume is wanted`);
    return this.need(name);
  }

  needSnapshot(name: string): Resource {
    if (!name.includes('@'))
      throw new EngineError('INVALID', `${name} names a volume; a snapshot is named VOLUME@SNAPSHOT`);
    return this.need(name);
  }

  /** A snapshot, and the volume that it is of. */
  needSnapshotOfVolume(name: string): [Resource, Resource] {
    const snapshot = this.needSnapshot(name);
    return [snapshot, this.registry.get(snapshot.row.volume) as Resource];
  }

  /** @param least 0 where a file without bytes is meant, which a mount makes first and gives a size then */
  checkSize(size: number, least = 1): void {
    if (!Number.isInteger(size) || size < least)
      throw new EngineError('INVALID', 'a size is a positive number of bytes');
    if (size > SIZE_MAX) throw new EngineError('TOO_LARGE', 'a volume has at most 1 PiB');
    if (size % SECTOR_BYTES !== 0) throw new EngineError('INVALID', `a size is a multiple of ${SECTOR_BYTES} bytes`);
  }

  /**
   * Refuses a name that a volume has. One that a volume is giving up is still in the store, and batches of two volumes have
   * no order: true, and `again` runs when it is gone.
   */
  nameWaits(name: string, again: () => void): boolean {
    if (this.registry.volume(name) !== undefined) throw new EngineError('EXISTS', `a volume named ${name} exists`);
    return this.registry.whenForgotten(name, again);
  }

  guard<T>(done: Done<T>, work: () => void): void {
    try {
      work();
    } catch (error) {
      done(error instanceof EngineError ? error : new EngineError('IO', (error as Error).message));
    }
  }

  /** Runs `work` holding `names`' resources; they are looked up again once held, since they may have changed. */
  holding<T>(find: () => Resource[], done: Done<T>, work: (finish: Done<T>) => void): void {
    this.guard(done, () => {
      const first = find();
      this.registry.exclusive(first, (release) => {
        const finish: Done<T> = (error, value) => {
          release();
          done(error, value);
        };
        this.guard(finish, () => {
          const again = find();
          if (again.length !== first.length || again.some((r, i) => r.id !== first[i].id))
            throw new EngineError('BUSY', 'it was changed meanwhile; try again');
          work(finish);
        });
      });
    });
  }

  /** Answers with a view of what was done; runs where nothing catches what a view throws. */
  answer<T>(done: Done<T>, error: EngineError | null, view: () => T): void {
    if (error !== null) {
      done(error);
      return;
    }
    let value: T;
    try {
      value = view();
    } catch (cause) {
      done(cause instanceof EngineError ? cause : new EngineError('IO', (cause as Error).message));
      return;
    }
    done(null, value);
  }

  /** Answers when the resource's changes so far are durable. */
  durable(r: Resource, finish: (error: EngineError | null) => void): void {
    r.changes.waiters.push((error) =>
      finish(error === 0 ? null : new EngineError('POOL_FAILED', 'its data could not be made durable; see the log')),
    );
    this.host.cut(r);
    this.host.poke();
  }

  /**
   * The same, and nothing of it is left to be committed: folding and freeing may have changed its pages meanwhile, and a batch
   * of it behind another's that takes its map would bring its record back. True for this turn.
   */
  settled(r: Resource, finish: (error: EngineError | null) => void): void {
    this.durable(r, (error) => {
      if (error === null && !r.settled) this.settled(r, finish);
      else finish(error);
    });
  }

  // ---- changing together

  addPageRef(r: Resource, page: number): void {
    r.changes.pageRefs.push(page, 1);
    this.host.pageRefAdded(page);
    r.changes.waiters.push(() => this.host.pageRefDurable(page));
  }

  /**
   * A consistent cut (invariant 5): no map change on its way, no write of the old generation on its way, and every page so
   * far immutable. `work` runs at that moment, in one go; then changes go on.
   */
  freeze(r: Resource, work: () => void): void {
    this.faults.barrier(r, (release) => {
      const generation = r.handle >= 0 ? this.native.advanceGeneration(this.core, r.handle) : r.row.generation + 1;
      const look = () => {
        if (r.handle >= 0 && !this.native.writersDrained(this.core, r.handle)) {
          this.host.nextTurn(look);
          return;
        }
        try {
          r.row.generation = generation;
          work();
        } finally {
          release();
        }
      };
      look();
    });
  }

  /** The row that gives back what a resource's root reaches. */
  release(r: Resource): ReleaseRow {
    const { root, pool } = r.row;
    return { seq: this.host.nextRelease(pool, this.views.mapped(r)), kind: RELEASE_PAGE, id: root, pool };
  }

  /** The resource gets another's map; what it had is released. The caller accounts for the reference on the new root. */
  becomes(r: Resource, other: ResourceRow): void {
    this.handles.close(r);
    // what it changed goes first, with its data, in a batch of its own; the move is one batch
    this.host.cut(r);
    r.row.generation++;
    this.takeMap(r, other);
  }

  takeMap(r: Resource, other: ResourceRow): void {
    if (r.row.root !== 0) r.changes.releases.push(this.release(r));
    this.host.accountChanged(r.row);
    r.row.grp = other.grp;
    this.host.accountChanged(r.row);
    r.row.root = other.root;
    r.row.height = other.height;
    r.row.size = other.size;
    r.row.mapped = other.mapped;
    r.changes.row = true;
    this.host.bytesChanged(r);
  }
}
