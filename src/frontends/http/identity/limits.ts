/** /v3/registered_limits, /v3/limits: what projects may have (docs/identity.md, "Limits"). */
import { Type } from '@sinclair/typebox';
import { RESOURCE_NAMES, type ResourceName, UNLIMITED } from '../../../control/catalog/catalog.ts';
import type { Change, Columns, QuotaDefaultRow, QuotaRow } from '../../../control/catalog/types.ts';
import { badRequest, conflict, forbidden, notAllowed, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import type { Session } from './authentication.ts';
import { Description, Id, listQuery, maybe, orNull, RegionId } from './bodies.ts';
import type { IdentityContext, IdentityRoutes } from './identity-context.ts';
import { limitOf, resourceOf, type ServiceOf, serviceOf, shownLimit, shownRegistered } from './limit-rows.ts';
import { list, pageOf } from './lists.ts';
import { enforce, may } from './policy.ts';
import { matching } from './rows.ts';

/** made with one request */
export const LIMITS_AT_ONCE_MAX = 100;
/** what is counted, bytes too, is counted by whole numbers that JSON has; UNLIMITED: no limit */
const Amount = Type.Integer({ minimum: UNLIMITED, maximum: Number.MAX_SAFE_INTEGER });
const what = { service_id: Id, region_id: maybe(orNull(RegionId)), resource_name: Type.String({ maxLength: 255 }) };
const said = { description: maybe(Description) };
const closed = { additionalProperties: false };
const some = <T extends Parameters<typeof Type.Array>[0]>(one: T) =>
  Type.Array(one, { minItems: 1, maxItems: LIMITS_AT_ONCE_MAX });

const RegisteredCreate = Type.Object({
  registered_limits: some(Type.Object({ ...what, default_limit: Amount, ...said }, closed)),
});
const RegisteredUpdate = Type.Object({
  registered_limit: Type.Partial(Type.Object({ ...what, default_limit: Amount, ...said }, closed)),
});
const Create = Type.Object({
  limits: some(
    Type.Object(
      { ...what, project_id: maybe(Id), domain_id: maybe(orNull(Id)), resource_limit: Amount, ...said },
      closed,
    ),
  ),
});
const Update = Type.Object({ limit: Type.Partial(Type.Object({ resource_limit: Amount, ...said }, closed)) });
const MODEL = {
  name: 'flat',
  description: 'Limit enforcement and validation does not take project hierarchy into consideration.',
};

interface What {
  service_id?: string;
  region_id?: string | null;
  resource_name?: string;
}

/** The resource that is meant. @throws {HttpError} 400 when nobody counts it, or another service does, or not in one region */
function meant({ service_id, region_id, resource_name = '' }: What, of: ServiceOf): ResourceName {
  const resource = resourceOf(resource_name.replaceAll('_', '-'));
  if (resource === null || resource !== resource_name) throw badRequest(`nobody counts ${resource_name.slice(0, 64)}`);
  if (service_id !== of(resource)) throw badRequest(`${resource} are counted by the service ${of(resource)}`);
  if (region_id) throw badRequest('limits are the same in every region');
  return resource;
}

export const limitRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;
  registeredLimitRoutes(app, context);

  app.get('/v3/limits/model', async (request) => {
    enforce('get_limit_model', sessionOf(request));
    return { model: MODEL, links: { self: link('/limits/model') } };
  });

  const filters = ['service_id', 'region_id', 'resource_name', 'project_id', 'domain_id'] as const;
  app.get('/v3/limits', { schema: { querystring: listQuery(...filters) } }, async (request) => {
    const session = sessionOf(request);
    enforce('list_limits', session);
    const { service_id, region_id, resource_name, project_id, domain_id } = request.query;
    const page = pageOf(request);
    const of = await serviceOf(context);
    const db = await accounts.db();
    let query = matching(db, 'quota', { resource: resource_name, project_id, ...seen(session) });
    if (session.scope.kind === 'domain') {
      const own = matching(db, 'project', { domain_id: session.scope.id }).clearSelect().select('id');
      query = query.where('project_id', 'in', own);
    }
    const after = page.marker === undefined ? null : limitOf(page.marker);
    if (after !== null)
      query = query.where((where) =>
        where.or([
          where('project_id', '>', after.project_id),
          where.and([where('project_id', '=', after.project_id), where('resource', '>', after.resource)]),
        ]),
      );
    if (service_id !== undefined)
      query = query.where('resource', 'in', ['', ...RESOURCE_NAMES.filter((resource) => of(resource) === service_id)]);
    // Of domains and of regions there are none.
    const isNone = Boolean(region_id || domain_id);
    const rows = isNone
      ? []
      : await query
          .orderBy('project_id')
          .orderBy('resource')
          .limit(page.rows + 1)
          .execute();
    const shown = rows.map((row) => shownLimit(row, of, link));
    return list('limits', shown, request, context);
  });

  app.post('/v3/limits', { schema: { body: Create } }, async (request, reply) => {
    enforce('create_limit', sessionOf(request));
    const of = await serviceOf(context);
    const db = await accounts.db();
    const rows: QuotaRow[] = [];
    for (const wanted of request.body.limits) {
      const resource = meant(wanted, of);
      if (wanted.domain_id || wanted.project_id === undefined) throw badRequest('limits are of projects: project_id');
      await accounts.found('project', wanted.project_id);
      if (!(await matching(db, 'quota_default', { resource }).executeTakeFirst()))
        throw forbidden('Unable to create a limit that has no corresponding registered limit.');
      const { project_id, resource_limit, description = null } = wanted;
      rows.push({ project_id, resource, hard_limit: resource_limit, description });
    }
    await making(catalog.write(rows.map((row): Change => ({ do: 'insert', table: 'quota', row }))));
    reply.code(201);
    return { limits: rows.map((row) => shownLimit(row, of, link)) };
  });

  app.get('/v3/limits/:limit_id', async (request) => {
    const session = sessionOf(request);
    const row = await found(request.params as { limit_id: string });
    const domainId = row && (await accounts.row('project', row.project_id))?.domain_id;
    if (!may('get_limit', session, row ? { projectId: row.project_id, domainId: domainId ?? null } : {}))
      throw notAllowed('identity:get_limit');
    return { limit: shownLimit(there(row, request.params), await serviceOf(context), link) };
  });

  app.patch('/v3/limits/:limit_id', { schema: { body: Update } }, async (request) => {
    enforce('update_limit', sessionOf(request));
    const row = there(await found(request.params as { limit_id: string }), request.params);
    const { resource_limit, description } = request.body.limit;
    const set = changed(resource_limit, description);
    const where = { project_id: row.project_id, resource: row.resource };
    if (Object.keys(set).length > 0) await catalog.write([{ do: 'update', table: 'quota', where, set }]);
    return { limit: shownLimit({ ...row, ...set }, await serviceOf(context), link) };
  });

  app.delete('/v3/limits/:limit_id', async (request, reply) => {
    enforce('delete_limit', sessionOf(request));
    const { project_id, resource } = there(await found(request.params as { limit_id: string }), request.params);
    await catalog.write([{ do: 'delete', table: 'quota', where: { project_id, resource } }]);
    return reply.code(204).send();
  });

  async function found({ limit_id }: { limit_id: string }): Promise<QuotaRow | undefined> {
    const named = limitOf(limit_id);
    return named === null ? undefined : matching(await accounts.db(), 'quota', named).executeTakeFirst();
  }

  function there(row: QuotaRow | undefined, params: unknown): QuotaRow {
    if (!row) throw notFound('limit', (params as { limit_id: string }).limit_id);
    return row;
  }
};

