/**
 * What is known of a request on the control socket when it is over: one line in the log, with the id that the client has in
 * a header and with the error, if there was one; and a count. Nothing else logs that error.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import { describeError, type ErrorCode } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { REQUEST_ID_HEADER } from '../request-ids.ts';

/** Ours, not the client's: somebody has to look at them. */
const OUR_ERRORS: ReadonlySet<ErrorCode> = new Set(['INTERNAL', 'IO', 'CORRUPT', 'POOL_FAILED']);
/** names in a path have up to 255 bytes each, percent-encoded */
const PATH_LENGTH_MAX = 2048;

/** what requests failed with; also those whose answer had begun by then */
const failures = new WeakMap<FastifyRequest, unknown>();

export function requestFailed(request: FastifyRequest, error: unknown): void {
  failures.set(request, error);
}

/** Names the request to the client, and waits for its end, however it ends. */
export function followRequest(log: Log, metrics: Metrics, request: FastifyRequest, reply: FastifyReply): void {
  const started = performance.now();
  reply.header(REQUEST_ID_HEADER, request.id);
  reply.raw.once('close', () => {
    const ms = performance.now() - started;
    const status = reply.raw.statusCode;
    logRequest(log, request, status, ms, reply.raw.writableFinished);
    metrics.controlRequest(routeOf(request), status, ms / 1000);
  });
}

/** The route as it is written down, so that there are as many as there are routes. */
function routeOf(request: FastifyRequest): string {
  const { url } = request.routeOptions;
  return url === undefined ? 'none' : `${request.method} ${url}`;
}

function logRequest(log: Log, request: FastifyRequest, status: number, ms: number, answered: boolean): void {
  const failure = failures.get(request);
  const fields: Record<string, unknown> = {
    request: request.id,
    method: request.method,
    // without the query: what may be in there some day is not for a log
    path: request.url.split('?', 1)[0]!.slice(0, PATH_LENGTH_MAX),
    status,
    ms: Math.round(ms * 10) / 10,
  };
  if (!answered) fields.gone = true;
  // Who only looks, such as what scrapes metrics, is not for everybody to read of.
  let level: 'debug' | 'info' | 'error' = request.method === 'GET' || request.method === 'HEAD' ? 'debug' : 'info';
  if (failure !== undefined) {
    const { code, message } = describeError(failure);
    fields.code = code;
    if (OUR_ERRORS.has(code)) {
      level = 'error';
      fields.message = message;
      if (code === 'INTERNAL') fields.stack = (failure as Error).stack;
    }
  }
  log(level, 'request', fields);
}
