/** /v3/users/{user}/access_rules: the rules that the user's application credentials were made with. They stay when those go. */
import type { AccessRuleRow } from '../../../control/catalog/types.ts';
import { forbidden, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { listQuery } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { list, pageOf } from './lists.ts';
import { matching, rowsOf } from './rows.ts';
import { refuseDelegated, userFor } from './users.ts';

export const accessRuleRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;
  const base = '/v3/users/:user_id/access_rules';

  const shown = (row: AccessRuleRow) => ({
    ...shownAccessRule(row),
    links: { self: link(`/users/${row.user_id}/access_rules/${row.id}`) },
  });

  app.get(base, { schema: { querystring: listQuery('service', 'method', 'path') } }, async (request) => {
    const { user_id } = request.params as { user_id: string };
    const user = await userFor(context, sessionOf(request), user_id, 'list_access_rules');
    const { service, method, path } = request.query;
    const query = matching(await accounts.db(), 'access_rule', { user_id: user.id, service, method, path });
    const rows = await rowsOf(query, pageOf(request));
    return list('access_rules', rows.map(shown), request, context);
  });

  app.get(`${base}/:id`, async (request) => {
    const { user_id, id } = request.params as { user_id: string; id: string };
    const user = await userFor(context, sessionOf(request), user_id, 'get_access_rule');
    return { access_rule: shown(await find(user.id, id)) };
  });

  app.delete(`${base}/:id`, async (request, reply) => {
    const { user_id, id } = request.params as { user_id: string; id: string };
    const session = sessionOf(request);
    const user = await userFor(context, session, user_id, 'delete_access_rule');
    refuseDelegated(session, 'delete_access_rule');
    const row = await find(user.id, id);
    await catalog
      .write([{ do: 'delete', table: 'access_rule', where: { id: row.id } }])
      .catch((error: { code?: string }) => {
        if (error.code === 'REFERENCE') throw forbidden('An application credential is made with that access rule.');
        throw error;
      });
    return reply.code(204).send();
  });

  async function find(userId: string, id: string): Promise<AccessRuleRow> {
    const row = await matching(await accounts.db(), 'access_rule', { id, user_id: userId }).executeTakeFirst();
    if (!row) throw notFound('access rule', id);
    return row;
  }
};

export function shownAccessRule({ id, service, method, path }: AccessRuleRow) {
  return { id, service, method, path };
}
