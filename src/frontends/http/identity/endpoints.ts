/** /v3/endpoints: where a service is. */
import { Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import type { Change, Columns, EndpointRow } from '../../../control/catalog/types.ts';
import { badRequest } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { Id, listQuery, maybe, orNull, RegionId, wrapped } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { extras, list, pageOf } from './lists.ts';
import { enforce } from './policy.ts';
import { matching, rowsOf } from './rows.ts';
import { extraOf } from './shown.ts';

const Url = Type.String({ minLength: 1, maxLength: 2048, pattern: '^https?://[^\\s]+$' });
const Interface = Type.Union([Type.Literal('public'), Type.Literal('internal'), Type.Literal('admin')]);
const common = {
  enabled: maybe(Type.Boolean()),
  region_id: maybe(orNull(RegionId)),
  region: maybe(orNull(RegionId)),
};
const Create = wrapped('endpoint', { interface: Interface, service_id: Id, url: Url, ...common });
const Update = wrapped('endpoint', {
  interface: maybe(Interface),
  service_id: maybe(Id),
  url: maybe(Url),
  ...common,
});
const KNOWN = new Set(['id', 'links', 'interface', 'service_id', 'url', 'enabled', 'region', 'region_id']);

export const endpointRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link, publicUrl } = context;

  const shown = (row: EndpointRow) => ({
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

  app.get(
    '/v3/endpoints',
    { schema: { querystring: listQuery('interface', 'service_id', 'region_id', 'region') } },
    async (request) => {
      enforce('list_endpoints', sessionOf(request));
      const asked = request.query;
      const { service_id, region, region_id = region } = asked;
      const face = asked.interface as EndpointRow['interface'] | undefined;
      const query = matching(await accounts.db(), 'endpoint', { interface: face, service_id, region_id });
      const rows = await rowsOf(query, pageOf(request));
      return list('endpoints', rows.map(shown), request, context);
    },
  );

  app.post('/v3/endpoints', { schema: { body: Create } }, async (request, reply) => {
    enforce('create_endpoint', sessionOf(request));
    const wanted = request.body.endpoint;
    checkUrl(wanted.url);
    await checkNamed('service', wanted.service_id);
    const row: EndpointRow = {
      id: newId(),
      service_id: wanted.service_id,
      region_id: await namedRegion(wanted),
      interface: wanted.interface,
      url: wanted.url,
      path: null,
      enabled: wanted.enabled === false ? 0 : 1,
      extra: extras(wanted, KNOWN),
    };
    await catalog.write([...legacyRegion(wanted), { do: 'insert', table: 'endpoint', row }]);
    reply.code(201);
    return { endpoint: shown(row) };
  });

  app.get('/v3/endpoints/:id', async (request) => {
    enforce('get_endpoint', sessionOf(request));
    return { endpoint: shown(await accounts.found('endpoint', (request.params as { id: string }).id)) };
  });

  app.patch('/v3/endpoints/:id', { schema: { body: Update } }, async (request) => {
    enforce('update_endpoint', sessionOf(request));
    const row = await accounts.found('endpoint', (request.params as { id: string }).id);
    const wanted = request.body.endpoint;
    const set: Columns<'endpoint'> = { extra: extras(wanted, KNOWN, row.extra) };
    if (wanted.url !== undefined) {
      checkUrl(wanted.url);
      Object.assign(set, { url: wanted.url, path: null });
    }
    if (wanted.interface !== undefined) set.interface = wanted.interface;
    if (wanted.enabled !== undefined) set.enabled = wanted.enabled ? 1 : 0;
    if (wanted.region_id !== undefined || wanted.region !== undefined) set.region_id = await namedRegion(wanted);
    if (wanted.service_id !== undefined) {
      await checkNamed('service', wanted.service_id);
      set.service_id = wanted.service_id;
    }
    await catalog.write([...legacyRegion(wanted), { do: 'update', table: 'endpoint', where: { id: row.id }, set }]);
    return { endpoint: shown({ ...row, ...set }) };
  });

  app.delete('/v3/endpoints/:id', async (request, reply) => {
    enforce('delete_endpoint', sessionOf(request));
    const row = await accounts.found('endpoint', (request.params as { id: string }).id);
    await catalog.write([{ do: 'delete', table: 'endpoint', where: { id: row.id } }]);
    return reply.code(204).send();
  });

  /** Keystone answers 400 for what a body names and is not there. */
  async function checkNamed(noun: 'service' | 'region', id: string): Promise<void> {
    if (!(await accounts.row(noun, id))) throw badRequest(`Could not find ${noun}: ${id}.`);
  }

  async function namedRegion({ region_id, region }: NamedRegion): Promise<string | null> {
    if (region_id) await checkNamed('region', region_id);
    return region_id ?? region ?? null;
  }
};

interface NamedRegion {
  region_id?: string | null;
  region?: string | null;
}

/** Clients of version 2 name a region in `region`, and never made one: it is made for them, as Keystone does. */
function legacyRegion({ region_id, region }: NamedRegion): Change[] {
  if (region_id || !region) return [];
  const row = { id: region, description: '', parent_region_id: null, extra: '{}' };
  return [{ do: 'insert', table: 'region', row, orKeep: true }];
}

/** Only what a token's own project and user can fill (CVE-2014-3621). */
function checkUrl(url: string): void {
  const rest = url.replace(/[$%]\((project_id|tenant_id|user_id)\)s/g, '');
  if (/[$%]\(/.test(rest))
    throw badRequest('an endpoint can have project_id, tenant_id and user_id to be filled in, and nothing else');
}
