/** A hashing job: what the mapper asks for, what a worker of the pool answers. Plain data only: it crosses threads. */

/** Bytes of slots in one job. */
export const JOB_BYTES_MAX = 32 * 1024 * 1024;

/** What the mapper says of a job. */
export interface HashWish {
  /** pool's id in the store */
  pool: number;
  /** pool's native handle */
  handle: number;
  blockSize: number;
  /** slot numbers, ascending, each once */
  slots: Float64Array;
  /** scrubbing: hash whatever the index says */
  always: boolean;
}

export interface HashRequest {
  /** comes back with the result */
  ticket: number;
  job: HashWish;
}

export interface HashJob extends HashWish {
  core: number;
  storePath: string;
}

/** the index has it: `hashes` has what the index says, nothing was read */
export const SLOT_KNOWN = 0;
/** read and hashed */
export const SLOT_HASHED = 1;
/** in quarantine: `hashes` has what it should be, nothing was read */
export const SLOT_BAD = 2;
/** could not be read */
export const SLOT_UNREADABLE = 3;

export interface HashResult {
  /** one of SLOT_… per slot */
  states: Uint8Array;
  /** HASH_BYTES per slot */
  hashes: Uint8Array;
  /** SLOT_HASHED, not `always`: a slot of the index with the same bytes, −1 none */
  same: Float64Array;
  bytesRead: number;
  /** thread time, milliseconds */
  ms: number;
}
