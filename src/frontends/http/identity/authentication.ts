/**
 * Logging in, and what a token is worth: docs/identity.md, "Tokens". Knows no HTTP but its errors.
 *
 * A token is looked up whole whenever it is used: the user, its domain, the scope, the credential, the roles. So whatever is taken
 * away is gone at once; nothing is cached.
 */
import { type CatalogReader, newId, PASSWORD_BYTES_MAX } from '../../../control/catalog/catalog.ts';
import type {
  AccessRuleRow,
  CatalogTables,
  DomainRow,
  ProjectRow,
  RoleRow,
  UserRow,
} from '../../../control/catalog/types.ts';
import { badRequest, forbidden, unauthorized } from '../errors.ts';
import type { Accounts } from './accounts.ts';
import type { AuthBody, DomainName, NamedInDomain, PasswordUser } from './auth-schemas.ts';
import type { Caller } from './policy.ts';
import { matching } from './rows.ts';
import { METHODS, type Method, readToken, type Scope, type TokenPayload, writeToken } from './token-format.ts';
import type { TokenKeys } from './token-keys.ts';

export const TOKEN_LIFE_MS = 3600_000;

export interface Session extends Caller {
  user: UserRow;
  userDomain: DomainRow;
  scope: Scope;
  project: ProjectRow | null;
  /** of the project, or the one that the token is for */
  domain: DomainRow | null;
  roleRows: RoleRow[];
  token: TokenPayload;
  /** the application credential that the token came by */
  credential: SessionCredential | null;
  /** an application credential that is not for managing application credentials */
  restricted: boolean;
}

export interface SessionCredential {
  id: string;
  name: string;
  /** the only requests it is good for; none: all are */
  accessRules: AccessRuleRow[];
}

interface Login {
  user: UserRow;
  methods: Set<Method>;
  parent: TokenPayload | null;
  credential: { id: string; projectId: string } | null;
}

export class Authentication {
  constructor(
    private readonly accounts: Accounts,
    private readonly keys: TokenKeys,
  ) {}

  /** @throws {HttpError} 401, the same for every reason */
  async login(body: AuthBody): Promise<{ text: string; session: Session }> {
    const login = await this.#identify(body);
    const scope = await this.#wantedScope(login, body.auth.scope);
    const now = Date.now();
    const credential = login.credential ?? null;
    const token: TokenPayload = {
      methods: METHODS.filter((method) => login.methods.has(method)),
      userId: login.user.id,
      scope,
      issuedAt: now,
      // Never later than the token it was made from (CVE-2012-3426, CVE-2012-5563).
      expiresAt: Math.min(now + TOKEN_LIFE_MS, login.parent?.expiresAt ?? Number.POSITIVE_INFINITY),
      auditId: newId(),
      chainId: login.parent ? (login.parent.chainId ?? login.parent.auditId) : null,
      applicationCredentialId: credential?.id ?? null,
      userEpoch: login.user.epoch,
      scopeEpoch: await this.#epochOf(scope),
    };
    const text = writeToken(token, this.keys);
    const session = await this.#sessionOf(token);
    if (session === null) throw unauthorized();
    return { text, session };
  }

  /** @returns null for a token that is not good, whatever the reason */
  async session(text: string): Promise<Session | null> {
    const token = readToken(text, this.keys);
    return token === null ? null : this.#sessionOf(token);
  }

  async revoke(token: TokenPayload): Promise<void> {
    const row = { audit_id: token.auditId, expires_at: token.expiresAt };
    await this.accounts.catalog.write([{ do: 'insert', table: 'revocation', row, orKeep: true }]);
  }

  /** Compares a password, at the same cost whoever it is. */
  async passwordFits(user: UserRow | null, password: string): Promise<boolean> {
    return this.accounts.catalog.passwords.verify(password, user?.password_hash ?? null);
  }

