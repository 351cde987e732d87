/** Which statuses there are, and which of them pass: in those the daemon itself is at work (docs/catalog.md, "Passing states"). Loads nothing. */
import type { StorageTables } from './storage-rows.ts';

/** Tables whose rows pass through states while the daemon works on what they name. */
export type PassingTable = 'volume' | 'snapshot' | 'image' | 'object_version';

/**
 * What becomes of a row that a killed daemon left in a passing state, by whether what it names is whole in the engine.
 * `gone`: the row goes, and what it names with it. `back`: what it was before the work began, which left the volume as it was.
 */
export type Outcome = 'gone' | 'back' | (string & {});

interface Passing {
  made: Outcome;
  /** there is nothing, or not all of it */
  failed: Outcome;
}

const HARMLESS: Passing = { made: 'back', failed: 'error' };

export const PASSING: Readonly<Record<PassingTable, Readonly<Record<string, Passing>>>> = {
  volume: {
    creating: { made: 'available', failed: 'error' },
    downloading: { made: 'available', failed: 'error' },
    deleting: { made: 'gone', failed: 'gone' },
    extending: HARMLESS,
    reverting: HARMLESS,
    retyping: HARMLESS,
    uploading: HARMLESS,
    'backing-up': HARMLESS,
    'restoring-backup': { made: 'error_restoring', failed: 'error_restoring' },
  },
  snapshot: {
    creating: { made: 'available', failed: 'error' },
    deleting: { made: 'gone', failed: 'gone' },
    'backing-up': HARMLESS,
  },
  image: {
    saving: { made: 'active', failed: 'killed' },
    uploading: { made: 'killed', failed: 'killed' },
    importing: { made: 'active', failed: 'killed' },
    pending_delete: { made: 'gone', failed: 'gone' },
  },
  // Nobody was told of it.
  object_version: { uploading: { made: 'gone', failed: 'gone' } },
};

/** Those that stay until somebody asks for another. */
const LASTING: Readonly<Partial<Record<keyof StorageTables, readonly string[]>>> = {
  volume: [
    ...['available', 'in-use', 'reserved', 'attaching', 'detaching', 'maintenance', 'awaiting-transfer', 'managing'],
    ...['error', 'error_deleting', 'error_extending', 'error_restoring', 'error_managing', 'error_backing-up'],
  ],
  snapshot: ['available', 'error', 'error_deleting', 'unmanaging', 'restoring'],
  image: ['queued', 'active', 'deactivated', 'killed', 'deleted'],
  object_version: ['active'],
  attachment: [
    ...['reserved', 'attaching', 'attached', 'detaching', 'detached', 'deleted'],
    ...['error_attaching', 'error_detaching'],
  ],
  image_member: ['pending', 'accepted', 'rejected'],
};

export function isStatus(table: string, status: unknown): boolean {
  const lasting = LASTING[table as keyof StorageTables];
  const passing = PASSING[table as PassingTable] ?? {};
  return lasting === undefined || lasting.includes(status as string) || Object.hasOwn(passing, status as string);
}
