/**
 * Prepared statements, kept by their text: Kysely asks for one anew for each query, and preparing takes longer than a read by key
 * does. A query's text has no values in it, so there are about as many texts as places in the code that make one.
 */
import type { SqliteDatabase as KyselyDatabase, SqliteStatement } from 'kysely';
import type { SqliteDatabase } from './open.ts';

/** The code has some 150 texts; lists of ids make one for each length. A statement takes a few KiB. */
export const STATEMENTS_MAX = 512;

/** What Kysely's SQLite dialect takes for a database. One statement runs at a time, which Kysely sees to. */
export class KeptStatements implements KyselyDatabase {
  /** the one used longest ago is the first */
  readonly #kept = new Map<string, SqliteStatement>();

  constructor(
    private readonly db: SqliteDatabase,
    private readonly max: number = STATEMENTS_MAX,
  ) {}

  get count(): number {
    return this.#kept.size;
  }

  prepare(text: string): SqliteStatement {
    const kept = this.#kept.get(text);
    if (kept !== undefined) this.#kept.delete(text);
    const statement = kept ?? (this.db.prepare(text) as unknown as SqliteStatement);
    this.#kept.set(text, statement);
    if (this.#kept.size > this.max) this.#kept.delete(this.#kept.keys().next().value as string);
    return statement;
  }

  /** Gives back the pages of the database that it keeps. */
  shrink(): void {
    this.db.pragma('shrink_memory');
  }

  close(): void {
    this.#kept.clear();
    this.db.close();
  }
}
