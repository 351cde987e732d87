/** The tables of what services keep: what they hold, in which order it is listed, what they refuse. On each database. */
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type LocalCatalog, newId } from '../../../src/control/catalog/catalog.ts';
import { isStatus } from '../../../src/control/catalog/statuses.ts';
import type { CatalogTables, Change, TableName } from '../../../src/control/catalog/types.ts';
import { BACKENDS, type CatalogFolder, demoProject, foldersIn } from './folder.ts';
import * as rows from './rows.ts';

/** In the order of their bytes, which is not that of JavaScript's `<` nor of any locale. */
const NAMES = [
  '',
  ' ',
  '%',
  '/',
  '//',
  '/a',
  'B',
  'a',
  'a ',
  'a/',
  'a/b',
  'a/b/c',
  'a0',
  'b',
  'z',
  'ä',
  '\u{ff5e}',
  '\u{1f600}',
];

describe.each(BACKENDS)('in %s', (backend) => {
  const newFolder = foldersIn(backend);
  let at: CatalogFolder;
  let catalog: LocalCatalog;
  let project: string;
  beforeEach(async () => {
    at = await newFolder();
    catalog = at.open();
    ({ projectId: project } = await demoProject(catalog));
  });
  afterEach(() => at.end());

  const insert = <T extends TableName>(table: T, row: CatalogTables[T]) =>
    ({ do: 'insert', table, row }) as unknown as Change;
  const code = (changes: Change[]) =>
    catalog.write(changes).then(
      () => 'ok',
      (error: { code: string }) => error.code,
    );

  it('every table takes a row, and gives back what it took', async () => {
    const all = rows.oneOfEach(project);
    await catalog.write(all.map(([table, row]) => insert(table, row)));
    const db = await catalog.reader();
    for (const [table, row] of all)
      expect([
        table,
        await db
          .selectFrom(table as 'volume')
          .selectAll()
          .execute(),
      ]).toEqual([table, [row]]);
    expect(at.deaths).toEqual([]);
  });

  it('names of objects are in the order of their bytes, whatever is in them; markers and prefixes are ranges', async () => {
    await catalog.write([insert('account', rows.account(project)), insert('container', rows.container(project))]);
    const shuffled = [...NAMES].sort(() => Math.random() - 0.5);
    for (const name of shuffled) await catalog.write(rows.objectWithVersion(name));
    const db = await catalog.reader();
    const names = async (from: string, to?: string, limit = 100) => {
      const listed = db
        .selectFrom('object')
        .select('name')
        .where('container_id', '=', 'c1')
        .where('version_id', 'is not', null);
      const after = listed.where('name', '>', from).orderBy('name').limit(limit);
      return (await (to === undefined ? after : after.where('name', '<', to)).execute()).map(({ name }) => name);
    };
    const sorted = [...NAMES].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
    expect(sorted).toEqual(NAMES);
    expect(['', ...(await names(''))]).toEqual(NAMES);
    expect(await names('a/')).toEqual(NAMES.slice(NAMES.indexOf('a/') + 1));
    expect(await names('a/', 'a0')).toEqual(['a/b', 'a/b/c']);
    expect(await names('z', undefined, 2)).toEqual(['ä', '\u{ff5e}']);
    const backwards = db.selectFrom('object').select('name').where('name', '<', 'a').orderBy('name', 'desc').limit(2);
    expect((await backwards.execute()).map(({ name }) => name)).toEqual(['B', '/a']);
  });

  it('a path has one current version, and a history that a moment finds', async () => {
    await catalog.write([insert('account', rows.account(project)), insert('container', rows.container(project))]);
    await catalog.write(rows.objectWithVersion('p', { id: 'v1', created_us: 100 }));
    // What an overwrite is: one list.
    const next = { ...rows.version('p', { id: 'v2', created_us: 200, size: 7 }) };
    await catalog.write([
      { do: 'update', table: 'object_version', where: { id: 'v1', superseded_us: null }, set: { superseded_us: 200 } },
      insert('object_version', next),
      { do: 'update', table: 'object', where: { id: next.object_id, version_id: 'v1' }, set: { version_id: 'v2' } },
      { do: 'update', table: 'container', where: { id: 'c1' }, add: { object_count: 1, bytes: 7, history_count: 1 } },
    ]);
    const db = await catalog.reader();
    const until = async (us: number) => {
      const then = db.selectFrom('object_version').select('id').where('object_id', '=', next.object_id);
      const rows = await then
        .where('created_us', '<=', us)
        .where((each) => each.or([each('superseded_us', 'is', null), each('superseded_us', '>', us)]))
        .execute();
      return rows.map(({ id }) => id);
    };
    expect([await until(99), await until(100), await until(199), await until(200)]).toEqual([
      [],
      ['v1'],
      ['v1'],
      ['v2'],
    ]);
    // Another overwrite, that lost.
    expect(
      await code([
        { do: 'update', table: 'object', where: { id: next.object_id, version_id: 'v1' }, set: { version_id: 'v3' } },
      ]),
    ).toBe('NOT_FOUND');
    expect(await db.selectFrom('container').select(['object_count', 'bytes', 'history_count']).execute()).toEqual([
      { object_count: 1, bytes: 7, history_count: 1 },
    ]);
    // Counters are never below nothing.
    expect(await code([{ do: 'update', table: 'container', where: { id: 'c1' }, add: { bytes: -8 } }])).toBe('INVALID');
    expect(await code([{ do: 'update', table: 'container', where: { id: 'c1' }, add: { bytes: -7 } }])).toBe('ok');
  });

  it('names of volumes, snapshots and images repeat, are empty, contain anything; those of containers and types do not repeat', async () => {
    for (const name of ['', 'twice', 'twice', 'a/b', '@', '-', 'ä'.repeat(200)]) {
      const volume = rows.volume(project, { name });
      await catalog.write([
        insert('volume', volume),
        insert('snapshot', rows.snapshot(project, volume.id, { name })),
        insert('image', rows.image(project, { name })),
      ]);
    }
    await catalog.write([insert('account', rows.account(project)), insert('container', rows.container(project))]);
    expect(await code([insert('container', rows.container(project, { id: 'c2' }))])).toBe('EXISTS');
    expect(await code([insert('container', rows.container(project, { id: 'c2', name: 'other' }))])).toBe('ok');
    const type = (id: string) => insert('volume_type', { ...rows.volumeType(), id });
    expect([await code([type('t1')]), await code([type('t2')])]).toEqual(['ok', 'EXISTS']);
  });

  it('one root is one row’s, and nothing that has one goes with what holds it', async () => {
    const volume = rows.volume(project, { root: 'r1' });
    await catalog.write([insert('volume', volume)]);
    expect(await code([insert('volume', rows.volume(project, { root: 'r1' }))])).toBe('EXISTS');
    for (const _ of [1, 2]) expect(await code([insert('volume', rows.volume(project, { root: null }))])).toBe('ok');
    const gone = (table: TableName, where: object) => code([{ do: 'delete', table, where } as Change]);
    expect(await gone('project', { id: project })).toBe('REFERENCE');
    await catalog.write([
      insert('snapshot', rows.snapshot(project, volume.id)),
      insert('volume_metadata', { volume_id: volume.id, kind: 'user', name: 'k', value: 'v' }),
    ]);
    expect(await gone('volume', { id: volume.id })).toBe('REFERENCE');
    expect(await gone('snapshot', { volume_id: volume.id })).toBe('ok');
    const attachment = rows.attachment(project, volume.id);
    expect(await code([insert('attachment', attachment)])).toBe('ok');
    expect(await gone('volume', { id: volume.id })).toBe('REFERENCE');
    expect(await gone('attachment', { id: attachment.id })).toBe('ok');
    expect(await gone('volume', { id: volume.id })).toBe('ok');
    // What is only about it goes with it.
    const db = await catalog.reader();
    expect(await db.selectFrom('volume_metadata').selectAll().execute()).toEqual([]);
    await catalog.write([insert('account', rows.account(project)), insert('container', rows.container(project))]);
    await catalog.write(rows.objectWithVersion('p'));
    expect([await gone('object', { name: 'p' }), await gone('container', { id: 'c1' })]).toEqual([
      'REFERENCE',
      'REFERENCE',
    ]);
    expect(await gone('account', { project_id: project })).toBe('REFERENCE');
  });

  it('a project that holds nothing any more goes, its account too', async () => {
    const id = newId();
    const demo = await (await catalog.reader()).selectFrom('project').selectAll().where('id', '=', project).execute();
    await catalog.write([insert('project', { ...demo[0]!, id, name: 'other' }), insert('account', rows.account(id))]);
    expect(await code([{ do: 'delete', table: 'project', where: { id } }])).toBe('ok');
  });

  it('sizes and statuses that are none are refused, on both sides of each bound', async () => {
    const volume = (more: object) => code([insert('volume', rows.volume(project, more))]);
    expect([await volume({ size: -1 }), await volume({ size: 0 })]).toEqual(['INVALID', 'ok']);
    expect(await volume({ size: Number.MAX_SAFE_INTEGER })).toBe('ok');
    expect([await volume({ status: 'Available' }), await volume({ status: '' })]).toEqual(['INVALID', 'INVALID']);
    expect(await volume({ status: 'error_deleting' })).toBe('ok');
    const set = (table: TableName, status: string) =>
      code([{ do: 'update', table, where: { id: 'none' }, set: { status } } as Change]);
    expect([await set('image', 'sold'), await set('image', 'deactivated')]).toEqual(['INVALID', 'NOT_FOUND']);
    expect([isStatus('attachment', 'attached'), isStatus('attachment', 'glued')]).toEqual([true, false]);
    const image = (more: object) => code([insert('image', rows.image(project, more))]);
    expect([await image({ size: -1 }), await image({ size: null }), await image({ min_disk: -1 })]).toEqual([
      ...['INVALID', 'ok', 'INVALID'],
    ]);
    expect(at.deaths).toEqual([]);
  });

  it('a state is left once, however many want to', async () => {
    const volume = rows.volume(project);
    await catalog.write([insert('volume', volume)]);
    const leave: Change = {
      ...{ do: 'update', table: 'volume', where: { id: volume.id, status: 'available' }, set: { status: 'deleting' } },
    };
    const tries = await Promise.all(Array.from({ length: 20 }, () => code([leave])));
    expect(tries.filter((one) => one === 'ok')).toHaveLength(1);
    expect(tries.filter((one) => one === 'NOT_FOUND')).toHaveLength(19);
  });

  it.runIf(backend === 'SQLite')('what services list is found by an index, in order', async () => {
    await catalog.reader();
    const db = new Database(`${at.folder}/catalog.db`, { readonly: true });
    const plan = (text: string) =>
      (db.prepare(`EXPLAIN QUERY PLAN ${text}`).all() as { detail: string }[]).map(({ detail }) => detail).join('; ');
    for (const text of [
      "SELECT name, version_id FROM object WHERE container_id = 'c' AND version_id IS NOT NULL AND name > 'm' ORDER BY name LIMIT 10",
      "SELECT name FROM container WHERE project_id = 'p' AND name > 'm' ORDER BY name LIMIT 10",
      "SELECT * FROM object_version WHERE object_id = 'o' ORDER BY created_us DESC",
      'SELECT * FROM object_version WHERE delete_at IS NOT NULL AND delete_at < 5 ORDER BY delete_at',
      "SELECT * FROM volume WHERE project_id = 'p' ORDER BY created_at DESC, id DESC LIMIT 10",
      'SELECT * FROM volume ORDER BY created_at DESC, id DESC LIMIT 10',
      "SELECT * FROM snapshot WHERE volume_id = 'v'",
      "SELECT * FROM image WHERE visibility = 'public' ORDER BY created_at DESC, id DESC LIMIT 10",
      "SELECT * FROM image_member WHERE member_id = 'p' AND status = 'accepted'",
      "SELECT * FROM attachment WHERE instance_id = 'i'",
      "SELECT * FROM volume WHERE root = 'r'",
    ])
      expect(`${text}: ${plan(text)}`).toMatch(/: (SEARCH|SCAN) \S+ USING (COVERING )?INDEX [^;]*$/);
    db.close();
  });
});
