/** Roles of one domain: given there, worth what they imply, and never in a token. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cloud, inDomain } from './cloud.ts';

const cloud = new Cloud();
let token: string;
let d1: string;
let d2: string;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.admin();
  d1 = await make('domains', 'domain', { name: 'd1' });
  d2 = await make('domains', 'domain', { name: 'd2' });
});
afterAll(() => cloud.end());

const ask = (method: string, url: string, body?: unknown) => cloud.call(method, url, { token, body });
const status = async (method: string, url: string, body?: unknown) => (await ask(method, url, body)).status;
const make = (noun: string, one: string, body: object) => cloud.make(noun, one, body, token);
const names = (rows: { name: string }[]) => rows.map(({ name }) => name).sort();
const listed = async (query: string) => names((await ask('GET', `/roles?${query}`)).body.roles);

describe('a role of one domain', () => {
  it('has a name of its own there, and is in lists of that domain only', async () => {
    const made = await ask('POST', '/roles', { role: { name: 'boss', domain_id: d1 } });
    expect([made.status, made.body.role]).toEqual([201, expect.objectContaining({ name: 'boss', domain_id: d1 })]);
    const again = await ask('POST', '/roles', { role: { name: 'boss', domain_id: d1 } });
    expect([again.status, again.body.error.message]).toEqual([409, expect.stringMatching(/name boss\.$/)]);
    await make('roles', 'role', { name: 'boss', domain_id: d2 });
    await make('roles', 'role', { name: 'boss' });
    await make('roles', 'role', { name: 'other', domain_id: d1 });
    expect(await listed('')).toEqual(['admin', 'boss', 'manager', 'member', 'reader']);
    expect(await listed(`domain_id=${d1}`)).toEqual(['boss', 'other']);
    expect(await listed(`domain_id=${d1}&name=boss`)).toEqual(['boss']);
    expect(await listed('name=other')).toEqual([]);
    expect(await listed(`domain_id=${d2}&name=other`)).toEqual([]);
    const { role } = made.body;
    expect((await ask('GET', `/roles/${role.id}`)).body.role).toEqual(role);
    expect((await ask('PATCH', `/roles/${role.id}`, { role: { name: 'chief' } })).body.role).toMatchObject({
      id: role.id,
      name: 'chief',
      domain_id: d1,
    });
    expect(await status('PATCH', `/roles/${role.id}`, { role: { name: 'other' } })).toBe(409);
    expect(await status('PATCH', `/roles/${role.id}`, { role: { domain_id: d2 } })).toBe(400);
    expect(await status('PATCH', `/roles/${role.id}`, { role: { domain_id: null } })).toBe(400);
    expect(await status('PATCH', `/roles/${role.id}`, { role: { domain_id: d1 } })).toBe(200);
    expect(await status('DELETE', `/roles/${role.id}`)).toBe(204);
    expect(await listed(`domain_id=${d1}`)).toEqual(['other']);
    expect(await status('POST', '/roles', { role: { name: 'lost', domain_id: 'nowhere' } })).toBe(404);
    const long = (length: number) => ({ role: { name: 'n'.repeat(length), domain_id: d1 } });
    expect([await status('POST', '/roles', long(255)), await status('POST', '/roles', long(256))]).toEqual([201, 400]);
  });

  it('is worth what it implies, and in no token', async () => {
    const domain_id = await make('domains', 'domain', { name: 'worth' });
    const role = await make('roles', 'role', { name: 'admin', domain_id });
    const inner = await make('roles', 'role', { name: 'inner', domain_id });
    const project = await make('projects', 'project', { name: 'p', domain_id });
    const user = await make('users', 'user', { name: 'u', password: 'pw', domain_id });
    expect(await status('PUT', `/projects/${project}/users/${user}/roles/${role}`)).toBe(204);
    const login = () => cloud.login('u', 'pw', { project: { id: project } }, domain_id);
    const effective = async () => {
      const { body } = await ask('GET', `/role_assignments?effective&include_names&user.id=${user}`);
      return names(body.role_assignments.map((one: { role: { name: string } }) => one.role));
    };
    expect([(await login()).status, await effective()]).toEqual([401, []]);
    const reader = await cloud.idOf('roles', 'reader', token);
    expect(await status('PUT', `/roles/${role}/implies/${inner}`)).toBe(201);
    expect(await status('PUT', `/roles/${inner}/implies/${reader}`)).toBe(201);
    const { body, headers } = await login();
    expect([names(body.token.roles), await effective()]).toEqual([['reader'], ['reader']]);
    // Its name is no right.
    const own = String(headers['x-subject-token']);
    expect((await cloud.call('GET', '/users', { token: own })).status).toBe(403);
    const [granted] = (await ask('GET', `/role_assignments?include_names&user.id=${user}`)).body.role_assignments;
    expect(granted.role).toEqual({ id: role, name: 'admin', domain: { id: domain_id, name: 'worth' } });
    expect(names((await ask('GET', `/projects/${project}/users/${user}/roles`)).body.roles)).toEqual(['admin']);
    expect((await ask('GET', `/roles/${role}/implies`)).body.role_inference).toMatchObject({
      prior_role: { name: 'admin', domain_id },
      implies: [{ name: 'inner', domain_id }],
    });
    expect(await status('DELETE', `/roles/${inner}/implies/${reader}`)).toBe(204);
    expect((await cloud.call('GET', '/auth/projects', { token: own })).status).toBe(401);
  });

  it('is implied by none of all domains, and never implies admin', async () => {
    const role = await make('roles', 'role', { name: 'one', domain_id: d1 });
    const far = await make('roles', 'role', { name: 'far', domain_id: d2 });
    const [reader, admin] = [await cloud.idOf('roles', 'reader', token), await cloud.idOf('roles', 'admin', token)];
    expect(await status('PUT', `/roles/${reader}/implies/${role}`)).toBe(403);
    expect(await status('PUT', `/roles/${role}/implies/${admin}`)).toBe(403);
    expect(await status('PUT', `/roles/${role}/implies/${far}`)).toBe(201);
  });

  it('is given in its domain, and nowhere else', async () => {
    const role = await make('roles', 'role', { name: 'local', domain_id: d1 });
    const user = await make('users', 'user', { name: 'anybody' });
    const group = await make('groups', 'group', { name: 'anybody' });
    const [in1, in2] = [
      await make('projects', 'project', { name: 'in1', domain_id: d1 }),
      await make('projects', 'project', { name: 'in2', domain_id: d2 }),
    ];
    for (const actor of [`users/${user}`, `groups/${group}`]) {
      const put = (place: string) => status('PUT', `${place}/${actor}/roles/${role}`);
      expect([await put(`/projects/${in1}`), await put(`/domains/${d1}`)]).toEqual([204, 204]);
      expect([await put(`/projects/${in2}`), await put(`/domains/${d2}`), await put('/system')]).toEqual([
        403, 403, 403,
      ]);
      const at = `/${actor}/roles/${role}/inherited_to_projects`;
      expect(await status('PUT', `/OS-INHERIT/domains/${d1}${at}`)).toBe(204);
      expect(await status('PUT', `/OS-INHERIT/domains/${d2}${at}`)).toBe(403);
    }
  });

  it('is read by who reads in its domain, and goes with it', async () => {
    const domain_id = await make('domains', 'domain', { name: 'gone' });
    const role = await make('roles', 'role', { name: 'theirs', domain_id });
    const user = await make('users', 'user', { name: 'reads', password: 'pw', domain_id });
    const reader = await cloud.idOf('roles', 'reader', token);
    await ask('PUT', `/domains/${domain_id}/users/${user}/roles/${reader}`);
    const own = await cloud.token('reads', 'pw', inDomain(domain_id), domain_id);
    const read = async (url: string) => (await cloud.call('GET', url, { token: own })).status;
    const foreign = await make('roles', 'role', { name: 'foreign', domain_id: d1 });
    expect([await read(`/roles/${role}`), await read(`/roles?domain_id=${domain_id}`)]).toEqual([200, 200]);
    expect([await read(`/roles/${foreign}`), await read(`/roles?domain_id=${d1}`)]).toEqual([403, 403]);
    expect([await read(`/roles/${reader}`), await read('/roles')]).toEqual([200, 200]);
    await ask('PATCH', `/domains/${domain_id}`, { domain: { enabled: false } });
    expect(await status('DELETE', `/domains/${domain_id}`)).toBe(204);
    expect(await status('GET', `/roles/${role}`)).toBe(404);
  });
});
