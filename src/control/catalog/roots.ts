/** What the engine has of what rows name (docs/catalog.md, "Catalog and engine"). */
import type { CatalogReader } from './types.ts';

/** A volume `NAME`, or a snapshot `VOL@SNAP`. */
export interface Root {
  /** the engine's own, which stays when it is renamed */
  id: string;
  name: string;
  /** bytes */
  size: number;
  createdMs: number;
}

/** What is needed of the engine. */
export interface EngineSide {
  find(name: string): Promise<Root | null>;
  /** Deletes it, durably, whoever has it open. One that is not there is fine. */
  remove(name: string): Promise<void>;
  /** Hears of a root that could not be deleted, or a row that could not be settled. */
  failed(name: string, error: Error): void;
  /** all that is there, and what changes; absent where nobody makes anything by hand */
  readonly watch?: EngineWatch | undefined;
}

export interface EngineWatch {
  /** all volumes, then all snapshots, a page after another; the daemon's own hidden ones left out */
  list(): AsyncIterable<Root[]>;
  /** the names now of what has changed, or come, or gone: those that were, too */
  names(changed: readonly Changed[]): Promise<Set<string>>;
  /** @returns what ends it */
  onChange(hear: (changed: Changed) => void): () => void;
}

/** Something that was made, renamed, resized or deleted: its number, and the name that came or went. */
export interface Changed {
  id: number;
  name?: { volume: number; name: string };
}

const SEALED = 'sealed';

/** Of sealed bytes, such as an image's: one snapshot of a volume that is there for it alone, and goes with it. */
export function sealedRoot(id: string): string {
  return `${id}@${SEALED}`;
}

/** @returns the volume that goes with it; null for all other roots */
export function volumeOfSealed(root: string): string | null {
  return root.endsWith(`@${SEALED}`) ? root.slice(0, -SEALED.length - 1) : null;
}

/** @returns what a row names, as the engine calls it; null: nothing */
export async function nameInEngine(
  db: CatalogReader,
  row: { root: string | null; volume_id?: string },
): Promise<string | null> {
  if (row.volume_id === undefined || row.root === null) return row.root;
  const owner = await db.selectFrom('volume').select('root').where('id', '=', row.volume_id).executeTakeFirst();
  return owner?.root ? `${owner.root}@${row.root}` : null;
}
