/** How projects look in answers. */
import type { ProjectRow } from '../../../control/catalog/types.ts';
import type { IdentityContext } from './identity-context.ts';
import { extraOf } from './shown.ts';

/** @returns the rows as answers have them, with their tags */
export async function shownProjects(rows: readonly ProjectRow[], { accounts, link }: IdentityContext) {
  const ids = rows.map(({ id }) => id);
  const tags = new Map<string, string[]>(ids.map((id) => [id, []]));
  if (ids.length > 0) {
    const query = (await accounts.db()).selectFrom('project_tag').selectAll().where('project_id', 'in', ids);
    for (const tag of await query.orderBy('name').execute()) tags.get(tag.project_id)?.push(tag.name);
  }
  return rows.map((row) => ({
    ...extraOf(row),
    id: row.id,
    name: row.name,
    domain_id: row.domain_id,
    parent_id: row.parent_id ?? row.domain_id,
    description: row.description,
    enabled: row.enabled !== 0,
    is_domain: false,
    tags: tags.get(row.id) ?? [],
    options: {},
    links: { self: link(`/projects/${row.id}`) },
  }));
}

export async function shownProject(row: ProjectRow, context: IdentityContext) {
  return (await shownProjects([row], context))[0]!;
}
