/** `atoll quota` and its routes, on a catalog of its own. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LocalCatalog } from '../../src/control/catalog/catalog.ts';
import { CatalogFolder, demoProject } from './catalog/folder.ts';
import { FakeEngine } from './fake-engine.ts';
import { inProcess } from './in-process.ts';
import { type ServedApi, serveApi } from './served-api.ts';

const at = new CatalogFolder();
let catalog: LocalCatalog;
let served: LocalCatalog | null;
let api: ServedApi;

beforeAll(async () => {
  catalog = at.open();
  served = catalog;
  api = await serveApi(new FakeEngine(), { folder: at.dir, catalog: () => served });
});
afterAll(async () => {
  await api.end();
  await at.end();
});

const atoll = (...argv: string[]) => inProcess({ home: at.dir }, ['quota', ...argv]);
const json = async (...argv: string[]) => {
  const { exit, out, err } = await atoll(...argv, '--json');
  expect([exit, err]).toEqual([0, '']);
  return JSON.parse(out);
};
const line = (answer: { resources: { resource: string }[] }, resource: string) =>
  answer.resources.find((one) => one.resource === resource);

describe('atoll quota', () => {
  it('shows a project by name and by id, sets its limits, and takes them away', async () => {
    const { projectId } = await demoProject(catalog);
    const shown = await json('show', 'demo');
    expect(shown).toMatchObject({ project: { id: projectId, name: 'demo', domain: 'default' }, user: null });
    expect(line(shown, 'volumes')).toEqual({ resource: 'volumes', limit: 100, from: 'default', used: 0, reserved: 0 });
    expect(await json('show', projectId)).toEqual(shown);
    const set = await json('set', 'demo', 'volumes=2', 'volume_bytes=2T', 'objects=none', 'images=0');
    expect(['volumes', 'volume_bytes', 'objects', 'images'].map((one) => line(set, one))).toMatchObject([
      ...[{ limit: 2, from: 'project' }, { limit: 2 ** 41 }, { limit: null, from: 'project' }, { limit: 0 }],
    ]);
    await catalog.quotas.within({ projectId, userId: null }, { volumes: 1 }, async () => {
      expect(line(await json('show', 'demo'), 'volumes')).toMatchObject({ used: 0, reserved: 1 });
      return { result: 0, changes: [] };
    });
    expect((await atoll('show', 'demo')).out.split('\n').slice(0, 3)).toEqual([
      'RESOURCE        LIMIT  FROM     USED  RESERVED',
      'volumes             2  project     1         0',
      'volume_bytes    2 TiB  project   0 B       0 B',
    ]);
    expect(line(await json('set', 'demo', 'volumes=default'), 'volumes')).toMatchObject({
      limit: 100,
      from: 'default',
    });
  });

  it('of a user in a project', async () => {
    const set = await json('set', 'demo', 'volumes=1', '--user', 'demo');
    expect(set).toMatchObject({ project: { name: 'demo' }, user: { name: 'demo' } });
    expect(line(set, 'volumes')).toMatchObject({ limit: 1, from: 'user' });
    expect(line(set, 'objects')).toMatchObject({ limit: null, from: null });
    expect(line(await json('show', 'demo'), 'volumes')).toMatchObject({ limit: 100 });
    expect(line(await json('show', 'demo', '--user', set.user.id), 'volumes')).toMatchObject({ limit: 1 });
  });

  it('defaults, for all that have none of their own', async () => {
    expect((await json('defaults')).limits).toMatchObject({ volumes: 100, object_bytes: 100 * 2 ** 30 });
    expect((await json('defaults', 'snapshots=7', 'containers=none')).limits).toMatchObject({
      ...{ snapshots: 7, containers: null, volumes: 100 },
    });
    expect(line(await json('show', 'admin'), 'snapshots')).toMatchObject({ limit: 7, from: 'default' });
    expect(line(await json('show', 'admin'), 'containers')).toMatchObject({ limit: null, from: 'default' });
    expect((await atoll('defaults')).out).toMatch(/^RESOURCE +LIMIT\nvolumes +100\nvolume_bytes +1000 GiB\n/);
  });

  it('says what is wrong', async () => {
    const refused = async (exit: number, text: RegExp, ...argv: string[]) =>
      expect(await atoll(...argv)).toMatchObject({ exit, out: '', err: expect.stringMatching(text) });
    await refused(3, /there is no project nobody in the domain default/, 'show', 'nobody');
    await refused(3, /there is no project demo in the domain other/, 'show', 'demo', '--domain', 'other');
    await refused(3, /there is no user nobody/, 'set', 'demo', 'volumes=1', '--user', 'nobody');
    await refused(2, /moons=1 is no limit; write RESOURCE=LIMIT/, 'set', 'demo', 'moons=1');
    await refused(2, /volumes=many: write a number/, 'set', 'demo', 'volumes=many');
    await refused(2, /volumes=-1: write a number/, 'set', 'demo', 'volumes=-1');
    await refused(2, /volumes is given twice/, 'set', 'demo', 'volumes=1', 'volumes=2');
    await refused(2, /volumes=default: write a number/, 'defaults', 'volumes=default');
    await refused(2, /not a size/, 'set', 'demo', 'volume_bytes=lots');
    await refused(2, /missing required argument 'limits'/, 'set', 'demo');
    expect(line(await json('show', 'admin'), 'volumes')).toMatchObject({ limit: 100 });
  });

  it('sets for who can read the home only, and shows for who has the socket', async () => {
    const key = path.join(at.folder, 'operator.key');
    const kept = fs.readFileSync(key);
    fs.writeFileSync(key, 'x'.repeat(64));
    expect(await atoll('set', 'demo', 'volumes=1')).toMatchObject({
      exit: 1,
      err: expect.stringMatching(/set quotas/),
    });
    expect(await atoll('defaults', 'volumes=1')).toMatchObject({ exit: 1 });
    expect((await atoll('show', 'demo')).exit).toBe(0);
    fs.writeFileSync(key, kept);
    served = null;
    expect(await atoll('show', 'demo')).toMatchObject({ exit: 8, err: expect.stringMatching(/has no users/) });
    served = catalog;
  });
});

describe('the routes', () => {
  const send = (url: string, body: unknown) =>
    api.app.inject({
      method: 'POST',
      url,
      payload: body as object,
      headers: { 'x-atoll-operator': fs.readFileSync(path.join(at.folder, 'operator.key'), 'utf8').trim() },
    });

  it('take limits from none to what can be counted, and nothing else', async () => {
    for (const limit of [0, Number.MAX_SAFE_INTEGER, null, 'default'])
      expect((await send('/v1/quotas/demo', { limits: { volumes: limit } })).statusCode).toBe(200);
    for (const limit of [-1, 0.5, Number.MAX_SAFE_INTEGER + 1, '5', 'none', true])
      expect([limit, (await send('/v1/quotas/demo', { limits: { volumes: limit } })).statusCode]).toEqual([limit, 400]);
    expect((await send('/v1/quotas', { limits: { volumes: 'default' } })).statusCode).toBe(400);
    const unknown = await send('/v1/quotas', { limits: { volumes: 5, moons: 1 } });
    expect([unknown.statusCode, unknown.json().error.message]).toEqual([
      400,
      expect.stringMatching(/nobody counts moons/),
    ]);
    expect((await send('/v1/quotas/demo', { limits: {}, more: 1 })).statusCode).toBe(400);
    expect((await api.app.inject('/v1/quotas')).json().limits.volumes).toBe(100);
  });
});
