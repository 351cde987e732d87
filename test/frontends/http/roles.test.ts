/** Roles that imply roles, roles that projects inherit, and the administrator who stays. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cloud, inProject, inSystem } from './cloud.ts';

const cloud = new Cloud();
let token: string;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.admin();
});
afterAll(() => cloud.end());

const ask = (method: string, url: string, body?: unknown) => cloud.call(method, url, { token, body });
const status = async (method: string, url: string, body?: unknown) => (await ask(method, url, body)).status;
const make = (noun: string, one: string, body: object) => cloud.make(noun, one, body, token);
const names = (rows: { name: string }[]) => rows.map(({ name }) => name).sort();

describe('implied roles', () => {
  it('are there in tokens at once, and gone at once', async () => {
    const [a, b, c] = await Promise.all(['a', 'b', 'c'].map((name) => make('roles', 'role', { name })));
    const user = await make('users', 'user', { name: 'u', password: 'pw' });
    const project = await make('projects', 'project', { name: 'p' });
    await ask('PUT', `/projects/${project}/users/${user}/roles/${a}`);
    const roles = async () => names((await cloud.login('u', 'pw', inProject('p'))).body.token.roles);
    expect(await roles()).toEqual(['a']);
    const made = await ask('PUT', `/roles/${a}/implies/${b}`);
    expect(made.status).toBe(201);
    expect(made.body.role_inference).toMatchObject({ prior_role: { id: a, name: 'a' }, implies: { id: b, name: 'b' } });
    await ask('PUT', `/roles/${b}/implies/${c}`);
    // Round and round: each is there once.
    await ask('PUT', `/roles/${c}/implies/${a}`);
    expect(await roles()).toEqual(['a', 'b', 'c']);
    const all = (await ask('GET', '/role_inferences')).body.role_inferences as { prior_role: { name: string } }[];
    expect(names(all.map(({ prior_role }) => prior_role))).toEqual(['a', 'admin', 'b', 'c', 'manager', 'member']);
    expect(names((await ask('GET', `/roles/${a}/implies`)).body.role_inference.implies)).toEqual(['b']);
    for (const [method, expected] of [
      ['HEAD', 204],
      ['GET', 200],
      ['DELETE', 204],
      ['DELETE', 404],
      ['HEAD', 404],
      ['GET', 404],
    ] as const)
      expect([method, await status(method, `/roles/${a}/implies/${b}`)]).toEqual([method, expected]);
    expect(await roles()).toEqual(['a']);
  });

  it('never admin, never itself, never what is not there', async () => {
    const role = await make('roles', 'role', { name: 'lone' });
    const admin = await cloud.idOf('roles', 'admin', token);
    expect(await status('PUT', `/roles/${role}/implies/${admin}`)).toBe(403);
    expect(await status('PUT', `/roles/${role}/implies/${role}`)).toBe(400);
    expect(await status('PUT', `/roles/${role}/implies/x`)).toBe(404);
    expect((await cloud.call('PUT', `/roles/${role}/implies/x`, { token: await cloud.demo() })).status).toBe(403);
  });
});

describe('inherited roles', () => {
  /** A domain with a project in a project in a project, and a user with no role. */
  async function tree(name: string) {
    const domain_id = await make('domains', 'domain', { name });
    const top = await make('projects', 'project', { name: 'top', domain_id });
    const middle = await make('projects', 'project', { name: 'middle', domain_id, parent_id: top });
    const leaf = await make('projects', 'project', { name: 'leaf', domain_id, parent_id: middle });
    const user = await make('users', 'user', { name: 'heir', password: 'pw', domain_id });
    const role = await cloud.idOf('roles', 'reader', token);
    const may = async (scope: unknown) => (await cloud.login('heir', 'pw', scope, domain_id)).status === 201;
    const places = async () => {
      const found = [];
      for (const [where, id] of Object.entries({ top, middle, leaf }))
        if (await may({ project: { id } })) found.push(where);
      return (await may({ domain: { id: domain_id } })) ? ['domain', ...found] : found;
    };
    const own = await cloud.token('heir', 'pw', 'unscoped', domain_id);
    const listed = async () => names((await cloud.call('GET', '/auth/projects', { token: own })).body.projects);
    return { domain_id, top, middle, leaf, user, role, places, listed };
  }
  const effective = async (query: string) =>
    (await ask('GET', `/role_assignments?effective&${query}`)).body.role_assignments as {
      scope: { project?: { id: string } };
    }[];

  it('of a domain: in all its projects, and not in the domain', async () => {
    const { domain_id, top, middle, leaf, user, role, places, listed } = await tree('d1');
    const grants = `/OS-INHERIT/domains/${domain_id}/users/${user}/roles`;
    const grant = `${grants}/${role}/inherited_to_projects`;
    expect(await status('HEAD', grant)).toBe(404);
    expect(await status('PUT', grant)).toBe(204);
    expect(await status('HEAD', grant)).toBe(204);
    expect(names((await ask('GET', `${grants}/inherited_to_projects`)).body.roles)).toEqual(['reader']);
    expect((await ask('GET', `/domains/${domain_id}/users/${user}/roles`)).body.roles).toEqual([]);
    expect(await places()).toEqual(['top', 'middle', 'leaf']);
    expect(await listed()).toEqual(['leaf', 'middle', 'top']);
    const [row] = (await ask('GET', `/role_assignments?user.id=${user}`)).body.role_assignments;
    expect(row.scope).toEqual({ domain: { id: domain_id }, 'OS-INHERIT:inherited_to': 'projects' });
    expect(row.links.assignment).toMatch(new RegExp(`/v3${grant}$`));
    expect((await effective(`user.id=${user}`)).map(({ scope }) => scope.project!.id).sort()).toEqual(
      [top, middle, leaf].sort(),
    );
    expect(await effective(`user.id=${user}&scope.project.id=${leaf}`)).toHaveLength(1);
    expect(await effective(`user.id=${user}&scope.domain.id=${domain_id}`)).toEqual([]);
    expect(await status('DELETE', grant)).toBe(204);
    expect(await places()).toEqual([]);
    expect(await listed()).toEqual([]);
  });

  it('of a project, through a group: below it, and not in it', async () => {
    const { domain_id, top, leaf, user, role, places, listed } = await tree('d2');
    const group = await make('groups', 'group', { name: 'heirs', domain_id });
    await ask('PUT', `/groups/${group}/users/${user}`);
    const grant = `/OS-INHERIT/projects/${top}/groups/${group}/roles/${role}/inherited_to_projects`;
    expect(await status('PUT', grant)).toBe(204);
    expect(await places()).toEqual(['middle', 'leaf']);
    expect(await listed()).toEqual(['leaf', 'middle']);
    expect(await effective(`user.id=${user}&scope.project.id=${leaf}`)).toHaveLength(1);
    expect(await effective(`user.id=${user}&scope.project.id=${top}`)).toEqual([]);
    const used = await cloud.token('heir', 'pw', { project: { id: leaf } }, domain_id);
    expect(await status('DELETE', grant)).toBe(204);
    expect((await cloud.call('GET', '/auth/projects', { token: used })).status).toBe(401);
  });

  it('and the same role on the project itself are two', async () => {
    const { top, user, role, places } = await tree('d3');
    await ask('PUT', `/projects/${top}/users/${user}/roles/${role}`);
    await ask('PUT', `/OS-INHERIT/projects/${top}/users/${user}/roles/${role}/inherited_to_projects`);
    expect(await places()).toEqual(['top', 'middle', 'leaf']);
    await ask('DELETE', `/projects/${top}/users/${user}/roles/${role}`);
    expect(await places()).toEqual(['middle', 'leaf']);
  });
});

