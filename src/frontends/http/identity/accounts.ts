/** Reading what several nouns need: who has which roles where, and who is an operator. All are point reads or small ones. */
import type { Catalog, CatalogReader } from '../../../control/catalog/catalog.ts';
import type { AssignmentRow, DomainRow, ProjectRow, RoleRow, UserRow } from '../../../control/catalog/types.ts';
import type { Scope } from './token-format.ts';

export class Accounts {
  constructor(readonly catalog: Catalog) {}

  db(): Promise<CatalogReader> {
    return this.catalog.reader();
  }

  async user(id: string): Promise<UserRow | undefined> {
    return (await this.db()).selectFrom('user').selectAll().where('id', '=', id).executeTakeFirst();
  }

  async domain(id: string): Promise<DomainRow | undefined> {
    return (await this.db()).selectFrom('domain').selectAll().where('id', '=', id).executeTakeFirst();
  }

  async project(id: string): Promise<ProjectRow | undefined> {
    return (await this.db()).selectFrom('project').selectAll().where('id', '=', id).executeTakeFirst();
  }

  async adminProject(): Promise<string | undefined> {
    const db = await this.db();
    return (await db.selectFrom('setting').select('value').where('key', '=', 'admin_project').executeTakeFirst())
      ?.value;
  }

  /** The assignments of a user, those of its groups too. */
  async assignments(userId: string): Promise<AssignmentRow[]> {
    const db = await this.db();
    const groups = db.selectFrom('membership').select('group_id').where('user_id', '=', userId);
    return db
      .selectFrom('assignment')
      .selectAll()
      .where((where) => where.or([where('user_id', '=', userId), where('group_id', 'in', groups)]))
      .execute();
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

function fits(assignment: AssignmentRow, scope: Scope): boolean {
  if (scope.kind === 'project') return assignment.project_id === scope.id;
  if (scope.kind === 'domain') return assignment.domain_id === scope.id;
  return scope.kind === 'system' && assignment.project_id === null && assignment.domain_id === null;
}
