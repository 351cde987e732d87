/** A PostgreSQL of its own for a test file: in a temporary folder, on a unix socket, ended with the process. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const VERSIONS = '/usr/lib/postgresql';
const START_MS_MAX = 60_000;

function binaries(): string | null {
  if (!fs.existsSync(VERSIONS)) return null;
  const found = fs.readdirSync(VERSIONS).filter((name) => fs.existsSync(path.join(VERSIONS, name, 'bin', 'initdb')));
  const newest = found.sort((a, b) => Number(b) - Number(a))[0];
  return newest === undefined ? null : path.join(VERSIONS, newest, 'bin');
}

const isRoot = process.getuid?.() === 0;
/** PostgreSQL refuses to be root. */
const asUser = isRoot ? ['setpriv', '--reuid=postgres', '--regid=postgres', '--clear-groups'] : [];

/** why the tests on it cannot run; null: they can */
export const WITHOUT_POSTGRES =
  binaries() === null ? `there is no PostgreSQL in ${VERSIONS} (Debian: postgresql); its tests are skipped` : null;
if (WITHOUT_POSTGRES !== null) console.warn(WITHOUT_POSTGRES);

export class Cluster {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-pg-'));
  #server: ChildProcess | null = null;
  #databases = 0;
  readonly #onExit = () => void this.#server?.kill('SIGQUIT');

  async start(): Promise<void> {
    if (isRoot) execFileSync('chown', ['postgres:postgres', this.dir]);
    const data = path.join(this.dir, 'data');
    this.#run(
      'initdb',
      '-D',
      data,
      '-U',
      'postgres',
      '-A',
      'scram-sha-256',
      '--pwfile',
      this.#passwordFile(),
      '-N',
      '-E',
      'UTF8',
    );
    await this.begin();
  }

  /** Starts the server, again perhaps. */
  async begin(): Promise<void> {
    const data = path.join(this.dir, 'data');
    const [command = '', ...argv] = [
      ...asUser,
      path.join(binaries()!, 'postgres'),
      ...['-D', data, '-k', this.dir, '-c', 'listen_addresses=', '-c', 'fsync=off', '-c', 'max_connections=50'],
    ];
    this.#server = spawn(command, argv, { stdio: 'ignore' });
    process.once('exit', this.#onExit);
    const until = Date.now() + START_MS_MAX;
    for (;;) {
      try {
        await this.query('postgres', 'SELECT 1');
        return;
      } catch (error) {
        if (this.#server.exitCode !== null || Date.now() > until) throw error;
        await sleep(50);
      }
    }
  }

  async kill(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    process.removeListener('exit', this.#onExit);
    if (!server || server.exitCode !== null) return;
    const ended = once(server, 'exit');
    // immediately, without a word to clients
    server.kill('SIGQUIT');
    await ended;
  }

  async stop(): Promise<void> {
    await this.kill();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /** @returns the URL of a new, empty database */
  async database(): Promise<string> {
    const name = `d${++this.#databases}`;
    await this.query('postgres', `CREATE DATABASE ${name}`);
    return this.url(name);
  }

  url(database: string, password = PASSWORD): string {
    return `postgres://postgres:${password}@localhost/${database}?host=${encodeURIComponent(this.dir)}`;
  }

  query(database: string, text: string): Promise<Record<string, unknown>[]> {
    return queryPostgres(this.url(database), text);
  }

  #passwordFile(): string {
    const file = path.join(this.dir, 'password');
    fs.writeFileSync(file, PASSWORD);
    if (isRoot) execFileSync('chown', ['postgres:postgres', file]);
    return file;
  }

  #run(tool: string, ...argv: string[]): void {
    const [command = '', ...rest] = [...asUser, path.join(binaries()!, tool), ...argv];
    execFileSync(command, rest, { stdio: ['ignore', 'ignore', 'inherit'] });
  }
}

/** By a connection of its own; whole numbers as numbers. */
export async function queryPostgres(url: string, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  client.setTypeParser(pg.types.builtins.INT8, Number);
  client.on('error', () => undefined);
  await client.connect();
  try {
    return (await client.query(text)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

export const PASSWORD = 'a-password-nobody-should-see';
