/** Who is slow is cut off, and who is not is not, however long it takes; every bound of the listener from both sides. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { LIMITS } from '../../../src/frontends/http/limits.ts';
import { Credit } from '../../../src/frontends/http/pacer.ts';
import { Cloud } from './cloud.ts';
import { contentOf, Things } from './things.ts';
import { until, Wire, Wires } from './wire.ts';

const MIB = 2 ** 20;
/** in hand: two seconds of nothing */
const SENDING = { bytesPerSecond: 1000, creditBytes: 2000 };
const TAKING = { bytesPerSecond: 4 * MIB, creditBytes: 8 * MIB };
const CREDIT_MS = 2000;

const SMALL = {
  sending: SENDING,
  taking: TAKING,
  paceMs: 20,
  headersMs: 300,
  unreadBytes: 1000,
  connections: 20,
};
const things = new Things();
const cloud = new Cloud(undefined, [things.service], SMALL);
let token: string;
let port: number;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.demo();
  port = await cloud.listen();
});
afterAll(() => cloud.end());

/** as Node's listener counts them */
const openConnections = () => (cloud.app.server as unknown as { _connections: number })._connections;

const wires = new Wires();
afterEach(async () => {
  wires.end();
  await until('they are gone', () => openConnections() === 0);
  things.reset();
});
const wire = () => wires.to(port);
const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const upload = async (path = '/thing/v3/things/x', bytes = 1_000_000) =>
  (await wire()).head('PUT', path, { 'x-auth-token': token, 'content-length': bytes });

describe('a pace', () => {
  const pace = { bytesPerSecond: 100, creditBytes: 1000 };

  it('is lost by nothing for as long as the credit lasts, and no sooner', () => {
    const credit = new Credit(pace, 0);
    for (let second = 1; second <= 10; second++) expect(credit.use(1, 0, true)).toBe(false);
    expect(credit.use(0.01, 0, true)).toBe(true);
  });

  it('is kept at the rate for ever, in whatever bursts the credit is good for', () => {
    const [even, bursts, below] = [new Credit(pace, 0), new Credit(pace, 0), new Credit(pace, 0)];
    let lost = 0;
    for (let second = 1; second <= 10_000; second++) {
      expect(even.use(1, second * 100, true)).toBe(false);
      expect(bursts.use(1, Math.floor(second / 10) * 1000, true)).toBe(false);
      if (below.use(1, second * 99, true) && lost === 0) lost = second;
    }
    // a byte a second less: after the thousand in hand
    expect(lost).toBe(1001);
  });

  it('counts no time in which nobody waits for the client, and saves nothing up', () => {
    const credit = new Credit(pace, 0);
    expect(credit.use(1000, 0, false)).toBe(false);
    expect(credit.use(1, 1_000_000, true)).toBe(false);
    expect(credit.use(10, 1_000_000, true)).toBe(false);
    expect(credit.use(0.01, 1_000_000, true)).toBe(true);
  });

  it('as it is set: ten seconds of silence of who sends, some four minutes of who takes', () => {
    const seconds = ({ creditBytes, bytesPerSecond }: typeof SENDING) => creditBytes / bytesPerSecond;
    expect([seconds(LIMITS.sending), seconds(LIMITS.taking)]).toEqual([10, 256]);
  });
});

