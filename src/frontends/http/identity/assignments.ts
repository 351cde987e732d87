/** /v3/role_assignments: who has which role where, as it was granted or as it comes out. */
import type { SelectQueryBuilder } from 'kysely';
import { assignmentId } from '../../../control/catalog/catalog.ts';
import type { AssignmentRow, CatalogTables, RoleRow } from '../../../control/catalog/types.ts';
import { badRequest } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { assignmentsOf } from './accounts.ts';
import { filterQuery } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { flag, list } from './lists.ts';
import { enforce } from './policy.ts';
import { roleName } from './role-names.ts';
import { LIST_MAX, matching, rowsOf } from './rows.ts';

type Names = Record<'domains' | 'roles' | 'users' | 'groups' | 'projects', Map<string, object>>;
const FILTERS = [
  ...(['user.id', 'group.id', 'role.id', 'scope.project.id', 'scope.domain.id', 'scope.system'] as const),
  ...(['effective', 'include_names', 'include_subtree', 'scope.OS-INHERIT:inherited_to'] as const),
];
/** these have no ids to go on from */
const ALL = { rows: LIST_MAX };
type Asked = Partial<Record<(typeof FILTERS)[number], string>>;

export const assignmentRoutes: IdentityRoutes = (app, context) => {
  const { accounts, link } = context;

  app.get('/v3/role_assignments', { schema: { querystring: filterQuery(...FILTERS) } }, async (request) => {
    const session = sessionOf(request);
    const asked = request.query;
    const scopedTo = asked['scope.project.id']
      ? (await accounts.row('project', asked['scope.project.id']))?.domain_id
      : asked['scope.domain.id'];
    enforce('list_role_assignments', session, scopedTo === undefined ? {} : { domainId: scopedTo });
    const isEffective = flag(asked.effective) === 1;
    if (flag(asked.include_subtree) === 1 && asked['scope.project.id'] === undefined)
      throw badRequest('include_subtree is of a project: scope.project.id says which');
    if (isEffective && asked['group.id'] !== undefined) throw badRequest('effective assignments are those of users');
    const found = await assignmentsAsked(asked, isEffective);
    return list('role_assignments', await shown(found, flag(asked.include_names) === 1), request, context, ALL);
  });

  async function assignmentsAsked(asked: Asked, isEffective: boolean): Promise<AssignmentRow[]> {
    const db = await accounts.db();
    const { 'user.id': user_id, 'role.id': role_id } = asked;
    const projects = await projectsAsked(asked);
    const system = asked['scope.system'] === undefined ? {} : { project_id: null, domain_id: null };
    const inherited = asked['scope.OS-INHERIT:inherited_to'] === undefined ? {} : { inherited: 1 };
    const common = { domain_id: asked['scope.domain.id'], group_id: asked['group.id'], ...system, ...inherited };
    if (!isEffective) {
      const query = matching(db, 'assignment', { user_id, role_id, ...common });
      return rowsOf(projects === undefined ? query : query.where('project_id', 'in', projects), ALL);
    }
    let query = matching(db, 'assignment', common);
    if (projects !== undefined) query = await holdingIn(query, projects);
    // What is inherited holds below a domain, and not in it.
    else if (common.domain_id !== undefined) query = query.where('inherited', '=', 0);
    if (user_id !== undefined) query = query.where('id', 'in', assignmentsOf(db, user_id).select('id'));
    const effective = await expand(await rowsOf(query, ALL), projects);
    return effective.filter(
      (row) => (user_id === undefined || row.user_id === user_id) && (role_id === undefined || row.role_id === role_id),
    );
  }

  /** The one that is asked for, first, and those below it where they are asked for too; undefined: all there are. */
  async function projectsAsked(asked: Asked): Promise<string[] | undefined> {
    const { 'scope.project.id': project_id } = asked;
    if (project_id === undefined) return undefined;
    if (flag(asked.include_subtree) !== 1) return [project_id];
    return [project_id, ...(await accounts.below({ project_id, domain_id: null }))];
  }

  type AssignmentQuery = SelectQueryBuilder<CatalogTables, 'assignment', AssignmentRow>;

  /** Those of a project and of those below it, and those that they inherit. */
  async function holdingIn(query: AssignmentQuery, projects: readonly string[]): Promise<AssignmentQuery> {
    const [first = '', ...below] = projects;
    const above = await accounts.above(first);
    return query.where((where) => {
      const direct = where.and([where('project_id', 'in', projects), where('inherited', '=', 0)]);
      if (above === null) return direct;
      const heirs = below.length > 0 ? projects : [];
      // Nothing has the empty id; a list of none is not SQL everywhere.
      const from = where.or([
        where('domain_id', '=', above.domain),
        where('project_id', 'in', ['', ...above.projects, ...heirs]),
      ]);
      return where.or([direct, where.and([from, where('inherited', '=', 1)])]);
    });
  }

  /** Groups become their members, roles bring those that they imply, and what is inherited stands where it holds. */
  async function expand(
    rows: readonly AssignmentRow[],
    projects: readonly string[] | undefined,
  ): Promise<AssignmentRow[]> {
    const byId = new Map<string, AssignmentRow>();
    const impliedBy = new Map<string, string[]>();
    for (const row of rows) {
      if (!impliedBy.has(row.role_id))
        impliedBy.set(
          row.role_id,
          (await accounts.withImplied([row.role_id])).map(({ id }) => id),
        );
      const users = row.user_id !== null ? [row.user_id] : await membersOf(row.group_id!);
      for (const place of await placesOf(row, projects)) {
        for (const user_id of users) {
          for (const role_id of impliedBy.get(row.role_id)!) {
            const parts = { ...row, ...place, inherited: 0, user_id, group_id: null, role_id };
            const id = assignmentId(parts);
            byId.set(id, { ...parts, id });
          }
          if (byId.size > LIST_MAX) return [...byId.values()];
        }
      }
    }
    return [...byId.values()];
  }

  async function membersOf(groupId: string): Promise<string[]> {
    const query = matching(await accounts.db(), 'membership', { group_id: groupId });
    return (await query.execute()).map(({ user_id }) => user_id);
  }

  /** Where an assignment holds: there, or in the projects that inherit it. */
  async function placesOf(row: AssignmentRow, projects: readonly string[] | undefined) {
    if (row.inherited === 0) return [{ project_id: row.project_id, domain_id: row.domain_id }];
    if (projects?.length === 1) return projects.map((project_id) => ({ project_id, domain_id: null }));
    const ids = (await accounts.below(row)).filter((id) => projects?.includes(id) ?? true);
    return ids.map((project_id) => ({ project_id, domain_id: null }));
  }

  async function shown(rows: readonly AssignmentRow[], withNames: boolean): Promise<object[]> {
    const names = withNames ? await namesOf(rows) : null;
    const named = (kind: keyof Names, id: string) => names?.[kind].get(id) ?? { id };
    return rows.map((row) => {
      const isInherited = row.inherited !== 0;
      const scope = {
        ...(row.project_id !== null
          ? { project: named('projects', row.project_id) }
          : row.domain_id !== null
            ? { domain: named('domains', row.domain_id) }
            : { system: { all: true } }),
        ...(isInherited ? { 'OS-INHERIT:inherited_to': 'projects' } : {}),
      };
      const actor =
        row.user_id !== null ? { user: named('users', row.user_id) } : { group: named('groups', row.group_id!) };
      const place = row.project_id
        ? `/projects/${row.project_id}`
        : row.domain_id
          ? `/domains/${row.domain_id}`
          : '/system';
      const who = row.user_id ? `users/${row.user_id}` : `groups/${row.group_id}`;
      const grant = `${place}/${who}/roles/${row.role_id}`;
      const links = { assignment: link(isInherited ? `/OS-INHERIT${grant}/inherited_to_projects` : grant) };
      return { role: named('roles', row.role_id), ...actor, scope, links };
    });
  }

  /** The names of all that the rows speak of, a query for each kind. */
  async function namesOf(rows: readonly AssignmentRow[]): Promise<Names> {
    const db = await accounts.db();
    // Nothing has the empty id; a list of none is not SQL everywhere.
    const ids = (column: Exclude<keyof AssignmentRow, 'inherited'>) => [
      ...new Set(['', ...rows.flatMap((row) => row[column] ?? [])]),
    ];
    const domains = new Map(
      (await db.selectFrom('domain').select(['id', 'name']).execute()).map((row) => [row.id, row]),
    );
    const inDomain = (found: { id: string; name: string; domain_id: string }[]) =>
      new Map(found.map(({ id, name, domain_id }) => [id, { id, name, domain: domains.get(domain_id) }]));
    const columns = ['id', 'name', 'domain_id'] as const;
    const roles = await db.selectFrom('role').selectAll().where('id', 'in', ids('role_id')).execute();
    const role = (row: RoleRow) => {
      const domain = row.domain_id === null ? {} : { domain: domains.get(row.domain_id) };
      return { id: row.id, name: roleName(row), ...domain };
    };
    return {
      domains,
      roles: new Map(roles.map((row) => [row.id, role(row)])),
      users: inDomain(await db.selectFrom('user').select(columns).where('id', 'in', ids('user_id')).execute()),
      groups: inDomain(await db.selectFrom('user_group').select(columns).where('id', 'in', ids('group_id')).execute()),
      projects: inDomain(await db.selectFrom('project').select(columns).where('id', 'in', ids('project_id')).execute()),
    };
  }
};
