/** What rows take of their owners' quotas (docs/catalog.md, "Quota"): one truth for making, deleting and resizing. */
import type { Amounts } from './resources.ts';
import type { PassingTable } from './statuses.ts';
import type { CatalogTables, Change } from './types.ts';

type Owned = Pick<CatalogTables['volume'], 'project_id' | 'user_id'>;

/** A snapshot takes gigabytes too, as Cinder counts them. A row without a root takes nothing: its work failed. */
export function amountsOf<T extends Exclude<PassingTable, 'object_version'>>(
  table: T,
  row: { size: number | null; root: string | null },
): Amounts {
  if (row.root === null) return {};
  const bytes = row.size ?? 0;
  if (table === 'image') return { images: 1, image_bytes: bytes };
  return table === 'volume' ? { volumes: 1, volume_bytes: bytes } : { snapshots: 1, volume_bytes: bytes };
}

/** Without asking for limits: what the operator makes, and what is there already. */
export function taken({ project_id, user_id }: Owned, amounts: Amounts): Change {
  return { do: 'charge', project_id, user_id, amounts };
}

export function givenBack({ project_id, user_id }: Owned, amounts: Amounts): Change {
  const negative = Object.entries(amounts).map(([resource, amount]) => [resource, -amount]);
  return { do: 'charge', project_id, user_id, amounts: Object.fromEntries(negative) };
}
