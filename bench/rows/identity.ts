/**
 * Identity: tokens issued and validated, a GET while others write, and what the daemon takes in memory; beside Keystone where that is
 * installed. Requests are the same for both.
 */
import { randomUUID } from 'node:crypto';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import { byPassword, byToken, IdentityClient, type IdentityServer, type Load, load } from '../identity-client.ts';
import { KEYSTONE, keystoneObstacle, startKeystone } from '../peers/keystone.ts';
import { ATOLL } from '../peers/server.ts';
import { cpuSeconds, proportionalBytes } from '../proc.ts';
import { newRow, pairedFact, type RowResult, type Sample } from '../result.ts';
import { MIB } from '../size.ts';
import { nearestRank, rotate } from '../stats.ts';
import type { Row } from './row.ts';

const CONNECTIONS = 8;
const WRITERS = 4;
/** between two reads of one client that is not in a hurry */
const READ_PAUSE_MS = 2;

const ISSUE = 'token-issue';
const ISSUE_BY_TOKEN = 'token-issue-by-token';
const VALIDATE = 'token-validate';
const GET_QUIET = 'identity-get';
const GET_LOAD = 'identity-get-load';
const MEMORY = 'identity-memory';

const BENCH_USER = { name: 'bench', password: 'bench-password', project: 'bench' };

/** One that is measured, with a user in a project. */
interface Contender {
  name: string;
  server: IdentityServer;
  client: IdentityClient;
  admin: string;
  userId: string;
}

export const identity: Row = {
  ids: [ISSUE, ISSUE_BY_TOKEN, VALIDATE, GET_QUIET, GET_LOAD, MEMORY],
  async *run(bench, wanted): AsyncIterable<RowResult> {
    const { contenders, missing } = await start(bench);
    const memory = newRow(MEMORY, 'memory of the identity service', 'MiB', 'lower');
    try {
      await measureMemory(memory, contenders, 'started');
      for (const make of ROWS) {
        const row = make.row();
        if (!wanted(row.id)) continue;
        bench.say(`${row.id}: ${row.title}`);
        for (const note of missing) row.notes.push(note);
        await compare(bench, row, contenders, make.measure);
        pairedFact(row, `atoll_over_${KEYSTONE}`, ATOLL, KEYSTONE);
        yield row;
      }
      await measureMemory(memory, contenders, 'after the other rows');
      memory.notes.push('proportional set size of all its processes', ...missing);
      if (wanted(MEMORY)) yield memory;
    } finally {
      for (const { client, server } of contenders) {
        client.close();
        await server.end();
      }
    }
  },
};

interface Measured {
  row(): RowResult;
  measure(one: Contender, seconds: number, row: RowResult): Promise<{ value: number; requests: number }>;
}

const ROWS: readonly Measured[] = [
  {
    row: () => newRow(ISSUE, `tokens issued by password, ${CONNECTIONS} connections`, 'tokens/s'),
    measure: async ({ client }, seconds) =>
      rate(await load(CONNECTIONS, seconds, async () => (await client.login(BENCH_USER)) !== '')),
  },
  {
    row: () => newRow(ISSUE_BY_TOKEN, `tokens issued by token, ${CONNECTIONS} connections`, 'tokens/s'),
    measure: async ({ client }, seconds) => {
      const body = byToken(await client.login(BENCH_USER), BENCH_USER.project);
      const issue = () => client.expect(201, 'POST', '/auth/tokens', {}, body);
      return rate(await load(CONNECTIONS, seconds, async () => (await issue()).token !== null));
    },
  },
  {
    row: () => newRow(VALIDATE, `tokens validated, ${CONNECTIONS} connections`, 'validations/s'),
    measure: async ({ client, admin }, seconds) => {
      const headers = { 'x-auth-token': admin, 'x-subject-token': await client.login(BENCH_USER) };
      const validate = () => client.expect(200, 'GET', '/auth/tokens', headers);
      return rate(await load(CONNECTIONS, seconds, async () => (await validate()).body.token !== undefined));
    },
  },
  {
    row: () => newRow(GET_QUIET, 'p99 of GET of a user, one client', 'ms', 'lower'),
    measure: async (one, seconds) => p99(await reads(one, seconds)),
  },
  {
    row: () =>
      newRow(GET_LOAD, `p99 of GET of a user while ${WRITERS} clients make and delete projects`, 'ms', 'lower'),
    measure: async (one, seconds, row) => {
      let over = false;
      const writing = load(
        WRITERS,
        seconds * 10,
        // one whose connection ends is counted, and hinders nobody
        () => write(one).catch(() => false),
        () => over,
      );
      const found = await reads(one, seconds).finally(() => {
        over = true;
      });
      const written = await writing;
      row.facts[`${one.name}_writes_per_second`] = (2 * written.done) / written.seconds;
      if (written.failed > 0) row.facts[`${one.name}_writes_failed`] = written.failed;
      return p99(found);
    },
  },
];

