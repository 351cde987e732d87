/** The identity API as Debian's `openstack` client uses it, and what a crash and a restart leave of it. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ATOLL, Daemon } from '../../bench/daemon.ts';
import { World } from './lib/daemon.ts';

const OSC = path.join(import.meta.dirname, 'lib/osc.py');
/** loading the client takes seconds, each command half of one, on a machine that does nothing else */
const CLIENT_MS_MAX = 280_000;

type Env = Record<string, string>;
interface Ran {
  exit: number;
  out: string;
  err: string;
}

const world = new World();
let daemon: Daemon;
let admin: Env;
let demo: Env;
beforeAll(async () => {
  daemon = await world.start(['--http', '127.0.0.1:0', '--log-level', 'debug']);
  admin = await daemon.cli<Env>('openrc');
  demo = await daemon.cli<Env>('openrc', 'demo');
});
afterAll(() => world.end());

/** Runs commands of the client, each a list of words or a line without quotes, one after the other. */
function openstack(env: Env, ...commands: (string | string[])[]): Ran[] {
  const lines = commands.map((words) => JSON.stringify(typeof words === 'string' ? words.split(' ') : words));
  const { PATH = '', HOME = '' } = process.env;
  const ran = spawnSync('/usr/bin/python3', [OSC], {
    input: `${lines.join('\n')}\n`,
    encoding: 'utf8',
    env: { PATH, HOME, LC_ALL: 'C.UTF-8', ...env },
    timeout: CLIENT_MS_MAX,
  });
  const answers = ran.stdout.split('\n').filter((line) => line !== '');
  if (answers.length !== commands.length) throw new Error(`the client ended early: ${ran.stderr}`);
  return answers.map((line) => JSON.parse(line) as Ran);
}

/** The same, all of which have to work. @returns what each printed, which is JSON where it was asked for */
// biome-ignore lint/suspicious/noExplicitAny: what a test looks into is what it asserts
function works(env: Env, ...commands: (string | string[])[]): any[] {
  return openstack(env, ...commands).map(({ exit, out, err }, index) => {
    expect([commands[index], exit, err]).toEqual([commands[index], 0, expect.not.stringContaining('Traceback')]);
    return out.startsWith('{') || out.startsWith('[') ? JSON.parse(out) : out;
  });
}

const fetchAs = (token: string, route: string, init: RequestInit = {}) =>
  fetch(`${admin.OS_AUTH_URL}${route}`, {
    ...init,
    headers: { 'x-auth-token': token, 'content-type': 'application/json' },
  });

