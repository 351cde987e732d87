/** /v3/services: what a cloud has, as clients read it from their token. */
import { Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import type { Columns, ServiceRow } from '../../../control/catalog/types.ts';
import { sessionOf } from '../gate.ts';
import { Description, listQuery, maybe, name, orNull, wrapped } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { extras, list, pageOf } from './lists.ts';
import { enforce } from './policy.ts';
import { matching, rowsOf } from './rows.ts';
import { extraOf } from './shown.ts';

const TYPE_MAX = 255;
const common = {
  name: maybe(orNull(name(TYPE_MAX))),
  description: maybe(Description),
  enabled: maybe(Type.Boolean()),
};
const Create = wrapped('service', { type: name(TYPE_MAX), ...common });
const Update = wrapped('service', { type: maybe(name(TYPE_MAX)), ...common });
const KNOWN = new Set(['id', 'links', 'type', 'name', 'description', 'enabled']);

export const serviceRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;

  const shown = (row: ServiceRow) => ({
    ...extraOf(row),
    id: row.id,
    type: row.type,
    ...(row.name === null ? {} : { name: row.name }),
    ...(row.description === null ? {} : { description: row.description }),
    enabled: row.enabled !== 0,
    links: { self: link(`/services/${row.id}`) },
  });

  app.get('/v3/services', { schema: { querystring: listQuery('type', 'name') } }, async (request) => {
    enforce('list_services', sessionOf(request));
    const { type, name: called } = request.query;
    const rows = await rowsOf(matching(await accounts.db(), 'service', { type, name: called }), pageOf(request));
    return list('services', rows.map(shown), request, context);
  });

  app.post('/v3/services', { schema: { body: Create } }, async (request, reply) => {
    enforce('create_service', sessionOf(request));
    const { service } = request.body;
    const row: ServiceRow = {
      id: newId(),
      type: service.type,
      name: service.name ?? null,
      description: service.description ?? null,
      enabled: service.enabled === false ? 0 : 1,
      extra: extras(service, KNOWN),
    };
    await catalog.write([{ do: 'insert', table: 'service', row }]);
    reply.code(201);
    return { service: shown(row) };
  });

  app.get('/v3/services/:id', async (request) => {
    enforce('get_service', sessionOf(request));
    return { service: shown(await accounts.found('service', (request.params as { id: string }).id)) };
  });

  app.patch('/v3/services/:id', { schema: { body: Update } }, async (request) => {
    enforce('update_service', sessionOf(request));
    const row = await accounts.found('service', (request.params as { id: string }).id);
    const wanted = request.body.service;
    const set: Columns<'service'> = { extra: extras(wanted, KNOWN, row.extra) };
    if (wanted.type !== undefined) set.type = wanted.type;
    if (wanted.name !== undefined) set.name = wanted.name;
    if (wanted.description !== undefined) set.description = wanted.description;
    if (wanted.enabled !== undefined) set.enabled = wanted.enabled ? 1 : 0;
    await catalog.write([{ do: 'update', table: 'service', where: { id: row.id }, set }]);
    return { service: shown({ ...row, ...set }) };
  });

  app.delete('/v3/services/:id', async (request, reply) => {
    enforce('delete_service', sessionOf(request));
    const row = await accounts.found('service', (request.params as { id: string }).id);
    await catalog.write([{ do: 'delete', table: 'service', where: { id: row.id } }]);
    return reply.code(204).send();
  });
};
