/** What sealing and scrubbing change, as part of a commit batch. Plain data only: it crosses a thread. */

/** Bytes of a hash. */
export const HASH_BYTES = 32;

/** How a pool is sealed and scrubbed: row of `seal_pool`. */
export interface SealPoolRow {
  pool: number;
  /** 0 or 1 */
  seal: number;
  /** 0 or 1 */
  paused: number;
  /** bytes/s read for hashing; 0 no bound */
  rate: number;
  /** bytes/s read by scrubbing; 0: none */
  scrub_rate: number;
  /** 0 or 1: sealed blocks are compared with their hash before their bytes are returned */
  verify: number;
  /** rows of `sealed` */
  entries: number;
  /** blocks, ever */
  hashed: number;
  folded: number;
  /** next slot to scrub */
  scrub_at: number;
  /** Unix ms of the last whole pass, 0 none */
  scrubbed_at: number;
}

export interface SealChanges {
  /** new rows of `sealed`: [pool, slot] pairs, and HASH_BYTES each in `hashes` */
  sealed: number[];
  hashes: Uint8Array;
  /** page ids, and HASH_BYTES each; those of pages that are gone are left out */
  pages: number[];
  pageHashes: Uint8Array;
  /** resource ids, and HASH_BYTES each */
  resources: number[];
  resourceHashes: Uint8Array;
  /** [pool, blocks hashed, blocks folded] triples, added */
  counts: number[];
  /** [pool, slot, Unix ms or 0 for well again] triples */
  bad: number[];
  /** settings of pools; counts and cursors are left alone */
  pools: SealPoolRow[];
  /** how far scrubbing is, of pools; settings and counts are left alone */
  cursors: Pick<SealPoolRow, 'pool' | 'scrub_at' | 'scrubbed_at'>[];
}

const NONE = new Uint8Array(0);

export function emptySeal(): SealChanges {
  return {
    sealed: [],
    hashes: NONE,
    pages: [],
    pageHashes: NONE,
    resources: [],
    resourceHashes: NONE,
    counts: [],
    bad: [],
    pools: [],
    cursors: [],
  };
}

/** The row of a pool that has none. */
export function defaultSealPool(pool: number): SealPoolRow {
  return {
    pool,
    seal: 0,
    paused: 0,
    rate: 0,
    scrub_rate: 0,
    verify: 0,
    entries: 0,
    hashed: 0,
    folded: 0,
    scrub_at: 0,
    scrubbed_at: 0,
  };
}
