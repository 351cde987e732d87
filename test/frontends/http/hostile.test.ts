/** What strangers send: no token, a forged one, too much of everything. Keystone's own past holes, where they could be ours. */
import fs from 'node:fs';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TOKEN_LIFE_MS } from '../../../src/frontends/http/identity/authentication.ts';
import { readToken, writeToken } from '../../../src/frontends/http/identity/token-format.ts';
import { TokenKeys } from '../../../src/frontends/http/identity/token-keys.ts';
import { Cloud, inProject } from './cloud.ts';

const cloud = new Cloud();
let admin: string;
let demo: string;
beforeAll(async () => {
  await cloud.open();
  admin = await cloud.admin();
  demo = await cloud.demo();
});
afterAll(() => cloud.end());

/** What answers without a token. */
const UNBUILT = ['/volume', '/image', '/image/versions'];
const OPEN = ['/identity/', '/identity', '/identity/v3', '/healthcheck', '/openapi.json', '/docs', ...UNBUILT].flatMap(
  (url) => [`GET ${url}`, `HEAD ${url}`],
);
OPEN.push('POST /identity/v3/auth/tokens');

/** Every route behind a token, with something in its parameters. */
function closedRoutes(): [string, string][] {
  const all = [...cloud.routes].flatMap(({ url, methods }) =>
    [...methods.keys()].map((method) => [method, url] as const),
  );
  return all
    .filter(([method, url]) => !OPEN.includes(`${method} ${url}`))
    .map(([method, url]) => [method, url.replace(/:\w+/g, 'x')]);
}

