/**
 * Who may do what, in one table (docs/identity.md has the same one, and a test compares them). An action is allowed when any of its
 * rules holds; an action that is not in the table does not exist.
 *
 * | rule | holds for |
 * |---|---|
 * | anyone | whoever has a valid token |
 * | admin | role admin on the system or in the admin project |
 * | reader | role reader on the system, or admin |
 * | domain manager | role manager in a domain, by a token for that domain, for what is in it |
 * | domain reader | role reader there |
 * | self | the user that it is about |
 * | project | a token for the project that it is about |
 * | own domain | a token for the domain that it is about, or for a project of it |
 */
import { notAllowed } from '../errors.ts';

export type Rule =
  | 'anyone'
  | 'admin'
  | 'reader'
  | 'domain manager'
  | 'domain reader'
  | 'self'
  | 'project'
  | 'own domain';

const READ: readonly Rule[] = ['reader', 'domain reader'];
const MANAGE: readonly Rule[] = ['admin', 'domain manager'];
const OPERATE: readonly Rule[] = ['admin'];
const ANYONE: readonly Rule[] = ['anyone'];

export const POLICY = {
  validate_token: ['reader', 'self'],
  revoke_token: ['admin', 'self'],
  get_auth_catalog: ANYONE,
  list_users: READ,
  get_user: [...READ, 'self'],
  create_user: MANAGE,
  update_user: MANAGE,
  delete_user: MANAGE,
  change_password: ANYONE,
  list_user_projects: [...READ, 'self'],
  list_groups_for_user: [...READ, 'self'],
  list_projects: READ,
  get_project: [...READ, 'project'],
  create_project: MANAGE,
  update_project: MANAGE,
  delete_project: MANAGE,
  list_project_tags: [...READ, 'project'],
  update_project_tags: MANAGE,
  list_domains: ['reader'],
  get_domain: [...READ, 'own domain'],
  create_domain: OPERATE,
  update_domain: OPERATE,
  delete_domain: OPERATE,
  list_groups: READ,
  get_group: READ,
  create_group: MANAGE,
  update_group: MANAGE,
  delete_group: MANAGE,
  list_users_in_group: READ,
  check_user_in_group: [...READ, 'self'],
  add_user_to_group: MANAGE,
  remove_user_from_group: MANAGE,
  list_roles: READ,
  get_role: READ,
  create_role: OPERATE,
  update_role: OPERATE,
  delete_role: OPERATE,
  list_role_assignments: READ,
  list_grants: READ,
  check_grant: READ,
  create_grant: MANAGE,
  revoke_grant: MANAGE,
  list_system_grants: ['reader'],
  create_system_grant: OPERATE,
  revoke_system_grant: OPERATE,
  list_implied_roles: ['reader'],
  get_implied_role: ['reader'],
  create_implied_role: OPERATE,
  delete_implied_role: OPERATE,
  list_role_inference_rules: ['reader'],
  list_services: ['reader'],
  get_service: ['reader'],
  create_service: OPERATE,
  update_service: OPERATE,
  delete_service: OPERATE,
  list_endpoints: ['reader'],
  get_endpoint: ['reader'],
  create_endpoint: OPERATE,
  update_endpoint: OPERATE,
  delete_endpoint: OPERATE,
  list_regions: ANYONE,
  get_region: ANYONE,
  create_region: OPERATE,
  update_region: OPERATE,
  delete_region: OPERATE,
  list_application_credentials: ['reader', 'self'],
  get_application_credential: ['reader', 'self'],
  create_application_credential: ['self'],
  delete_application_credential: ['admin', 'self'],
  list_access_rules: ['reader', 'self'],
  get_access_rule: ['reader', 'self'],
  delete_access_rule: ['admin', 'self'],
  list_registered_limits: ANYONE,
  get_registered_limit: ANYONE,
  create_registered_limit: OPERATE,
  update_registered_limit: OPERATE,
  delete_registered_limit: OPERATE,
  get_limit_model: ANYONE,
  list_limits: ANYONE,
  list_all_limits: READ,
  get_limit: [...READ, 'project'],
  create_limit: OPERATE,
  update_limit: OPERATE,
  delete_limit: OPERATE,
  get_metrics: ['reader'],
} as const satisfies Record<string, readonly Rule[]>;

export type Action = keyof typeof POLICY;

/** What of a token the rules look at. */
export interface Caller {
  userId: string;
  /** names, with those that they imply */
  roles: ReadonlySet<string>;
  scope: { kind: 'unscoped' | 'project' | 'domain' | 'system'; id?: string };
  /** the scope's, or that of its project */
  domain: { id: string } | null;
  /** the scope is the system, or the project that operators work in */
  operator: boolean;
}

/** What an action is about, as far as rules ask; null: it belongs to no domain, user or project. */
export interface Target {
  domainId?: string | null;
  userId?: string;
  projectId?: string;
}

function holds(rule: Rule, caller: Caller, target: Target): boolean {
  const inDomain =
    caller.scope.kind === 'domain' && target.domainId !== undefined && caller.scope.id === target.domainId;
  switch (rule) {
    case 'anyone':
      return true;
    case 'admin':
      return caller.operator && caller.roles.has('admin');
    case 'reader':
      return (
        caller.operator && caller.roles.has('reader') && (caller.scope.kind === 'system' || caller.roles.has('admin'))
      );
    case 'domain manager':
      return inDomain && caller.roles.has('manager');
    case 'domain reader':
      return inDomain && caller.roles.has('reader');
    case 'self':
      return target.userId === caller.userId;
    case 'project':
      return caller.scope.kind === 'project' && caller.scope.id === target.projectId;
    case 'own domain':
      return caller.domain !== null && caller.domain.id === target.domainId;
  }
}

export function may(action: Action, caller: Caller, target: Target = {}): boolean {
  return POLICY[action].some((rule: Rule) => holds(rule, caller, target));
}

/** @throws {HttpError} 403 */
export function enforce(action: Action, caller: Caller, target: Target = {}): void {
  if (!may(action, caller, target)) throw notAllowed(`identity:${action}`);
}
