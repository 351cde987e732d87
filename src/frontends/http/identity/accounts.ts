/** Reading what several nouns need: who has which roles where, and who is an operator. All are point reads or small ones. */
import type { SelectQueryBuilder } from 'kysely';
import type { Catalog, CatalogReader } from '../../../control/catalog/catalog.ts';
import type {
  AssignmentRow,
  CatalogTables,
  DomainRow,
  ProjectRow,
  RoleRow,
  TableName,
} from '../../../control/catalog/types.ts';
import { notFound } from '../errors.ts';
import { LIST_MAX, matching, type Page, rowsOf } from './rows.ts';
import type { Scope } from './token-format.ts';

/** tables whose rows have an id that users see, and what one of them is called */
const NOUNS = {
  domain: 'domain',
  project: 'project',
  user: 'user',
  user_group: 'group',
  role: 'role',
  service: 'service',
  endpoint: 'endpoint',
  region: 'region',
} as const satisfies Partial<Record<TableName, string>>;
type Noun = keyof typeof NOUNS;

/** levels of projects below a domain, Keystone's own bound */
export const PROJECT_DEPTH_MAX = 5;

/** What a project inherits roles from: its domain, and the projects above it. */
interface Above {
  domain: string;
  projects: Set<string>;
}

type Ids = SelectQueryBuilder<CatalogTables, TableName, { project_id: string | null } | { id: string }>;

export class Accounts {
  constructor(readonly catalog: Catalog) {}

  db(): Promise<CatalogReader> {
    return this.catalog.reader();
  }

  async row<T extends Noun>(table: T, id: string): Promise<CatalogTables[T] | undefined> {
    return matching<Noun>(await this.db(), table, { id }).executeTakeFirst() as Promise<CatalogTables[T] | undefined>;
  }

  /** @throws {HttpError} 404 */
  async found<T extends Noun>(table: T, id: string): Promise<CatalogTables[T]> {
    const row = await this.row(table, id);
    if (row === undefined) throw notFound(NOUNS[table], id);
    return row;
  }

  async adminProject(): Promise<string | undefined> {
    const db = await this.db();
    return (await db.selectFrom('setting').select('value').where('key', '=', 'admin_project').executeTakeFirst())
      ?.value;
  }

  /** The assignments of a user, those of its groups too. */
  async assignments(userId: string): Promise<AssignmentRow[]> {
    return assignmentsOf(await this.db(), userId)
      .selectAll()
      .execute();
  }

  /** The projects in which a user has a role, its own or one that it inherits. */
  async projectsOf(userId: string, page: Page, enabled?: number): Promise<ProjectRow[]> {
    const db = await this.db();
    const direct = assignmentsOf(db, userId).where('inherited', '=', 0).select('project_id');
    const inherited = assignmentsOf(db, userId).where('inherited', '=', 1);
    const below = levelsBelow(db, inherited.select('project_id'));
    const query = matching(db, 'project', { enabled }).where((where) =>
      where.or([
        where('id', 'in', direct),
        where('domain_id', 'in', inherited.select('domain_id')),
        ...below.map((level) => where('id', 'in', level)),
      ]),
    );
    return rowsOf(query, page);
  }

  /** The domains in which a user has a role. */
  async domainsOf(userId: string, page: Page, enabled?: number): Promise<DomainRow[]> {
    const db = await this.db();
    const held = assignmentsOf(db, userId).where('inherited', '=', 0).select('domain_id');
    return rowsOf(matching(db, 'domain', { enabled }).where('id', 'in', held), page);
  }

  /** What a project inherits roles from; null: it is not there. */
  async above(projectId: string): Promise<Above | null> {
    let project = await this.row('project', projectId);
    if (!project) return null;
    const above: Above = { domain: project.domain_id, projects: new Set() };
    while (project && project.parent_id !== null && above.projects.size < PROJECT_DEPTH_MAX) {
      above.projects.add(project.parent_id);
      project = await this.row('project', project.parent_id);
    }
    return above;
  }

