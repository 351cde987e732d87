/** /v1/quotas: `atoll quota`. */
import type { Catalog } from '../catalog/catalog.ts';
import { isResource, RESOURCE_NAMES } from '../catalog/resources.ts';
import { OPERATOR_HEADER } from '../client.ts';
import { ControlError } from '../errors.ts';
import type { Api, ApiContext } from './context.ts';
import * as schemas from './schemas.ts';

const DEFAULT_DOMAIN = 'default';

interface Named {
  project: string;
  user?: string | undefined;
  domain?: string | undefined;
}

export function quotaRoutes(app: Api, context: ApiContext): void {
  app.get('/v1/quotas', { schema: { querystring: schemas.NoQuery } }, async () => ({
    limits: await catalogOf(context).quotas.defaults(),
  }));

  app.post('/v1/quotas', { schema: { body: schemas.QuotaDefaults } }, async (request) => {
    const { quotas } = operated(context, request.headers[OPERATOR_HEADER]);
    await quotas.setDefaults(checked(request.body.limits));
    return { limits: await quotas.defaults() };
  });

  app.get(
    '/v1/quotas/:project',
    { schema: { params: schemas.ProjectParams, querystring: schemas.QuotaQuery } },
    async (request) => show(catalogOf(context), { ...request.params, ...request.query }),
  );

  app.post(
    '/v1/quotas/:project',
    { schema: { params: schemas.ProjectParams, body: schemas.QuotaSet } },
    async (request) => {
      const catalog = operated(context, request.headers[OPERATOR_HEADER]);
      const { limits, ...named } = { ...request.body, ...request.params };
      const { project, user } = await find(catalog, named);
      await catalog.quotas.set({ projectId: project.id, userId: user?.id ?? null }, checked(limits));
      return show(catalog, named);
    },
  );
}

function catalogOf(context: ApiContext): Catalog {
  const catalog = context.catalog?.() ?? null;
  if (catalog === null) throw new ControlError('UNSUPPORTED', 'this daemon serves no HTTP, so it has no users');
  return catalog;
}

/** Who may use the socket is not by that an administrator of the cloud. @throws {ControlError} DENIED */
function operated(context: ApiContext, key: unknown): Catalog {
  const catalog = catalogOf(context);
  if (!catalog.operator.isKey(key))
    throw new ControlError('DENIED', 'only who can read the home of the daemon may set quotas');
  return catalog;
}

function checked<T extends object>(limits: T): T {
  const unknown = Object.keys(limits).find((name) => !isResource(name));
  if (unknown !== undefined)
    throw new ControlError('INVALID', `nobody counts ${unknown}; there are ${RESOURCE_NAMES.join(', ')}`);
  return limits;
}

async function show(catalog: Catalog, named: Named) {
  const { project, user } = await find(catalog, named);
  await catalog.caughtUp();
  const resources = await catalog.quotas.show({ projectId: project.id, userId: user?.id ?? null });
  return { project, user, resources };
}

/** @throws {ControlError} NOT_FOUND */
async function find(catalog: Catalog, { project: wanted, user: wantedUser, domain = DEFAULT_DOMAIN }: Named) {
  const db = await catalog.reader();
  const projects = db.selectFrom('project').select(['id', 'name', 'domain_id as domain']);
  const project =
    (await projects.where('id', '=', wanted).executeTakeFirst()) ??
    (await projects.where('domain_id', '=', domain).where('name', '=', wanted).executeTakeFirst());
  if (!project) throw new ControlError('NOT_FOUND', `there is no project ${wanted} in the domain ${domain}`);
  if (wantedUser === undefined) return { project, user: null };
  const users = db.selectFrom('user').select(['id', 'name']);
  const user =
    (await users.where('id', '=', wantedUser).executeTakeFirst()) ??
    (await users.where('domain_id', '=', domain).where('name', '=', wantedUser).executeTakeFirst());
  if (!user) throw new ControlError('NOT_FOUND', `there is no user ${wantedUser} in the domain ${domain}`);
  return { project, user };
}
