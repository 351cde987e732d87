/**
 * OpenStack's Keystone as its documentation sets it up, by uWSGI with a process for each core, but on SQLite. It is measured where
 * Debian's `python3-keystone`, `uwsgi-core` and `uwsgi-plugin-python3` are installed, and no part of Atoll.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import { IdentityClient, type IdentityServer } from '../identity-client.ts';

export const KEYSTONE = 'keystone';

/** Debian's own, whatever comes first in PATH. */
const PYTHON = '/usr/bin/python3';
const START_MS_MAX = 60_000;
const POLL_MS = 100;
const PASSWORD = 'bench-admin';

/** Why it cannot be measured here, or null. */
export function keystoneObstacle(): string | null {
  const has = spawnSync(PYTHON, ['-c', 'import keystone.cmd.manage'], { stdio: 'ignore' }).status === 0;
  if (!has) return 'keystone is not installed (Debian: python3-keystone)';
  const uwsgi = spawnSync('uwsgi', ['--plugins', 'python3', '--version'], { stdio: 'ignore' }).status === 0;
  return uwsgi ? null : 'uwsgi is not installed (Debian: uwsgi-core, uwsgi-plugin-python3)';
}

export async function startKeystone(bench: Bench, port: number): Promise<IdentityServer> {
  const dir = bench.file('keystone');
  fs.mkdirSync(dir);
  const at = (name: string) => path.join(dir, name);
  fs.writeFileSync(
    at('keystone.conf'),
    `[DEFAULT]
log_file = ${at('keystone.log')}
[database]
connection = sqlite:///${at('keystone.db')}
[token]
provider = fernet
[fernet_tokens]
key_repository = ${at('fernet-keys')}
[credential]
key_repository = ${at('credential-keys')}
`,
  );
  const url = `http://127.0.0.1:${port}/v3`;
  const manage = (...argv: string[]) =>
    bench.children.run(PYTHON, [
      ...['-c', 'import sys; from keystone.cmd.manage import main; sys.exit(main())'],
      ...['--config-file', at('keystone.conf'), ...argv],
    ]);
  const us = ['--keystone-user', String(process.getuid?.()), '--keystone-group', String(process.getgid?.())];
  await manage('db_sync');
  await manage('fernet_setup', ...us);
  await manage('credential_setup', ...us);
  const urls = ['public', 'internal', 'admin'].flatMap((face) => [`--bootstrap-${face}-url`, url]);
  await manage('bootstrap', '--bootstrap-password', PASSWORD, ...urls, '--bootstrap-region-id', 'RegionOne');
  const log = fs.openSync(at('uwsgi.log'), 'a');
  const child = bench.children.spawn(
    'uwsgi',
    [
      ...['--plugins', 'python3', '--module', 'keystone.server.wsgi:initialize_public_application()'],
      // A kept connection would keep a process.
      ...['--http-socket', `127.0.0.1:${port}`, '--add-header', 'Connection: close'],
      ...['--master', '--lazy-apps', '--need-app', '--die-on-term', '--disable-logging'],
      ...['--processes', String(availableParallelism()), '--buffer-size', '65535', '--post-buffering', '65535'],
    ],
    { stdio: ['ignore', log, log], env: { ...process.env, OS_KEYSTONE_CONFIG_FILES: at('keystone.conf') } },
  );
  fs.closeSync(log);
  const client = new IdentityClient(url, 1);
  const deadline = Date.now() + START_MS_MAX;
  while (!(await client.expect(200, 'GET', '').catch(() => null))) {
    if (child.finished || Date.now() > deadline)
      throw new Error(`keystone did not start: ${fs.readFileSync(at('uwsgi.log'), 'utf8').trim().slice(-500)}`);
    await sleep(POLL_MS);
  }
  client.close();
  return {
    url,
    admin: { name: 'admin', password: PASSWORD, project: 'admin' },
    pids: () => [child.pid, ...childrenOf(child.pid)],
    end: async () => {
      await child.stop();
      fs.rmSync(dir, { recursive: true, force: true });
    },
  };
}

function childrenOf(pid: number): number[] {
  const text = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}