  /** The projects that inherit from a domain, or from a project: at most one more than a list shows. */
  async below({ project_id, domain_id }: Pick<AssignmentRow, 'project_id' | 'domain_id'>): Promise<string[]> {
    const db = await this.db();
    let query = db.selectFrom('project').select('id');
    if (domain_id !== null) query = query.where('domain_id', '=', domain_id);
    else {
      const of = db.selectFrom('project').select('id').where('id', '=', project_id);
      query = query.where((where) => where.or(levelsBelow(db, of).map((level) => where('id', 'in', level))));
    }
    return (await rowsOf(query, { rows: LIST_MAX })).map(({ id }) => id);
  }

  /** The roles of a user in a scope, with those that they imply, by name. */
  async roles(userId: string, scope: Scope): Promise<RoleRow[]> {
    const all = await this.assignments(userId);
    const inherits = scope.kind === 'project' && all.some(({ inherited }) => inherited !== 0);
    const above = inherits ? await this.above(scope.id) : null;
    return this.withImplied(all.filter((one) => fits(one, scope, above)).map(({ role_id }) => role_id));
  }

  /** Roles, and those that they imply. A role of one domain is only what it implies. */
  async withImplied(ids: readonly string[]): Promise<RoleRow[]> {
    if (ids.length === 0) return [];
    const db = await this.db();
    const implied = await db.selectFrom('implied_role').selectAll().execute();
    const all = new Set(ids);
    // Until nothing is new, which is at the latest when all roles are in.
    for (let before = 0; before < all.size; ) {
      before = all.size;
      for (const { prior_role_id, implied_role_id } of implied) if (all.has(prior_role_id)) all.add(implied_role_id);
    }
    return db
      .selectFrom('role')
      .selectAll()
      .where('id', 'in', [...all])
      .where('domain_id', 'is', null)
      .orderBy('name')
      .execute();
  }

  /** Has a role on the system or in the operators' project: only admins may change such a user. */
  async isOperator(userId: string): Promise<boolean> {
    return this.#operates(await this.assignments(userId));
  }

  async isOperatorGroup(groupId: string): Promise<boolean> {
    const db = await this.db();
    return this.#operates(await db.selectFrom('assignment').selectAll().where('group_id', '=', groupId).execute());
  }

  /** Whether what is granted there, or below it, is a role in the operators' project. */
  async coversAdminProject(place: Pick<AssignmentRow, 'project_id' | 'domain_id' | 'inherited'>): Promise<boolean> {
    const admin = await this.adminProject();
    if (admin === undefined) return false;
    const above = place.inherited === 0 ? null : await this.above(admin);
    return fits(place, { kind: 'project', id: admin }, above);
  }

  async #operates(assignments: readonly AssignmentRow[]): Promise<boolean> {
    for (const one of assignments)
      if ((one.project_id === null && one.domain_id === null) || (await this.coversAdminProject(one))) return true;
    return false;
  }
}

/** A query of the assignments of a user, and of its groups. */
export function assignmentsOf(db: CatalogReader, userId: string) {
  const groups = db.selectFrom('membership').select('group_id').where('user_id', '=', userId);
  return db
    .selectFrom('assignment')
    .where((where) => where.or([where('user_id', '=', userId), where('group_id', 'in', groups)]));
}

/** Queries of the projects below some, one for each level. */
function levelsBelow(db: CatalogReader, ids: Ids) {
  const children = (of: Ids) => db.selectFrom('project').select('id').where('parent_id', 'in', of);
  const levels = [children(ids)];
  while (levels.length < PROJECT_DEPTH_MAX - 1) levels.push(children(levels.at(-1)!));
  return levels;
}

/** @param above of the scope's project, where something is inherited */
function fits(
  place: Pick<AssignmentRow, 'project_id' | 'domain_id' | 'inherited'>,
  scope: Scope,
  above: Above | null,
): boolean {
  const { project_id, domain_id } = place;
  if (place.inherited !== 0) {
    if (above === null) return false;
    return domain_id !== null ? domain_id === above.domain : project_id !== null && above.projects.has(project_id);
  }
  if (scope.kind === 'project') return project_id === scope.id;
  if (scope.kind === 'domain') return domain_id === scope.id;
  return scope.kind === 'system' && project_id === null && domain_id === null;
}