describe('the last administrator', () => {
  it('is neither deleted, nor disabled, nor made less', async () => {
    const user = await cloud.idOf('users', 'admin', token);
    const project = await cloud.idOf('projects', 'admin', token);
    const role = await cloud.idOf('roles', 'admin', token);
    const onProject = `/projects/${project}/users/${user}/roles/${role}`;
    const onSystem = `/system/users/${user}/roles/${role}`;
    const group = await make('groups', 'group', { name: 'admins' });
    const byGroup = `/system/groups/${group}/roles/${role}`;
    const takes: [string, string, unknown?][] = [
      ['DELETE', `/users/${user}`],
      ['PATCH', `/users/${user}`, { user: { enabled: false } }],
      ['DELETE', `/roles/${role}`],
      ['PATCH', `/roles/${role}`, { role: { name: 'was admin' } }],
      ['PATCH', '/domains/default', { domain: { enabled: false } }],
    ];
    for (const [method, url, body] of takes) {
      const { status, body: said } = await ask(method, url, body);
      expect([url, status, said.error.message]).toEqual([
        url,
        403,
        'That would leave nobody who can administer the cloud.',
      ]);
    }
    // Either place is enough, and one has to be left.
    expect(await status('DELETE', onProject)).toBe(204);
    expect(await status('GET', '/users')).toBe(401);
    token = await cloud.token('admin', cloud.password('admin'), inSystem);
    expect(await status('DELETE', onSystem)).toBe(403);
    expect(await status('PUT', byGroup)).toBe(204);
    // A group without members helps nobody.
    expect(await status('DELETE', onSystem)).toBe(403);
    await ask('PUT', `/groups/${group}/users/${user}`);
    expect(await status('DELETE', onSystem)).toBe(204);
    expect(await status('DELETE', `/groups/${group}/users/${user}`)).toBe(403);
    expect(await status('DELETE', `/groups/${group}`)).toBe(403);
    expect(await status('DELETE', byGroup)).toBe(403);
    expect(await status('PUT', onSystem)).toBe(204);
    expect(await status('DELETE', `/groups/${group}`)).toBe(204);
  });

  it('is not taken by two at once', async () => {
    const role = await cloud.idOf('roles', 'admin', token);
    const first = await cloud.idOf('users', 'admin', token);
    const second = await make('users', 'user', { name: 'second', password: 'pw' });
    await ask('PUT', `/system/users/${second}/roles/${role}`);
    const answers = await Promise.all(
      [first, second].map((id) => status('DELETE', `/system/users/${id}/roles/${role}`)),
    );
    expect(answers.sort()).toEqual([204, 403]);
  });
});