describe('who sends', () => {
  it.each([
    ['a stream', '/thing/v3/things/x', 'hello', 'The body came too slowly.'],
    ['JSON', '/thing/v3/things', '{', 'The body came too slowly.'],
  ])('%s, and stops: 408, and the connection is closed', async (_what, path, part, message) => {
    const method = path.endsWith('x') ? 'PUT' : 'POST';
    const client = await wire();
    const type = { 'content-type': 'application/json' };
    client.head(method, path, { 'x-auth-token': token, 'content-length': 1000, ...type }).say(part);
    await client.gone();
    expect(client.statuses).toEqual([408]);
    expect(client.text).toContain(message);
    expect(client.text).toMatch(/^connection: close\r$/im);
    expect(cloud.logged.join('\n')).toMatch(/info http\.slow .*"what":"sending"/);
  });

  it('below the rate is cut off, though something always comes', async () => {
    const client = await upload();
    await until('it is cut off', async () => {
      client.say('x');
      await sleep(50);
      return client.closed;
    });
    expect(client.statuses).toEqual([408]);
  });

  it('above it is not, for much longer than who stops', async () => {
    const parts = 20;
    const client = await upload('/thing/v3/things/x', parts * SENDING.creditBytes);
    for (let part = 0; part < parts; part++) {
      client.say(contentOf(SENDING.creditBytes));
      await sleep((3 * CREDIT_MS) / parts);
    }
    await client.answers(1);
    expect(client.statuses).toEqual([200]);
  });

  it('to a daemon that stands still is not at fault', async () => {
    const client = await upload('/thing/v3/things/x', 1000);
    client.say(contentOf(10));
    await until('it is read', () => things.arrived() > 0);
    await sleep(100);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2 * CREDIT_MS);
    client.say(contentOf(990));
    await client.answers(1);
    expect(client.statuses).toEqual([200]);
  });

  it('to somebody who does not read yet is not at fault', async () => {
    things.before = sleep(2 * CREDIT_MS);
    const client = await upload('/thing/v3/things/x', 1000);
    client.say(contentOf(10));
    await things.before;
    client.say(contentOf(990));
    await client.answers(1);
    expect(client.statuses).toEqual([200]);
  });
});

describe('who takes an answer', () => {
  it('and stops is cut off, and nothing more is made', async () => {
    const client = await wire();
    client.pause();
    client.head('GET', `/thing/v3/things/${2 ** 40}`, { 'x-auth-token': token });
    await until('it is cut off', () => things.failures.length > 0);
    expect(things.failures).toEqual(['download']);
    await until('it is logged', () => cloud.logged.some((line) => /http\.slow .*"what":"taking"/.test(line)));
  });

  it('and stops for less than that has all of it', async () => {
    const client = await wire();
    client.pause();
    const bytes = 48 * MIB;
    client.head('GET', `/thing/v3/things/${bytes}`, { 'x-auth-token': token, connection: 'close' });
    await until('some of it', () => things.sent > MIB);
    await sleep(CREDIT_MS / 4);
    client.resume();
    await client.gone();
    expect(client.bytes.subarray(-bytes).equals(contentOf(bytes))).toBe(true);
  });
});

describe('a body that nobody wants', () => {
  const refused = { 'content-length': 1000 };

  it('is thrown away up to a bound, and the next request is answered', async () => {
    const client = await wire();
    client.head('PUT', '/thing/v3/things/x', refused);
    await client.answers(1);
    client.say(contentOf(1000)).head('GET', '/thing/v3/version', { 'x-auth-token': token });
    await client.answers(2);
    expect(client.statuses).toEqual([401, 200]);
  });

  it('and beyond it the connection is closed', async () => {
    const client = await wire();
    const slow = () => cloud.logged.filter((line) => line.includes('http.slow')).length;
    const before = slow();
    client.head('PUT', '/thing/v3/things/x', { 'content-length': 2000 });
    await client.answers(1);
    client.say(contentOf(1001));
    await client.gone();
    // Not since it was slow.
    expect([client.statuses, slow()]).toEqual([[401], before]);
  });

  it('and does not come: the connection is closed too', async () => {
    const client = await wire();
    client.head('PUT', '/thing/v3/things/x', refused);
    await client.gone();
    expect(client.statuses).toEqual([401]);
  });
});

