/**
 * What a service of the front door is: a path, a fastify plugin below it, and what is common to all, which is done for it. A route of it
 * hears of a request whose token is good (gate.ts) and whose microversion it has (microversions.ts); bodies come as JSON that its schema
 * lets pass, or, in `streamed`, as streams.
 */

import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Http } from './context.ts';
import { type Guarded, guard } from './gate.ts';
import type { IdentityContext } from './identity/identity-context.ts';
import { type MicroversionRange, negotiate } from './microversions.ts';
import type { RequestBody } from './request-body.ts';

export interface Service extends Guarded {
  /** without it there are no versions to choose from */
  microversions?: MicroversionRange;
  routes: (app: Http, identity: IdentityContext) => void;
  /** Takes away all that it has for a project, which is to be deleted with what it holds. */
  emptyProject?: (projectId: string, identity: IdentityContext) => Promise<void>;
}

export function addService(app: Http, identity: IdentityContext, service: Service): void {
  const plugin = async (instance: FastifyInstance) => {
    const inner = instance as unknown as Http;
    guard(inner, identity, service);
    if (service.microversions) negotiate(inner, service.microversions);
    service.routes(inner, identity);
  };
  const { emptyProject } = service;
  if (emptyProject) identity.emptying.push((projectId) => emptyProject(projectId, identity));
  void app.register(plugin, { prefix: service.mount });
}

/**
 * Routes whose bodies are streams, of whatever content type: `streamOf` has them. Each says how much it takes (`bodyLimit`; else it is as
 * much as of JSON).
 */
export function streamed(app: Http, routes: (app: Http) => void): void {
  void app.register(async (instance) => {
    const inner = instance as unknown as Http;
    inner.removeAllContentTypeParsers();
    inner.addContentTypeParser('*', (_request, payload, done) => done(null, payload));
    routes(inner);
  });
}

/** The body of a request to a route in `streamed`; null: it has none. Who reads it may be slow: the client then waits. */
export function streamOf(request: FastifyRequest): RequestBody | null {
  return (request.body as RequestBody | undefined) ?? null;
}
