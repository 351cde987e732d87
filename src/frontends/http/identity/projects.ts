/** /v3/projects, and their tags */
import { Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import { type Change, type Columns, KEEP_ADMIN, type ProjectRow } from '../../../control/catalog/types.ts';
import { badRequest, conflict, forbidden, notAllowed, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { PROJECT_DEPTH_MAX } from './accounts.ts';
import type { Session } from './authentication.ts';
import { Description, Id, listQuery, maybe, name, orNull, wrapped } from './bodies.ts';
import { HierarchyQuery, hierarchyOf } from './hierarchy.ts';
import type { IdentityContext, IdentityRoutes } from './identity-context.ts';
import { extras, flag, homeDomain, list, listedDomain, pageOf, saving } from './lists.ts';
import { type Action, enforce, may } from './policy.ts';
import { matching, rowsOf } from './rows.ts';
import { shownProject, shownProjects } from './shown-projects.ts';

const NAME_MAX = 64;
/** as Keystone: of each project, and of each tag */
const TAGS_MAX = 80;
const Tag = Type.String({ minLength: 1, maxLength: 255, pattern: '^[^,/]+$' });
const Tags = Type.Array(Tag, { maxItems: TAGS_MAX, uniqueItems: true });
const common = {
  description: maybe(Description),
  enabled: maybe(Type.Boolean()),
  parent_id: maybe(orNull(Id)),
  domain_id: maybe(orNull(Id)),
  is_domain: maybe(Type.Boolean()),
  tags: maybe(Tags),
};
const ProjectCreate = wrapped('project', { name: name(NAME_MAX), ...common });
const ProjectUpdate = wrapped('project', { name: maybe(name(NAME_MAX)), ...common });
/** has all, has any, has not all, has none */
const TAG_FILTERS = ['tags', 'tags-any', 'not-tags', 'not-tags-any'] as const;
const TagParams = Type.Object({ project_id: Type.String(), tag: Tag });
const TagsBody = Type.Object({ tags: Tags });
const KNOWN = new Set(['id', 'links', 'name', 'options', ...Object.keys(common)]);

/** The project, if the policy lets the caller do that with it. The operators' project is for admins only. */
export async function projectFor(
  context: IdentityContext,
  session: Session,
  id: string,
  action: Action,
  changes = false,
): Promise<ProjectRow> {
  const project = await context.accounts.row('project', id);
  const hidden = changes && project && project.id === (await context.accounts.adminProject());
  const target = project ? { projectId: project.id, ...(hidden ? {} : { domainId: project.domain_id }) } : {};
  if (!may(action, session, target)) throw notAllowed(`identity:${action}`);
  if (!project) throw notFound('project', id);
  return project;
}

const tagRows = (id: string, tags: readonly string[]): Change[] =>
  tags.map((tag) => ({ do: 'insert', table: 'project_tag', row: { project_id: id, name: tag } }));
const noTags = (id: string): Change => ({
  do: 'delete',
  table: 'project_tag',
  where: { project_id: id },
  orNone: true,
});

export const projectRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog } = context;

  app.get(
    '/v3/projects',
    { schema: { querystring: listQuery('name', 'domain_id', 'enabled', 'parent_id', 'is_domain', ...TAG_FILTERS) } },
    async (request) => {
      const session = sessionOf(request);
      const asked = request.query;
      const domainId = listedDomain(session, asked);
      enforce('list_projects', session, { domainId });
      const db = await accounts.db();
      // Domains are no projects here.
      const none = flag(asked.is_domain) === 1 ? { id: '' } : {};
      const { name, parent_id } = asked;
      const wanted = { domain_id: domainId, name, parent_id, enabled: flag(asked.enabled), ...none };
      let query = matching(db, 'project', wanted);
      for (const filter of TAG_FILTERS) {
        const tags = asked[filter]?.split(',');
        if (tags === undefined) continue;
        if (tags.length > TAGS_MAX) throw badRequest(`a filter names at most ${TAGS_MAX} tags`);
        const having = (tag: string) => db.selectFrom('project_tag').select('project_id').where('name', '=', tag);
        query = query.where((where) => {
          const each = tags.map((tag) => where('id', 'in', having(tag)));
          const joined = filter.endsWith('any') ? where.or(each) : where.and(each);
          return filter.startsWith('not') ? where.not(joined) : joined;
        });
      }
      const rows = await rowsOf(query, pageOf(request));
      return list('projects', await shownProjects(rows, context), request, context);
    },
  );

  app.post('/v3/projects', { schema: { body: ProjectCreate } }, async (request, reply) => {
    const session = sessionOf(request);
    const { project } = request.body;
    if (project.is_domain) throw badRequest('a project that is a domain is made at /v3/domains');
    const { domainId, parentId } = await place(project, session);
    enforce('create_project', session, { domainId });
    await accounts.found('domain', domainId);
    await checkParent(parentId, domainId);
    const row: ProjectRow = {
      id: newId(),
      name: project.name,
      domain_id: domainId,
      parent_id: parentId,
      description: project.description ?? '',
      enabled: project.enabled === false ? 0 : 1,
      epoch: 0,
      extra: extras(project, KNOWN),
    };
    const changes: Change[] = [{ do: 'insert', table: 'project', row }, ...tagRows(row.id, project.tags ?? [])];
    await saving('project', row.name, catalog.write(changes));
    reply.code(201);
    return { project: await shownProject(row, context) };
  });

  app.get('/v3/projects/:project_id', { schema: { querystring: HierarchyQuery } }, async (request) => {
    const { project_id } = request.params as { project_id: string };
    const session = sessionOf(request);
    const row = await projectFor(context, session, project_id, 'get_project');
    return {
      project: { ...(await shownProject(row, context)), ...(await hierarchyOf(row, session, request.query, context)) },
    };
  });

  app.patch('/v3/projects/:project_id', { schema: { body: ProjectUpdate } }, async (request) => {
    const { project_id } = request.params as { project_id: string };
    const row = await projectFor(context, sessionOf(request), project_id, 'update_project', true);
    const { project } = request.body;
    if (project.domain_id && project.domain_id !== row.domain_id)
      throw conflict('A project cannot move to another domain.');
    if (project.parent_id && project.parent_id !== (row.parent_id ?? row.domain_id))
      throw forbidden('A project cannot move below another.');
    const set: Columns<'project'> = { extra: extras(project, KNOWN, row.extra) };
    if (project.name !== undefined) set.name = project.name;
    if (project.description !== undefined) set.description = project.description ?? '';
    if (project.enabled !== undefined) set.enabled = project.enabled ? 1 : 0;
    const revoke = project.enabled === false;
    const changes: Change[] = [{ do: 'update', table: 'project', where: { id: row.id }, set, revoke }];
    if (revoke) changes.push(KEEP_ADMIN);
    if (project.tags !== undefined) changes.push(noTags(row.id), ...tagRows(row.id, project.tags));
    await saving('project', project.name ?? row.name, catalog.write(changes));
    return { project: await shownProject({ ...row, ...set }, context) };
  });

  app.get('/v3/projects/:project_id/tags', async (request) => {
    const { project_id } = request.params as { project_id: string };
    const row = await projectFor(context, sessionOf(request), project_id, 'list_project_tags');
    const { tags } = await shownProject(row, context);
    return { tags, links: { self: context.link(`/projects/${row.id}/tags`) } };
  });

  app.put('/v3/projects/:project_id/tags', { schema: { body: TagsBody } }, async (request) => {
    const { project_id } = request.params as { project_id: string };
    const row = await projectFor(context, sessionOf(request), project_id, 'update_project_tags', true);
    await catalog.write([noTags(row.id), ...tagRows(row.id, request.body.tags)]);
    return { tags: [...request.body.tags].sort(), links: { self: context.link(`/projects/${row.id}/tags`) } };
  });

  app.delete('/v3/projects/:project_id/tags', async (request, reply) => {
    const { project_id } = request.params as { project_id: string };
    const row = await projectFor(context, sessionOf(request), project_id, 'update_project_tags', true);
    await catalog.write([noTags(row.id)]);
    return reply.code(204).send();
  });

  const one = '/v3/projects/:project_id/tags/:tag';

  app.get(one, { schema: { params: TagParams } }, async (request, reply) => {
    const { project_id, tag } = request.params;
    const row = await projectFor(context, sessionOf(request), project_id, 'list_project_tags');
    const { tags } = await shownProject(row, context);
    if (!tags.includes(tag)) throw notFound('project tag', tag);
    return reply.code(204).send();
  });

  app.put(one, { schema: { params: TagParams } }, async (request, reply) => {
    const { project_id, tag } = request.params;
    const row = await projectFor(context, sessionOf(request), project_id, 'update_project_tags', true);
    const { tags } = await shownProject(row, context);
    if (tags.length >= TAGS_MAX && !tags.includes(tag)) throw badRequest(`a project has at most ${TAGS_MAX} tags`);
    await catalog.write([{ do: 'insert', table: 'project_tag', row: { project_id: row.id, name: tag }, orKeep: true }]);
    reply.code(201).header('location', context.link(`/projects/${row.id}/tags/${encodeURIComponent(tag)}`));
    return reply.send();
  });

  app.delete(one, { schema: { params: TagParams } }, async (request, reply) => {
    const { project_id, tag } = request.params;
    const row = await projectFor(context, sessionOf(request), project_id, 'update_project_tags', true);
    await catalog.write([{ do: 'delete', table: 'project_tag', where: { project_id: row.id, name: tag } }]);
    return reply.code(204).send();
  });

  /** The domain and the project above a new one. A parent that is a domain is the domain. */
  async function place(wanted: { domain_id?: string | null; parent_id?: string | null }, session: Session) {
    const parent = wanted.parent_id ? await accounts.row('project', wanted.parent_id) : undefined;
    if (parent) return { domainId: wanted.domain_id ?? parent.domain_id, parentId: parent.id };
    const domainId = wanted.domain_id ?? wanted.parent_id ?? homeDomain(session);
    if (wanted.parent_id && wanted.parent_id !== domainId) throw notFound('project', wanted.parent_id);
    return { domainId, parentId: null };
  }

  async function checkParent(parentId: string | null, domainId: string): Promise<void> {
    let depth = 1;
    for (let at = parentId; at !== null; depth++) {
      const parent = await accounts.found('project', at);
      if (parent.domain_id !== domainId) throw badRequest('a project is in the domain of the project above it');
      if (depth >= PROJECT_DEPTH_MAX) throw forbidden(`Projects can be ${PROJECT_DEPTH_MAX} levels deep.`);
      at = parent.parent_id;
    }
  }
};
