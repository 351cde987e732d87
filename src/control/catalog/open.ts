/** Connections to the catalog's SQLite file. */
import fs from 'node:fs';
import Database from 'better-sqlite3';
import { ControlError } from '../errors.ts';
import { CATALOG_STEPS, CATALOG_VERSION, type CatalogStep } from './migrations.ts';

/** `ATLC`: says that a file is a catalog of ours */
const APPLICATION_ID = 0x41544c43;
/** the other connection is at most one commit away */
const BUSY_MS_MAX = 5_000;

export type SqliteDatabase = Database.Database;

/**
 * Opens the one writing connection: makes the file (0600) or brings it to this version, as one transaction.
 * @throws {ControlError} NOT_OURS, FORMAT_NEWER, CORRUPT
 */
export function openCatalogWriter(file: string, steps: readonly CatalogStep[] = CATALOG_STEPS): SqliteDatabase {
  if (!fs.existsSync(file)) fs.closeSync(fs.openSync(file, 'a', 0o600));
  const db = connect(file, {});
  try {
    const had = checkVersion(db, file, steps[steps.length - 1]!.to);
    // Waits for a reader that is still opening.
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    if (db.pragma('synchronous', { simple: true }) !== 2)
      throw new ControlError('INTERNAL', 'the catalog would not sync');
    db.pragma('foreign_keys = ON');
    db.transaction(() => {
      for (const step of steps) if (step.to > had) for (const statement of step.statements) db.exec(statement);
      db.pragma(`application_id = ${APPLICATION_ID}`);
      db.pragma(`user_version = ${steps[steps.length - 1]!.to}`);
    })();
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

/** A connection that only reads, of a catalog that is there. */
export function openCatalogReader(file: string): SqliteDatabase {
  const db = connect(file, { readonly: true, fileMustExist: true });
  try {
    checkVersion(db, file, CATALOG_VERSION);
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function connect(file: string, options: Database.Options): SqliteDatabase {
  return new Database(file, { ...options, timeout: BUSY_MS_MAX });
}

/** @returns the version that the file has; 0: it is new */
function checkVersion(db: SqliteDatabase, file: string, newest: number): number {
  try {
    const id = db.pragma('application_id', { simple: true }) as number;
    const version = db.pragma('user_version', { simple: true }) as number;
    const tables = db.prepare('SELECT count(*) FROM sqlite_master').pluck().get() as number;
    if (tables > 0 && id !== APPLICATION_ID) throw new ControlError('NOT_OURS', `${file} is no catalog of Atoll`);
    if (version > newest)
      throw new ControlError('FORMAT_NEWER', `${file} was written by a newer Atoll (version ${version})`);
    return version;
  } catch (error) {
    const { code } = error as { code?: string };
    if (code === 'SQLITE_NOTADB') throw new ControlError('NOT_OURS', `${file} is no catalog of Atoll`);
    if (code === 'SQLITE_CORRUPT') throw new ControlError('CORRUPT', `${file} is damaged`);
    throw error;
  }
}