describe('a connection', () => {
  it('has headers of so many bytes', async () => {
    const fits = async (bytes: number) => {
      const client = await wire();
      client.head('GET', '/healthcheck', { x: 'x'.repeat(bytes) });
      await client.answers(1);
      return client.statuses[0];
    };
    expect(await fits(LIMITS.headerBytes - 1000)).toBe(200);
    expect(await fits(LIMITS.headerBytes)).toBe(431);
  });

  it('whose headers do not come is closed, with 408', async () => {
    const client = await wire();
    client.say('GET /healthcheck HTTP/1.1\r\n');
    await client.gone();
    expect(client.statuses).toEqual([408]);
  });

  it('with nothing to do is closed, and not before', async () => {
    expect(cloud.app.server.keepAliveTimeout).toBe(LIMITS.idleMs);
    cloud.app.server.keepAliveTimeout = 300;
    const client = await wire();
    client.head('GET', '/healthcheck');
    await client.answers(1);
    client.head('GET', '/healthcheck');
    await client.answers(2);
    await client.gone();
    expect(client.statuses).toEqual([200, 200]);
  });

  it('beyond so many is closed at once, and no other is', async () => {
    const all = await Promise.all(Array.from({ length: 20 }, wire));
    const more = await wire();
    await more.gone();
    expect(more.text).toBe('');
    for (const client of all) client.head('GET', '/healthcheck');
    await Promise.all(all.map((client) => client.answers(1)));
    expect(all.map(({ statuses }) => statuses[0])).toEqual(Array(20).fill(200));
  });
});

describe('many requests that are sent without waiting for answers', () => {
  it('are answered in order, and none is lost', async () => {
    const client = await wire();
    for (let index = 0; index < 50; index++) {
      const body = JSON.stringify({ index });
      const headers = { 'x-auth-token': token, 'content-type': 'application/json', 'content-length': body.length };
      client.head('POST', '/thing/v3/things', headers).say(body);
    }
    await client.answers(50);
    await until('the last of it', () => client.text.endsWith('}}'));
    const found = [...client.text.matchAll(/"index":(\d+)/g)].map(([, index]) => Number(index));
    expect(found).toEqual(Array.from({ length: 50 }, (_, index) => index));
  });
});

describe('by TLS', () => {
  const others = new Things();
  const secure = new Cloud(undefined, [others.service], SMALL, selfSigned());
  let at: number;
  let own: string;
  beforeAll(async () => {
    await secure.open();
    own = await secure.demo();
    at = await secure.listen();
  });
  afterAll(() => secure.end());

  it('it is the same: who stops is cut off, and who goes on is not', async () => {
    const put = async (bytes: number) =>
      (await Wire.to(at, { isTls: true })).head('PUT', '/thing/v3/things/x', {
        'x-auth-token': own,
        'content-length': bytes,
      });
    const parts = 20;
    const [goes, stops] = await Promise.all([put(parts * SENDING.creditBytes), put(1000)]);
    stops.say('hello');
    for (let part = 0; part < parts; part++) {
      goes.say(contentOf(SENDING.creditBytes));
      await sleep((3 * CREDIT_MS) / parts);
    }
    await goes.answers(1);
    await stops.gone();
    expect([goes.statuses, stops.statuses]).toEqual([[200], [408]]);
    goes.end();
  });

  it('and who takes an answer, or does not', async () => {
    const get = async (bytes: number) =>
      (await Wire.to(at, { isTls: true })).head('GET', `/thing/v3/things/${bytes}`, {
        'x-auth-token': own,
        connection: 'close',
      });
    const takes = await get(16 * MIB);
    await takes.gone();
    expect(takes.bytes.subarray(-16 * MIB).equals(contentOf(16 * MIB))).toBe(true);
    const stops = await get(2 ** 40);
    stops.pause();
    await until('it is cut off', () => others.failures.length > 0);
    stops.end();
  });
});

function selfSigned(): { cert: Buffer; key: Buffer } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-tls-'));
  const [cert, key] = [path.join(dir, 'cert.pem'), path.join(dir, 'key.pem')];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', '/CN=x'];
  execFileSync('openssl', ['req', '-x509', ...kind, '-out', cert, '-keyout', key], { stdio: 'ignore' });
  const pem = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
  fs.rmSync(dir, { recursive: true });
  return pem;
}