describe('the openstack client', { timeout: 300_000 }, () => {
  it('logs in as both, and finds the catalog where it logged in', () => {
    const [token, catalog, versions] = works(
      admin,
      'token issue -f json',
      'catalog list -f json',
      'versions show -f json',
    );
    expect(token.id).toMatch(/^[\w-]{186}$/);
    expect(catalog).toHaveLength(1);
    expect(catalog[0]).toMatchObject({ Name: 'keystone', Type: 'identity' });
    for (const endpoint of catalog[0].Endpoints) expect(`${endpoint.url}/v3`).toBe(admin.OS_AUTH_URL);
    expect(versions).toEqual([
      expect.objectContaining({ 'Service Type': 'identity', Version: '3.14', Status: 'CURRENT' }),
    ]);
    const [own, others] = openstack(demo, 'token issue -f json', 'user list');
    expect([own!.exit, others!.exit]).toEqual([0, 1]);
    const [project] = works(demo, `project show -f json ${JSON.parse(own!.out).project_id}`);
    expect(project).toMatchObject({ name: 'demo', domain_id: 'default' });
    expect(others!.err).toContain('not authorized to perform the requested action: identity:list_users. (HTTP 403)');
  });

  it('domains, projects, users and groups', () => {
    const [domain, , , project, , shown, user, , , users, , contains, groups] = works(
      admin,
      'domain create -f json d1 --description one',
      'domain set d1 --description two',
      'domain show -f json d1',
      'project create -f json p1 --domain d1 --tag a --tag b --property k=v',
      ['project', 'set', 'p1', '--domain', 'd1', '--tag', 'c', '--description', 'a project'],
      'project show -f json p1 --domain d1',
      'user create -f json u1 --domain d1 --password pw --email u@example.org --project p1',
      'user set u1 --domain d1 --disable',
      'user set u1 --domain d1 --enable --description x',
      'user list -f json --long --domain d1',
      'group create g1 --domain d1',
      'group add user g1 u1 --group-domain d1 --user-domain d1',
      'group list -f json --user u1 --user-domain d1',
    );
    expect(domain).toMatchObject({ name: 'd1', enabled: true, description: 'one' });
    expect(project).toMatchObject({ name: 'p1', domain_id: domain.id, parent_id: domain.id, tags: ['a', 'b'], k: 'v' });
    expect(shown).toMatchObject({ id: project.id, tags: ['a', 'b', 'c'], description: 'a project', k: 'v' });
    expect(user).toMatchObject({ email: 'u@example.org', default_project_id: project.id });
    expect(users).toEqual([
      expect.objectContaining({ Name: 'u1', Email: 'u@example.org', Enabled: true, Description: 'x' }),
    ]);
    expect(contains).toBe('');
    expect(groups).toEqual([expect.objectContaining({ Name: 'g1' })]);
    const [is] = works(admin, 'group contains user g1 u1 --group-domain d1 --user-domain d1');
    expect(is).toBe('u1 in group g1\n');
    const refused = openstack(admin, 'domain delete d1', 'project create p1 --domain d1', 'user show nosuch');
    expect(refused.map(({ exit }) => exit)).toEqual([1, 1, 1]);
    expect(refused[0]!.err).toContain('HTTP 403');
    expect(refused[1]!.err).toContain('HTTP 409');
  });

  it('roles, and who has which where, by name and in effect', () => {
    const [, , , , direct, effective, system] = works(
      admin,
      'role create r1',
      'role add --group g1 --group-domain d1 --project p1 --project-domain d1 manager',
      'role add --user u1 --user-domain d1 --domain d1 r1',
      'role add --user u1 --user-domain d1 --system all reader',
      'role assignment list -f json --names --project p1 --project-domain d1',
      'role assignment list -f json --names --effective --user u1 --user-domain d1',
      'role assignment list -f json --names --system all',
    );
    expect(direct).toEqual([expect.objectContaining({ Role: 'manager', Group: 'g1@d1', Project: 'p1@d1' })]);
    const rows = effective.map(
      (row: Record<string, string>) => `${row.Role} ${row.Project || row.Domain || row.System}`,
    );
    expect(rows.sort()).toEqual(['manager p1@d1', 'member p1@d1', 'r1 d1', 'reader all', 'reader p1@d1']);
    expect(system.map((row: Record<string, string>) => `${row.User} ${row.Role}`).sort()).toEqual([
      'admin@Default admin',
      'u1@d1 reader',
    ]);
    const reader = {
      OS_AUTH_URL: admin.OS_AUTH_URL!,
      OS_IDENTITY_API_VERSION: '3',
      OS_USERNAME: 'u1',
      OS_PASSWORD: 'pw',
      OS_USER_DOMAIN_NAME: 'd1',
      OS_SYSTEM_SCOPE: 'all',
    };
    const [list, made] = openstack(reader, 'user list -f json', 'user create u2');
    expect([list!.exit, made!.exit]).toEqual([0, 1]);
    works(admin, 'role remove --user u1 --user-domain d1 --system all reader', 'role delete r1');
    expect(openstack(reader, 'user list')[0]!.exit).toBe(1);
  });

  it('roles of one domain, and roles that imply others', async () => {
    const [made] = works(admin, 'role create -f json local --domain d1 --description here');
    expect(made).toMatchObject({ name: 'local', description: 'here' });
    const grant = '--user u1 --user-domain d1 --project p1 --project-domain d1 --role-domain d1 local';
    const assignments =
      'role assignment list -f json --names --user u1 --user-domain d1 --project p1 --project-domain d1';
    const [of, all, reader, , , , direct] = works(
      admin,
      'role list -f json --domain d1',
      'role list -f json',
      'role show -f json reader',
      'role set --domain d1 --name local1 local',
      'role set --domain d1 --name local local1',
      `role add ${grant}`,
      assignments,
    );
    expect(of.map(({ Name }: { Name: string }) => Name)).toEqual(['local']);
    expect(all.map(({ Name }: { Name: string }) => Name)).not.toContain('local');
    expect(direct).toEqual([expect.objectContaining({ Role: 'local', Project: 'p1@d1' })]);
    // The client finds no role of one domain to imply others.
    const { token } = await login();
    const implies = await fetchAs(token, `/roles/${made.id}/implies/${reader.id}`, { method: 'PUT' });
    expect(implies.status).toBe(201);
    const [, , inferences, worth] = works(
      admin,
      'role create r2',
      'implied role create --implied-role reader r2',
      'implied role list -f json',
      `${assignments} --effective`,
      'implied role delete --implied-role reader r2',
      'role delete r2',
      `role remove ${grant}`,
      'role delete --domain d1 local',
    );
    for (const name of ['local', 'r2'])
      expect(inferences).toContainEqual(
        expect.objectContaining({ 'Prior Role Name': name, 'Implied Role Name': 'reader' }),
      );
    const names = worth.map(({ Role }: { Role: string }) => Role);
    expect([names.includes('local'), names.includes('reader')]).toEqual([false, true]);
  });

  it('projects in projects, and inherited roles', () => {
    const [child, above, below, , inherited, effective] = works(
      admin,
      'project create -f json child --domain d1 --parent p1',
      'project show -f json child --domain d1 --parents',
      'project show -f json p1 --domain d1 --children',
      'role add --user u1 --user-domain d1 --project p1 --project-domain d1 --inherited reader',
      'role assignment list -f json --names --user u1 --user-domain d1 --project p1 --project-domain d1 --inherited',
      'role assignment list -f json --names --effective --user u1 --user-domain d1 --project child --project-domain d1',
    );
    expect(above.parents).toEqual({ [child.parent_id]: { [child.domain_id]: null } });
    expect(below.subtree).toEqual({ [child.id]: null });
    expect(inherited).toEqual([expect.objectContaining({ Role: 'reader', Project: 'p1@d1', Inherited: true })]);
    expect(effective).toEqual([expect.objectContaining({ Role: 'reader', Project: 'child@d1' })]);
    expect(openstack(admin, 'project delete p1 --domain d1')[0]!.err).toContain('HTTP 403');
    works(
      admin,
      'role remove --user u1 --user-domain d1 --project p1 --project-domain d1 --inherited reader',
      'project purge --project child --project-domain d1',
    );
    expect(openstack(admin, 'project show child --domain d1')[0]!.exit).toBe(1);
  });

  it('limits, which are the quotas that `atoll quota` shows', async () => {
    const [project, all, set, made, , one, listed] = works(
      admin,
      'project show -f json p1 --domain d1',
      'registered limit list -f json',
      'registered limit set -f json --default-limit 7 --description few volumes',
      'limit create -f json --project p1 --service keystone --resource-limit 3 --description ours images',
      'limit create --project p1 --service keystone --resource-limit 5 volume_bytes',
      'registered limit show -f json volumes',
      'limit list -f json --service keystone --resource-name images',
    );
    expect(all.map((row: Record<string, unknown>) => row['Resource Name']).sort()).toEqual(
      'containers image_bytes images object_bytes objects snapshots volume_bytes volumes'.split(' '),
    );
    expect(set).toMatchObject({ default_limit: 7, description: 'few', resource_name: 'volumes' });
    expect(one).toEqual(set);
    expect(made).toMatchObject({ project_id: project.id, resource_limit: 3, description: 'ours' });
    expect(listed).toEqual([expect.objectContaining({ ID: made.id, 'Project ID': project.id, 'Resource Limit': 3 })]);
    const limits = async () => {
      const { resources } = await daemon.cli<{ resources: { resource: string; limit: number | null; from: string }[] }>(
        ...['quota', 'show', project.id],
      );
      return Object.fromEntries(resources.map(({ resource, limit, from }) => [resource, `${limit} ${from}`]));
    };
    expect(await limits()).toMatchObject({ volumes: '7 default', images: '3 project', volume_bytes: '5 project' });
    await daemon.cli('quota', 'set', project.id, 'images=4');
    const [shown, changed] = works(
      admin,
      `limit show -f json ${made.id}`,
      `limit set -f json --resource-limit -1 ${made.id}`,
    );
    expect([shown.resource_limit, shown.description, changed.resource_limit]).toEqual([4, 'ours', -1]);
    expect((await limits()).images).toBe('null project');
    const refused = openstack(
      admin,
      'limit create --project p1 --service keystone --resource-limit 1 images',
      'limit create --project p1 --service keystone --resource-limit 1 cores',
      'registered limit delete images',
    );
    expect(refused.map(({ exit, err }) => [exit, /HTTP \d+/.exec(err)?.[0]])).toEqual([
      [1, 'HTTP 409'],
      [1, 'HTTP 400'],
      [1, 'HTTP 403'],
    ]);
    works(admin, `limit delete ${made.id}`, 'registered limit delete images');
    expect((await limits()).images).toBe('null null');
    const [again] = works(
      admin,
      'registered limit create -f json --service keystone --default-limit 100 images',
      'registered limit set --default-limit 100 volumes',
    );
    expect(again).toMatchObject({ id: 'images', default_limit: 100 });
    expect(openstack(demo, 'registered limit set --default-limit 1 volumes')[0]!.err).toContain('HTTP 403');
  });

  it('services, endpoints and regions', () => {
    const [, , , endpoints, regions, catalog] = works(
      admin,
      'service create --name vol --description volumes volumev3',
      'region create R2 --parent-region RegionOne --description second',
      ['endpoint', 'create', '--region', 'R2', 'volumev3', 'public', 'http://x.example/$(project_id)s'],
      'endpoint list -f json --service volumev3',
      'region list -f json',
      'catalog show -f json volumev3',
    );
    expect(endpoints).toEqual([
      expect.objectContaining({ Region: 'R2', Interface: 'public', URL: 'http://x.example/$(project_id)s' }),
    ]);
    expect(regions.map((row: Record<string, string>) => [row.Region, row['Parent Region']])).toEqual([
      ['R2', 'RegionOne'],
      ['RegionOne', null],
    ]);
    expect(catalog.endpoints[0].url).toMatch(/^http:\/\/x\.example\/[0-9a-f]{32}$/);
    const [used] = openstack(admin, 'region delete R2');
    expect(used!.err).toContain('HTTP 409');
    works(admin, 'service delete volumev3', 'region delete R2');
  });

  it('application credentials', () => {
    const [made, listed] = works(
      demo,
      'application credential create -f json robot',
      'application credential list -f json',
    );
    expect(listed).toEqual([expect.objectContaining({ Name: 'robot' })]);
    const robot = {
      OS_AUTH_URL: demo.OS_AUTH_URL!,
      OS_IDENTITY_API_VERSION: '3',
      OS_AUTH_TYPE: 'v3applicationcredential',
      OS_APPLICATION_CREDENTIAL_ID: made.id as string,
      OS_APPLICATION_CREDENTIAL_SECRET: made.secret as string,
    };
    const [token, another] = openstack(robot, 'token issue -f json', 'application credential create more');
    expect(JSON.parse(token!.out)).toMatchObject({ project_id: made.project_id, user_id: made.user_id });
    expect(another!.err).toContain('HTTP 403');
    works(demo, 'application credential delete robot');
    expect(openstack(robot, 'token issue')[0]!.err).toContain('HTTP 401');
  });

  it('access rules', () => {
    const rules = JSON.stringify([{ path: '/v3/auth/projects', method: 'GET', service: 'identity' }]);
    const [made, , listed] = works(
      demo,
      ['application', 'credential', 'create', '-f', 'json', 'narrow', '--access-rules', rules],
      'application credential delete narrow',
      'access rule list -f json',
    );
    expect(made.access_rules ?? made.accessRules).toBeDefined();
    expect(listed).toEqual([
      expect.objectContaining({ Path: '/v3/auth/projects', Method: 'GET', Service: 'identity' }),
    ]);
    const [shown] = works(demo, `access rule show -f json ${listed[0].ID}`, `access rule delete ${listed[0].ID}`);
    expect(shown).toMatchObject({ id: listed[0].ID, method: 'GET' });
    expect(works(demo, 'access rule list -f json')[0]).toEqual([]);
  });

  it('a password changed by its owner, and reset from the machine', async () => {
    works(demo, ['user', 'password', 'set', '--original-password', demo.OS_PASSWORD!, '--password', 'my own']);
    expect(openstack(demo, 'token issue')[0]!.err).toContain('HTTP 401');
    works({ ...demo, OS_PASSWORD: 'my own' }, 'token issue');
    const gone = spawnSync(ATOLL, ['openrc', 'demo', '--home', daemon.home], { encoding: 'utf8' });
    expect([gone.status, gone.stdout]).toEqual([3, '']);
    expect(gone.stderr).toMatch(/^atoll: [^\n]*`atoll passwd demo`[^\n]*\n$/);
    const { password } = await daemon.cli<{ password: string }>('passwd', 'demo');
    demo = await daemon.cli<Env>('openrc', 'demo');
    expect(demo.OS_PASSWORD).toBe(password);
    works(demo, 'token issue');
  });

  it('what is not there is said not to be', () => {
    for (const { exit, err } of openstack(admin, 'trust list', 'ec2 credentials list', 'identity provider list')) {
      expect([exit, err]).toEqual([1, expect.stringContaining('HTTP 404')]);
    }
  });
});

