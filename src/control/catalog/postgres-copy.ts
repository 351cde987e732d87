/** Copies of a catalog in PostgreSQL into a file, as one moment, and back (docs/backup-and-recovery.md). Loaded only where one is. */
import fs from 'node:fs';
import { type Kysely, sql } from 'kysely';
import { ControlError } from '../errors.ts';
import { syncFile } from '../folders.ts';
import { openCatalogWriter, type SqliteDatabase } from './open.ts';
import { known, openPostgresReader, openPostgresWriter, shown } from './postgres.ts';
import type { CatalogTables } from './types.ts';

type Db = Kysely<CatalogTables>;
type Row = Record<string, string | number | null>;

/** rows on their way at once */
const ROWS_MAX = 500;

/** Fixes the moment that is copied. */
export async function beginPostgresCopy(url: string): Promise<{ to: (target: string) => Promise<void> }> {
  const db = await openPostgresReader(url);
  let end: () => void = () => undefined;
  /** the one connection that sees that moment, until the end */
  const begun = new Promise<Db>((resolve, reject) => {
    const held = db.connection().execute(async (connection) => {
      await sql`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`.execute(connection);
      // a transaction's moment is that of its first read
      await sql`SELECT version FROM atoll_catalog`.execute(connection);
      const ended = new Promise<void>((done) => {
        end = done;
      });
      resolve(connection);
      await ended;
      await sql`COMMIT`.execute(connection);
    });
    held.catch(reject).finally(() => db.destroy().catch(() => undefined));
  });
  const connection = await begun.catch((error) => {
    throw known(error, url);
  });
  return {
    /** @param target a new file, 0600 */
    to: async (target) => {
      try {
        fs.closeSync(fs.openSync(target, 'wx', 0o600));
        await fill(connection, target);
        syncFile(target);
      } finally {
        end();
      }
    },
  };
}

async function fill(from: Db, target: string): Promise<void> {
  const file = openCatalogWriter(target);
  try {
    file.pragma('foreign_keys = OFF');
    file.pragma('journal_mode = DELETE');
    for (const { name, columns } of tablesOf(file)) {
      const quoted = columns.map((column) => `"${column}"`);
      const insert = file.prepare(`INSERT INTO "${name}" (${quoted}) VALUES (${columns.map(() => '?')})`);
      const insertAll = file.transaction((rows: Row[]) => {
        for (const row of rows) insert.run(columns.map((column) => row[column]));
      });
      await sql`DECLARE rows_of NO SCROLL CURSOR FOR SELECT * FROM ${sql.table(name)}`.execute(from);
      for (;;) {
        const { rows } = await sql<Row>`FETCH ${sql.lit(ROWS_MAX)} FROM rows_of`.execute(from);
        insertAll(rows);
        if (rows.length < ROWS_MAX) break;
      }
      await sql`CLOSE rows_of`.execute(from);
    }
    // Each list of changes left none, so neither does a moment.
    if ((file.pragma('foreign_key_check') as unknown[]).length > 0)
      throw new ControlError('CORRUPT', 'rows of the catalog name others that are not there');
  } finally {
    file.close();
  }
}

/** @throws {ControlError} EXISTS, NOT_OURS, FORMAT_NEWER, IO */
export async function refusePostgresCatalog(url: string): Promise<void> {
  const db = await openPostgresReader(url);
  try {
    await refuseContent(db, url);
  } catch (error) {
    // There are no tables.
    if ((error as { code?: string }).code !== '42P01') throw known(error, url);
  } finally {
    await db.destroy();
  }
}

async function refuseContent(db: Db, url: string): Promise<void> {
  if (await db.selectFrom('domain').select('id').executeTakeFirst())
    throw new ControlError('EXISTS', `${shown(url)} has a catalog; use an empty database`);
}

/**
 * Puts a catalog into a database that has none.
 * @param file of this version, which nobody writes
 * @throws {ControlError} EXISTS, HELD, NOT_OURS, FORMAT_NEWER, IO; nothing is there then but empty tables
 */
export async function fillPostgres(file: string, url: string): Promise<void> {
  const from = openCatalogWriter(file);
  try {
    const db = await openPostgresWriter(url, () => undefined);
    try {
      await refuseContent(db, url);
      await db.transaction().execute(async (transaction) => {
        for (const table of tablesOf(from)) await fillTable(from, transaction, table);
      });
    } catch (error) {
      throw known(error, url);
    } finally {
      await db.destroy();
    }
  } finally {
    from.close();
  }
}

interface Table {
  name: string;
  columns: string[];
  key: string[];
  /** columns that name rows of the same table */
  own: string[];
}

async function fillTable(from: SqliteDatabase, to: Db, { name, columns, key, own }: Table): Promise<void> {
  const quoted = columns.map((column) => `"${column}"`);
  let rows: Row[] = [];
  const write = async () => {
    const table = sql.table(name);
    const values = rows.map((row) => sql`(${sql.join(columns.map((c) => sql`${own.includes(c) ? null : row[c]}`))})`);
    if (rows.length > 0)
      await sql`INSERT INTO ${table} (${sql.join(columns.map((c) => sql.ref(c)))}) VALUES ${sql.join(values)}`.execute(
        to,
      );
    rows = [];
  };
  for (const row of from.prepare(`SELECT ${quoted} FROM "${name}"`).iterate() as IterableIterator<Row>) {
    rows.push(row);
    if (rows.length === ROWS_MAX) await write();
  }
  await write();
  // When all are there that can be named.
  for (const column of own) {
    const naming = from.prepare(`SELECT ${quoted} FROM "${name}" WHERE "${column}" IS NOT NULL`).iterate();
    for (const row of naming as IterableIterator<Row>) {
      const where = sql.join(
        key.map((c) => sql`${sql.ref(c)} = ${row[c]}`),
        sql` AND `,
      );
      await sql`UPDATE ${sql.table(name)} SET ${sql.ref(column)} = ${row[column]} WHERE ${where}`.execute(to);
    }
  }
}

/** Each behind those that it names. */
function tablesOf(db: SqliteDatabase): Table[] {
  const names = db
    .prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
    .pluck()
    .all() as string[];
  const found: Table[] = [];
  const visit = (name: string): void => {
    if (found.some((table) => table.name === name)) return;
    const info = db.pragma(`table_info("${name}")`) as { name: string; pk: number }[];
    const keys = db.pragma(`foreign_key_list("${name}")`) as { table: string; from: string }[];
    for (const { table } of keys) if (table !== name) visit(table);
    found.push({
      name,
      columns: info.map((column) => column.name),
      key: info.filter(({ pk }) => pk > 0).map((column) => column.name),
      own: keys.filter(({ table }) => table === name).map((one) => one.from),
    });
  };
  for (const name of names) visit(name);
  return found;
}
