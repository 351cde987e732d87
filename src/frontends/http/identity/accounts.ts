/** Reading what several nouns need: who has which roles where, and who is an operator. All are point reads or small ones. */
import type { Catalog, CatalogReader } from '../../../control/catalog/catalog.ts';
import type { AssignmentRow, CatalogTables, RoleRow, TableName } from '../../../control/catalog/types.ts';
import { notFound } from '../errors.ts';
import { matching, rowsOf } from './rows.ts';
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

  /** The projects, or the domains, in which a user has a role: at most one more than a list shows. */
  async placesOf<T extends 'project' | 'domain'>(
    table: T,
    userId: string,
    enabled?: number,
  ): Promise<CatalogTables[T][]> {
    const db = await this.db();
    const held = assignmentsOf(db, userId).select(`${table}_id`);
    const query = matching<'project' | 'domain'>(db, table, { enabled }).where('id', 'in', held).orderBy('name');
    return rowsOf(query) as Promise<CatalogTables[T][]>;
  }

  /** The roles of a user in a scope, with those that they imply, by name. */
  async roles(userId: string, scope: Scope): Promise<RoleRow[]> {
    const own = (await this.assignments(userId)).filter((one) => fits(one, scope)).map(({ role_id }) => role_id);
    return this.withImplied(own);
  }

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

  async #operates(assignments: readonly AssignmentRow[]): Promise<boolean> {
    const admin = await this.adminProject();
    return assignments.some(
      ({ project_id, domain_id }) => (project_id === null && domain_id === null) || project_id === admin,
    );
  }
}

/** A query of the assignments of a user, and of its groups. */
export function assignmentsOf(db: CatalogReader, userId: string) {
  const groups = db.selectFrom('membership').select('group_id').where('user_id', '=', userId);
  return db
    .selectFrom('assignment')
    .where((where) => where.or([where('user_id', '=', userId), where('group_id', 'in', groups)]));
}

function fits(assignment: AssignmentRow, scope: Scope): boolean {
  if (scope.kind === 'project') return assignment.project_id === scope.id;
  if (scope.kind === 'domain') return assignment.domain_id === scope.id;
  return scope.kind === 'system' && assignment.project_id === null && assignment.domain_id === null;
}
