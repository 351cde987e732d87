/** Versions of an API within a service, chosen by a header; and the documents that say which services have which versions. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cloud, Microversion } from './cloud.ts';
import { Things } from './things.ts';

const cloud = new Cloud(undefined, [new Things().service]);
let token: string;
beforeAll(async () => {
  await cloud.open();
  token = await cloud.demo();
});
afterAll(() => cloud.end());

const ask = (asked?: string, path = '/thing/v3/version') =>
  cloud.call('GET', path, { token, headers: asked === undefined ? {} : { 'openstack-api-version': asked } });

describe('a service with microversions', () => {
  it.each([
    ['no header', undefined, '3.0'],
    ['the least', 'thing 3.0', '3.0'],
    ['one between', 'thing 3.7', '3.7'],
    ['ten and more', 'thing 3.12', '3.12'],
    ['the last', 'thing latest', '3.12'],
    ['another service’s', 'volume 3.70', '3.0'],
    ['several services’', 'compute 2.1, thing 3.5,identity 3', '3.5'],
    ['two of its own', 'thing 3.5, thing 3.6', '3.6'],
    ['more spaces', '  Thing   3.5 ', '3.5'],
  ])('%s: %s is answered by %s, and says so', async (_what, asked, version) => {
    const answer = await ask(asked);
    expect([answer.status, answer.body]).toEqual([200, { version }]);
    expect(answer.headers['openstack-api-version']).toBe(`thing ${version}`);
    expect(answer.headers.vary).toBe('X-Auth-Token, OpenStack-API-Version');
  });

  it.each(['thing 3.13', 'thing 2.99', 'thing 4.0', 'thing 4.5'])(
    '%s is 406, and says which there are',
    async (asked) => {
      const answer = await ask(asked);
      const message = `Version ${asked.slice(6)} is not supported by the API. Minimum is 3.0 and maximum is 3.12.`;
      expect([answer.status, answer.body]).toEqual([406, { error: { code: 406, message, title: 'Not Acceptable' } }]);
      expect(answer.headers.vary).toBe('X-Auth-Token, OpenStack-API-Version');
      expect(answer.headers).not.toHaveProperty('openstack-api-version');
    },
  );

  it.each([
    'thing',
    'thing 3',
    'thing 3.x',
    'thing 3.05',
    'thing 03.5',
    'thing -3.5',
    'thing 3.5 3.6',
    'thing 3.99999',
  ])('%s is 400', async (asked) => {
    expect((await ask(asked)).status).toBe(400);
  });

  it('has routes in some of them only', async () => {
    const status = async (path: string, asked: string) => (await ask(`thing ${asked}`, `/thing/v3/${path}`)).status;
    expect([await status('new', '3.4'), await status('new', '3.5'), await status('new', 'latest')]).toEqual([
      404, 200, 200,
    ]);
    expect([await status('old', '3.0'), await status('old', '3.4'), await status('old', '3.5')]).toEqual([
      200, 200, 404,
    ]);
  });

  it('asks for the token first', async () => {
    const headers = { 'openstack-api-version': 'thing 9.9' };
    expect((await cloud.call('GET', '/thing/v3/version', { headers })).status).toBe(401);
  });
});

describe('a service without', () => {
  it('looks at no header', async () => {
    for (const asked of ['identity 9.9', 'identity nonsense', 'latest']) {
      const answer = await ask(asked, '/identity/v3/auth/projects');
      expect([answer.status, answer.headers.vary]).toEqual([200, 'X-Auth-Token']);
    }
  });
});

describe('microversions', () => {
  it('are in the order of numbers', () => {
    const of = (text: string) => Microversion.parse(text)!;
    const order = ['2.99', '3.0', '3.9', '3.10', '4.0'];
    for (const [at, one] of order.entries())
      for (const [after, other] of order.entries()) expect(of(one).isBelow(of(other))).toBe(at < after);
    expect([of('3.9999').minor, Microversion.parse('3.10000'), Microversion.parse('0.1')]).toEqual([9999, null, null]);
  });
});

describe('services that are not built', () => {
  it('have no version, where clients look for them, and are not in the catalog', async () => {
    for (const [url, status] of [
      ['/volume', 300],
      ['/volume/', 300],
      ['/image', 300],
      ['/image/', 300],
      ['/image/versions', 200],
    ] as const) {
      const answer = await cloud.call('GET', url);
      expect([url, answer.status, answer.body]).toEqual([url, status, { versions: [] }]);
    }
    for (const url of ['/volume/v3', '/image/v2/images'])
      expect((await cloud.call('GET', url, { token })).status).toBe(404);
    const { body } = await cloud.call('GET', '/auth/catalog', { token });
    expect(body.catalog.map(({ type }: { type: string }) => type)).toEqual(['identity']);
  });
});
