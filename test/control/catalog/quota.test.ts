/** Quota by commissions: what is reserved, confirmed, released, refused; by many at once, and over a kill. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import type { Holder } from '../../../src/control/catalog/quotas.ts';
import { type Amounts, RESOURCE_NAMES, RESOURCES, type ResourceName } from '../../../src/control/catalog/resources.ts';
import type { Change } from '../../../src/control/catalog/types.ts';
import { BACKENDS, type CatalogFolder, demoProject, foldersIn } from './folder.ts';

describe.each(BACKENDS)('in %s', (backend) => {
  const newFolder = foldersIn(backend);
  let at: CatalogFolder;
  let catalog: LocalCatalog;
  let project: Holder;
  let user: { projectId: string; userId: string };
  beforeEach(async () => {
    at = await newFolder();
    await reopen();
  });
  afterEach(() => at.end());

  async function reopen(): Promise<void> {
    await catalog?.close();
    catalog = at.open();
    user = await demoProject(catalog);
    project = { projectId: user.projectId, userId: null };
  }
  const held = async (holder: Holder, resource: ResourceName) => {
    const { used, reserved } = (await catalog.quotas.show(holder)).find((row) => row.resource === resource)!;
    return [used, reserved];
  };
  const region = (id: string): Change => ({
    do: 'insert',
    table: 'region',
    row: { id, description: '', parent_region_id: null, extra: '{}' },
  });
  const codeOf = (result: PromiseSettledResult<unknown>) =>
    result.status === 'fulfilled' ? 'ok' : (result.reason as { code: string }).code;
  const refused = (resource: ResourceName, more: object = {}) => ({
    code: 'QUOTA_EXCEEDED',
    exceeded: { resource, ...more },
  });

  describe('a commission', () => {
    it('reserves, and is used when it is confirmed, together with what was made', async () => {
      const amounts = { volumes: 1, volume_bytes: 2 ** 30 };
      const made = await catalog.quotas.within(user, amounts, async () => {
        expect(await held(project, 'volumes')).toEqual([0, 1]);
        expect(await held(user, 'volume_bytes')).toEqual([0, 2 ** 30]);
        return { result: 'made', changes: [region('made')] };
      });
      expect(made).toBe('made');
      for (const holder of [project, user]) {
        expect(await held(holder, 'volumes')).toEqual([1, 0]);
        expect(await held(holder, 'volume_bytes')).toEqual([2 ** 30, 0]);
      }
      const db = await catalog.reader();
      expect(await db.selectFrom('region').select('id').where('id', '=', 'made').execute()).toHaveLength(1);
      expect(await db.selectFrom('commission').selectAll().execute()).toEqual([]);
      expect(await db.selectFrom('provision').selectAll().execute()).toEqual([]);
    });

    it('is released when the work fails, or what it made cannot be written, and then nothing is there', async () => {
      const failing = async () => {
        throw new Error('the client went away');
      };
      await expect(catalog.quotas.within(user, { objects: 3 }, failing)).rejects.toThrow('the client went away');
      const twice = async () => ({ result: 0, changes: [region('a'), region('RegionOne')] });
      await expect(catalog.quotas.within(user, { objects: 3 }, twice)).rejects.toMatchObject({ code: 'EXISTS' });
      expect(await held(project, 'objects')).toEqual([0, 0]);
      expect(await held(user, 'objects')).toEqual([0, 0]);
      const db = await catalog.reader();
      expect(await db.selectFrom('region').select('id').execute()).toEqual([{ id: 'RegionOne' }]);
    });

    it('is given back by a charge with the deletion, and never more than is held', async () => {
      const { projectId: project_id, userId: user_id } = user;
      await catalog.quotas.within(user, { images: 2 }, async () => ({ result: 0, changes: [] }));
      const back = (amount: number): Change => ({ do: 'charge', project_id, user_id, amounts: { images: amount } });
      await catalog.write([back(-1)]);
      expect(await held(project, 'images')).toEqual([1, 0]);
      await expect(catalog.write([region('x'), back(-2)])).rejects.toMatchObject({ code: 'INVALID' });
      expect(await held(user, 'images')).toEqual([1, 0]);
      await catalog.write([back(-1)]);
      expect(await held(user, 'images')).toEqual([0, 0]);
      expect(at.deaths).toEqual([]);
    });

    it('cannot be confirmed twice, nor after it was released, nor of what cannot be counted', async () => {
      const one = await catalog.quotas.reserve(project, { volumes: 1 });
      await catalog.write([one.confirm]);
      await expect(catalog.write([one.confirm])).rejects.toMatchObject({ code: 'NOT_FOUND' });
      const two = await catalog.quotas.reserve(project, { volumes: 1 });
      await catalog.quotas.release(two);
      await catalog.quotas.release(two);
      await expect(catalog.write([region('late'), two.confirm])).rejects.toMatchObject({ code: 'NOT_FOUND' });
      expect(await held(project, 'volumes')).toEqual([1, 0]);
      for (const amounts of [{ volumes: -1 }, { volumes: 0.5 }, { volumes: 2 ** 53 }, { moons: 1 } as Amounts])
        await expect(catalog.quotas.reserve(project, amounts)).rejects.toMatchObject({ code: 'INVALID' });
      expect(at.deaths).toEqual([]);
    });

    it('ends with its project, and the work then fails', async () => {
      const { projectId } = user;
      const work = async () => {
        await catalog.write([{ do: 'delete', table: 'project', where: { id: projectId } }]);
        return { result: 0, changes: [region('late')] };
      };
      await expect(catalog.quotas.within(user, { volumes: 1 }, work)).rejects.toMatchObject({ code: 'NOT_FOUND' });
      const db = await catalog.reader();
      expect(await db.selectFrom('holding').selectAll().execute()).toEqual([]);
      expect(await db.selectFrom('region').select('id').where('id', '=', 'late').execute()).toEqual([]);
    });

    it('stays the project’s when its user goes', async () => {
      const work = async () => {
        await catalog.write([{ do: 'delete', table: 'user', where: { id: user.userId } }]);
        return { result: 0, changes: [] };
      };
      await catalog.quotas.within(user, { volumes: 1 }, work);
      expect(await held(project, 'volumes')).toEqual([1, 0]);
    });
  });

  describe('limits', () => {
    it('a new catalog has one for each resource, for every project', async () => {
      const rows = await catalog.quotas.show(project);
      expect(rows.map(({ resource, limit, from }) => [resource, limit, from])).toEqual(
        RESOURCE_NAMES.map((name) => [name, RESOURCES[name].limit, 'default']),
      );
      expect((await catalog.quotas.show(user)).map(({ limit, from }) => [limit, from])).toEqual(
        RESOURCE_NAMES.map(() => [null, null]),
      );
    });

    it('up to it and no further: the default, the project’s own, the user’s in it', async () => {
      const take = (holder: Holder, volumes: number) =>
        catalog.quotas.within(holder, { volumes }, async () => ({ result: 0, changes: [] }));
      await catalog.quotas.setDefaults({ volumes: 3 });
      await expect(take(project, 4)).rejects.toMatchObject(
        refused('volumes', { limit: 3, used: 0, reserved: 0, wanted: 4, user_id: null }),
      );
      await take(project, 3);
      await expect(take(project, 1)).rejects.toThrow(
        'quota exceeded for volumes: the project may have 3, has 3, and wants 1 more',
      );
      await catalog.quotas.set(project, { volumes: 5 });
      await catalog.quotas.set(user, { volumes: 1 });
      await expect(take(user, 2)).rejects.toMatchObject(refused('volumes', { limit: 1, user_id: user.userId }));
      await take(user, 1);
      await expect(take(user, 1)).rejects.toMatchObject(refused('volumes', { limit: 1, used: 1 }));
      await take(project, 1);
      await expect(take(project, 1)).rejects.toMatchObject(refused('volumes', { limit: 5, used: 5 }));
      // Below what is held, nothing is taken and nothing given; none, and the default again.
      await catalog.quotas.set(project, { volumes: 0 });
      await expect(take(project, 1)).rejects.toMatchObject(refused('volumes', { limit: 0, used: 5 }));
      await catalog.quotas.set(project, { volumes: null });
      await take(project, 1000);
      await catalog.quotas.set(project, { volumes: 'default' });
      expect((await catalog.quotas.show(project))[0]).toEqual({
        ...{ resource: 'volumes', limit: 3, from: 'default', used: 1005, reserved: 0 },
      });
      expect(at.deaths).toEqual([]);
    });

    it('one resource too many, and none of the others is reserved', async () => {
      await catalog.quotas.setDefaults({ volume_bytes: 10 });
      await expect(catalog.quotas.reserve(user, { volumes: 1, volume_bytes: 11, snapshots: 1 })).rejects.toMatchObject(
        refused('volume_bytes'),
      );
      for (const resource of RESOURCE_NAMES) expect(await held(project, resource)).toEqual([0, 0]);
    });

    it('many at once get what there is and no more', async () => {
      await catalog.quotas.setDefaults({ objects: 20 });
      const tries = await Promise.allSettled(
        Array.from({ length: 50 }, (_, index) =>
          catalog.quotas.within(index % 2 ? user : project, { objects: 1 }, async () => ({ result: 0, changes: [] })),
        ),
      );
      const codes = tries.map(codeOf);
      // What is reserved by one that then confirms is never given to another.
      expect(codes.filter((code) => code === 'ok')).toHaveLength(20);
      expect(codes.filter((code) => code === 'QUOTA_EXCEEDED')).toHaveLength(30);
      expect(await held(project, 'objects')).toEqual([20, 0]);
    });
  });

  describe('after a kill', () => {
    it('what was not confirmed is released, and what was confirmed is used', async () => {
      await catalog.close();
      await at.killed(`
      await catalog.quotas.within({ projectId: project, userId: null }, { objects: 2 }, async () => ({ result: 0, changes: [] }));
      await catalog.quotas.within({ projectId: project, userId: null }, { objects: 5 }, now);
    `);
      const raw = at.open();
      const db = await raw.reader();
      expect(await db.selectFrom('holding').select(['resource', 'used', 'reserved']).execute()).toEqual([
        { resource: 'objects', used: 2, reserved: 0 },
      ]);
      expect(await db.selectFrom('commission').selectAll().execute()).toEqual([]);
    });

    it('the reservation was durable until then', async () => {
      await catalog.close();
      await at.killed('await catalog.quotas.within({ projectId: project, userId: null }, { objects: 5 }, now);');
      expect(await at.select('SELECT used, reserved FROM holding')).toEqual([{ used: 0, reserved: 5 }]);
    });

    it('a stop while work is on its way releases too, and this run’s own stay', async () => {
      const first = await catalog.quotas.reserve(project, { volumes: 1 });
      await reopen();
      expect(await held(project, 'volumes')).toEqual([0, 0]);
      await expect(catalog.write([first.confirm])).rejects.toMatchObject({ code: 'NOT_FOUND' });
      const second = await catalog.quotas.reserve(project, { volumes: 1 });
      await catalog.write([{ do: 'release-others', run: catalog.quotas.run }]);
      await catalog.write([second.confirm]);
      expect(await held(project, 'volumes')).toEqual([1, 0]);
    });
  });

  it('a release that cannot be written is tried again', async () => {
    const { Quotas } = await import('../../../src/control/catalog/quotas.ts');
    let full = true;
    const quotas = new Quotas(
      {
        reader: () => catalog.reader(),
        write: (changes) =>
          full && changes.some((change) => change.do === 'release')
            ? Promise.reject(new Error('the disk is full'))
            : catalog.write(changes),
      },
      catalog.quotas.run,
    );
    const fail = async () => {
      throw new Error('no');
    };
    await expect(quotas.within(project, { volumes: 1 }, fail)).rejects.toThrow('no');
    expect(quotas.unreleased).toBe(1);
    expect(await held(project, 'volumes')).toEqual([0, 1]);
    full = false;
    await expect.poll(() => quotas.unreleased, { timeout: 20_000 }).toBe(0);
    expect(await held(project, 'volumes')).toEqual([0, 0]);
  });
});
