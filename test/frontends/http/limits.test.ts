/** Quotas as Keystone's limits: the same rows that `atoll quota` shows, for who may see and set them. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { RESOURCES } from '../../../src/control/catalog/resources.ts';
import { LIMITS_AT_ONCE_MAX } from '../../../src/frontends/http/identity/limits.ts';
import { Cloud, inDomain, inSystem } from './cloud.ts';

const cloud = new Cloud();
let token: string;
let identity: string;
let project: string;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.admin();
  identity = (await ask('GET', '/services?type=identity')).body.services[0].id;
});
afterAll(() => cloud.end());
beforeEach(async () => {
  project = await cloud.make('projects', 'project', { name: `p${Math.random()}` }, token);
});

const ask = (method: string, url: string, body?: unknown, as = token) => cloud.call(method, url, { token: as, body });
const status = async (...args: Parameters<typeof ask>) => (await ask(...args)).status;
const limit = (resource_name: string, resource_limit: number, more = {}) => ({
  limits: [{ service_id: identity, resource_name, resource_limit, project_id: project, ...more }],
});
const registered = (resource_name: string, default_limit: number, more = {}) => ({
  registered_limits: [{ service_id: identity, resource_name, default_limit, ...more }],
});
const held = async (projectId = project) =>
  Object.fromEntries(
    (await cloud.catalog.quotas.show({ projectId, userId: null })).map(({ resource, limit: most, from }) => [
      resource,
      [most, from],
    ]),
  );

describe('registered limits', () => {
  it('are the defaults of all that is counted', async () => {
    const { status: answered, body } = await ask('GET', '/registered_limits');
    expect(answered).toBe(200);
    const found = body.registered_limits.map((one: Record<string, unknown>) => [one.resource_name, one.default_limit]);
    expect(Object.fromEntries(found)).toEqual(
      Object.fromEntries(Object.entries(RESOURCES).map(([name, { limit: most }]) => [name, most])),
    );
    expect(body.registered_limits[0]).toMatchObject({ service_id: identity, region_id: null, description: null });
    expect(body.links).toMatchObject({ next: null, previous: null });
    const one = body.registered_limits[0];
    expect((await ask('GET', `/registered_limits/${one.id}`)).body.registered_limit).toEqual(one);
  });

  it('are set, and said something about, which stays', async () => {
    const at = '/registered_limits/volumes';
    const set = await ask('PATCH', at, { registered_limit: { default_limit: 7, description: 'few' } });
    expect([set.status, set.body.registered_limit]).toEqual([
      200,
      expect.objectContaining({ id: 'volumes', default_limit: 7, description: 'few' }),
    ]);
    expect((await held()).volumes).toEqual([7, 'default']);
    await cloud.catalog.quotas.setDefaults({ volumes: 8 });
    expect((await ask('GET', at)).body.registered_limit).toMatchObject({ default_limit: 8, description: 'few' });
    await cloud.catalog.quotas.setDefaults({ volumes: null });
    expect((await ask('GET', at)).body.registered_limit.default_limit).toBe(-1);
    expect(await status('PATCH', at, { registered_limit: { default_limit: 0, resource_name: 'volumes' } })).toBe(200);
    expect((await held()).volumes).toEqual([0, 'default']);
    await cloud.catalog.quotas.setDefaults({ volumes: 100 });
  });

  it('are taken away, after which there is no limit, and made again, once', async () => {
    expect(await status('POST', '/registered_limits', registered('snapshots', 5))).toBe(409);
    expect(await status('DELETE', '/registered_limits/snapshots')).toBe(204);
    expect((await held()).snapshots).toEqual([null, null]);
    expect(await status('DELETE', '/registered_limits/snapshots')).toBe(404);
    expect(await status('POST', '/limits', limit('snapshots', 5))).toBe(403);
    const made = await ask('POST', '/registered_limits', registered('snapshots', 5, { description: 'again' }));
    expect([made.status, made.body.registered_limits]).toEqual([
      201,
      [expect.objectContaining({ id: 'snapshots', default_limit: 5, description: 'again' })],
    ]);
    expect((await held()).snapshots).toEqual([5, 'default']);
    expect(await status('POST', '/limits', limit('snapshots', 6))).toBe(201);
    expect(await status('DELETE', '/registered_limits/snapshots')).toBe(403);
    // All or none.
    await ask('DELETE', '/registered_limits/images');
    const both = {
      registered_limits: [...registered('images', 1).registered_limits, ...registered('volumes', 1).registered_limits],
    };
    expect(await status('POST', '/registered_limits', both)).toBe(409);
    expect(await status('GET', '/registered_limits/images')).toBe(404);
    expect(await status('POST', '/registered_limits', registered('images', 1))).toBe(201);
  });

  it('belong to the service that counts them', async () => {
    const service = await cloud.make('services', 'service', { type: 'image' }, token);
    const ofImage = async (query: string) =>
      (await ask('GET', `/registered_limits?${query}`)).body.registered_limits.map(({ id }: { id: string }) => id);
    expect(await ofImage(`service_id=${service}`)).toEqual(['image-bytes', 'images']);
    expect(await ofImage(`service_id=${service}&resource_name=images`)).toEqual(['images']);
    expect(await ofImage('region_id=RegionOne')).toEqual([]);
    expect(await ofImage(`service_id=${identity}&limit=1`)).toHaveLength(1);
    await ask('POST', '/limits', { limits: [{ ...limit('images', 3).limits[0], service_id: service }] });
    const ofLimits = async (query: string) => (await ask('GET', `/limits?project_id=${project}&${query}`)).body.limits;
    expect(await ofLimits(`service_id=${service}`)).toHaveLength(1);
    expect(await ofLimits(`service_id=${identity}`)).toHaveLength(0);
    expect(await status('POST', '/limits', limit('image_bytes', 3))).toBe(400);
    await ask('DELETE', `/services/${service}`);
  });
});

describe('limits', () => {
  it('are what a project has in the place of the default', async () => {
    const made = await ask('POST', '/limits', limit('volume_bytes', 2 ** 40, { description: 'much' }));
    expect(made.status).toBe(201);
    const [one] = made.body.limits;
    expect(one).toMatchObject({
      project_id: project,
      domain_id: null,
      service_id: identity,
      resource_name: 'volume_bytes',
    });
    expect((await held()).volume_bytes).toEqual([2 ** 40, 'project']);
    expect((await ask('GET', `/limits/${one.id}`)).body.limit).toEqual(one);
    expect((await ask('GET', `/limits?project_id=${project}`)).body.limits).toEqual([one]);
    expect(await status('POST', '/limits', limit('volume_bytes', 1))).toBe(409);
    const set = await ask('PATCH', `/limits/${one.id}`, { limit: { resource_limit: -1 } });
    expect([set.status, set.body.limit]).toEqual([200, { ...one, resource_limit: -1 }]);
    expect((await held()).volume_bytes).toEqual([null, 'project']);
    await cloud.catalog.quotas.set({ projectId: project, userId: null }, { volume_bytes: 5 });
    expect((await ask('GET', `/limits/${one.id}`)).body.limit).toEqual({ ...one, resource_limit: 5 });
    expect(await status('DELETE', `/limits/${one.id}`)).toBe(204);
    expect((await held()).volume_bytes![1]).toBe('default');
    for (const method of ['GET', 'PATCH', 'DELETE'])
      expect([
        method,
        await status(method, `/limits/${one.id}`, method === 'PATCH' ? { limit: {} } : undefined),
      ]).toEqual([method, 404]);
  });

  it('hold: what is beyond them is not given', async () => {
    await ask('POST', '/limits', limit('objects', 2));
    const take = (objects: number) => cloud.catalog.quotas.reserve({ projectId: project, userId: null }, { objects });
    await expect(take(3)).rejects.toMatchObject({ code: 'QUOTA_EXCEEDED' });
    await cloud.catalog.quotas.release(await take(2));
  });

  it('go by pages', async () => {
    const all = ['volumes', 'objects', 'object_bytes', 'containers'];
    const { limits } = (await ask('POST', '/limits', { limits: all.map((name) => limit(name, 1).limits[0]) })).body;
    const found: string[] = [];
    for (let next: string | null = `/limits?project_id=${project}&limit=3`; next !== null; ) {
      const { body } = await ask('GET', next);
      found.push(...body.limits.map(({ id }: { id: string }) => id));
      next = body.links.next?.replace(/^.*\/identity\/v3/, '') ?? null;
    }
    expect(found.sort()).toEqual(limits.map(({ id }: { id: string }) => id).sort());
    expect((await ask('GET', `/limits?project_id=${project}&resource_name=objects`)).body.limits).toHaveLength(1);
    for (const query of ['region_id=RegionOne', 'domain_id=default'])
      expect((await ask('GET', `/limits?${query}`)).body.limits).toEqual([]);
  });

  it('are seen by readers, by those of the domain, and by the project itself', async () => {
    const domain_id = await cloud.make('domains', 'domain', { name: `d${project}` }, token);
    const inside = await cloud.make('projects', 'project', { name: 'inside', domain_id }, token);
    const user = await cloud.make('users', 'user', { name: 'u', password: 'pw', domain_id }, token);
    const reader = await cloud.idOf('roles', 'reader', token);
    const made = await ask('POST', '/limits', {
      limits: [limit('volumes', 1).limits[0], { ...limit('volumes', 2).limits[0], project_id: inside }],
    });
    const [outer, inner] = made.body.limits.map(({ id }: { id: string }) => id);
    const as = async (scope: unknown) => {
      const own = await cloud.token('u', 'pw', scope, domain_id);
      const { body } = await ask('GET', '/limits', undefined, own);
      const ids = body.limits.map(({ id }: { id: string }) => id).filter((id: string) => [outer, inner].includes(id));
      const shown = [
        await status('GET', `/limits/${outer}`, undefined, own),
        await status('GET', `/limits/${inner}`, undefined, own),
      ];
      expect(await status('GET', '/limits/nothing', undefined, own)).toBe(scope === inSystem ? 404 : 403);
      expect(await status('GET', '/registered_limits', undefined, own)).toBe(200);
      expect(await status('GET', '/limits/model', undefined, own)).toBe(200);
      return { ids, shown };
    };
    for (const place of [`/projects/${inside}`, `/domains/${domain_id}`, '/system'])
      await ask('PUT', `${place}/users/${user}/roles/${reader}`);
    expect(await as({ project: { id: inside } })).toEqual({ ids: [inner], shown: [403, 200] });
    expect(await as(inDomain(domain_id))).toEqual({ ids: [inner], shown: [403, 200] });
    expect(await as('unscoped')).toEqual({ ids: [], shown: [403, 403] });
    expect(await as(inSystem)).toEqual({ ids: [outer, inner].sort(), shown: [200, 200] });
  });

  it('are set by administrators alone', async () => {
    const [one] = (await ask('POST', '/limits', limit('volumes', 1))).body.limits;
    const demo = await cloud.demo();
    for (const [method, url, body] of [
      ['POST', '/limits', limit('images', 1)],
      ['PATCH', `/limits/${one.id}`, { limit: { resource_limit: 100 } }],
      ['DELETE', `/limits/${one.id}`, undefined],
      ['POST', '/registered_limits', registered('volumes', 1)],
      ['PATCH', '/registered_limits/volumes', { registered_limit: { default_limit: 1 } }],
      ['DELETE', '/registered_limits/volumes', undefined],
    ] as const)
      expect([method, url, await status(method, url, body, demo)]).toEqual([method, url, 403]);
    expect((await held()).volumes).toEqual([1, 'project']);
  });

  it('are flat', async () => {
    expect((await ask('GET', '/limits/model')).body.model).toMatchObject({ name: 'flat' });
  });
});

describe('what no limit is', () => {
  it.each([
    ['of what nobody counts', () => limit('cores', 1), 400],
    ['of what every object has', () => limit('constructor', 1), 400],
    ['spelled otherwise', () => limit('volume-bytes', 1), 400],
    ['of a service that does not count it', () => limit('volumes', 1, { service_id: 'x' }), 400],
    ['in one region', () => limit('volumes', 1, { region_id: 'RegionOne' }), 400],
    ['of a domain', () => limit('volumes', 1, { domain_id: 'default' }), 400],
    ['of nobody', () => limit('volumes', 1, { project_id: undefined }), 400],
    ['of a project that is not there', () => limit('volumes', 1, { project_id: '0'.repeat(32) }), 404],
    ['less than none', () => limit('volumes', -2), 400],
    ['half of one', () => limit('volumes', 1.5), 400],
    ['more than can be counted', () => limit('volumes', Number.MAX_SAFE_INTEGER + 1), 400],
    ['a word', () => limit('volumes', '1' as unknown as number), 400],
    ['with something besides', () => limit('volumes', 1, { more: 1 }), 400],
    ['of nothing', () => ({ limits: [] }), 400],
  ])('%s', async (_what, body, expected) => {
    expect(await status('POST', '/limits', body())).toBe(expected);
  });

  it('and the same, where nothing is wrong with it', async () => {
    expect(await status('POST', '/limits', limit('volumes', 1, { region_id: null, domain_id: null }))).toBe(201);
  });

  it('so many at once, and no more; as much as can be counted, and no more', async () => {
    const many = (count: number) => ({ limits: Array(count).fill(limit('volumes', 1).limits[0]) });
    // The first bound is passed, and then two of them are the same.
    expect(await status('POST', '/limits', many(LIMITS_AT_ONCE_MAX))).toBe(409);
    expect(await status('POST', '/limits', many(LIMITS_AT_ONCE_MAX + 1))).toBe(400);
    expect(await status('POST', '/limits', limit('object_bytes', Number.MAX_SAFE_INTEGER))).toBe(201);
    expect((await held()).object_bytes).toEqual([Number.MAX_SAFE_INTEGER, 'project']);
  });

  it('a registered limit of something else', async () => {
    for (const registered_limit of [
      { resource_name: 'images' },
      { resource_name: 'cores' },
      { service_id: 'x' },
      { region_id: 'RegionOne' },
      { default_limit: -2 },
      { more: 1 },
    ])
      expect([registered_limit, await status('PATCH', '/registered_limits/volumes', { registered_limit })]).toEqual([
        registered_limit,
        400,
      ]);
    for (const id of ['volume_bytes', 'constructor', 'cores', '-'])
      expect([id, await status('GET', `/registered_limits/${id}`)]).toEqual([id, 404]);
    for (const id of ['volumes', `${project}-cores`, `${project}-volumes`, `${project}-`, '-volumes'])
      expect([id, await status('GET', `/limits/${id}`)]).toEqual([id, 404]);
  });
});
