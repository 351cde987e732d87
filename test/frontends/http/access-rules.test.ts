/** Access rules: what a pattern matches, and that a credential's token is good for what its rules name, and for nothing else. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { matches } from '../../../src/frontends/http/identity/access-rules.ts';
import { Cloud } from './cloud.ts';

describe('a pattern', () => {
  it.each([
    ['/v3/users', '/v3/users', true],
    ['/v3/users', '/v3/users/', false],
    ['/v3/users', '/v3/Users', false],
    ['/v3/users/*', '/v3/users/x', true],
    ['/v3/users/*', '/v3/users/', true],
    ['/v3/users/*', '/v3/users/x/projects', false],
    ['/v3/users/{id}', '/v3/users/x', true],
    ['/v3/users/{id}', '/v3/users/', false],
    ['/v3/users/{id}', '/v3/users/x/y', false],
    ['/v3/users/{id}/projects', '/v3/users/x/projects', true],
    ['/v3/**', '/v3/users/x/projects', true],
    ['/v3/**', '/v3/', true],
    ['/v3/**', '/v3', false],
    ['**/projects', '/v3/users/x/projects', true],
    ['/v3/*/x*y/**z', '/v3/a/xby/c/dz', true],
    ['/v3/*/x*y/**z', '/v3/a/xb/y/c/dz', false],
    ['/v3/u.ers', '/v3/users', false],
    ['/v3/(users|groups)', '/v3/users', false],
    ['/v3/{id', '/v3/{id', true],
    ['', '', true],
  ])('%s for %s: %s', (pattern, path, fits) => {
    expect(matches(pattern, path)).toBe(fits);
  });

  it('takes no time that grows like a regular expression’s', () => {
    const stars = `/${'**a'.repeat(40)}`;
    expect(matches(stars, `/${'a'.repeat(8000)}b`)).toBe(false);
    expect(matches(stars, `/${'ba'.repeat(40)}`)).toBe(true);
  });
});

describe('the token of a credential with access rules', () => {
  const cloud = new Cloud();
  let admin: string;
  let user: string;
  beforeAll(async () => {
    await cloud.open();
    admin = await cloud.admin();
    user = await cloud.idOf('users', 'admin', admin);
  });
  afterAll(() => cloud.end());

  const give = async (name: string, access_rules: object[], more: object = {}) => {
    const body = { application_credential: { name, access_rules, ...more } };
    const made = await cloud.call('POST', `/users/${user}/application_credentials`, { token: admin, body });
    expect([made.body, made.status]).toEqual([made.body, 201]);
    const { id, secret } = made.body.application_credential;
    const auth = { identity: { methods: ['application_credential'], application_credential: { id, secret } } };
    const login = await cloud.call('POST', '/auth/tokens', { body: { auth } });
    return { token: String(login.headers['x-subject-token']), shown: login.body.token, made: made.body };
  };
  const rule = (method: string, path: string, service = 'identity') => ({ method, path, service });

  it('is good for what they name, with the mount or without it', async () => {
    const { token, shown } = await give('some', [rule('GET', '/v3/users'), rule('GET', '/identity/v3/users/{id}')]);
    const ask = async (method: string, url: string) => (await cloud.call(method, url, { token })).status;
    expect(await ask('GET', '/users')).toBe(200);
    expect(await ask('GET', '/users?name=admin')).toBe(200);
    expect(await ask('GET', `/users/${user}`)).toBe(200);
    for (const [method, url] of [
      ['HEAD', '/users'],
      ['POST', '/users'],
      ['GET', '/users/'],
      ['GET', `/users/${user}/projects`],
      ['GET', '/projects'],
      ['GET', '/%75sers'],
      ['GET', '/metrics'],
      ['DELETE', '/auth/tokens'],
    ] as const)
      expect([method, url, await ask(method, url)]).toEqual([method, url, 401]);
    expect(shown.application_credential).toMatchObject({
      name: 'some',
      access_rules: [expect.objectContaining({ service: 'identity' }), expect.objectContaining({ method: 'GET' })],
    });
  });

  it('for another service is good for nothing here, but may be shown to whoever heeds rules', async () => {
    const { token } = await give('compute', [rule('GET', '/**', 'compute')]);
    expect((await cloud.call('GET', '/users', { token })).status).toBe(401);
    const subject = { 'x-subject-token': token };
    expect((await cloud.call('GET', '/auth/tokens', { token, headers: subject })).status).toBe(404);
    const heeds = { ...subject, 'openstack-identity-access-rules': '1.0' };
    for (const as of [admin, token])
      expect((await cloud.call('GET', '/auth/tokens', { token: as, headers: heeds })).status).toBe(200);
    expect((await cloud.call('GET', '/auth/tokens', { token: admin, headers: subject })).status).toBe(404);
  });

  it('for metrics reads those, and is an administrator’s nowhere else', async () => {
    const { token } = await give('scraper', [rule('GET', '/metrics', 'metrics')]);
    expect((await cloud.call('GET', '/metrics', { token })).status).toBe(200);
    expect((await cloud.call('GET', '/users', { token })).status).toBe(401);
  });

  it('its rules are the user’s: one of each, kept until nothing is made with them', async () => {
    const mine = { token: admin };
    const rules = async () =>
      (await cloud.call('GET', `/users/${user}/access_rules?path=/kept`, mine)).body.access_rules as { id: string }[];
    const first = await give('first', [rule('GET', '/kept')]);
    const [{ id }] = (await rules()) as [{ id: string }];
    await give('second', [{ id }]);
    await give('third', [rule('GET', '/kept')]);
    expect(await rules()).toEqual([expect.objectContaining({ id, method: 'GET', path: '/kept', service: 'identity' })]);
    const one = `/users/${user}/access_rules/${id}`;
    expect((await cloud.call('GET', one, mine)).body.access_rule.id).toBe(id);
    expect((await cloud.call('GET', one, { token: await cloud.demo() })).status).toBe(403);
    expect((await cloud.call('DELETE', one, mine)).status).toBe(403);
    const { body } = await cloud.call('GET', `/users/${user}/application_credentials`, mine);
    for (const credential of body.application_credentials as { id: string }[])
      await cloud.call('DELETE', `/users/${user}/application_credentials/${credential.id}`, mine);
    expect(first.made.application_credential.access_rules).toHaveLength(1);
    expect((await cloud.call('DELETE', one, mine)).status).toBe(204);
    expect(await rules()).toEqual([]);
    expect((await cloud.call('DELETE', one, mine)).status).toBe(404);
  });
});
