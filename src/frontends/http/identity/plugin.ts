/** /identity: Keystone v3 (docs/identity.md). One file per noun; each route asks the policy before it does anything. */
import type { FastifyInstance } from 'fastify';
import type { Http, HttpContext } from '../context.ts';
import { unauthorized } from '../errors.ts';
import { Accounts } from './accounts.ts';
import { applicationCredentialRoutes } from './application-credentials.ts';
import { assignmentRoutes } from './assignments.ts';
import { authRoutes } from './auth-routes.ts';
import { Authentication, TOKEN_LIFE_MS } from './authentication.ts';
import { domainRoutes } from './domains.ts';
import { endpointRoutes } from './endpoints.ts';
import { groupRoutes } from './groups.ts';
import { type IdentityContext, type IdentityRoutes, keepSession } from './identity-context.ts';
import { projectRoutes } from './projects.ts';
import { regionRoutes } from './regions.ts';
import { roleRoutes } from './roles.ts';
import { serviceRoutes } from './services.ts';
import { TokenKeys } from './token-keys.ts';
import { userRoutes } from './users.ts';

/** how often expired revocations and old keys are looked for */
const HOUSEKEEPING_MS = 6 * 3600_000;

/** what needs no token */
const OPEN = new Set(['GET /', 'HEAD /', 'GET /v3', 'HEAD /v3', 'POST /v3/auth/tokens']);

const ROUTES: readonly IdentityRoutes[] = [
  authRoutes,
  userRoutes,
  projectRoutes,
  domainRoutes,
  groupRoutes,
  roleRoutes,
  assignmentRoutes,
  serviceRoutes,
  endpointRoutes,
  regionRoutes,
  applicationCredentialRoutes,
];

export async function identityPlugin(instance: FastifyInstance, { context }: { context: HttpContext }): Promise<void> {
  const app = instance as unknown as Http;
  const accounts = new Accounts(context.catalog);
  const keys = new TokenKeys(context.catalog.folder, TOKEN_LIFE_MS);
  const authentication = new Authentication(accounts, keys);
  const link = (path: string) => `${context.publicUrl()}/identity/v3${path}`;
  const identity: IdentityContext = { ...context, accounts, authentication, link };

  const housekeeping = setInterval(() => {
    const now = Date.now();
    keys.rotate(now);
    context.catalog
      .write([{ do: 'purge', table: 'revocation', column: 'expires_at', below: now }])
      .catch((error: Error) => context.log('warn', 'identity.housekeeping', { message: error.message }));
  }, HOUSEKEEPING_MS);
  housekeeping.unref();
  app.addHook('onClose', async () => clearInterval(housekeeping));

  // Before the body is read: nobody without a token makes us read one.
  app.addHook('onRequest', async (request, reply) => {
    reply.header('vary', 'X-Auth-Token');
    const { url } = request.routeOptions;
    if (url === undefined) return;
    const route = url.slice('/identity'.length).replace(/\/$/, '') || '/';
    if (OPEN.has(`${request.method} ${route}`)) return;
    const text = request.headers['x-auth-token'];
    const session = typeof text === 'string' ? await authentication.session(text) : null;
    if (session === null) {
      reply.header('www-authenticate', `Keystone uri="${context.publicUrl()}/identity"`);
      throw unauthorized();
    }
    keepSession(request, session);
  });
  const version = () => ({
    id: 'v3.14',
    status: 'stable',
    updated: '2020-04-07T00:00:00Z',
    links: [{ rel: 'self', href: link('/') }],
    'media-types': [{ base: 'application/json', type: 'application/vnd.openstack.identity-v3+json' }],
  });
  app.get('/', async (_request, reply) => reply.code(300).send({ versions: { values: [version()] } }));
  app.get('/v3', async () => ({ version: version() }));
  for (const routes of ROUTES) routes(app, identity);
}
