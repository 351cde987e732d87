/** Tokens: who gets one, what it says, and everything that ends it, at once. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readToken, type TokenPayload, writeToken } from '../../../src/frontends/http/identity/token-format.ts';
import { TokenKeys } from '../../../src/frontends/http/identity/token-keys.ts';
import { Cloud, inDomain, inProject, inSystem, PUBLIC_URL } from './cloud.ts';

const cloud = new Cloud();
let admin: string;
beforeAll(async () => {
  await cloud.open();
  admin = await cloud.admin();
});
afterAll(() => cloud.end());

let count = 0;
/** A user with a role on a project of its own, and its token for it. */
async function user(role = 'member') {
  const name = `u${++count}`;
  const password = `pw-${name}`;
  const body = { user: { name, password } };
  const { id } = (await cloud.call('POST', '/users', { token: admin, body })).body.user;
  const project = (await cloud.call('POST', '/projects', { token: admin, body: { project: { name } } })).body.project
    .id;
  const roleId = await cloud.idOf('roles', role, admin);
  const grant = `/projects/${project}/users/${id}/roles/${roleId}`;
  expect((await cloud.call('PUT', grant, { token: admin })).status).toBe(204);
  const token = await cloud.token(name, password, inProject(name));
  return { id, name, password, project, grant, token };
}

const works = async (token: string) => (await cloud.call('GET', '/auth/projects', { token })).status;
const subject = (token: string, as: string) =>
  cloud.call('GET', '/auth/tokens', { token: as, headers: { 'x-subject-token': token } });

describe('what a token says', () => {
  it('of a project: user, project, roles with those they imply, and the catalog under the public URL', async () => {
    const answer = await cloud.login('admin', cloud.password('admin'), inProject('admin'));
    expect(answer.status).toBe(201);
    const { token } = answer.body;
    expect(token).toMatchObject({
      methods: ['password'],
      user: { name: 'admin', domain: { id: 'default', name: 'Default' }, password_expires_at: null },
      project: { name: 'admin', domain: { id: 'default', name: 'Default' } },
      is_domain: false,
    });
    expect(token.roles.map((role: { name: string }) => role.name)).toEqual(['admin', 'manager', 'member', 'reader']);
    expect(token.catalog[0]).toMatchObject({ type: 'identity', name: 'keystone' });
    expect(token.catalog[0].endpoints.map((one: { url: string }) => one.url)).toEqual(
      Array(3).fill(`${PUBLIC_URL}/identity`),
    );
    expect(Date.parse(token.expires_at) - Date.parse(token.issued_at)).toBe(3600_000);
    expect(token.audit_ids).toEqual([expect.stringMatching(/^[\w-]{22}$/)]);
    expect(String(answer.headers['x-subject-token'])).toMatch(/^[\w-]{186}$/);
    expect(answer.headers['x-openstack-request-id']).toMatch(/^req-[0-9a-f-]{36}$/);
  });

  it('of the system, of a domain, of nothing; without a catalog', async () => {
    const password = cloud.password('admin');
    expect((await cloud.login('admin', password, inSystem)).body.token).toMatchObject({ system: { all: true } });
    expect((await cloud.login('admin', password, inDomain('default'))).status).toBe(401);
    expect((await cloud.login('demo', cloud.password('demo'), inSystem)).status).toBe(401);
    const unscoped = (await cloud.login('admin', password, 'unscoped')).body.token;
    expect(unscoped).not.toHaveProperty('roles');
    expect(unscoped).not.toHaveProperty('catalog');
    const bare = await cloud.call('POST', '/auth/tokens?nocatalog', {
      body: { auth: { identity: { methods: ['token'], token: { id: admin } }, scope: inProject('admin') } },
    });
    expect(bare.body.token).not.toHaveProperty('catalog');
    expect(bare.body.token.roles).toHaveLength(4);
  });

  it('is told to an admin and to its owner, and to nobody else', async () => {
    const [one, other] = [await user(), await user()];
    for (const as of [admin, one.token]) {
      const answer = await subject(one.token, as);
      expect([answer.status, answer.body.token.user.id]).toEqual([200, one.id]);
      expect(answer.headers['x-subject-token']).toBe(one.token);
    }
    expect((await subject(one.token, other.token)).status).toBe(404);
    expect((await subject('nonsense', admin)).status).toBe(404);
    expect((await cloud.call('GET', '/auth/tokens', { token: admin })).status).toBe(400);
    const head = await cloud.call('HEAD', '/auth/tokens', { token: admin, headers: { 'x-subject-token': one.token } });
    expect([head.status, head.body]).toEqual([200, '']);
  });

  it('is good after a restart', async () => {
    const { token } = await user();
    await cloud.reopen();
    expect(await works(token)).toBe(200);
    expect(fs.statSync(path.join(cloud.folder, 'token-keys.json')).mode & 0o777).toBe(0o600);
  });
});

