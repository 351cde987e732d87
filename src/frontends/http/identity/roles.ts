/** /v3/roles */
import { newId } from '../../../control/catalog/catalog.ts';
import { type Columns, KEEP_ADMIN, type RoleRow } from '../../../control/catalog/types.ts';
import { badRequest } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { Description, Id, listQuery, maybe, name, orNull, wrapped } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { extras, list, pageOf, saving } from './lists.ts';
import { enforce } from './policy.ts';
import { matching, rowsOf } from './rows.ts';
import { extraOf } from './shown.ts';

const NAME_MAX = 255;
const common = { description: maybe(Description), domain_id: maybe(orNull(Id)) };
const RoleCreate = wrapped('role', { name: name(NAME_MAX), ...common });
const RoleUpdate = wrapped('role', { name: maybe(name(NAME_MAX)), ...common });
const KNOWN = new Set(['id', 'links', 'name', 'description', 'domain_id', 'options']);

export function shownRole(row: RoleRow, link: (path: string) => string) {
  return {
    ...extraOf(row),
    id: row.id,
    name: row.name,
    description: row.description,
    domain_id: null,
    options: {},
    links: { self: link(`/roles/${row.id}`) },
  };
}

export function shownRoles(rows: readonly RoleRow[], link: (path: string) => string) {
  return rows.map((row) => shownRole(row, link));
}

export const roleRoutes: IdentityRoutes = (app, { accounts, catalog, link, ...rest }) => {
  const context = { accounts, catalog, link, ...rest };

  app.get('/v3/roles', { schema: { querystring: listQuery('name', 'domain_id') } }, async (request) => {
    const session = sessionOf(request);
    enforce('list_roles', session, session.scope.kind === 'domain' ? { domainId: session.scope.id } : {});
    const asked = request.query;
    // Roles of one domain are not built: there are none.
    const none = asked.domain_id === undefined ? {} : { id: '' };
    const query = matching(await accounts.db(), 'role', { name: asked.name, ...none });
    return list('roles', shownRoles(await rowsOf(query, pageOf(request)), link), request, context);
  });

  app.post('/v3/roles', { schema: { body: RoleCreate } }, async (request, reply) => {
    enforce('create_role', sessionOf(request));
    const { role } = request.body;
    if (role.domain_id) throw badRequest('roles of one domain are not supported');
    const row: RoleRow = {
      id: newId(),
      name: role.name,
      description: role.description ?? null,
      extra: extras(role, KNOWN),
    };
    await saving('role', row.name, catalog.write([{ do: 'insert', table: 'role', row }]));
    reply.code(201);
    return { role: shownRole(row, link) };
  });

  app.get('/v3/roles/:role_id', async (request) => {
    const session = sessionOf(request);
    enforce('get_role', session, session.scope.kind === 'domain' ? { domainId: session.scope.id } : {});
    return { role: shownRole(await accounts.found('role', (request.params as { role_id: string }).role_id), link) };
  });

  app.patch('/v3/roles/:role_id', { schema: { body: RoleUpdate } }, async (request) => {
    enforce('update_role', sessionOf(request));
    const row = await accounts.found('role', (request.params as { role_id: string }).role_id);
    const { role } = request.body;
    const set: Columns<'role'> = { extra: extras(role, KNOWN, row.extra) };
    if (role.name !== undefined) set.name = role.name;
    if (role.description !== undefined) set.description = role.description;
    await saving(
      'role',
      role.name ?? row.name,
      catalog.write([{ do: 'update', table: 'role', where: { id: row.id }, set }, KEEP_ADMIN]),
    );
    return { role: shownRole({ ...row, ...set }, link) };
  });

  app.delete('/v3/roles/:role_id', async (request, reply) => {
    enforce('delete_role', sessionOf(request));
    const row = await accounts.found('role', (request.params as { role_id: string }).role_id);
    await catalog.write([{ do: 'delete', table: 'role', where: { id: row.id } }, KEEP_ADMIN]);
    return reply.code(204).send();
  });
};