function rate({ done, seconds }: Load): { value: number; requests: number } {
  return { value: done / seconds, requests: done };
}

function p99({ latencies }: Load): { value: number; requests: number } {
  return { value: nearestRank(latencies, 0.99), requests: latencies.length };
}

/** Without the pause, of each. */
async function reads({ server, admin, userId }: Contender, seconds: number): Promise<Load> {
  const client = new IdentityClient(server.url, 1);
  const found: Load = { done: 0, failed: 0, seconds, latencies: [] };
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    const began = performance.now();
    await client.expect(200, 'GET', `/users/${userId}`, { 'x-auth-token': admin });
    found.latencies.push(performance.now() - began);
    await sleep(READ_PAUSE_MS);
  }
  client.close();
  return found;
}

/** Keystone on SQLite may say that the database is locked: that is counted. */
async function write({ client, admin }: Contender): Promise<boolean> {
  const headers = { 'x-auth-token': admin };
  const made = await client.ask('POST', '/projects', headers, { project: { name: `p-${randomUUID()}` } });
  if (made.status !== 201) return false;
  return (await client.ask('DELETE', `/projects/${made.body.project.id}`, headers)).status === 204;
}

async function compare(
  bench: Bench,
  row: RowResult,
  contenders: readonly Contender[],
  measure: Measured['measure'],
): Promise<void> {
  const samples = new Map(contenders.map(({ name }) => [name, [] as Sample[]]));
  for (let round = 0; round < bench.options.rounds; round++) {
    for (const one of rotate(contenders, round)) {
      const used = () => one.server.pids().reduce((sum, pid) => sum + cpuSeconds(pid), 0);
      const before = used();
      const { value, requests } = await measure(one, bench.options.runtimeSeconds, row);
      samples.get(one.name)!.push({ value, cpuPerMillion: ((used() - before) / requests) * 1e6 });
    }
    const last = [...samples].map(([name, list]) => `${name} ${list[list.length - 1]!.value.toPrecision(4)}`);
    bench.say(`  round ${round + 1}/${bench.options.rounds}  ${last.join('  ')}`);
  }
  for (const [name, list] of samples) row.series.push({ name, samples: list });
}

async function measureMemory(row: RowResult, contenders: readonly Contender[], when: string): Promise<void> {
  for (const { name, server } of contenders) {
    const bytes = server.pids().reduce((sum, pid) => sum + proportionalBytes(pid), 0);
    row.series.push({ name: `${name}, ${when}`, samples: [{ value: bytes / MIB, cpuPerMillion: null }] });
  }
}

async function start(bench: Bench): Promise<{ contenders: Contender[]; missing: string[] }> {
  const contenders: Contender[] = [];
  const missing: string[] = [];
  if (bench.wants(ATOLL)) contenders.push(await contender(ATOLL, await startAtoll(bench)));
  const obstacle = bench.wants(KEYSTONE) ? keystoneObstacle() : `${KEYSTONE} is not wanted`;
  if (obstacle === null) contenders.push(await contender(KEYSTONE, await startKeystone(bench, await freePort())));
  else {
    missing.push(obstacle);
    bench.say(`identity: without ${KEYSTONE}: ${obstacle}`);
  }
  return { contenders, missing };
}

async function startAtoll(bench: Bench): Promise<IdentityServer> {
  const { daemon, end } = await bench.ownDaemon(['--http', '127.0.0.1:0']);
  const openrc = await daemon.cli<Record<string, string>>('openrc');
  const admin = { name: openrc.OS_USERNAME!, password: openrc.OS_PASSWORD!, project: openrc.OS_PROJECT_NAME! };
  return { url: openrc.OS_AUTH_URL!, admin, pids: () => [daemon.pid], end };
}

async function contender(name: string, server: IdentityServer): Promise<Contender> {
  const client = new IdentityClient(server.url, CONNECTIONS);
  const admin = await client.login(server.admin);
  const headers = { 'x-auth-token': admin };
  const made = async (path: string, body: object) => (await client.expect(201, 'POST', path, headers, body)).body;
  const { project } = await made('/projects', { project: { name: BENCH_USER.project } });
  const { name: user, password } = BENCH_USER;
  const { id } = (await made('/users', { user: { name: user, password } })).user;
  const { roles } = (await client.expect(200, 'GET', '/roles?name=member', headers)).body;
  await client.expect(204, 'PUT', `/projects/${project.id}/users/${id}/roles/${roles[0].id}`, headers);
  // What comes with the first of each is over.
  await client.expect(201, 'POST', '/auth/tokens', {}, byPassword(BENCH_USER));
  return { name, server, client, admin, userId: id };
}

async function freePort(): Promise<number> {
  const server = net.createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as net.AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
