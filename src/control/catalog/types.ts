/**
 * What the catalog speaks: its rows, and changes to them. Loads nothing, so that whoever only speaks it stays quick.
 *
 * Ids are 32 hexadecimal digits, like Keystone's; times are milliseconds since 1970; booleans are 0 or 1; `extra` is a JSON object
 * with what the API lets users add to a resource. docs/catalog.md has the tables and what each column means.
 */
import type { Kysely } from 'kysely';
import type { Amounts, ResourceName } from './resources.ts';
import type { StorageTables } from './storage-rows.ts';

export interface RegionRow {
  id: string;
  description: string;
  parent_region_id: string | null;
  extra: string;
}
export interface DomainRow {
  id: string;
  name: string;
  description: string;
  enabled: number;
  /** counts what revokes tokens scoped to it */
  epoch: number;
  extra: string;
}
export interface ProjectRow {
  id: string;
  name: string;
  domain_id: string;
  /** the project above it; null: the domain */
  parent_id: string | null;
  description: string;
  enabled: number;
  /** counts what revokes tokens scoped to it */
  epoch: number;
  extra: string;
}
export interface ProjectTagRow {
  project_id: string;
  name: string;
}
export interface UserRow {
  id: string;
  name: string;
  domain_id: string;
  default_project_id: string | null;
  enabled: number;
  description: string | null;
  /** argon2id, PHC string; null: no password opens it */
  password_hash: string | null;
  password_changed_at: number | null;
  /** counts what revokes all of the user's tokens */
  epoch: number;
  extra: string;
}
export interface GroupRow {
  id: string;
  name: string;
  domain_id: string;
  description: string;
  extra: string;
}
export interface MembershipRow {
  user_id: string;
  group_id: string;
}
export interface RoleRow {
  id: string;
  /** unique; of a role of one domain, one that no other can have */
  name: string;
  /** null: of all domains */
  domain_id: string | null;
  description: string | null;
  extra: string;
}
export interface ImpliedRoleRow {
  prior_role_id: string;
  implied_role_id: string;
}
export interface AssignmentRow {
  /** made of the columns below, so that there is one of each */
  id: string;
  user_id: string | null;
  group_id: string | null;
  /** both null: the system */
  project_id: string | null;
  domain_id: string | null;
  role_id: string;
  /** holds not there, but in the projects below it */
  inherited: number;
}
export interface ServiceRow {
  id: string;
  type: string;
  name: string | null;
  description: string | null;
  enabled: number;
  extra: string;
}
export interface EndpointRow {
  id: string;
  service_id: string;
  region_id: string | null;
  interface: 'public' | 'internal' | 'admin';
  /** null: `path` below this daemon's public URL */
  url: string | null;
  path: string | null;
  enabled: number;
  extra: string;
}
export interface ApplicationCredentialRow {
  id: string;
  user_id: string;
  project_id: string;
  name: string;
  description: string | null;
  secret_hash: string;
  expires_at: number | null;
  /** microseconds beyond it, since users say and see those */
  expires_us: number;
  unrestricted: number;
}
export interface ApplicationCredentialRoleRow {
  application_credential_id: string;
  role_id: string;
}
/** a request that an application credential may be good for; a user's, and kept when the credential goes */
export interface AccessRuleRow {
  id: string;
  user_id: string;
  /** a type of service: `identity` */
  service: string;
  method: string;
  /** a pattern */
  path: string;
}
export interface ApplicationCredentialAccessRuleRow {
  application_credential_id: string;
  access_rule_id: string;
}
export interface RevocationRow {
  audit_id: string;
  expires_at: number;
}
export interface QuotaDefaultRow {
  resource: string;
  hard_limit: number;
  description: string | null;
}
export interface QuotaRow {
  project_id: string;
  resource: string;
  hard_limit: number;
  description: string | null;
}

export interface UserQuotaRow {
  project_id: string;
  user_id: string;
  resource: string;
  hard_limit: number;
}
export interface HoldingRow {
  /** made of the project, the user and the resource, so that there is one of each */
  id: string;
  project_id: string;
  /** null: the whole project */
  user_id: string | null;
  resource: string;
  used: number;
  reserved: number;
}
export interface CommissionRow {
  id: string;
  /** of the daemon that made it */
  run: string;
  project_id: string;
  user_id: string | null;
  created_at: number;
}
export interface ProvisionRow {
  commission_id: string;
  resource: string;
  amount: number;
}

export interface PinRow {
  /** of a volume or `VOL@SNAP` in the engine */
  name: string;
  /** of the daemon that made the pin */
  run: string;
  /** which service knows what it is */
  kind: string;
  /** the row in a passing state, if there is one */
  subject: string | null;
  commission_id: string | null;
  created_at: number;
}

export interface SettingRow {
  key: 'admin_project';
  value: string;
}

