/** Grants (who has which role where), and /v3/role_assignments, which lists them. */
import type { FastifyRequest } from 'fastify';
import { assignmentId } from '../../../control/catalog/catalog.ts';
import type { AssignmentRow, RoleRow } from '../../../control/catalog/types.ts';
import { badRequest, notAllowed, notFound } from '../errors.ts';
import { assignmentsOf } from './accounts.ts';
import type { Session } from './authentication.ts';
import { type IdentityRoutes, sessionOf } from './identity-context.ts';
import { filters, flag, list } from './lists.ts';
import { type Action, enforce, may, type Target } from './policy.ts';
import { shownRoles } from './roles.ts';
import { LIST_MAX, matching, rowsOf } from './rows.ts';

/** What a domain manager may give and take: never what would make an operator. */
const GRANTABLE = new Set(['manager', 'member', 'reader']);

type Names = Record<'domains' | 'roles' | 'users' | 'groups' | 'projects', Map<string, object>>;

interface GrantParams {
  project_id?: string;
  domain_id?: string;
  user_id?: string;
  group_id?: string;
  role_id?: string;
}
type GrantVerb = 'list' | 'check' | 'create' | 'revoke';
const PROJECT_ACTIONS = {
  list: 'list_grants',
  check: 'check_grant',
  create: 'create_grant',
  revoke: 'revoke_grant',
} as const;
const SYSTEM_ACTIONS = {
  list: 'list_system_grants',
  check: 'list_system_grants',
  create: 'create_system_grant',
  revoke: 'revoke_system_grant',
} as const;