/** Says 401 to it, everywhere, and nothing else. */
async function refusedEverywhere(token: string | undefined): Promise<void> {
  const routes = closedRoutes();
  expect(routes.length).toBeGreaterThan(150);
  for (const [method, url] of routes) {
    const answer = await cloud.call(method, url, { token, headers: { 'x-roles': 'admin', 'x-user-id': 'x' } });
    expect([method, url, answer.status]).toEqual([method, url, 401]);
    expect(answer.headers['www-authenticate']).toMatch(/^(Keystone uri|Basic realm|Swift realm)="/);
    if (method !== 'HEAD' && url.startsWith('/identity'))
      expect(answer.body.error).toMatchObject({ code: 401, title: 'Unauthorized' });
  }
}

/** The administrator's token with something else in it, signed with keys of a folder. */
function signed(change: object, folder = cloud.folder): string {
  const token = readToken(admin, new TokenKeys(cloud.folder, TOKEN_LIFE_MS))!;
  return writeToken({ ...token, ...change }, new TokenKeys(folder, TOKEN_LIFE_MS));
}

describe('every route', () => {
  const flipped = () => `${admin.slice(0, 40)}${admin[40] === 'A' ? 'B' : 'A'}${admin.slice(41)}`;
  it.each([
    ['none', () => undefined],
    ['an empty one', () => ''],
    ['a forged one', flipped],
    ['half of one', () => admin.slice(0, 100)],
    ['one and more', () => `${admin}A`],
    ['a JSON Web Token', () => 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.'],
    ['an expired one', () => signed({ expiresAt: Date.now() })],
    ['one of another cloud', () => signed({}, fs.mkdtempSync(path.join(cloud.dir, 'other-')))],
    ['one of a user who is not there', () => signed({ userId: 'f'.repeat(32) })],
    ['one of a project that is not there', () => signed({ scope: { kind: 'project', id: 'f'.repeat(32) } })],
    ['one of a credential that is not there', () => signed({ applicationCredentialId: 'f'.repeat(32) })],
  ])('with the token %s: 401, and nothing else about it', (_what, token) => refusedEverywhere(token()));

  it('with one signed as these are, and not expired: not 401', async () => {
    expect((await cloud.call('GET', '/users', { token: signed({}) })).status).toBe(200);
  });

  it('with a revoked one: 401', async () => {
    const token = await cloud.demo();
    await cloud.call('DELETE', '/auth/tokens', { token, headers: { 'x-subject-token': token } });
    await refusedEverywhere(token);
  });

  it('with a member’s: nothing that is others’, and not whether it is there', async () => {
    const other = await cloud.idOf('users', 'admin', admin);
    for (const id of ['x', other]) {
      for (const [method, url] of [
        ['GET', `/users/${id}`],
        ['DELETE', `/users/${id}`],
        ['GET', `/users/${id}/projects`],
        ['GET', `/users/${id}/application_credentials`],
      ] as const) {
        const answer = await cloud.call(method, url, { token: demo });
        expect([method, url, answer.status]).toEqual([method, url, 403]);
      }
    }
    for (const noun of ['users', 'projects', 'domains', 'groups', 'roles', 'services', 'endpoints', 'role_assignments'])
      expect([noun, (await cloud.call('GET', `/${noun}`, { token: demo })).status]).toEqual([noun, 403]);
  });
});

/** What a token is enough for, whosever it is. */
const ANYBODYS = [
  'auth/catalog',
  'auth/projects',
  'auth/domains',
  'auth/system',
  'regions',
  'regions/:region_id',
  'registered_limits',
  'registered_limits/:registered_limit_id',
  'limits',
  'limits/model',
].map((path) => `/identity/v3/${path}`);

describe('every route, with a good token of somebody else', () => {
  it('does nothing, and shows nothing', async () => {
    const theirs: Record<string, string> = {
      user_id: await cloud.idOf('users', 'admin', admin),
      project_id: await cloud.idOf('projects', 'admin', admin),
      role_id: await cloud.idOf('roles', 'admin', admin),
      prior_role_id: await cloud.idOf('roles', 'admin', admin),
      implied_role_id: await cloud.idOf('roles', 'manager', admin),
      domain_id: await cloud.make('domains', 'domain', { name: 'theirs' }, admin),
      group_id: await cloud.make('groups', 'group', { name: 'theirs' }, admin),
      service_id: await cloud.make('services', 'service', { type: 'theirs' }, admin),
      limit_id: `${await cloud.idOf('projects', 'admin', admin)}-volumes`,
      registered_limit_id: 'volumes',
      region_id: 'RegionOne',
    };
    const limits = { projectId: theirs.project_id!, userId: null };
    await cloud.catalog.quotas.set(limits, { volumes: 1 });
    const seen = async () => {
      const rows = [];
      for (const noun of ['users', 'projects', 'domains', 'groups', 'roles', 'services', 'endpoints', 'limits'])
        rows.push((await cloud.call('GET', `/${noun}`, { token: admin })).body[noun]);
      rows.push((await cloud.call('GET', '/role_assignments', { token: admin })).body.role_assignments);
      return JSON.stringify(rows);
    };
    const before = await seen();
    let count = 0;
    for (const { url, methods } of cloud.routes) {
      const path = url.replace(/:(\w+)/g, (_all, name: string) => theirs[name] ?? 'x');
      for (const method of methods.keys()) {
        if (OPEN.includes(`${method} ${url}`) || url.startsWith('/auth/')) continue;
        if (['GET', 'HEAD'].includes(method) && ANYBODYS.includes(url)) continue;
        // By a body in which everything is, some way, so that it is not refused for that.
        const thing = { name: 'x', type: 'x', id: 'x', enabled: true, interface: 'public', url: 'http://x' };
        const one = { ...thing, service_id: theirs.service_id, original_password: 'x', password: 'x' };
        const nouns = [
          'user',
          'project',
          'domain',
          'group',
          'role',
          'service',
          'endpoint',
          'region',
          'application_credential',
        ];
        const limit = { service_id: theirs.service_id, resource_name: 'volumes' };
        const body = {
          ...Object.fromEntries(nouns.map((noun) => [noun, one])),
          tags: ['x'],
          limits: [{ ...limit, project_id: theirs.project_id, resource_limit: 1 }],
          registered_limits: [{ ...limit, default_limit: 1 }],
          limit: { resource_limit: 1 },
          registered_limit: { default_limit: 1 },
        };
        const sends = ['POST', 'PUT', 'PATCH'].includes(method);
        const { status } = await cloud.call(method, path, { token: demo, ...(sends ? { body } : {}) });
        // 401: a wrong password of another user; 400 and 404: a token that no header names, or none of that name
        const expected = url.includes('/auth/tokens') ? [400] : url.endsWith('/password') ? [401, 403] : [403, 404];
        expect([method, url, expected.includes(status) ? 'refused' : status]).toEqual([method, url, 'refused']);
        count++;
      }
    }
    expect(count).toBeGreaterThan(150);
    expect(await seen()).toBe(before);
    await cloud.catalog.quotas.set(limits, { volumes: 'default' });
  });
});

describe('logging in', () => {
  it('says the same of a wrong password and of who is not there', async () => {
    const wrong = await cloud.login('admin', 'wrong');
    const nobody = await cloud.login('nobody', 'wrong');
    const nowhere = await cloud.login('admin', 'wrong', undefined, 'nowhere');
    const project = await cloud.login('demo', cloud.password('demo'), inProject('admin'));
    for (const answer of [wrong, nobody, nowhere, project]) {
      expect(answer.status).toBe(401);
      expect(answer.body).toEqual(wrong.body);
    }
  });

  it.each([
    ['no body', undefined, 400],
    ['no auth', {}, 400],
    ['no method', { auth: { identity: { methods: [] } } }, 400],
    ['a method that is not there', { auth: { identity: { methods: ['external'] } } }, 401],
    ['nine methods', { auth: { identity: { methods: Array(9).fill('token'), token: { id: 'x' } } } }, 400],
    ['a method without its part', { auth: { identity: { methods: ['password'] } } }, 400],
    [
      'a user without a domain',
      { auth: { identity: { methods: ['password'], password: { user: { name: 'admin', password: 'x' } } } } },
      400,
    ],
    [
      'an object for a name',
      { auth: { identity: { methods: ['password'], password: { user: { id: {}, password: 'x' } } } } },
      400,
    ],
    [
      'an empty password',
      {
        auth: {
          identity: {
            methods: ['password'],
            password: { user: { name: 'admin', domain: { id: 'default' }, password: '' } },
          },
        },
      },
      401,
    ],
  ])('%s', async (_what, body, status) => {
    expect((await cloud.call('POST', '/auth/tokens', { body })).status).toBe(status);
  });

  it('a password of 4096 bytes is compared, a longer one is refused', async () => {
    expect((await cloud.login('admin', 'x'.repeat(4096))).status).toBe(401);
    expect((await cloud.login('admin', 'x'.repeat(4097))).status).toBe(400);
    for (const [bytes, status] of [
      [4096, 201],
      [4098, 400],
    ] as const) {
      // two bytes each
      const body = { user: { name: `long${bytes}`, password: 'é'.repeat(bytes / 2) } };
      expect((await cloud.call('POST', '/users', { token: admin, body })).status).toBe(status);
    }
  });

  it('more at once than can be: 429, and the rest is answered', async () => {
    const answers = await Promise.all(Array.from({ length: 80 }, () => cloud.login('nobody', 'x')));
    const statuses = answers.map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([401, 429]));
    expect(statuses.filter((status) => status === 401)).toHaveLength(66);
    expect(answers.find(({ status }) => status === 429)!.headers['retry-after']).toBe('1');
  });
});

describe('bodies', () => {
  it('that are no JSON, too long, of another kind, or poisoned', async () => {
    const send = (payload: string, type = 'application/json') =>
      cloud.app.inject({
        method: 'POST',
        url: '/identity/v3/users',
        headers: { 'x-auth-token': admin, 'content-type': type },
        payload,
      });
    expect((await send('{')).statusCode).toBe(400);
    expect((await send('{"user":{"name":"p","__proto__":{"a":1}}}')).statusCode).toBe(400);
    expect((await send('x', 'text/plain')).statusCode).toBe(415);
    const whole = (bytes: number) => `{"x":"${'x'.repeat(bytes - '{"x":""}'.length)}"}`;
    expect((await send(whole(114_688))).statusCode).toBe(400);
    expect((await send(whole(114_689))).statusCode).toBe(413);
    expect((await send('')).statusCode).toBe(400);
  });

  it('names have bounds, and what is added to a resource has one', async () => {
    const make = async (user: object) => (await cloud.call('POST', '/users', { token: admin, body: { user } })).status;
    expect(await make({ name: 'n'.repeat(255) })).toBe(201);
    expect(await make({ name: 'n'.repeat(256) })).toBe(400);
    expect(await make({ name: '' })).toBe(400);
    expect(await make({ name: '  ' })).toBe(400);
    expect(await make({ name: 7 })).toBe(400);
    expect(await make({ name: 'extra1', note: 'x'.repeat(8192 - '{"note":""}'.length) })).toBe(201);
    expect(await make({ name: 'extra2', note: 'x'.repeat(8193 - '{"note":""}'.length) })).toBe(400);
  });

  it('an endpoint’s URL has only what a token itself can fill in', async () => {
    const service = (await cloud.call('POST', '/services', { token: admin, body: { service: { type: 't' } } })).body
      .service.id;
    const make = async (url: string) =>
      (
        await cloud.call('POST', '/endpoints', {
          token: admin,
          body: { endpoint: { interface: 'public', service_id: service, url } },
        })
      ).status;
    expect(await make('http://x/$(project_id)s/%(user_id)s')).toBe(201);
    expect(await make('http://x/$(admin_token)s')).toBe(400);
    expect(await make('javascript:alert(1)')).toBe(400);
    const { body } = await cloud.call('GET', '/auth/catalog', { token: demo });
    const urls = body.catalog.flatMap((one: { endpoints: { url: string }[] }) => one.endpoints.map(({ url }) => url));
    expect(urls).toContainEqual(expect.stringMatching(/^http:\/\/x\/[0-9a-f]{32}\/[0-9a-f]{32}$/));
  });
});

describe('a domain manager', () => {
  it('rules in its domain, and makes nobody an operator', async () => {
    const make = (noun: string, one: string, body: object) => cloud.make(noun, one, body, admin);
    const roles = Object.fromEntries(
      (await cloud.call('GET', '/roles', { token: admin })).body.roles.map((role: { name: string; id: string }) => [
        role.name,
        role.id,
      ]),
    );
    const id = await make('users', 'user', { name: 'boss', password: 'pw' });
    await cloud.call('PUT', `/domains/default/users/${id}/roles/${roles.manager}`, { token: admin });
    const token = await cloud.token('boss', 'pw', { domain: { id: 'default' } });
    const ask = async (method: string, url: string, body?: unknown) =>
      (await cloud.call(method, url, { token, body })).status;
    const adminId = await cloud.idOf('users', 'admin', admin);
    const adminProject = await cloud.idOf('projects', 'admin', admin);
    const demoId = await cloud.idOf('users', 'demo', admin);
    const demoProject = await cloud.idOf('projects', 'demo', admin);

    expect(await ask('POST', '/users', { user: { name: 'worker' } })).toBe(201);
    expect(await ask('PATCH', `/users/${demoId}`, { user: { description: 'd' } })).toBe(200);
    expect(await ask('PUT', `/projects/${demoProject}/users/${id}/roles/${roles.member}`)).toBe(204);

    expect(await ask('PATCH', `/users/${adminId}`, { user: { password: 'mine' } })).toBe(403);
    expect(await ask('DELETE', `/users/${adminId}`)).toBe(403);
    expect(await ask('PATCH', `/projects/${adminProject}`, { project: { name: 'old' } })).toBe(403);
    expect(await ask('PUT', `/projects/${adminProject}/users/${id}/roles/${roles.reader}`)).toBe(403);
    expect(await ask('PUT', `/projects/${demoProject}/users/${id}/roles/${roles.admin}`)).toBe(403);
    expect(await ask('PUT', `/system/users/${id}/roles/${roles.reader}`)).toBe(403);
    // Nor by what the operators' project would inherit.
    const inherited = `/users/${id}/roles/${roles.reader}/inherited_to_projects`;
    expect(await ask('PUT', `/OS-INHERIT/domains/default${inherited}`)).toBe(403);
    expect(await ask('PUT', `/OS-INHERIT/projects/${demoProject}${inherited}`)).toBe(204);
    const group = await make('groups', 'group', { name: 'operators' });
    await cloud.call('PUT', `/system/groups/${group}/roles/${roles.reader}`, { token: admin });
    expect(await ask('PUT', `/groups/${group}/users/${id}`)).toBe(403);
    const elsewhere = await make('domains', 'domain', { name: 'elsewhere' });
    expect(await ask('POST', '/users', { user: { name: 'x', domain_id: elsewhere } })).toBe(403);
    expect(await ask('GET', `/users?domain_id=${elsewhere}`)).toBe(403);
    expect(await ask('POST', '/domains', { domain: { name: 'mine' } })).toBe(403);
    // The role admin on any other project is no operator's.
    await cloud.call('PUT', `/projects/${demoProject}/users/${demoId}/roles/${roles.admin}`, { token: admin });
    expect((await cloud.call('GET', '/users', { token: await cloud.demo() })).status).toBe(403);
  });
});

describe('on the wire', () => {
  it('who waits for 100 Continue without a token is never told to go on', async () => {
    await cloud.app.listen({ host: '127.0.0.1', port: 0 });
    const { port } = cloud.app.server.address() as AddressInfo;
    const ask = (token?: string) =>
      new Promise<{ told: boolean; status: number | undefined }>((resolve, reject) => {
        let told = false;
        const body = JSON.stringify({ user: { name: 'waits' } });
        const request = http.request({
          port,
          host: '127.0.0.1',
          method: 'POST',
          path: '/identity/v3/users',
          agent: false,
          headers: {
            expect: '100-continue',
            'content-type': 'application/json',
            'content-length': body.length,
            ...(token === undefined ? {} : { 'x-auth-token': token }),
          },
        });
        request.once('continue', () => {
          told = true;
          request.end(body);
        });
        request.once('response', (response) => {
          response.resume();
          resolve({ told, status: response.statusCode });
          request.destroy();
        });
        request.once('error', reject);
        request.flushHeaders();
      });
    expect(await ask()).toEqual({ told: false, status: 401 });
    expect(await ask(admin)).toEqual({ told: true, status: 201 });
  });

  it('nothing logged has a password or a token in it', () => {
    const text = cloud.logged.join('\n');
    for (const secret of [admin, demo, cloud.password('admin'), cloud.password('demo')])
      expect(text).not.toContain(secret);
    expect(text).toMatch(/"path":"\/identity\/v3\/auth\/tokens"/);
    expect(text).not.toMatch(/^error/m);
  });
});
