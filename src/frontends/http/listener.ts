/**
 * The front door: one listener for all that speaks HTTP to users (docs/http.md). Services are plugins, one folder each; what is common
 * to all is here: limits, request ids, what is taken away from requests, /healthcheck.
 */

import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import {
  type FastifyHttpsOptions,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  fastify,
} from 'fastify';
import type { Http, HttpContext } from './context.ts';
import { answerOf, badRequest, HttpError } from './errors.ts';
import { identityOf } from './identity/identity-context.ts';
import { identityService } from './identity/plugin.ts';
import { type HttpLimits, LIMITS } from './limits.ts';
import { metricsPlugin } from './metrics.ts';
import { openApiRoutes } from './openapi.ts';
import { Pacer } from './pacer.ts';
import { hasBody, RequestBody, tooLarge } from './request-body.ts';
import { RouteTable } from './routes.ts';
import { addService, type Service } from './service.ts';
import { tempAuthPlugin } from './temp-auth/plugin.ts';
import { unbuiltRoutes } from './unbuilt.ts';
import { buildLazyValidator } from './validators.ts';

/** names and ids in a path */
const PARAM_LENGTH_MAX = 1024;
const PATH_LOGGED_MAX = 512;

export const SERVICES: readonly Service[] = [identityService];

/**
 * What other systems set between a gateway and a service. Here nobody is trusted to, and nothing reads them; they are taken away
 * first, so that nothing ever will (CVE-2026-22797).
 */
const FORGED_HEADERS =
  /^x-(user|project|tenant|domain|role|roles|is-admin|identity-status|service-(user|project|roles|identity)|system-scope|trust|openstack-request-id)\b/;

/** requests whose client waits for `100 Continue` */
const waiting = new WeakSet<IncomingMessage>();

/** what a client did that Node refuses itself, by its error's code; all else is 400 */
const CLIENT_ERRORS: Readonly<Record<string, number>> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 };

/** PEM */
export interface Tls {
  cert: Buffer;
  key: Buffer;
}

export interface HttpOptions extends Omit<HttpContext, 'publicUrl'> {
  host: string;
  port: number;
  /** default: where it listens */
  publicUrl?: string | undefined;
  tls?: Tls | undefined;
}

export class HttpListener {
  private constructor(
    private readonly app: Http,
    readonly url: string,
    readonly port: number,
    readonly publicUrl: string,
  ) {}

  /** @throws EADDRINUSE and the like, as Node has them */
  static async start(options: HttpOptions): Promise<HttpListener> {
    let publicUrl = options.publicUrl?.replace(/\/+$/, '') ?? '';
    const { catalog, log, metrics, tls } = options;
    const app = buildHttp({ catalog, log, metrics, publicUrl: () => publicUrl }, { tls });
    await app.listen({ host: options.host, port: options.port });
    const { port } = app.server.address() as AddressInfo;
    const url = `${tls ? 'https' : 'http'}://${options.host.includes(':') ? `[${options.host}]` : options.host}:${port}`;
    publicUrl ||= url;
    return new HttpListener(app, url, port, publicUrl);
  }

  close(): Promise<void> {
    return this.app.close();
  }
}

export interface BuildOptions {
  tls?: Tls | undefined;
  /** gets what there is */
  routes?: RouteTable;
  limits?: Partial<HttpLimits>;
  services?: readonly Service[];
}

