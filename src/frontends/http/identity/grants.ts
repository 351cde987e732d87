/**
 * Grants: who has which role on a project, a domain or the system; and those of OS-INHERIT, which hold in the projects below a project
 * or in all of a domain, and not there.
 */
import type { FastifyRequest } from 'fastify';
import { assignmentId } from '../../../control/catalog/catalog.ts';
import { KEEP_ADMIN, type RoleRow } from '../../../control/catalog/types.ts';
import { forbidden, notAllowed, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import type { Session } from './authentication.ts';
import { listQuery } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { list, pageOf } from './lists.ts';
import { type Action, enforce, may, type Target } from './policy.ts';
import { shownRoles } from './roles.ts';
import { matching, rowsOf } from './rows.ts';

/** What a domain manager may give and take: never what would make an operator. */
const GRANTABLE = new Set(['manager', 'member', 'reader']);

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

/** inherited or not, the paths of the list and of one grant; what Keystone has no list of has none here */
function paths(place: string, actor: string): [number, string | null, string][] {
  const roles = `${place}/${actor}/roles`;
  const direct: [number, string | null, string] = [0, `/v3${roles}`, `/v3${roles}/:role_id`];
  if (place === '/system') return [direct];
  const inherited = `/v3/OS-INHERIT${roles}`;
  const all = place.startsWith('/domains') ? `${inherited}/inherited_to_projects` : null;
  return [direct, [1, all, `${inherited}/:role_id/inherited_to_projects`]];
}

export const grantRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;

  for (const place of ['/projects/:project_id', '/domains/:domain_id', '/system']) {
    for (const actor of ['users/:user_id', 'groups/:group_id'])
      for (const [inherited, all, one] of paths(place, actor)) routesAt(inherited, all, one);
  }

  function routesAt(inherited: number, all: string | null, one: string): void {
    if (all !== null) {
      app.get(all, { schema: { querystring: listQuery() } }, async (request) => {
        const { role_id: _any, ...held } = await granted(request, 'list', inherited);
        const db = await accounts.db();
        const ids = matching(db, 'assignment', held).clearSelect().select('role_id');
        const rows = await rowsOf(matching(db, 'role', {}).where('id', 'in', ids), pageOf(request));
        return list('roles', shownRoles(rows, link), request, context);
      });
    }

    app.get(one, async (request, reply) => {
      const parts = await granted(request, 'check', inherited);
      const query = matching(await accounts.db(), 'assignment', { id: assignmentId(parts) });
      if (!(await query.executeTakeFirst())) throw notFound('role assignment with role', parts.role_id);
      return reply.code(204).send();
    });

    app.put(one, async (request, reply) => {
      const parts = await granted(request, 'create', inherited);
      const row = { id: assignmentId(parts), ...parts };
      await catalog.write([{ do: 'insert', table: 'assignment', row, orKeep: true }]);
      return reply.code(204).send();
    });

    app.delete(one, async (request, reply) => {
      const parts = await granted(request, 'revoke', inherited);
      await catalog
        .write([{ do: 'delete', table: 'assignment', where: { id: assignmentId(parts) } }, KEEP_ADMIN])
        .catch((error) => {
          throw error.code === 'NOT_FOUND' ? notFound('role assignment with role', parts.role_id) : error;
        });
      return reply.code(204).send();
    });
  }

  /** What a grant's path names, when the caller may do that with it and all of it is there. */
  async function granted(request: FastifyRequest, verb: GrantVerb, inherited: number) {
    const params = request.params as GrantParams;
    const { project_id = null, domain_id = null, user_id = null, group_id = null, role_id } = params;
    const session = sessionOf(request);
    const project = project_id === null ? null : await accounts.row('project', project_id);
    const isSystem = project_id === null && domain_id === null;
    const changes = verb === 'create' || verb === 'revoke';
    const guarded = changes && (await accounts.coversAdminProject({ project_id, domain_id, inherited }));
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
      if (verb === 'create' && role.domain_id !== null && role.domain_id !== placeDomain)
        throw forbidden('A role of one domain is given there, and in the projects of it.');
    }
    return { user_id, group_id, project_id, domain_id, role_id: role_id ?? '', inherited };
  }

  /** Admins give what they like; domain managers these roles, to who is in their domain (CVE-2020-12691, one level up). */
  function checkDelegable(action: Action, session: Session, role: RoleRow, actorDomain: string): void {
    if (may(action, session, {})) return;
    if (session.scope.kind !== 'domain' || actorDomain !== session.scope.id || !GRANTABLE.has(role.name))
      throw notAllowed(`identity:${action}`);
  }
};
