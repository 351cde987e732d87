/** How rows look in answers. */
import type { UserRow } from '../../../control/catalog/types.ts';
import type { Session } from './authentication.ts';
import type { IdentityContext } from './identity-context.ts';
import { shownAuditId } from './token-format.ts';

/** `2026-01-31T12:00:00.000000Z`, as Keystone writes times. @param us microseconds beyond `ms` */
export function shownTime(ms: number, us = 0): string {
  return new Date(ms).toISOString().replace('Z', `${String(us).padStart(3, '0')}Z`);
}

export function extraOf(row: { extra: string }): Record<string, unknown> {
  return JSON.parse(row.extra) as Record<string, unknown>;
}

export function shownUser(row: UserRow, link: IdentityContext['link']): Record<string, unknown> {
  return {
    ...extraOf(row),
    id: row.id,
    name: row.name,
    domain_id: row.domain_id,
    enabled: row.enabled !== 0,
    ...(row.default_project_id === null ? {} : { default_project_id: row.default_project_id }),
    ...(row.description === null ? {} : { description: row.description }),
    password_expires_at: null,
    options: {},
    links: { self: link(`/users/${row.id}`) },
  };
}

export function shownUsers(rows: readonly UserRow[], link: IdentityContext['link']) {
  return rows.map((row) => shownUser(row, link));
}

/** What a token says when it is shown. */
export async function shownToken(session: Session, context: IdentityContext, nocatalog: boolean) {
  const { token, user, userDomain, project, domain, scope } = session;
  const audit_ids = [shownAuditId(token.auditId), ...(token.chainId === null ? [] : [shownAuditId(token.chainId)])];
  const body: Record<string, unknown> = {
    methods: token.methods,
    user: {
      id: user.id,
      name: user.name,
      domain: { id: userDomain.id, name: userDomain.name },
      password_expires_at: null,
    },
    audit_ids,
    issued_at: shownTime(token.issuedAt),
    expires_at: shownTime(token.expiresAt),
  };
  if (session.credential !== null) {
    const { id, name, accessRules } = session.credential;
    const rules = accessRules.map(({ id: rule, service, method, path }) => ({ id: rule, service, method, path }));
    const access_rules = rules.length === 0 ? {} : { access_rules: rules };
    body.application_credential = { id, name, restricted: session.restricted, ...access_rules };
  }
  if (scope.kind === 'unscoped') return { token: body };
  body.roles = session.roleRows.map(({ id, name }) => ({ id, name }));
  if (scope.kind === 'system') body.system = { all: true };
  if (project !== null && domain !== null) {
    body.project = { id: project.id, name: project.name, domain: { id: domain.id, name: domain.name } };
    body.is_domain = false;
  } else if (domain !== null) body.domain = { id: domain.id, name: domain.name };
  if (!nocatalog) body.catalog = await serviceCatalog(session, context);
  return { token: body };
}

/** Only these may stand in an endpoint's URL; anything else stays as it is (CVE-2014-3621). */
function fill(url: string, session: Session): string {
  const projectId = session.project?.id ?? '';
  return url.replace(/[$%]\((project_id|tenant_id|user_id)\)s/g, (_all, name: string) =>
    name === 'user_id' ? session.userId : projectId,
  );
}

export async function serviceCatalog(session: Session, context: IdentityContext): Promise<unknown[]> {
  const db = await context.accounts.db();
  const services = await db.selectFrom('service').selectAll().where('enabled', '=', 1).orderBy('type').execute();
  const endpoints = await db.selectFrom('endpoint').selectAll().where('enabled', '=', 1).execute();
  return services.map((service) => ({
    id: service.id,
    type: service.type,
    name: service.name ?? '',
    endpoints: endpoints
      .filter((endpoint) => endpoint.service_id === service.id)
      // An endpoint for projects is for nobody without one.
      .filter(({ url }) => session.project !== null || !/[$%]\((project|tenant)_id\)s/.test(url ?? ''))
      .map((endpoint) => ({
        id: endpoint.id,
        interface: endpoint.interface,
        region_id: endpoint.region_id,
        region: endpoint.region_id,
        url: endpoint.url === null ? `${context.publicUrl()}${endpoint.path}` : fill(endpoint.url, session),
      })),
  }));
}
