/** What is common to all services: versions, health, ids, errors, lists. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Change } from '../../../src/control/catalog/types.ts';
import { Cloud, PUBLIC_URL } from './cloud.ts';

const cloud = new Cloud();
beforeAll(() => cloud.open());
afterAll(() => cloud.end());

describe('without a token', () => {
  it('versions, where clients look', async () => {
    for (const url of ['/identity', '/identity/']) {
      const { status, body } = await cloud.call('GET', url);
      expect([url, status]).toEqual([url, 300]);
      expect(body.versions.values).toEqual([
        expect.objectContaining({
          id: 'v3.14',
          status: 'stable',
          links: [{ rel: 'self', href: `${PUBLIC_URL}/identity/v3/` }],
        }),
      ]);
    }
    for (const url of ['/identity/v3', '/identity/v3/']) {
      const { status, body } = await cloud.call('GET', url);
      expect([url, status, body.version.id]).toEqual([url, 200, 'v3.14']);
    }
  });

  it('health', async () => {
    expect(await cloud.call('GET', '/healthcheck')).toMatchObject({ status: 200, body: 'OK' });
  });

  it('what is not there is 404 in Keystone’s shape', async () => {
    for (const url of [
      '/',
      '/image/v2/images',
      '/volume/v3',
      '/v1/x',
      '/info',
      '/auth/v2.0',
      '/identity/v2.0',
      '/identity/v3/OS-TRUST/trusts',
      '/identity/v3/credentials',
    ]) {
      const response = await cloud.app.inject({ method: 'GET', url });
      expect([url, response.statusCode]).toEqual([url, 404]);
      expect(response.json()).toEqual({
        error: { code: 404, message: 'The resource could not be found.', title: 'Not Found' },
      });
    }
  });
});

describe('every answer', () => {
  it('has an id of ours, whatever the client calls it', async () => {
    const ids = new Set<unknown>();
    for (const url of ['/identity/v3', '/identity/v3/users', '/identity/nonsense']) {
      const { headers } = await cloud.call('GET', url, { headers: { 'x-openstack-request-id': 'req-mine' } });
      expect(headers['x-openstack-request-id']).toMatch(/^req-[0-9a-f-]{36}$/);
      ids.add(headers['x-openstack-request-id']);
    }
    expect(ids.size).toBe(3);
  });

  it('varies with the token', async () => {
    expect((await cloud.call('GET', '/users')).headers.vary).toBe('X-Auth-Token');
  });
});

describe('lists', () => {
  it('have a thousand rows, and say when there are more', async () => {
    const token = await cloud.admin();
    const rows = (from: number, to: number): Change[] =>
      Array.from({ length: to - from }, (_, index) => ({
        do: 'insert',
        table: 'region',
        row: { id: `r${from + index}`, description: '', parent_region_id: null, extra: '{}' },
      }));
    // One is there already.
    await cloud.catalog.write(rows(0, 999));
    const full = await cloud.call('GET', '/regions', { token });
    expect([full.body.regions.length, full.body.truncated]).toEqual([1000, undefined]);
    await cloud.catalog.write(rows(999, 1000));
    const cut = await cloud.call('GET', '/regions', { token });
    expect([cut.body.regions.length, cut.body.truncated]).toEqual([1000, true]);
    const self = `${PUBLIC_URL}/identity/v3/regions`;
    expect(full.body.links).toEqual({ next: null, previous: null, self });
    expect(cut.body.links).toEqual({ next: `${self}?marker=${cut.body.regions[999].id}`, previous: null, self });
  });

  it('are filtered by what they say, once', async () => {
    const token = await cloud.admin();
    for (const name of ['f1', 'f2'])
      await cloud.call('POST', '/users', { token, body: { user: { name, enabled: name === 'f1' } } });
    const names = async (query: string) => {
      const { body } = await cloud.call('GET', `/users?${query}`, { token });
      return body.users.map((user: { name: string }) => user.name).sort();
    };
    expect(await names('name=f1')).toEqual(['f1']);
    expect(await names('enabled=false')).toEqual(['f2']);
    expect(await names('enabled=True&domain_id=default')).toEqual(['admin', 'demo', 'f1']);
    expect(await names('domain_id=nowhere')).toEqual([]);
    expect((await cloud.call('GET', '/users?name=a&name=b', { token })).status).toBe(400);
  });
});

describe('pages', () => {
  it('go through all there is, each once, by limit and marker', async () => {
    const token = await cloud.admin();
    const group = await cloud.make('groups', 'group', { name: 'g' }, token);
    for (let index = 0; index < 7; index++) {
      const id = await cloud.make('users', 'user', { name: `p${index}` }, token);
      await cloud.call('PUT', `/groups/${group}/users/${id}`, { token });
    }
    for (const url of [`/groups/${group}/users?limit=3`, '/users?limit=3&domain_id=default', '/roles?limit=1']) {
      const noun = /(users|roles)\?/.exec(url)![1]!;
      const all = (await cloud.call('GET', url.replace(/limit=\d&?/, ''), { token })).body[noun] as { id: string }[];
      const found: string[] = [];
      for (let next: string | null = url; next !== null; ) {
        const { body } = await cloud.call('GET', next, { token });
        expect(body).not.toHaveProperty('truncated');
        found.push(...body[noun].map(({ id }: { id: string }) => id));
        next = body.links.next?.slice(PUBLIC_URL.length) ?? null;
      }
      expect(found).toEqual(all.map(({ id }) => id));
      expect(found).toEqual([...found].sort());
    }
    const past = await cloud.call('GET', '/users?marker=zzz', { token });
    expect([past.body.users, past.body.links.next]).toEqual([[], null]);
    for (const limit of ['0', '-1', 'x', '1.5', '', '1&limit=2', '1&marker=a&marker=b'])
      expect([limit, (await cloud.call('GET', `/users?limit=${limit}`, { token })).status]).toEqual([limit, 400]);
    const most = await cloud.call('GET', '/regions?limit=999999999', { token });
    expect([most.body.regions.length, most.body.truncated]).toEqual([1000, true]);
  });
});

describe('a method that a path does not have', () => {
  it('is 405, with those that it has', async () => {
    const all = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
    let count = 0;
    for (const { url } of cloud.routes) {
      const path = url.replace(/:\w+/g, 'x');
      const allowed = cloud.routes.methodsOf(path);
      for (const method of all.filter((one) => !allowed.includes(one))) {
        const { statusCode, headers } = await cloud.app.inject({ method: method as 'GET', url: path });
        expect([method, path, statusCode, headers.allow]).toEqual([method, path, 405, allowed.join(', ')]);
        count++;
      }
    }
    expect(count).toBeGreaterThan(200);
    const { body } = await cloud.call('POST', '/identity/v3');
    expect(body.error).toMatchObject({ code: 405, title: 'Method Not Allowed' });
  });
});

describe('OpenAPI', () => {
  it('has every route, and says which need a token', async () => {
    const { body } = await cloud.call('GET', '/openapi.json');
    expect(body).toMatchObject({ openapi: '3.1.0', servers: [{ url: PUBLIC_URL }] });
    const ids = new Set<string>();
    let count = 0;
    for (const { url, methods } of cloud.routes) {
      if (url.endsWith('/')) continue;
      for (const method of methods.keys()) {
        if (method === 'HEAD') continue;
        const operation = body.paths[url.replace(/:(\w+)/g, '{$1}')][method.toLowerCase()];
        ids.add(operation.operationId);
        count++;
        const names = operation.parameters.filter((one: { in: string }) => one.in === 'path').length;
        expect([url, names]).toEqual([url, url.split('/:').length - 1]);
        const { status } = await cloud.call(method, url.replace(/:\w+/g, 'x'));
        // TempAuth is asked with a password instead.
        const closed = url !== '/auth/v1.0' && status === 401;
        expect([method, url, operation.security.length]).toEqual([method, url, closed ? 1 : 0]);
      }
    }
    expect(ids.size).toBe(count);
    expect(Object.values(body.paths).flatMap((path) => Object.keys(path as object))).toHaveLength(count);
    const users = body.paths['/identity/v3/users'];
    expect(users.get.parameters.map(({ name }: { name: string }) => name)).toEqual([
      'name',
      'domain_id',
      'enabled',
      'limit',
      'marker',
    ]);
    expect(users.post.requestBody.content['application/json'].schema.properties.user.required).toEqual(['name']);
  });

  it('is a page too, which fetches nothing', async () => {
    const { status, headers, body } = await cloud.call('GET', '/docs');
    expect([status, headers['content-type']]).toEqual([200, 'text/html; charset=utf-8']);
    expect(headers['content-security-policy']).toMatch(/^default-src 'none'/);
    expect(body).not.toMatch(/<script|src=|https?:\/\/(?!\[)/);
    for (const { url } of cloud.routes)
      if (!url.endsWith('/')) expect(body).toContain(`<code>${url.replace(/:(\w+)/g, '{$1}')}</code>`);
  });
});

describe('metrics', () => {
  const basic = (name: string, password: string) => ({
    authorization: `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`,
  });

  it('are for readers of the system, by a token or by name and password', async () => {
    const token = await cloud.admin();
    const id = await cloud.make('users', 'user', { name: 'prometheus', password: 'p:w' }, token);
    const read = async (ask: object) => (await cloud.call('GET', '/metrics', ask)).status;
    expect(await read({ headers: basic('prometheus', 'p:w') })).toBe(401);
    const role = await cloud.idOf('roles', 'reader', token);
    await cloud.call('PUT', `/system/users/${id}/roles/${role}`, { token });
    const answer = await cloud.call('GET', '/metrics', { headers: basic('prometheus', 'p:w') });
    expect(answer).toMatchObject({ status: 200, body: 'atoll_test 1\n' });
    expect(answer.headers['content-type']).toMatch(/^text\/plain/);
    expect(await read({ token })).toBe(200);
    expect(await read({ token: await cloud.demo() })).toBe(403);
    for (const headers of [basic('prometheus', 'wrong'), basic('nobody', 'x'), { authorization: 'Bearer x' }, {}]) {
      const refused = await cloud.call('GET', '/metrics', { headers });
      expect([refused.status, refused.headers['www-authenticate']]).toEqual([
        401,
        'Basic realm="metrics", charset="UTF-8"',
      ]);
    }
  });
});

describe('what users add to a resource', () => {
  it('stays with it until it is taken away, and shadows nothing', async () => {
    const token = await cloud.admin();
    const body = { user: { name: 'more', email: 'a@b', id: 'mine', note: { deep: [1] } } };
    const { user } = (await cloud.call('POST', '/users', { token, body })).body;
    expect(user).toMatchObject({ email: 'a@b', note: { deep: [1] } });
    expect(user.id).toMatch(/^[0-9a-f]{32}$/);
    const patched = await cloud.call('PATCH', `/users/${user.id}`, {
      token,
      body: { user: { email: null, other: 1 } },
    });
    expect(patched.body.user).toMatchObject({ note: { deep: [1] }, other: 1 });
    expect(patched.body.user).not.toHaveProperty('email');
    expect((await cloud.call('GET', `/users/${user.id}`, { token })).body).toEqual(patched.body);
  });
});
