/** Runs tempest's tests of the identity API against a daemon: its configuration, the accounts it is given, and what it says. */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';

const RUN = path.join(import.meta.dirname, 'run.py');
/** Debian's; what pip brings is somewhere else */
const PYTHON = '/usr/bin/python3';

export interface Outcome {
  test: string;
  outcome: 'pass' | 'fail' | 'skip';
  why: string;
}

/** The lines of a list that is kept beside this file, without comments. */
export function listed(file: string): string[] {
  const text = fs.readFileSync(path.join(import.meta.dirname, file), 'utf8');
  return text.split('\n').flatMap((line) => line.split('#', 1)[0]!.trim() || []);
}

export function hasTempest(): boolean {
  return spawnSync(PYTHON, ['-c', 'import tempest']).status === 0;
}

/** What `atoll openrc` prints. */
export type Env = Record<string, string>;

interface Account {
  name: string;
  password: string;
  role: string;
}

/** Makes two users with a project each, which is what tempest wants besides an administrator, and writes its files. */
export async function prepare(folder: string, admin: Env): Promise<void> {
  const users: Account[] = ['tempest-1', 'tempest-2'].map((name) => ({ name, password: `${name} pw`, role: 'member' }));
  const call = await caller(admin);
  const { roles } = (await call('GET', '/roles?name=member')) as { roles: { id: string }[] };
  for (const { name, password } of users) {
    const { project } = (await call('POST', '/projects', { project: { name } })) as { project: { id: string } };
    const { user } = (await call('POST', '/users', { user: { name, password } })) as { user: { id: string } };
    await call('PUT', `/projects/${project.id}/users/${user.id}/roles/${roles[0]!.id}`);
  }
  const accounts = [{ name: admin.OS_USERNAME!, password: admin.OS_PASSWORD!, role: 'admin' }, ...users];
  fs.writeFileSync(path.join(folder, 'accounts.yaml'), JSON.stringify(accounts.map(shownAccount)));
  fs.writeFileSync(path.join(folder, 'tempest.conf'), configuration(folder, admin));
}

/** JSON is YAML. */
function shownAccount({ name, password, role }: Account) {
  const types = role === 'admin' ? { types: ['admin'] } : {};
  return { username: name, project_name: name, domain_name: 'Default', password, roles: [role], ...types };
}

function configuration(folder: string, admin: Env): string {
  const url = admin.OS_AUTH_URL!;
  const sections = {
    DEFAULT: { log_dir: folder, log_file: 'tempest.log', use_stderr: false },
    oslo_concurrency: { lock_path: path.join(folder, 'locks') },
    auth: { use_dynamic_credentials: false, test_accounts_file: path.join(folder, 'accounts.yaml') },
    identity: { auth_version: 'v3', uri_v3: url, region: 'RegionOne', v3_endpoint_type: 'public' },
    'identity-feature-enabled': {
      api_v2: false,
      api_v2_admin: false,
      trust: false,
      application_credentials: true,
      access_rules: true,
      project_tags: true,
      api_extensions: 'OS-INHERIT',
    },
    service_available: { cinder: false, glance: false, neutron: false, nova: false, swift: false },
  };
  return Object.entries(sections)
    .map(([name, options]) => {
      const lines = Object.entries(options).map(([option, value]) => `${option} = ${value}\n`);
      return `[${name}]\n${lines.join('')}`;
    })
    .join('\n');
}

/** Runs all there are. @throws when tempest itself ends otherwise than by having run them */
export async function runTempest(folder: string, msMax: number): Promise<Outcome[]> {
  const { PATH = '' } = process.env;
  const env = { PATH, HOME: folder, LC_ALL: 'C.UTF-8', TEMPEST_CONFIG_DIR: folder };
  const child = spawn(PYTHON, [RUN], { cwd: folder, env, stdio: ['ignore', 'pipe', 'pipe'], timeout: msMax });
  const errors: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
  const ended = new Promise<number | null>((resolve, reject) => child.once('error', reject).once('close', resolve));
  const outcomes: Outcome[] = [];
  for await (const line of createInterface({ input: child.stdout })) outcomes.push(JSON.parse(line) as Outcome);
  const status = await ended;
  if (status !== 0) throw new Error(`tempest ended with ${status}: ${Buffer.concat(errors).toString().slice(-2000)}`);
  return outcomes;
}

/** Calls the API as the administrator. */
async function caller(admin: Env) {
  const domain = { id: 'default' };
  const user = { name: admin.OS_USERNAME, domain, password: admin.OS_PASSWORD };
  const scope = { project: { name: admin.OS_PROJECT_NAME, domain } };
  const auth = { identity: { methods: ['password'], password: { user } }, scope };
  const headers: Record<string, string> = { 'content-type': 'application/json' };
  const call = (method: string, route: string, body?: unknown) =>
    fetch(`${admin.OS_AUTH_URL}${route}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) });
  headers['x-auth-token'] = (await call('POST', '/auth/tokens', { auth })).headers.get('x-subject-token')!;
  return async (method: string, route: string, body?: unknown): Promise<unknown> => {
    const answer = await call(method, route, body);
    if (!answer.ok) throw new Error(`${method} ${route}: ${answer.status} ${await answer.text()}`);
    return answer.status === 204 ? null : answer.json();
  };
}
