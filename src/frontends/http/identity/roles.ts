/** /v3/roles */
import { newId } from '../../../control/catalog/catalog.ts';
import { type Columns, KEEP_ADMIN, type RoleRow } from '../../../control/catalog/types.ts';
import { badRequest, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import type { Session } from './authentication.ts';
import { Description, Id, listQuery, maybe, name, orNull, wrapped } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { extras, list, pageOf, saving } from './lists.ts';
import { enforce, type Target } from './policy.ts';
import { keptName, roleName } from './role-names.ts';
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
    name: roleName(row),
    description: row.description,
    domain_id: row.domain_id,
    options: {},
    links: { self: link(`/roles/${row.id}`) },
  };
}

export function shownRoles(rows: readonly RoleRow[], link: (path: string) => string) {
  return rows.map((row) => shownRole(row, link));
}

/** Roles of all domains are read by who reads in any; those of one by who reads there. */
function readable(session: Session, domainId: string | null): Target {
  if (domainId !== null) return { domainId };
  return session.scope.kind === 'domain' ? { domainId: session.scope.id } : {};
}

export const roleRoutes: IdentityRoutes = (app, { accounts, catalog, link, ...rest }) => {
  const context = { accounts, catalog, link, ...rest };

  app.get('/v3/roles', { schema: { querystring: listQuery('name', 'domain_id') } }, async (request) => {
    const session = sessionOf(request);
    const asked = request.query;
    const domainId = asked.domain_id ?? null;
    enforce('list_roles', session, readable(session, domainId));
    const name = asked.name === undefined ? undefined : keptName(asked.name, domainId);
    const query = matching(await accounts.db(), 'role', { name, domain_id: domainId });
    return list('roles', shownRoles(await rowsOf(query, pageOf(request)), link), request, context);
  });

  app.post('/v3/roles', { schema: { body: RoleCreate } }, async (request, reply) => {
    enforce('create_role', sessionOf(request));
    const { role } = request.body;
    const domainId = role.domain_id ?? null;
    if (domainId !== null) await accounts.found('domain', domainId);
    const row: RoleRow = {
      id: newId(),
      name: keptName(role.name, domainId),
      domain_id: domainId,
      description: role.description ?? null,
      extra: extras(role, KNOWN),
    };
    await saving('role', role.name, catalog.write([{ do: 'insert', table: 'role', row }]));
    reply.code(201);
    return { role: shownRole(row, link) };
  });

  app.get('/v3/roles/:role_id', async (request) => {
    const session = sessionOf(request);
    const { role_id } = request.params as { role_id: string };
    const row = await accounts.row('role', role_id);
    enforce('get_role', session, readable(session, row?.domain_id ?? null));
    if (!row) throw notFound('role', role_id);
    return { role: shownRole(row, link) };
  });

  app.patch('/v3/roles/:role_id', { schema: { body: RoleUpdate } }, async (request) => {
    enforce('update_role', sessionOf(request));
    const row = await accounts.found('role', (request.params as { role_id: string }).role_id);
    const { role } = request.body;
    if (role.domain_id !== undefined && role.domain_id !== row.domain_id)
      throw badRequest('a role does not change its domain');
    const set: Columns<'role'> = { extra: extras(role, KNOWN, row.extra) };
    if (role.name !== undefined) set.name = keptName(role.name, row.domain_id);
    if (role.description !== undefined) set.description = role.description;
    await saving(
      'role',
      role.name ?? roleName(row),
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
