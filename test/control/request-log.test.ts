import http from 'node:http';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { openLog } from '../../src/control/log.ts';
import type { Metrics } from '../../src/control/metrics/metrics.ts';
import { EngineError } from '../../src/xseg/types.ts';
import { FakeEngine } from './fake-engine.ts';
import { parsePage, sampleOr, sampleValue } from './metrics-page.ts';
import { type ServedApi, serveApi } from './served-api.ts';

let served: ServedApi;
let socket: string;
let metrics: Metrics;
const engine = new FakeEngine();
let lines: string[] = [];

beforeAll(async () => {
  const log = openLog({ json: true, level: 'debug', write: (line) => lines.push(line) });
  served = await serveApi(engine, { log });
  ({ socket, metrics } = served);
});
beforeEach(() => {
  engine.reset();
  lines = [];
});
afterAll(() => served.end());

interface Line {
  level: number;
  msg: string;
  request?: string;
  [field: string]: unknown;
}

const DEBUG = 20;
const INFO = 30;
const ERROR = 50;

const logged = (): Line[] => lines.map((line) => JSON.parse(line) as Line);

/** The line comes when the answer has left, which the client may see before. */
async function lineOf(id: string): Promise<Line> {
  for (let tries = 0; tries < 500; tries++) {
    const found = logged().find(({ msg, request }) => msg === 'request' && request === id);
    if (found) return found;
    await sleep(10);
  }
  throw new Error(`no line of ${id}`);
}

function call(
  method: string,
  url: string,
  body?: string,
  type = 'application/json',
): Promise<{ id: string; status: number }> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-type': type };
    const request = http.request({ socketPath: socket, method, path: url, agent: false, headers });
    request.once('error', reject);
    request.once('response', (response) => {
      response.resume();
      const id = String(response.headers['x-request-id']);
      response.once('end', () => resolve({ id, status: response.statusCode ?? 0 }));
    });
    request.end(body);
  });
}

describe('a request', () => {
  it('has an id of its own in its answer and in one line of the log', async () => {
    const first = await call('POST', '/v1/volumes', '{"name":"v","size":512}');
    const second = await call('POST', '/v1/volumes', '{"name":"v","size":512}');
    expect(first.id).toMatch(/^[0-9a-f]{8}-\d+$/);
    expect(second.id).not.toBe(first.id);
    const line = await lineOf(first.id);
    expect(line).toMatchObject({ level: INFO, method: 'POST', path: '/v1/volumes', status: 201 });
    expect(line.ms).toBeGreaterThanOrEqual(0);
    expect(await lineOf(second.id)).toMatchObject({ level: INFO, status: 409, code: 'EXISTS' });
    expect(logged()).toHaveLength(2);
  });

  it('that only looks is not for everybody to read of', async () => {
    expect(await lineOf((await call('GET', '/v1/status')).id)).toMatchObject({ level: DEBUG, status: 200 });
    expect(await lineOf((await call('GET', '/metrics')).id)).toMatchObject({ level: DEBUG, status: 200 });
    expect(await lineOf((await call('GET', '/v1/volumes/none')).id)).toMatchObject({ level: DEBUG, code: 'NOT_FOUND' });
  });

  it.each([
    ['a route that is not there', 'GET', '/v1/nonsense', undefined, 404],
    ['a body that is none', 'POST', '/v1/volumes', '{', 400],
    ['a body of a kind that is not taken', 'POST', '/v1/volumes', 'x', 415],
    ['a path that cannot be decoded', 'GET', '/v1/volumes/%zz', undefined, 400],
    ['an answer without a body', 'DELETE', '/v1/volumes/v', undefined, 204],
    ['an answer in lines', 'POST', '/v1/check', '{}', 200],
  ])('has one also for %s', async (_what, method, url, body, status) => {
    await engine.createVolume({ name: 'v', size: 512 });
    const answer = await call(method, url, body, status === 415 ? 'text/xml' : undefined);
    expect(answer.status).toBe(status);
    expect(await lineOf(answer.id)).toMatchObject({ method, status });
  });

  it('does not take an id from the client', async () => {
    const id = await new Promise((resolve, reject) => {
      const request = http.get({
        socketPath: socket,
        path: '/v1/pools',
        headers: { 'x-request-id': 'mine', 'request-id': 'mine' },
      });
      request.once('error', reject);
      request.once('response', (response) => {
        response.resume();
        resolve(response.headers['x-request-id']);
      });
    });
    expect(id).toMatch(/^[0-9a-f]{8}-\d+$/);
  });
});

