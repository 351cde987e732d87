/** /v3/users/{user}/application_credentials: passwords of programs, for one project, with some of the user's roles. */
import { randomBytes } from 'node:crypto';
import { type Static, Type } from '@sinclair/typebox';
import { newId } from '../../../control/catalog/catalog.ts';
import type { ApplicationCredentialRow, Change } from '../../../control/catalog/types.ts';
import { badRequest, forbidden, notFound } from '../errors.ts';
import { sessionOf } from '../gate.ts';
import { shownAccessRule } from './access-rule-routes.ts';
import { accessRulesOf, checkPassword } from './authentication.ts';
import { Description, Id, listQuery, maybe, name, orNull, wrapped } from './bodies.ts';
import type { IdentityRoutes } from './identity-context.ts';
import { list, pageOf, saving } from './lists.ts';
import { matching, rowsOf } from './rows.ts';
import { shownTime } from './shown.ts';
import { refuseDelegated, userFor } from './users.ts';

const NAME_MAX = 255;
const ROLES_MAX = 64;
const RULES_MAX = 64;
const SECRET_BYTES = 48;
const Role = Type.Object({ id: maybe(Type.String({ maxLength: 64 })), name: maybe(Type.String({ maxLength: 255 })) });
/** as Keystone has it: one of the user's by its id, or all of it */
const AccessRule = Type.Union([
  Type.Object({ id: Id }, { additionalProperties: false }),
  Type.Object(
    {
      service: Type.String({ minLength: 1, maxLength: 64 }),
      method: Type.Union((['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).map((one) => Type.Literal(one))),
      path: Type.String({ minLength: 1, maxLength: 128, pattern: '^/' }),
    },
    { additionalProperties: false },
  ),
]);
const Create = wrapped('application_credential', {
  name: name(NAME_MAX),
  description: maybe(Description),
  secret: maybe(orNull(Type.String({ maxLength: 4096 }))),
  expires_at: maybe(orNull(Type.String({ maxLength: 64 }))),
  roles: maybe(Type.Array(Role, { maxItems: ROLES_MAX })),
  unrestricted: maybe(orNull(Type.Boolean())),
  access_rules: maybe(orNull(Type.Array(AccessRule, { minItems: 1, maxItems: RULES_MAX }))),
});
/** ISO 8601; without a zone it is UTC, as Keystone reads it */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)?$/;

export const applicationCredentialRoutes: IdentityRoutes = (app, context) => {
  const { accounts, catalog, link } = context;
  const base = '/v3/users/:user_id/application_credentials';

  async function shown(row: ApplicationCredentialRow) {
    const db = await accounts.db();
    const rules = await accessRulesOf(db, row.id).execute();
    const roles = await db
      .selectFrom('role')
      .innerJoin('application_credential_role as held', 'held.role_id', 'role.id')
      .select(['role.id', 'role.name'])
      .where('held.application_credential_id', '=', row.id)
      .orderBy('role.name')
      .execute();
    return {
      id: row.id,
      name: row.name,
      description: row.description,
      user_id: row.user_id,
      project_id: row.project_id,
      expires_at: row.expires_at === null ? null : shownTime(row.expires_at, row.expires_us).replace('Z', ''),
      unrestricted: row.unrestricted !== 0,
      system: null,
      roles: roles.map((role) => ({ ...role, domain_id: null })),
      ...(rules.length === 0 ? {} : { access_rules: rules.map(shownAccessRule) }),
      links: { self: link(`/users/${row.user_id}/application_credentials/${row.id}`) },
    };
  }

  app.get(base, { schema: { querystring: listQuery('name') } }, async (request) => {
    const { user_id } = request.params as { user_id: string };
    const user = await userFor(context, sessionOf(request), user_id, 'list_application_credentials');
    const asked = request.query;
    const query = matching(await accounts.db(), 'application_credential', { user_id: user.id, name: asked.name });
    const rows = await rowsOf(query, pageOf(request));
    return list('application_credentials', await Promise.all(rows.map(shown)), request, context);
  });

  app.post(base, { schema: { body: Create } }, async (request, reply) => {
    const { user_id } = request.params as { user_id: string };
    const session = sessionOf(request);
    const user = await userFor(context, session, user_id, 'create_application_credential');
    // CVE-2020-12691: what was delegated cannot delegate, unless it was made for that.
    refuseDelegated(session, 'create_application_credential');
    if (session.project === null) throw forbidden('Application credentials are for a project: use a token for one.');
    const wanted = request.body.application_credential;
    const secret = wanted.secret ?? randomBytes(SECRET_BYTES).toString('base64url');
    checkPassword(secret);
    const row: ApplicationCredentialRow = {
      id: newId(),
      user_id: user.id,
      project_id: session.project.id,
      name: wanted.name,
      description: wanted.description ?? null,
      secret_hash: await catalog.passwords.hash(secret),
      ...expiryOf(wanted.expires_at ?? null),
      unrestricted: wanted.unrestricted ? 1 : 0,
    };
    const roles = wanted.roles && wanted.roles.length > 0 ? wanted.roles : session.roleRows;
    const changes: Change[] = [{ do: 'insert', table: 'application_credential', row }];
    for (const role of roles) {
      const held = session.roleRows.find(({ id, name: own }) =>
        role.id === undefined ? own === role.name : id === role.id,
      );
      if (!held) throw badRequest('a role that the token does not have cannot be given on');
      const link = { application_credential_id: row.id, role_id: held.id };
      changes.push({ do: 'insert', table: 'application_credential_role', row: link, orKeep: true });
    }
    for (const rule of wanted.access_rules ?? []) changes.push(...(await ruleChanges(rule, user.id, row.id)));
    await saving('application_credential', row.name, catalog.write(changes));
    reply.code(201);
    return { application_credential: { ...(await shown(row)), secret } };
  });

  app.get(`${base}/:id`, async (request) => {
    const { user_id, id } = request.params as { user_id: string; id: string };
    const user = await userFor(context, sessionOf(request), user_id, 'get_application_credential');
    return { application_credential: await shown(await find(user.id, id)) };
  });

  app.delete(`${base}/:id`, async (request, reply) => {
    const { user_id, id } = request.params as { user_id: string; id: string };
    const session = sessionOf(request);
    const user = await userFor(context, session, user_id, 'delete_application_credential');
    refuseDelegated(session, 'delete_application_credential');
    const row = await find(user.id, id);
    await catalog.write([{ do: 'delete', table: 'application_credential', where: { id: row.id } }]);
    return reply.code(204).send();
  });

  /** A rule that the user has already is that one. */
  async function ruleChanges(
    wanted: Static<typeof AccessRule>,
    userId: string,
    credentialId: string,
  ): Promise<Change[]> {
    const query = matching(await accounts.db(), 'access_rule', { user_id: userId, ...wanted });
    const had = await query.executeTakeFirst();
    if (!had && 'id' in wanted) throw badRequest(`Could not find access rule: ${wanted.id}.`);
    const id = had?.id ?? newId();
    const row = { application_credential_id: credentialId, access_rule_id: id };
    const held: Change = { do: 'insert', table: 'application_credential_access_rule', row, orKeep: true };
    if (had || 'id' in wanted) return [held];
    return [{ do: 'insert', table: 'access_rule', row: { id, user_id: userId, ...wanted } }, held];
  }

  async function find(userId: string, id: string): Promise<ApplicationCredentialRow> {
    const query = matching(await accounts.db(), 'application_credential', { id, user_id: userId });
    const row = await query.executeTakeFirst();
    if (!row) throw notFound('application credential', id);
    return row;
  }
};

function expiryOf(text: string | null): Pick<ApplicationCredentialRow, 'expires_at' | 'expires_us'> {
  if (text === null) return { expires_at: null, expires_us: 0 };
  const ms = TIME.test(text) ? Date.parse(/(Z|[+-]\d\d:\d\d)$/.test(text) ? text : `${text}Z`) : Number.NaN;
  if (Number.isNaN(ms)) throw badRequest('expires_at is a time such as 2030-12-31T12:00:00Z');
  if (ms <= Date.now()) throw badRequest('expires_at is in the past');
  const [, digits = ''] = /\.(\d+)/.exec(text) ?? [];
  return { expires_at: ms, expires_us: Number(digits.padEnd(6, '0').slice(3)) };
}