describe('what ends a token, at once', () => {
  it.each([
    [
      'logging out',
      (one: Made) =>
        cloud.call('DELETE', '/auth/tokens', { token: one.token, headers: { 'x-subject-token': one.token } }),
    ],
    [
      'the user disabled',
      (one: Made) => cloud.call('PATCH', `/users/${one.id}`, { token: admin, body: { user: { enabled: false } } }),
    ],
    ['the user deleted', (one: Made) => cloud.call('DELETE', `/users/${one.id}`, { token: admin })],
    [
      'the password set by an admin',
      (one: Made) => cloud.call('PATCH', `/users/${one.id}`, { token: admin, body: { user: { password: 'another' } } }),
    ],
    [
      'the password changed by the user',
      (one: Made) =>
        cloud.call('POST', `/users/${one.id}/password`, {
          token: one.token,
          body: { user: { original_password: one.password, password: 'another' } },
        }),
    ],
    [
      'the project disabled',
      (one: Made) =>
        cloud.call('PATCH', `/projects/${one.project}`, { token: admin, body: { project: { enabled: false } } }),
    ],
    ['the project deleted', (one: Made) => cloud.call('DELETE', `/projects/${one.project}`, { token: admin })],
    ['the last role taken', (one: Made) => cloud.call('DELETE', one.grant, { token: admin })],
  ])('%s', async (_what, end) => {
    const one = await user();
    expect(await works(one.token)).toBe(200);
    expect((await end(one)).status).toBeLessThan(300);
    expect(await works(one.token)).toBe(401);
    expect((await subject(one.token, admin)).status).toBe(404);
  });

  it('its time', async () => {
    const one = await user();
    const keys = new TokenKeys(cloud.folder, 3600_000);
    const token = readToken(one.token, keys)!;
    const until = (expiresAt: number) => writeToken({ ...token, expiresAt } satisfies TokenPayload, keys);
    expect(await works(until(Date.now() + 60_000))).toBe(200);
    expect(await works(until(Date.now()))).toBe(401);
  });

  it('the time of its application credential', async () => {
    const one = await user();
    const make = (name: string, expires_at?: string) =>
      cloud.call('POST', `/users/${one.id}/application_credentials`, {
        token: one.token,
        body: { application_credential: { name, ...(expires_at === undefined ? {} : { expires_at }) } },
      });
    const { id, secret, expires_at } = (await make('short', '2099-12-31T12:00:00')).body.application_credential;
    expect(expires_at).toBe('2099-12-31T12:00:00.000000');
    expect((await make('past', new Date(Date.now() - 1000).toISOString())).status).toBe(400);
    expect((await make('never', 'tomorrow')).status).toBe(400);
    const auth = { identity: { methods: ['application_credential'], application_credential: { id, secret } } };
    const answer = await cloud.call('POST', '/auth/tokens', { body: { auth } });
    const token = String(answer.headers['x-subject-token']);
    expect(await works(token)).toBe(200);
    const set = { expires_at: Date.now() };
    await cloud.catalog.write([{ do: 'update', table: 'application_credential', where: { id }, set }]);
    expect(await works(token)).toBe(401);
    expect((await cloud.call('POST', '/auth/tokens', { body: { auth } })).status).toBe(401);
  });

  it('does not come back when what was disabled is enabled again', async () => {
    const one = await user();
    for (const enabled of [false, true]) {
      await cloud.call('PATCH', `/users/${one.id}`, { token: admin, body: { user: { enabled } } });
    }
    expect(await works(one.token)).toBe(401);
    const again = await cloud.token(one.name, one.password, inProject(one.name));
    for (const enabled of [false, true])
      await cloud.call('PATCH', `/projects/${one.project}`, { token: admin, body: { project: { enabled } } });
    expect(await works(again)).toBe(401);
  });

  it('a role taken is gone from tokens that have others', async () => {
    const one = await user('manager');
    const reader = await cloud.idOf('roles', 'reader', admin);
    await cloud.call('PUT', `/projects/${one.project}/users/${one.id}/roles/${reader}`, { token: admin });
    await cloud.call('DELETE', one.grant, { token: admin });
    const { body } = await subject(one.token, admin);
    expect(body.token.roles.map((role: { name: string }) => role.name)).toEqual(['reader']);
  });

  it('a disabled domain, with all who are in it; and leaving a group', async () => {
    const domain = (await cloud.call('POST', '/domains', { token: admin, body: { domain: { name: 'd1' } } })).body
      .domain.id;
    const { id } = (
      await cloud.call('POST', '/users', {
        token: admin,
        body: { user: { name: 'x', password: 'y', domain_id: domain } },
      })
    ).body.user;
    const group = (
      await cloud.call('POST', '/groups', { token: admin, body: { group: { name: 'g', domain_id: domain } } })
    ).body.group.id;
    const member = `/groups/${group}/users/${id}`;
    await cloud.call('PUT', member, { token: admin });
    const role = await cloud.idOf('roles', 'reader', admin);
    await cloud.call('PUT', `/domains/${domain}/groups/${group}/roles/${role}`, { token: admin });
    const first = await cloud.token('x', 'y', inDomain(domain), domain);
    expect((await cloud.call('GET', '/users', { token: first })).body.users).toHaveLength(1);
    await cloud.call('DELETE', member, { token: admin });
    expect(await works(first)).toBe(401);
    const second = await cloud.token('x', 'y', 'unscoped', domain);
    expect(await works(second)).toBe(200);
    for (const enabled of [false, true]) {
      await cloud.call('PATCH', `/domains/${domain}`, { token: admin, body: { domain: { enabled } } });
      expect(await works(second)).toBe(401);
    }
  });
});
type Made = Awaited<ReturnType<typeof user>>;