describe('the swift client', () => {
  it('of old logs in by TempAuth, with the token that all have', async () => {
    const at = new URL('/auth/v1.0', demo.OS_AUTH_URL!).href;
    const swift = (key: string) =>
      spawnSync('swift', ['-A', at, '-U', 'demo:demo', '-K', key, '--retries', '0', 'auth'], {
        encoding: 'utf8',
        env: { PATH: process.env.PATH ?? '' },
        timeout: CLIENT_MS_MAX,
      });
    const { status, stdout, stderr } = swift(demo.OS_PASSWORD!);
    expect([status, stderr]).toEqual([0, '']);
    const [, url] = /OS_STORAGE_URL=(\S+)/.exec(stdout) ?? [];
    const [, token] = /OS_AUTH_TOKEN=(\S+)/.exec(stdout) ?? [];
    const { projects } = (await (await fetchAs(token!, '/auth/projects')).json()) as { projects: { id: string }[] };
    expect(url).toBe(new URL(`/v1/AUTH_${projects[0]!.id}`, demo.OS_AUTH_URL!).href);
    const refused = swift('wrong');
    expect([refused.status, refused.stdout]).toEqual([1, '']);
    expect(refused.stderr).toMatch(/401/);
  });
});

describe('the daemon', () => {
  it('keeps what it acknowledged through kill -9, and tokens with it', async () => {
    const { token } = await login();
    const made = await fetchAs(token, '/users', { method: 'POST', body: JSON.stringify({ user: { name: 'kept' } }) });
    expect(made.status).toBe(201);
    await daemon.kill();
    // The port was the system's choice; the home is the same.
    await daemon.restart();
    admin = await daemon.cli<Env>('openrc');
    const { users } = (await (await fetchAs(token, '/users?name=kept')).json()) as { users: unknown[] };
    expect(users).toHaveLength(1);
  });

  it('shows its metrics to who may read them, and what can be asked to everybody', async () => {
    const { token } = await login();
    const at = (route: string) => new URL(route, admin.OS_AUTH_URL!);
    const metrics = await fetch(at('/metrics'), { headers: { 'x-auth-token': token } });
    expect([metrics.status, await metrics.text()]).toEqual([200, expect.stringMatching(/^atoll_/m)]);
    expect((await fetch(at('/metrics'))).status).toBe(401);
    expect(await (await fetch(at('/openapi.json'))).json()).toMatchObject({ openapi: '3.1.0' });
  });

  it('on a port that is taken: says so, and ends', () => {
    const { host } = new URL(admin.OS_AUTH_URL!);
    const ran = spawnSync(ATOLL, ['serve', '--home', world.file('taken'), '--http', host], { encoding: 'utf8' });
    expect(ran.status).toBe(4);
    expect(ran.stderr).toContain(`HTTP on ${host}: the address is in use; choose another with --http, or --http none`);
  });

  it('on another port where the default is taken, and nobody asked for one', async () => {
    const env = { ATOLL_HTTP: '' };
    const homes = [world.file('first'), world.file('second')];
    const daemons: Daemon[] = [];
    for (const home of homes) daemons.push(await Daemon.start(world.children, { home, env }));
    const urls = await Promise.all(daemons.map(async (one) => (await one.cli<Env>('openrc')).OS_AUTH_URL!));
    expect(new Set(urls).size).toBe(2);
    for (const url of urls) expect((await fetch(url)).status).toBe(200);
    for (const one of daemons) await one.stop();
  });

  it('without HTTP has no users to give passwords to', async () => {
    const other = await world.start();
    const ran = spawnSync(ATOLL, ['openrc', '--home', other.home], { encoding: 'utf8' });
    expect([ran.status, ran.stdout]).toEqual([3, '']);
    expect(fs.existsSync(path.join(other.home, 'cloud'))).toBe(false);
    await expect(other.http('POST', '/v1/passwords', { user: 'admin' })).rejects.toMatchObject({ code: 'UNSUPPORTED' });
    await expect(daemon.http('POST', '/v1/passwords', { user: 'admin' })).rejects.toMatchObject({ code: 'DENIED' });
  });

  it('speaks TLS with the certificate it was given', async () => {
    const [cert, key] = [world.file('cert.pem'), world.file('key.pem')];
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=IP:127.0.0.1'];
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
    await world.run('openssl', 'req', '-x509', ...kind, ...subject, '-out', cert, '-keyout', key);
    const other = await world.start(['--http', '127.0.0.1:0', '--tls-cert', cert, '--tls-key', key]);
    const openrc = await other.cli<Env>('openrc');
    expect(openrc.OS_AUTH_URL).toMatch(/^https:\/\/127\.0\.0\.1:\d+\/identity\/v3$/);
    works({ ...openrc, OS_CACERT: cert }, 'token issue');
    expect(openstack(openrc, 'token issue')[0]!.err).toMatch(/SSL|certificate/);
    for (const argv of [
      ['--tls-cert', cert],
      ['--tls-cert', cert, '--tls-key', cert],
      ['--tls-cert', cert, '--tls-key', world.file('none')],
    ]) {
      const ran = spawnSync(ATOLL, ['serve', '--home', world.file('tls'), '--http', '127.0.0.1:0', ...argv], {
        encoding: 'utf8',
      });
      expect([ran.status, ran.stderr.split('\n').filter((line) => line.startsWith('atoll: ')).length]).toEqual([
        argv.includes(world.file('none')) ? 3 : 2,
        1,
      ]);
    }
  });

  it('says where users reach it, when that is elsewhere', async () => {
    const other = await world.start(['--http', '127.0.0.1:0', '--public-url', 'https://cloud.example.org/']);
    const { sockets } = await other.http<{ sockets: { http: string } }>('GET', '/v1/status');
    expect(sockets.http).toBe('https://cloud.example.org');
    expect((await other.cli<Env>('openrc')).OS_AUTH_URL).toBe('https://cloud.example.org/identity/v3');
  });

  it('has logged no password and no token', async () => {
    const { token } = await login();
    const text = fs.readFileSync(daemon.log, 'utf8');
    expect(text).toContain('path=/identity/v3/auth/tokens');
    for (const secret of [admin.OS_PASSWORD!, demo.OS_PASSWORD!, token]) expect(text).not.toContain(secret);
  });
});

async function login(): Promise<{ token: string }> {
  const domain = { id: 'default' };
  const user = { name: admin.OS_USERNAME, domain, password: admin.OS_PASSWORD };
  const scope = { project: { name: admin.OS_PROJECT_NAME, domain } };
  const body = JSON.stringify({ auth: { identity: { methods: ['password'], password: { user } }, scope } });
  const answer = await fetch(`${admin.OS_AUTH_URL}/auth/tokens`, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json' },
  });
  return { token: answer.headers.get('x-subject-token')! };
}