export interface CatalogTables extends StorageTables {
  region: RegionRow;
  domain: DomainRow;
  project: ProjectRow;
  project_tag: ProjectTagRow;
  user: UserRow;
  user_group: GroupRow;
  membership: MembershipRow;
  role: RoleRow;
  implied_role: ImpliedRoleRow;
  assignment: AssignmentRow;
  service: ServiceRow;
  endpoint: EndpointRow;
  application_credential: ApplicationCredentialRow;
  application_credential_role: ApplicationCredentialRoleRow;
  access_rule: AccessRuleRow;
  application_credential_access_rule: ApplicationCredentialAccessRuleRow;
  revocation: RevocationRow;
  quota_default: QuotaDefaultRow;
  quota: QuotaRow;
  user_quota: UserQuotaRow;
  holding: HoldingRow;
  commission: CommissionRow;
  provision: ProvisionRow;
  pin: PinRow;
  setting: SettingRow;
}
export type TableName = keyof CatalogTables;

export type Value = string | number | null;
export type Columns<T extends TableName = TableName> = { [C in keyof CatalogTables[T]]?: CatalogTables[T][C] };

/** One change. A list of them is applied as a whole or not at all. */
export type Change = TableChange | QuotaChange | KeepAdminChange;

/** The demand that, after the changes before it, somebody is left who can administer the cloud. */
export interface KeepAdminChange {
  do: 'keep-admin';
}

/** Goes behind whatever could take an administrator's rights, or the administrator. */
export const KEEP_ADMIN: KeepAdminChange = { do: 'keep-admin' };

export interface ReserveChange {
  do: 'reserve';
  commission: CommissionRow;
  amounts: Amounts;
}
export type QuotaChange =
  | ReserveChange
  | { do: 'confirm'; commission: string }
  | { do: 'release'; commission: string /** one that is not there is fine */ }
  | { do: 'release-others' /** releases what other runs of the daemon did not confirm */; run: string }
  | {
      do: 'charge';
      /** adds to what is used, or takes away; no limit is asked */
      amounts: Amounts;
      project_id: string;
      user_id: string | null;
    };

export type TableChange = {
  [T in TableName]:
    | { do: 'insert'; table: T; row: CatalogTables[T] /** one that is there already is fine */; orKeep?: boolean }
    | {
        do: 'update';
        table: T;
        where: Columns<T>;
        set?: Columns<T>;
        /** added to what is there: counters */
        add?: Columns<T>;
        /** adds 1 to the row's epoch */
        revoke?: boolean;
        /** no row is fine; otherwise it is NOT_FOUND */
        orNone?: boolean;
      }
    | { do: 'delete'; table: T; where: Columns<T>; orNone?: boolean }
    | { do: 'purge'; table: T; column: string /** rows whose column is below it go */; below: number };
}[TableName];

export type CatalogReader = Kysely<CatalogTables>;

/** What all that the catalog is made of needs of it. */
export interface CatalogSide {
  /** The connection that reads. It waits for the opening the first time. */
  reader(): Promise<CatalogReader>;
  /**
   * Applies changes, all or none.
   * @returns when they are durable
   * @throws {CatalogError}
   */
  write(changes: readonly Change[]): Promise<void>;
}

export type CatalogErrorCode =
  /** a row that a change needs is not there */
  | 'NOT_FOUND'
  /** a name or id is taken */
  | 'EXISTS'
  /** a row that is named does not exist, or one that is to go is still named by others */
  | 'REFERENCE'
  /** nobody would be left who can administer the cloud */
  | 'LAST_ADMIN'
  /** more passwords than can be hashed at once */
  | 'TOO_MANY'
  /** a change that cannot be: an amount that cannot be counted, less than nothing held, a status that is none */
  | 'INVALID'
  /** see QuotaExceeded */
  | 'QUOTA_EXCEEDED'
  /** the disk is full; nothing was changed */
  | 'NO_SPACE'
  /** the catalog is closed, or more writes wait than may */
  | 'IO';

export class CatalogError extends Error {
  constructor(
    readonly code: CatalogErrorCode,
    message: string,
  ) {
    super(message);
    this.name = 'CatalogError';
  }
}

/** What was asked for, and why it is too much. */
export interface Exceeded {
  project_id: string;
  /** null: it is the project's limit */
  user_id: string | null;
  resource: ResourceName;
  limit: number;
  used: number;
  reserved: number;
  wanted: number;
}

/** Nothing was reserved. Each service answers it as its API does. */
export class QuotaExceeded extends CatalogError {
  constructor(readonly exceeded: Exceeded) {
    const { resource, limit, used, reserved, wanted, user_id } = exceeded;
    const whose = user_id === null ? 'the project' : 'the user in this project';
    const has = `has ${used}${reserved === 0 ? '' : ` and ${reserved} being made`}`;
    super(
      'QUOTA_EXCEEDED',
      `quota exceeded for ${resource}: ${whose} may have ${limit}, ${has}, and wants ${wanted} more`,
    );
    this.name = 'QuotaExceeded';
  }
}
