/** A daemon that is watched: metrics over both ways, `atoll top`, and ids in its log. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import { NbdClient } from '../../src/control/nbd/client.ts';
import { type Family, parsePage, sampleOr, sampleValue } from '../control/metrics-page.ts';
import { World } from './lib/daemon.ts';

const world = new World();
let daemon: Daemon;
beforeAll(async () => {
  daemon = await world.start(['--metrics', '127.0.0.1:0', '--log-json', '--log-level', 'debug']);
});
afterAll(() => world.end());

function get(at: http.RequestOptions | string): Promise<{ text: string; id: string; type: string }> {
  return new Promise((resolve, reject) => {
    const request = http.get(at as http.RequestOptions, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('end', () => {
        const { 'x-request-id': id, 'content-type': type } = response.headers;
        resolve({ text, id: String(id), type: String(type) });
      });
    });
    request.once('error', reject);
  });
}

const overSocket = () => get({ socketPath: daemon.controlSocket, path: '/metrics' });
const metrics = async (): Promise<Map<string, Family>> => parsePage((await overSocket()).text);

async function grown(name: string, labels: Record<string, string>, before: Map<string, Family>): Promise<number> {
  // a route that was never asked for has no series yet
  const value = (families: Map<string, Family>) =>
    name === 'atoll_control_requests_total'
      ? (sampleOr(families, name, labels) ?? 0)
      : sampleValue(families, name, labels);
  const was = value(before);
  for (let tries = 0; tries < 500; tries++) {
    const more = value(await metrics()) - was;
    if (more > 0) return more;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return 0;
}

describe('metrics', () => {
  it('move when work is done', async () => {
    const before = await metrics();
    await daemon.createVolume('moves', 64 << 20);
    const nbd = await NbdClient.connect({ socket: daemon.nbdSocket, exportName: 'moves' });
    for (let i = 0; i < 8; i++) await nbd.write(i << 20, Buffer.alloc(1 << 16, i + 1));
    await nbd.flush();
    await nbd.read(0, 4096);
    await daemon.snapshot('moves', 's');
    for (const [name, labels] of [
      ['atoll_requests_total', { path: 'waited' }],
      ['atoll_request_wait_seconds_count', { op: 'write' }],
      ['atoll_io_total', { direction: 'write' }],
      ['atoll_io_bytes_total', { direction: 'read' }],
      ['atoll_fault_records_total', {}],
      ['atoll_fault_seconds_count', { kind: 'write' }],
      ['atoll_fault_seconds_sum', { kind: 'flush' }],
      ['atoll_mapper_busy_seconds_total', {}],
      ['atoll_mapper_batch_records_sum', {}],
      ['atoll_commits_total', {}],
      ['atoll_commit_seconds_count', {}],
      ['atoll_commit_pages_sum', {}],
      ['atoll_store_transaction_seconds_sum', {}],
      ['atoll_store_sync_seconds_count', {}],
      ['atoll_data_sync_seconds_count', {}],
      ['atoll_pool_slots_total', { pool: 'local', event: 'taken' }],
      ['atoll_pool_used_bytes', { pool: 'local' }],
      ['atoll_snapshots', {}],
      ['atoll_nbd_connections', {}],
      ['atoll_open_resources', {}],
      ['atoll_control_requests_total', { route: 'POST /v1/volumes', status: '201' }],
    ] as [string, Record<string, string>][]) {
      expect(await grown(name, labels, before), `${name} ${JSON.stringify(labels)}`).toBeGreaterThan(0);
    }
    await nbd.close();
    await daemon.deleteVolume('moves');
    expect(await grown('atoll_pool_slots_total', { pool: 'local', event: 'freed' }, before)).toBeGreaterThan(0);
    expect(await grown('atoll_pool_slots_total', { pool: 'local', event: 'zeroed' }, before)).toBeGreaterThan(0);
    expect(await grown('atoll_freed_pages_total', {}, before)).toBeGreaterThan(0);
    expect(sampleValue(await metrics(), 'atoll_failed_volumes')).toBe(0);
    expect(sampleValue(await metrics(), 'atoll_log_lines_total', { level: 'error' })).toBe(0);
  });

  it('are the same over TCP, where the daemon says', async () => {
    const { sockets } = await daemon.http<{ sockets: { metrics: string } }>('GET', '/v1/status');
    expect(sockets.metrics).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
    const names = (families: Map<string, Family>) => [...families.keys()].sort();
    const tcp = await get(sockets.metrics);
    expect(names(parsePage(tcp.text))).toEqual(names(await metrics()));
    expect(tcp.type).toBe((await overSocket()).type);
  });

  it.each(['0.0.0.0:0', '[::]:0', '192.0.2.1:9187', 'example.org:9187'])('are not served on %s', (address) => {
    const ran = spawnSync(ATOLL, ['serve', '--home', world.file('refused'), '--metrics', address], {
      encoding: 'utf8',
    });
    expect(ran.status).toBe(2);
    expect(ran.stderr).toMatch(/^atoll: [^\n]*(loopback)[^\n]*\n$/);
    expect(fs.existsSync(world.file('refused'))).toBe(false);
  });

  it('on a port that is taken: the daemon says so, and leaves nothing behind', async () => {
    const { sockets } = await daemon.http<{ sockets: { metrics: string } }>('GET', '/v1/status');
    const { host } = new URL(sockets.metrics);
    const home = world.file('taken');
    const ran = spawnSync(ATOLL, ['serve', '--home', home, '--metrics', host], { encoding: 'utf8' });
    expect(ran.status).toBe(4);
    expect(ran.stderr).toContain(`metrics on ${host}: the address is in use`);
    expect(fs.readdirSync(home).filter((name) => name.endsWith('.sock'))).toEqual([]);
  });
});

describe('atoll top --once --json', () => {
  it('says what is going on, and with which volumes', async () => {
    await daemon.createVolume('busy', 64 << 20);
    const nbd = await NbdClient.connect({ socket: daemon.nbdSocket, exportName: 'busy' });
    let going = true;
    const load = (async () => {
      for (let i = 0; going; i = (i + 1) % 256) {
        await nbd.write(i << 16, Buffer.alloc(4096, 7));
        await nbd.read(i << 16, 4096);
        if (i % 32 === 0) await nbd.flush();
      }
    })();
    try {
      // Until the reactor has handed over what it counts: it does so when it sleeps.
      for (let tries = 0; ; tries++) {
        const seen = await daemon.cli<TopJson>('top', '--once', '--interval', '0.5');
        const [first] = seen.open;
        if (first!.readsPerSecond > 0 && first!.writesPerSecond > 0 && seen.dataSyncs.perSecond > 0) {
          expect(seen.requests.perSecond).toBeGreaterThan(0);
          expect(seen.requests.connections).toBe(1);
          expect(first).toMatchObject({ name: 'busy', connections: 1 });
          expect(seen.intervalSeconds).toBeGreaterThanOrEqual(0.5);
          expect(seen.dataSyncs.p50Ms).toBeGreaterThan(0);
          expect(seen.pools).toEqual([expect.objectContaining({ name: 'local' })]);
          break;
        }
        expect(tries).toBeLessThan(50);
      }
    } finally {
      going = false;
      await load;
      await nbd.close();
    }
  });

  it('is refused as a live look where there is no terminal', () => {
    const ran = spawnSync(ATOLL, ['top', '--home', daemon.home], { encoding: 'utf8' });
    expect([ran.status, ran.stdout]).toEqual([2, '']);
    expect(ran.stderr).toMatch(/^atoll: [^\n]*--once\n$/);
  });
});

interface TopJson {
  intervalSeconds: number;
  requests: { perSecond: number; connections: number };
  dataSyncs: { perSecond: number; p50Ms: number };
  pools: { name: string }[];
  open: { name: string; connections: number; readsPerSecond: number; writesPerSecond: number }[];
}

describe('the log', () => {
  it('has the id that the answer has', async () => {
    const { id } = await overSocket();
    const lineOf = () =>
      fs
        .readFileSync(daemon.log, 'utf8')
        .split('\n')
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line) as { request?: string })
        .find(({ request }) => request === id);
    for (let tries = 0; tries < 3000 && !lineOf(); tries++) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(lineOf()).toMatchObject({ msg: 'request', method: 'GET', path: '/metrics', status: 200 });
  });
});
