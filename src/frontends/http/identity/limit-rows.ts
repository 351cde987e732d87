/**
 * Quotas as Keystone's unified limits: the default of a resource is a registered limit, what a project has instead is a limit. Both are
 * the catalog's own rows (docs/catalog.md, "Quota"), so `atoll quota` shows and sets the same.
 */
import { isResource, type ResourceName } from '../../../control/catalog/catalog.ts';
import type { QuotaDefaultRow, QuotaRow } from '../../../control/catalog/types.ts';
import type { IdentityContext } from './identity-context.ts';

/** types of the services that count them, as catalogs have them; those of a service that is not there are counted by identity */
const SERVICE_TYPES = {
  volumes: ['block-storage', 'volumev3', 'volume'],
  volume_bytes: ['block-storage', 'volumev3', 'volume'],
  snapshots: ['block-storage', 'volumev3', 'volume'],
  images: ['image'],
  image_bytes: ['image'],
  containers: ['object-store'],
  objects: ['object-store'],
  object_bytes: ['object-store'],
} as const satisfies Record<ResourceName, readonly string[]>;

/** The id of the service that counts a resource; null: not even identity is in the catalog. */
export type ServiceOf = (resource: string) => string | null;

export async function serviceOf({ accounts }: Pick<IdentityContext, 'accounts'>): Promise<ServiceOf> {
  const db = await accounts.db();
  const rows = await db.selectFrom('service').select(['id', 'type']).orderBy('id').execute();
  return (resource) => {
    const types: readonly string[] = isResource(resource) ? [...SERVICE_TYPES[resource], 'identity'] : [];
    const ids = types.flatMap((type) => rows.find((row) => row.type === type)?.id ?? []);
    return ids[0] ?? null;
  };
}

/** A resource's name, as it stands in ids. */
const dashed = (resource: string) => resource.replaceAll('_', '-');
const registeredId = dashed;
const limitId = ({ project_id, resource }: Pick<QuotaRow, 'project_id' | 'resource'>) =>
  `${project_id}-${dashed(resource)}`;

/** @returns the resource of a registered limit; null: there is none of that id */
export function resourceOf(id: string): ResourceName | null {
  const resource = id.replaceAll('-', '_');
  return isResource(resource) && registeredId(resource) === id ? resource : null;
}

/** @returns null: no limit has that id */
export function limitOf(id: string): { project_id: string; resource: ResourceName } | null {
  const [, project_id = '', rest = ''] = /^([^-]+)-(.+)$/.exec(id) ?? [];
  const resource = resourceOf(rest);
  return resource === null ? null : { project_id, resource };
}

export function shownRegistered(row: QuotaDefaultRow, of: ServiceOf, link: IdentityContext['link']) {
  const id = registeredId(row.resource);
  return {
    id,
    service_id: of(row.resource),
    region_id: null,
    resource_name: row.resource,
    default_limit: row.hard_limit,
    description: row.description,
    links: { self: link(`/registered_limits/${id}`) },
  };
}

export function shownLimit(row: QuotaRow, of: ServiceOf, link: IdentityContext['link']) {
  const id = limitId(row);
  return {
    id,
    project_id: row.project_id,
    domain_id: null,
    service_id: of(row.resource),
    region_id: null,
    resource_name: row.resource,
    resource_limit: row.hard_limit,
    description: row.description,
    links: { self: link(`/limits/${id}`) },
  };
}

/** The limits of projects, by their ids; not of those that have none of their own. */
export async function limitsOf(projects: readonly string[], context: IdentityContext): Promise<Map<string, object[]>> {
  const db = await context.accounts.db();
  const of = await serviceOf(context);
  const found = new Map<string, object[]>();
  const rows = await db
    .selectFrom('quota')
    .selectAll()
    // Nothing has the empty id; a list of none is not SQL everywhere.
    .where('project_id', 'in', ['', ...projects])
    .orderBy('resource')
    .execute();
  for (const row of rows)
    found.set(row.project_id, [...(found.get(row.project_id) ?? []), shownLimit(row, of, context.link)]);
  return found;
}
