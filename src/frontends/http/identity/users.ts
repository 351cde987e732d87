/** /v3/users */
import { Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import { type Columns, KEEP_ADMIN, type UserRow } from '../../../control/catalog/types.ts';
import { conflict, forbidden, notAllowed, notFound, unauthorized } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { checkPassword, type Session } from './authentication.ts';
import { Description, Id, listQuery, maybe, name, orNull, wrapped } from './bodies.ts';
import { shownGroups } from './groups.ts';
import type { IdentityContext, IdentityRoutes } from './identity-context.ts';
import { extras, flag, homeDomain, list, listedDomain, pageOf, saving } from './lists.ts';
import { type Action, enforce, may } from './policy.ts';
import { matching, rowsOf } from './rows.ts';
import { shownUser, shownUsers } from './shown.ts';
import { shownProjects } from './shown-projects.ts';

const NAME_MAX = 255;
const Password = Type.Union([Type.String({ maxLength: 4096 }), Type.Null()]);
const common = {
  enabled: maybe(Type.Boolean()),
  description: maybe(Description),
  default_project_id: maybe(orNull(Id)),
  password: maybe(Password),
};
const UserCreate = wrapped('user', { name: name(NAME_MAX), domain_id: maybe(Id), ...common });
const UserUpdate = wrapped('user', { name: maybe(name(NAME_MAX)), domain_id: maybe(Id), ...common });
const PasswordChange = wrapped('user', {
  original_password: Type.String({ maxLength: 4096 }),
  password: Type.String({ maxLength: 4096 }),
});
const KNOWN = new Set([
  ...['id', 'links', 'name', 'domain_id', 'enabled', 'description', 'default_project_id', 'password', 'options'],
  'password_expires_at',
]);

/**
 * The user, if the policy lets the caller do that with it. Whoever may not learns nothing of who is there.
 * Domain managers do not reach operators: else the password of one would make them one.
 */
export async function userFor(
  context: IdentityContext,
  session: Session,
  id: string,
  action: Action,
  changes = false,
): Promise<UserRow> {
  const user = await context.accounts.row('user', id);
  const hidden = changes && user && (await context.accounts.isOperator(id));
  const target = user ? { userId: user.id, ...(hidden ? {} : { domainId: user.domain_id }) } : {};
  if (may(action, session, target)) {
    if (user) return user;
    throw notFound('user', id);
  }
  throw notAllowed(`identity:${action}`);
}

/** A delegated token must not make itself more than it is. */
export function refuseDelegated(session: Session, action: Action): void {
  if (session.restricted) throw notAllowed(`identity:${action}`);
}

export const userRoutes: IdentityRoutes = (app, context) => {
  const { accounts, authentication, catalog, link } = context;

  app.get('/v3/users', { schema: { querystring: listQuery('name', 'domain_id', 'enabled') } }, async (request) => {
    const session = sessionOf(request);
    const asked = request.query;
    const domainId = listedDomain(session, asked);
    enforce('list_users', session, { domainId });
    const wanted = { domain_id: domainId, name: asked.name, enabled: flag(asked.enabled) };
    const rows = await rowsOf(matching(await accounts.db(), 'user', wanted), pageOf(request));
    return list('users', shownUsers(rows, link), request, context);
  });

  app.post('/v3/users', { schema: { body: UserCreate } }, async (request, reply) => {
    const session = sessionOf(request);
    const { user } = request.body;
    const domainId = user.domain_id ?? homeDomain(session);
    enforce('create_user', session, { domainId });
    await accounts.found('domain', domainId);
    const row: UserRow = {
      id: newId(),
      name: user.name,
      domain_id: domainId,
      default_project_id: user.default_project_id ?? null,
      enabled: user.enabled === false ? 0 : 1,
      description: user.description ?? null,
      ...(await hashed(user.password)),
      epoch: 0,
      extra: extras(user, KNOWN),
    };
    await saving('user', user.name, catalog.write([{ do: 'insert', table: 'user', row }]));
    reply.code(201);
    return { user: shownUser(row, link) };
  });

  app.get('/v3/users/:user_id', async (request) => {
    const { user_id } = request.params as { user_id: string };
    return { user: shownUser(await userFor(context, sessionOf(request), user_id, 'get_user'), link) };
  });

  app.patch('/v3/users/:user_id', { schema: { body: UserUpdate } }, async (request) => {
    const { user_id } = request.params as { user_id: string };
    const session = sessionOf(request);
    const row = await userFor(context, session, user_id, 'update_user', true);
    if (user_id === session.userId) refuseDelegated(session, 'update_user');
    const { user } = request.body;
    if (user.domain_id !== undefined && user.domain_id !== row.domain_id)
      throw conflict('A user cannot move to another domain.');
    const set: Columns<'user'> = { extra: extras(user, KNOWN, row.extra) };
    if (user.name !== undefined) set.name = user.name;
    if (user.enabled !== undefined) set.enabled = user.enabled ? 1 : 0;
    if (user.description !== undefined) set.description = user.description;
    if (user.default_project_id !== undefined) set.default_project_id = user.default_project_id;
    if (user.password !== undefined) Object.assign(set, await hashed(user.password));
    const revoke = user.password !== undefined || user.enabled === false;
    await saving(
      'user',
      user.name ?? row.name,
      catalog.write([
        { do: 'update', table: 'user', where: { id: row.id }, set, revoke },
        ...(set.enabled === 0 ? [KEEP_ADMIN] : []),
      ]),
    );
    if (user.password !== undefined) catalog.passwordChanged(row, null);
    return { user: shownUser({ ...row, ...set }, link) };
  });

  app.delete('/v3/users/:user_id', async (request, reply) => {
    const { user_id } = request.params as { user_id: string };
    const session = sessionOf(request);
    refuseDelegated(session, 'delete_user');
    const row = await userFor(context, session, user_id, 'delete_user', true);
    await catalog.write([{ do: 'delete', table: 'user', where: { id: row.id } }, KEEP_ADMIN]);
    return reply.code(204).send();
  });

  app.post('/v3/users/:user_id/password', { schema: { body: PasswordChange } }, async (request, reply) => {
    const { user_id } = request.params as { user_id: string };
    const session = sessionOf(request);
    enforce('change_password', session);
    refuseDelegated(session, 'change_password');
    const { original_password, password } = request.body.user;
    checkPassword(password);
    // Whoever it is: who knows the password could log in as that user, and a user that is not there has none that fits.
    const row = (await accounts.row('user', user_id)) ?? null;
    if (!(await authentication.passwordFits(row, original_password)) || row === null) throw unauthorized();
    if (original_password === password) throw forbidden('The new password must differ from the old one.');
    const set = await hashed(password);
    await catalog.write([{ do: 'update', table: 'user', where: { id: row.id, epoch: row.epoch }, set, revoke: true }]);
    catalog.passwordChanged(row, null);
    return reply.code(204).send();
  });

  app.get('/v3/users/:user_id/groups', { schema: { querystring: listQuery() } }, async (request) => {
    const { user_id } = request.params as { user_id: string };
    const user = await userFor(context, sessionOf(request), user_id, 'list_groups_for_user');
    const query = (await accounts.db())
      .selectFrom('user_group')
      .innerJoin('membership', 'membership.group_id', 'user_group.id')
      .selectAll('user_group')
      .where('membership.user_id', '=', user.id);
    const rows = await rowsOf(query, pageOf(request), 'user_group.id');
    return list('groups', shownGroups(rows, link), request, context);
  });

  app.get('/v3/users/:user_id/projects', { schema: { querystring: listQuery() } }, async (request) => {
    const { user_id } = request.params as { user_id: string };
    const user = await userFor(context, sessionOf(request), user_id, 'list_user_projects');
    const rows = await accounts.projectsOf(user.id, pageOf(request));
    return list('projects', await shownProjects(rows, context), request, context);
  });

  async function hashed(password: string | null | undefined) {
    if (password === undefined || password === null) return { password_hash: null, password_changed_at: null };
    checkPassword(password);
    return { password_hash: await catalog.passwords.hash(password), password_changed_at: Date.now() };
  }
};
