/**
 * Copies the store, as one moment, to a file, while it is served: for the copies that pools carry and for backups. Runs in a
 * thread of its own.
 *
 * One read transaction is held over SQLite's online backup, so commits neither wait for it nor make it begin again; they go
 * to the log, which cannot be emptied meanwhile. So the copying is paced as long as the log is short.
 */
import { closeSync, fdatasyncSync, openSync, rmSync, statSync } from 'node:fs';
import { openReader, WAL_BYTES_MAX } from './schema.ts';

/** Pages of one step: 1 MiB. */
const STEP_PAGES = 256;

/** What a paced copy takes of the disk. */
export const COPY_BYTES_PER_SECOND = 64 * 1024 * 1024;
/** Written back this often, so that no sync of a guest's finds hundreds of megabytes before it. */
const SYNC_EVERY_BYTES = 8 * 1024 * 1024;

export interface CopyControl {
  /** false: as fast as it goes */
  paced(): boolean;
  /** true: give up */
  cancelled(): boolean;
  /** Hears when the moment that is copied is fixed. */
  fixed?(): void;
}

/** Thrown by a copy that was cancelled. */
export class Cancelled extends Error {}

const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** Keeps to COPY_BYTES_PER_SECOND since it was made, while it is asked to. */
export class Pace {
  #started = performance.now();
  #bytes = 0;

  constructor(readonly control: CopyControl) {}

  /** @throws {Cancelled} */
  took(bytes: number, mayWait = true): void {
    if (this.control.cancelled()) throw new Cancelled('the copy was cancelled');
    this.#bytes += bytes;
    if (!mayWait || !this.control.paced()) {
      // what was not waited for is not waited for later
      this.#started = performance.now();
      this.#bytes = 0;
      return;
    }
    const due = this.#started + (this.#bytes / COPY_BYTES_PER_SECOND) * 1000;
    const wait = due - performance.now();
    if (wait > 1) Atomics.wait(sleeper, 0, 0, Math.min(wait, 100));
  }
}

/** Makes a private, empty file for a copy; what a crash left of an earlier one goes. */
export function beginCopyFile(file: string): void {
  for (const end of ['', '-journal', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
  closeSync(openSync(file, 'wx', 0o600));
}

/**
 * @param file made by `beginCopyFile`
 * @returns the moment copied, Unix ms
 * @throws {Cancelled}, or what SQLite and the disk say; the file is the caller's to remove
 */
export async function copyStore(storePath: string, file: string, control: CopyControl): Promise<number> {
  const db = openReader(storePath);
  const fd = openSync(file, 'r+');
  try {
    // a read transaction begins with its first read
    db.exec('BEGIN');
    db.prepare('SELECT count(*) FROM pool').get();
    const takenAt = Date.now();
    control.fixed?.();
    const pace = new Pace(control);
    let last = 0;
    let unsynced = 0;
    await db.backup(file, {
      progress: ({ totalPages, remainingPages }) => {
        const done = totalPages - remainingPages;
        const bytes = (done - last) * 4096;
        last = done;
        unsynced += bytes;
        if (unsynced >= SYNC_EVERY_BYTES) {
          unsynced = 0;
          fdatasyncSync(fd);
        }
        const log = statSync(`${storePath}-wal`, { throwIfNoEntry: false })?.size ?? 0;
        pace.took(bytes, log < WAL_BYTES_MAX);
        return STEP_PAGES;
      },
    });
    fdatasyncSync(fd);
    return takenAt;
  } finally {
    closeSync(fd);
    db.close();
  }
}
