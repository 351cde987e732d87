/** Projects in projects: who has which role in all of them, and what is above and below one. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cloud } from './cloud.ts';

const cloud = new Cloud();
let token: string;
const ids: Record<string, string> = {};
let domain_id: string;
let user: string;
let role: string;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.admin();
  const make = (noun: string, one: string, body: object) => cloud.make(noun, one, body, token);
  domain_id = await make('domains', 'domain', { name: 'd' });
  for (const [name, parent] of [
    ['top', null],
    ['left', 'top'],
    ['right', 'top'],
    ['leaf', 'left'],
    ['apart', null],
  ] as const)
    ids[name] = await make('projects', 'project', { name, domain_id, parent_id: parent === null ? null : ids[parent] });
  user = await make('users', 'user', { name: 'u', password: 'pw', domain_id });
  role = await cloud.idOf('roles', 'reader', token);
});
afterAll(() => cloud.end());

const ask = (method: string, url: string, as = token, body?: unknown) => cloud.call(method, url, { token: as, body });
const nameOf = (id: string) => Object.keys(ids).find((name) => ids[name] === id) ?? id;

describe('role assignments in a subtree', () => {
  const where = async (query: string) => {
    const { status, body } = await ask('GET', `/role_assignments?user.id=${user}&${query}`);
    if (status !== 200) return status;
    return body.role_assignments
      .map(({ scope }: { scope: { project: { id: string } } }) => nameOf(scope.project.id))
      .sort();
  };
  const at = (name: string, more = '') => where(`scope.project.id=${ids[name]}&include_subtree=true${more}`);

  it('are those of a project and of all below it', async () => {
    for (const name of ['top', 'leaf', 'apart']) await ask('PUT', `/projects/${ids[name]}/users/${user}/roles/${role}`);
    expect(await at('top')).toEqual(['leaf', 'top']);
    expect(await at('left')).toEqual(['leaf']);
    expect(await at('leaf')).toEqual(['leaf']);
    expect(await at('right')).toEqual([]);
    expect(await where(`scope.project.id=${ids.top}`)).toEqual(['top']);
    expect(await where(`scope.project.id=${ids.top}&include_subtree=false`)).toEqual(['top']);
    expect(await at('top', '&effective')).toEqual(['leaf', 'top']);
    for (const name of ['top', 'leaf', 'apart'])
      await ask('DELETE', `/projects/${ids[name]}/users/${user}/roles/${role}`);
  });

  it('in effect: those that the subtree inherits too, each where it holds', async () => {
    const heirs = (place: string) => `/OS-INHERIT${place}/users/${user}/roles/${role}/inherited_to_projects`;
    const fromTop = heirs(`/projects/${ids.top}`);
    await ask('PUT', fromTop);
    expect(await at('top')).toEqual(['top']);
    expect(await at('top', '&effective')).toEqual(['leaf', 'left', 'right']);
    expect(await at('left', '&effective')).toEqual(['leaf', 'left']);
    expect(await at('leaf', '&effective')).toEqual(['leaf']);
    expect(await at('apart', '&effective')).toEqual([]);
    await ask('DELETE', fromTop);
    const fromDomain = heirs(`/domains/${domain_id}`);
    await ask('PUT', fromDomain);
    expect(await at('left', '&effective')).toEqual(['leaf', 'left']);
    expect(await at('top', '&effective')).toEqual(['leaf', 'left', 'right', 'top']);
    await ask('DELETE', fromDomain);
  });

  it('need the project that the subtree is of', async () => {
    expect(await where('include_subtree=true')).toBe(400);
    expect(await where(`include_subtree=true&scope.domain.id=${domain_id}`)).toBe(400);
  });
});

describe('a project', () => {
  const shown = async (query: string, as = token) =>
    (await ask('GET', `/projects/${ids.left}?${query}`, as)).body.project;

  it('is shown with the ids above and below it', async () => {
    expect((await shown('parents_as_ids')).parents).toEqual({ [ids.top!]: { [domain_id]: null } });
    expect((await shown('subtree_as_ids')).subtree).toEqual({ [ids.leaf!]: null });
    const { body } = await ask('GET', `/projects/${ids.top}?parents_as_ids&subtree_as_ids`);
    expect(body.project.parents).toEqual({ [domain_id]: null });
    expect(body.project.subtree).toEqual({ [ids.left!]: { [ids.leaf!]: null }, [ids.right!]: null });
    expect((await ask('GET', `/projects/${ids.leaf}?subtree_as_ids`)).body.project.subtree).toBeNull();
    for (const query of ['', 'parents_as_ids=false', 'include_limits']) {
      expect(await shown(query)).not.toHaveProperty('parents');
      expect(await shown(query)).not.toHaveProperty('subtree');
    }
  });

  it('is shown with the projects that the caller may see, and their limits', async () => {
    const names = (rows: { project: { name: string } }[]) => rows.map(({ project }) => project.name);
    expect(names((await shown('parents_as_list')).parents)).toEqual(['top']);
    const { subtree } = await shown('subtree_as_list');
    expect(subtree[0].project).toEqual((await ask('GET', `/projects/${ids.leaf}`)).body.project);
    await cloud.catalog.quotas.set({ projectId: ids.leaf!, userId: null }, { volumes: 3 });
    const limited = (await shown('subtree_as_list&parents_as_list&include_limits')) as {
      subtree: { project: { limits: object[] } }[];
      parents: { project: { limits: object[] } }[];
    };
    expect(limited.subtree[0]!.project.limits).toEqual([
      expect.objectContaining({ project_id: ids.leaf, resource_name: 'volumes', resource_limit: 3 }),
    ]);
    expect(limited.parents[0]!.project.limits).toEqual([]);
    // Whoever is only here sees nothing but ids.
    await ask('PUT', `/projects/${ids.left}/users/${user}/roles/${role}`);
    const own = await cloud.token('u', 'pw', { project: { id: ids.left } }, domain_id);
    expect(await shown('parents_as_list&subtree_as_list', own)).toMatchObject({ parents: [], subtree: [] });
    await ask('PUT', `/projects/${ids.leaf}/users/${user}/roles/${role}`);
    expect(names((await shown('subtree_as_list', own)).subtree)).toEqual(['leaf']);
  });

  it('is shown with one of both', async () => {
    for (const side of ['parents', 'subtree'])
      expect((await ask('GET', `/projects/${ids.left}?${side}_as_list&${side}_as_ids`)).status).toBe(400);
  });
});