export function buildHttp(context: HttpContext, options: BuildOptions = {}): Http {
  const { tls, routes = new RouteTable(), services = SERVICES } = options;
  const limits = { ...LIMITS, ...options.limits };
  const pacer = new Pacer(limits);
  const app = newServer(context.log, limits, tls);
  app.addHook('onRoute', ({ url, method, schema }) => routes.add(url, method, schema));
  takeJson(app);
  app.server.maxConnections = limits.connections;
  // Who asks first is told only when the body is read (request-body.ts).
  app.server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    waiting.add(request);
    app.server.emit('request', request, response);
  });
  app.addHook('onRequest', (request, reply, done) => {
    follow(context.log, request, reply);
    pacer.watch(request.raw, reply.raw, (what) => context.log('info', 'http.slow', { request: request.id, what }));
    for (const name of Object.keys(request.headers)) if (FORGED_HEADERS.test(name)) delete request.headers[name];
    done();
  });
  app.addHook('preParsing', (request, reply, payload, done) => {
    if (!hasBody(request.raw)) return done(null, payload);
    const { bodyLimit } = request.routeOptions;
    if (Number(request.headers['content-length'] ?? 0) > bodyLimit) return done(tooLarge(bodyLimit));
    const body = new RequestBody(request.raw, bodyLimit, () => {
      if (!waiting.delete(request.raw)) return;
      reply.removeHeader('connection');
      reply.raw.writeContinue();
    });
    pacer.paces(request.raw, body);
    done(null, body);
  });
  app.setNotFoundHandler((request, reply) => {
    const methods = routes.methodsOf(request.url.split('?', 1)[0]!);
    if (methods.length === 0) return sendError(reply, new HttpError(404, 'The resource could not be found.'));
    const message = 'The method is not allowed for the requested URL.';
    return sendError(reply, new HttpError(405, message, { Allow: methods.join(', ') }));
  });
  app.setErrorHandler((error, request, reply) => sendError(reply, answerOf(error, request.id, context.log)));
  app.get('/healthcheck', async (_request, reply) => {
    await context.catalog.reader();
    return reply.type('text/plain').send('OK');
  });
  openApiRoutes(app, routes, context.publicUrl);
  const identity = identityOf(context);
  for (const service of services) addService(app, identity, service);
  unbuiltRoutes(app);
  void app.register(tempAuthPlugin, { identity, prefix: '/auth' });
  if (context.metrics) void app.register(metricsPlugin, { identity, metrics: context.metrics });
  return app;
}

function newServer(log: HttpContext['log'], limits: HttpLimits, tls: Tls | undefined): Http {
  const http = {
    headersTimeout: limits.headersMs,
    connectionsCheckingInterval: limits.headersMs,
    maxHeaderSize: limits.headerBytes,
  };
  const options: FastifyServerOptions = {
    logger: false,
    genReqId: () => `req-${randomUUID()}`,
    bodyLimit: limits.bodyBytes,
    // Bodies have a pace, and no time.
    requestTimeout: 0,
    keepAliveTimeout: limits.idleMs,
    routerOptions: { maxParamLength: PARAM_LENGTH_MAX, ignoreTrailingSlash: true },
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: false } },
    schemaController: { compilersFactory: { buildValidator: buildLazyValidator } },
    frameworkErrors: (error, request, reply) => {
      follow(log, request as FastifyRequest, reply as FastifyReply);
      sendError(reply as FastifyReply, answerOf(error, request.id, log));
    },
    clientErrorHandler: ({ code }, socket) => {
      if (!socket.writable) return void socket.destroy();
      const status = CLIENT_ERRORS[code] ?? 400;
      socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);
    },
    forceCloseConnections: true,
  };
  if (tls) {
    // Its types differ in what nobody here uses.
    const withTls = { ...options, https: { ...http, ...tls } } as unknown as FastifyHttpsOptions<https.Server>;
    return fastify(withTls) as unknown as Http;
  }
  return fastify({ ...options, http }).withTypeProvider<TypeBoxTypeProvider>();
}

/** JSON and nothing else; some clients announce it for a body that is not there. */
function takeJson(app: Http): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body === '') return done(null, undefined);
    parse(request, body as string, (error, value) => {
      if (error) done(badRequest('The body is no JSON.'));
      else done(null, value);
    });
  });
}

/** Names the request to the client, and logs its end: without query and headers, which may hold secrets. */
function follow(log: HttpContext['log'], request: FastifyRequest, reply: FastifyReply): void {
  const started = performance.now();
  reply.header('x-openstack-request-id', request.id);
  // Who waits to be told to go on, and is not, may or may not send the body all the same.
  if (waiting.has(request.raw)) reply.header('connection', 'close');
  reply.raw.once('close', () => {
    const ms = Math.round((performance.now() - started) * 10) / 10;
    const path = request.url.split('?', 1)[0]!.slice(0, PATH_LOGGED_MAX);
    log('debug', 'http', { request: request.id, method: request.method, path, status: reply.raw.statusCode, ms });
  });
}

/** The shape that Keystone has, and Glance, Cinder and Nova understand. */
function sendError(reply: FastifyReply, error: HttpError): void {
  void reply
    .code(error.status)
    .headers(error.headers)
    .send({ error: { code: error.status, message: error.message, title: error.title } });
}
