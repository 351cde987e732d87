/** /v3/roles/{prior}/implies, /v3/role_inferences: who has the first role has the second, everywhere and at once. */
import { KEEP_ADMIN, type RoleRow } from '../../../control/catalog/types.ts';
import { badRequest, forbidden, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { enforce } from './policy.ts';
import { roleName } from './role-names.ts';
import { matching } from './rows.ts';

/** rules in all; each login reads them */
export const IMPLIED_MAX = 1000;

interface Rule {
  prior_role_id: string;
  implied_role_id: string;
}

export const impliedRoleRoutes: IdentityRoutes = (app, { accounts, catalog, link }) => {
  const all = '/v3/roles/:prior_role_id/implies';
  const one = `${all}/:implied_role_id`;

  const shown = (role: RoleRow) => ({
    id: role.id,
    name: roleName(role),
    description: role.description,
    domain_id: role.domain_id,
    links: { self: link(`/roles/${role.id}`) },
  });

  app.get('/v3/role_inferences', async (request) => {
    enforce('list_role_inference_rules', sessionOf(request));
    const db = await accounts.db();
    const roles = new Map((await matching(db, 'role', {}).execute()).map((role) => [role.id, role]));
    const implies = new Map<string, RoleRow[]>();
    for (const { prior_role_id, implied_role_id } of await matching(db, 'implied_role', {}).execute())
      implies.set(prior_role_id, [...(implies.get(prior_role_id) ?? []), roles.get(implied_role_id)!]);
    const role_inferences = [...implies].map(([prior, implied]) => ({
      prior_role: shown(roles.get(prior)!),
      implies: implied.map(shown),
    }));
    return { role_inferences, links: { self: link('/role_inferences') } };
  });

  app.get(all, async (request) => {
    enforce('list_implied_roles', sessionOf(request));
    const prior = await accounts.found('role', (request.params as Rule).prior_role_id);
    const db = await accounts.db();
    const ids = matching(db, 'implied_role', { prior_role_id: prior.id }).clearSelect().select('implied_role_id');
    const implied = await matching(db, 'role', {}).where('id', 'in', ids).orderBy('id').execute();
    return {
      role_inference: { prior_role: shown(prior), implies: implied.map(shown) },
      links: { self: link(`/roles/${prior.id}/implies`) },
    };
  });

  app.get(one, { exposeHeadRoute: false }, async (request) => {
    enforce('get_implied_role', sessionOf(request));
    return inference(await ruled(request.params as Rule));
  });

  app.head(one, async (request, reply) => {
    enforce('get_implied_role', sessionOf(request));
    await ruled(request.params as Rule);
    return reply.code(204).send();
  });

  app.put(one, async (request, reply) => {
    enforce('create_implied_role', sessionOf(request));
    const [prior, implied] = await named(request.params as Rule);
    // As Keystone's prohibited_implied_role: nobody is made an administrator by the way.
    if (implied.name === 'admin') throw forbidden('The role admin cannot be implied by another.');
    if (prior.id === implied.id) throw badRequest('a role does not imply itself');
    if (prior.domain_id === null && implied.domain_id !== null)
      throw forbidden('A role of all domains does not imply one of a single domain.');
    const db = await accounts.db();
    const { count } = await db
      .selectFrom('implied_role')
      .select((of) => of.fn.countAll<number>().as('count'))
      .executeTakeFirstOrThrow();
    if (Number(count) >= IMPLIED_MAX) throw forbidden(`There can be ${IMPLIED_MAX} rules of implied roles.`);
    const row = { prior_role_id: prior.id, implied_role_id: implied.id };
    await catalog.write([{ do: 'insert', table: 'implied_role', row, orKeep: true }]);
    reply.code(201);
    return inference([prior, implied]);
  });

  app.delete(one, async (request, reply) => {
    enforce('delete_implied_role', sessionOf(request));
    const [prior, implied] = await ruled(request.params as Rule);
    const where = { prior_role_id: prior.id, implied_role_id: implied.id };
    await catalog.write([{ do: 'delete', table: 'implied_role', where }, KEEP_ADMIN]);
    return reply.code(204).send();
  });

  const inference = ([prior, implied]: [RoleRow, RoleRow]) => ({
    role_inference: { prior_role: shown(prior), implies: shown(implied) },
    links: { self: link(`/roles/${prior.id}/implies/${implied.id}`) },
  });

  async function named(rule: Rule): Promise<[RoleRow, RoleRow]> {
    return [await accounts.found('role', rule.prior_role_id), await accounts.found('role', rule.implied_role_id)];
  }

  /** Both roles of a rule that is there. @throws {HttpError} 404 */
  async function ruled({ prior_role_id, implied_role_id }: Rule): Promise<[RoleRow, RoleRow]> {
    const roles = await named({ prior_role_id, implied_role_id });
    const query = matching(await accounts.db(), 'implied_role', { prior_role_id, implied_role_id });
    if (!(await query.executeTakeFirst())) throw notFound('implied role', implied_role_id);
    return roles;
  }
};
