/**
 * Names of roles. Those of all domains are unique and stand for what they let one do (policy.ts); a role of one domain has a name that is
 * unique there, and is kept under that and its domain, so that it never is one of the others.
 */
import type { RoleRow } from '../../../control/catalog/types.ts';

/** between the id of a domain and a name */
const SEPARATOR = '\u001f';

/** What the catalog has for a role's name. @param domainId null: it is one of all domains */
export function keptName(name: string, domainId: string | null): string {
  return domainId === null ? name : `${domainId}${SEPARATOR}${name}`;
}

/** What users call it. */
export function roleName({ name, domain_id }: Pick<RoleRow, 'name' | 'domain_id'>): string {
  return domain_id === null ? name : name.slice(domain_id.length + SEPARATOR.length);
}
