/** Keystone's past holes, each where it could be ours: a test is named by what went wrong there. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cloud, inDomain, inProject, inSystem } from './cloud.ts';

const cloud = new Cloud();
let admin: string;
let demo: string;
beforeAll(async () => {
  await cloud.open();
  admin = await cloud.admin();
  demo = await cloud.demo();
});
afterAll(() => cloud.end());

const ask = (method: string, url: string, token?: string, body?: unknown, headers?: Record<string, string>) =>
  cloud.call(method, url, { token, body, ...(headers ? { headers } : {}) });
const works = async (token: string) => (await ask('GET', '/auth/projects', token)).status;
const exchange = (id: string, scope?: unknown) =>
  ask('POST', '/auth/tokens', undefined, { auth: { identity: { methods: ['token'], token: { id } }, scope } });
const tokenOf = (answer: { headers: Record<string, unknown> }) => String(answer.headers['x-subject-token']);

let count = 0;
/** A user with roles in a project of its own. */
async function user(...roles: string[]) {
  const name = `u${++count}`;
  const id = await cloud.make('users', 'user', { name, password: 'pw' }, admin);
  const project = await cloud.make('projects', 'project', { name }, admin);
  const grants: string[] = [];
  for (const role of roles) {
    grants.push(`/projects/${project}/users/${id}/roles/${await cloud.idOf('roles', role, admin)}`);
    await ask('PUT', grants.at(-1)!, admin);
  }
  const login = () => cloud.token(name, 'pw', inProject(name));
  return { id, name, project, grants, login, credentials: `/users/${id}/application_credentials` };
}

describe('a token’s life', () => {
  it('CVE-2012-3426, CVE-2012-5563, CVE-2014-5252: is not made longer by exchanging it, by whatever way', async () => {
    const one = await user('member');
    const first = await cloud.login(one.name, 'pw', inProject(one.name));
    let token = tokenOf(first);
    for (const scope of ['unscoped', inProject(one.name), { unscoped: {} }, { project: { id: one.project } }]) {
      const next = await exchange(token, scope);
      expect(next.body.token.expires_at).toBe(first.body.token.expires_at);
      token = tokenOf(next);
    }
    // Nor by giving the password as well.
    const domain = { id: 'default' };
    const both = {
      methods: ['token', 'password'],
      token: { id: token },
      password: { user: { name: one.name, domain, password: 'pw' } },
    };
    const next = await ask('POST', '/auth/tokens', undefined, { auth: { identity: both } });
    expect([next.status, next.body.token.expires_at]).toEqual([201, first.body.token.expires_at]);
  });

  it('CVE-2012-4413: a role that is taken is no right any more, in tokens that are there', async () => {
    const one = await user('reader');
    const role = await cloud.idOf('roles', 'admin', admin);
    await ask('PUT', `/system/users/${one.id}/roles/${role}`, admin);
    const reader = await cloud.idOf('roles', 'reader', admin);
    await ask('PUT', `/system/users/${one.id}/roles/${reader}`, admin);
    const token = await cloud.token(one.name, 'pw', inSystem);
    expect((await ask('POST', '/groups', token, { group: { name: 'before' } })).status).toBe(201);
    await ask('DELETE', `/system/users/${one.id}/roles/${role}`, admin);
    expect((await ask('POST', '/groups', token, { group: { name: 'after' } })).status).toBe(403);
    expect((await ask('GET', '/groups', token)).status).toBe(200);
  });

  it('CVE-2012-4457: nobody gets a token for a project that is disabled, and none that was got is good', async () => {
    const one = await user('member');
    const unscoped = tokenOf(await cloud.login(one.name, 'pw', 'unscoped'));
    const scoped = await one.login();
    await ask('PATCH', `/projects/${one.project}`, admin, { project: { enabled: false } });
    expect((await cloud.login(one.name, 'pw', inProject(one.name))).status).toBe(401);
    expect((await exchange(unscoped, inProject(one.name))).status).toBe(401);
    expect([await works(scoped), (await exchange(scoped)).status]).toEqual([401, 401]);
  });

  it('CVE-2013-1865, CVE-2013-4294, CVE-2015-7546: a revoked token is not good again for being spelled otherwise', async () => {
    const one = await user('member');
    const token = await one.login();
    const spelled = () => {
      const last = token.at(-1)!;
      const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
      // the last character has bits that no byte needs
      const same = [...alphabet].filter((char) => char !== last).map((char) => token.slice(0, -1) + char);
      return [...same, `${token}=`, `${token}==`, token.replaceAll('-', '+').replaceAll('_', '/'), `gAAAA${token}`];
    };
    const others = spelled().filter((text) => text !== token);
    for (const text of others) expect(await works(text)).toBe(401);
    expect(await works(token)).toBe(200);
    await ask('DELETE', '/auth/tokens', token, undefined, { 'x-subject-token': token });
    for (const text of [token, ...others]) {
      expect(await works(text)).toBe(401);
      const subject = await ask('GET', '/auth/tokens', admin, undefined, { 'x-subject-token': text });
      expect(subject.status).toBe(404);
    }
  });

  it('CVE-2013-2059, CVE-2016-4911: the end of a user is the end of all of its tokens, exchanged ones too', async () => {
    for (const end of [
      (id: string) => ask('DELETE', `/users/${id}`, admin),
      (id: string) => ask('PATCH', `/users/${id}`, admin, { user: { password: 'another' } }),
      (id: string) => ask('PATCH', `/users/${id}`, admin, { user: { enabled: false } }),
    ]) {
      const one = await user('member');
      const first = await one.login();
      const second = tokenOf(await exchange(first, 'unscoped'));
      const third = tokenOf(await exchange(second, inProject(one.name)));
      await end(one.id);
      for (const token of [first, second, third]) expect(await works(token)).toBe(401);
    }
  });
});

