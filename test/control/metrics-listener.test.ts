/** Metrics over TCP: on loopback, for reading, and nothing else. */
import net from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { ControlError } from '../../src/control/errors.ts';
import { parseMetricsAddress } from '../../src/control/serve/addresses.ts';
import { MetricsListener } from '../../src/control/serve/metrics-listener.ts';
import { EngineError } from '../../src/xseg/types.ts';
import { FakeEngine, metricsOf } from './fake-engine.ts';
import { parsePage, sampleValue } from './metrics-page.ts';

const engine = new FakeEngine();
const listeners: MetricsListener[] = [];
let logged: string[] = [];
afterEach(async () => {
  for (const listener of listeners.splice(0)) await listener.close();
  engine.reset();
  logged = [];
});

async function listen(host = '127.0.0.1', port = 0): Promise<MetricsListener> {
  const log = (level: string, event: string) => void logged.push(`${level} ${event}`);
  const listener = await MetricsListener.start({ host, port }, metricsOf(engine), log);
  listeners.push(listener);
  return listener;
}

describe('addresses', () => {
  it.each([
    ['127.0.0.1:9187', { host: '127.0.0.1', port: 9187 }],
    ['127.255.255.254:0', { host: '127.255.255.254', port: 0 }],
    ['localhost:65535', { host: '127.0.0.1', port: 65535 }],
    ['[::1]:1', { host: '::1', port: 1 }],
  ])('%s', (text, address) => {
    expect(parseMetricsAddress(text)).toEqual(address);
  });

  it.each([
    ...['0.0.0.0:9187', '[::]:9187', '10.0.0.1:9187', '128.0.0.1:1', '126.255.255.255:1', '127.evil.example:1'],
    ...['example.org:9187', '[fe80::1]:9187', '[::ffff:10.0.0.1]:1', '127.0.0.1:65536', '127.0.0.1:-1', '127.0.0.1'],
    ...[':9187', '', '9187', 'tcp:127.0.0.1:9187', 'http://127.0.0.1:9187', 'unix:/x', '::1:9187'],
  ])('%j is refused', (text) => {
    expect(() => parseMetricsAddress(text)).toThrow(ControlError);
    try {
      parseMetricsAddress(text);
    } catch (error) {
      expect(error).toMatchObject({ code: 'INVALID' });
      expect((error as Error).message).not.toContain('\n');
    }
  });
});

describe('the listener', () => {
  it('serves the page where it says it does', async () => {
    const listener = await listen();
    expect(listener.url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/);
    const response = await fetch(`${listener.url}?x=1`);
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(sampleValue(parsePage(await response.text()), 'atoll_uptime_seconds')).toBe(100);
    const head = await fetch(listener.url, { method: 'HEAD' });
    expect([head.status, await head.text()]).toEqual([200, '']);
  });

  it('listens on loopback only', async () => {
    const { url } = await listen();
    const { port } = new URL(url);
    // Another address of this very machine that is not 127.0.0.1: nobody is there.
    await expect(
      new Promise((resolve, reject) => {
        const client = net.connect({ host: '127.0.0.2', port: Number(port) });
        client.once('connect', () => resolve('connected')).once('error', reject);
      }),
    ).rejects.toMatchObject({ code: 'ECONNREFUSED' });
  });

  it('has nothing else', async () => {
    const { url } = await listen();
    for (const path of ['/', '/v1/status', '/metrics/', '/metricsx', '/v1/volumes']) {
      expect((await fetch(new URL(path, url))).status, path).toBe(404);
    }
    for (const method of ['POST', 'DELETE', 'PUT']) {
      expect((await fetch(url, { method })).status, method).toBe(405);
      expect((await fetch(new URL('/v1/volumes', url), { method })).status, method).toBe(404);
    }
    expect(engine.calls).toEqual([]);
  });

  it('says so when there is no page, and logs what is ours', async () => {
    const { url } = await listen();
    engine.failures.set('activity', new EngineError('SHUTTING_DOWN', 'the daemon is stopping'));
    const stopping = await fetch(url);
    expect([stopping.status, await stopping.text()]).toEqual([503, 'the daemon is stopping\n']);
    expect(logged).toEqual([]);
    engine.failures.set('activity', new Error('a bug'));
    expect((await fetch(url)).status).toBe(500);
    expect(logged).toEqual(['error metrics']);
    expect((await fetch(url)).status).toBe(200);
  });

  it('says which port it cannot have', async () => {
    const { url } = await listen();
    const { port } = new URL(url);
    await expect(listen('127.0.0.1', Number(port))).rejects.toMatchObject({
      code: 'HELD',
      message: `metrics on 127.0.0.1:${port}: the address is in use`,
    });
  });

  it('ends with connections open', async () => {
    const { url } = await listen();
    const client = net.connect({ host: '127.0.0.1', port: Number(new URL(url).port) });
    await new Promise((resolve) => client.once('connect', resolve));
    const gone = new Promise((resolve) => client.once('close', resolve));
    client.on('error', () => undefined);
    await listeners.splice(0)[0]!.close();
    await gone;
    await expect(fetch(url)).rejects.toThrow();
  });
});
