/** Connections to a catalog in PostgreSQL. Loaded only where one is. */
import { Kysely, PostgresDialect, sql } from 'kysely';
import pg from 'pg';
import { ControlError, oneLine } from '../errors.ts';
import { CATALOG_STEPS, CATALOG_VERSION, type CatalogStep } from './migrations.ts';
import { shownPlace } from './place.ts';
import type { CatalogTables } from './types.ts';

/** `ATLC`: of the advisory lock that the one writing daemon holds */
const LOCK = 0x41544c43;
const READERS_MAX = 4;
const CONNECT_MS_MAX = 10_000;
const INT8 = 20;

type Db = Kysely<CatalogTables>;

/**
 * The one writing connection: takes the lock, makes the tables or brings them to this version, as one transaction.
 * @param onLost hears when the connection ended, and the lock with it, or what was told it last may be lost
 * @throws {ControlError} HELD, NOT_OURS, FORMAT_NEWER, IO
 */
export async function openPostgresWriter(
  url: string,
  onLost: (error: Error) => void,
  steps: readonly CatalogStep[] = CATALOG_STEPS,
): Promise<Db> {
  const pool = newPool(url, 1, {});
  const db = new Kysely<CatalogTables>({ dialect: new PostgresDialect({ pool }) });
  let closing = false;
  // A new connection would not have the lock.
  const lost = (error: Error) => {
    if (!closing) onLost(error);
    closing = true;
  };
  try {
    await db.connection().execute((connection) => prepare(connection, url, steps));
    pool.on('error', lost);
    pool.on('remove', () => lost(new Error('the connection to PostgreSQL ended')));
    const destroy = db.destroy.bind(db);
    db.destroy = () => {
      closing = true;
      return destroy();
    };
    return db;
  } catch (error) {
    closing = true;
    await db.destroy().catch(() => undefined);
    throw known(error, url);
  }
}

/** Connections that only read, of a catalog that is there. */
export async function openPostgresReader(url: string): Promise<Db> {
  const pool = newPool(url, READERS_MAX, { options: '-c default_transaction_read_only=on' });
  // One that was lost is replaced.
  pool.on('error', () => undefined);
  const db = new Kysely<CatalogTables>({ dialect: new PostgresDialect({ pool }) });
  try {
    await checkVersion(db, url, CATALOG_VERSION);
    return db;
  } catch (error) {
    await db.destroy().catch(() => undefined);
    throw known(error, url);
  }
}

function newPool(url: string, max: number, more: pg.PoolConfig): pg.Pool {
  return new pg.Pool({
    connectionString: url,
    max,
    // The writer's has the lock, and is kept whatever happens.
    idleTimeoutMillis: 0,
    connectionTimeoutMillis: CONNECT_MS_MAX,
    keepAlive: true,
    application_name: 'atoll',
    types: {
      getTypeParser: ((oid: number, format: 'text') =>
        oid === INT8 ? integer : pg.types.getTypeParser(oid, format)) as never,
    },
    ...more,
  });
}

/** Nothing that is stored is beyond what a number can count. */
function integer(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new Error(`${text} in the catalog is beyond what can be counted`);
  return value;
}

async function prepare(db: Db, url: string, steps: readonly CatalogStep[]): Promise<void> {
  const { rows } = await sql<{ got: boolean }>`SELECT pg_try_advisory_lock(${sql.lit(LOCK)}) AS got`.execute(db);
  if (!rows[0]?.got)
    throw new ControlError('HELD', `${shown(url)} is held by another daemon; stop it, or use another database`);
  await sql`SET synchronous_commit = on`.execute(db);
  const newest = steps[steps.length - 1]!.to;
  await sql`BEGIN`.execute(db);
  try {
    const had = await checkVersion(db, url, newest);
    if (had === 0) await sql`CREATE TABLE atoll_catalog (version INTEGER NOT NULL)`.execute(db);
    for (const step of steps)
      if (step.to > had) for (const statement of step.statements) await sql.raw(inPostgres(statement)).execute(db);
    await sql`DELETE FROM atoll_catalog`.execute(db);
    await sql`INSERT INTO atoll_catalog VALUES (${sql.lit(newest)})`.execute(db);
    await sql`COMMIT`.execute(db);
  } catch (error) {
    await sql`ROLLBACK`.execute(db).catch(() => undefined);
    throw error;
  }
}

/** Names are compared and sorted by their bytes, as SQLite does. */
function inPostgres(statement: string): string {
  return statement.replaceAll(/\bTEXT\b/g, 'TEXT COLLATE "C"');
}

/** @returns the version that the database has; 0: it is empty */
async function checkVersion(db: Db, url: string, newest: number): Promise<number> {
  const tables = await sql<{ name: string }>`
    SELECT table_name AS name FROM information_schema.tables WHERE table_schema = current_schema()`.execute(db);
  if (tables.rows.length === 0) return 0;
  const isOurs = tables.rows.some(({ name }) => name === 'atoll_catalog');
  if (!isOurs) throw new ControlError('NOT_OURS', `${shown(url)} holds other things and is no catalog of Atoll`);
  const { rows } = await sql<{ version: number }>`SELECT version FROM atoll_catalog`.execute(db);
  const version = rows[0]?.version ?? 0;
  if (version > newest)
    throw new ControlError('FORMAT_NEWER', `${shown(url)} was written by a newer Atoll (version ${version})`);
  return version;
}

export function shown(url: string): string {
  return shownPlace({ kind: 'postgres', url });
}

/** What the server says has neither the URL nor a password in it. */
export function known(error: unknown, url: string): ControlError {
  if (error instanceof ControlError) return error;
  const { message, code } = error as { message?: string; code?: string };
  return new ControlError('IO', `the catalog at ${shown(url)}: ${oneLine(message || code || 'no connection')}`);
}
