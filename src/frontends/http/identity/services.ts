/** /v3/services, /v3/endpoints, /v3/regions: what a cloud has and where, as clients read it from their token. */
import { Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import type { Columns, EndpointRow, RegionRow, ServiceRow } from '../../../control/catalog/types.ts';
import { badRequest, conflict, notFound } from '../errors.ts';
import { Description, Id, maybe, name, orNull, wrapped } from './bodies.ts';
import { type IdentityRoutes, sessionOf } from './identity-context.ts';
import { extras, filters, LIST_MAX, list } from './lists.ts';
import { enforce } from './policy.ts';
import { extraOf } from './shown.ts';

const TYPE_MAX = 255;
const Url = Type.String({ minLength: 1, maxLength: 2048, pattern: '^https?://[^\\s]+$' });
const Interface = Type.Union([Type.Literal('public'), Type.Literal('internal'), Type.Literal('admin')]);
const RegionId = Type.String({ minLength: 1, maxLength: 255, pattern: '^[^/\\s]+$' });
const serviceCommon = {
  name: maybe(orNull(name(TYPE_MAX))),
  description: maybe(Description),
  enabled: maybe(Type.Boolean()),
};
const ServiceCreate = wrapped('service', { type: name(TYPE_MAX), ...serviceCommon });
const ServiceUpdate = wrapped('service', { type: maybe(name(TYPE_MAX)), ...serviceCommon });
const endpointCommon = {
  enabled: maybe(Type.Boolean()),
  region_id: maybe(orNull(RegionId)),
  region: maybe(orNull(RegionId)),
};
const EndpointCreate = wrapped('endpoint', { interface: Interface, service_id: Id, url: Url, ...endpointCommon });
const EndpointUpdate = wrapped('endpoint', {
  interface: maybe(Interface),
  service_id: maybe(Id),
  url: maybe(Url),
  ...endpointCommon,
});
const regionCommon = { description: maybe(Description), parent_region_id: maybe(orNull(RegionId)) };
const RegionCreate = wrapped('region', { id: maybe(RegionId), ...regionCommon });
const RegionUpdate = wrapped('region', regionCommon);
const SERVICE_KNOWN = new Set(['id', 'links', 'type', 'name', 'description', 'enabled']);
const ENDPOINT_KNOWN = new Set(['id', 'links', 'interface', 'service_id', 'url', 'enabled', 'region', 'region_id']);
const REGION_KNOWN = new Set(['id', 'links', 'description', 'parent_region_id']);
/** regions in a region in a region */
const REGION_DEPTH_MAX = 16;

export const serviceRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link, publicUrl } = context;

  const shownService = (row: ServiceRow) => ({
    ...extraOf(row),
    id: row.id,
    type: row.type,
    ...(row.name === null ? {} : { name: row.name }),
    ...(row.description === null ? {} : { description: row.description }),
    enabled: row.enabled !== 0,
    links: { self: link(`/services/${row.id}`) },
  });
  const shownEndpoint = (row: EndpointRow) => ({
    ...extraOf(row),
    id: row.id,
    interface: row.interface,
    service_id: row.service_id,
    region: row.region_id,
    region_id: row.region_id,
    url: row.url ?? `${publicUrl()}${row.path}`,
    enabled: row.enabled !== 0,
    links: { self: link(`/endpoints/${row.id}`) },
  });
  const shownRegion = (row: RegionRow) => ({
    ...extraOf(row),
    id: row.id,
    description: row.description,
    parent_region_id: row.parent_region_id,
    links: { self: link(`/regions/${row.id}`) },
  });

  app.get('/v3/services', async (request) => {
    enforce('list_services', sessionOf(request));
    const asked = filters(request, ['type', 'name']);
    let query = (await accounts.db()).selectFrom('service').selectAll();
    if (asked.type !== undefined) query = query.where('type', '=', asked.type);
    if (asked.name !== undefined) query = query.where('name', '=', asked.name);
    const rows = await query
      .orderBy('type')
      .limit(LIST_MAX + 1)
      .execute();
    return list('services', rows.map(shownService), request, context);
  });

  app.post('/v3/services', { schema: { body: ServiceCreate } }, async (request, reply) => {
    enforce('create_service', sessionOf(request));
    const { service } = request.body;
    const row: ServiceRow = {
      id: newId(),
      type: service.type,
      name: service.name ?? null,
      description: service.description ?? null,
      enabled: service.enabled === false ? 0 : 1,
      extra: extras(service, SERVICE_KNOWN),
    };
    await catalog.write([{ do: 'insert', table: 'service', row }]);
    reply.code(201);
    return { service: shownService(row) };
  });

  app.get('/v3/services/:id', async (request) => {
    enforce('get_service', sessionOf(request));
    return { service: shownService(await service((request.params as { id: string }).id)) };
  });

  app.patch('/v3/services/:id', { schema: { body: ServiceUpdate } }, async (request) => {
    enforce('update_service', sessionOf(request));
    const row = await service((request.params as { id: string }).id);
    const wanted = request.body.service;
    const set: Columns<'service'> = { extra: extras(wanted, SERVICE_KNOWN, row.extra) };
    if (wanted.type !== undefined) set.type = wanted.type;
    if (wanted.name !== undefined) set.name = wanted.name;
    if (wanted.description !== undefined) set.description = wanted.description;
    if (wanted.enabled !== undefined) set.enabled = wanted.enabled ? 1 : 0;
    await catalog.write([{ do: 'update', table: 'service', where: { id: row.id }, set }]);
    return { service: shownService({ ...row, ...set }) };
  });

  app.delete('/v3/services/:id', async (request, reply) => {
    enforce('delete_service', sessionOf(request));
    const row = await service((request.params as { id: string }).id);
    await catalog.write([{ do: 'delete', table: 'service', where: { id: row.id } }]);
    return reply.code(204).send();
  });

  app.get('/v3/endpoints', async (request) => {
    enforce('list_endpoints', sessionOf(request));
    const asked = filters(request, ['interface', 'service_id', 'region_id', 'region']);
    let query = (await accounts.db()).selectFrom('endpoint').selectAll();
    if (asked.interface !== undefined)
      query = query.where('interface', '=', asked.interface as EndpointRow['interface']);
    if (asked.service_id !== undefined) query = query.where('service_id', '=', asked.service_id);
    const region = asked.region_id ?? asked.region;
    if (region !== undefined) query = query.where('region_id', '=', region);
    const rows = await query
      .orderBy('id')
      .limit(LIST_MAX + 1)
      .execute();
    return list('endpoints', rows.map(shownEndpoint), request, context);
  });

  app.post('/v3/endpoints', { schema: { body: EndpointCreate } }, async (request, reply) => {
    enforce('create_endpoint', sessionOf(request));
    const wanted = request.body.endpoint;
    checkUrl(wanted.url);
    // Keystone answers 400 for both, since they are in the body.
    if (!(await hasService(wanted.service_id))) throw badRequest(`Could not find service: ${wanted.service_id}.`);
    const row: EndpointRow = {
      id: newId(),
      service_id: wanted.service_id,
      region_id: await namedRegion(wanted.region_id ?? wanted.region ?? null),
      interface: wanted.interface,
      url: wanted.url,
      path: null,
      enabled: wanted.enabled === false ? 0 : 1,
      extra: extras(wanted, ENDPOINT_KNOWN),
    };
    await catalog.write([{ do: 'insert', table: 'endpoint', row }]);
    reply.code(201);
    return { endpoint: shownEndpoint(row) };
  });

  app.get('/v3/endpoints/:id', async (request) => {
    enforce('get_endpoint', sessionOf(request));
    return { endpoint: shownEndpoint(await endpoint((request.params as { id: string }).id)) };
  });

  app.patch('/v3/endpoints/:id', { schema: { body: EndpointUpdate } }, async (request) => {
    enforce('update_endpoint', sessionOf(request));
    const row = await endpoint((request.params as { id: string }).id);
    const wanted = request.body.endpoint;
    const set: Columns<'endpoint'> = { extra: extras(wanted, ENDPOINT_KNOWN, row.extra) };
    if (wanted.url !== undefined) {
      checkUrl(wanted.url);
      Object.assign(set, { url: wanted.url, path: null });
    }
    if (wanted.interface !== undefined) set.interface = wanted.interface;
    if (wanted.enabled !== undefined) set.enabled = wanted.enabled ? 1 : 0;
    const region = wanted.region_id ?? wanted.region;
    if (region !== undefined) set.region_id = await namedRegion(region);
    if (wanted.service_id !== undefined) {
      if (!(await hasService(wanted.service_id))) throw badRequest(`Could not find service: ${wanted.service_id}.`);
      set.service_id = wanted.service_id;
    }
    await catalog.write([{ do: 'update', table: 'endpoint', where: { id: row.id }, set }]);
    return { endpoint: shownEndpoint({ ...row, ...set }) };
  });

  app.delete('/v3/endpoints/:id', async (request, reply) => {
    enforce('delete_endpoint', sessionOf(request));
    const row = await endpoint((request.params as { id: string }).id);
    await catalog.write([{ do: 'delete', table: 'endpoint', where: { id: row.id } }]);
    return reply.code(204).send();
  });

  app.get('/v3/regions', async (request) => {
    enforce('list_regions', sessionOf(request));
    const asked = filters(request, ['parent_region_id']);
    let query = (await accounts.db()).selectFrom('region').selectAll();
    if (asked.parent_region_id !== undefined) query = query.where('parent_region_id', '=', asked.parent_region_id);
    const rows = await query
      .orderBy('id')
      .limit(LIST_MAX + 1)
      .execute();
    return list('regions', rows.map(shownRegion), request, context);
  });

  app.post('/v3/regions', { schema: { body: RegionCreate } }, async (request, reply) => {
    enforce('create_region', sessionOf(request));
    const { region } = request.body;
    const row: RegionRow = {
      id: region.id ?? newId(),
      description: region.description ?? '',
      parent_region_id: region.parent_region_id ?? null,
      extra: extras(region, REGION_KNOWN),
    };
    await checkParents(row);
    await catalog.write([{ do: 'insert', table: 'region', row }]).catch((error: { code?: string }) => {
      if (error.code === 'EXISTS')
        throw conflict(`Conflict occurred attempting to store region - Duplicate ID, ${row.id}.`);
      throw error;
    });
    reply.code(201);
    return { region: shownRegion(row) };
  });

  app.get('/v3/regions/:id', async (request) => {
    enforce('get_region', sessionOf(request));
    return { region: shownRegion(await regionOf((request.params as { id: string }).id)) };
  });

  app.patch('/v3/regions/:id', { schema: { body: RegionUpdate } }, async (request) => {
    enforce('update_region', sessionOf(request));
    const row = await regionOf((request.params as { id: string }).id);
    const { region } = request.body;
    const set: Columns<'region'> = { extra: extras(region, REGION_KNOWN, row.extra) };
    if (region.description !== undefined) set.description = region.description ?? '';
    if (region.parent_region_id !== undefined) set.parent_region_id = region.parent_region_id;
    await checkParents({ ...row, ...set });
    await catalog.write([{ do: 'update', table: 'region', where: { id: row.id }, set }]);
    return { region: shownRegion({ ...row, ...set }) };
  });

  app.delete('/v3/regions/:id', async (request, reply) => {
    enforce('delete_region', sessionOf(request));
    const row = await regionOf((request.params as { id: string }).id);
    await catalog.write([{ do: 'delete', table: 'region', where: { id: row.id } }]);
    return reply.code(204).send();
  });

  async function service(id: string): Promise<ServiceRow> {
    const row = await (await accounts.db()).selectFrom('service').selectAll().where('id', '=', id).executeTakeFirst();
    if (!row) throw notFound('service', id);
    return row;
  }
  async function hasService(id: string): Promise<boolean> {
    return (
      (await (await accounts.db()).selectFrom('service').select('id').where('id', '=', id).executeTakeFirst()) !==
      undefined
    );
  }
  async function endpoint(id: string): Promise<EndpointRow> {
    const row = await (await accounts.db()).selectFrom('endpoint').selectAll().where('id', '=', id).executeTakeFirst();
    if (!row) throw notFound('endpoint', id);
    return row;
  }
  async function regionOf(id: string): Promise<RegionRow> {
    const row = await (await accounts.db()).selectFrom('region').selectAll().where('id', '=', id).executeTakeFirst();
    if (!row) throw notFound('region', id);
    return row;
  }
  async function namedRegion(id: string | null): Promise<string | null> {
    if (id === null) return null;
    const row = await (await accounts.db()).selectFrom('region').select('id').where('id', '=', id).executeTakeFirst();
    if (!row) throw badRequest(`Could not find region: ${id}.`);
    return id;
  }
  /** A region is not below itself. */
  async function checkParents(row: RegionRow): Promise<void> {
    let at = row.parent_region_id;
    for (let depth = 0; at !== null; depth++) {
      if (at === row.id || depth >= REGION_DEPTH_MAX) throw badRequest('regions cannot be in each other like that');
      at = (await regionOf(at)).parent_region_id;
    }
  }
};

/** Only what a token's own project and user can fill (CVE-2014-3621). */
function checkUrl(url: string): void {
  const rest = url.replace(/[$%]\((project_id|tenant_id|user_id)\)s/g, '');
  if (/[$%]\(/.test(rest))
    throw badRequest('an endpoint can have project_id, tenant_id and user_id to be filled in, and nothing else');
}
