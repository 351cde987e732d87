/** What is made in the engine by hand belongs to the operators' project, is charged to it, and is followed: renamed, resized, deleted. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CHANGES_MAX } from '../../../src/control/catalog/adoption.ts';
import type { Catalog } from '../../../src/control/catalog/catalog.ts';
import type { Change } from '../../../src/control/catalog/types.ts';
import { EngineFolder } from './engine-folder.ts';
import { BACKENDS, demoProject, foldersIn } from './folder.ts';
import * as rows from './rows.ts';

const MIB = 2 ** 20;

describe.each(BACKENDS)('in %s', (backend) => {
  const newFolder = foldersIn(backend);
  let at: EngineFolder;
  let admin: string;
  beforeEach(async () => {
    at = new EngineFolder(await newFolder());
    await at.open();
    const db = await at.catalog.reader();
    admin = (
      await db.selectFrom('setting').select('value').where('key', '=', 'admin_project').executeTakeFirstOrThrow()
    ).value;
  });
  afterEach(() => at.end());

  const create = (name: string, mib = 1) => at.engine!.createVolume({ name, size: mib * MIB });
  const rowsOf = async (catalog: Catalog = at.catalog) => {
    await catalog.caughtUp();
    const db = await catalog.reader();
    const [volumes, snapshots] = [db.selectFrom('volume').selectAll(), db.selectFrom('snapshot').selectAll()];
    const all = [...(await volumes.orderBy('root').execute()), ...(await snapshots.orderBy('size').execute())];
    return all.map(({ root, name, size, status }) => `${root} ${name} ${size / MIB} ${status}`);
  };
  const idOf = async (root: string) => {
    const db = await at.catalog.reader();
    return (await db.selectFrom('volume').select('id').where('root', '=', root).executeTakeFirst())?.id;
  };
  /** What is charged is what the engine has. */
  const expectTrue = async () => {
    await at.catalog.caughtUp();
    const volumes = await at.engine!.listVolumes();
    const snapshots = await at.engine!.listSnapshots();
    const bytes = [...volumes, ...snapshots].reduce((sum, { size }) => sum + size, 0);
    const held = await at.held(admin);
    expect([held.volumes?.[0] ?? 0, held.snapshots?.[0] ?? 0, held.volume_bytes?.[0] ?? 0]).toEqual([
      ...[volumes.length, snapshots.length, bytes],
    ]);
  };

  it('at once where somebody asks, whoever made it; with the engine’s id, for the whole project', async () => {
    const made = await create('a', 3);
    await create('b c');
    await at.engine!.createSnapshot('a', 's');
    await at.engine!.files!.create('by a mount');
    await create('.atoll-hidden');
    expect(await rowsOf()).toEqual([
      'a a 3 available',
      'b c b c 1 available',
      'by a mount by a mount 0 available',
      's s 3 available',
    ]);
    const db = await at.catalog.reader();
    const row = await db.selectFrom('volume').selectAll().where('root', '=', 'a').executeTakeFirstOrThrow();
    expect(row).toMatchObject({
      id: made.id,
      project_id: admin,
      user_id: null,
      origin: 'engine',
      created_at: Date.parse(made.createdAt),
    });
    expect(await at.held(admin)).toEqual({ volumes: [3, 0], snapshots: [1, 0], volume_bytes: [7 * MIB, 0] });
    expect(at.logged).toEqual([]);
  });

  it('also unasked, soon', async () => {
    await rowsOf();
    await create('a');
    const db = await at.catalog.reader();
    const count = async () => (await db.selectFrom('volume').select('id').execute()).length;
    await expect.poll(count, { timeout: 60_000 }).toBe(1);
  });

  it('follows what becomes of it: sizes, names, those of snapshots, deletions, a name that goes to another', async () => {
    await create('a');
    await at.engine!.createSnapshot('a', 's');
    await rowsOf();
    const id = await idOf('a');
    await at.catalog.write([
      { do: 'insert', table: 'volume_metadata', row: { volume_id: id!, kind: 'user', name: 'k', value: 'v' } },
      { do: 'insert', table: 'attachment', row: rows.attachment(admin, id!) },
    ]);
    await at.engine!.resizeVolume('a', 2 * MIB);
    await at.engine!.renameVolume('a', 'b');
    expect(await rowsOf()).toEqual(['b b 2 available', 's s 1 available']);
    expect(await idOf('b')).toBe(id);
    await expectTrue();
    // Its name is another's now, and it has a new one.
    await at.engine!.renameVolume('b', 'c');
    await create('b', 5);
    expect(await rowsOf()).toEqual(['b b 5 available', 'c c 2 available', 's s 1 available']);
    expect([await idOf('c'), (await idOf('b')) === id]).toEqual([id, false]);
    // Two change names; both have a snapshot of one name.
    await at.engine!.createSnapshot('b', 's');
    for (const [from, to] of [
      ['b', 'x'],
      ['c', 'b'],
      ['x', 'c'],
    ] as const)
      await at.engine!.renameVolume(from, to);
    expect(await rowsOf()).toEqual(['b b 2 available', 'c c 5 available', 's s 1 available', 's s 5 available']);
    expect(await idOf('b')).toBe(id);
    const db = await at.catalog.reader();
    expect(await db.selectFrom('volume_metadata').select('volume_id').execute()).toEqual([{ volume_id: id }]);
    await expectTrue();
    // One is deleted and made anew between two looks.
    await at.engine!.deleteVolume('c', { withSnapshots: true });
    await create('c', 7);
    await at.engine!.deleteSnapshot('b@s');
    expect(await rowsOf()).toEqual(['b b 2 available', 'c c 7 available']);
    await at.engine!.createSnapshot('b', 't');
    await at.catalog.caughtUp();
    await at.engine!.deleteVolume('b', { withSnapshots: true });
    expect(await rowsOf()).toEqual(['c c 7 available']);
    await expectTrue();
    await at.engine!.deleteVolume('c', {});
    expect([await rowsOf(), await at.held(admin)]).toEqual([[], {}]);
    expect(at.logged).toEqual([]);
  });

  it('whatever was done while nobody looked is found at the next start', async () => {
    for (const name of ['stays', 'goes', 'grows', 'moves', 'again']) await create(name);
    await at.engine!.createSnapshot('moves', 's');
    await rowsOf();
    const moved = await idOf('moves');
    await at.close();
    const engine = await at.openEngine();
    await engine.deleteVolume('goes', {});
    await engine.resizeVolume('grows', 4 * MIB);
    await engine.renameVolume('moves', 'moved');
    await engine.deleteVolume('again', {});
    await create('again', 2);
    await create('new');
    await at.closeEngine();
    await at.open();
    const all = ['again again 2', 'grows grows 4', 'moved moved 1', 'new new 1', 'stays stays 1', 's s 1'];
    expect(await rowsOf()).toEqual(all.map((row) => `${row} available`));
    expect(await idOf('moved')).toBe(moved);
    await expectTrue();
    expect(at.logged).toEqual([]);
  });

  it('what services make is theirs: while it is pinned, when a row names it, and behind an image', async () => {
    const { projectId } = await demoProject(at.catalog);
    const volume = rows.volume(projectId, { id: 'i', root: 'theirs', size: MIB, status: 'creating' });
    await at.catalog.pins.make(
      { kind: 'volume', name: 'theirs', subject: 'i', begin: [{ do: 'insert', table: 'volume', row: volume }] },
      async () => {
        await create('theirs');
        expect(await rowsOf()).toEqual(['theirs v 1 creating']);
        return {
          result: 0,
          changes: [{ do: 'update', table: 'volume', where: { id: 'i' }, set: { status: 'available' } }],
        };
      },
    );
    const ingest = await at.engine!.ingest({ volume: 'picture', snapshot: 'sealed' });
    await ingest.write(new Uint8Array(MIB));
    await ingest.finish();
    const image = rows.image(projectId, { root: 'picture@sealed' });
    await at.catalog.write([{ do: 'insert', table: 'image', row: image }]);
    expect(await rowsOf()).toEqual(['theirs v 1 available']);
    expect(await at.held(admin)).toEqual({});
    // A snapshot that an operator makes of it is its owner's.
    await at.engine!.createSnapshot('theirs', 's');
    expect(await rowsOf()).toEqual(['theirs v 1 available', 's s 1 available']);
    expect([await at.held(admin), (await at.held(projectId)).snapshots]).toEqual([{}, [1, 0]]);
    await at.engine!.deleteSnapshot('theirs@s');
    // What an operator takes from under a service is an error there.
    await at.catalog.write([
      { do: 'charge', project_id: projectId, user_id: null, amounts: { volumes: 1, volume_bytes: MIB } },
    ]);
    await at.engine!.deleteVolume('theirs', {});
    expect(await rowsOf()).toEqual(['null v 1 error']);
    expect([await at.held(projectId), await at.held(admin)]).toEqual([{}, {}]);
  });

  it('more changes than are kept apart: all is looked at', { timeout: 240_000 }, async () => {
    await create('a');
    await rowsOf();
    const id = await idOf('a');
    let name = 'a';
    for (let n = 0; n <= CHANGES_MAX; n++) {
      await at.engine!.renameVolume(name, `a${n}`);
      name = `a${n}`;
    }
    await create('c');
    expect((await rowsOf()).map((row) => row.split(' ')[0])).toEqual([name, 'c']);
    expect(await idOf(name)).toBe(id);
    await expectTrue();
  });

  it('what cannot be written now is done when it can be', async () => {
    await at.catalog.caughtUp();
    const write = at.catalog.write.bind(at.catalog);
    at.catalog.write = (changes: readonly Change[]) =>
      changes.some((one) => 'table' in one && one.table === 'volume')
        ? Promise.reject(new Error('the disk is full'))
        : write(changes);
    await create('a');
    await expect(at.catalog.caughtUp()).rejects.toThrow('the disk is full');
    expect(at.logged).toEqual([expect.stringMatching(/by hand.*disk is full/)]);
    at.catalog.write = write;
    expect(await rowsOf()).toEqual(['a a 1 available']);
  });
});