describe('what is delegated', () => {
  /** @returns a token of an application credential that has these roles */
  async function delegated(one: Awaited<ReturnType<typeof user>>, more: object) {
    const body = { application_credential: { name: `c${++count}`, ...more } };
    const made = await ask('POST', one.credentials, await one.login(), body);
    const { id, secret } = made.body.application_credential;
    const auth = { identity: { methods: ['application_credential'], application_credential: { id, secret } } };
    const login = () => ask('POST', '/auth/tokens', undefined, { auth });
    return { id, login, auth };
  }
  const roles = (answer: { body: { token: { roles: { name: string }[] } } }) =>
    answer.body.token.roles.map(({ name }) => name);

  it('CVE-2020-12690: has the roles that were given, whatever the giver gets later, and never more than the giver has', async () => {
    const one = await user('reader', 'manager');
    const { login } = await delegated(one, { roles: [{ name: 'reader' }] });
    expect(roles(await login())).toEqual(['reader']);
    const whole = await delegated(one, {});
    expect(roles(await whole.login())).toEqual(['manager', 'member', 'reader']);
    await ask('DELETE', one.grants[1]!, admin);
    expect([roles(await login()), roles(await whole.login())]).toEqual([['reader'], ['reader']]);
    await ask('DELETE', one.grants[0]!, admin);
    expect([(await login()).status, (await whole.login()).status]).toEqual([401, 401]);
  });

  it('CVE-2014-3476, CVE-2020-12689, CVE-2020-12691: mints nothing, for itself or for others', async () => {
    const [one, other] = [await user('member'), await user('member')];
    const { login } = await delegated(one, {});
    const token = tokenOf(await login());
    const body = { application_credential: { name: 'more' } };
    expect((await ask('POST', one.credentials, token, body)).status).toBe(403);
    expect((await ask('POST', other.credentials, token, body)).status).toBe(403);
    expect((await ask('POST', other.credentials, admin, body)).status).toBe(403);
    for (const scope of [undefined, 'unscoped', inProject(one.name), inDomain('default'), inSystem])
      expect((await exchange(token, scope)).status).toBe(403);
    const change = { user: { original_password: 'pw', password: 'mine' } };
    expect((await ask('POST', `/users/${one.id}/password`, token, change)).status).toBe(403);
    for (const url of [
      '/credentials',
      `/users/${one.id}/credentials/OS-EC2`,
      '/OS-TRUST/trusts',
      '/OS-OAUTH1/consumers',
    ])
      for (const method of ['GET', 'POST']) expect([url, (await ask(method, url, token)).status]).toEqual([url, 404]);
  });

  it('CVE-2026-33551, CVE-2026-43001, CVE-2026-90460: reaches no other credentials, which are not there', async () => {
    const one = await user('member');
    const { login } = await delegated(one, { unrestricted: true });
    const token = tokenOf(await login());
    const blob = { credential: { type: 'ec2', blob: '{}', project_id: await cloud.idOf('projects', 'demo', admin) } };
    for (const [method, url] of [
      ['GET', '/credentials'],
      ['POST', '/credentials'],
      ['PATCH', '/credentials/x'],
      ['DELETE', '/credentials/x'],
    ] as const)
      expect([method, url, (await ask(method, url, token, method === 'GET' ? undefined : blob)).status]).toEqual([
        method,
        url,
        404,
      ]);
  });

  it('CVE-2026-43000: is its own user’s, whoever is named beside it; an unrestricted one gives on no more than it has', async () => {
    const [one, other] = [await user('manager', 'reader'), await user('manager')];
    const { id, auth } = await delegated(one, { unrestricted: true, roles: [{ name: 'reader' }] });
    const { application_credential: own } = auth.identity;
    const named = (more: object) =>
      ask('POST', '/auth/tokens', undefined, {
        auth: { identity: { methods: ['application_credential'], application_credential: { ...own, ...more } } },
      });
    const answer = await named({ user: { id: other.id } });
    expect([answer.status, answer.body.token.user.id]).toEqual([201, one.id]);
    // By its name it is looked for among the user's.
    const { name } = (await ask('GET', `${one.credentials}/${id}`, admin)).body.application_credential;
    expect((await named({ id: undefined, name, user: { id: other.id } })).status).toBe(401);
    expect((await named({ id: undefined, name, user: { id: one.id } })).status).toBe(201);
    // Two of two users are nobody.
    const password = { user: { id: other.id, password: 'pw' } };
    const both = { methods: ['application_credential', 'password'], application_credential: own, password };
    expect((await ask('POST', '/auth/tokens', undefined, { auth: { identity: both } })).status).toBe(401);
    const token = tokenOf(answer);
    const give = (roles: object[]) =>
      ask('POST', one.credentials, token, { application_credential: { name: `n${++count}`, roles } });
    expect((await give([{ name: 'manager' }])).status).toBe(400);
    const given = await give([]);
    expect([given.status, given.body.application_credential.roles]).toEqual([
      201,
      [expect.objectContaining({ name: 'reader' })],
    ]);
    expect((await ask('POST', other.credentials, token, { application_credential: { name: 'x' } })).status).toBe(403);
  });

  it('CVE-2014-3520: is for one project, whatever else is asked for with it', async () => {
    const one = await user('member');
    const { auth } = await delegated(one, {});
    for (const scope of [
      inProject('demo'),
      inProject(one.name),
      inSystem,
      'unscoped',
      { 'OS-TRUST:trust': { id: 'x' } },
    ])
      expect([scope, (await ask('POST', '/auth/tokens', undefined, { auth: { ...auth, scope } })).status]).toEqual([
        scope,
        401,
      ]);
    const password = { user: { name: one.name, domain: { id: 'default' }, password: 'pw' } };
    const trust = { identity: { methods: ['password'], password }, scope: { 'OS-TRUST:trust': { id: 'x' } } };
    expect((await ask('POST', '/auth/tokens', undefined, { auth: trust })).status).toBe(400);
  });

  it('CVE-2013-6391, CVE-2025-65073: nothing signs in by EC2 or S3, with a token or without', async () => {
    for (const url of ['/ec2tokens', '/s3tokens', '/identity/v2.0/ec2tokens'])
      for (const token of [undefined, demo, admin])
        expect([url, (await ask('POST', url, token, { credentials: { access: 'x' } })).status]).toEqual([url, 404]);
  });
});

