/** Catalog and engine after a kill between them: what is in one is in the other, or is gone. Rows are regions, their state in `extra`. */
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Catalog, LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import type { Settle } from '../../../src/control/catalog/pins.ts';
import type { Change } from '../../../src/control/catalog/types.ts';
import { engineSide } from '../../../src/control/serve/engine-side.ts';
import type { Engine } from '../../../src/xseg/types.ts';
import { openEngine } from '../../xseg/engine.ts';
import { BACKENDS, CATALOG_MODULE, type CatalogFolder, demoProject, foldersIn } from './folder.ts';

const ENGINE_MODULE = CATALOG_MODULE.replace('control/catalog/catalog.js', 'xseg/engine.js');
const SIDE_MODULE = CATALOG_MODULE.replace('catalog/catalog.js', 'serve/engine-side.js');
const GIB = 2 ** 30;

describe.each(BACKENDS)('in %s', (backend) => {
  const newFolder = foldersIn(backend);
  let at: CatalogFolder;
  let engine: Engine | null;
  let catalog: LocalCatalog;
  let logged: string[];

  beforeEach(async () => {
    at = await newFolder();
    engine = null;
    logged = [];
  });
  afterEach(async () => {
    await at.end(async () => engine?.close());
  });

  const engineOptions = () => ({
    ...{ home: path.join(at.dir, 'h'), version: 'test', cacheBytes: 16 << 20 },
    log: () => undefined,
    onFatal: (reason: string) => void logged.push(`fatal ${reason}`),
  });

  /** What a service would do: a row that grows while its volume is made is kept when that was whole, else it is an error. */
  const settle: Settle = async ({ subject, made }, side) => {
    const db = await side.reader();
    const row = await db.selectFrom('region').selectAll().where('id', '=', subject).executeTakeFirst();
    if (!row) return { keep: false, changes: [] };
    return { keep: made, changes: [state(subject, made ? 'available' : 'error')] };
  };
  const state = (id: string, text: string): Change => ({
    ...{ do: 'update', table: 'region', where: { id }, set: { extra: JSON.stringify({ state: text }) } },
  });
  const row = (id: string, text: string): Change => ({
    ...{ do: 'insert', table: 'region' },
    row: { id, description: '', parent_region_id: null, extra: JSON.stringify({ state: text }) },
  });
  const gone = (id: string): Change => ({ do: 'delete', table: 'region', where: { id } });

  async function open(): Promise<void> {
    engine = await openEngine(engineOptions());
    const log = (_level: string, event: string, fields: object) =>
      void logged.push(`${event} ${JSON.stringify(fields)}`);
    catalog = at.open(engineSide(engine, log));
    catalog.pins.settles('volume', settle);
    await catalog.start();
  }
  async function reopen(): Promise<void> {
    await catalog.close();
    await engine?.close();
    await open();
  }

  async function states(from: Pick<Catalog, 'reader'> = catalog): Promise<Record<string, string>> {
    const rows = await (await from.reader())
      .selectFrom('region')
      .select(['id', 'extra'])
      .where('id', '!=', 'RegionOne')
      .execute();
    return Object.fromEntries(rows.map(({ id, extra }) => [id, JSON.parse(extra).state]));
  }
  const volumes = async () => (await engine!.listVolumes()).map(({ name }) => name).sort();
  const pins = async () => (await catalog.reader()).selectFrom('pin').selectAll().execute();
  async function held(): Promise<Record<string, [number, number]>> {
    const rows = await catalog.quotas.show({ ...(await demoProject(catalog)), userId: null });
    const some = rows.filter(({ used, reserved }) => used + reserved > 0);
    return Object.fromEntries(some.map(({ resource, used, reserved }) => [resource, [used, reserved]]));
  }

  /** Makes the volume `v` with the row `v`, as a service would, and is killed where `now()` is called. */
  const make = (before: string, after: string, written = '', subject = "subject: 'v',") => `
  await catalog.pins.make({
    kind: 'volume', name: 'v', ${subject} begin: [row('v', 'creating')],
    takes: { holder: { projectId: project, userId: null }, amounts: { volumes: 1, volume_bytes: ${GIB} } },
  }, async () => {
    ${before}
    await engine.createVolume({ name: 'v', size: ${GIB} });
    ${after}
    return { result: null, changes: [state('v', 'available')] };
  });
  ${written}`;
  const made = () => `
  const { openEngine } = await import(${JSON.stringify(ENGINE_MODULE)});
  const { engineSide } = await import(${JSON.stringify(SIDE_MODULE)});
  const engine = await openEngine({ home: ${JSON.stringify(path.join(at.dir, 'h'))}, version: 'test', cacheBytes: ${16 << 20},
    log: () => undefined, onFatal: (reason) => { throw new Error(reason); } });
  side = engineSide(engine, () => undefined);
  const row = ${row};
  const state = ${state};`;
  const SETTLES = `catalog.pins.settles('volume', async () => ({ keep: false, changes: [state('v', 'error')] }));`;
  const kill = (script: string, opened = '') => at.killed(script, { made: made(), opened: `${SETTLES}${opened}` });

  describe('a kill while something is made', () => {
    it('before the engine has it: the row is an error, nothing is held', async () => {
      await kill(make('await now();', ''));
      await open();
      expect([await states(), await volumes(), await pins(), await held()]).toEqual([{ v: 'error' }, [], [], {}]);
    });

    it('when the engine has it and the row does not know: the row is finished, and what it takes is held', async () => {
      await kill(make('', 'await now();'));
      await open();
      expect([await states(), await volumes(), await pins()]).toEqual([{ v: 'available' }, ['v'], []]);
      expect(await held()).toEqual({ volumes: [1, 0], volume_bytes: [GIB, 0] });
    });

    it('when the engine has it and nobody wants it: it goes', async () => {
      await kill(make('', 'await now();', '', ''));
      await open();
      expect([await states(), await volumes(), await pins(), await held()]).toEqual([{ v: 'creating' }, [], [], {}]);
    });

    it('when the row knows: both stay', async () => {
      await kill(make('', '', 'await now();'));
      await open();
      expect([await states(), await volumes(), await pins()]).toEqual([{ v: 'available' }, ['v'], []]);
      expect(await held()).toEqual({ volumes: [1, 0], volume_bytes: [GIB, 0] });
    });

    it('and again while that is put right: the next start does it', async () => {
      await kill(make('await now();', ''));
      // The root is being removed, the row not written yet.
      await kill('', 'side.remove = now;');
      await open();
      expect([await states(), await volumes(), await pins(), await held()]).toEqual([{ v: 'error' }, [], [], {}]);
    });
  });

  describe('a kill while something is deleted', () => {
    it('when the row is gone and the engine still has it: it goes', async () => {
      await kill(`
      await engine.createVolume({ name: 'v', size: ${GIB} });
      side.remove = now;
      await catalog.pins.drop('v', []);`);
      engine = await openEngine(engineOptions());
      expect(await volumes()).toEqual(['v']);
      await engine.close();
      await open();
      expect([await volumes(), await pins()]).toEqual([[], []]);
    });
  });

  describe('while it runs', () => {
    beforeEach(open);

    const making = (name: string) => ({ kind: 'volume', name, subject: name, begin: [row(name, 'creating')] });

    it('work that fails leaves a row that says so, and no root', async () => {
      const project = { ...(await demoProject(catalog)), userId: null };
      const takes = { holder: project, amounts: { volumes: 1 } };
      const failing = catalog.pins.make({ ...making('v'), takes }, async () => {
        await engine!.createVolume({ name: 'v', size: GIB });
        expect([await states(), (await pins()).length, await held()]).toEqual([
          { v: 'creating' },
          1,
          { volumes: [0, 1] },
        ]);
        throw new Error('the source could not be read');
      });
      await expect(failing).rejects.toThrow('the source could not be read');
      expect([await states(), await volumes(), await pins(), await held()]).toEqual([{ v: 'error' }, [], [], {}]);
    });

    it('over quota, nothing is begun', async () => {
      const project = { ...(await demoProject(catalog)), userId: null };
      const takes = { holder: project, amounts: { volumes: 101 } };
      const never = async () => {
        throw new Error('begun');
      };
      await expect(catalog.pins.make({ ...making('v'), takes }, never)).rejects.toMatchObject({
        code: 'QUOTA_EXCEEDED',
      });
      expect([await states(), await pins()]).toEqual([{}, []]);
    });

    it('volumes that others made are left alone, over a restart too', async () => {
      await engine!.createVolume({ name: 'mine', size: GIB });
      await catalog.pins.make(making('v'), async () => {
        await engine!.createVolume({ name: 'v', size: GIB });
        return { result: 0, changes: [state('v', 'available')] };
      });
      await reopen();
      expect([await states(), await volumes()]).toEqual([{ v: 'available' }, ['mine', 'v']]);
      await catalog.pins.drop('v', [gone('v')]);
      expect([await states(), await volumes(), await pins()]).toEqual([{}, ['mine'], []]);
      expect(logged).toEqual([]);
    });

    it('a root that cannot go stays pinned, and goes at the next start when it can', async () => {
      await engine!.createVolume({ name: 'v', size: GIB });
      await engine!.protect('v', true);
      await catalog.write([row('v', 'available')]);
      await catalog.pins.drop('v', [gone('v')]);
      expect([await states(), await volumes(), catalog.pins.left]).toEqual([{}, ['v'], 1]);
      expect(logged).toEqual([expect.stringMatching(/^catalog.pin .*PROTECTED/)]);
      await reopen();
      expect([await volumes(), catalog.pins.left]).toEqual([['v'], 1]);
      await engine!.protect('v', false);
      await reopen();
      expect([await volumes(), catalog.pins.left, await pins()]).toEqual([[], 0, []]);
    });

    it('a row of a service that is not there stays as it is, and is said once a start', async () => {
      const work = new Promise<never>(() => undefined);
      catalog.pins.settles('moon', settle);
      void catalog.pins.make({ kind: 'moon', name: 'm', subject: 'm', begin: [row('m', 'creating')] }, () => work);
      await expect.poll(states).toEqual({ m: 'creating' });
      await reopen();
      expect([await states(), (await pins()).length, catalog.pins.left]).toEqual([{ m: 'creating' }, 1, 0]);
      expect(logged).toEqual([expect.stringMatching(/no service knows what moon is/)]);
    });
  });
});
