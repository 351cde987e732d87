/** What the identity routes get. */
import type { FastifyRequest } from 'fastify';
import type { Http, HttpContext } from '../context.ts';
import { unauthorized } from '../errors.ts';
import type { Accounts } from './accounts.ts';
import type { Authentication, Session } from './authentication.ts';

export interface IdentityContext extends HttpContext {
  accounts: Accounts;
  authentication: Authentication;
  /** an absolute URL below /identity/v3 */
  link: (path: string) => string;
}

export type IdentityRoutes = (app: Http, context: IdentityContext) => void;

const sessions = new WeakMap<FastifyRequest, Session>();

export function keepSession(request: FastifyRequest, session: Session): void {
  sessions.set(request, session);
}

/** The token that a request came with. @throws {HttpError} 401 on a route that asks for none */
export function sessionOf(request: FastifyRequest): Session {
  const session = sessions.get(request);
  if (!session) throw unauthorized();
  return session;
}