describe('who asks', () => {
  it('CVE-2012-4456: nobody without a token reads or makes services, roles or grants', async () => {
    for (const [method, url] of [
      ['GET', '/services'],
      ['POST', '/services'],
      ['DELETE', '/services/x'],
      ['GET', '/roles'],
      ['POST', '/roles'],
      ['PUT', '/projects/x/users/x/roles/x'],
    ] as const)
      expect([method, url, (await ask(method, url)).status]).toEqual([method, url, 401]);
  });

  it('CVE-2026-22797: is who the token says, whatever headers say', async () => {
    const headers = {
      'x-roles': 'admin',
      'x-role': 'admin',
      'x-user-id': await cloud.idOf('users', 'admin', admin),
      'x-project-id': await cloud.idOf('projects', 'admin', admin),
      'x-is-admin-project': 'True',
      'x-identity-status': 'Confirmed',
      'x-service-roles': 'admin',
      'openstack-system-scope': 'all',
    };
    expect((await ask('GET', '/users', demo, undefined, headers)).status).toBe(403);
    expect((await ask('GET', '/users', undefined, undefined, headers)).status).toBe(401);
  });

  it('CVE-2013-2157: who has no password does not get in without one', async () => {
    await cloud.make('users', 'user', { name: 'bare' }, admin);
    for (const password of ['', ' ', 'null', 'undefined'])
      expect([password, (await cloud.login('bare', password)).status]).toEqual([password, 401]);
    expect((await cloud.login('bare', null as unknown as string)).status).toBe(400);
    expect((await ask('POST', '/users', admin, { user: { name: 'empty', password: '' } })).status).toBe(400);
  });

  it('CVE-2012-1572: long passwords and names cost nothing', async () => {
    const long = 'x'.repeat(100_000);
    expect((await cloud.login('demo', long)).status).toBe(400);
    expect((await cloud.login(long, 'x')).status).toBe(400);
    const id = await cloud.idOf('users', 'demo', admin);
    for (const change of [
      { original_password: long, password: 'x' },
      { original_password: 'x', password: long },
    ])
      expect((await ask('POST', `/users/${id}/password`, demo, { user: change })).status).toBe(400);
  });

  it('CVE-2021-3563: has a secret of which every character counts', async () => {
    const secret = 'x'.repeat(500);
    await cloud.make('users', 'user', { name: 'long', password: secret }, admin);
    const one = await user('member');
    const made = await ask('POST', one.credentials, await one.login(), {
      application_credential: { name: 'c', secret },
    });
    const { id } = made.body.application_credential;
    for (const [tried, status] of [
      [secret, 201],
      [`${secret.slice(1)}y`, 401],
      [secret.slice(1), 401],
      [`${secret}x`, 401],
    ] as const) {
      const credential = { id, secret: tried };
      const auth = { identity: { methods: ['application_credential'], application_credential: credential } };
      expect((await ask('POST', '/auth/tokens', undefined, { auth })).status).toBe(status);
      expect((await cloud.login('long', tried, 'unscoped')).status).toBe(status);
    }
  });

  it('CVE-2026-42999: may what the policy says of what is there, and not of what the body says', async () => {
    const me = await cloud.idOf('users', 'demo', admin);
    const you = await cloud.idOf('users', 'admin', admin);
    const said = {
      user_id: me,
      target: { user: { id: me, domain_id: 'default' } },
      id: me,
      project_id: me,
      roles: ['admin'],
    };
    for (const [method, url, body] of [
      ['PATCH', `/users/${you}`, { user: { description: 'x', ...said }, ...said }],
      [
        'POST',
        `/users/${you}/application_credentials`,
        { application_credential: { name: 'x', ...said, roles: [] }, ...said },
      ],
      ['POST', '/users', { user: { name: 'x', ...said }, ...said }],
    ] as const)
      expect([method, url, (await ask(method, url, demo, body)).status]).toEqual([method, url, 403]);
  });

  it('CVE-2014-2828: a method that is listed often is looked at once', async () => {
    const methods = Array(8).fill('password');
    const domain = { id: 'default' };
    const password = { user: { name: 'demo', domain, password: 'wrong' } };
    const all = Array.from({ length: 66 }, () =>
      ask('POST', '/auth/tokens', undefined, { auth: { identity: { methods, password } } }),
    );
    // As many as may wait, if each is hashed once; more than that would be 429.
    expect(new Set((await Promise.all(all)).map(({ status }) => status))).toEqual(new Set([401]));
  });

  it('CVE-2021-38155: is not locked out by what others try, and does not learn who is there', async () => {
    const { name } = await user('member');
    const tries = await Promise.all(
      Array.from({ length: 30 }, (_, index) => cloud.login(index % 2 === 0 ? name : 'nobody', 'wrong')),
    );
    const bodies = new Set(tries.map(({ status, body }) => JSON.stringify([status, body])));
    expect(bodies.size).toBe(1);
    const headers = new Set(tries.map((answer) => Object.keys(answer.headers).sort().join()));
    expect(headers.size).toBe(1);
    expect((await cloud.login(name, 'pw', inProject(name))).status).toBe(201);
  });
});

