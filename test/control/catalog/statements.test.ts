/** Statements are prepared once for each text, and only so many are kept. */
import Database from 'better-sqlite3';
import { Kysely, SqliteDialect } from 'kysely';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { KeptStatements } from '../../../src/control/catalog/statements.ts';

let database: Database.Database;
let prepared: string[];
beforeEach(() => {
  database = new Database(':memory:');
  database.exec('CREATE TABLE thing (id INTEGER PRIMARY KEY, name TEXT)');
  prepared = [];
  const prepare = database.prepare.bind(database);
  database.prepare = ((text: string) => {
    prepared.push(text);
    return prepare(text);
  }) as typeof database.prepare;
});
afterEach(() => database.close());

it('once for each text, with other values each time, and after the table has changed', async () => {
  const db = new Kysely<{ thing: { id: number; name: string; more?: string } }>({
    dialect: new SqliteDialect({ database: new KeptStatements(database) }),
  });
  for (let id = 0; id < 10; id++)
    await db
      .insertInto('thing')
      .values({ id, name: `n${id}` })
      .execute();
  const one = (id: number) => db.selectFrom('thing').selectAll().where('id', '=', id).executeTakeFirst();
  for (let id = 0; id < 10; id++) expect(await one(id)).toEqual({ id, name: `n${id}` });
  expect(await Promise.all([one(3), one(4), one(11)])).toEqual([
    { id: 3, name: 'n3' },
    { id: 4, name: 'n4' },
    undefined,
  ]);
  expect(prepared).toHaveLength(2);
  database.exec("ALTER TABLE thing ADD COLUMN more TEXT DEFAULT 'x'");
  expect(await one(5)).toEqual({ id: 5, name: 'n5', more: 'x' });
  expect(prepared).toHaveLength(2);
  // One that failed is as good as before.
  const insert = () => db.insertInto('thing').values({ id: 1, name: 'again' }).execute();
  await expect(insert()).rejects.toThrow(/UNIQUE/);
  await db.deleteFrom('thing').where('id', '=', 1).execute();
  await insert();
  expect((await one(1))?.name).toBe('again');
  expect(prepared).toHaveLength(3);
});

it('statements that are kept are as good after pages were given back', () => {
  const kept = new KeptStatements(database);
  const insert = kept.prepare('INSERT INTO thing (name) VALUES (?) RETURNING id');
  expect(insert.all(['a'])).toEqual([{ id: 1 }]);
  kept.shrink();
  expect(kept.prepare('INSERT INTO thing (name) VALUES (?) RETURNING id')).toBe(insert);
  expect(insert.all(['b'])).toEqual([{ id: 2 }]);
});

it('the one used longest ago goes for a new one beyond the bound', () => {
  const kept = new KeptStatements(database, 2);
  const [a, b, c] = [1, 2, 3].map((n) => `SELECT ${n} AS n`) as [string, string, string];
  const first = kept.prepare(a);
  kept.prepare(b);
  expect(kept.prepare(a)).toBe(first);
  kept.prepare(c);
  expect(kept.count).toBe(2);
  expect(kept.prepare(a)).toBe(first);
  expect(prepared).toEqual([a, b, c]);
  expect(kept.prepare(b).all([])).toEqual([{ n: 2 }]);
  expect(prepared).toEqual([a, b, c, b]);
});
