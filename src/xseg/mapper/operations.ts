/**
 * What the engine's face asks of the mapper: making, snapshotting, cloning, rolling back, resizing, opening resources.
 * Each operation runs alone on the resources it names, changes the map in memory at once, and answers when its batch is
 * durable.
 */
import { randomUUID } from 'node:crypto';
import { takeApart } from '../names.ts';
import { KIND_SNAPSHOT, KIND_VOLUME, NOT_ATTACHED, type ResourceRow } from '../store/batch.ts';
import { type Access, EngineError, type OpenHandle, type SnapshotInfo, type VolumeInfo } from '../types.ts';
import { Attaching, refuseAttached, refuseFailed, writesAs } from './attaching.ts';
import type { Burials } from './burials.ts';
import { diff } from './diff.ts';
import type { Frames } from './frames.ts';
import { Resizing } from './resizing.ts';
import { Changes, Resource } from './resource.ts';
import type { SlotPool } from './slots.ts';
import type { Done, Steps } from './steps.ts';
import { BROKEN, heightFor, type Tree, WAIT } from './tree.ts';

export class Operations {
  readonly attaching: Attaching;
  readonly #resizing: Resizing;

  constructor(
    readonly steps: Steps,
    readonly burials: Burials,
    readonly frames: Frames,
    readonly tree: Tree,
  ) {
    const { host } = steps;
    this.attaching = new Attaching(steps);
    this.#resizing = new Resizing(frames, tree, steps.faults, steps.handles, steps.native, steps.core, {
      pool: (r) => steps.pool(r),
      blockSize: (r) => steps.views.blockSize(r),
      freeze: (r, work) => steps.freeze(r, work),
      durable: (r, end) => steps.durable(r, end),
      commitAll: () => host.commitAll(),
      whenFrames: (run) => host.whenFrames(run),
      isBad: (pool, slot) => host.isBad(pool, slot),
      sized: (r) => host.bytesChanged(r),
    });
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
    this.steps.guard(done, () => {
      if (spec.size === undefined)
        throw new EngineError('INVALID', 'a volume needs a size, or a snapshot to start from');
      this.steps.checkSize(spec.size, least);
      if (this.steps.nameWaits(spec.name, () => this.createVolume(spec, done, least))) return;
      const pool = this.poolNamed(spec.pool);
      const row = this.#newRow(spec.name, KIND_VOLUME, 0, pool.id, spec.size, heightFor(spec.size, pool.blockSize));
      row.grp = row.id;
      const r = this.steps.registry.add(row);
      const made = { ...row };
      r.changes.row = true;
      this.steps.durable(r, (error) => {
        if (error === null) this.steps.registry.settleName(made, row.id);
        this.steps.answer(done, error, () => this.steps.views.volume(r));
      });
    });
  }

  poolNamed(name: string | undefined): SlotPool {
    if (name === undefined) {
      const first = this.steps.host.pools.values().next().value;
      if (first === undefined)
        throw new EngineError('NOT_FOUND', 'there is no pool; make one with `atoll pool create`');
      for (const pool of this.steps.host.pools.values()) if (pool.row.name === 'local') return pool;
      return first;
    }
    for (const pool of this.steps.host.pools.values()) if (pool.row.name === name) return pool;
    throw new EngineError('NOT_FOUND', `there is no pool named ${name}`);
  }

  #newRow(name: string, kind: number, volume: number, pool: number, size: number, height: number): ResourceRow {
    return {
      id: this.steps.host.nextResource(),
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
      created_at: this.steps.host.date(),
      cloned_from: null,
      grp: -1,
      mapped: 0,
      ...NOT_ATTACHED,
    };
  }

  clone(from: string, to: string, size: number | undefined, done: Done<VolumeInfo>): void {
    const work = (finish: Done<VolumeInfo>): void =>
      this.steps.guard(finish, () => {
        if (this.steps.nameWaits(to, () => work(finish))) return;
        const source = this.steps.needSnapshot(from);
        const row = this.#newRow(to, KIND_VOLUME, 0, source.row.pool, source.row.size, source.row.height);
        row.root = source.row.root;
        row.mapped = source.row.mapped;
        row.cloned_from = from;
        row.grp = source.row.grp;
        this.steps.host.accountChanged(row);
        if (size !== undefined) {
          this.steps.checkSize(size);
          if (size < source.row.size)
            throw new EngineError('INVALID', `${from} has ${source.row.size} bytes; a clone cannot be smaller`);
        }
        const r = new Resource(row);
        const grown = this.#growNew(r, size ?? row.size);
        if (grown === BROKEN) throw new EngineError('CORRUPT', `the root page of ${from} is damaged`);
        if (grown === WAIT) {
          this.steps.host.commitAll();
          this.steps.host.whenFrames(() => work(finish));
          return;
        }
        this.steps.registry.add(row, r);
        const made = { ...row };
        r.changes.row = true;
        if (source.row.root !== 0) this.steps.addPageRef(r, source.row.root);
        this.steps.durable(r, (error) => {
          if (error === null) this.steps.registry.settleName(made, row.id);
          this.steps.answer(finish, error, () => this.steps.views.volume(r));
        });
      });
    this.steps.holding<VolumeInfo>(() => [this.steps.needSnapshot(from)], done, work);
  }

  /** Grows a resource that nobody knows of yet; where that stops (WAIT, BROKEN) nothing is left of it. */
  #growNew(r: Resource, size: number): number {
    r.row.size = size;
    const wanted = heightFor(size, this.steps.views.blockSize(r));
    while (r.row.height < wanted) {
      const result = this.tree.grow(r);
      if (result === 0) continue;
      for (const frame of r.changes.frames) this.frames.discard(frame);
      r.changes = new Changes();
      return result;
    }
    return 0;
  }

  createSnapshot(volume: string, name: string, done: Done<SnapshotInfo>): void {
    this.steps.holding<SnapshotInfo>(
      () => [this.steps.needVolume(volume)],
      done,
      (finish) => {
        const r = this.steps.needVolume(volume);
        if (this.steps.registry.snapshot(r, name) !== undefined)
          throw new EngineError('EXISTS', `a snapshot named ${volume}@${name} exists`);
        refuseFailed(r);
        if (r.row.size === 0) throw new EngineError('INVALID', `${volume} is empty; give it a size first`);
        this.steps.freeze(r, () => {
          const blocks = this.steps.views.mapped(r);
          const row = this.#newRow(name, KIND_SNAPSHOT, r.id, r.row.pool, r.row.size, r.row.height);
          row.root = r.row.root;
          row.mapped = blocks;
          row.grp = r.row.grp;
          this.steps.host.accountChanged(row);
          const snapshot = this.steps.registry.add(row);
          r.changes.row = true;
          r.changes.syncData = true;
          r.changes.rows.push(row);
          if (row.root !== 0) this.steps.addPageRef(r, row.root);
          // all that is written from now on goes to new slots
          const synced = this.steps.host.pools.get(r.row.pool)?.leave(r);
          // named, but nobody's to clone before it is durable: a clone has no data to wait for, and would be first
          this.steps.registry.exclusive([snapshot], (release) =>
            this.steps.durable(r, (error) => {
              synced?.();
              // named or not, from here on the store says
              this.steps.registry.settleName(row, row.id);
              if (error !== null) this.steps.registry.kill(snapshot);
              release();
              this.steps.answer(finish, error, () => this.steps.views.snapshot(snapshot));
            }),
          );
        });
      },
    );
  }

  // ---- changing

  rename(name: string, to: string, done: Done<VolumeInfo>): void {
    const work = (finish: Done<VolumeInfo>): void =>
      this.steps.guard(finish, () => {
        const r = this.steps.needVolume(name);
        if (name === to) {
          finish(null, this.steps.views.volume(r));
          return;
        }
        if (this.steps.nameWaits(to, () => work(finish))) return;
        const old = { ...r.row };
        this.steps.registry.unname(r.row);
        r.row.name = to;
        this.steps.registry.name(r.row, r.id);
        r.changes.row = true;
        this.steps.durable(r, (error) => {
          // the store still has the old one
          if (error !== null) r.row.name = old.name;
          this.steps.registry.settleName(old, 0);
          this.steps.registry.settleName({ ...old, name: to }, r.id);
          this.steps.answer(finish, error, () => this.steps.views.volume(r));
        });
      });
    this.steps.holding<VolumeInfo>(() => [this.steps.needVolume(name)], done, work);
  }

  protect(name: string, on: boolean, done: Done<void>): void {
    this.steps.holding<void>(
      () => [this.steps.need(name)],
      done,
      (finish) => {
        const r = this.steps.need(name);
        const before = r.row.protected;
        r.row.protected = on ? 1 : 0;
        r.changes.row = true;
        this.steps.durable(r, (error) => {
          if (error !== null) r.row.protected = before;
          finish(error);
        });
      },
    );
  }

  /**
   * @param how `least`: see above; `lazily`: it only becomes larger, and durable with the next flush; `writing`: for who has it
   * not attached, and may change it only while nobody has
   */
  resize(
    name: string,
    size: number,
    done: Done<VolumeInfo>,
    how: { least?: number; lazily?: boolean; writing?: boolean } = {},
  ): void {
    this.steps.holding<VolumeInfo>(
      () => [this.steps.needVolume(name)],
      done,
      (finish) => {
        this.steps.checkSize(size, how.least);
        const r = this.steps.needVolume(name);
        if (how.writing) refuseAttached(r);
        if (r.failed !== 0) throw new EngineError('POOL_FAILED', `${name} has failed; see the log`);
        const end = (error: EngineError | null) => this.steps.answer(finish, error, () => this.steps.views.volume(r));
        if (size < r.row.size && how.lazily) {
          end(null);
        } else if (size < r.row.size) {
          for (const s of this.steps.registry.snapshotsOf(r)) {
            if (s.row.size > size) {
              throw new EngineError(
                'HAS_SNAPSHOTS',
                `${this.steps.registry.fullName(s)} has ${s.row.size} bytes and could not be rolled back to; delete it, or keep that size`,
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
    this.steps.holding<VolumeInfo>(
      () => this.steps.needSnapshotOfVolume(name),
      done,
      (finish) => {
        const [s, r] = this.steps.needSnapshotOfVolume(name);
        if (r.openCount > 0)
          throw new EngineError(
            'BUSY',
            `${r.row.name} is open (${r.openCount} connection(s)); rollback needs it closed`,
          );
        refuseFailed(r);
        refuseAttached(r);
        refuseProtected(r);
        this.steps.becomes(r, s.row);
        if (s.row.root !== 0) this.steps.addPageRef(r, s.row.root);
        this.steps.durable(r, (error) => this.steps.answer(finish, error, () => this.steps.views.volume(r)));
      },
    );
  }

  /** @param since VOL@SNAP: only while the volume has what that has; null: whatever it has */
  replaceWith(name: string, stagedName: string, since: string | null, done: Done<VolumeInfo>): void {
    this.steps.holding<VolumeInfo>(
      () => [this.steps.needVolume(name), this.steps.needVolume(stagedName)],
      done,
      (finish) => {
        const r = this.steps.needVolume(name);
        const staged = this.steps.needVolume(stagedName);
        for (const one of [r, staged]) {
          if (one.openCount > 0) throw new EngineError('BUSY', `${one.row.name} is open; it must be closed`);
          refuseAttached(one);
          refuseFailed(one);
        }
        if (r.row.pool !== staged.row.pool) throw new EngineError('INVALID', 'both must be in one pool');
        refuseProtected(r);
        const replace = (): void => {
          staged.changes.syncData = true;
          // the staged map first, durable by itself; then one batch moves it
          this.steps.settled(staged, (error) => {
            if (error !== null) {
              finish(error);
              return;
            }
            this.steps.handles.close(staged);
            this.steps.becomes(r, staged.row);
            r.changes.rowsDeleted.push(staged.id);
            this.steps.registry.unname(staged.row);
            this.steps.registry.kill(staged);
            this.burials.finish(r, [staged], (last) =>
              this.steps.answer(finish, last, () => this.steps.views.volume(r)),
            );
          });
        };
        if (since === null) replace();
        else this.#unchanged(r, since, (error) => (error === null ? replace() : finish(error)));
      },
    );
  }

  /** Whether a volume that nobody else can change now has what a snapshot of it has. Error: BASE_DIFFERS, or CORRUPT. */
  #unchanged(r: Resource, since: string, done: (error: EngineError | null) => void): void {
    const text = `volume ${JSON.stringify(r.row.name)} changed meanwhile; it was left as it is`;
    const changed = new EngineError('BASE_DIFFERS', text);
    const snapshot = this.steps.registry.byFullName(since);
    if (snapshot?.row.volume !== r.id || snapshot.row.size !== r.row.size) {
      done(changed);
      return;
    }
    diff(this.steps, this.tree, this.frames, since, r.row.name, 0, 1, (error, found) =>
      done(error ?? (found !== null && found !== undefined && found.extents.length > 0 ? changed : null)),
    );
  }

  // ---- opening

  /** @param name of a volume or snapshot, or `VOLUME/ATTACHMENT` */
  open(name: string, access: Access, done: Done<OpenHandle>): void {
    const [full, attachment] = takeApart(name);
    this.steps.holding<OpenHandle>(
      () => [this.steps.need(full)],
      done,
      (finish) => {
        const r = this.steps.need(full);
        const pool = this.steps.pool(r);
        const writes = writesAs(r, access, attachment);
        this.steps.handles.open(r, pool, writes);
        finish(null, {
          handle: r.handle,
          id: r.row.uuid,
          name: this.steps.registry.fullName(r),
          size: r.row.size,
          blockSize: pool.blockSize,
          readOnly: !writes,
        });
      },
    );
  }
}

function refuseProtected(r: Resource): void {
  if (r.row.protected !== 0) throw new EngineError('PROTECTED', `${r.row.name} is protected`);
}
