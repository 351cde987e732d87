/**
 * What the engine's face asks of the mapper: making, deleting, snapshotting, cloning, rolling back, resizing resources.
 * Each operation runs alone on the resources it names, changes the map in memory at once, and answers when its batch is
 * durable.
 */
import { randomUUID } from 'node:crypto';
import type { Native } from '../native.ts';
import {
  type CommitBatch,
  type CommitResult,
  KIND_SNAPSHOT,
  KIND_VOLUME,
  RELEASE_PAGE,
  type ReleaseRow,
  type ResourceRow,
} from '../store/batch.ts';
import { EngineError, type ExtentInfo, type OpenHandle, type SnapshotInfo, type VolumeInfo } from '../types.ts';
import { Walk } from './extents.ts';
import type { Faults } from './faults.ts';
import type { Frames } from './frames.ts';
import type { Handles } from './handles.ts';
import type { Registry } from './registry.ts';
import { Resizing } from './resizing.ts';
import { Changes, Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import { BROKEN, heightFor, type Tree, WAIT } from './tree.ts';
import { Views, type ViewsHost } from './views.ts';

/** Largest resource: 1 PiB. */
export const SIZE_MAX = 2 ** 50;
/** Sizes are multiples of this. */
export const SECTOR_BYTES = 512;
/** Extents of one diff answer. */
const DIFF_EXTENTS_MAX = 65536;
/** Gaps of a copy that are looked at before others get a turn. */
const WALKS_PER_TURN = 64;

export type Done<T> = (error: EngineError | null, value?: T) => void;

export interface OperationsHost extends ViewsHost {
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
  ticket(done: (error: number) => void): number;
  /** not by a write: what of it somebody keeps elsewhere is old now */
  bytesChanged(r: Resource): void;
  /** Unix milliseconds */
  date(): number;
}

export class Operations {
  readonly views: Views;
  readonly #resizing: Resizing;

  constructor(
    readonly registry: Registry,
    readonly frames: Frames,
    readonly tree: Tree,
    readonly faults: Faults,
    readonly handles: Handles,
    readonly native: Native,
    readonly core: number,
    readonly host: OperationsHost,
  ) {
    this.views = new Views(registry, frames, host);
    this.#resizing = new Resizing(frames, tree, faults, handles, native, core, {
      pool: (r) => this.#pool(r),
      blockSize: (r) => this.views.blockSize(r),
      freeze: (r, work) => this.#freeze(r, work),
      durable: (r, end) => this.#durable(r, end),
      commitAll: () => host.commitAll(),
      whenFrames: (run) => host.whenFrames(run),
      isBad: (pool, slot) => host.isBad(pool, slot),
      sized: (r) => host.bytesChanged(r),
      ticket: (done) => host.ticket(done),
    });
  }

  // ---- finding

  #pool(r: Resource): SlotPool {
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

  /** @param least 0 where a file without bytes is meant, which a mount makes first and gives a size then */
  #checkSize(size: number, least = 1): void {
    if (!Number.isSafeInteger(size) || size < least)
      throw new EngineError('INVALID', 'a size is a positive number of bytes');
    if (size % SECTOR_BYTES !== 0) throw new EngineError('INVALID', `a size is a multiple of ${SECTOR_BYTES} bytes`);
    if (size > SIZE_MAX) throw new EngineError('TOO_LARGE', 'a volume has at most 1 PiB');
  }

  /**
   * Refuses a name that a volume has. One that a volume is giving up is still in the store, and batches of two volumes have
   * no order: true, and `again` runs when it is gone.
   */
  #nameWaits(name: string, again: () => void): boolean {
    if (this.registry.volume(name) !== undefined) throw new EngineError('EXISTS', `a volume named ${name} exists`);
    return this.registry.whenForgotten(name, again);
  }

  #guard<T>(done: Done<T>, work: () => void): void {
    try {
      work();
    } catch (error) {
      done(error instanceof EngineError ? error : new EngineError('IO', (error as Error).message));
    }
  }

  /** Runs `work` holding `names`' resources; they are looked up again once held, since they may have changed. */
  #holding<T>(find: () => Resource[], done: Done<T>, work: (finish: Done<T>) => void): void {
    this.#guard(done, () => {
      const first = find();
      this.registry.exclusive(first, (release) => {
        const finish: Done<T> = (error, value) => {
          release();
          done(error, value);
        };
        this.#guard(finish, () => {
          const again = find();
          if (again.length !== first.length || again.some((r, i) => r !== first[i]))
            throw new EngineError('BUSY', 'it was changed meanwhile; try again');
          work(finish);
        });
      });
    });
  }

  /** Answers with a view of what was done; runs where nothing catches what a view throws. */
  #answer<T>(done: Done<T>, error: EngineError | null, view: () => T): void {
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
  #durable(r: Resource, finish: (error: EngineError | null) => void): void {
    r.changes.waiters.push((error) =>
      finish(error === 0 ? null : new EngineError('POOL_FAILED', 'its data could not be made durable; see the log')),
    );
    this.host.cut(r);
    this.host.poke();
  }

  // ---- making

  createVolume(
    spec: { name: string; size?: number; pool?: string; from?: string },
    done: Done<VolumeInfo>,
    least = 1,
  ): void {
    if (spec.from !== undefined) {
      this.clone(spec.from, spec.name, spec.size, done);
      return;
    }
    this.#guard(done, () => {
      if (spec.size === undefined)
        throw new EngineError('INVALID', 'a volume needs a size, or a snapshot to start from');
      this.#checkSize(spec.size, least);
      if (this.#nameWaits(spec.name, () => this.createVolume(spec, done, least))) return;
      const pool = this.poolNamed(spec.pool);
      const row = this.#newRow(spec.name, KIND_VOLUME, 0, pool.id, spec.size, heightFor(spec.size, pool.blockSize));
      row.grp = row.id;
      const r = this.registry.add(row);
      const made = { ...row };
      r.changes.row = true;
      this.#durable(r, (error) => {
        if (error === null) this.registry.settleName(made, row.id);
        this.#answer(done, error, () => this.views.volume(r));
      });
    });
  }

  poolNamed(name: string | undefined): SlotPool {
    if (name === undefined) {
      const first = this.host.pools.values().next().value;
      if (first === undefined)
        throw new EngineError('NOT_FOUND', 'there is no pool; make one with `atoll pool create`');
      for (const pool of this.host.pools.values()) if (pool.row.name === 'local') return pool;
      return first;
    }
    for (const pool of this.host.pools.values()) if (pool.row.name === name) return pool;
    throw new EngineError('NOT_FOUND', `there is no pool named ${name}`);
  }

  #newRow(name: string, kind: number, volume: number, pool: number, size: number, height: number): ResourceRow {
    return {
      id: this.host.nextResource(),
      uuid: randomUUID(),
      name,
      kind,
      volume,
      pool,
      size,
      root: 0,
      height,
      generation: 1,
      protected: 0,
      created_at: this.host.date(),
      cloned_from: null,
      grp: -1,
      mapped: 0,
    };
  }

  clone(from: string, to: string, size: number | undefined, done: Done<VolumeInfo>): void {
    const work = (finish: Done<VolumeInfo>): void =>
      this.#guard(finish, () => {
        if (this.#nameWaits(to, () => work(finish))) return;
        const source = this.needSnapshot(from);
        const row = this.#newRow(to, KIND_VOLUME, 0, source.row.pool, source.row.size, source.row.height);
        row.root = source.row.root;
        row.mapped = source.row.mapped;
        row.cloned_from = from;
        row.grp = source.row.grp;
        this.host.accountChanged(row);
        if (size !== undefined) {
          this.#checkSize(size);
          if (size < source.row.size)
            throw new EngineError('INVALID', `${from} has ${source.row.size} bytes; a clone cannot be smaller`);
        }
        const r = new Resource(row);
        const grown = this.#growNew(r, size ?? row.size);
        if (grown === BROKEN) throw new EngineError('CORRUPT', `the root page of ${from} is damaged`);
        if (grown === WAIT) {
          this.host.commitAll();
          this.host.whenFrames(() => work(finish));
          return;
        }
        this.registry.add(row, r);
        const made = { ...row };
        r.changes.row = true;
        if (source.row.root !== 0) this.#addPageRef(r, source.row.root);
        this.#durable(r, (error) => {
          if (error === null) this.registry.settleName(made, row.id);
          this.#answer(finish, error, () => this.views.volume(r));
        });
      });
    this.#holding<VolumeInfo>(() => [this.needSnapshot(from)], done, work);
  }

  /** Grows a resource that nobody knows of yet; where that stops (WAIT, BROKEN) nothing is left of it. */
  #growNew(r: Resource, size: number): number {
    r.row.size = size;
    const wanted = heightFor(size, this.views.blockSize(r));
    while (r.row.height < wanted) {
      const result = this.tree.grow(r);
      if (result === 0) continue;
      for (const frame of r.changes.frames) this.frames.discard(frame);
      r.changes = new Changes();
      return result;
    }
    return 0;
  }

  #addPageRef(r: Resource, page: number): void {
    r.changes.pageRefs.push(page, 1);
    this.host.pageRefAdded(page);
    r.changes.waiters.push(() => this.host.pageRefDurable(page));
  }

  /**
   * A consistent cut (invariant 5): no map change on its way, no write of the old generation on its way, and every page so
   * far immutable. `work` runs at that moment, in one go; then changes go on.
   */
  #freeze(r: Resource, work: () => void): void {
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

  createSnapshot(volume: string, name: string, done: Done<SnapshotInfo>): void {
    this.#holding<SnapshotInfo>(
      () => [this.needVolume(volume)],
      done,
      (finish) => {
        const r = this.needVolume(volume);
        if (this.registry.snapshot(r, name) !== undefined)
          throw new EngineError('EXISTS', `a snapshot named ${volume}@${name} exists`);
        if (r.failed !== 0) throw new EngineError('POOL_FAILED', `${volume} has failed; see the log`);
        if (r.row.size === 0) throw new EngineError('INVALID', `${volume} is empty; give it a size first`);
        this.#freeze(r, () => {
          const blocks = this.views.mapped(r);
          const row = this.#newRow(name, KIND_SNAPSHOT, r.id, r.row.pool, r.row.size, r.row.height);
          row.root = r.row.root;
          row.mapped = blocks;
          row.grp = r.row.grp;
          this.host.accountChanged(row);
          const snapshot = this.registry.add(row);
          r.changes.row = true;
          r.changes.syncData = true;
          r.changes.rows.push(row);
          if (row.root !== 0) this.#addPageRef(r, row.root);
          // all that is written from now on goes to new slots
          const synced = this.host.pools.get(r.row.pool)?.leave(r);
          this.#durable(r, (error) => {
            synced?.();
            if (error === null) this.registry.settleName(row, row.id);
            else this.registry.kill(snapshot);
            this.#answer(finish, error, () => this.views.snapshot(snapshot));
          });
        });
      },
    );
  }

  // ---- going away

  deleteVolume(name: string, options: { force?: boolean; withSnapshots?: boolean }, done: Done<void>): void {
    this.#holding<void>(
      () => {
        const r = this.needVolume(name);
        return [r, ...this.registry.snapshotsOf(r)];
      },
      done,
      (finish) => {
        const r = this.needVolume(name);
        const snapshots = this.registry.snapshotsOf(r);
        if (snapshots.length > 0 && !options.withSnapshots) {
          throw new EngineError(
            'HAS_SNAPSHOTS',
            `${name} has ${snapshots.length} snapshot(s); delete them first, or use --with-snapshots`,
          );
        }
        for (const one of [r, ...snapshots]) {
          const full = this.registry.fullName(one);
          if (one.row.protected !== 0)
            throw new EngineError(
              'PROTECTED',
              `${full} is protected; \`atoll ${one === r ? 'volume' : 'snapshot'} protect ${full} --off\` first`,
            );
          if (one.openCount > 0)
            throw new EngineError(
              'BUSY',
              `${full} is open (${one.openCount} connection(s)); disconnect, or use --force`,
            );
        }
        for (const one of snapshots) this.#bury(one, r);
        this.#bury(r, r);
        this.#deleted(r, snapshots, finish);
      },
    );
  }

  deleteSnapshot(name: string, done: Done<void>): void {
    this.#holding<void>(
      () => {
        const s = this.needSnapshot(name);
        return [s, this.registry.get(s.row.volume) as Resource];
      },
      done,
      (finish) => {
        const s = this.needSnapshot(name);
        if (s.row.protected !== 0)
          throw new EngineError('PROTECTED', `${name} is protected; \`atoll snapshot protect ${name} --off\` first`);
        if (s.openCount > 0)
          throw new EngineError('BUSY', `${name} is open (${s.openCount} connection(s)); disconnect, or use --force`);
        const volume = this.registry.get(s.row.volume) as Resource;
        this.#bury(s, volume);
        this.#deleted(volume, [s], finish);
      },
    );
  }

  /** The row that gives back what a resource's root reaches. */
  #release(r: Resource): ReleaseRow {
    const { root, pool } = r.row;
    return { seq: this.host.nextRelease(pool, this.views.mapped(r)), kind: RELEASE_PAGE, id: root, pool };
  }

  /** The record goes with `carrier`'s batch; its root is released. */
  #bury(r: Resource, carrier: Resource): void {
    if (r !== carrier) this.handles.close(r);
    const changes = carrier.changes;
    if (r === carrier) changes.deleted = true;
    else changes.rowsDeleted.push(r.id);
    if (r.row.root !== 0) changes.releases.push(this.#release(r));
    this.host.accountChanged(r.row);
    this.registry.unname(r.row);
    this.registry.kill(r);
    if (r === carrier) {
      // its last batch has pages and its end in one: nobody ever sees them, so their data need not be durable
      changes.syncData = false;
      this.host.cut(r);
      this.handles.close(r);
    }
  }

  /** What was buried is gone, whether or not its volume's batches still get through. */
  #deleted(carrier: Resource, others: Resource[], finish: Done<void>): void {
    this.#finishBurial(carrier, others, (error) => {
      if (error === null) finish(null);
      else this.#deleteStored(carrier.dead ? [carrier, ...others] : others, finish);
    });
  }

  /**
   * Deletes what belongs to a volume that failed as the store has it, which no batch of the volume changes any more. What
   * memory has beyond that was never durable.
   */
  #deleteStored(gone: Resource[], finish: Done<void>): void {
    const batch = this.host.newBatch();
    for (const r of gone) {
      const stored = this.registry.reader.resource(r.id);
      if (stored === undefined) continue;
      this.registry.kill(r);
      batch.resourcesDeleted.push(r.id);
      const { root, pool, mapped } = stored;
      if (root !== 0)
        batch.releases.push({ seq: this.host.nextRelease(pool, mapped), kind: RELEASE_PAGE, id: root, pool });
      if (stored.kind === KIND_VOLUME) this.host.forgetPages(r);
    }
    this.host.sendLoose(batch, (error) => {
      for (const r of gone) this.registry.buried(r.id);
      this.host.poke();
      finish(error === null ? null : new EngineError('IO', error.message));
    });
  }

  #finishBurial(carrier: Resource, others: Resource[], finish: Done<void>): void {
    this.#durable(carrier, (error) => {
      for (const r of [carrier, ...others]) {
        if (!r.dead) continue;
        this.registry.buried(r.id);
        this.registry.settleName(r.row, 0);
      }
      this.host.poke();
      finish(error);
    });
  }

  // ---- changing

  rename(name: string, to: string, done: Done<VolumeInfo>): void {
    const work = (finish: Done<VolumeInfo>): void =>
      this.#guard(finish, () => {
        const r = this.needVolume(name);
        if (name === to) {
          finish(null, this.views.volume(r));
          return;
        }
        if (this.#nameWaits(to, () => work(finish))) return;
        const old = { ...r.row };
        this.registry.unname(r.row);
        r.row.name = to;
        this.registry.name(r.row, r.id);
        r.changes.row = true;
        this.#durable(r, (error) => {
          // the store still has the old one
          if (error !== null) r.row.name = old.name;
          this.registry.settleName(old, 0);
          this.registry.settleName({ ...old, name: to }, r.id);
          this.#answer(finish, error, () => this.views.volume(r));
        });
      });
    this.#holding<VolumeInfo>(() => [this.needVolume(name)], done, work);
  }

  protect(name: string, on: boolean, done: Done<void>): void {
    this.#holding<void>(
      () => [this.need(name)],
      done,
      (finish) => {
        const r = this.need(name);
        const before = r.row.protected;
        r.row.protected = on ? 1 : 0;
        r.changes.row = true;
        this.#durable(r, (error) => {
          if (error !== null) r.row.protected = before;
          finish(error);
        });
      },
    );
  }

  /** @param how `least`: see above; `lazily`: it only becomes larger, and durable with the next flush */
  resize(name: string, size: number, done: Done<VolumeInfo>, how: { least?: number; lazily?: boolean } = {}): void {
    this.#holding<VolumeInfo>(
      () => [this.needVolume(name)],
      done,
      (finish) => {
        this.#checkSize(size, how.least);
        const r = this.needVolume(name);
        if (r.failed !== 0) throw new EngineError('POOL_FAILED', `${name} has failed; see the log`);
        const end = (error: EngineError | null) => this.#answer(finish, error, () => this.views.volume(r));
        if (size < r.row.size && how.lazily) {
          end(null);
        } else if (size < r.row.size) {
          for (const s of this.registry.snapshotsOf(r)) {
            if (s.row.size > size) {
              throw new EngineError(
                'HAS_SNAPSHOTS',
                `${this.registry.fullName(s)} has ${s.row.size} bytes and could not be rolled back to; delete it, or keep that size`,
              );
            }
          }
          this.#resizing.shrink(r, size, end);
        } else {
          this.#resizing.grow(r, size, end, how.lazily);
        }
      },
    );
  }

  rollback(name: string, done: Done<VolumeInfo>): void {
    this.#holding<VolumeInfo>(
      () => {
        const s = this.needSnapshot(name);
        return [s, this.registry.get(s.row.volume) as Resource];
      },
      done,
      (finish) => {
        const s = this.needSnapshot(name);
        const r = this.registry.get(s.row.volume) as Resource;
        if (r.openCount > 0)
          throw new EngineError(
            'BUSY',
            `${r.row.name} is open (${r.openCount} connection(s)); rollback needs it closed`,
          );
        if (r.row.protected !== 0) throw new EngineError('PROTECTED', `${r.row.name} is protected`);
        this.#becomes(r, s.row);
        if (s.row.root !== 0) this.#addPageRef(r, s.row.root);
        this.#durable(r, (error) => this.#answer(finish, error, () => this.views.volume(r)));
      },
    );
  }

  /** The resource gets another's map; what it had is released. The caller accounts for the reference on the new root. */
  #becomes(r: Resource, other: ResourceRow): void {
    this.handles.close(r);
    // what it changed goes first, with its data, in a batch of its own; the move is one batch
    this.host.cut(r);
    r.row.generation++;
    this.#takeMap(r, other);
  }

  #takeMap(r: Resource, other: ResourceRow): void {
    if (r.row.root !== 0) r.changes.releases.push(this.#release(r));
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

  replaceWith(name: string, stagedName: string, done: Done<VolumeInfo>): void {
    this.#holding<VolumeInfo>(
      () => [this.needVolume(name), this.needVolume(stagedName)],
      done,
      (finish) => {
        const r = this.needVolume(name);
        const staged = this.needVolume(stagedName);
        for (const one of [r, staged])
          if (one.openCount > 0) throw new EngineError('BUSY', `${one.row.name} is open; it must be closed`);
        if (r.row.pool !== staged.row.pool) throw new EngineError('INVALID', 'both must be in one pool');
        staged.changes.syncData = true;
        // the staged map first, durable by itself; then one batch moves it
        this.#durable(staged, (error) => {
          if (error !== null) {
            finish(error);
            return;
          }
          this.handles.close(staged);
          this.#becomes(r, staged.row);
          r.changes.rowsDeleted.push(staged.id);
          this.registry.unname(staged.row);
          this.registry.kill(staged);
          this.#finishBurial(r, [staged], (last) => this.#answer(finish, last, () => this.views.volume(r)));
        });
      },
    );
  }

  // ---- copies of snapshots into open, empty volumes (docs/fuse.md, "Clones")

  /**
   * The volume, which is open and has no bytes, becomes a snapshot of which only some was copied, if the rest holds nothing.
   * @param copied blocks [from, to) after each other, ascending
   * @param size of the volume then: a multiple of a block, or the snapshot's
   * @param done gives what the snapshot has in blocks that were not copied, [from, to) after each other; nothing was done then
   */
  fill(id: number, from: string, size: number, copied: number[], done: Done<number[]>): void {
    this.#holding<number[]>(
      () => [this.#needEmpty(id), this.needSnapshot(from)],
      done,
      (finish) => {
        const r = this.#needEmpty(id);
        const source = this.needSnapshot(from);
        if (r.row.pool !== source.row.pool) throw new EngineError('UNSUPPORTED', 'only one pool can share its blocks');
        this.#mappedBesides(source, copied, (error, besides) => {
          if (error !== null || besides.length > 0) finish(error, besides);
          else
            this.#guard(finish, () =>
              this.#freeze(r, () => {
                this.#becomesOpen(r, { ...source.row, size });
                r.row.cloned_from = from;
                if (source.row.root !== 0) this.#addPageRef(r, source.row.root);
                this.#durable(r, (error) => finish(error, []));
              }),
            );
        });
      },
    );
  }

  /** Blocks [from, to) after each other lose what they have; nobody has the volume open. */
  clear(name: string, blocks: number[], done: Done<void>): void {
    this.#holding<void>(
      () => [this.needVolume(name)],
      done,
      (finish) => {
        const r = this.needVolume(name);
        this.faults.barrier(r, (release) => {
          const next = (i: number) => {
            if (i < blocks.length) {
              this.faults.unmapping.range(r, blocks[i], blocks[i + 1], false, (error) => {
                if (error === 0) return next(i + 2);
                release();
                finish(new EngineError('IO', `a copy could not be cleared: errno ${error}`));
              });
              return;
            }
            release();
            this.#durable(r, finish);
          };
          next(0);
        });
      },
    );
  }

  /** The volume, which is open and has no bytes, becomes one that nobody has open, and that is gone then. */
  take(id: number, stagedName: string, done: Done<void>): void {
    this.#holding<void>(
      () => [this.#needEmpty(id), this.needVolume(stagedName)],
      done,
      (finish) => {
        const r = this.#needEmpty(id);
        const staged = this.needVolume(stagedName);
        if (staged.openCount > 0) throw new EngineError('BUSY', `${stagedName} is open; it must be closed`);
        staged.changes.syncData = true;
        this.#durable(staged, (error) => {
          if (error !== null) return finish(error);
          this.#guard(finish, () =>
            this.#freeze(r, () => {
              this.handles.close(staged);
              this.#becomesOpen(r, staged.row);
              r.row.cloned_from = staged.row.cloned_from;
              r.changes.rowsDeleted.push(staged.id);
              this.registry.unname(staged.row);
              this.registry.kill(staged);
              this.#finishBurial(r, [staged], finish);
            }),
          );
        });
      },
    );
  }

  #needEmpty(id: number): Resource {
    const r = this.registry.get(id);
    if (r === undefined || r.dead) throw new EngineError('NOT_FOUND', `there is no resource ${id} any more`);
    if (r.failed !== 0) throw new EngineError('POOL_FAILED', `${r.row.name} has failed; see the log`);
    if (r.row.size !== 0) throw new EngineError('BUSY', `${r.row.name} was given bytes by somebody else`);
    return r;
  }

  /** At a consistent cut of `r`, which has no bytes: no request of the reactors reaches its map. */
  #becomesOpen(r: Resource, other: ResourceRow): void {
    this.handles.forgetLeaves(r);
    this.host.cut(r);
    this.#takeMap(r, other);
    if (r.handle >= 0) this.handles.publishSize(r);
    this.faults.entries.mapChanged(r);
  }

  /** Which blocks of a snapshot hold something and are in none of the ranges. */
  #mappedBesides(
    source: Resource,
    ranges: number[],
    done: (error: EngineError | null, besides: number[]) => void,
  ): void {
    const blocks = Math.ceil(source.row.size / this.views.blockSize(source));
    const gaps: number[] = [];
    let known = 0;
    for (let i = 0; i < ranges.length; i += 2) {
      if (ranges[i] > known) gaps.push(known, ranges[i]);
      known = ranges[i + 1];
    }
    if (known < blocks) gaps.push(known, blocks);
    const besides: number[] = [];
    let gap = 0;
    const turn = () => {
      for (let walks = 0; gap < gaps.length; walks++) {
        if (walks === WALKS_PER_TURN) return this.host.nextTurn(turn);
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
        );
        const { next, status } = walk.run();
        if (status === BROKEN)
          return done(new EngineError('CORRUPT', 'a map page of the snapshot is damaged; `atoll check` names it'), []);
        gaps[gap] = next;
        if (next >= gaps[gap + 1]) gap += 2;
        else if (status === WAIT) {
          this.host.commitAll();
          return this.host.whenFrames(turn);
        }
      }
      done(null, besides);
    };
    turn();
  }

  // ---- opening

  open(name: string, done: Done<OpenHandle>): void {
    this.#holding<OpenHandle>(
      () => [this.need(name)],
      done,
      (finish) => {
        const r = this.need(name);
        const pool = this.#pool(r);
        this.handles.open(r, pool);
        finish(null, {
          handle: r.handle,
          id: r.row.uuid,
          name: this.registry.fullName(r),
          size: r.row.size,
          blockSize: pool.blockSize,
          readOnly: r.row.kind === KIND_SNAPSHOT,
        });
      },
    );
  }

  // ---- comparing

  diff(
    aName: string,
    bName: string,
    offset: number,
    max: number,
    done: Done<{ extents: ExtentInfo[]; next: number | null }>,
  ): void {
    this.#guard(done, () => {
      const a = this.need(aName);
      const b = this.need(bName);
      const pool = this.#pool(b);
      if (a.row.pool !== b.row.pool) throw new EngineError('INVALID', 'only resources of one pool can be compared');
      const end = Math.max(a.row.size, b.row.size);
      const limit = Math.max(1, Math.min(max, DIFF_EXTENTS_MAX));
      const extents: ExtentInfo[] = [];
      let from = Math.floor(offset / pool.blockSize);
      const turn = () => {
        const walk = new Walk(
          this.tree,
          this.frames,
          b,
          a,
          from,
          Math.ceil(end / pool.blockSize),
          (first, count, changed, data) => {
            from = first + count;
            if (!changed) return true;
            const start = first * pool.blockSize;
            const length = Math.min(end, from * pool.blockSize) - start;
            const last = extents[extents.length - 1];
            if (last !== undefined && last.data === data && last.offset + last.length === start) last.length += length;
            else if (extents.length === limit) {
              from = first;
              return false;
            } else extents.push({ offset: start, length, data });
            return true;
          },
        );
        const result = walk.run();
        if (result.status === BROKEN)
          done(new EngineError('CORRUPT', `a map page of ${aName} or ${bName} is damaged; \`atoll check\` names it`));
        else if (from * pool.blockSize >= end) done(null, { extents, next: null });
        else if (extents.length === limit) done(null, { extents, next: from * pool.blockSize });
        else this.host.whenFrames(turn);
      };
      turn();
    });
  }
}
