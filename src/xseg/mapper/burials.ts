/** Deleting volumes and snapshots: what they were goes with a batch, what their maps reach is released behind it. */
import { KIND_VOLUME, RELEASE_PAGE, type ReleaseRow } from '../store/batch.ts';
import { EngineError } from '../types.ts';
import { refuseAttached } from './attaching.ts';
import type { Resource } from './resource.ts';
import type { Done, Steps } from './steps.ts';

export class Burials {
  constructor(readonly steps: Steps) {}

  deleteVolume(name: string, options: { force?: boolean; withSnapshots?: boolean }, done: Done<void>): void {
    this.steps.holding<void>(
      () => {
        const r = this.steps.needVolume(name);
        return [r, ...this.steps.registry.snapshotsOf(r)];
      },
      done,
      (finish) => {
        const r = this.steps.needVolume(name);
        const snapshots = this.steps.registry.snapshotsOf(r);
        if (snapshots.length > 0 && !options.withSnapshots) {
          throw new EngineError(
            'HAS_SNAPSHOTS',
            `${name} has ${snapshots.length} snapshot(s); delete them first, or use --with-snapshots`,
          );
        }
        for (const one of [r, ...snapshots]) {
          const full = this.steps.registry.fullName(one);
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
          if (!options.force) refuseAttached(one);
        }
        for (const one of snapshots) this.#bury(one, r);
        this.#bury(r, r);
        this.#deleted(r, snapshots, finish);
      },
    );
  }

  deleteSnapshot(name: string, done: Done<void>): void {
    this.steps.holding<void>(
      () => this.steps.needSnapshotOfVolume(name),
      done,
      (finish) => {
        const [s, volume] = this.steps.needSnapshotOfVolume(name);
        if (s.row.protected !== 0)
          throw new EngineError('PROTECTED', `${name} is protected; \`atoll snapshot protect ${name} --off\` first`);
        if (s.openCount > 0)
          throw new EngineError('BUSY', `${name} is open (${s.openCount} connection(s)); disconnect, or use --force`);
        this.#bury(s, volume);
        this.#deleted(volume, [s], finish);
      },
    );
  }

  /** The record goes with `carrier`'s batch; its root is released. */
  #bury(r: Resource, carrier: Resource): void {
    if (r !== carrier) this.steps.handles.close(r);
    const changes = carrier.changes;
    if (r === carrier) changes.deleted = true;
    else changes.rowsDeleted.push(r.id);
    if (r.row.root !== 0) changes.releases.push(this.steps.release(r));
    this.steps.host.accountChanged(r.row);
    this.steps.registry.unname(r.row);
    this.steps.registry.kill(r);
    if (r === carrier) {
      // its last batch has pages and its end in one: nobody ever sees them, so their data need not be durable
      changes.syncData = false;
      this.steps.host.cut(r);
      this.steps.handles.close(r);
    }
  }

  /** What was buried is gone, whether or not its volume's batches still get through. */
  #deleted(carrier: Resource, others: Resource[], finish: Done<void>): void {
    this.finish(carrier, others, (error) => {
      if (error === null) finish(null);
      else this.#deleteStored(carrier.dead ? [carrier, ...others] : others, finish);
    });
  }

  /**
   * Deletes what belongs to a volume that failed as the store has it, which no batch of the volume changes any more. What
   * memory has beyond that was never durable.
   */
  #deleteStored(gone: Resource[], finish: Done<void>): void {
    const ids: number[] = [];
    const releases: ReleaseRow[] = [];
    for (const r of gone) {
      const stored = this.steps.registry.reader.resource(r.id);
      if (stored === undefined) continue;
      this.steps.registry.kill(r);
      ids.push(r.id);
      const { root, pool, mapped } = stored;
      if (root !== 0)
        releases.push({ seq: this.steps.host.nextRelease(pool, mapped), kind: RELEASE_PAGE, id: root, pool });
      if (stored.kind === KIND_VOLUME) this.steps.host.forgetPages(r);
    }
    // after the rows: it has the number of the next one
    const batch = this.steps.host.newBatch();
    batch.resourcesDeleted.push(...ids);
    batch.releases.push(...releases);
    this.steps.host.sendLoose(batch, (error) => {
      for (const r of gone) this.#gone(r);
      this.steps.host.poke();
      finish(error === null ? null : new EngineError('IO', error.message));
    });
  }

  /** Answers when the dead among them are gone from the store. */
  finish(carrier: Resource, others: Resource[], finish: Done<void>): void {
    this.steps.durable(carrier, (error) => {
      for (const r of [carrier, ...others]) {
        if (!r.dead) continue;
        this.#gone(r);
        this.steps.registry.settleName(r.row, 0);
      }
      this.steps.host.poke();
      finish(error);
    });
  }

  /** Who counted its family until now counted it too. */
  #gone(r: Resource): void {
    this.steps.registry.buried(r.id);
    this.steps.host.accountChanged(r.row);
  }
}
