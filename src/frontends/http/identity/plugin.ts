/** /identity: Keystone v3 (docs/identity.md). One file per noun; each route asks the policy before it does anything. */
import type { Http } from '../context.ts';
import type { Service } from '../service.ts';
import { accessRuleRoutes } from './access-rule-routes.ts';
import { applicationCredentialRoutes } from './application-credentials.ts';
import { assignmentRoutes } from './assignments.ts';
import { authRoutes } from './auth-routes.ts';
import { domainRoutes } from './domains.ts';
import { endpointRoutes } from './endpoints.ts';
import { grantRoutes } from './grants.ts';
import { groupRoutes } from './groups.ts';
import type { IdentityContext, IdentityRoutes } from './identity-context.ts';
import { impliedRoleRoutes } from './implied-roles.ts';
import { limitRoutes } from './limits.ts';
import { projectDeletionRoutes } from './project-deletion.ts';
import { projectRoutes } from './projects.ts';
import { regionRoutes } from './regions.ts';
import { roleRoutes } from './roles.ts';
import { serviceRoutes } from './services.ts';
import { userRoutes } from './users.ts';

/** how often expired revocations and old keys are looked for */
const HOUSEKEEPING_MS = 6 * 3600_000;

const ROUTES: readonly IdentityRoutes[] = [
  authRoutes,
  userRoutes,
  projectRoutes,
  projectDeletionRoutes,
  domainRoutes,
  groupRoutes,
  roleRoutes,
  impliedRoleRoutes,
  grantRoutes,
  assignmentRoutes,
  serviceRoutes,
  endpointRoutes,
  regionRoutes,
  applicationCredentialRoutes,
  accessRuleRoutes,
  limitRoutes,
];

export const identityService: Service = {
  type: 'identity',
  mount: '/identity',
  open: new Set(['GET /', 'HEAD /', 'GET /v3', 'HEAD /v3', 'POST /v3/auth/tokens']),
  routes: identityRoutes,
};

function identityRoutes(app: Http, identity: IdentityContext): void {
  const { catalog, keys, link, log } = identity;

  const housekeeping = setInterval(() => {
    const now = Date.now();
    keys.rotate(now);
    catalog
      .write([{ do: 'purge', table: 'revocation', column: 'expires_at', below: now }])
      .catch((error: Error) => log('warn', 'identity.housekeeping', { message: error.message }));
  }, HOUSEKEEPING_MS);
  housekeeping.unref();
  app.addHook('onClose', async () => clearInterval(housekeeping));

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
