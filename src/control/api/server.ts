/**
 * HTTP and JSON over the control socket: docs/control-api.md. Routes are in the files beside this one, one per noun; each is
 * schema, one call, reply. What is common to all is here: limits, validation, errors, ids.
 */

import { STATUS_CODES } from 'node:http';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import { type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import { buildLazyValidator } from '../../frontends/http/validators.ts';
import { describeError, ERRORS, type ErrorBody, type ErrorCode } from '../errors.ts';
import { requestIdSource, requestIds } from '../request-ids.ts';
import type { Api, ApiContext } from './context.ts';
import { daemonRoutes } from './daemon.ts';
import { INGEST_BODY_BYTES_MAX, ingestRoutes } from './ingests.ts';
import { metricsRoutes } from './metrics.ts';
import { mountRoutes } from './mounts.ts';
import { passwordRoutes } from './passwords.ts';
import { poolRoutes } from './pools.ts';
import { quotaRoutes } from './quotas.ts';
import { followRequest, requestFailed } from './request-log.ts';
import { snapshotRoutes } from './snapshots.ts';
import { transferRoutes } from './transfers.ts';
import { volumeRoutes } from './volumes.ts';

/** the largest request is a pool with a long path */
export const BODY_BYTES_MAX = 64 * 1024;
/** a request that has not arrived whole by then is given up */
export const REQUEST_MS_MAX = 30_000;
export const CONNECTIONS_MAX = 256;
/** percent-encoded, three bytes for one: twice what a name may have, so that names.ts can say what is wrong */
const PARAM_LENGTH_MAX = 2048;

function newServer({ log, metrics }: ApiContext, requestMs: number): Api {
  return fastify({
    logger: false,
    genReqId: requestIdSource(),
    bodyLimit: BODY_BYTES_MAX,
    requestTimeout: requestMs,
    // How late a late request may be noticed; Node's own default would be half a minute more.
    http: { headersTimeout: requestMs, connectionsCheckingInterval: Math.min(1000, requestMs) },
    routerOptions: { maxParamLength: PARAM_LENGTH_MAX },
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, allErrors: false } },
    schemaController: { compilersFactory: { buildValidator: buildLazyValidator } },
    frameworkErrors: (error, request, reply) => {
      followRequest(log, metrics, request as FastifyRequest, reply as FastifyReply);
      requestFailed(request as FastifyRequest, error);
      sendError(reply as FastifyReply, error);
    },
    clientErrorHandler: (error, socket) => {
      if (!socket.writable) return void socket.destroy();
      const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT';
      socket.end(
        late
          ? rawResponse('TIMEOUT', `the request did not arrive within ${requestMs / 1000} seconds`)
          : rawResponse('INVALID', 'what was sent is no HTTP request, or too long for one'),
      );
    },
    forceCloseConnections: true,
  }).withTypeProvider<TypeBoxTypeProvider>();
}

export interface ApiOptions {
  /** hears of every route; for the test that compares them with their documentation */
  onRoute?: (method: string, url: string) => void;
  requestMs?: number;
  ingestBodyBytesMax?: number;
}

export function buildApi(
  context: ApiContext,
  { onRoute, requestMs = REQUEST_MS_MAX, ingestBodyBytesMax = INGEST_BODY_BYTES_MAX }: ApiOptions = {},
): Api {
  const app = newServer(context, requestMs);
  app.addHook('onRoute', ({ method, url }) => {
    for (const one of [method].flat()) onRoute?.(one, url);
  });
  app.removeContentTypeParser('text/plain');
  app.server.maxConnections = CONNECTIONS_MAX;
  app.setNotFoundHandler((request, reply) => {
    void reply.code(404).send(errorBody('NO_ROUTE', `there is no ${request.method} ${request.url.slice(0, 200)} here`));
  });
  app.setErrorHandler((error, request, reply) => {
    requestFailed(request, error);
    sendError(reply, error);
  });
  app.addHook('onRequest', (request, reply, done) => {
    followRequest(context.log, context.metrics, request, reply);
    done();
  });
  // Not earlier: who waits for the body comes back without it.
  app.addHook('preHandler', (request, _reply, done) => requestIds.run(request.id, done));
  daemonRoutes(app, context);
  metricsRoutes(app, context);
  passwordRoutes(app, context);
  quotaRoutes(app, context);
  poolRoutes(app, context);
  volumeRoutes(app, context);
  snapshotRoutes(app, context);
  transferRoutes(app, context);
  ingestRoutes(app, context, ingestBodyBytesMax);
  mountRoutes(app, context);
  return app;
}

function sendError(reply: FastifyReply, error: unknown): void {
  const body = bodyOf(error);
  void reply.code(ERRORS[body.error.code].http).send(body);
}

function errorBody(code: ErrorCode, message: string): ErrorBody {
  return { error: { code, message } };
}

/** codes of fastify's own errors, where they mean more than a bad request */
const FRAMEWORK_CODES: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'BODY_TOO_LARGE',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'MEDIA_TYPE',
};

function bodyOf(error: unknown): ErrorBody {
  const { code, statusCode, validation, message } = error as {
    code?: string;
    statusCode?: number;
    validation?: unknown;
    message: string;
  };
  if (code !== undefined && Object.hasOwn(FRAMEWORK_CODES, code)) return errorBody(FRAMEWORK_CODES[code]!, message);
  if (validation || (statusCode !== undefined && statusCode >= 400 && statusCode < 500)) {
    return errorBody('INVALID', describeError({ message }).message);
  }
  return { error: describeError(error) };
}

/** For what never became a request. */
function rawResponse(code: ErrorCode, message: string): string {
  const body = JSON.stringify(errorBody(code, message));
  const { http: status } = ERRORS[code];
  const head = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json\r\n`;
  return `${head}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`;
}
