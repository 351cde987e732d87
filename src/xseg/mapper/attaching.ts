/**
 * Exclusive attachments (docs/nbd.md, "Attachments"): of a volume that is attached, only who opens it by the attachment may
 * write. They are kept in the store, so that neither a restart nor a crash lets somebody else write.
 */
import { KIND_SNAPSHOT, NOT_ATTACHED, type ResourceRow } from '../store/batch.ts';
import { type Access, type AttachSpec, EngineError, type VolumeInfo } from '../types.ts';
import type { Resource } from './resource.ts';
import type { Done, Steps } from './steps.ts';

export class Attaching {
  constructor(readonly steps: Steps) {}

  /** The same id again is answered as it was. @throws {EngineError} BUSY when somebody has it, or writes */
  attach(name: string, spec: Required<AttachSpec>, done: Done<VolumeInfo>): void {
    this.steps.holding<VolumeInfo>(
      () => [this.steps.needVolume(name)],
      done,
      (finish) => {
        const r = this.steps.needVolume(name);
        if (r.row.attached === spec.id) return finish(null, this.steps.views.volume(r));
        refuseAttached(r);
        if (r.writers > 0)
          throw new EngineError('BUSY', `${name} is open for writing (${r.writers} times); close it, then attach it`);
        this.#become(r, { attached: spec.id, attached_to: spec.to, attached_at: this.steps.host.date() }, finish);
      },
    );
  }

  /** Nobody opens it by its attachment, or may again: who is disconnected would be back before it is detached. */
  bar(name: string, barred: boolean): void {
    this.steps.needVolume(name).barred = barred;
  }

  /** Nothing is written by the attachment any more. @throws {EngineError} BUSY while who has it may write */
  detach(name: string, done: Done<VolumeInfo>): void {
    this.steps.holding<VolumeInfo>(
      () => [this.steps.needVolume(name)],
      done,
      (finish) => {
        const r = this.steps.needVolume(name);
        if (r.row.attached === null) throw new EngineError('NOT_FOUND', `${name} is not attached`);
        if (r.writers > 0)
          throw new EngineError(
            'BUSY',
            `${name} is open by its attachment (${r.writers} connection(s)); disconnect, or use --force`,
          );
        this.#become(r, NOT_ATTACHED, finish);
      },
    );
  }

  /** In force at once, answered when it is durable; taken back where it never will be. */
  #become(r: Resource, now: Partial<ResourceRow>, finish: Done<VolumeInfo>): void {
    const { attached, attached_to, attached_at } = r.row;
    Object.assign(r.row, now);
    r.changes.row = true;
    this.steps.host.bytesChanged(r);
    this.steps.durable(r, (error) => {
      if (error !== null) Object.assign(r.row, { attached, attached_to, attached_at });
      this.steps.answer(finish, error, () => this.steps.views.volume(r));
    });
  }
}

/** @throws {EngineError} BUSY */
export function refuseFailed({ row, failed }: Resource): void {
  if (failed !== 0) throw new EngineError('POOL_FAILED', `${row.name} has failed; see the log`);
}

export function refuseAttached({ row }: Resource): void {
  if (row.attached !== null)
    throw new EngineError(
      'BUSY',
      `${row.name} is attached to ${row.attached_to}; \`atoll volume detach ${row.name}\` first`,
    );
}

/** @returns whether it is opened for writing. @throws {EngineError} NOT_FOUND for an attachment that it has not, BUSY */
export function writesAs(r: Resource, access: Access, attachment: string | null): boolean {
  if (attachment !== null && (attachment !== r.row.attached || r.barred))
    throw new EngineError('NOT_FOUND', `${r.row.name} has no such attachment`);
  if (r.row.kind === KIND_SNAPSHOT || access === 'read') return false;
  if (r.row.attached === attachment) return true;
  if (access === 'any') return false;
  refuseAttached(r);
  return false;
}
