/** The control API over a real unix socket, on an engine that only keeps names. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Api } from '../../src/control/api/context.ts';
import { BODY_BYTES_MAX, buildApi } from '../../src/control/api/server.ts';
import { ERRORS, isErrorCode } from '../../src/control/errors.ts';
import { Ingests } from '../../src/control/ingests.ts';
import { Mounts } from '../../src/control/mounts.ts';
import { Transfers } from '../../src/control/transfers.ts';
import { EngineError, type EngineErrorCode } from '../../src/xseg/types.ts';
import { FakeEngine, metricsOf } from './fake-engine.ts';

/** short, so that a test can wait for it */
const INGEST_BODY_BYTES = 256 * 1024;
const REQUEST_MS = 1500;

let folder: string;
let socket: string;
let engine: FakeEngine;
let transfers: Transfers;
let app: Api;
let logged: string[];
let routes: string[];

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'atoll-api-'));
  socket = path.join(folder, 'control.sock');
  engine = new FakeEngine();
  logged = [];
  const log = (level: string, event: string, fields: Record<string, unknown>) => {
    logged.push(`${level} ${event} ${JSON.stringify(fields)}`);
  };
  transfers = new Transfers(engine, log);
  routes = [];
  const sockets = () => ({ control: socket, nbd: ['unix:/fake/nbd.sock'], metrics: null });
  app = buildApi(
    {
      engine,
      transfers,
      mounts: new Mounts(engine, '/fake', log),
      ingests: new Ingests(engine, true),
      log,
      metrics: metricsOf(engine),
      sockets,
    },
    {
      onRoute: (method, url) => routes.push(`${method} ${url}`),
      requestMs: REQUEST_MS,
      ingestBodyBytesMax: INGEST_BODY_BYTES,
    },
  );
  await app.listen({ path: socket });
});

beforeEach(() => engine.reset());

afterAll(async () => {
  await app.close();
  rmSync(folder, { recursive: true, force: true });
});

interface Answer {
  status: number;
  body: unknown;
  /** code of the error, when it is one */
  code: string | undefined;
}

function call(method: string, url: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
  const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const request = http.request({
      socketPath: socket,
      method,
      path: url,
      agent: false,
      headers: text === undefined ? headers : { 'content-type': 'application/json', ...headers },
    });
    request.once('error', reject);
    request.once('response', (response) => {
      let answer = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => {
        answer += chunk;
      });
      response.on('end', () => {
        let parsed: unknown = null;
        try {
          parsed = answer === '' ? null : JSON.parse(answer);
        } catch {
          parsed = answer;
        }
        const code = (parsed as { error?: { code?: string } } | null)?.error?.code;
        resolve({ status: response.statusCode ?? 0, body: parsed, code });
      });
    });
    request.end(text);
  });
}

const create = (name: string, size = 2 ** 30) => call('POST', '/v1/volumes', { name, size });