describe('a token for a token', () => {
  it('lives no longer than the first, whatever is asked, and names its chain', async () => {
    const one = await user();
    const exchange = (id: string) =>
      cloud.call('POST', '/auth/tokens', {
        body: { auth: { identity: { methods: ['token'], token: { id } }, scope: inProject(one.name) } },
      });
    const first = (await subject(one.token, admin)).body.token;
    await new Promise((resolve) => setTimeout(resolve, 5));
    const second = await exchange(one.token);
    const third = await exchange(String(second.headers['x-subject-token']));
    expect(second.body.token.expires_at).toBe(first.expires_at);
    expect(third.body.token.expires_at).toBe(first.expires_at);
    expect(third.body.token.audit_ids[1]).toBe(first.audit_ids[0]);
    expect(third.body.token.methods).toEqual(['password', 'token']);
  });

  it('an application credential’s is no way to another scope or to another credential', async () => {
    const one = await user();
    const made = await cloud.call('POST', `/users/${one.id}/application_credentials`, {
      token: one.token,
      body: { application_credential: { name: 'c' } },
    });
    expect(made.status).toBe(201);
    const { id, secret, roles } = made.body.application_credential;
    expect(roles.map((role: { name: string }) => role.name)).toEqual(['member', 'reader']);
    const auth = { identity: { methods: ['application_credential'], application_credential: { id, secret } } };
    const answer = await cloud.call('POST', '/auth/tokens', { body: { auth } });
    expect(answer.status).toBe(201);
    const token = String(answer.headers['x-subject-token']);
    expect(answer.body.token).toMatchObject({
      project: { id: one.project },
      application_credential: { id, restricted: true },
    });
    expect((await cloud.call('POST', '/auth/tokens', { body: { auth: { ...auth, scope: 'unscoped' } } })).status).toBe(
      401,
    );
    const exchange = { identity: { methods: ['token'], token: { id: token } } };
    expect((await cloud.call('POST', '/auth/tokens', { body: { auth: exchange } })).status).toBe(403);
    const credentials = `/users/${one.id}/application_credentials`;
    expect(
      (await cloud.call('POST', credentials, { token, body: { application_credential: { name: 'd' } } })).status,
    ).toBe(403);
    expect((await cloud.call('DELETE', `${credentials}/${id}`, { token })).status).toBe(403);
    const change = { user: { original_password: one.password, password: 'another' } };
    expect((await cloud.call('POST', `/users/${one.id}/password`, { token, body: change })).status).toBe(403);
    expect((await cloud.call('DELETE', `${credentials}/${id}`, { token: one.token })).status).toBe(204);
    expect(await works(token)).toBe(401);
    expect((await cloud.call('POST', '/auth/tokens', { body: { auth } })).status).toBe(401);
  });

  it('an application credential gives no role that its maker has not', async () => {
    const one = await user('reader');
    const body = { application_credential: { name: 'c', roles: [{ name: 'admin' }] } };
    expect(
      (await cloud.call('POST', `/users/${one.id}/application_credentials`, { token: one.token, body })).status,
    ).toBe(400);
  });
});
