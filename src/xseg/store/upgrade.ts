/**
 * Format steps (docs/format.md, "Versions"): what brings a store from one version to the next. A new store is made by the
 * first version's tables and all steps after it, so an upgraded store and a new one are alike.
 */
import type Database from 'better-sqlite3';
import { EngineError } from '../types.ts';
import { SEAL_TABLES } from './seal-tables.ts';

export interface FormatStep {
  /** the version that the store has after it */
  to: number;
  /** statements; they run inside the one transaction of the upgrade */
  sql: string;
}

/** The oldest version that can be upgraded. */
export const FORMAT_OLDEST = 1;

/** In order, without gaps. Adding one raises FORMAT_VERSION; a step that was released is never changed. */
export const STEPS: readonly FormatStep[] = [
  { to: 2, sql: SEAL_TABLES },
  // records of ingests: an older version would keep for ever what was not finished
  { to: 3, sql: '' },
  { to: 4, sql: 'ALTER TABLE seal_pool ADD COLUMN verify INTEGER NOT NULL DEFAULT 0' },
  {
    to: 5,
    sql: `ALTER TABLE resource ADD COLUMN attached TEXT; ALTER TABLE resource ADD COLUMN attached_to TEXT;
      ALTER TABLE resource ADD COLUMN attached_at INTEGER`,
  },
  // entries of zeroes: an older version would look for a slot of that number
  { to: 6, sql: '' },
];

/** Version of everything on disk; a newer one is refused. */
export const FORMAT_VERSION = STEPS[STEPS.length - 1].to;

/**
 * Runs the steps that the store is missing, as one transaction: a crash leaves the old version or the new one, whole.
 * @param before called after the statements and before the commit; for the test that kills it there
 * @returns the version it had
 * @throws {EngineError} CORRUPT for a version that never was
 */
export function upgrade(db: Database.Database, steps: readonly FormatStep[] = STEPS, before?: () => void): number {
  const had = db.pragma('user_version', { simple: true }) as number;
  const last = steps[steps.length - 1].to;
  if (had === last) return had;
  if (had < FORMAT_OLDEST || had > last)
    throw new EngineError('CORRUPT', `${db.name} says format ${had}, which never was`);
  db.exec('BEGIN IMMEDIATE');
  try {
    for (const step of steps) if (step.to > had) db.exec(step.sql);
    db.pragma(`user_version = ${last}`);
    before?.();
    db.exec('COMMIT');
  } catch (error) {
    if (db.inTransaction) db.exec('ROLLBACK');
    throw error;
  }
  return had;
}
