/**
 * The catalog's versions (docs/catalog.md). A step that was released is never changed. Statements are in the SQL that SQLite and
 * PostgreSQL share.
 */
import { STORAGE_TABLES } from './storage-tables.ts';

export interface CatalogStep {
  to: number;
  statements: readonly string[];
}

const FIRST = [
  `CREATE TABLE region (id TEXT PRIMARY KEY, description TEXT NOT NULL, parent_region_id TEXT REFERENCES region (id), extra TEXT NOT NULL)`,
  `CREATE TABLE domain (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT NOT NULL, enabled INTEGER NOT NULL, epoch INTEGER NOT NULL, extra TEXT NOT NULL)`,
  `CREATE TABLE project (id TEXT PRIMARY KEY, name TEXT NOT NULL, domain_id TEXT NOT NULL REFERENCES domain (id), parent_id TEXT REFERENCES project (id),
    description TEXT NOT NULL, enabled INTEGER NOT NULL, epoch INTEGER NOT NULL, extra TEXT NOT NULL, UNIQUE (domain_id, name))`,
  'CREATE INDEX project_parent ON project (parent_id)',
  'CREATE TABLE project_tag (project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE, name TEXT NOT NULL, PRIMARY KEY (project_id, name))',
  `CREATE TABLE "user" (id TEXT PRIMARY KEY, name TEXT NOT NULL, domain_id TEXT NOT NULL REFERENCES domain (id), default_project_id TEXT, enabled INTEGER NOT NULL,
    description TEXT, password_hash TEXT, password_changed_at BIGINT, epoch INTEGER NOT NULL, extra TEXT NOT NULL, UNIQUE (domain_id, name))`,
  `CREATE TABLE user_group (id TEXT PRIMARY KEY, name TEXT NOT NULL, domain_id TEXT NOT NULL REFERENCES domain (id), description TEXT NOT NULL, extra TEXT NOT NULL,
    UNIQUE (domain_id, name))`,
  `CREATE TABLE membership (user_id TEXT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE, group_id TEXT NOT NULL REFERENCES user_group (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, group_id))`,
  'CREATE INDEX membership_group ON membership (group_id)',
  'CREATE TABLE role (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT, extra TEXT NOT NULL)',
  `CREATE TABLE implied_role (prior_role_id TEXT NOT NULL REFERENCES role (id) ON DELETE CASCADE, implied_role_id TEXT NOT NULL REFERENCES role (id) ON DELETE CASCADE,
    PRIMARY KEY (prior_role_id, implied_role_id))`,
  `CREATE TABLE assignment (id TEXT PRIMARY KEY, user_id TEXT REFERENCES "user" (id) ON DELETE CASCADE, group_id TEXT REFERENCES user_group (id) ON DELETE CASCADE,
    project_id TEXT REFERENCES project (id) ON DELETE CASCADE, domain_id TEXT REFERENCES domain (id) ON DELETE CASCADE, role_id TEXT NOT NULL REFERENCES role (id) ON DELETE CASCADE)`,
  'CREATE INDEX assignment_user ON assignment (user_id)',
  'CREATE INDEX assignment_group ON assignment (group_id)',
  'CREATE INDEX assignment_project ON assignment (project_id)',
  'CREATE INDEX assignment_domain ON assignment (domain_id)',
  'CREATE INDEX assignment_role ON assignment (role_id)',
  'CREATE TABLE service (id TEXT PRIMARY KEY, type TEXT NOT NULL, name TEXT, description TEXT, enabled INTEGER NOT NULL, extra TEXT NOT NULL)',
  `CREATE TABLE endpoint (id TEXT PRIMARY KEY, service_id TEXT NOT NULL REFERENCES service (id) ON DELETE CASCADE, region_id TEXT REFERENCES region (id),
    interface TEXT NOT NULL, url TEXT, path TEXT, enabled INTEGER NOT NULL, extra TEXT NOT NULL)`,
  'CREATE INDEX endpoint_service ON endpoint (service_id)',
  `CREATE TABLE application_credential (id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE, name TEXT NOT NULL, description TEXT, secret_hash TEXT NOT NULL, expires_at BIGINT,
    unrestricted INTEGER NOT NULL, UNIQUE (user_id, name))`,
  'CREATE INDEX application_credential_project ON application_credential (project_id)',
  `CREATE TABLE application_credential_role (application_credential_id TEXT NOT NULL REFERENCES application_credential (id) ON DELETE CASCADE,
    role_id TEXT NOT NULL REFERENCES role (id) ON DELETE CASCADE, PRIMARY KEY (application_credential_id, role_id))`,
  'CREATE TABLE revocation (audit_id TEXT PRIMARY KEY, expires_at BIGINT NOT NULL)',
  'CREATE INDEX revocation_expiry ON revocation (expires_at)',
  'CREATE TABLE quota_default (resource TEXT PRIMARY KEY, hard_limit BIGINT NOT NULL)',
  `CREATE TABLE quota (project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE, resource TEXT NOT NULL, hard_limit BIGINT NOT NULL,
    PRIMARY KEY (project_id, resource))`,
  'CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL)',
];

