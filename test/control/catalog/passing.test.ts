/** Rows of services that a kill left in a passing state: each is finished, or an error, when the catalog has opened again. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PASSING } from '../../../src/control/catalog/statuses.ts';
import type { CatalogTables, Change, TableName } from '../../../src/control/catalog/types.ts';
import { EngineFolder } from './engine-folder.ts';
import { BACKENDS, demoProject, foldersIn } from './folder.ts';
import * as rows from './rows.ts';

const MIB = 2 ** 20;

describe.each(BACKENDS)('in %s', (backend) => {
  const newFolder = foldersIn(backend);
  let at: EngineFolder;
  beforeEach(async () => {
    at = new EngineFolder(await newFolder());
  });
  afterEach(() => at.end());

  const insert = <T extends TableName>(table: T, row: CatalogTables[T]) =>
    ({ do: 'insert', table, row }) as unknown as Change;
  const statuses = async (table: 'volume' | 'snapshot' | 'image') => {
    const db = await at.catalog.reader();
    const all = await db
      .selectFrom(table as 'volume')
      .select(['name', 'status', 'root'])
      .orderBy('name')
      .execute();
    return Object.fromEntries(
      all.map(({ name, status, root }) => [name, root === null ? status : `${status} ${root}`]),
    );
  };
  /** What is there, and what the demo project is charged for. */
  const seen = async () => ({
    pins: await at.pins(),
    volumes: await at.volumes(),
    snapshots: await at.snapshots(),
    held: await at.held((await demoProject(at.catalog)).projectId),
  });

  describe('a kill while a service makes something', () => {
    /** What each service does, in the protocol's steps. */
    const WORK = {
      volume: {
        row: rows.volume('', { id: 'i', name: 'n', status: 'creating', size: MIB }),
        name: 'r',
        make: `await engine.createVolume({ name: 'r', size: ${MIB} });`,
        amounts: { volumes: 1, volume_bytes: MIB },
        whole: { status: 'available', root: 'r' },
      },
      snapshot: {
        row: rows.snapshot('', 'base', { id: 'i', name: 'n', status: 'creating', size: MIB }),
        name: 'base@r',
        make: `await engine.createSnapshot('base', 'r');`,
        amounts: { snapshots: 1, volume_bytes: MIB },
        whole: { status: 'available', root: 'r' },
      },
      image: {
        row: rows.image('', { id: 'i', name: 'n', status: 'saving', size: null }),
        name: 'r@sealed',
        make: `const i = await engine.ingest({ volume: 'r', snapshot: 'sealed' }); await i.write(Buffer.alloc(${MIB}, 7)); await i.finish();`,
        amounts: { images: 1, image_bytes: MIB },
        whole: { status: 'active', root: 'r@sealed', size: MIB, checksum: 'abc' },
      },
    } as const;
    type Kind = keyof typeof WORK;

    const script = (kind: Kind, points: { begun?: string; made?: string; written?: string }) => {
      const { row, name, make, amounts, whole } = WORK[kind];
      return `
        const insert = { do: 'insert', table: '${kind}', row: { ...${JSON.stringify(row)}, project_id: project, root: '${whole.root}' } };
        await catalog.pins.make({ kind: '${kind}', name: '${name}', subject: 'i', begin: [insert],
          takes: { holder: { projectId: project, userId: null }, amounts: ${JSON.stringify(amounts)} } }, async () => {
          ${points.begun ?? ''}
          ${make}
          ${points.made ?? ''}
          return { result: 0, changes: [{ do: 'update', table: '${kind}', where: { id: 'i' }, set: ${JSON.stringify(whole)} }] };
        });
        ${points.written ?? ''}`;
    };
    /** A volume that snapshots can be taken of. */
    const BASE = `
      await engine.createVolume({ name: 'base', size: ${MIB} });
      await catalog.write([{ do: 'insert', table: 'volume', row: { ...${JSON.stringify(rows.volume('', { id: 'base', name: 'base', root: 'base', size: MIB }))}, project_id: project } },
        { do: 'charge', project_id: project, user_id: null, amounts: { volumes: 1, volume_bytes: ${MIB} } }]);`;
    const base = { volumes: [1, 0], volume_bytes: [MIB, 0] };

    // One of them says whether the database matters.
    const kinds = backend === 'SQLite' ? (Object.keys(WORK) as Kind[]) : (['volume'] as const);
    it.each(kinds)('of a kind (%s), on both sides of each step', async (kind) => {
      const isSnapshot = kind === 'snapshot';
      const [before, more] = isSnapshot ? [BASE, base] : ['', {}];
      const nothing = { pins: [], volumes: isSnapshot ? ['base'] : [], snapshots: [], held: more };
      // Nothing is written yet.
      await at.killed(`${before}
        const write = catalog.write.bind(catalog);
        catalog.write = (changes) => (changes.some((one) => one.table === 'pin') ? now() : write(changes));
        ${script(kind, {})}`);
      await at.open();
      expect([await statuses(kind), await seen()]).toEqual([{}, nothing]);
      await at.close();
      // Written, and nothing made: an error, that takes nothing.
      await at.killed(script(kind, { begun: 'await now();' }));
      await at.open();
      expect(await statuses(kind)).toEqual({ n: kind === 'image' ? 'killed' : 'error' });
      expect(await seen()).toEqual(nothing);
      await at.catalog.write([{ do: 'delete', table: kind, where: { id: 'i' } }]);
      await at.close();
      // Made, and the row does not know.
      await at.killed(script(kind, { made: 'await now();' }));
      await at.open();
      if (kind === 'image') {
        // What it is known by is lost.
        expect([await statuses(kind), await seen()]).toEqual([{ n: 'killed' }, nothing]);
        await at.catalog.write([{ do: 'delete', table: kind, where: { id: 'i' } }]);
        await at.close();
        await at.killed(script(kind, { written: 'await now();' }));
        await at.open();
      }
      const status = kind === 'image' ? 'active' : 'available';
      expect(await statuses(kind)).toEqual({ n: `${status} ${WORK[kind].whole.root}` });
      const whole = await seen();
      const held = Object.entries(WORK[kind].amounts).map(([resource, amount]) => {
        const was = (more as Record<string, number[]>)[resource]?.[0] ?? 0;
        return [resource, [was + amount, 0]];
      });
      expect([whole.pins, whole.held]).toEqual([[], { ...more, ...Object.fromEntries(held) }]);
      expect(isSnapshot || kind === 'image' ? whole.snapshots : whole.volumes).toEqual([WORK[kind].name]);
      // And so it stays.
      await at.reopen();
      expect([await statuses(kind), await seen()]).toEqual([{ n: `${status} ${WORK[kind].whole.root}` }, whole]);
      expect(at.logged).toEqual([]);
    });

    it.runIf(backend === 'SQLite')('of an object: nobody was told of it, and nothing is left', async () => {
      const upload = (made: string) => `
        const changes = ${JSON.stringify([insert('account', rows.account('')), insert('container', rows.container('')), insert('object', rows.objectRow('p', null))])};
        for (const { row } of changes) if ('project_id' in row) row.project_id = project;
        await catalog.write(changes);
        const row = ${JSON.stringify(rows.version('p', { id: 'i', status: 'uploading', root: 'r@sealed' }))};
        await catalog.pins.make({ kind: 'object', name: 'r@sealed', subject: 'i', begin: [{ do: 'insert', table: 'object_version', row }],
          takes: { holder: { projectId: project, userId: null }, amounts: { objects: 1, object_bytes: ${MIB} } } }, async () => {
          const i = await engine.ingest({ volume: 'r', snapshot: 'sealed' }); await i.write(Buffer.alloc(${MIB}, 7)); await i.finish();
          ${made}
        });`;
      await at.killed(upload('await now();'));
      await at.open();
      const db = await at.catalog.reader();
      expect(await db.selectFrom('object_version').selectAll().execute()).toEqual([]);
      expect(await db.selectFrom('object').selectAll().execute()).toEqual([]);
      expect(await seen()).toEqual({ pins: [], volumes: [], snapshots: [], held: {} });
    });
  });

  it.runIf(backend === 'SQLite')('a kill while a service deletes something, on both sides of each step', async () => {
    const row = rows.volume('', { id: 'i', name: 'n', root: 'r', size: MIB });
    await at.killed(`
      await engine.createVolume({ name: 'r', size: ${MIB} });
      await catalog.write([{ do: 'insert', table: 'volume', row: { ...${JSON.stringify(row)}, project_id: project } },
        { do: 'charge', project_id: project, user_id: null, amounts: { volumes: 1, volume_bytes: ${MIB} } }]);
      await now();`);
    const drop = `
      const gone = [{ do: 'delete', table: 'volume', where: { id: 'i' } },
        { do: 'charge', project_id: project, user_id: null, amounts: { volumes: -1, volume_bytes: -${MIB} } }];
      await catalog.pins.drop('r', gone);`;
    const there = { pins: [], volumes: ['r'], snapshots: [], held: { volumes: [1, 0], volume_bytes: [MIB, 0] } };
    const nothing = { pins: [], volumes: [], snapshots: [], held: {} };
    await at.killed(`catalog.write = now; ${drop}`);
    await at.open();
    expect([await statuses('volume'), await seen()]).toEqual([{ n: 'available r' }, there]);
    await at.close();
    // The row is gone; what the engine has goes; the kill comes when it has, and the pin is still there.
    await at.killed(`
      const remove = side.remove.bind(side);
      side.remove = async (name) => { await remove(name); await now(); };
      ${drop}`);
    expect(await at.at.select('SELECT name FROM pin')).toEqual([{ name: 'r' }]);
    await at.open();
    expect([await statuses('volume'), await seen()]).toEqual([{}, nothing]);
  });

  it('each passing state without a pin ends, with what is there and without', { timeout: 240_000 }, async () => {
    await at.open();
    const engine = at.engine!;
    const { projectId, userId } = await demoProject(at.catalog);
    const owner = { user_id: userId };
    const changes: Change[] = [
      insert('account', rows.account(projectId)),
      insert('container', rows.container(projectId)),
    ];
    for (const status of Object.keys(PASSING.volume)) {
      for (const there of [true, false]) {
        const name = `${status} ${there ? 'made' : 'not made'}`;
        const root = `v-${status}-${there}`;
        if (there) await engine.createVolume({ name: root, size: status === 'extending' ? 3 * MIB : MIB });
        changes.push(insert('volume', rows.volume(projectId, { ...owner, name, status, root, size: MIB })));
      }
    }
    const attached = rows.volume(projectId, {
      ...owner,
      name: 'uploading, attached',
      status: 'uploading',
      root: 'v-a',
      size: MIB,
    });
    const stuck = rows.volume(projectId, {
      ...owner,
      name: 'deleting, kept',
      status: 'deleting',
      root: 'v-s',
      size: MIB,
    });
    for (const name of ['v-a', 'v-s']) await engine.createVolume({ name, size: MIB });
    await engine.createSnapshot('v-s', 'kept');
    changes.push(insert('volume', attached), insert('attachment', rows.attachment(projectId, attached.id)));
    changes.push(insert('volume', stuck));
    changes.push(
      insert('snapshot', rows.snapshot(projectId, stuck.id, { ...owner, name: 'kept', root: 'kept', size: MIB })),
    );
    for (const status of Object.keys(PASSING.snapshot)) {
      await engine.createSnapshot('v-a', status);
      for (const there of [true, false]) {
        const more = { ...owner, name: `${status} ${there ? 'made' : 'not made'}`, status, size: MIB };
        const root = there ? status : `no-${status}`;
        changes.push(insert('snapshot', rows.snapshot(projectId, attached.id, { ...more, root })));
      }
    }
    for (const status of Object.keys(PASSING.image)) {
      const ingest = await engine.ingest({ volume: `i-${status}`, snapshot: 'sealed' });
      await ingest.write(new Uint8Array(512));
      await ingest.finish();
      const checksum = status === 'importing' ? 'abc' : null;
      const more = { ...owner, name: status, status, size: MIB, root: `i-${status}@sealed`, checksum };
      changes.push(insert('image', rows.image(projectId, more)));
    }
    changes.push(insert('object', rows.objectRow('new', null)), ...rows.objectWithVersion('old', { size: 1 }));
    for (const name of ['new', 'old'])
      changes.push(insert('object_version', rows.version(name, { status: 'uploading', root: `u-${name}@sealed` })));
    const counts = { volumes: 20, volume_bytes: 27 * MIB, snapshots: 7, images: 4, image_bytes: 4 * MIB };
    changes.push({ do: 'charge', project_id: projectId, user_id: userId, amounts: counts });
    await at.catalog.write(changes);
    await at.close();
    await at.open();

    expect(await statuses('volume')).toEqual({
      'backing-up made': 'available v-backing-up-true',
      'backing-up not made': 'error',
      'creating made': 'available v-creating-true',
      'creating not made': 'error',
      'deleting, kept': 'error_deleting v-s',
      'downloading made': 'available v-downloading-true',
      'downloading not made': 'error',
      'extending made': 'available v-extending-true',
      'extending not made': 'error',
      'restoring-backup made': 'error_restoring v-restoring-backup-true',
      'restoring-backup not made': 'error_restoring',
      'retyping made': 'available v-retyping-true',
      'retyping not made': 'error',
      'reverting made': 'available v-reverting-true',
      'reverting not made': 'error',
      'uploading made': 'available v-uploading-true',
      'uploading not made': 'error',
      'uploading, attached': 'in-use v-a',
    });
    expect(await statuses('snapshot')).toEqual({
      'backing-up made': 'available backing-up',
      'backing-up not made': 'error',
      'creating made': 'available creating',
      'creating not made': 'error',
      kept: 'available kept',
    });
    expect(await statuses('image')).toEqual({
      importing: 'active i-importing@sealed',
      saving: 'killed',
      uploading: 'killed',
    });
    const db = await at.catalog.reader();
    expect(await db.selectFrom('object').select('name').execute()).toEqual([{ name: 'old' }]);
    expect(await db.selectFrom('object_version').select('status').execute()).toEqual([{ status: 'active' }]);
    // What was deleted is gone from the engine; what rows name is there.
    const { volumes, snapshots, pins } = await seen();
    expect(volumes.filter((name) => /^i-|^v-deleting/.test(name))).toEqual(['i-importing']);
    expect([snapshots.includes('v-a@deleting'), pins]).toEqual([false, []]);
    expect(at.logged).toEqual([expect.stringMatching(/^catalog.pin .*v-s/)]);
    // What it holds is what its rows name: ten volumes, of which one has grown by two, three snapshots, an image.
    const held = {
      volumes: [10, 0],
      volume_bytes: [15 * MIB, 0],
      snapshots: [3, 0],
      images: [1, 0],
      image_bytes: [MIB, 0],
    };
    expect(await at.held(projectId)).toEqual(held);
    const own = await at.catalog.quotas.show({ projectId, userId });
    expect(own.find(({ resource }) => resource === 'volume_bytes')?.used).toBe(15 * MIB);
    // Nothing is left to do.
    await at.reopen();
    expect(await at.held(projectId)).toEqual(held);
  });
});
