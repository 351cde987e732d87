/** Applies changes to the catalog, in groups: one transaction, and in it one savepoint for each list of changes. */
import { type Kysely, sql } from 'kysely';
import { applyQuotaChange } from './commissions.ts';
import { keepAdmin } from './keep-admin.ts';
import { isStatus } from './statuses.ts';
import { CatalogError, type CatalogTables, type Change, type TableChange, type Value } from './types.ts';

export type Applied = { ok: true } | { ok: false; error: CatalogError };

/**
 * @param groups lists of changes; one that fails leaves nothing and hinders no other
 * @param begin how the database begins a transaction that writes
 * @returns what became of each, in order; durable when this resolves
 */
export async function applyGroups(
  db: Kysely<CatalogTables>,
  groups: readonly (readonly Change[])[],
  begin: 'BEGIN' | 'BEGIN IMMEDIATE',
): Promise<Applied[]> {
  return db.connection().execute(async (connection) => {
    const results: Applied[] = [];
    await sql.raw(begin).execute(connection);
    try {
      for (const changes of groups) results.push(await applyOne(connection, changes));
      await sql`COMMIT`.execute(connection);
    } catch (error) {
      await sql`ROLLBACK`.execute(connection).catch(() => undefined);
      throw error;
    }
    return results;
  });
}

async function applyOne(db: Kysely<CatalogTables>, changes: readonly Change[]): Promise<Applied> {
  await sql`SAVEPOINT one`.execute(db);
  try {
    for (const change of changes) await applyChange(db, change);
    await sql`RELEASE SAVEPOINT one`.execute(db);
    return { ok: true };
  } catch (error) {
    const known = catalogErrorOf(error);
    if (known === null) throw error;
    await sql`ROLLBACK TO SAVEPOINT one`.execute(db);
    await sql`RELEASE SAVEPOINT one`.execute(db);
    return { ok: false, error: known };
  }
}

/** Column names come from our own code, values are bound. */
async function applyChange(db: Kysely<CatalogTables>, change: Change): Promise<void> {
  if (change.do === 'keep-admin') return keepAdmin(db);
  if (!('table' in change)) return applyQuotaChange(db, change);
  const table = sql.table(change.table);
  checkStatus(change);
  if (change.do === 'insert') {
    const entries = Object.entries(change.row);
    const columns = sql.join(entries.map(([column]) => sql.ref(column)));
    const values = sql.join(entries.map(([, value]) => sql`${value}`));
    const onConflict = change.orKeep ? sql`ON CONFLICT DO NOTHING` : sql``;
    await sql`INSERT INTO ${table} (${columns}) VALUES (${values}) ${onConflict}`.execute(db);
    return;
  }
  if (change.do === 'purge') {
    await sql`DELETE FROM ${table} WHERE ${sql.ref(change.column)} < ${change.below}`.execute(db);
    return;
  }
  const where = conditions(change.where);
  const statement =
    change.do === 'delete'
      ? sql`DELETE FROM ${table} WHERE ${where}`
      : sql`UPDATE ${table} SET ${assignments(change)} WHERE ${where}`;
  const { numAffectedRows } = await statement.execute(db);
  if (!change.orNone && numAffectedRows === 0n) throw new CatalogError('NOT_FOUND', `no such ${change.table}`);
}

function conditions(where: Record<string, Value | undefined>) {
  const words = Object.entries(where).map(([column, value]) =>
    value === null ? sql`${sql.ref(column)} IS NULL` : sql`${sql.ref(column)} = ${value}`,
  );
  // Never a whole table by an empty object.
  if (words.length === 0) throw new Error('a change of every row');
  return sql.join(words, sql` AND `);
}

function assignments({ set, add, revoke }: Extract<TableChange, { do: 'update' }>) {
  const given = (columns: Record<string, Value | undefined> = {}) =>
    Object.entries(columns).filter(([, value]) => value !== undefined);
  const words = [
    ...given(set).map(([column, value]) => sql`${sql.ref(column)} = ${value}`),
    ...given(add).map(([column, value]) => sql`${sql.ref(column)} = ${sql.ref(column)} + ${value}`),
  ];
  if (revoke) words.push(sql`epoch = epoch + 1`);
  return sql.join(words.length > 0 ? words : [sql`id = id`]);
}

/** Statuses come from services, and some of those from users. @throws {CatalogError} INVALID */
function checkStatus(change: TableChange): void {
  const columns = change.do === 'insert' ? change.row : change.do === 'update' ? change.set : undefined;
  const status = columns && 'status' in columns ? columns.status : undefined;
  if (status !== undefined && !isStatus(change.table, status))
    throw new CatalogError('INVALID', `${status} is no status of ${change.table}`);
}

/** What a user's request can run into; null for the rest, which is ours or the disk's. */
function catalogErrorOf(error: unknown): CatalogError | null {
  if (error instanceof CatalogError) return error;
  const { code = '' } = error as { code?: string };
  return CODES[code]?.() ?? null;
}

const exists = () => new CatalogError('EXISTS', 'it exists already');
const reference = () => new CatalogError('REFERENCE', 'it is named by others, or names what is not there');
const beyond = () => new CatalogError('INVALID', 'less than nothing would be held, or more than can be counted');

/** of SQLite, and SQLSTATEs of PostgreSQL */
const CODES: Readonly<Record<string, () => CatalogError>> = {
  SQLITE_CONSTRAINT_UNIQUE: exists,
  SQLITE_CONSTRAINT_PRIMARYKEY: exists,
  '23505': exists,
  SQLITE_CONSTRAINT_FOREIGNKEY: reference,
  '23503': reference,
  SQLITE_CONSTRAINT_CHECK: beyond,
  '23514': beyond,
  // a zero byte in a text
  '22021': () => new CatalogError('INVALID', 'a text has a character that cannot be stored'),
};
