/** /v3/groups, and who is in them */
import { newId } from '../../../control/catalog/catalog.ts';
import { type Columns, type GroupRow, KEEP_ADMIN } from '../../../control/catalog/types.ts';
import { conflict, notAllowed, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import type { Session } from './authentication.ts';
import { Description, Id, listQuery, maybe, name, wrapped } from './bodies.ts';
import type { IdentityContext, IdentityRoutes } from './identity-context.ts';
import { extras, homeDomain, list, listedDomain, pageOf, saving } from './lists.ts';
import { type Action, enforce, may } from './policy.ts';
import { matching, rowsOf } from './rows.ts';
import { extraOf, shownUsers } from './shown.ts';

const NAME_MAX = 64;
const GroupCreate = wrapped('group', { name: name(NAME_MAX), domain_id: maybe(Id), description: maybe(Description) });
const GroupUpdate = wrapped('group', {
  name: maybe(name(NAME_MAX)),
  domain_id: maybe(Id),
  description: maybe(Description),
});
const KNOWN = new Set(['id', 'links', 'name', 'domain_id', 'description']);

export function shownGroup(row: GroupRow, link: (path: string) => string) {
  return {
    ...extraOf(row),
    id: row.id,
    name: row.name,
    domain_id: row.domain_id,
    description: row.description,
    links: { self: link(`/groups/${row.id}`) },
  };
}

export function shownGroups(rows: readonly GroupRow[], link: (path: string) => string) {
  return rows.map((row) => shownGroup(row, link));
}

/** The group, if the policy lets the caller do that with it (and, for membership, with that user). */
export async function groupFor(
  context: IdentityContext,
  session: Session,
  id: string,
  action: Action,
  { changes = false, userId = undefined as string | undefined } = {},
): Promise<GroupRow> {
  const group = await context.accounts.row('user_group', id);
  const hidden = changes && group && (await context.accounts.isOperatorGroup(id));
  const target = group
    ? { ...(userId === undefined ? {} : { userId }), ...(hidden ? {} : { domainId: group.domain_id }) }
    : {};
  if (!may(action, session, target)) throw notAllowed(`identity:${action}`);
  if (!group) throw notFound('group', id);
  return group;
}

export const groupRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;

  app.get('/v3/groups', { schema: { querystring: listQuery('name', 'domain_id') } }, async (request) => {
    const session = sessionOf(request);
    const asked = request.query;
    const domainId = listedDomain(session, asked);
    enforce('list_groups', session, { domainId });
    const query = matching(await accounts.db(), 'user_group', { domain_id: domainId, name: asked.name });
    return list('groups', shownGroups(await rowsOf(query, pageOf(request)), link), request, context);
  });

  app.post('/v3/groups', { schema: { body: GroupCreate } }, async (request, reply) => {
    const session = sessionOf(request);
    const { group } = request.body;
    const domainId = group.domain_id ?? homeDomain(session);
    enforce('create_group', session, { domainId });
    await accounts.found('domain', domainId);
    const row: GroupRow = {
      id: newId(),
      name: group.name,
      domain_id: domainId,
      description: group.description ?? '',
      extra: extras(group, KNOWN),
    };
    await saving('group', row.name, catalog.write([{ do: 'insert', table: 'user_group', row }]));
    reply.code(201);
    return { group: shownGroup(row, link) };
  });

  app.get('/v3/groups/:group_id', async (request) => {
    const { group_id } = request.params as { group_id: string };
    return { group: shownGroup(await groupFor(context, sessionOf(request), group_id, 'get_group'), link) };
  });

  app.patch('/v3/groups/:group_id', { schema: { body: GroupUpdate } }, async (request) => {
    const { group_id } = request.params as { group_id: string };
    const row = await groupFor(context, sessionOf(request), group_id, 'update_group', { changes: true });
    const { group } = request.body;
    if (group.domain_id !== undefined && group.domain_id !== row.domain_id)
      throw conflict('A group cannot move to another domain.');
    const set: Columns<'user_group'> = { extra: extras(group, KNOWN, row.extra) };
    if (group.name !== undefined) set.name = group.name;
    if (group.description !== undefined) set.description = group.description ?? '';
    await saving(
      'group',
      group.name ?? row.name,
      catalog.write([{ do: 'update', table: 'user_group', where: { id: row.id }, set }]),
    );
    return { group: shownGroup({ ...row, ...set }, link) };
  });

  app.delete('/v3/groups/:group_id', async (request, reply) => {
    const { group_id } = request.params as { group_id: string };
    const row = await groupFor(context, sessionOf(request), group_id, 'delete_group', { changes: true });
    await catalog.write([{ do: 'delete', table: 'user_group', where: { id: row.id } }, KEEP_ADMIN]);
    return reply.code(204).send();
  });

  app.get('/v3/groups/:group_id/users', { schema: { querystring: listQuery() } }, async (request) => {
    const { group_id } = request.params as { group_id: string };
    const group = await groupFor(context, sessionOf(request), group_id, 'list_users_in_group');
    const query = (await accounts.db())
      .selectFrom('user')
      .innerJoin('membership', 'membership.user_id', 'user.id')
      .selectAll('user')
      .where('membership.group_id', '=', group.id);
    const rows = await rowsOf(query, pageOf(request), 'user.id');
    return list('users', shownUsers(rows, link), request, context);
  });

  const member = '/v3/groups/:group_id/users/:user_id';
  type Member = { group_id: string; user_id: string };

  app.get(member, async (request, reply) => {
    const { group_id, user_id } = request.params as Member;
    await groupFor(context, sessionOf(request), group_id, 'check_user_in_group', { userId: user_id });
    const row = await matching(await accounts.db(), 'membership', { group_id, user_id }).executeTakeFirst();
    if (!row) throw notFound('user in group', user_id);
    return reply.code(204).send();
  });

  app.put(member, async (request, reply) => {
    const { group_id, user_id } = request.params as Member;
    await groupFor(context, sessionOf(request), group_id, 'add_user_to_group', { changes: true });
    await accounts.found('user', user_id);
    await catalog.write([{ do: 'insert', table: 'membership', row: { user_id, group_id }, orKeep: true }]);
    return reply.code(204).send();
  });

  app.delete(member, async (request, reply) => {
    const { group_id, user_id } = request.params as Member;
    await groupFor(context, sessionOf(request), group_id, 'remove_user_from_group', { changes: true });
    await catalog.write([{ do: 'delete', table: 'membership', where: { user_id, group_id } }, KEEP_ADMIN]);
    return reply.code(204).send();
  });
};
