/** /v3/regions: places, some in others. */
import { type Static, Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import type { Columns, RegionRow } from '../../../control/catalog/types.ts';
import { badRequest, conflict } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { Description, listQuery, maybe, orNull, RegionId, wrapped } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { extras, list, pageOf } from './lists.ts';
import { enforce } from './policy.ts';
import { matching, rowsOf } from './rows.ts';
import { extraOf } from './shown.ts';

/** regions in a region in a region */
const REGION_DEPTH_MAX = 16;
const common = { description: maybe(Description), parent_region_id: maybe(orNull(RegionId)) };
const Create = wrapped('region', { id: maybe(RegionId), ...common });
const Update = wrapped('region', common);
const RegionParams = Type.Object({ id: RegionId });
const KNOWN = new Set(['id', 'links', 'description', 'parent_region_id']);

export const regionRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;

  const shown = (row: RegionRow) => ({
    ...extraOf(row),
    id: row.id,
    description: row.description,
    parent_region_id: row.parent_region_id,
    links: { self: link(`/regions/${row.id}`) },
  });

  app.get('/v3/regions', { schema: { querystring: listQuery('parent_region_id') } }, async (request) => {
    enforce('list_regions', sessionOf(request));
    const { parent_region_id } = request.query;
    const rows = await rowsOf(matching(await accounts.db(), 'region', { parent_region_id }), pageOf(request));
    return list('regions', rows.map(shown), request, context);
  });

  app.post('/v3/regions', { schema: { body: Create } }, async (request, reply) => {
    enforce('create_region', sessionOf(request));
    reply.code(201);
    return { region: await make(request.body.region, request.body.region.id ?? newId()) };
  });

  app.put('/v3/regions/:id', { schema: { params: RegionParams, body: Create } }, async (request, reply) => {
    enforce('create_region', sessionOf(request));
    const { id } = request.params;
    if (request.body.region.id !== undefined && request.body.region.id !== id)
      throw badRequest('the id in the body is not that of the path');
    reply.code(201);
    return { region: await make(request.body.region, id) };
  });

  async function make(region: Static<typeof Create>['region'], id: string) {
    const row: RegionRow = {
      id,
      description: region.description ?? '',
      parent_region_id: region.parent_region_id ?? null,
      extra: extras(region, KNOWN),
    };
    await checkParents(row);
    await catalog.write([{ do: 'insert', table: 'region', row }]).catch((error: { code?: string }) => {
      if (error.code === 'EXISTS')
        throw conflict(`Conflict occurred attempting to store region - Duplicate ID, ${row.id}.`);
      throw error;
    });
    return shown(row);
  }

  app.get('/v3/regions/:id', async (request) => {
    enforce('get_region', sessionOf(request));
    return { region: shown(await accounts.found('region', (request.params as { id: string }).id)) };
  });

  app.patch('/v3/regions/:id', { schema: { body: Update } }, async (request) => {
    enforce('update_region', sessionOf(request));
    const row = await accounts.found('region', (request.params as { id: string }).id);
    const { region } = request.body;
    const set: Columns<'region'> = { extra: extras(region, KNOWN, row.extra) };
    if (region.description !== undefined) set.description = region.description ?? '';
    if (region.parent_region_id !== undefined) set.parent_region_id = region.parent_region_id;
    await checkParents({ ...row, ...set });
    await catalog.write([{ do: 'update', table: 'region', where: { id: row.id }, set }]);
    return { region: shown({ ...row, ...set }) };
  });

  app.delete('/v3/regions/:id', async (request, reply) => {
    enforce('delete_region', sessionOf(request));
    const row = await accounts.found('region', (request.params as { id: string }).id);
    await catalog.write([{ do: 'delete', table: 'region', where: { id: row.id } }]);
    return reply.code(204).send();
  });

  /** A region is not below itself. */
  async function checkParents(row: RegionRow): Promise<void> {
    let at = row.parent_region_id;
    for (let depth = 0; at !== null; depth++) {
      if (at === row.id || depth >= REGION_DEPTH_MAX) throw badRequest('regions cannot be in each other like that');
      at = (await accounts.found('region', at)).parent_region_id;
    }
  }
};
