/**
 * The identity API by curl, against its reference (docs.openstack.org/api-ref/identity/v3): for every request its status, the headers of
 * the answer, and what the answer has in it, no less.
 */
import { spawnSync } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { World } from './lib/daemon.ts';

type Env = Record<string, string>;
interface Answer {
  status: number;
  headers: Record<string, string>;
  // biome-ignore lint/suspicious/noExplicitAny: what a test looks into is what it asserts
  body: any;
}

const world = new World();
let url: string;
let token: string;
beforeAll(async () => {
  const daemon = await world.start(['--http', '127.0.0.1:0']);
  const env = await daemon.cli<Env>('openrc');
  url = env.OS_AUTH_URL!;
  const domain = { id: 'default' };
  const identity = {
    methods: ['password'],
    password: { user: { name: env.OS_USERNAME, domain, password: env.OS_PASSWORD } },
  };
  const auth = { identity, scope: { project: { name: env.OS_PROJECT_NAME, domain } } };
  token = curl('POST', '/auth/tokens', { auth }, []).headers['x-subject-token']!;
});
afterAll(() => world.end());

function curl(method: string, path: string, body?: unknown, headers = [`X-Auth-Token: ${token}`]): Answer {
  const words = ['-sS', '-i', ...(method === 'HEAD' ? ['--head'] : ['-X', method])];
  const more = body === undefined ? [] : ['-H', 'Content-Type: application/json', '-d', JSON.stringify(body)];
  const all = [...words, ...headers.flatMap((header) => ['-H', header]), ...more, `${url}${path}`];
  const { stdout, stderr, status } = spawnSync('curl', all, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`curl: ${stderr}`);
  const [head = '', text = ''] = stdout.split(/\r\n\r\n(.*)/s);
  const [line = '', ...lines] = head.split('\r\n');
  const named = lines.map((one) => [one.slice(0, one.indexOf(':')).toLowerCase(), one.slice(one.indexOf(':') + 2)]);
  return {
    status: Number(line.split(' ')[1]),
    headers: Object.fromEntries(named),
    body: text === '' ? '' : JSON.parse(text),
  };
}

