/** What quotas count (docs/catalog.md, "Quota"). Loads nothing. */
const GIB = 2 ** 30;

/** the unit of each, and what a project may have unless told otherwise */
export const RESOURCES = {
  volumes: { unit: 'count', limit: 100 },
  volume_bytes: { unit: 'bytes', limit: 1000 * GIB },
  snapshots: { unit: 'count', limit: 100 },
  images: { unit: 'count', limit: 100 },
  image_bytes: { unit: 'bytes', limit: 100 * GIB },
  containers: { unit: 'count', limit: 1000 },
  objects: { unit: 'count', limit: 1_000_000 },
  object_bytes: { unit: 'bytes', limit: 100 * GIB },
} as const satisfies Record<string, { unit: 'count' | 'bytes'; limit: number }>;

export type ResourceName = keyof typeof RESOURCES;
export const RESOURCE_NAMES = Object.keys(RESOURCES) as ResourceName[];

/** how much of what */
export type Amounts = Partial<Record<ResourceName, number>>;

/** as it is in the database: no limit */
export const UNLIMITED = -1;

export function isResource(name: string): name is ResourceName {
  return Object.hasOwn(RESOURCES, name);
}
