/** /v3/auth: tokens, and what a token can reach. */
import { Type } from '@sinclair/typebox';
import type { FastifyRequest } from 'fastify';
import { badRequest, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { AuthRequest } from './auth-schemas.ts';
import type { Session } from './authentication.ts';
import { listQuery } from './bodies.ts';
import { shownDomains } from './domains.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { list, pageOf } from './lists.ts';
import { enforce, may } from './policy.ts';
import { serviceCatalog, shownToken } from './shown.ts';
import { shownProjects } from './shown-projects.ts';

/** what a service says that heeds access rules: the version of them that it understands */
const RULES_HEADER = 'openstack-identity-access-rules';
const NoCatalog = Type.Object({ nocatalog: Type.Optional(Type.String()) });

export const authRoutes: IdentityRoutes = (app, context) => {
  const { accounts, authentication } = context;

  app.post('/v3/auth/tokens', { schema: { body: AuthRequest, querystring: NoCatalog } }, async (request, reply) => {
    const { text, session } = await authentication.login(request.body);
    reply.code(201).header('x-subject-token', text);
    return shownToken(session, context, request.query.nocatalog !== undefined);
  });

  /** Whoever may not see another's token hears the same as of one that is none. */
  async function subject(request: FastifyRequest, action: 'validate_token' | 'revoke_token'): Promise<Session> {
    const text = request.headers['x-subject-token'];
    if (typeof text !== 'string') throw badRequest('the header X-Subject-Token is missing');
    const session = await authentication.session(text);
    if (!session || !may(action, sessionOf(request), { userId: session.userId }))
      throw notFound('token', 'it is none, or not yours');
    return session;
  }

  app.get('/v3/auth/tokens', { schema: { querystring: NoCatalog } }, async (request, reply) => {
    const session = await subject(request, 'validate_token');
    // A service that does not know access rules would let everything be.
    if (session.credential?.accessRules.length && Number(request.headers[RULES_HEADER] ?? 0) < 1)
      throw notFound('token', 'its access rules have to be understood');
    reply.header('x-subject-token', request.headers['x-subject-token']);
    return shownToken(session, context, request.query.nocatalog !== undefined);
  });

  app.delete('/v3/auth/tokens', async (request, reply) => {
    await authentication.revoke((await subject(request, 'revoke_token')).token);
    return reply.code(204).send();
  });

  app.get('/v3/auth/catalog', async (request) => {
    enforce('get_auth_catalog', sessionOf(request));
    return {
      catalog: await serviceCatalog(sessionOf(request), context),
      links: { self: context.link('/auth/catalog') },
    };
  });

  app.get('/v3/auth/projects', { schema: { querystring: listQuery() } }, async (request) => {
    const rows = await accounts.projectsOf(sessionOf(request).userId, pageOf(request), 1);
    return list('projects', await shownProjects(rows, context), request, context);
  });

  app.get('/v3/auth/domains', { schema: { querystring: listQuery() } }, async (request) => {
    const rows = await accounts.domainsOf(sessionOf(request).userId, pageOf(request), 1);
    return list('domains', shownDomains(rows, context.link), request, context);
  });

  app.get('/v3/auth/system', async (request) => {
    const all = (await accounts.assignments(sessionOf(request).userId)).some(
      ({ project_id, domain_id }) => project_id === null && domain_id === null,
    );
    return { system: all ? [{ all: true }] : [], links: { self: context.link('/auth/system') } };
  });
};
