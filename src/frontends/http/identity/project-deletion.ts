/** DELETE /v3/projects/{id}: without what it holds, which then has to be nothing, or with all of it, and with the projects below. */
import type { SelectQueryBuilder } from 'kysely';
import type { CatalogTables, Change, ProjectRow } from '../../../control/catalog/types.ts';
import { conflict, forbidden } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { filterQuery } from './bodies.ts';
import type { IdentityContext, IdentityRoutes } from './identity-context.ts';
import { flag } from './lists.ts';
import { projectFor } from './projects.ts';
import { LIST_MAX, matching } from './rows.ts';

export const projectDeletionRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, emptying } = context;

  app.delete(
    '/v3/projects/:project_id',
    { schema: { querystring: filterQuery('cascade') } },
    async (request, reply) => {
      const { project_id } = request.params as { project_id: string };
      const row = await projectFor(context, sessionOf(request), project_id, 'delete_project', true);
      const below = await accounts.below({ project_id: row.id, domain_id: null });
      const all = [row.id, ...below];
      const admin = await accounts.adminProject();
      if (all.some((id) => id === admin)) throw forbidden('The project that operators work in cannot be deleted.');
      if (flag(request.query.cascade) === 1) await emptyAll(row, below);
      else if (below.length > 0)
        throw forbidden(`Cannot delete project ${row.id} since it is not a leaf in the hierarchy.`);
      await refuseHolding(all, context);
      await catalog.write([
        ...all.map((id): Change => ({ do: 'update', table: 'project', where: { id }, set: { parent_id: null } })),
        ...all.map((id): Change => ({ do: 'delete', table: 'project', where: { id } })),
      ]);
      return reply.code(204).send();
    },
  );

  /** What services keep for them goes. They are disabled before, so that nothing new begins meanwhile. */
  async function emptyAll(row: ProjectRow, below: readonly string[]): Promise<void> {
    if (below.length > LIST_MAX) throw forbidden(`Cannot delete more than ${LIST_MAX} projects below another at once.`);
    const all = [row.id, ...below];
    const enabled = matching(await accounts.db(), 'project', { enabled: 1 }).where('id', 'in', all);
    if (await enabled.limit(1).executeTakeFirst())
      throw forbidden(`Cannot delete project ${row.id} since its subtree contains enabled projects.`);
    for (const id of all) for (const empty of emptying) await empty(id);
  }
};

/** @throws {HttpError} 409 when there is something that would be nobody's */
export async function refuseHolding(
  projects: readonly string[] | SelectQueryBuilder<CatalogTables, 'project', { id: string }>,
  { accounts }: Pick<IdentityContext, 'accounts'>,
): Promise<void> {
  const db = await accounts.db();
  const held = await db
    .selectFrom('holding')
    .select(['project_id', 'resource'])
    .where('project_id', 'in', projects)
    .where('user_id', 'is', null)
    .where((where) => where.or([where('used', '>', 0), where('reserved', '>', 0)]))
    .orderBy('project_id')
    .orderBy('resource')
    .execute();
  const [first] = held;
  if (!first) return;
  const resources = held.filter(({ project_id }) => project_id === first.project_id).map(({ resource }) => resource);
  throw conflict(`Cannot delete project ${first.project_id} since it holds ${resources.join(', ')}.`);
}
