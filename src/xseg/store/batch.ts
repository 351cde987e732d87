/**
 * The commit batch: everything that changes together, there whole or not at all.
 * The mapper builds it; the committer (or the simulation's store) applies it. Crosses a thread: plain data only.
 */
import type { SealChanges } from './seal-batch.ts';

/** Row of `resource`. Ids are store ids (integers), `root` a page id or 0. */
export interface ResourceRow {
  id: number;
  uuid: string;
  /** volume name, or the snapshot's own name */
  name: string;
  kind: number;
  /** snapshots: id of the volume they belong to; volumes: 0 */
  volume: number;
  pool: number;
  /** bytes */
  size: number;
  root: number;
  height: number;
  generation: number;
  protected: number;
  /** Unix milliseconds */
  created_at: number;
  cloned_from: string | null;
  /** family: id of the volume that its line of snapshots and clones began with; −1 made before families were noted */
  grp: number;
  /** blocks that have a slot */
  mapped: number;
  /** id of its exclusive attachment; null: whoever opens the volume may write */
  attached: string | null;
  /** who has it, as he was called */
  attached_to: string | null;
  /** Unix milliseconds */
  attached_at: number | null;
}

export const NOT_ATTACHED: Pick<ResourceRow, 'attached' | 'attached_to' | 'attached_at'> = {
  attached: null,
  attached_to: null,
  attached_at: null,
};

export const KIND_VOLUME = 1;
export const KIND_SNAPSHOT = 2;
/** what an ingest has so far; removed at open, when it was not finished */
export const KIND_INGEST = 3;

/** Row of `release`: work that frees. */
export interface ReleaseRow {
  seq: number;
  kind: number;
  id: number;
  pool: number;
}

/** a page loses a parent */
export const RELEASE_PAGE = 1;
/** a ghost page to dissolve into its children */
export const RELEASE_GHOST = 2;
/** a slot loses a reference */
export const RELEASE_SLOT = 3;

export const GROUP_SEALED = 0;
export const GROUP_ACTIVE = 1;

export interface GroupChange {
  pool: number;
  grp: number;
  state: number;
  /** sealed: which free slots are not known to be zero */
  dirty: Uint8Array | null;
}

/** Runs of slots: [pool, slot, count] triples, flat. */
export type SlotRuns = number[];

export interface PoolRow {
  id: number;
  uuid: string;
  name: string;
  driver: string;
  kind: string;
  path: string;
  block_shift: number;
  group_slots: number;
  size: number;
  direct: number;
  preallocate: number;
  created_at: number;
}

export interface CommitBatch {
  seq: number;
  /** pages put: [id, base, offset in `blob`, length] quads */
  pages: number[];
  blob: Uint8Array;
  pagesDeleted: number[];
  /** [page id, delta] pairs on page_ref.extra; rows that come to 0 go */
  pageRefs: number[];
  /** [pool, slot, delta] triples on slot_ref.extra; rows that come to 0 go */
  slotRefs: number[];
  taken: SlotRuns;
  freed: SlotRuns;
  groups: GroupChange[];
  /** files to create before the transaction: [pool handle, file] pairs */
  ensureFiles: number[];
  resources: ResourceRow[];
  resourcesDeleted: number[];
  releases: ReleaseRow[];
  releasesDone: number[];
  pools: PoolRow[];
  /** null: nothing about sealing */
  seal: SealChanges | null;
  meta: Record<string, number | string>;
}

export function emptyBatch(seq: number): CommitBatch {
  return {
    seq,
    pages: [],
    blob: new Uint8Array(0),
    pagesDeleted: [],
    pageRefs: [],
    slotRefs: [],
    taken: [],
    freed: [],
    groups: [],
    ensureFiles: [],
    resources: [],
    resourcesDeleted: [],
    releases: [],
    releasesDone: [],
    pools: [],
    seal: null,
    meta: {},
  };
}

/** Answer of the committer. `error` is fatal for the store unless `fatal` is false. */
export interface CommitResult {
  seq: number;
  error: { code: string; message: string; fatal: boolean } | null;
  /** milliseconds in the transaction, its fsync included */
  ms: number;
  /** of the transaction that it was in; with the first batch's answer only */
  transaction?: { batches: number; syncMs: number };
  logBytes: number;
}