describe('volumes', () => {
  it('are created, listed, shown, resized, renamed, protected, deleted', async () => {
    expect((await create('a')).status).toBe(201);
    expect((await call('GET', '/v1/volumes')).body).toMatchObject({ volumes: [{ name: 'a', size: 2 ** 30 }] });
    expect((await call('POST', '/v1/volumes/a/resize', { size: 1024 })).body).toMatchObject({ size: 1024 });
    expect((await call('POST', '/v1/volumes/a/rename', { name: 'b' })).body).toMatchObject({ name: 'b' });
    expect((await call('POST', '/v1/volumes/b/protect', { on: true })).body).toMatchObject({ protected: true });
    const attach = (body: object) => call('POST', '/v1/volumes/b/attach', body);
    const id = '0123abcd-0123-0123-0123-0123456789ab';
    expect((await attach({ to: 'x'.repeat(255), id })).body).toMatchObject({ attached: { id, export: `b/${id}` } });
    for (const body of [
      {},
      { to: '' },
      { to: 'x'.repeat(256) },
      { to: 'a\nb' },
      { to: 'x', id: `${id}0` },
      { to: 'x', id: 'b' },
    ])
      expect((await attach(body)).code).toBe('INVALID');
    expect((await call('POST', '/v1/volumes/b/detach', { force: 'yes' })).code).toBe('INVALID');
    expect((await call('POST', '/v1/volumes/b/detach', { force: true })).body).toMatchObject({ attached: null });
    expect((await call('POST', '/v1/volumes/b/detach', {})).code).toBe('NOT_FOUND');
    expect((await call('DELETE', '/v1/volumes/b?force=true')).status).toBe(204);
    expect(engine.calls).toContain('deleteVolume("b", {"force":true,"withSnapshots":false})');
    expect((await call('GET', '/v1/volumes/b')).code).toBe('NOT_FOUND');
  });

  it.each(['ünïcödé', '磁碟 1', 'a%2Fb', 'a?b#c', '100%', "it's", '...', 'x'.repeat(255), 'ü'.repeat(127)])(
    'may be called %j in a URL',
    async (name) => {
      await create(name);
      const answer = await call('GET', `/v1/volumes/${encodeURIComponent(name)}`);
      expect(answer.body).toMatchObject({ name });
    },
  );

  it.each(['a/b', '.', '..', '-x', 'a@b', 'a\0b', 'a\nb', '', 'x'.repeat(256), 'ü'.repeat(128)])(
    'may not be called %j, in a body or in a URL',
    async (name) => {
      expect((await create(name)).code).toBe('INVALID');
      expect((await call('POST', '/v1/volumes/a/rename', { name })).code).toBe('INVALID');
      if (name !== '') expect((await call('GET', `/v1/volumes/${encodeURIComponent(name)}`)).code).toBe('INVALID');
      expect(engine.calls).toEqual([]);
    },
  );

  it.each([
    [{ name: 'a', size: 0 }, 'INVALID'],
    [{ name: 'a', size: -512 }, 'INVALID'],
    [{ name: 'a', size: 513 }, 'INVALID'],
    [{ name: 'a', size: 1.5 }, 'INVALID'],
    [{ name: 'a', size: '1024' }, 'INVALID'],
    [{ name: 'a', size: 2 ** 50 + 512 }, 'TOO_LARGE'],
    [{ name: 'a', size: 2 ** 60 }, 'INVALID'],
    [{ name: 'a' }, 'INVALID'],
    [{ size: 1024 }, 'INVALID'],
    [{ name: 'a', size: 1024, colour: 'red' }, 'INVALID'],
    [{ name: 'a', from: 'b' }, 'INVALID'],
    [{ name: 'a', from: 'b@' }, 'INVALID'],
    [{ name: ['a'], size: 1024 }, 'INVALID'],
    [[], 'INVALID'],
    [null, 'INVALID'],
    ['"a"', 'INVALID'],
    ['{', 'INVALID'],
    ['{"__proto__":{"size":1},"name":"a"}', 'INVALID'],
  ])('creation with %j is refused before the engine hears of it', async (body, code) => {
    const answer = await call('POST', '/v1/volumes', body);
    expect([answer.code, answer.status]).toEqual([code, 400]);
    expect(engine.calls).toEqual([]);
  });

  it('the largest size is not too large', async () => {
    expect((await create('a', 2 ** 50)).status).toBe(201);
  });

  it('hidden ones are left out of lists, cannot be made, and are shown when asked for', async () => {
    await engine.createVolume({ name: '.atoll-00', size: 512 });
    await create('a');
    expect((await call('GET', '/v1/volumes')).body).toMatchObject({ volumes: [{ name: 'a' }] });
    const all = (await call('GET', '/v1/volumes?hidden=true')).body as { volumes: unknown[] };
    expect(all.volumes).toHaveLength(2);
    expect((await create('.atoll-01')).code).toBe('INVALID');
    expect((await call('POST', '/v1/volumes/a/rename', { name: '.atoll-01' })).code).toBe('INVALID');
    expect((await call('POST', '/v1/volumes/a/snapshots', { name: '.atoll-01' })).code).toBe('INVALID');
  });
});

