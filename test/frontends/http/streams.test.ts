/** Bodies and answers that are streams, on real sockets: nothing is asked for too early, held, or lost. */
import { spawn } from 'node:child_process';
import http from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Cloud } from './cloud.ts';
import { contentOf, sha256, Things } from './things.ts';
import { until, Wires } from './wire.ts';

const MIB = 2 ** 20;
/** what both kernels and Node hold of a connection that nobody reads, and more */
const HELD_MAX = 24 * MIB;

const things = new Things();
const cloud = new Cloud(undefined, [things.service]);
let token: string;
let port: number;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.demo();
  port = await cloud.listen();
});
afterAll(() => cloud.end());
afterEach(() => {
  things.reset();
});

const wires = new Wires();
afterEach(() => wires.end());
const wire = () => wires.to(port);

interface Got {
  status: number | undefined;
  body: Buffer;
  connection: string | undefined;
}

/** A request by Node's own client. */
function send(method: string, path: string, body?: Buffer, headers: http.OutgoingHttpHeaders = {}): Promise<Got> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      { host: '127.0.0.1', port, method, path, agent: false, headers: { 'x-auth-token': token, ...headers } },
      async (response) => {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        const { statusCode: status, headers: got } = response;
        resolve({ status, body: Buffer.concat(chunks), connection: got.connection });
      },
    );
    request.once('error', reject);
    request.end(body);
  });
}

describe('a stream', () => {
  it('goes up and comes down whole', async () => {
    const content = contentOf(40 * MIB + 7);
    const up = await send('PUT', '/thing/v3/things/x', content, { 'content-length': content.length });
    expect(up.status).toBe(200);
    expect(JSON.parse(String(up.body))).toEqual({ bytes: content.length, sha256: sha256(content) });
    const chunked = await send('PUT', '/thing/v3/things/x', content, { 'transfer-encoding': 'chunked' });
    expect(chunked.body).toEqual(up.body);
    const down = await send('GET', `/thing/v3/things/${content.length}`);
    expect([down.status, sha256(down.body)]).toEqual([200, sha256(content)]);
  });

  it('may be of any type, and be none', async () => {
    for (const type of ['application/json', 'text/plain; charset=x', 'application/x-anything', undefined]) {
      const headers = type === undefined ? {} : { 'content-type': type };
      const { status, body } = await send('PUT', '/thing/v3/things/x', Buffer.from('{'), headers);
      expect([type, status, JSON.parse(String(body)).bytes]).toEqual([type, 200, 1]);
    }
    const { status, body } = await send('PUT', '/thing/v3/things/x', undefined, { 'content-length': 0 });
    expect([status, JSON.parse(String(body)).bytes]).toEqual([200, 0]);
    // Elsewhere in the service, JSON is JSON.
    expect((await send('POST', '/thing/v3/things', Buffer.from('x'), { 'content-type': 'text/plain' })).status).toBe(
      415,
    );
  });

  it('that is not read is not taken: the client waits', async () => {
    let read = () => {};
    things.before = new Promise((resolve) => {
      read = resolve;
    });
    const client = await wire();
    const content = contentOf(64 * MIB);
    client.head('PUT', '/thing/v3/things/x', { 'x-auth-token': token, 'content-length': content.length }).say(content);
    let before = -1;
    await until('nothing moves', async () => {
      const now = things.arrived();
      const isStill = now === before && now > 0;
      before = now;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return isStill;
    });
    expect(things.arrived()).toBeLessThan(HELD_MAX);
    expect(client.unsent).toBeGreaterThan(0);
    read();
    await client.answers(1);
    await until('the body of the answer', () => client.text.endsWith('}'));
    expect(client.text).toContain(`{"bytes":${content.length},"sha256":"${sha256(content)}"}`);
  });

  it('that nobody takes is not made: it waits for the client', async () => {
    const client = await wire();
    client.pause();
    client.head('GET', `/thing/v3/things/${64 * MIB}`, { 'x-auth-token': token, connection: 'close' });
    let before = -1;
    await until('nothing moves', async () => {
      const isStill = things.sent === before && before > 0;
      before = things.sent;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return isStill;
    });
    expect(things.sent).toBeLessThan(HELD_MAX);
    client.resume();
    await client.gone();
    expect(things.sent).toBe(64 * MIB);
    const { bytes } = client;
    expect(bytes.length).toBeGreaterThan(64 * MIB);
    expect(things.failures).toEqual([]);
  });

  it('has a bound that its route says', async () => {
    const at = '/thing/v3/small/x';
    for (const how of ['content-length', 'transfer-encoding']) {
      const put = (bytes: number) =>
        send('PUT', at, contentOf(bytes), { [how]: how === 'content-length' ? bytes : 'chunked' });
      expect([how, (await put(1000)).status]).toEqual([how, 200]);
      expect([how, (await put(1001)).status]).toEqual([how, 413]);
    }
  });
});

