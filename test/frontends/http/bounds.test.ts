/** Every named bound of the identity API, from both sides; and what holds resources together. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cloud } from './cloud.ts';

const cloud = new Cloud();
let token: string;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.admin();
});
afterAll(() => cloud.end());

const ask = (method: string, url: string, body?: unknown) => cloud.call(method, url, { token, body });
const make = (noun: string, one: string, body: object) => cloud.make(noun, one, body, token);

describe('names', () => {
  it.each([
    ['users', 'user', 255, {}],
    ['projects', 'project', 64, {}],
    ['domains', 'domain', 64, {}],
    ['groups', 'group', 64, {}],
    ['roles', 'role', 255, {}],
  ])('%s', async (noun, one, max, more) => {
    expect((await ask('POST', `/${noun}`, { [one]: { name: 'n'.repeat(max), ...more } })).status).toBe(201);
    expect((await ask('POST', `/${noun}`, { [one]: { name: 'n'.repeat(max), ...more } })).status).toBe(409);
    expect((await ask('POST', `/${noun}`, { [one]: { name: 'm'.repeat(max + 1), ...more } })).status).toBe(400);
  });

  it('are as users write them: any characters, as they are', async () => {
    for (const name of ['a/b', "Robert'); DROP TABLE user;--", '名前', '..', '%2e%2e', '$(id)', '<b>']) {
      const id = await make('users', 'user', { name });
      const { body } = await ask('GET', `/users?name=${encodeURIComponent(name)}`);
      expect(body.users.map((user: { id: string; name: string }) => [user.id, user.name])).toEqual([[id, name]]);
    }
  });

  it('may be the same in another domain', async () => {
    const domain = await make('domains', 'domain', { name: 'other' });
    await make('users', 'user', { name: 'twin' });
    await make('users', 'user', { name: 'twin', domain_id: domain });
    expect((await ask('POST', '/users', { user: { name: 'twin', domain_id: domain } })).status).toBe(409);
    expect(
      (await ask('PATCH', `/users/${await cloud.idOf('users', 'demo', token)}`, { user: { name: 'twin' } })).status,
    ).toBe(409);
    expect((await ask('POST', '/users', { user: { name: 'lost', domain_id: 'nowhere' } })).status).toBe(404);
  });
});

describe('projects', () => {
  it('are five levels deep', async () => {
    let parent_id: string | undefined;
    for (let level = 1; level <= 5; level++)
      parent_id = await make('projects', 'project', {
        name: `level${level}`,
        ...(parent_id === undefined ? {} : { parent_id }),
      });
    expect((await ask('POST', '/projects', { project: { name: 'level6', parent_id } })).status).toBe(403);
    const above = (await ask('GET', `/projects/${parent_id}`)).body.project.parent_id;
    expect((await ask('DELETE', `/projects/${above}`)).status).toBe(403);
    expect((await ask('DELETE', `/projects/${parent_id}`)).status).toBe(204);
    expect((await ask('DELETE', `/projects/${above}`)).status).toBe(204);
  });

  it('have eighty tags, each of 255 characters, and are found by them', async () => {
    const tags = Array.from({ length: 80 }, (_, index) => `t${index}`);
    const id = await make('projects', 'project', { name: 'tagged', tags });
    expect((await ask('PUT', `/projects/${id}/tags/t79`)).status).toBe(201);
    expect((await ask('PUT', `/projects/${id}/tags/t80`)).status).toBe(400);
    expect((await ask('PUT', `/projects/${id}/tags`, { tags: [...tags, 't80'] })).status).toBe(400);
    expect((await ask('DELETE', `/projects/${id}/tags/t79`)).status).toBe(204);
    expect((await ask('GET', `/projects/${id}/tags/t79`)).status).toBe(404);
    expect((await ask('DELETE', `/projects/${id}/tags/t79`)).status).toBe(404);
    expect((await ask('PUT', `/projects/${id}/tags/${'x'.repeat(255)}`)).status).toBe(201);
    expect((await ask('HEAD', `/projects/${id}/tags/${'x'.repeat(255)}`)).status).toBe(204);
    expect((await ask('PUT', `/projects/${id}/tags`, { tags: ['x'.repeat(256)] })).status).toBe(400);
    expect((await ask('PUT', `/projects/${id}/tags`, { tags: ['a,b'] })).status).toBe(400);
    const other = await make('projects', 'project', { name: 'less', tags: ['t1'] });
    const found = async (query: string) =>
      (await ask('GET', `/projects?${query}`)).body.projects
        .map((project: { id: string }) => project.id)
        .filter((one: string) => [id, other].includes(one));
    expect(await found('tags=t1,t2')).toEqual([id]);
    expect(await found('tags-any=t1,t2')).toEqual([other, id].sort());
    expect(await found('not-tags=t1,t2')).toEqual([other]);
    expect(await found('not-tags-any=t2')).toEqual([other]);
    expect((await ask('GET', `/projects?tags=${tags.join()},t80`)).status).toBe(400);
    expect((await ask('DELETE', `/projects/${id}/tags`)).status).toBe(204);
    expect((await ask('GET', `/projects/${id}/tags`)).body.tags).toEqual([]);
  });

  it('that operators work in stays', async () => {
    expect((await ask('DELETE', `/projects/${await cloud.idOf('projects', 'admin', token)}`)).status).toBe(403);
  });
});

describe('domains', () => {
  it('go, disabled first, with all that is in them', async () => {
    const domain_id = await make('domains', 'domain', { name: 'goes' });
    const above = await make('projects', 'project', { name: 'above', domain_id });
    const below = await make('projects', 'project', { name: 'below', domain_id, parent_id: above });
    const user = await make('users', 'user', { name: 'in', domain_id });
    const group = await make('groups', 'group', { name: 'in', domain_id });
    const role = await cloud.idOf('roles', 'member', token);
    for (const grant of [`/projects/${below}/users/${user}`, `/domains/${domain_id}/groups/${group}`])
      expect((await ask('PUT', `${grant}/roles/${role}`)).status).toBe(204);
    expect((await ask('DELETE', `/domains/${domain_id}`)).status).toBe(403);
    expect((await ask('PATCH', `/domains/${domain_id}`, { domain: { enabled: false } })).status).toBe(200);
    expect((await ask('DELETE', `/domains/${domain_id}`)).status).toBe(204);
    for (const url of [
      `/projects/${above}`,
      `/projects/${below}`,
      `/users/${user}`,
      `/groups/${group}`,
      `/domains/${domain_id}`,
    ])
      expect([url, (await ask('GET', url)).status]).toEqual([url, 404]);
    expect((await ask('GET', '/role_assignments')).body.role_assignments).toHaveLength(3);
    await ask('PATCH', '/domains/default', { domain: { description: 'stays' } });
    expect((await ask('DELETE', '/domains/default')).status).toBe(403);
  });
});

describe('regions', () => {
  it('are sixteen deep, and never in themselves', async () => {
    await make('regions', 'region', { id: 'r0' });
    for (let depth = 1; depth <= 16; depth++)
      await make('regions', 'region', { id: `r${depth}`, parent_region_id: `r${depth - 1}` });
    expect((await ask('POST', '/regions', { region: { id: 'r17', parent_region_id: 'r16' } })).status).toBe(400);
    expect((await ask('PATCH', '/regions/r0', { region: { parent_region_id: 'r1' } })).status).toBe(400);
    expect((await ask('PATCH', '/regions/r0', { region: { parent_region_id: 'r0' } })).status).toBe(400);
    expect((await ask('POST', '/regions', { region: { id: 'r1' } })).status).toBe(409);
    expect((await ask('DELETE', '/regions/r3')).status).toBe(409);
  });
});

describe('logins and credentials', () => {
  it('eight methods, each looked at once', async () => {
    const identity = { methods: Array(8).fill('token'), token: { id: token } };
    expect((await cloud.call('POST', '/auth/tokens', { body: { auth: { identity } } })).status).toBe(201);
    identity.methods.push('token');
    expect((await cloud.call('POST', '/auth/tokens', { body: { auth: { identity } } })).status).toBe(400);
  });

  it('sixty-four roles', async () => {
    const user = await cloud.idOf('users', 'admin', token);
    const give = (count: number) =>
      ask('POST', `/users/${user}/application_credentials`, {
        application_credential: { name: `c${count}`, roles: Array(count).fill({ name: 'reader' }) },
      });
    const made = await give(64);
    expect([made.status, made.body.application_credential.roles.length]).toEqual([201, 1]);
    expect((await give(65)).status).toBe(400);
  });

  it('sixty-four access rules, each with a path of 128 characters', async () => {
    const user = await cloud.idOf('users', 'admin', token);
    const give = async (name: string, access_rules: unknown[]) => {
      const body = { application_credential: { name, access_rules } };
      return (await ask('POST', `/users/${user}/application_credentials`, body)).status;
    };
    const rules = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ path: `/${index}`, method: 'GET', service: 'identity' }));
    expect(await give('r64', rules(64))).toBe(201);
    expect(await give('r65', rules(65))).toBe(400);
    expect(await give('r0', [])).toBe(400);
    const one = { path: '/', method: 'GET', service: 'identity' };
    expect(await give('p128', [{ ...one, path: `/${'x'.repeat(127)}` }])).toBe(201);
    expect(await give('p129', [{ ...one, path: `/${'x'.repeat(128)}` }])).toBe(400);
    expect(await give('relative', [{ ...one, path: 'v3' }])).toBe(400);
    expect(await give('method', [{ ...one, method: 'TRACE' }])).toBe(400);
    expect(await give('more', [{ ...one, more: 1 }])).toBe(400);
    expect(await give('whose', [{ id: '0'.repeat(32) }])).toBe(400);
  });
});