describe('snapshots', () => {
  it('are created, listed, shown, protected, cloned, rolled back to, deleted', async () => {
    await create('a');
    expect((await call('POST', '/v1/volumes/a/snapshots', { name: 's 1' })).status).toBe(201);
    expect((await call('GET', '/v1/snapshots?volume=a')).body).toMatchObject({ snapshots: [{ name: 'a@s 1' }] });
    const at = '/v1/volumes/a/snapshots/s%201';
    expect((await call('GET', at)).body).toMatchObject({ snapshot: 's 1' });
    expect((await call('POST', `${at}/protect`, { on: true })).body).toMatchObject({ protected: true });
    expect((await call('POST', `${at}/clone`, { name: 'c' })).body).toMatchObject({ name: 'c', clonedFrom: 'a@s 1' });
    expect((await call('POST', `${at}/rollback`, {})).body).toMatchObject({ name: 'a' });
    expect((await call('POST', `${at}/rollback`)).status).toBe(200);
    expect((await call('DELETE', '/v1/volumes/a')).code).toBe('HAS_SNAPSHOTS');
    expect((await call('DELETE', at)).status).toBe(204);
    expect((await call('GET', at)).code).toBe('NOT_FOUND');
  });

  it('a diff comes in pages', async () => {
    await create('a');
    await call('POST', '/v1/volumes/a/snapshots', { name: 's' });
    engine.diffExtents = Array.from({ length: 5 }, (_, index) => ({
      offset: index * 65536,
      length: 65536,
      data: true,
    }));
    const first = (await call('GET', '/v1/diff?from=a%40s&to=a&max=3')).body as { extents: unknown[]; next: number };
    expect(first.extents).toHaveLength(3);
    const second = (await call('GET', `/v1/diff?from=a%40s&to=a&offset=${first.next}`)).body;
    expect(second).toMatchObject({ extents: [{ offset: 3 * 65536 }, {}], next: null });
    // 1 PiB, where the last page of the largest volume may end
    expect((await call('GET', '/v1/diff?from=a%40s&to=a&offset=1125899906842624')).status).toBe(200);
    for (const bad of ['max=-1', 'max=1e3', 'offset=x', 'offset=10000000000000000', 'max=', 'limit=3']) {
      expect((await call('GET', `/v1/diff?from=a%40s&to=a&${bad}`)).code, bad).toBe('INVALID');
    }
  });
});

describe('pools', () => {
  it('are created, listed, shown and grown', async () => {
    const made = await call('POST', '/v1/pools', {
      name: 'p',
      path: '/srv/p',
      size: 2 ** 30,
      blockSize: 4096,
      direct: true,
    });
    expect([made.status, made.body]).toMatchObject([201, { name: 'p', blockSize: 4096 }]);
    expect((await call('GET', '/v1/pools')).body).toMatchObject({ pools: [{ name: 'local' }, { name: 'p' }] });
    expect((await call('POST', '/v1/pools/p/grow', { size: 2 ** 31 })).body).toMatchObject({ capacityBytes: 2 ** 31 });
    expect((await call('POST', '/v1/pools/p/grow', {})).status).toBe(200);
    expect((await call('GET', '/v1/pools/q')).code).toBe('NOT_FOUND');
  });

  it('have absolute paths', async () => {
    expect((await call('POST', '/v1/pools', { name: 'p', path: 'srv/p' })).code).toBe('INVALID');
  });

  it('a device that is not there does not become a file in /dev', async () => {
    for (const path of ['/dev/no-such-disk', '/dev/../dev//no-such-disk', '/dev/no-such-disk/']) {
      expect((await call('POST', '/v1/pools', { name: 'p', path })).code, path).toBe('NOT_FOUND');
    }
    expect((await call('POST', '/v1/pools', { name: 'p', path: '/dev/shm/no-such-pool' })).status).toBe(201);
    expect(engine.calls.filter((text) => text.startsWith('createPool'))).toHaveLength(1);
  });
});

describe('status and check', () => {
  it('status has pools and sockets', async () => {
    const pool = { name: 'local', driver: 'local', capacityBytes: 2 ** 40, usedBytes: 0, freeBytes: 2 ** 40 };
    const sockets = { control: socket, nbd: ['unix:/fake/nbd.sock'] };
    expect((await call('GET', '/v1/status')).body).toMatchObject({ pools: [pool], sockets, transfers: 0 });
  });

  it('check tells its progress, then its report, a line each', async () => {
    const lines = String((await call('POST', '/v1/check', {})).body)
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.at(-1)).toMatchObject({ report: { ok: true } });
    expect(lines.length).toBeGreaterThan(1);
    expect(lines.slice(0, -1).every(({ progress }) => progress.total === 4)).toBe(true);
  });

  it('a check that fails says so in its last line', async () => {
    engine.failures.set('check', new EngineError('IO', 'the store cannot be read'));
    const { body } = await call('POST', '/v1/check', {});
    expect(body).toEqual({ error: { code: 'IO', message: 'the store cannot be read' } });
  });
});

