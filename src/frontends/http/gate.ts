/** Who comes in: the token of a request, looked at before anything else of it is. */
import type { FastifyRequest } from 'fastify';
import type { Http } from './context.ts';
import { unauthorized } from './errors.ts';
import { permitted } from './identity/access-rules.ts';
import type { Session } from './identity/authentication.ts';
import type { IdentityContext } from './identity/identity-context.ts';

const sessions = new WeakMap<FastifyRequest, Session>();

/** The token that a request came with. @throws {HttpError} 401 on a route that asks for none */
export function sessionOf(request: FastifyRequest): Session {
  const session = sessions.get(request);
  if (!session) throw unauthorized();
  return session;
}

/** of a service, what the gate needs to know */
export interface Guarded {
  /** its type in the catalog, which access rules name */
  type: string;
  /** its path below the public URL */
  mount: string;
  /** routes that need no token: `GET /v3` */
  open: ReadonlySet<string>;
}

/** Before the body is read: nobody without a token makes us read one. */
export function guard(app: Http, identity: IdentityContext, service: Guarded): void {
  app.addHook('onRequest', async (request, reply) => {
    reply.header('vary', 'X-Auth-Token');
    const { url } = request.routeOptions;
    if (url === undefined) return;
    const route = url.slice(service.mount.length).replace(/\/$/, '') || '/';
    if (service.open.has(`${request.method} ${route}`)) return;
    const text = request.headers['x-auth-token'];
    const session = typeof text === 'string' ? await identity.authentication.session(text) : null;
    if (session === null || !mayAsk(session, request, service)) {
      reply.header('www-authenticate', `Keystone uri="${identity.publicUrl()}/identity"`);
      throw unauthorized();
    }
    sessions.set(request, session);
  });
}

/** Whether the access rules of an application credential, if it has any, let the request be. */
export function mayAsk(session: Session, request: FastifyRequest, { type, mount }: Guarded): boolean {
  const rules = session.credential?.accessRules ?? [];
  const path = request.url.split('?', 1)[0]!;
  return rules.length === 0 || permitted(rules, { service: type, method: request.method, path }, mount);
}