describe('a client that goes away', () => {
  it.each([
    ['with a length', { 'content-length': 1000 }, 'x'.repeat(999)],
    ['in chunks', { 'transfer-encoding': 'chunked' }, '5\r\nhello\r\n'],
    ['within a chunk', { 'transfer-encoding': 'chunked' }, '3e8\r\nhello'],
  ])('while it sends %s: the route hears of it', async (_what, headers, part) => {
    const client = await wire();
    client.head('PUT', '/thing/v3/things/x', { 'x-auth-token': token, ...headers }).say(part);
    await until('some of it', () => things.arrived() > part.length);
    client.end();
    await until('the route heard', () => things.failures.length > 0);
    expect(things.failures).toEqual(['The body ended early.']);
  });

  it('sends no more than it said, and no chunk that is none', async () => {
    const client = await wire();
    client
      .head('PUT', '/thing/v3/things/x', { 'x-auth-token': token, 'transfer-encoding': 'chunked' })
      .say('5\r\nhello\r\nzz\r\n');
    await client.gone();
    expect(client.statuses.at(-1)).toBe(400);
    const both = await wire();
    both.head('PUT', '/thing/v3/things/x', { 'content-length': 5, 'transfer-encoding': 'chunked' });
    await both.gone();
    expect(both.statuses).toEqual([400]);
  });

  it('while it is sent something: nothing more is made', async () => {
    const client = await wire();
    client.pause();
    client.head('GET', `/thing/v3/things/${2 ** 40}`, { 'x-auth-token': token });
    await until('some of it', () => things.sent > MIB);
    client.end();
    await until('the route heard', () => things.failures.length > 0);
    expect(things.failures).toEqual(['download']);
  });

  it('holds no quota', async () => {
    const client = await wire();
    client.head('PUT', '/thing/v3/counted/x', { 'x-auth-token': token, 'content-length': 1000 }).say('x');
    const held = async () => {
      const admin = await cloud.admin();
      const projectId = await cloud.idOf('projects', 'demo', admin);
      return (await cloud.catalog.quotas.show({ projectId, userId: null })).find(
        ({ resource }) => resource === 'object_bytes',
      )!;
    };
    await until('it is reserved', async () => (await held()).reserved === 1000);
    client.end();
    await until('it is not', async () => (await held()).reserved === 0);
    expect((await held()).used).toBe(0);
  });
});

describe('100 Continue', () => {
  /** @returns what curl says of the connection, and the body */
  async function curl(path: string, bytes: number, headers: string[]): Promise<{ said: string; status: string }> {
    const words = ['-sv', '--expect100-timeout', '60', '-H', 'Expect: 100-continue', '-o', '/dev/null'];
    const all = [...words, ...headers.flatMap((header) => ['-H', header]), '-w', '%{http_code}', '-T', '-'];
    const child = spawn('curl', [...all, `http://127.0.0.1:${port}${path}`], { stdio: ['pipe', 'pipe', 'pipe'] });
    const chunks = { out: [] as Buffer[], err: [] as Buffer[] };
    child.stdout.on('data', (chunk: Buffer) => chunks.out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => chunks.err.push(chunk));
    child.stdin.on('error', () => undefined).end(contentOf(bytes));
    await new Promise((resolve) => child.once('close', resolve));
    return { said: Buffer.concat(chunks.err).toString(), status: Buffer.concat(chunks.out).toString() };
  }
  const CONTINUE = '< HTTP/1.1 100 Continue';
  const demo = () => `X-Auth-Token: ${token}`;

  it('comes when the token is good, and the body is read', async () => {
    const { said, status } = await curl('/thing/v3/things/x', MIB, [demo()]);
    expect(status).toBe('200');
    expect(said).toContain(CONTINUE);
    const counted = await curl('/thing/v3/counted/x', MIB, [demo()]);
    expect([counted.status, counted.said.includes(CONTINUE)]).toEqual(['200', true]);
  });

  it.each([
    ['without a token', '/thing/v3/things/x', () => [], '401'],
    ['to where nothing is', '/thing/v4/things/x', () => [demo()], '404'],
    ['in a version that is not there', '/thing/v3/things/x', () => [demo(), 'OpenStack-API-Version: thing 9.9'], '406'],
    ['with more than may be', '/thing/v3/small/x', () => [demo(), 'Content-Length: 1001', 'Transfer-Encoding:'], '413'],
    ['with what is no JSON', '/identity/v3/users', () => [demo(), 'Content-Type: text/plain'], '405'],
  ])('does not come %s', async (_what, path, headers, expected) => {
    const { said, status } = await curl(path, 1001, headers());
    expect([status, said.includes(CONTINUE)]).toEqual([expected, false]);
    expect(said).toMatch(/^< connection: close/im);
  });

  it('does not come when the quota is used up, and does when it is not', async () => {
    const admin = await cloud.admin();
    const projectId = await cloud.idOf('projects', 'demo', admin);
    const bytes = 4000;
    const length = [demo(), `Content-Length: ${bytes}`, 'Transfer-Encoding:'];
    const used = (await cloud.catalog.quotas.show({ projectId, userId: null })).find(
      ({ resource }) => resource === 'object_bytes',
    )!.used;
    await cloud.catalog.quotas.set({ projectId, userId: null }, { object_bytes: used + bytes - 1 });
    const refused = await curl('/thing/v3/counted/x', bytes, length);
    expect([refused.status, refused.said.includes(CONTINUE)]).toEqual(['413', false]);
    await cloud.catalog.quotas.set({ projectId, userId: null }, { object_bytes: used + bytes });
    const taken = await curl('/thing/v3/counted/x', bytes, length);
    expect([taken.status, taken.said.includes(CONTINUE)]).toEqual(['200', true]);
    await cloud.catalog.quotas.set({ projectId, userId: null }, { object_bytes: 'default' });
  });

  it('leaves the connection for more requests; the refusal ends it', async () => {
    const client = await wire();
    const headers = { expect: '100-continue', 'content-length': 5 };
    client.head('PUT', '/thing/v3/things/x', { 'x-auth-token': token, ...headers });
    await client.answers(1);
    client.say('hello');
    await client.answers(2);
    client.head('PUT', '/thing/v3/things/x', headers);
    await client.gone();
    expect(client.statuses).toEqual([100, 200, 401]);
  });
});