describe('errors', () => {
  it.each(Object.keys(ERRORS))('%s has one status', async (code) => {
    engine.failures.set('listPools', new EngineError(code as EngineErrorCode, `as ${code}`));
    const answer = await call('GET', '/v1/pools');
    expect(answer.body).toEqual({ error: { code, message: `as ${code}` } });
    expect(answer.status).toBe(ERRORS[code as EngineErrorCode].http);
  });

  it('a bug of ours is INTERNAL, with its stack in the log and not in the answer', async () => {
    engine.failures.set('listPools', new TypeError('x is not a function'));
    const answer = await call('GET', '/v1/pools');
    expect([answer.status, answer.code]).toEqual([500, 'INTERNAL']);
    expect(JSON.stringify(answer.body)).not.toContain('.ts');
    expect(logged.join()).toContain('api.test.ts');
  });

  it('messages are one line', async () => {
    engine.failures.set('listPools', new EngineError('IO', 'one\ntwo\r\nthree'));
    expect((await call('GET', '/v1/pools')).body).toMatchObject({ error: { message: 'one two three' } });
  });

  it.each([
    ['GET', '/', 'NO_ROUTE', 404],
    ['GET', '/v1/nothing', 'NO_ROUTE', 404],
    ['PUT', '/v1/volumes', 'NO_ROUTE', 404],
    ['GET', '/v1/volumes?colour=red', 'INVALID', 400],
    ['GET', '/v1/volumes/a?x=1', 'INVALID', 400],
    ['GET', '/v1/volumes/%ff', 'INVALID', 400],
    ['GET', '/v1/volumes/%', 'INVALID', 400],
    ['DELETE', '/v1/volumes/a?force=yes', 'INVALID', 400],
    ['DELETE', '/v1/volumes/a?force=1', 'INVALID', 400],
    ['POST', '/v1/transfers/nope/commit', 'INVALID', 400],
  ])('%s %s is %s', async (method, url, code, status) => {
    const answer = await call(method, url);
    expect([answer.code, answer.status]).toEqual([code, status]);
    expect(isErrorCode(answer.code)).toBe(true);
  });

  it('a body that is too large, or of another type, is refused', async () => {
    const large = await call('POST', '/v1/volumes', { name: 'x'.repeat(BODY_BYTES_MAX), size: 512 });
    expect([large.code, large.status]).toEqual(['BODY_TOO_LARGE', 413]);
    for (const type of ['text/plain', 'application/xml', 'application/x-www-form-urlencoded']) {
      const other = await call('POST', '/v1/volumes', '{"name":"a","size":512}', { 'content-type': type });
      expect([other.code, other.status], type).toEqual(['MEDIA_TYPE', 415]);
    }
  });

  it('a request that does not arrive is given up, and the others are not', async () => {
    const slow = new Promise<string>((resolve) => {
      const head =
        'POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{';
      const client = net.connect(socket, () => client.write(head));
      let text = '';
      client.on('data', (chunk) => {
        text += chunk;
      });
      client.on('close', () => resolve(text));
    });
    const answer = await slow;
    expect(answer).toMatch(/^HTTP\/1\.1 408 Request Timeout\r\n/);
    expect(answer).toContain('"TIMEOUT"');
    expect((await call('GET', '/v1/volumes')).status).toBe(200);
  });

  it('what is no HTTP is answered in JSON and ends', async () => {
    const answer = await new Promise<string>((resolve) => {
      const client = net.connect(socket, () => client.write('hello\r\n\r\n'));
      let text = '';
      client.on('data', (chunk) => {
        text += chunk;
      });
      client.on('close', () => resolve(text));
    });
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(JSON.parse(answer.split('\r\n\r\n')[1] ?? '')).toMatchObject({ error: { code: 'INVALID' } });
  });
});

/** @returns the answer's document, also of an error */
function upload(path: string, bytes: Buffer): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/octet-stream', 'content-length': bytes.length };
    const request = http.request({ socketPath: socket, method: 'POST', path, agent: false, headers });
    request.on('error', reject);
    request.once('response', (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve(JSON.parse(text)));
    });
    request.end(bytes);
  });
}

