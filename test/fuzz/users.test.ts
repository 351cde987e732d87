/**
 * What users send over HTTP: any body, any query, any header, to every route, by somebody who may do everything. Each is
 * answered, below 500, and afterwards the cloud is as sound as before. ATOLL_SEED gives a printed seed again.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LONG } from '../e2e/lib/long.ts';
import { Cloud } from '../frontends/http/cloud.ts';

const RUNS = LONG ? 20_000 : 600;
const TIMEOUT = 1_800_000;
const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);

/** what bodies of the identity API have: one of these, with fields of these */
const NOUNS = ['auth', 'user', 'project', 'domain', 'group', 'role', 'credential', 'region', 'service', 'endpoint'];
NOUNS.push('application_credential', 'limits', 'registered_limits', 'limit', 'policy');
const FIELDS = ['name', 'id', 'domain_id', 'project_id', 'parent_id', 'enabled', 'description', 'password', 'email'];
FIELDS.push('options', 'tags', 'type', 'url', 'interface', 'roles', 'scope', 'identity', 'methods', 'token', 'user');
FIELDS.push(
  'service_id',
  'resource_name',
  'default_limit',
  'resource_limit',
  'expires_at',
  'unrestricted',
  'access_rules',
);
const QUERIES = [
  'name',
  'name__contains',
  'limit',
  'marker',
  'sort_key',
  'sort_dir',
  'enabled',
  'domain_id',
  'parent_id',
];
QUERIES.push('effective', 'include_names', 'nocatalog', 'tags', 'not-tags-any', 'user.id', 'scope.project.id', 'q');
const HEADERS = [
  'openstack-api-version',
  'x-subject-token',
  'if-none-match',
  'range',
  'accept',
  'content-type',
  'authorization',
];
HEADERS.push(
  'x-service-token',
  'x-openstack-request-id',
  'x-storage-user',
  'x-storage-pass',
  'x-auth-user',
  'x-auth-key',
);

const value: fc.Arbitrary<unknown> = fc.oneof(
  { maxDepth: 3 },
  fc.jsonValue(),
  fc.string({ unit: 'binary' }),
  fc.constantFrom('', 'default', -1, 0, 1e308, 2 ** 53, '9'.repeat(40), '2038-01-19T03:14:08Z', null, [], {}),
);
const body = fc.oneof(
  fc.jsonValue(),
  fc
    .record({
      noun: fc.constantFrom(...NOUNS),
      fields: fc.dictionary(fc.constantFrom(...FIELDS), value, { maxKeys: 6 }),
    })
    .map(({ noun, fields }) => ({ [noun]: fields })),
);
/** Header values are bytes of latin-1 without controls: nothing else gets past the parser of HTTP. */
const headers = fc.dictionary(
  fc.constantFrom(...HEADERS),
  fc.oneof(
    fc.constantFrom('volume 3.70', 'volume latest', 'compute 2.1,volume 3.0', 'bytes=0-', '*/*', 'application/json'),
    fc.string({ unit: 'grapheme-ascii', maxLength: 300 }),
  ),
  { maxKeys: 3 },
);
/** Lone surrogates cannot be in a URL. */
const inUrl = (text: string) => encodeURIComponent(Buffer.from(text).toString());

describe(`users' HTTP (seed ${seed})`, () => {
  const cloud = new Cloud();
  /** of things that may be changed and deleted: the administrator's own are not among them */
  const ids: string[] = [];
  let token: string;

  beforeAll(async () => {
    await cloud.open();
    token = await cloud.admin();
    for (const name of ['one', 'two']) {
      ids.push(await cloud.make('projects', 'project', { name }, token));
      ids.push(await cloud.make('users', 'user', { name, password: 'a long password' }, token));
      ids.push(await cloud.make('groups', 'group', { name }, token));
      ids.push(await cloud.make('roles', 'role', { name }, token));
    }
  });
  afterAll(() => cloud.end());

  it('is answered below 500, whatever it is', { timeout: TIMEOUT }, async () => {
    const routes = [...cloud.routes].flatMap(({ url, methods }) =>
      [...methods.keys()].map((method) => ({ method, url })),
    );
    expect(routes.length).toBeGreaterThan(150);
    const word = fc.oneof(
      { weight: 3, arbitrary: fc.nat(ids.length - 1).map((n) => ids[n]!) },
      { weight: 2, arbitrary: fc.string({ unit: 'binary', minLength: 1, maxLength: 300 }) },
      { weight: 1, arbitrary: fc.constantFrom('default', '%00', '..', 'x'.repeat(5000)) },
    );
    const query = fc.dictionary(fc.constantFrom(...QUERIES), fc.string({ unit: 'binary' }), { maxKeys: 3 });
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        fc.array(word, { minLength: 6, maxLength: 6 }),
        query,
        body,
        headers,
        async (n, words, asked, sent, said) => {
          const { method, url } = routes[n % routes.length]!;
          let next = 0;
          const at = url.replaceAll(/:\w+|\*/g, () => inUrl(words[next++ % words.length]!));
          const search = Object.entries(asked).map(([name, text]) => `${name}=${inUrl(text)}`);
          const answer = await cloud.call(method, `${at}?${search.join('&')}`, {
            ...{ token, headers: { 'content-type': 'application/json', ...said } },
            ...(method === 'GET' || method === 'HEAD' ? {} : { body: JSON.stringify(sent) }),
          });
          expect(answer.status === 501 || answer.status < 500, `${method} ${at}: ${JSON.stringify(answer.body)}`).toBe(
            true,
          );
        },
      ),
      { seed, numRuns: RUNS },
    );
    expect(cloud.logged.filter((line) => /^(error|fatal)/.test(line))).toEqual([]);
    // whoever may do everything still may
    expect((await cloud.call('GET', '/users', { token })).status).toBe(200);
    expect((await cloud.call('GET', '/auth/tokens', { token, headers: { 'x-subject-token': token } })).status).toBe(
      200,
    );
  });
});
