/** The store's tables (docs/format.md, "Store"): creating, opening and asserting them. */
import Database from 'better-sqlite3';
import { EngineError } from '../types.ts';
import { FORMAT_OLDEST, FORMAT_VERSION, upgrade } from './upgrade.ts';

/** 'ATOL': marks a SQLite file as an Atoll store. */
export const APPLICATION_ID = 0x41544f4c;
/** How long a connection waits for another one's lock. */
export const BUSY_MS_MAX = 5000;
/** The log is checkpointed when it is half this long; opening replays at most about this much. */
export const WAL_BYTES_MAX = 64 * 1024 * 1024;
/** SQLite's own page cache of the writing connection, KiB. */
const WRITER_CACHE_KIB = 16 * 1024;
/** SQLite's own page cache of a reading connection, KiB: the map has its own cache above it. */
const READER_CACHE_KIB = 4 * 1024;

/** The tables of version 1. What came later is in the steps of `upgrade.ts`, which a new store goes through too. */
const TABLES_1 = `
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE pool (
  id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, kind TEXT NOT NULL,
  path TEXT NOT NULL, block_shift INTEGER NOT NULL, group_slots INTEGER NOT NULL, size INTEGER NOT NULL,
  direct INTEGER NOT NULL, preallocate INTEGER NOT NULL, created_at INTEGER NOT NULL);
CREATE TABLE slot_group (
  pool INTEGER NOT NULL, grp INTEGER NOT NULL, used INTEGER NOT NULL, state INTEGER NOT NULL, bitmap BLOB NOT NULL, dirty BLOB,
  PRIMARY KEY (pool, grp)) WITHOUT ROWID;
CREATE INDEX slot_group_summary ON slot_group (pool, grp, used, state);
CREATE TABLE slot_ref (pool INTEGER NOT NULL, slot INTEGER NOT NULL, extra INTEGER NOT NULL, PRIMARY KEY (pool, slot)) WITHOUT ROWID;
CREATE TABLE page (id INTEGER PRIMARY KEY, base INTEGER, data BLOB NOT NULL);
CREATE INDEX page_base ON page (base) WHERE base IS NOT NULL;
CREATE TABLE page_ref (id INTEGER PRIMARY KEY, extra INTEGER NOT NULL);
CREATE TABLE resource (
  id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL, kind INTEGER NOT NULL, volume INTEGER NOT NULL,
  pool INTEGER NOT NULL, size INTEGER NOT NULL, root INTEGER NOT NULL, height INTEGER NOT NULL, generation INTEGER NOT NULL,
  protected INTEGER NOT NULL, created_at INTEGER NOT NULL, cloned_from TEXT, grp INTEGER NOT NULL, mapped INTEGER NOT NULL);
CREATE UNIQUE INDEX resource_name ON resource (kind, volume, name);
CREATE INDEX resource_volume ON resource (volume) WHERE volume != 0;
CREATE TABLE release (seq INTEGER PRIMARY KEY, kind INTEGER NOT NULL, id INTEGER NOT NULL, pool INTEGER NOT NULL);
`;

export type StoreDatabase = Database.Database;

/** Makes an empty database a store of this format. */
export function createTables(db: StoreDatabase): void {
  db.transaction(() => {
    db.exec(TABLES_1);
    db.pragma(`application_id = ${APPLICATION_ID}`);
    db.pragma(`user_version = ${FORMAT_OLDEST}`);
  })();
  upgrade(db);
}

function assertPragma(db: StoreDatabase, name: string, wanted: number | string): void {
  const value = db.pragma(name, { simple: true });
  if (value !== wanted) throw new EngineError('IO', `store: pragma ${name} is ${String(value)}, wanted ${wanted}`);
}

/** Refuses files that are not ours and formats that are newer, before anything is written. */
function checkIdentity(db: StoreDatabase, path: string): 'new' | 'ours' {
  const application = db.pragma('application_id', { simple: true });
  const version = db.pragma('user_version', { simple: true }) as number;
  const tables = db.prepare('SELECT count(*) AS n FROM sqlite_master').get() as { n: number };
  if (application === 0 && version === 0 && tables.n === 0) return 'new';
  if (application !== APPLICATION_ID)
    throw new EngineError('NOT_OURS', `${path} is not an Atoll store; choose another home`);
  if (version > FORMAT_VERSION) {
    throw new EngineError(
      'FORMAT_NEWER',
      `${path} has format ${version}, this Atoll knows ${FORMAT_VERSION}; use the newer Atoll that wrote it`,
    );
  }
  return 'ours';
}

/** Opens the writing connection; creates the tables in an empty file, and upgrades an older format. One per home. */
export function openWriter(path: string): StoreDatabase {
  let db: StoreDatabase;
  try {
    db = new Database(path);
  } catch (error) {
    throw new EngineError('IO', `store ${path}: ${(error as Error).message}`);
  }
  try {
    db.pragma(`busy_timeout = ${BUSY_MS_MAX}`);
    const state = checkIdentity(db, path);
    if (state === 'new') db.pragma('page_size = 4096');
    db.pragma('journal_mode = WAL');
    db.pragma('synchronous = FULL');
    db.pragma('wal_autocheckpoint = 0');
    db.pragma(`journal_size_limit = ${WAL_BYTES_MAX}`);
    db.pragma(`cache_size = -${WRITER_CACHE_KIB}`);
    db.pragma('foreign_keys = OFF');
    assertPragma(db, 'journal_mode', 'wal');
    assertPragma(db, 'synchronous', 2);
    if (state === 'new') createTables(db);
    else upgrade(db);
    return db;
  } catch (error) {
    db.close();
    if (error instanceof EngineError) throw error;
    throw new EngineError('IO', `store ${path}: ${(error as Error).message}`);
  }
}

/** Opens a reading connection beside the writer. */
export function openReader(path: string): StoreDatabase {
  const db = new Database(path, { readonly: true, fileMustExist: true });
  db.pragma(`cache_size = -${READER_CACHE_KIB}`);
  db.pragma(`busy_timeout = ${BUSY_MS_MAX}`);
  return db;
}