/** What others see besides: readers all of them, others what is their project's. */
function seen(session: Session): { project_id?: string } {
  if (may('list_all_limits', session, session.scope.kind === 'domain' ? { domainId: session.scope.id } : {})) return {};
  return { project_id: session.scope.kind === 'project' ? session.scope.id : '' };
}

function changed(limit: number | undefined, description: string | null | undefined) {
  return {
    ...(limit === undefined ? {} : { hard_limit: limit }),
    ...(description === undefined ? {} : { description }),
  };
}

/** @throws {HttpError} 409 */
async function making(write: Promise<void>): Promise<void> {
  await write.catch((error: { code?: string }) => {
    throw error.code === 'EXISTS' ? conflict('Conflict occurred attempting to store limit - Duplicate entry.') : error;
  });
}

function registeredLimitRoutes(app: Parameters<IdentityRoutes>[0], context: IdentityContext): void {
  const { accounts, catalog, link } = context;
  const filters = ['service_id', 'region_id', 'resource_name'] as const;

  app.get('/v3/registered_limits', { schema: { querystring: listQuery(...filters) } }, async (request) => {
    enforce('list_registered_limits', sessionOf(request));
    const { service_id, region_id, resource_name } = request.query;
    const { rows: most, marker } = pageOf(request);
    const of = await serviceOf(context);
    const all = await matching(await accounts.db(), 'quota_default', { resource: resource_name }).execute();
    const shown = all
      .filter(({ resource }) => !region_id && (service_id === undefined || of(resource) === service_id))
      .map((row) => shownRegistered(row, of, link))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
      .filter(({ id }) => marker === undefined || id > marker);
    return list('registered_limits', shown.slice(0, most + 1), request, context);
  });

  app.post('/v3/registered_limits', { schema: { body: RegisteredCreate } }, async (request, reply) => {
    enforce('create_registered_limit', sessionOf(request));
    const of = await serviceOf(context);
    const rows = request.body.registered_limits.map((wanted): QuotaDefaultRow => {
      const { default_limit, description = null } = wanted;
      return { resource: meant(wanted, of), hard_limit: default_limit, description };
    });
    await making(catalog.write(rows.map((row): Change => ({ do: 'insert', table: 'quota_default', row }))));
    reply.code(201);
    return { registered_limits: rows.map((row) => shownRegistered(row, of, link)) };
  });

  app.get('/v3/registered_limits/:registered_limit_id', async (request) => {
    enforce('get_registered_limit', sessionOf(request));
    return { registered_limit: shownRegistered(await found(request.params), await serviceOf(context), link) };
  });

  app.patch('/v3/registered_limits/:registered_limit_id', { schema: { body: RegisteredUpdate } }, async (request) => {
    enforce('update_registered_limit', sessionOf(request));
    const row = await found(request.params);
    const of = await serviceOf(context);
    const { default_limit, description, ...wanted } = request.body.registered_limit;
    const service_id = of(row.resource);
    const other = meant({ ...(service_id === null ? {} : { service_id }), resource_name: row.resource, ...wanted }, of);
    if (other !== row.resource) throw badRequest('a limit does not change what it limits');
    const set: Columns<'quota_default'> = changed(default_limit, description);
    const where = { resource: row.resource };
    if (Object.keys(set).length > 0) await catalog.write([{ do: 'update', table: 'quota_default', where, set }]);
    return { registered_limit: shownRegistered({ ...row, ...set }, of, link) };
  });

  app.delete('/v3/registered_limits/:registered_limit_id', async (request, reply) => {
    enforce('delete_registered_limit', sessionOf(request));
    const { resource } = await found(request.params);
    if (
      await matching(await accounts.db(), 'quota', { resource })
        .limit(1)
        .executeTakeFirst()
    )
      throw forbidden(`Unable to delete the registered limit of ${resource} because projects have limits of it.`);
    await catalog.write([{ do: 'delete', table: 'quota_default', where: { resource } }]);
    return reply.code(204).send();
  });

  /** @throws {HttpError} 404 */
  async function found(params: unknown): Promise<QuotaDefaultRow> {
    const { registered_limit_id: id } = params as { registered_limit_id: string };
    const resource = resourceOf(id);
    const row = resource && (await matching(await accounts.db(), 'quota_default', { resource }).executeTakeFirst());
    if (!row) throw notFound('registered limit', id);
    return row;
  }
}