/** Quota by commissions. 9007199254740991: what a number can count. */
const SECOND = [
  `CREATE TABLE user_quota (project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE, user_id TEXT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
    resource TEXT NOT NULL, hard_limit BIGINT NOT NULL, PRIMARY KEY (project_id, user_id, resource))`,
  'CREATE INDEX user_quota_user ON user_quota (user_id)',
  `CREATE TABLE holding (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE, user_id TEXT REFERENCES "user" (id) ON DELETE CASCADE,
    resource TEXT NOT NULL, used BIGINT NOT NULL CHECK (used BETWEEN 0 AND 9007199254740991), reserved BIGINT NOT NULL CHECK (reserved BETWEEN 0 AND 9007199254740991))`,
  'CREATE INDEX holding_project ON holding (project_id)',
  'CREATE INDEX holding_user ON holding (user_id)',
  `CREATE TABLE commission (id TEXT PRIMARY KEY, run TEXT NOT NULL, project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    user_id TEXT REFERENCES "user" (id) ON DELETE SET NULL, created_at BIGINT NOT NULL)`,
  'CREATE INDEX commission_project ON commission (project_id)',
  'CREATE INDEX commission_user ON commission (user_id)',
  `CREATE TABLE provision (commission_id TEXT NOT NULL REFERENCES commission (id) ON DELETE CASCADE, resource TEXT NOT NULL, amount BIGINT NOT NULL,
    PRIMARY KEY (commission_id, resource))`,
];

/** Pins of roots in the engine. */
const THIRD = [
  `CREATE TABLE pin (name TEXT PRIMARY KEY, run TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT, commission_id TEXT REFERENCES commission (id) ON DELETE SET NULL,
    created_at BIGINT NOT NULL)`,
  'CREATE INDEX pin_commission ON pin (commission_id)',
];

/** Assignments that hold below a project or in all projects of a domain; what application credentials may ask. */
const FOURTH = [
  'ALTER TABLE application_credential ADD COLUMN expires_us INTEGER NOT NULL DEFAULT 0',
  'ALTER TABLE assignment ADD COLUMN inherited INTEGER NOT NULL DEFAULT 0',
  `CREATE TABLE access_rule (id TEXT PRIMARY KEY, user_id TEXT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE, service TEXT NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, UNIQUE (user_id, service, method, path))`,
  `CREATE TABLE application_credential_access_rule (application_credential_id TEXT NOT NULL REFERENCES application_credential (id) ON DELETE CASCADE,
    access_rule_id TEXT NOT NULL REFERENCES access_rule (id), PRIMARY KEY (application_credential_id, access_rule_id))`,
  'CREATE INDEX application_credential_access_rule_rule ON application_credential_access_rule (access_rule_id)',
];

/** Roles of one domain; what is said about a limit. */
const FIFTH = [
  'ALTER TABLE role ADD COLUMN domain_id TEXT REFERENCES domain (id) ON DELETE CASCADE',
  'CREATE INDEX role_domain ON role (domain_id)',
  'ALTER TABLE quota_default ADD COLUMN description TEXT',
  'ALTER TABLE quota ADD COLUMN description TEXT',
];

export const CATALOG_STEPS: readonly CatalogStep[] = [
  { to: 1, statements: FIRST },
  { to: 2, statements: SECOND },
  { to: 3, statements: THIRD },
  { to: 4, statements: FOURTH },
  { to: 5, statements: FIFTH },
  { to: 6, statements: STORAGE_TABLES },
];
export const CATALOG_VERSION = CATALOG_STEPS[CATALOG_STEPS.length - 1]!.to;
