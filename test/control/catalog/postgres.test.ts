/** What only a catalog in PostgreSQL has: its lock, its refusals, its death; and identity on it. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import { CATALOG_STEPS, CATALOG_VERSION } from '../../../src/control/catalog/migrations.ts';
import { parseCatalogUrl, shownPlace } from '../../../src/control/catalog/place.ts';
import { openPostgresWriter } from '../../../src/control/catalog/postgres.ts';
import type { Change } from '../../../src/control/catalog/types.ts';
import { Cloud, inProject } from '../../frontends/http/cloud.ts';
import { inProcess } from '../in-process.ts';
import { CatalogFolder, demoProject } from './folder.ts';
import { Cluster, PASSWORD, WITHOUT_POSTGRES } from './postgres.ts';
import * as rows from './rows.ts';

const ATOLL = new URL('../../../bin/atoll', import.meta.url).pathname;

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    expect((error as Error).message).not.toContain('secret');
    return (error as { code: string }).code;
  }
  return 'none';
};

describe('the URL', () => {
  it('is one of a database, and has a password only where nobody else reads it', () => {
    const open = 'postgres://atoll@db.example/atoll';
    const closed = 'postgres://atoll:secret@db.example/atoll';
    expect(parseCatalogUrl(open, false)).toBe(open);
    expect(parseCatalogUrl(closed, true)).toBe(closed);
    const withQuery = 'postgresql:///atoll?host=/run/postgresql&password=secret';
    expect(parseCatalogUrl(withQuery, true)).toBe(withQuery);
    for (const text of [
      closed,
      withQuery,
      'mysql://atoll:secret@db/atoll',
      'postgres://db.example',
      'postgres://db/',
      'x',
    ])
      expect([text, codeOf(() => parseCatalogUrl(text, false))]).toEqual([text, 'INVALID']);
    expect(codeOf(() => parseCatalogUrl('mysql://atoll:secret@db/atoll', true))).toBe('INVALID');
  });

  it('is shown without who and how', () => {
    const url = 'postgres://atoll:secret@db.example:5433/atoll?sslpassword=secret';
    expect(shownPlace({ kind: 'postgres', url })).toBe('postgres://db.example:5433/atoll');
  });
});

describe.skipIf(WITHOUT_POSTGRES !== null)('a catalog in PostgreSQL', () => {
  const cluster = new Cluster();
  const ends: (() => Promise<void>)[] = [];
  beforeAll(() => cluster.start(), 120_000);
  afterAll(async () => {
    for (const end of ends) await end();
    await cluster.stop();
  });
  const folder = (url: string) => {
    const made = new CatalogFolder('.', url);
    ends.push(() => made.end());
    return made;
  };
  const failure = async (at: CatalogFolder): Promise<{ code?: string; message: string }> => {
    const error = (await at
      .open()
      .start()
      .then(
        () => ({ message: 'it opened' }),
        (thrown: Error) => thrown,
      )) as { code?: string; message: string };
    expect(error.message).not.toContain(PASSWORD);
    expect(at.deaths).toEqual([]);
    return error;
  };

  it('is one daemon’s: a second one is refused until the first has gone', async () => {
    const url = await cluster.database();
    const first = folder(url).open();
    await first.start();
    expect(await failure(folder(url))).toMatchObject({
      code: 'HELD',
      message: expect.stringMatching(/another daemon/),
    });
    await first.close();
    await folder(url).open().start();
  });

  it('keeps what it has, in a home that is new too', async () => {
    const url = await cluster.database();
    const at = folder(url);
    const first = at.open();
    await first.write([
      { do: 'insert', table: 'region', row: { id: 'kept', description: '', parent_region_id: null, extra: '{}' } },
    ]);
    await first.close();
    const other = folder(url);
    const again = await other.open().reader();
    expect(await again.selectFrom('region').select('id').orderBy('id').execute()).toEqual([
      { id: 'RegionOne' },
      { id: 'kept' },
    ]);
    expect(JSON.parse(fs.readFileSync(path.join(at.folder, 'openrc.json'), 'utf8')).users.admin.password).toMatch(
      /^\w{24}$/,
    );
    expect(fs.existsSync(path.join(other.folder, 'openrc.json'))).toBe(false);
    expect(fs.existsSync(path.join(at.folder, 'catalog.db'))).toBe(false);
  });

  describe('a backup of it', () => {
    /** What each table has, of a catalog in a file. */
    const contentOf = (file: string) => {
      const db = new Database(file, { readonly: true });
      const tables = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        .pluck()
        .all() as string[];
      const content = tables.map((name) => {
        const all = db
          .prepare(`SELECT * FROM "${name}"`)
          .all()
          .map((row) => JSON.stringify(row));
        return [name, all.sort()];
      });
      const state = [db.pragma('user_version', { simple: true }), db.pragma('integrity_check', { simple: true })];
      db.close();
      return { state, content: Object.fromEntries(content) as Record<string, string[]> };
    };
    const region = (id: string, parent_region_id: string | null = null) =>
      ({ do: 'insert', table: 'region', row: { id, description: '', parent_region_id, extra: '{}' } }) as const;
    const backupOf = async (catalog: LocalCatalog, to: string, meanwhile = async (): Promise<void> => undefined) => {
      await catalog.backup(path.join(to, 'cloud'), meanwhile);
      return path.join(to, 'cloud', 'catalog.db');
    };
    const recover = (home: string, from: string, url?: string) =>
      inProcess({ home }, ['recover', '--from', from, '--json'], url === undefined ? {} : { ATOLL_CATALOG: url });

    it('is a file as any catalog’s, of one moment, whatever is written meanwhile; and goes back into either', {
      timeout: 240_000,
    }, async () => {
      const at = folder(await cluster.database());
      const catalog = at.open();
      const { projectId } = await demoProject(catalog);
      // More than one read takes, names that name others of the table, each table; and texts as they are.
      await catalog.write(Array.from({ length: 1201 }, (_, n) => region(`r${n}`, n === 0 ? null : `r${n - 1}`)));
      for (const [table, row] of rows.oneOfEach(projectId))
        await catalog.write([{ do: 'insert', table, row } as unknown as Change]);
      await catalog.quotas.reserve({ projectId, userId: null }, { volumes: 1 });
      let late: Promise<void> | null = null;
      const file = await backupOf(catalog, path.join(at.dir, 'one'), async () => {
        late = catalog.write([region('late')]);
      });
      await late;
      await catalog.close();
      expect(fs.statSync(file).mode & 0o777).toBe(0o600);
      expect(fs.readdirSync(path.dirname(file)).sort()).toEqual(['catalog.db', 'openrc.json']);
      const made = contentOf(file);
      expect(made.state).toEqual([CATALOG_VERSION, 'ok']);
      expect([made.content.region!.length, made.content.region!.join().includes('late')]).toEqual([1202, false]);
      expect(made.content.volume).toHaveLength(1);
      expect(await at.select('SELECT count(*) AS n FROM region')).toEqual([{ n: 1203 }]);

      // Into another database, and from there again: what was in it, and nothing else.
      const url = await cluster.database();
      const home = path.join(at.dir, 'h');
      const done = await recover(home, path.join(at.dir, 'one'), url);
      expect([done.exit, done.err, JSON.parse(done.out)]).toEqual([0, '', { home, catalog: true }]);
      expect(fs.readdirSync(path.join(home, 'cloud')).sort()).toEqual(['openrc.json']);
      const other = new CatalogFolder('h', url);
      ends.push(() => other.end());
      const again = other.open();
      await again.reader();
      const copied = contentOf(await backupOf(again, path.join(at.dir, 'two')));
      await again.close();
      // The start released what the run before had reserved.
      for (const content of [made.content, copied.content])
        for (const table of ['holding', 'commission', 'provision']) delete content[table];
      expect(copied).toEqual(made);
      // It has one now.
      expect(await recover(home, path.join(at.dir, 'one'), url)).toMatchObject({
        exit: 4,
        err: expect.stringMatching(/has a catalog; use an empty database/),
      });
      // Into a file.
      const files = path.join(at.dir, 'f');
      expect((await recover(files, path.join(at.dir, 'one'))).exit).toBe(0);
      expect(contentOf(path.join(files, 'cloud', 'catalog.db')).content.region).toEqual(made.content.region);
    });

    it('that fails leaves nothing held up; a database of others, or none, takes none', {
      timeout: 240_000,
    }, async () => {
      const at = folder(await cluster.database());
      const catalog = at.open();
      await catalog.start();
      const failing = async () => {
        throw new Error('the store is full');
      };
      await expect(catalog.backup(path.join(at.dir, 'x'), failing)).rejects.toThrow('the store is full');
      fs.writeFileSync(path.join(at.dir, 'taken'), '');
      await expect(catalog.backup(path.join(at.dir, 'taken', 'cloud'), async () => undefined)).rejects.toThrow();
      await catalog.write([region('goes on')]);
      const file = await backupOf(catalog, path.join(at.dir, 'one'));
      expect(contentOf(file).content.region!.join()).toContain('goes on');
      const theirs = folder(await cluster.database());
      await theirs.select('CREATE TABLE photos (id INTEGER)');
      for (const [url, says] of [
        [theirs.url!, /is no catalog of Atoll/],
        [cluster.url('nowhere'), /does not exist/],
        [at.url!, /has a catalog/],
      ] as const) {
        const ran = await recover(path.join(at.dir, 'h'), path.join(at.dir, 'one'), url);
        expect([ran.exit === 0, ran.err]).toEqual([false, expect.stringMatching(says)]);
        expect(ran.err).not.toContain(PASSWORD);
      }
      // One that is damaged leaves the database as it was, for another.
      const empty = folder(await cluster.database()).url!;
      const half = path.join(at.dir, 'half', 'cloud');
      fs.mkdirSync(half, { recursive: true });
      fs.writeFileSync(path.join(half, 'catalog.db'), 'x'.repeat(4096));
      expect((await recover(path.join(at.dir, 'h'), path.join(at.dir, 'half'), empty)).exit).toBe(4);
      expect(fs.readdirSync(path.join(at.dir, 'h', 'cloud'))).toEqual([]);
      expect((await recover(path.join(at.dir, 'h'), path.join(at.dir, 'one'), empty)).exit).toBe(0);
      expect(at.deaths).toEqual([]);
    });
  });

  it('is not put among other tables, and not read when it is newer', async () => {
    const theirs = await cluster.database();
    const at = folder(theirs);
    await at.select('CREATE TABLE photos (id INTEGER)');
    expect(await failure(at)).toMatchObject({ code: 'NOT_OURS' });
    const newer = folder(await cluster.database());
    const first = newer.open();
    await first.start();
    await first.close();
    await newer.select(`UPDATE atoll_catalog SET version = ${CATALOG_VERSION + 1}`);
    expect(await failure(newer)).toMatchObject({ code: 'FORMAT_NEWER' });
  });

  it.each(CATALOG_STEPS.map(({ to }) => to))(
    'of version %i is brought to this one, with what is in it',
    async (version) => {
      const url = await cluster.database();
      const old = await openPostgresWriter(url, () => undefined, CATALOG_STEPS.slice(0, version));
      await old.destroy();
      const at = folder(url);
      for (const text of [
        "INSERT INTO region VALUES ('kept', '', NULL, '{}')",
        "INSERT INTO domain VALUES ('default', 'Default', '', 1, 0, '{}')",
        "INSERT INTO project VALUES ('p', 'demo', 'default', NULL, '', 1, 0, '{}')",
        `INSERT INTO "user" VALUES ('u', 'demo', 'default', NULL, 1, NULL, NULL, NULL, 0, '{}')`,
        "INSERT INTO role VALUES ('r', 'member', NULL, '{}')",
        "INSERT INTO assignment (id, user_id, project_id, role_id) VALUES ('a', 'u', 'p', 'r')",
      ])
        await at.select(text);
      const catalog = at.open();
      const db = await catalog.reader();
      expect(await db.selectFrom('region').select('id').execute()).toEqual([{ id: 'kept' }]);
      expect(await db.selectFrom('assignment').select(['user_id', 'inherited']).execute()).toEqual([
        { user_id: 'u', inherited: 0 },
      ]);
      await catalog.quotas.within({ projectId: 'p', userId: 'u' }, { volumes: 1 }, async () => ({
        result: 0,
        changes: [{ do: 'insert', table: 'volume', row: rows.volume('p') }],
      }));
      expect(await at.select('SELECT version FROM atoll_catalog')).toEqual([{ version: CATALOG_VERSION }]);
      expect(await at.select('SELECT used FROM holding WHERE user_id IS NULL')).toEqual([{ used: 1 }]);
    },
  );

  it('says what is wrong, without the password', async () => {
    await cluster.database();
    const wrong = await failure(folder(cluster.url('d1', 'another-password')));
    expect(wrong).toMatchObject({ code: 'IO', message: expect.stringMatching(/password authentication failed/) });
    expect(wrong.message).not.toContain('another-password');
    expect(await failure(folder(cluster.url('nowhere')))).toMatchObject({
      message: expect.stringMatching(/does not exist/),
    });
  });

  it('whose writing connection is lost is given up: what was told it last may not be there', async () => {
    const at = folder(await cluster.database());
    const catalog = at.open();
    await catalog.start();
    await at.select("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'");
    await expect.poll(() => at.deaths, { timeout: 20_000 }).toHaveLength(1);
    await expect(catalog.write([])).rejects.toMatchObject({ code: 'IO' });
  });

  it('serves identity: who logs in, what is listed in which order, what is refused', async () => {
    const cloud = await new Cloud(await cluster.database()).open();
    ends.push(() => cloud.end());
    const token = await cloud.admin();
    const make = (name: string) => cloud.call('POST', '/users', { token, body: { user: { name, password: 'x' } } });
    for (const name of ['b', 'a', 'B', 'ä']) expect((await make(name)).status).toBe(201);
    expect((await make('a')).status).toBe(409);
    const names = async (query: string) =>
      (await cloud.call('GET', `/users${query}`, { token })).body.users.map((one: { name: string }) => one.name);
    expect((await names('')).sort()).toEqual(['B', 'a', 'admin', 'b', 'demo', 'ä']);
    const pages = [];
    for (let next: string | null = '/users?limit=2'; next !== null; ) {
      const { body } = await cloud.call('GET', next, { token });
      pages.push(...body.users.map(({ id }: { id: string }) => id));
      next = body.links.next && new URL(body.links.next).pathname + new URL(body.links.next).search;
    }
    expect(pages).toEqual([...pages].sort());
    expect(new Set(pages).size).toBe(6);
    expect((await make('a\u0000b')).status).toBe(400);
    expect((await cloud.call('GET', '/users?name=a%00b', { token })).status).toBeLessThan(500);
    const { body } = await cloud.call('GET', '/role_assignments?include_names=true', { token });
    expect(body.role_assignments.length).toBeGreaterThan(2);
    expect((await cloud.login('demo', 'wrong')).status).toBe(401);
    // What is inherited and implied, rules of credentials, and the administrator who stays.
    const [admin, reader] = [await cloud.idOf('users', 'admin', token), await cloud.idOf('roles', 'reader', token)];
    const heir = await cloud.idOf('users', 'a', token);
    const grant = `/OS-INHERIT/domains/default/users/${heir}/roles/${reader}/inherited_to_projects`;
    expect((await cloud.call('PUT', grant, { token })).status).toBe(204);
    const own = await cloud.token('a', 'x', inProject('demo'));
    const { projects } = (await cloud.call('GET', '/auth/projects', { token: own })).body;
    expect(projects.map((one: { name: string }) => one.name).sort()).toEqual(['admin', 'demo']);
    expect((await cloud.call('GET', '/role_inferences', { token })).body.role_inferences).toHaveLength(3);
    const access_rules = [{ service: 'identity', method: 'GET', path: '/v3/users' }];
    const credential = { application_credential: { name: 'c', access_rules } };
    const credentials = `/users/${admin}/application_credentials`;
    const made = await cloud.call('POST', credentials, { token, body: credential });
    const [rule] = made.body.application_credential.access_rules;
    expect((await cloud.call('DELETE', `/users/${admin}/access_rules/${rule.id}`, { token })).status).toBe(403);
    expect((await cloud.call('DELETE', `/users/${admin}`, { token })).status).toBe(403);
    // Roles of one domain, projects in projects, limits, and what a project is deleted with.
    const ask = async (method: string, url: string, body?: unknown) => cloud.call(method, url, { token, body });
    const local = await cloud.make('roles', 'role', { name: 'reader', domain_id: 'default' }, token);
    expect((await ask('GET', '/roles?domain_id=default')).body.roles.map(({ id }: { id: string }) => id)).toEqual([
      local,
    ]);
    const top = await cloud.make('projects', 'project', { name: 'top' }, token);
    const leaf = await cloud.make('projects', 'project', { name: 'leaf', parent_id: top }, token);
    await ask('PUT', `/projects/${leaf}/users/${heir}/roles/${local}`);
    const tree = (query: string) => ask('GET', `/role_assignments?scope.project.id=${top}&include_subtree&${query}`);
    expect((await tree('')).body.role_assignments).toHaveLength(1);
    expect((await tree('effective')).body.role_assignments).toHaveLength(2);
    expect((await ask('GET', `/projects/${top}?subtree_as_ids`)).body.project.subtree).toEqual({ [leaf]: null });
    const [first] = (await ask('GET', '/registered_limits')).body.registered_limits;
    const { service_id, resource_name } = first;
    const limit = { service_id, resource_name, project_id: leaf, resource_limit: Number.MAX_SAFE_INTEGER };
    expect((await ask('POST', '/limits', { limits: [limit] })).status).toBe(201);
    expect((await ask('GET', '/limits')).body.limits).toEqual([expect.objectContaining(limit)]);
    expect((await ask('DELETE', `/projects/${top}`)).status).toBe(403);
    for (const id of [top, leaf]) await ask('PATCH', `/projects/${id}`, { project: { enabled: false } });
    expect((await ask('DELETE', `/projects/${top}?cascade`)).status).toBe(204);
    expect((await ask('GET', '/limits')).body.limits).toEqual([]);
    expect(cloud.logged.filter((line) => line.startsWith('error') || line.startsWith('fatal'))).toEqual([]);
  });

  it('is the daemon’s by --catalog, with the password elsewhere: in no command line, no log', {
    timeout: 120_000,
  }, async () => {
    const home = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-pg-home-'));
    ends.push(async () => fs.rmSync(home, { recursive: true, force: true }));
    const url = await cluster.database();
    const open = url.replace(`:${PASSWORD}`, '');
    const argv = ['serve', '--home', home, '--http', '127.0.0.1:0', '--log-level', 'debug', '--catalog', open];
    const daemon = spawn(ATOLL, argv, {
      env: { ...process.env, PGPASSWORD: PASSWORD },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let said = '';
    for (const stream of [daemon.stdout, daemon.stderr]) stream.on('data', (chunk) => (said += String(chunk)));
    const ended = once(daemon, 'exit');
    await expect.poll(() => said, { timeout: 100_000 }).toMatch(/^ready: /m);
    expect(fs.readFileSync(`/proc/${daemon.pid}/cmdline`, 'utf8')).not.toContain(PASSWORD);
    const openrc = JSON.parse(fs.readFileSync(path.join(home, 'cloud', 'openrc.json'), 'utf8'));
    const user = { name: 'admin', domain: { id: 'default' }, password: openrc.users.admin.password };
    const answer = await fetch(`${openrc.url}/identity/v3/auth/tokens`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ auth: { identity: { methods: ['password'], password: { user } } } }),
    });
    expect(answer.status).toBe(201);
    const second = spawnSync(ATOLL, ['serve', '--home', `${home}/2`, '--http', '127.0.0.1:0', '--catalog', open], {
      env: { ...process.env, PGPASSWORD: PASSWORD },
      encoding: 'utf8',
    });
    expect([second.status, second.stderr]).toEqual([4, expect.stringMatching(/held by another daemon/)]);
    daemon.kill('SIGTERM');
    expect((await ended)[0]).toBe(0);
    expect(said).not.toContain(PASSWORD);
  });
});
