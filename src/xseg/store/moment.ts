/** Many reads of the store at one moment of it. */
import type { StoreDatabase } from './schema.ts';

/**
 * Runs `work` in one read transaction, or in the one that is under way. Reads by themselves would take locks each, and forget
 * the pages they read whenever somebody commits in between.
 */
export function atOneMoment<T>(db: StoreDatabase, work: () => T): T {
  if (db.inTransaction) return work();
  db.exec('BEGIN');
  try {
    return work();
  } finally {
    db.exec('COMMIT');
  }
}