describe('what is shown and changed', () => {
  it('CVE-2014-3621: an endpoint’s URL shows nothing of the daemon', async () => {
    const service_id = await cloud.make('services', 'service', { type: 'leaks' }, admin);
    const make = (url: string) =>
      ask('POST', '/endpoints', admin, { endpoint: { interface: 'public', service_id, url } });
    for (const url of [
      'http://x/$(admin_token)s',
      'http://x/%(password)s',
      'http://x/$(project_id)s/$(__class__)s',
      'http://x/$(project_id',
    ])
      expect([url, (await make(url)).status]).toEqual([url, 400]);
    // What fills nothing in stands for itself.
    for (const url of ['http://x/%s', 'http://x/{admin_token}'])
      expect([url, (await make(url)).status]).toEqual([url, 201]);
    const { body } = await ask('GET', '/auth/catalog', demo);
    const { endpoints } = body.catalog.find(({ type }: { type: string }) => type === 'leaks');
    const urls = endpoints.map(({ url }: { url: string }) => url).sort();
    expect(urls).toEqual(['http://x/%s', 'http://x/{admin_token}']);
  });

  it('CVE-2024-53916 (of Neutron): tags are as guarded as what they are on', async () => {
    const mine = await cloud.idOf('projects', 'demo', admin);
    const other = await cloud.idOf('projects', 'admin', admin);
    for (const [project, read] of [
      [mine, 200],
      [other, 403],
    ] as const) {
      const tags = `/projects/${project}/tags`;
      expect((await ask('GET', tags, demo)).status).toBe(read);
      expect((await ask('PUT', tags, demo, { tags: ['x'] })).status).toBe(403);
      expect((await ask('PUT', `${tags}/x`, demo)).status).toBe(403);
      expect((await ask('DELETE', `${tags}/x`, demo)).status).toBe(403);
      expect((await ask('DELETE', tags, demo)).status).toBe(403);
    }
  });
});