describe('transfers', () => {
  /** Begins a transfer and keeps its answer open. */
  function begin(
    body: unknown,
    path = '/v1/transfers',
  ): Promise<{ first: Record<string, unknown>; rest: () => string; ended: Promise<void>; leave: () => void }> {
    return new Promise((resolve, reject) => {
      const request = http.request({
        socketPath: socket,
        method: 'POST',
        path,
        agent: false,
        headers: { 'content-type': 'application/json' },
      });
      request.on('error', reject);
      request.once('response', (response) => {
        let text = '';
        response.setEncoding('utf8');
        const ended = new Promise<void>((done) => response.once('close', done));
        response.on('error', () => undefined);
        response.on('data', (chunk) => {
          text += chunk;
          const newline = text.indexOf('\n');
          if (newline < 0) return;
          const rest = () => text.slice(newline + 1).trim();
          resolve({ first: JSON.parse(text.slice(0, newline)), rest, ended, leave: () => request.destroy() });
        });
      });
      request.end(JSON.stringify(body));
    });
  }

  it('ingests: bytes at ascending offsets become a snapshot; without its connection nothing is left', async () => {
    const { first, rest, ended } = await begin({ volume: 'i', snapshot: 's' }, '/v1/ingests');
    const { id } = first.ingest as { id: string };
    expect(first.ingest).toMatchObject({ volume: 'i', snapshot: 's', pool: 'local', position: 0 });
    const put = (offset: number, bytes: Buffer) => upload(`/v1/ingests/${id}/bytes?offset=${offset}`, bytes);
    expect(await put(0, Buffer.alloc(1000, 1))).toMatchObject({ position: 1000 });
    expect(await put(4000, Buffer.alloc(24, 1))).toMatchObject({ position: 4024 });
    expect(await put(4000, Buffer.alloc(24, 1))).toMatchObject({ error: { code: 'INVALID' } });
    expect((await call('POST', `/v1/ingests/${id}/bytes?offset=4024`, {})).code).toBe('MEDIA_TYPE');
    expect((await call('POST', `/v1/ingests/${id}/commit`, { size: 4000 })).code).toBe('INVALID');
    expect((await call('POST', `/v1/ingests/${id}/commit`, { size: 8192 })).body).toMatchObject({ name: 'i@s' });
    await ended;
    expect(JSON.parse(rest())).toEqual({ ended: 'committed' });
    expect(engine.volumes.get('i')?.size).toBe(8192);
    expect((await call('POST', `/v1/ingests/${id}/commit`, {})).code).toBe('NOT_FOUND');

    const gone = await begin({ volume: 'j', snapshot: 's' }, '/v1/ingests');
    gone.leave();
    await until(() => engine.calls.includes('ingest.abort()'));
    expect((await call('POST', '/v1/ingests', { volume: 'i', snapshot: 's' })).code).toBe('EXISTS');
    expect((await call('POST', '/v1/ingests', { volume: 'a/b', snapshot: 's' })).code).toBe('INVALID');
    expect((await call('POST', '/v1/ingests', { volume: 'a' })).code).toBe('INVALID');
  });

  it('ingests: a file that the daemon finds is read by it, and no other', async () => {
    const at = path.join(folder, 'image');
    writeFileSync(at, Buffer.alloc(10_000, 1));
    const { dev, ino } = statSync(at, { bigint: true });
    const file = { path: at, dev: String(dev), ino: String(ino) };
    const { first, leave } = await begin({ volume: 'i', snapshot: 's', file }, '/v1/ingests');
    const { id } = first.ingest as { id: string };
    expect(first.ingest).toMatchObject({ position: 0, reads: true });
    const read = (offset: number, length: number) => call('POST', `/v1/ingests/${id}/file`, { offset, length });
    expect((await read(0, 4096)).body).toMatchObject({ position: 4096 });
    expect((await read(0, 4096)).code).toBe('INVALID');
    expect((await read(8192, 4096)).body).toMatchObject({ position: 10_000 });
    expect((await read(20_000, 4096)).body).toMatchObject({ position: 20_000 });
    expect(engine.calls.filter((one) => one.startsWith('ingest.'))).toEqual([
      ...['ingest.skip(0)', 'ingest.read(4096)', 'ingest.skip(4096)', 'ingest.read(1808)'],
      ...['ingest.skip(10000)', 'ingest.read(0)'],
    ]);
    leave();
    await until(() => engine.calls.includes('ingest.abort()'));
    for (const other of [
      { ...file, ino: String(ino + 1n) },
      { ...file, dev: String(dev + 1n) },
      { ...file, path: `${at}.none` },
      { ...file, path: folder, ino: String(statSync(folder, { bigint: true }).ino) },
    ]) {
      const { first: none, leave: end } = await begin({ volume: 'i', snapshot: 's', file: other }, '/v1/ingests');
      const { id: otherId, reads } = none.ingest as { id: string; reads: boolean };
      expect(reads).toBe(false);
      const refused = await call('POST', `/v1/ingests/${otherId}/file`, { offset: 0, length: 1 });
      expect(refused.code).toBe('INVALID');
      end();
    }
    for (const wrong of [{ ...file, path: 'image' }, { ...file, ino: '-1' }, { path: at }])
      expect((await call('POST', '/v1/ingests', { volume: 'i', snapshot: 's', file: wrong })).code).toBe('INVALID');
    const shared = new Ingests(engine, false);
    const begun = await shared.begin({ volume: 'k', snapshot: 's' }, file, () => undefined);
    expect(begun.reads).toBe(false);
    await shared.abort(begun.id);
  });

  it('ingests: a request brings so much and no more, which ends it', async () => {
    const { first } = await begin({ volume: 'i', snapshot: 's' }, '/v1/ingests');
    const { id } = first.ingest as { id: string };
    const bytes = Buffer.alloc(INGEST_BODY_BYTES);
    expect(await upload(`/v1/ingests/${id}/bytes?offset=0`, bytes)).toMatchObject({ position: bytes.length });
    const more = Buffer.concat([bytes, Buffer.alloc(1)]);
    expect(await upload(`/v1/ingests/${id}/bytes?offset=${bytes.length}`, more)).toMatchObject({
      error: { code: 'BODY_TOO_LARGE' },
    });
    expect(engine.calls).toContain('ingest.abort()');
    expect((await call('POST', `/v1/ingests/${id}/commit`, {})).code).toBe('NOT_FOUND');
  });

  const idOf = (first: Record<string, unknown>) => (first.transfer as { id: string }).id;

  async function until(holds: () => boolean): Promise<void> {
    for (let tries = 0; tries < 3000 && !holds(); tries++) await sleep(10);
    expect(holds()).toBe(true);
  }

  it('create: the volume appears under its name by commit, and not before', async () => {
    const { first, rest, ended } = await begin({ kind: 'create', name: 'new', size: 1024 });
    const id = idOf(first);
    expect(first.transfer).toMatchObject({ kind: 'create', volume: 'new', export: `.atoll-${id}`, size: 1024 });
    expect((await call('GET', '/v1/volumes')).body).toEqual({ volumes: [] });
    expect((await call('GET', '/v1/status')).body).toMatchObject({ transfers: 1 });
    expect((await call('POST', `/v1/transfers/${id}/commit`, {})).body).toMatchObject({ name: 'new' });
    await ended;
    expect(JSON.parse(rest())).toEqual({ ended: 'committed' });
    expect([...engine.volumes.keys()]).toEqual(['new']);
    expect((await call('POST', `/v1/transfers/${id}/commit`, {})).code).toBe('NOT_FOUND');
  });

  it('lasts as long as its client, however long a request may take to arrive', async () => {
    const { first, leave } = await begin({ kind: 'create', name: 'slow', size: 1024 });
    await sleep(REQUEST_MS + 1500);
    expect(transfers.count).toBe(1);
    expect((await call('POST', `/v1/transfers/${idOf(first)}/commit`, {})).status).toBe(200);
    leave();
  });

  it('create: a client that goes takes what it staged with it', async () => {
    const { leave } = await begin({ kind: 'create', name: 'new', size: 1024 });
    expect(engine.volumes.size).toBe(1);
    leave();
    await until(() => engine.volumes.size === 0);
    expect(transfers.count).toBe(0);
  });

  it('create: what is still open when its client goes is removed a moment later', async () => {
    const { leave } = await begin({ kind: 'create', name: 'new', size: 1024 });
    engine.failures.set('deleteVolume', new EngineError('BUSY', 'it is open'));
    leave();
    await until(() => transfers.count === 0);
    expect(engine.volumes.size).toBe(1);
    await until(() => engine.volumes.size === 0);
  });

  it('create: an existing name is refused at once, a taken one at the commit', async () => {
    await create('there');
    expect((await call('POST', '/v1/transfers', { kind: 'create', name: 'there', size: 1024 })).code).toBe('EXISTS');
    const { first, leave } = await begin({ kind: 'create', name: 'late', size: 1024 });
    await create('late');
    expect((await call('POST', `/v1/transfers/${idOf(first)}/commit`, {})).code).toBe('EXISTS');
    // it can still be left
    leave();
    await until(() => transfers.count === 0);
    expect([...engine.volumes.keys()]).toEqual(['there', 'late']);
  });

  it('onto: a clone is staged, resized, and replaces the volume; nothing hidden stays', async () => {
    await create('v');
    const { first } = await begin({ kind: 'onto', volume: 'v' });
    const id = idOf(first);
    expect([...engine.volumes.keys()]).toEqual(['v', `.atoll-${id}`]);
    expect([...engine.snapshots.keys()]).toEqual([`v@.atoll-${id}`]);
    expect((await call('POST', `/v1/transfers/${id}/resize`, { size: 4096 })).body).toMatchObject({ size: 4096 });
    expect((await call('POST', `/v1/transfers/${id}/commit`, {})).body).toMatchObject({ name: 'v', size: 4096 });
    expect([...engine.volumes.keys()]).toEqual(['v']);
    expect(engine.snapshots.size).toBe(0);
  });

  it('onto: an open, attached or protected volume is refused, at the beginning and at the commit', async () => {
    await create('v');
    const volume = engine.volumes.get('v')!;
    volume.openCount = 1;
    expect((await call('POST', '/v1/transfers', { kind: 'onto', volume: 'v' })).code).toBe('BUSY');
    volume.openCount = 0;
    volume.attached = { id: 'i', to: 'node1', since: '2026-01-31T12:00:00.000Z', export: 'v/i' };
    expect((await call('POST', '/v1/transfers', { kind: 'onto', volume: 'v' })).code).toBe('BUSY');
    volume.attached = null;
    volume.protected = true;
    expect((await call('POST', '/v1/transfers', { kind: 'onto', volume: 'v' })).code).toBe('PROTECTED');
    volume.protected = false;
    const { first } = await begin({ kind: 'onto', volume: 'v' });
    volume.openCount = 1;
    expect((await call('POST', `/v1/transfers/${idOf(first)}/commit`, {})).code).toBe('BUSY');
    volume.openCount = 0;
    expect((await call('POST', `/v1/transfers/${idOf(first)}/commit`, {})).status).toBe(200);
  });

  it.each<[string, () => Promise<unknown>]>([
    ['was written to', async () => engine.diffExtents.push({ offset: 0, length: 65536, data: true })],
    ['was resized', async () => engine.resizeVolume('v', 2 ** 31)],
    [
      'was deleted and made again',
      async () => {
        await engine.deleteVolume('v', { withSnapshots: true });
        await engine.createVolume({ name: 'v', size: 2 ** 30 });
      },
    ],
  ])('onto: a volume that %s meanwhile is left alone', async (_what, change) => {
    await create('v');
    const { first, leave } = await begin({ kind: 'onto', volume: 'v' });
    await change();
    expect((await call('POST', `/v1/transfers/${idOf(first)}/commit`, {})).code).toBe('BASE_DIFFERS');
    leave();
    await until(() => transfers.count === 0);
    expect([...engine.volumes.keys()]).toEqual(['v']);
    expect(engine.snapshots.size).toBe(0);
  });

  it('onto: a clone that fails leaves no snapshot', async () => {
    await create('v');
    engine.failures.set('clone', new EngineError('NO_SPACE', 'full'));
    expect((await call('POST', '/v1/transfers', { kind: 'onto', volume: 'v' })).code).toBe('NO_SPACE');
    expect(engine.snapshots.size).toBe(0);
  });

  it('read: a moment of a live volume, gone with the client', async () => {
    await create('v');
    const { first, leave } = await begin({ kind: 'read', volume: 'v' });
    expect(first.transfer).toMatchObject({ export: `v@.atoll-${idOf(first)}` });
    expect((await call('GET', '/v1/snapshots')).body).toEqual({ snapshots: [] });
    leave();
    await until(() => engine.snapshots.size === 0);
  });

  it('a volume that is renamed meanwhile keeps nothing hidden', async () => {
    await create('v');
    const { leave } = await begin({ kind: 'read', volume: 'v' });
    await call('POST', '/v1/volumes/v/rename', { name: 'w' });
    expect([...engine.snapshots.keys()]).toEqual([expect.stringMatching(/^w@\.atoll-/)]);
    leave();
    await until(() => engine.snapshots.size === 0);
  });

  it('a commit that fails when its client has gone leaves nothing', async () => {
    await create('v');
    const { first, leave } = await begin({ kind: 'onto', volume: 'v' });
    engine.failures.set('replaceWith', new EngineError('NO_SPACE', 'full'));
    const staged = engine.volumes.get(`.atoll-${idOf(first)}`)!;
    staged.openCount = 1;
    const commit = transfers.commit(idOf(first));
    leave();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(transfers.count).toBe(1);
    staged.openCount = 0;
    await expect(commit).rejects.toMatchObject({ code: 'NO_SPACE' });
    expect([transfers.count, engine.snapshots.size, [...engine.volumes.keys()]]).toEqual([0, 0, ['v']]);
  });

  it('what a killed daemon left is swept', async () => {
    await create('v');
    await engine.createSnapshot('v', '.atoll-0123456789abcdef');
    await engine.createSnapshot('v', 'keep');
    await engine.createVolume({ name: '.atoll-0123456789abcdef', size: 512 });
    const { first, leave } = await begin({ kind: 'onto', volume: 'v' });
    const own = `.atoll-${idOf(first)}`;
    await transfers.sweep();
    // and what is under way is not
    expect([...engine.volumes.keys()]).toEqual(['v', own]);
    expect([...engine.snapshots.keys()]).toEqual(['v@keep', `v@${own}`]);
    leave();
    await until(() => transfers.count === 0);
  });

  it('a stop of the daemon ends them', async () => {
    const { ended, rest } = await begin({ kind: 'create', name: 'new', size: 1024 });
    await transfers.abortAll();
    await ended;
    expect(JSON.parse(rest())).toEqual({ ended: 'aborted' });
    expect(engine.volumes.size).toBe(0);
  });

  it('have a bound', async () => {
    const open = [];
    for (let index = 0; index < 64; index++) open.push(await begin({ kind: 'create', name: `n${index}`, size: 1024 }));
    expect((await call('POST', '/v1/transfers', { kind: 'create', name: 'more', size: 1024 })).code).toBe('BUSY');
    open[0]!.leave();
    await until(() => transfers.count === 63);
    const { leave } = await begin({ kind: 'create', name: 'more', size: 1024 });
    for (const one of open) one.leave();
    leave();
    await until(() => transfers.count === 0);
  });

  it.each([
    {},
    { kind: 'steal', volume: 'v' },
    { kind: 'create', name: 'a' },
    { kind: 'create', name: 'a', size: 513 },
    { kind: 'create', name: 'a/b', size: 512 },
    { kind: 'create', name: '.atoll-x', size: 512 },
    { kind: 'onto', volume: 'v', size: 1 },
  ])('%j is refused', async (body) => {
    expect((await call('POST', '/v1/transfers', body)).code).toBe('INVALID');
    expect(engine.calls).toEqual([]);
  });
});

describe('documentation', () => {
  const page = (name: string) => readFileSync(new URL(`../../docs/${name}`, import.meta.url), 'utf8');

  it('docs/control-api.md has every route, and no other', () => {
    const documented = [...page('control-api.md').matchAll(/^### `(GET|POST|DELETE|PUT|PATCH) (\/\S*)`/gm)].map(
      ([, method, url]) => `${method} ${url!.replaceAll(/\{(\w+)\}/g, ':$1')}`,
    );
    const real = routes.filter((route) => !route.startsWith('HEAD '));
    expect(documented.sort()).toEqual(real.sort());
  });

  it('docs/errors.md has every code with its status and exit code, and no other', () => {
    const documented = [...page('errors.md').matchAll(/^\| `([A-Z_]+)` \| (\d+) \| (\d+) \|/gm)].map(
      ([, code, http, exit]) => [code, { http: Number(http), exit: Number(exit) }],
    );
    expect(Object.fromEntries(documented)).toEqual(ERRORS);
  });
});