/** What holds for all answers. */
function checked(what: string, { status, headers, body }: Answer, expected: number): void {
  expect([what, status]).toEqual([what, expected]);
  expect(headers['x-openstack-request-id']).toMatch(/^req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  expect(headers.vary).toBe('X-Auth-Token');
  if (status === 204) expect([what, body, headers['content-type']]).toEqual([what, '', undefined]);
  else if (body !== '') expect([what, headers['content-type']]).toEqual([what, 'application/json; charset=utf-8']);
}

function has(what: string, thing: object, keys: string): void {
  expect([what, keys.split(' ').filter((key) => !(key in thing))]).toEqual([what, []]);
}

/** A noun with all it has: made, shown, listed, changed and deleted. @returns its id, when it stays */
function noun(one: string, path: string, keys: string, make: object, change: object | null, stays = true): string {
  const all = path.split('/').at(-1)!;
  const made = curl('POST', path, { [one]: make });
  checked(`POST ${path}`, made, 201);
  const thing = made.body[one];
  has(`POST ${path}`, thing, `${keys} id links`);
  expect(thing).toMatchObject(make);
  expect(thing.links.self).toBe(`${url}${path}/${thing.id}`);
  const at = `${path}/${thing.id}`;
  const shown = curl('GET', at);
  checked(`GET ${at}`, shown, 200);
  const { secret: _secret, ...kept } = thing;
  expect(shown.body).toEqual({ [one]: kept });
  const head = curl('HEAD', at);
  checked(`HEAD ${at}`, head, 200);
  expect(head.body).toBe('');
  const listed = curl('GET', path);
  checked(`GET ${path}`, listed, 200);
  expect(listed.body.links).toEqual({ self: `${url}${path}`, next: null, previous: null });
  expect(listed.body[all]).toContainEqual(kept);
  if (change !== null) {
    const changed = curl('PATCH', at, { [one]: change });
    checked(`PATCH ${at}`, changed, 200);
    expect(changed.body).toEqual({ [one]: { ...kept, ...change } });
  }
  if (stays) return thing.id as string;
  const gone = curl('DELETE', at);
  checked(`DELETE ${at}`, gone, 204);
  const missing = curl('GET', at);
  checked(`GET ${at}`, missing, 404);
  expect(missing.body).toEqual({ error: { code: 404, title: 'Not Found', message: expect.any(String) } });
  return '';
}

describe('the identity API, by its reference', () => {
  it('versions', () => {
    const origin = url.replace(/\/v3$/, '');
    for (const [at, status, body] of [
      ['/', 300, 'versions'],
      ['/v3/', 200, 'version'],
    ] as const) {
      const { stdout } = spawnSync('curl', ['-s', '-w', '\n%{http_code}', `${origin}${at}`], { encoding: 'utf8' });
      const [text = '', code] = stdout.split('\n');
      expect([at, Number(code), Object.keys(JSON.parse(text) as object)]).toEqual([at, status, [body]]);
      const shown = JSON.parse(text)[body];
      has(at, body === 'versions' ? shown.values[0] : shown, 'id status updated links media-types');
    }
  });

  it('every noun that is made, shown, listed, changed and deleted', () => {
    const domain = noun(
      'domain',
      '/domains',
      'name enabled description',
      { name: 'd', description: 'x' },
      { enabled: false },
    );
    const domain_id = 'default';
    const project = noun(
      'project',
      '/projects',
      'name domain_id enabled description is_domain parent_id tags options',
      { name: 'p', domain_id, description: 'x', enabled: true, tags: ['t'] },
      { description: 'y' },
    );
    const user = noun(
      'user',
      '/users',
      'name domain_id enabled password_expires_at options',
      { name: 'u', domain_id, default_project_id: project, email: 'u@example.org', enabled: true },
      { description: 'y' },
    );
    noun(
      'group',
      '/groups',
      'name domain_id description',
      { name: 'g', domain_id, description: 'x' },
      { name: 'h' },
      false,
    );
    noun('role', '/roles', 'name domain_id description options', { name: 'r', description: 'x' }, { name: 's' }, false);
    const service = noun(
      'service',
      '/services',
      'type name enabled description',
      { type: 't', name: 'n', description: 'x', enabled: true },
      { name: 'm' },
    );
    noun(
      'endpoint',
      '/endpoints',
      'service_id region_id region interface url enabled',
      { service_id: service, interface: 'public', url: 'http://x', region_id: 'RegionOne', enabled: true },
      { url: 'http://y' },
      false,
    );
    noun(
      'region',
      '/regions',
      'description parent_region_id',
      { description: 'x', parent_region_id: 'RegionOne' },
      { description: 'y' },
      false,
    );
    for (const at of [`/users/${user}`, `/projects/${project}`, `/services/${service}`, `/domains/${domain}`])
      checked(`DELETE ${at}`, curl('DELETE', at), 204);
  });

  it('tokens', () => {
    const subject = [`X-Auth-Token: ${token}`, `X-Subject-Token: ${token}`];
    const shown = curl('GET', '/auth/tokens', undefined, subject);
    checked('GET /auth/tokens', shown, 200);
    expect(shown.headers['x-subject-token']).toBe(token);
    has('token', shown.body.token, 'methods user audit_ids issued_at expires_at roles project is_domain catalog');
    has('user', shown.body.token.user, 'id name domain password_expires_at');
    for (const time of [shown.body.token.issued_at, shown.body.token.expires_at])
      expect(time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/);
    has('endpoint', shown.body.token.catalog[0].endpoints[0], 'id interface region region_id url');
    checked('HEAD /auth/tokens', curl('HEAD', '/auth/tokens', undefined, subject), 200);
    for (const [path, key] of [
      ['/auth/catalog', 'catalog'],
      ['/auth/projects', 'projects'],
      ['/auth/domains', 'domains'],
      ['/auth/system', 'system'],
    ] as const) {
      const answer = curl('GET', path);
      checked(`GET ${path}`, answer, 200);
      has(path, answer.body, `${key} links`);
    }
    expect(curl('GET', '/auth/system').body.system).toEqual([{ all: true }]);
    const identity = { methods: ['token'], token: { id: token } };
    const second = curl('POST', '/auth/tokens', { auth: { identity } }, []);
    checked('POST /auth/tokens', second, 201);
    const other = second.headers['x-subject-token']!;
    const gone = [`X-Auth-Token: ${token}`, `X-Subject-Token: ${other}`];
    checked('DELETE /auth/tokens', curl('DELETE', '/auth/tokens', undefined, gone), 204);
    checked('DELETE /auth/tokens', curl('DELETE', '/auth/tokens', undefined, gone), 404);
    const refused = curl('GET', '/users', undefined, [`X-Auth-Token: ${other}`]);
    checked('GET /users', refused, 401);
    expect(refused.headers['www-authenticate']).toBe(`Keystone uri="${url.replace(/\/v3$/, '')}"`);
    expect(refused.body.error).toMatchObject({ code: 401, title: 'Unauthorized' });
  });

  it('what has no body: grants, memberships, tags, implied roles, passwords', () => {
    const make = (path: string, one: string, body: object) =>
      curl('POST', path, { [one]: body }).body[one].id as string;
    const user = make('/users', 'user', { name: 'someone', password: 'first' });
    const group = make('/groups', 'group', { name: 'some' });
    const project = make('/projects', 'project', { name: 'somewhere' });
    const [prior, implied] = ['prior', 'implied'].map((name) => make('/roles', 'role', { name }));
    const places = [`/projects/${project}`, '/domains/default', '/system'];
    const grants = places.flatMap((place) => [`${place}/users/${user}/roles`, `${place}/groups/${group}/roles`]);
    for (const grant of grants) {
      const one = `${grant}/${prior}`;
      checked(`HEAD ${one}`, curl('HEAD', one), 404);
      checked(`PUT ${one}`, curl('PUT', one), 204);
      checked(`HEAD ${one}`, curl('HEAD', one), 204);
      const listed = curl('GET', grant);
      checked(`GET ${grant}`, listed, 200);
      has(grant, listed.body, 'roles links');
      expect(listed.body.roles.map(({ id }: { id: string }) => id)).toEqual([prior]);
    }
    const assignments = curl('GET', `/role_assignments?user.id=${user}&include_names`);
    checked('GET /role_assignments', assignments, 200);
    expect(assignments.body.role_assignments).toHaveLength(3);
    for (const one of assignments.body.role_assignments) has('assignment', one, 'links role scope user');
    for (const grant of grants) {
      checked(`DELETE ${grant}`, curl('DELETE', `${grant}/${prior}`), 204);
      checked(`DELETE ${grant}`, curl('DELETE', `${grant}/${prior}`), 404);
    }
    const member = `/groups/${group}/users/${user}`;
    for (const [method, status] of [
      ['HEAD', 404],
      ['PUT', 204],
      ['HEAD', 204],
      ['DELETE', 204],
      ['HEAD', 404],
    ] as const)
      checked(`${method} ${member}`, curl(method, member), status);
    const tag = `/projects/${project}/tags/blue`;
    for (const [method, status] of [
      ['GET', 404],
      ['PUT', 201],
      ['GET', 204],
      ['DELETE', 204],
    ] as const)
      checked(`${method} ${tag}`, curl(method, tag), status);
    const tags = curl('PUT', `/projects/${project}/tags`, { tags: ['a', 'b'] });
    checked('PUT tags', tags, 200);
    expect(tags.body.tags).toEqual(['a', 'b']);
    checked('DELETE tags', curl('DELETE', `/projects/${project}/tags`), 204);
    const rule = `/roles/${prior}/implies/${implied}`;
    const made = curl('PUT', rule);
    checked(`PUT ${rule}`, made, 201);
    for (const role of [made.body.role_inference.prior_role, made.body.role_inference.implies])
      has('inference', role, 'id name links');
    checked(`HEAD ${rule}`, curl('HEAD', rule), 204);
    checked('GET /role_inferences', curl('GET', '/role_inferences'), 200);
    checked(`DELETE ${rule}`, curl('DELETE', rule), 204);
    const change = { user: { original_password: 'first', password: 'second' } };
    checked('POST password', curl('POST', `/users/${user}/password`, change), 204);
    checked('POST password', curl('POST', `/users/${user}/password`, change), 401);
  });

  it('application credentials, access rules and limits', () => {
    const { user, project } = curl('GET', '/auth/tokens', undefined, [
      `X-Auth-Token: ${token}`,
      `X-Subject-Token: ${token}`,
    ]).body.token;
    const at = `/users/${user.id}/application_credentials`;
    const rule = { path: '/v3/users', method: 'GET', service: 'identity' };
    const make = { name: 'c', description: 'x', access_rules: [rule] };
    const made = curl('POST', at, { application_credential: make });
    checked(`POST ${at}`, made, 201);
    const { secret, ...credential } = made.body.application_credential;
    has(at, credential, 'id name description project_id roles expires_at unrestricted access_rules links');
    has(at, credential.roles[0], 'id name domain_id');
    expect(secret).toMatch(/^[\w-]{20,}$/);
    const shown = curl('GET', `${at}/${credential.id}`);
    checked(`GET ${at}`, shown, 200);
    expect(shown.body.application_credential).toEqual(credential);
    checked(`DELETE ${at}`, curl('DELETE', `${at}/${credential.id}`), 204);
    const rules = curl('GET', `/users/${user.id}/access_rules`);
    checked('GET access_rules', rules, 200);
    expect(rules.body.access_rules).toEqual([expect.objectContaining(rule)]);
    const { id } = rules.body.access_rules[0];
    checked('GET access_rule', curl('GET', `/users/${user.id}/access_rules/${id}`), 200);
    checked('DELETE access_rule', curl('DELETE', `/users/${user.id}/access_rules/${id}`), 204);

    const registered = curl('GET', '/registered_limits');
    checked('GET /registered_limits', registered, 200);
    const [first] = registered.body.registered_limits;
    has('registered limit', first, 'id service_id region_id resource_name default_limit description links');
    const { service_id, resource_name } = first;
    const wanted = { service_id, resource_name, project_id: project.id, resource_limit: 10, description: 'x' };
    const limits = curl('POST', '/limits', { limits: [wanted] });
    checked('POST /limits', limits, 201);
    const [limit] = limits.body.limits;
    expect(limit).toMatchObject(wanted);
    has('limit', limit, 'id project_id domain_id service_id region_id resource_name resource_limit description links');
    const changed = curl('PATCH', `/limits/${limit.id}`, { limit: { resource_limit: 11 } });
    checked('PATCH /limits', changed, 200);
    expect(changed.body).toEqual({ limit: { ...limit, resource_limit: 11 } });
    const model = curl('GET', '/limits/model');
    checked('GET /limits/model', model, 200);
    has('model', model.body.model, 'name description');
    checked('DELETE /limits', curl('DELETE', `/limits/${limit.id}`), 204);
    checked('DELETE /registered_limits', curl('DELETE', `/registered_limits/${first.id}`), 204);
    const again = { service_id, resource_name, default_limit: 5 };
    checked('POST /registered_limits', curl('POST', '/registered_limits', { registered_limits: [again] }), 201);
  });

  it('errors', () => {
    for (const [method, path, body, status, title] of [
      ['POST', '/users', { user: {} }, 400, 'Bad Request'],
      ['GET', '/users/nosuch', undefined, 404, 'Not Found'],
      ['POST', '/roles', { role: { name: 'admin' } }, 409, 'Conflict'],
      ['DELETE', '/domains/default', undefined, 403, 'Forbidden'],
      ['GET', '/OS-TRUST/trusts', undefined, 404, 'Not Found'],
      ['POST', '/users', { user: { name: 'x'.repeat(120_000) } }, 413, 'Payload Too Large'],
    ] as const) {
      const answer = curl(method, path, body);
      expect([path, answer.status, answer.body]).toEqual([
        path,
        status,
        { error: { code: status, title, message: expect.stringMatching(/./) } },
      ]);
    }
    const none = curl('PUT', '/users');
    expect([none.status, none.headers.allow]).toEqual([405, 'GET, HEAD, POST']);
  });
});
