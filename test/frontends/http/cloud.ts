/** A catalog and the front door on it, in this process, for tests. Compiled, since the catalog's thread is. */
import fs from 'node:fs';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import type { Http } from '../../../src/frontends/http/context.ts';
import type { HttpLimits } from '../../../src/frontends/http/limits.ts';
import type { Tls } from '../../../src/frontends/http/listener.ts';
import { RouteTable } from '../../../src/frontends/http/routes.ts';
import type { Service } from '../../../src/frontends/http/service.ts';

const catalogModule = '../../../dist/src/control/catalog/catalog.js';
const listenerModule = '../../../dist/src/frontends/http/listener.js';
const serviceModule = '../../../dist/src/frontends/http/service.js';
const microversionsModule = '../../../dist/src/frontends/http/microversions.js';
const gateModule = '../../../dist/src/frontends/http/gate.js';
const { LocalCatalog: Local } = (await import(
  catalogModule
)) as typeof import('../../../src/control/catalog/catalog.ts');
const { buildHttp, SERVICES } = (await import(
  listenerModule
)) as typeof import('../../../src/frontends/http/listener.ts');
// What a service is made with, of the same modules as the front door.
export const { streamed, streamOf } = (await import(
  serviceModule
)) as typeof import('../../../src/frontends/http/service.ts');
export const { Microversion, microversionOf } = (await import(
  microversionsModule
)) as typeof import('../../../src/frontends/http/microversions.ts');
export const { sessionOf } = (await import(gateModule)) as typeof import('../../../src/frontends/http/gate.ts');

export const PUBLIC_URL = 'http://cloud.example:1234';

/** what is not below /identity/v3 */
const ELSEWHERE = /^\/(identity|volume|image|thing|healthcheck|metrics|docs|openapi\.json|auth\/v1\.0)\b/;

export interface Answer {
  status: number;
  headers: Record<string, string | string[] | number | undefined>;
  // biome-ignore lint/suspicious/noExplicitAny: what a test looks into is what it asserts
  body: any;
}

export interface Ask {
  token?: string | undefined;
  body?: unknown;
  headers?: Record<string, string>;
}

export class Cloud {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-cloud-'));
  readonly folder = path.join(this.dir, 'cloud');
  readonly logged: string[] = [];
  readonly routes = new RouteTable();
  catalog!: LocalCatalog;
  app!: Http;

  /**
   * @param url of a PostgreSQL database that has the catalog, in the place of a file
   * @param more services besides those that there are
   */
  constructor(
    readonly url?: string,
    private readonly more: readonly Service[] = [],
    private readonly limits: Partial<HttpLimits> = {},
    private readonly tls?: Tls,
  ) {}

  async open(): Promise<this> {
    const onFatal = (reason: string) => void this.logged.push(`fatal ${reason}`);
    this.catalog = Local.open(this.folder, onFatal, { url: this.url });
    const context = {
      catalog: this.catalog,
      log: (level: string, event: string, fields: object) =>
        void this.logged.push(`${level} ${event} ${JSON.stringify(fields)}`),
      publicUrl: () => PUBLIC_URL,
      metrics: { contentType: 'text/plain; version=0.0.4', page: async () => 'atoll_test 1\n' },
    };
    const { routes, limits, more, tls } = this;
    this.app = buildHttp(context, { routes, limits, tls, services: [...SERVICES, ...more] });
    await this.app.ready();
    await this.catalog.start();
    return this;
  }

  /** On a port of loopback, for real sockets. @returns it */
  async listen(): Promise<number> {
    await this.app.listen({ host: '127.0.0.1', port: 0 });
    return (this.app.server.address() as AddressInfo).port;
  }

  async reopen(): Promise<void> {
    await this.close();
    await this.open();
  }

  async close(): Promise<void> {
    await this.app.close();
    await this.catalog.close();
  }

  async end(): Promise<void> {
    await this.close();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  password(name: 'admin' | 'demo'): string {
    const file = JSON.parse(fs.readFileSync(path.join(this.folder, 'openrc.json'), 'utf8')) as {
      users: Record<string, { password: string }>;
    };
    return file.users[name]!.password;
  }

  async call(method: string, url: string, { token, body, headers = {} }: Ask = {}): Promise<Answer> {
    const response = await this.app.inject({
      method: method as 'GET',
      url: ELSEWHERE.test(url) ? url : `/identity/v3${url}`,
      headers: { ...(token === undefined ? {} : { 'x-auth-token': token }), ...headers },
      ...(body === undefined ? {} : { payload: body as object }),
    });
    const text = response.body;
    const isJson = text !== '' && String(response.headers['content-type']).startsWith('application/json');
    return { status: response.statusCode, headers: response.headers, body: isJson ? JSON.parse(text) : text };
  }

  /** @returns the answer to a login by password */
  login(name: string, password: string, scope?: unknown, domain = 'default'): Promise<Answer> {
    const user = { name, domain: { id: domain }, password };
    const auth = { identity: { methods: ['password'], password: { user } }, ...(scope === undefined ? {} : { scope }) };
    return this.call('POST', '/auth/tokens', { body: { auth } });
  }

  /** @returns a token of a user, for a scope */
  async token(name: string, password: string, scope?: unknown, domain?: string): Promise<string> {
    const answer = await this.login(name, password, scope, domain);
    if (answer.status !== 201) throw new Error(`login of ${name}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return String(answer.headers['x-subject-token']);
  }

  admin(): Promise<string> {
    return this.token('admin', this.password('admin'), inProject('admin'));
  }

  demo(): Promise<string> {
    return this.token('demo', this.password('demo'), inProject('demo'));
  }

  /** Makes one. @returns its id */
  async make(noun: string, one: string, body: object, token: string): Promise<string> {
    const answer = await this.call('POST', `/${noun}`, { token, body: { [one]: body } });
    if (answer.status !== 201) throw new Error(`a new ${one}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body[one].id as string;
  }

  /** The one of that name. */
  async idOf(noun: string, name: string, token: string): Promise<string> {
    const { body } = await this.call('GET', `/${noun}?name=${encodeURIComponent(name)}`, { token });
    return body[noun][0].id as string;
  }
}

export const inProject = (name: string, domain = 'default') => ({ project: { name, domain: { id: domain } } });
export const inDomain = (id: string) => ({ domain: { id } });
export const inSystem = { system: { all: true } };
