/** /v3/domains */
import { Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import { type Change, type Columns, type DomainRow, KEEP_ADMIN } from '../../../control/catalog/types.ts';
import { forbidden, notAllowed } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { Description, listQuery, maybe, name, wrapped } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { extras, flag, list, pageOf, saving } from './lists.ts';
import { enforce, may } from './policy.ts';
import { refuseHolding } from './project-deletion.ts';
import { matching, rowsOf } from './rows.ts';
import { extraOf } from './shown.ts';

const NAME_MAX = 64;
const common = { description: maybe(Description), enabled: maybe(Type.Boolean()) };
const DomainCreate = wrapped('domain', { name: name(NAME_MAX), ...common });
const DomainUpdate = wrapped('domain', { name: maybe(name(NAME_MAX)), ...common });
const KNOWN = new Set(['id', 'links', 'name', 'description', 'enabled', 'options', 'tags']);

export function shownDomain(row: DomainRow, link: (path: string) => string) {
  return {
    ...extraOf(row),
    id: row.id,
    name: row.name,
    description: row.description,
    enabled: row.enabled !== 0,
    tags: [],
    options: {},
    links: { self: link(`/domains/${row.id}`) },
  };
}

export function shownDomains(rows: readonly DomainRow[], link: (path: string) => string) {
  return rows.map((row) => shownDomain(row, link));
}

export const domainRoutes: IdentityRoutes = (app, { accounts, catalog, link, ...rest }) => {
  const context = { accounts, catalog, link, ...rest };

  app.get('/v3/domains', { schema: { querystring: listQuery('name', 'enabled') } }, async (request) => {
    enforce('list_domains', sessionOf(request));
    const asked = request.query;
    const query = matching(await accounts.db(), 'domain', { name: asked.name, enabled: flag(asked.enabled) });
    return list('domains', shownDomains(await rowsOf(query, pageOf(request)), link), request, context);
  });

  app.post('/v3/domains', { schema: { body: DomainCreate } }, async (request, reply) => {
    enforce('create_domain', sessionOf(request));
    const { domain } = request.body;
    const row: DomainRow = {
      id: newId(),
      name: domain.name,
      description: domain.description ?? '',
      enabled: domain.enabled === false ? 0 : 1,
      epoch: 0,
      extra: extras(domain, KNOWN),
    };
    await saving('domain', row.name, catalog.write([{ do: 'insert', table: 'domain', row }]));
    reply.code(201);
    return { domain: shownDomain(row, link) };
  });

  app.get('/v3/domains/:domain_id', async (request) => {
    const { domain_id } = request.params as { domain_id: string };
    if (!may('get_domain', sessionOf(request), { domainId: domain_id })) throw notAllowed('identity:get_domain');
    return { domain: shownDomain(await accounts.found('domain', domain_id), link) };
  });

  app.patch('/v3/domains/:domain_id', { schema: { body: DomainUpdate } }, async (request) => {
    const { domain_id } = request.params as { domain_id: string };
    enforce('update_domain', sessionOf(request));
    const row = await accounts.found('domain', domain_id);
    const { domain } = request.body;
    const set: Columns<'domain'> = { extra: extras(domain, KNOWN, row.extra) };
    if (domain.name !== undefined) set.name = domain.name;
    if (domain.description !== undefined) set.description = domain.description ?? '';
    if (domain.enabled !== undefined) set.enabled = domain.enabled ? 1 : 0;
    const revoke = domain.enabled === false;
    const changes: Change[] = [{ do: 'update', table: 'domain', where: { id: row.id }, set, revoke }];
    // So that they stay revoked when the domain is enabled again.
    if (revoke) {
      changes.push({ do: 'update', table: 'user', where: { domain_id: row.id }, revoke, orNone: true });
      changes.push({ do: 'update', table: 'project', where: { domain_id: row.id }, revoke, orNone: true });
      changes.push(KEEP_ADMIN);
    }
    await saving('domain', domain.name ?? row.name, catalog.write(changes));
    return { domain: shownDomain({ ...row, ...set }, link) };
  });

  app.delete('/v3/domains/:domain_id', async (request, reply) => {
    const { domain_id } = request.params as { domain_id: string };
    enforce('delete_domain', sessionOf(request));
    const row = await accounts.found('domain', domain_id);
    if (row.id === 'default') throw forbidden('The default domain cannot be deleted.');
    if (row.enabled !== 0) throw forbidden('Cannot delete a domain that is enabled, please disable it first.');
    const db = await accounts.db();
    const projects = db.selectFrom('project').select('id').where('domain_id', '=', row.id);
    await refuseHolding(projects, { accounts });
    const within = { where: { domain_id: row.id }, orNone: true };
    await catalog.write([
      { do: 'update', table: 'project', ...within, set: { parent_id: null } },
      { do: 'delete', table: 'project', ...within },
      { do: 'delete', table: 'user', ...within },
      { do: 'delete', table: 'user_group', ...within },
      { do: 'delete', table: 'domain', where: { id: row.id } },
      KEEP_ADMIN,
    ]);
    return reply.code(204).send();
  });
};