export const assignmentRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;

  for (const place of ['/projects/:project_id', '/domains/:domain_id', '/system']) {
    for (const actor of ['users/:user_id', 'groups/:group_id']) {
      const path = `/v3${place}/${actor}/roles`;

      app.get(path, async (request) => {
        const { role_id: _any, ...held } = await granted(request, 'list');
        const db = await accounts.db();
        const ids = matching(db, 'assignment', held).clearSelect().select('role_id');
        const query = matching(db, 'role', {}).where('id', 'in', ids);
        return list('roles', shownRoles(await rowsOf(query.orderBy('name')), link), request, context);
      });

      app.get(`${path}/:role_id`, async (request, reply) => {
        const parts = await granted(request, 'check');
        const query = matching(await accounts.db(), 'assignment', { id: assignmentId(parts) });
        if (!(await query.executeTakeFirst())) throw notFound('role assignment with role', parts.role_id);
        return reply.code(204).send();
      });

      app.put(`${path}/:role_id`, async (request, reply) => {
        const parts = await granted(request, 'create');
        await catalog.write([
          { do: 'insert', table: 'assignment', row: { id: assignmentId(parts), ...parts }, orKeep: true },
        ]);
        return reply.code(204).send();
      });

      app.delete(`${path}/:role_id`, async (request, reply) => {
        const parts = await granted(request, 'revoke');
        await catalog
          .write([{ do: 'delete', table: 'assignment', where: { id: assignmentId(parts) } }])
          .catch((error) => {
            throw error.code === 'NOT_FOUND' ? notFound('role assignment with role', parts.role_id) : error;
          });
        return reply.code(204).send();
      });
    }
  }

  /** What a grant's path names, when the caller may do that with it and all of it is there. */
  async function granted(request: FastifyRequest, verb: GrantVerb) {
    const {
      project_id = null,
      domain_id = null,
      user_id = null,
      group_id = null,
      role_id,
    } = request.params as GrantParams;
    const session = sessionOf(request);
    const project = project_id === null ? null : await accounts.row('project', project_id);
    const isSystem = project_id === null && domain_id === null;
    const changes = verb === 'create' || verb === 'revoke';
    const guarded = changes && project_id !== null && project_id === (await accounts.adminProject());
    const placeDomain = project?.domain_id ?? domain_id;
    const target: Target = placeDomain === null || guarded ? {} : { domainId: placeDomain };
    const action: Action = isSystem ? SYSTEM_ACTIONS[verb] : PROJECT_ACTIONS[verb];
    enforce(action, session, target);
    if (project_id !== null && !project) throw notFound('project', project_id);
    if (domain_id !== null) await accounts.found('domain', domain_id);
    const actor =
      user_id === null ? await accounts.found('user_group', group_id ?? '') : await accounts.found('user', user_id);
    if (role_id !== undefined) {
      const role = await accounts.found('role', role_id);
      if (changes) checkDelegable(action, session, role, actor.domain_id);
    }
    return { user_id, group_id, project_id, domain_id, role_id: role_id ?? '' };
  }

  /** Admins give what they like; domain managers these roles, to who is in their domain (CVE-2020-12691, one level up). */
  function checkDelegable(action: Action, session: Session, role: RoleRow, actorDomain: string): void {
    if (may(action, session, {})) return;
    if (session.scope.kind !== 'domain' || actorDomain !== session.scope.id || !GRANTABLE.has(role.name))
      throw notAllowed(`identity:${action}`);
  }

  app.get('/v3/role_assignments', async (request) => {
    const session = sessionOf(request);
    const asked = filters(request, [
      ...(['user.id', 'group.id', 'role.id', 'scope.project.id', 'scope.domain.id', 'scope.system'] as const),
      ...(['effective', 'include_names', 'include_subtree', 'scope.OS-INHERIT:inherited_to'] as const),
    ]);
    const scopedTo = asked['scope.project.id']
      ? (await accounts.row('project', asked['scope.project.id']))?.domain_id
      : asked['scope.domain.id'];
    enforce('list_role_assignments', session, scopedTo === undefined ? {} : { domainId: scopedTo });
    if (asked['scope.OS-INHERIT:inherited_to'] !== undefined) return list('role_assignments', [], request, context);
    const isEffective = flag(asked.effective) === 1;
    if (flag(asked.include_subtree) === 1) throw badRequest('include_subtree is not supported');
    if (isEffective && asked['group.id'] !== undefined) throw badRequest('effective assignments are those of users');
    const found = await assignmentsAsked(asked, isEffective);
    return list('role_assignments', await shown(found, flag(asked.include_names) === 1), request, context);
  });

  async function assignmentsAsked(
    asked: Partial<Record<string, string>>,
    isEffective: boolean,
  ): Promise<AssignmentRow[]> {
    const db = await accounts.db();
    const system = asked['scope.system'] === undefined ? {} : { project_id: null, domain_id: null };
    const where = {
      project_id: asked['scope.project.id'],
      domain_id: asked['scope.domain.id'],
      group_id: asked['group.id'],
      ...system,
    };
    const { 'user.id': user_id, 'role.id': role_id } = asked;
    if (!isEffective) return rowsOf(matching(db, 'assignment', { ...where, user_id, role_id }).orderBy('id'));
    let query = matching(db, 'assignment', where);
    if (user_id !== undefined) query = query.where('id', 'in', assignmentsOf(db, user_id).select('id'));
    const effective = await expand(await rowsOf(query.orderBy('id')));
    return effective.filter(
      (row) => (user_id === undefined || row.user_id === user_id) && (role_id === undefined || row.role_id === role_id),
    );
  }

  /** Groups become their members, roles bring those that they imply. */
  async function expand(rows: readonly AssignmentRow[]): Promise<AssignmentRow[]> {
    const db = await accounts.db();
    const byId = new Map<string, AssignmentRow>();
    const impliedBy = new Map<string, string[]>();
    for (const row of rows) {
      const users =
        row.user_id !== null
          ? [row.user_id]
          : (await db.selectFrom('membership').select('user_id').where('group_id', '=', row.group_id!).execute()).map(
              (one) => one.user_id,
            );
      if (!impliedBy.has(row.role_id))
        impliedBy.set(
          row.role_id,
          (await accounts.withImplied([row.role_id])).map(({ id }) => id),
        );
      for (const user_id of users) {
        for (const role_id of impliedBy.get(row.role_id)!) {
          const parts = { ...row, user_id, group_id: null, role_id };
          const id = assignmentId(parts);
          byId.set(id, { ...parts, id });
        }
        if (byId.size > LIST_MAX) return [...byId.values()];
      }
    }
    return [...byId.values()];
  }

  async function shown(rows: readonly AssignmentRow[], withNames: boolean): Promise<unknown[]> {
    const names = withNames ? await namesOf(rows) : null;
    const named = (kind: keyof Names, id: string) => names?.[kind].get(id) ?? { id };
    return rows.map((row) => {
      const scope =
        row.project_id !== null
          ? { project: named('projects', row.project_id) }
          : row.domain_id !== null
            ? { domain: named('domains', row.domain_id) }
            : { system: { all: true } };
      const actor =
        row.user_id !== null ? { user: named('users', row.user_id) } : { group: named('groups', row.group_id!) };
      const place = row.project_id
        ? `/projects/${row.project_id}`
        : row.domain_id
          ? `/domains/${row.domain_id}`
          : '/system';
      const who = row.user_id ? `users/${row.user_id}` : `groups/${row.group_id}`;
      const links = { assignment: link(`${place}/${who}/roles/${row.role_id}`) };
      return { role: named('roles', row.role_id), ...actor, scope, links };
    });
  }

  /** The names of all that the rows speak of, a query for each kind. */
  async function namesOf(rows: readonly AssignmentRow[]): Promise<Names> {
    const db = await accounts.db();
    // Nothing has the empty id; a list of none is not SQL everywhere.
    const ids = (column: keyof AssignmentRow) => [...new Set(['', ...rows.flatMap((row) => row[column] ?? [])])];
    const domains = new Map(
      (await db.selectFrom('domain').select(['id', 'name']).execute()).map((row) => [row.id, row]),
    );
    const inDomain = (found: { id: string; name: string; domain_id: string }[]) =>
      new Map(found.map(({ id, name, domain_id }) => [id, { id, name, domain: domains.get(domain_id) }]));
    const columns = ['id', 'name', 'domain_id'] as const;
    const roles = await db.selectFrom('role').select(['id', 'name']).where('id', 'in', ids('role_id')).execute();
    return {
      domains,
      roles: new Map(roles.map((row) => [row.id, row])),
      users: inDomain(await db.selectFrom('user').select(columns).where('id', 'in', ids('user_id')).execute()),
      groups: inDomain(await db.selectFrom('user_group').select(columns).where('id', 'in', ids('group_id')).execute()),
      projects: inDomain(await db.selectFrom('project').select(columns).where('id', 'in', ids('project_id')).execute()),
    };
  }
};