describe('an error', () => {
  it('of ours is logged once, as an error, with its cause', async () => {
    engine.failures.set('createVolume', new TypeError('a bug'));
    const bug = await call('POST', '/v1/volumes', '{"name":"v","size":512}');
    expect(bug.status).toBe(500);
    const line = await lineOf(bug.id);
    expect(line).toMatchObject({ level: ERROR, code: 'INTERNAL', message: 'a bug' });
    expect(line.stack).toMatch(/TypeError: a bug\n/);
    engine.failures.set('createVolume', new EngineError('IO', 'the disk is gone'));
    const disk = await lineOf((await call('POST', '/v1/volumes', '{"name":"v","size":512}')).id);
    expect(disk).toMatchObject({ level: ERROR, code: 'IO', message: 'the disk is gone' });
    expect(disk).not.toHaveProperty('stack');
    expect(lines).toHaveLength(2);
  });

  it('that comes after the answer has begun is logged, too', async () => {
    engine.failures.set('check', new Error('half way'));
    const check = await call('POST', '/v1/check', '{}');
    expect(check.status).toBe(200);
    expect(await lineOf(check.id)).toMatchObject({ level: ERROR, status: 200, code: 'INTERNAL', message: 'half way' });
    expect(lines).toHaveLength(1);
  });
});

describe('secrets', () => {
  it('stay out: no query, no body, no header', async () => {
    await call('GET', '/v1/volumes?token=hunter2');
    await call('DELETE', '/v1/volumes/v?sig=hunter2');
    const made = await call('POST', '/v1/volumes', '{"name":"v","size":512,"password":"hunter2"}');
    await lineOf(made.id);
    expect(lines.join('')).not.toContain('hunter2');
    expect(lines.join('')).toContain('"path":"/v1/volumes"');
  });
});

describe('what else is logged while a request is served', () => {
  it('has its id, also far below and with a body that took its time', async () => {
    await engine.createVolume({ name: 'v', size: 512 });
    // A transfer that cannot be made takes back what it began, and says so.
    engine.failures.set('clone', new EngineError('NO_SPACE', 'full'));
    engine.failures.set('deleteSnapshot', new EngineError('IO', 'cannot'));
    const body = '{"kind":"onto","volume":"v"}';
    const head = `POST /v1/transfers HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`;
    const client = net.connect(socket);
    client.write(head + body.slice(0, 5));
    await sleep(20);
    client.write(body.slice(5));
    let answer = '';
    for await (const chunk of client) answer += String(chunk);
    const id = /^x-request-id: (\S+)\r$/m.exec(answer)![1]!;
    expect(await lineOf(id)).toMatchObject({ status: 507, code: 'NO_SPACE' });
    expect(logged().find(({ msg }) => msg === 'transfer.leftover')).toMatchObject({ request: id, message: 'cannot' });
  });
});

describe('a client that does not wait', () => {
  it('is told of', async () => {
    await engine.createVolume({ name: 'v', size: 512 });
    const request = http.request({
      ...{ socketPath: socket, method: 'POST', path: '/v1/transfers', agent: false },
      headers: { 'content-type': 'application/json' },
    });
    request.end('{"kind":"read","volume":"v"}');
    const id = await new Promise<string>((resolve, reject) => {
      request.once('error', reject);
      request.once('response', (response) => {
        response.on('error', () => undefined);
        response.resume();
        resolve(String(response.headers['x-request-id']));
      });
    });
    request.destroy();
    expect(await lineOf(id)).toMatchObject({ path: '/v1/transfers', gone: true });
  });
});

describe('metrics of requests', () => {
  it('are by route and status, whatever is in the path', async () => {
    const before = parsePage(await metrics.page());
    for (let i = 0; i < 20; i++) await call('GET', `/v1/volumes/none-${i}`);
    const last = await call('GET', '/nowhere/at/all');
    await lineOf(last.id);
    const after = parsePage(await metrics.page());
    const shown = { route: 'GET /v1/volumes/:volume', status: '404' };
    const count = (families: typeof after) => sampleOr(families, 'atoll_control_requests_total', shown) ?? 0;
    expect(count(after) - count(before)).toBe(20);
    expect(sampleValue(after, 'atoll_control_requests_total', { route: 'none', status: '404' })).toBeGreaterThan(0);
    expect(sampleValue(after, 'atoll_control_request_seconds_count')).toBeGreaterThanOrEqual(21);
  });
});