  async #sessionOf(token: TokenPayload): Promise<Session | null> {
    if (token.expiresAt <= Date.now()) return null;
    const db = await this.accounts.db();
    const revoked = await db
      .selectFrom('revocation')
      .select('audit_id')
      .where('audit_id', '=', token.auditId)
      .executeTakeFirst();
    if (revoked) return null;
    const user = await this.accounts.row('user', token.userId);
    if (!user || user.enabled === 0 || user.epoch !== token.userEpoch) return null;
    const userDomain = await this.accounts.row('domain', user.domain_id);
    if (!userDomain || userDomain.enabled === 0) return null;
    const place = await this.#placeOf(token.scope);
    if (place === null || place.epoch !== token.scopeEpoch) return null;
    let roleRows = token.scope.kind === 'unscoped' ? [] : await this.accounts.roles(user.id, token.scope);
    let restricted = false;
    let held: SessionCredential | null = null;
    if (token.applicationCredentialId !== null) {
      const credential = await this.#credential(token.applicationCredentialId);
      if (!credential || (credential.expires_at !== null && credential.expires_at <= Date.now())) return null;
      const granted = new Set(credential.roles);
      roleRows = roleRows.filter(({ id }) => granted.has(id));
      restricted = credential.unrestricted === 0;
      held = { id: credential.id, name: credential.name, accessRules: credential.accessRules };
    }
    if (token.scope.kind !== 'unscoped' && roleRows.length === 0) return null;
    const { project, domain } = place;
    const operator =
      token.scope.kind === 'system' || (project !== null && project.id === (await this.accounts.adminProject()));
    return {
      userId: user.id,
      user,
      userDomain,
      scope: token.scope,
      project,
      domain,
      roleRows,
      roles: new Set(roleRows.map(({ name }) => name)),
      operator,
      token,
      credential: held,
      restricted,
    };
  }

  async #credential(id: string) {
    const db = await this.accounts.db();
    const row = await db.selectFrom('application_credential').selectAll().where('id', '=', id).executeTakeFirst();
    if (!row) return null;
    const roles = await db
      .selectFrom('application_credential_role')
      .select('role_id')
      .where('application_credential_id', '=', id)
      .execute();
    const all = await this.accounts.withImplied(roles.map(({ role_id }) => role_id));
    const accessRules = await accessRulesOf(db, row.id).execute();
    return { ...row, roles: all.map((role) => role.id), accessRules };
  }

  async #placeOf(
    scope: Scope,
  ): Promise<{ project: ProjectRow | null; domain: DomainRow | null; epoch: number } | null> {
    if (scope.kind === 'unscoped' || scope.kind === 'system') return { project: null, domain: null, epoch: 0 };
    const project = scope.kind === 'project' ? await this.accounts.row('project', scope.id) : null;
    if (scope.kind === 'project' && (!project || project.enabled === 0)) return null;
    const domain = await this.accounts.row('domain', project ? project.domain_id : scope.id);
    if (!domain || domain.enabled === 0) return null;
    return { project: project ?? null, domain, epoch: (project ?? domain).epoch };
  }

  async #epochOf(scope: Scope): Promise<number> {
    return (await this.#placeOf(scope))?.epoch ?? 0;
  }

  async #identify(body: AuthBody): Promise<Login> {
    const { identity } = body.auth;
    const logins: Login[] = [];
    // Each once, however often it is listed (CVE-2014-2828).
    for (const method of new Set(identity.methods)) logins.push(await this.#byMethod(method, body));
    const [first] = logins;
    if (!first || logins.some(({ user }) => user.id !== first.user.id)) throw unauthorized();
    return {
      user: first.user,
      methods: new Set(logins.flatMap(({ methods }) => [...methods])),
      parent: logins.find(({ parent }) => parent !== null)?.parent ?? null,
      credential: logins.find(({ credential }) => credential !== null)?.credential ?? null,
    };
  }

  async #byMethod(method: string, { auth: { identity } }: AuthBody): Promise<Login> {
    if (method === 'password') {
      if (!identity.password) throw badRequest("'password' is a required property of identity");
      return this.#byPassword(identity.password.user);
    }
    if (method === 'token') {
      if (!identity.token) throw badRequest("'token' is a required property of identity");
      return this.#byToken(identity.token.id);
    }
    if (method === 'application_credential') {
      if (!identity.application_credential)
        throw badRequest("'application_credential' is a required property of identity");
      return this.#byCredential(identity.application_credential);
    }
    throw unauthorized('Attempted to authenticate with an unsupported method.');
  }

  async #byPassword(named: PasswordUser): Promise<Login> {
    const user = await this.#named('user', named);
    const fits = await this.passwordFits(user, named.password);
    if (!fits || !user || !(await this.#mayLogIn(user))) throw unauthorized();
    return { user, methods: new Set(['password']), parent: null, credential: null };
  }

  async #byToken(text: string): Promise<Login> {
    const session = await this.session(text);
    if (session === null) throw unauthorized();
    if (session.token.applicationCredentialId !== null)
      throw forbidden('A token of an application credential cannot be exchanged for another.');
    const methods = new Set<Method>([...session.token.methods, 'token']);
    return { user: session.user, methods, parent: session.token, credential: null };
  }

  async #byCredential(named: NonNullable<AuthBody['auth']['identity']['application_credential']>): Promise<Login> {
    const db = await this.accounts.db();
    let query = db.selectFrom('application_credential').selectAll();
    if (named.id !== undefined) query = query.where('id', '=', named.id);
    else {
      const user = named.user ? await this.#named('user', named.user) : null;
      query = query.where('user_id', '=', user?.id ?? '').where('name', '=', named.name ?? '');
    }
    const row = await query.executeTakeFirst();
    const fits = await this.accounts.catalog.passwords.verify(named.secret, row?.secret_hash ?? null);
    const user = row && (await this.accounts.row('user', row.user_id));
    if (!fits || !row || !user || !(await this.#mayLogIn(user))) throw unauthorized();
    if (row.expires_at !== null && row.expires_at <= Date.now()) throw unauthorized();
    const credential = { id: row.id, projectId: row.project_id };
    return { user, methods: new Set(['application_credential']), parent: null, credential };
  }

  async #mayLogIn(user: UserRow): Promise<boolean> {
    return user.enabled !== 0 && (await this.accounts.row('domain', user.domain_id))?.enabled === 1;
  }

  /** A user or a project, by its id or by its name and domain. @throws {HttpError} 400 when it has neither */
  async #named<T extends 'user' | 'project'>(table: T, named: NamedInDomain): Promise<CatalogTables[T] | null> {
    if (named.id !== undefined) return (await this.accounts.row(table, named.id)) ?? null;
    if (named.name === undefined || !named.domain) throw badRequest(`a ${table} needs an id, or a name and a domain`);
    const domain = await this.#namedDomain(named.domain);
    const where = { domain_id: domain?.id ?? '', name: named.name };
    const query = matching<'user' | 'project'>(await this.accounts.db(), table, where);
    return ((await query.executeTakeFirst()) as CatalogTables[T] | undefined) ?? null;
  }

  async #namedDomain(named: DomainName): Promise<DomainRow | null> {
    if (named.id !== undefined) return (await this.accounts.row('domain', named.id)) ?? null;
    if (named.name === undefined) throw badRequest('a domain needs an id or a name');
    const db = await this.accounts.db();
    return (await db.selectFrom('domain').selectAll().where('name', '=', named.name).executeTakeFirst()) ?? null;
  }

  async #wantedScope(login: Login, wanted: AuthBody['auth']['scope']): Promise<Scope> {
    if (login.credential) {
      if (wanted !== undefined) throw unauthorized('Application credentials cannot request a scope.');
      return { kind: 'project', id: login.credential.projectId };
    }
    if (wanted === undefined) return this.#defaultScope(login);
    if (wanted === 'unscoped') return { kind: 'unscoped' };
    if ([wanted.project, wanted.domain, wanted.system, wanted.unscoped].filter((one) => one !== undefined).length !== 1)
      throw badRequest('a scope is one of project, domain, system and unscoped');
    if (wanted.unscoped) return { kind: 'unscoped' };
    if (wanted.system) return { kind: 'system' };
    if (wanted.domain) {
      const domain = await this.#namedDomain(wanted.domain);
      if (!domain) throw unauthorized();
      return { kind: 'domain', id: domain.id };
    }
    const project = await this.#named('project', wanted.project!);
    if (!project) throw unauthorized();
    return { kind: 'project', id: project.id };
  }

  /** The user's own project, when that is one that it may use. */
  async #defaultScope(login: Login): Promise<Scope> {
    if (login.parent) return { kind: 'unscoped' };
    const id = login.user.default_project_id;
    const scope: Scope = { kind: 'project', id: id ?? '' };
    if (id === null || (await this.#placeOf(scope)) === null) return { kind: 'unscoped' };
    return (await this.accounts.roles(login.user.id, scope)).length > 0 ? scope : { kind: 'unscoped' };
  }
}

/** The access rules of an application credential. */
export function accessRulesOf(db: CatalogReader, credentialId: string) {
  const held = db
    .selectFrom('application_credential_access_rule')
    .select('access_rule_id')
    .where('application_credential_id', '=', credentialId);
  return matching(db, 'access_rule', {}).where('id', 'in', held).orderBy('id');
}

/** @throws {HttpError} 400 */
export function checkPassword(password: string): void {
  if (password.length === 0) throw badRequest('a password may not be empty');
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX)
    throw badRequest(`a password may have ${PASSWORD_BYTES_MAX} bytes`);
}
