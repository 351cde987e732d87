/** What is above and below a project, as /v3/projects/{id} shows it where it is asked for. */
import type { Static } from '@sinclair/typebox';
import type { ProjectRow } from '../../../control/catalog/types.ts';
import { badRequest } from '../errors.ts';
import type { Session } from './authentication.ts';
import { filterQuery } from './bodies.ts';
import type { IdentityContext } from './identity-context.ts';
import { limitsOf } from './limit-rows.ts';
import { flag } from './lists.ts';
import { may } from './policy.ts';
import { LIST_MAX, matching } from './rows.ts';
import { shownProjects } from './shown-projects.ts';

const ASKED = ['parents_as_list', 'parents_as_ids', 'subtree_as_list', 'subtree_as_ids', 'include_limits'] as const;
export const HierarchyQuery = filterQuery(...ASKED);

/** ids, each with those that are next to it; null: none are */
type Ids = { [id: string]: Ids } | null;

/** Lists have the projects that the caller may see, ids are of all. */
export async function hierarchyOf(
  row: ProjectRow,
  session: Session,
  query: Static<typeof HierarchyQuery>,
  context: IdentityContext,
): Promise<{ parents?: unknown; subtree?: unknown }> {
  const { accounts } = context;
  const is = (one: (typeof ASKED)[number]) => flag(query[one]) === 1;
  for (const side of ['parents', 'subtree'] as const)
    if (is(`${side}_as_list`) && is(`${side}_as_ids`)) throw badRequest(`${side}: as a list, or as ids`);

  async function shown(rows: readonly ProjectRow[]): Promise<object[]> {
    const own = new Set((await accounts.projectsOf(session.userId, { rows: LIST_MAX })).map(({ id }) => id));
    const seen = rows.filter(
      ({ id, domain_id }) => own.has(id) || may('get_project', session, { projectId: id, domainId: domain_id }),
    );
    const limits = is('include_limits')
      ? await limitsOf(
          seen.map(({ id }) => id),
          context,
        )
      : null;
    return (await shownProjects(seen, context)).map((project) => ({
      project: limits === null ? project : { ...project, limits: limits.get(project.id) ?? [] },
    }));
  }

  const result: { parents?: unknown; subtree?: unknown } = {};
  if (is('parents_as_list')) result.parents = await shown(await above(row));
  if (is('parents_as_ids')) {
    const ids = [...(await above(row)).map(({ id }) => id), row.domain_id];
    result.parents = ids.reduceRight<Ids>((inner, id) => ({ [id]: inner }), null);
  }
  if (is('subtree_as_list')) result.subtree = await shown(await below(row));
  if (is('subtree_as_ids')) result.subtree = treeOf(row.id, await below(row));
  return result;

  /** The nearest first. */
  async function above({ parent_id }: ProjectRow): Promise<ProjectRow[]> {
    const parent = parent_id === null ? undefined : await accounts.row('project', parent_id);
    return parent === undefined ? [] : [parent, ...(await above(parent))];
  }

  async function below({ id }: ProjectRow): Promise<ProjectRow[]> {
    const ids = await accounts.below({ project_id: id, domain_id: null });
    // Nothing has the empty id; a list of none is not SQL everywhere.
    return matching(await accounts.db(), 'project', {})
      .where('id', 'in', ['', ...ids])
      .orderBy('id')
      .execute();
  }
}

function treeOf(id: string, rows: readonly ProjectRow[]): Ids {
  const children = rows.filter(({ parent_id }) => parent_id === id);
  if (children.length === 0) return null;
  return Object.fromEntries(children.map((child) => [child.id, treeOf(child.id, rows)]));
}
