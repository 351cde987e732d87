/** The catalog: what a new one has, what is whole, what is refused, and that it is there after a restart. */
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import { CATALOG_STEPS, CATALOG_VERSION } from '../../../src/control/catalog/migrations.ts';
import { openCatalogWriter } from '../../../src/control/catalog/open.ts';
import { HASHES_MAX, HASHES_WAITING_MAX, Passwords, randomPassword } from '../../../src/control/catalog/passwords.ts';
import type { Change } from '../../../src/control/catalog/types.ts';
import { BACKENDS, type CatalogFolder, demoProject, foldersIn } from './folder.ts';

describe.each(BACKENDS)('in %s', (backend) => {
  const newFolder = foldersIn(backend);
  const isFile = backend === 'SQLite';
  let at: CatalogFolder;
  let folder: string;
  let deaths: string[];
  beforeEach(async () => {
    at = await newFolder();
    ({ folder, deaths } = at);
  });
  afterEach(() => at.end());

  const openCatalog = () => at.open();
  const region = (id: string): Change => ({
    do: 'insert',
    table: 'region',
    row: { id, description: '', parent_region_id: null, extra: '{}' },
  });
  const regions = async (catalog: LocalCatalog) => {
    const rows = await (await catalog.reader()).selectFrom('region').select('id').orderBy('id').execute();
    return rows.map(({ id }) => id);
  };
  const openrc = () => JSON.parse(fs.readFileSync(path.join(folder, 'openrc.json'), 'utf8'));

  describe('the first start', () => {
    it('makes users whose passwords are in a file of the owner’s, once', async () => {
      const first = openCatalog();
      const db = await first.reader();
      const users = await db.selectFrom('user').selectAll().orderBy('name').execute();
      expect(users.map(({ name }) => name)).toEqual(['admin', 'demo']);
      const { admin, demo } = openrc().users;
      expect(await first.passwords.verify(admin.password, users[0]!.password_hash)).toBe(true);
      expect(await first.passwords.verify(demo.password, users[0]!.password_hash)).toBe(false);
      expect(admin.password).toMatch(/^[A-Za-z0-9]{24}$/);
      for (const name of fs.readdirSync(folder))
        expect([name, fs.statSync(path.join(folder, name)).mode & 0o777]).toEqual([name, 0o600]);
      expect(fs.statSync(folder).mode & 0o777).toBe(0o700);
      await first.close();
      const again = await openCatalog().reader();
      expect(await again.selectFrom('user').select('id').orderBy('name').execute()).toEqual(
        users.map(({ id }) => ({ id })),
      );
      expect(openrc().users).toEqual({ admin, demo });
    });

    it.runIf(isFile)('that was interrupted before its content was there is done again', async () => {
      const first = openCatalog();
      const { admin } = openrc().users;
      await first.close();
      const again = await openCatalog().reader();
      expect(openrc().users.admin).not.toEqual(admin);
      expect(await again.selectFrom('user').select('name').execute()).toHaveLength(2);
    });
  });

  describe('writing', () => {
    it('a list is there whole or not at all, and hinders no other', async () => {
      const catalog = openCatalog();
      const results = await Promise.allSettled([
        catalog.write([region('a')]),
        catalog.write([region('b'), region('RegionOne')]),
        catalog.write([region('c'), { do: 'delete', table: 'region', where: { id: 'nowhere' } }]),
        catalog.write([
          { do: 'update', table: 'region', where: { id: 'RegionOne' }, set: { parent_region_id: 'nowhere' } },
        ]),
        catalog.write([region('d')]),
      ]);
      expect(results.map((one) => (one.status === 'fulfilled' ? 'ok' : (one.reason as { code: string }).code))).toEqual(
        [...['ok', 'EXISTS', 'NOT_FOUND', 'REFERENCE', 'ok']],
      );
      expect(await regions(catalog)).toEqual(['RegionOne', 'a', 'd']);
      expect(deaths).toEqual([]);
    });

    it('what was answered is on disk, many at once', async () => {
      const catalog = openCatalog();
      const names = Array.from({ length: 600 }, (_, index) => `r${String(index).padStart(3, '0')}`);
      await Promise.all(names.map((name) => catalog.write([region(name)])));
      expect(await at.select("SELECT count(*) AS n FROM region WHERE id >= 'r' AND id < 's'")).toEqual([{ n: 600 }]);
    });

    it('never a whole table for want of a condition: that is a bug, and ends it', async () => {
      const catalog = openCatalog();
      await catalog.start();
      await expect(catalog.write([{ do: 'delete', table: 'region', where: {} }])).rejects.toMatchObject({ code: 'IO' });
      expect(deaths).toEqual([expect.stringMatching(/cannot be written: a change of every row/)]);
      expect(await regions(catalog)).toEqual(['RegionOne']);
      await expect(catalog.write([region('late')])).rejects.toMatchObject({ code: 'IO' });
    });

    it('keeps what is named by others', async () => {
      const catalog = openCatalog();
      await expect(catalog.write([{ do: 'delete', table: 'domain', where: { id: 'default' } }])).rejects.toMatchObject({
        code: 'REFERENCE',
      });
    });
  });

  describe.runIf(isFile)('what is not ours', () => {
    const code = (run: () => unknown) => {
      try {
        run();
      } catch (error) {
        return (error as { code: string }).code;
      }
      return 'none';
    };

    it('a newer catalog, another database, no database', async () => {
      const catalog = openCatalog();
      await catalog.start();
      await catalog.close();
      const file = path.join(folder, 'catalog.db');
      const db = new Database(file);
      db.pragma(`user_version = ${CATALOG_VERSION + 1}`);
      db.close();
      expect(code(openCatalog)).toBe('FORMAT_NEWER');
      fs.rmSync(file);
      const other = new Database(file);
      other.exec('CREATE TABLE photos (id)');
      other.close();
      expect(code(openCatalog)).toBe('NOT_OURS');
      fs.writeFileSync(file, 'x'.repeat(4096));
      expect(code(openCatalog)).toBe('NOT_OURS');
      expect(fs.readFileSync(file, 'utf8')).toBe('x'.repeat(4096));
    });
  });

  describe.runIf(isFile)('an older catalog', () => {
    it.each(CATALOG_STEPS.map(({ to }) => to))(
      'of version %i is brought to this one, with what is in it',
      async (version) => {
        const first = openCatalog();
        await first.write([region('kept')]);
        await first.close();
        const file = path.join(folder, 'catalog.db');
        const rows = (table: string) => {
          const db = new Database(file);
          const all = db.prepare(`SELECT * FROM "${table}" ORDER BY 1`).all();
          db.close();
          return all;
        };
        const tables = ['region', 'user', 'assignment', 'quota_default'];
        const before = tables.map(rows);
        // What it had, in a file as that version made it.
        const all = new Database(file);
        const kept = new Map<string, Record<string, unknown>[]>();
        for (const name of all.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").pluck().all() as string[])
          kept.set(name, all.prepare(`SELECT * FROM "${name}"`).all() as Record<string, unknown>[]);
        all.close();
        for (const end of ['', '-wal', '-shm']) fs.rmSync(`${file}${end}`, { force: true });
        const old = openCatalogWriter(file, CATALOG_STEPS.slice(0, version));
        old.pragma('foreign_keys = OFF');
        for (const name of old
          .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
          .pluck()
          .all() as string[]) {
          const columns = old.prepare('SELECT name FROM pragma_table_info(?)').pluck().all(name) as string[];
          for (const one of kept.get(name) ?? []) {
            const insert = old.prepare(`INSERT INTO "${name}" (${columns}) VALUES (${columns.map(() => '?')})`);
            insert.run(columns.map((column) => one[column]));
          }
        }
        old.close();
        const catalog = openCatalog();
        await catalog.start();
        expect(tables.map(rows)).toEqual(before);
        const { projectId } = await demoProject(catalog);
        await catalog.quotas.within({ projectId, userId: null }, { volumes: 1 }, async () => ({
          result: 0,
          changes: [],
        }));
        await catalog.close();
        const db = new Database(file, { readonly: true });
        expect(db.pragma('user_version', { simple: true })).toBe(CATALOG_VERSION);
        db.close();
      },
    );
  });
});

describe('passwords', () => {
  it('so many at a time, so many wait, and the next is told to come again', async () => {
    const passwords = new Passwords();
    const hash = await passwords.hash('right');
    const tries = Array.from({ length: HASHES_MAX + HASHES_WAITING_MAX + 1 }, () => passwords.verify('right', hash));
    const results = await Promise.allSettled(tries);
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(HASHES_MAX + HASHES_WAITING_MAX);
    expect(results.at(-1)).toMatchObject({ status: 'rejected', reason: { code: 'TOO_MANY' } });
    expect(await passwords.verify('wrong', hash)).toBe(false);
    expect(await passwords.verify('right', hash)).toBe(true);
  });

  it('nobody’s is nobody’s', async () => {
    const passwords = new Passwords();
    expect(await passwords.verify('', null)).toBe(false);
    expect(await passwords.verify(randomPassword(), null)).toBe(false);
    expect(new Set(Array.from({ length: 100 }, randomPassword)).size).toBe(100);
  });
});
