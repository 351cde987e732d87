/**
 * What the engine has done since it was opened, and what waits in it now: what metrics and `atoll top` are made of.
 * Counters only grow while a daemon runs. Loads nothing.
 */

/**
 * How often values of which size were seen. Bucket 0 counts those up to 1, bucket i those above 2^(i−1) up to 2^i, the last
 * one all beyond the one before it.
 */
export interface Distribution {
  counts: number[];
  /** of all values */
  sum: number;
}

/** What requests that had to wait are told apart by; `other`: trim, zeroes, cache, block status. */
export const WAIT_KINDS = ['read', 'write', 'flush', 'other'] as const;
export type WaitKind = (typeof WAIT_KINDS)[number];

/** Map faults by what was asked: a place for a write is `write`. */
export const FAULT_KINDS = ['load', 'write', 'unmap', 'flush', 'status', 'verify'] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** errno of faults that failed */
export const FAULT_ERRORS = ['EIO', 'ENOSPC', 'EROFS', 'EINVAL', 'ESHUTDOWN', 'other'] as const;
export type FaultError = (typeof FAULT_ERRORS)[number];

/**
 * What can wait, and for what:
 * - `grants`: writes that have a place and are moving their data; not a queue, but bounded like one
 * - `locks`: faults behind a grant on the same block
 * - `barriers`: faults behind a snapshot, resize or unmapping of their volume
 * - `frames`: faults and operations for room in the page cache
 * - `slots`: writes for a free slot
 * - `turns`: long operations for their next slice
 * - `batches`: commit batches for the store
 * - `releases`: references to drop, in the store, as last counted
 */
export const QUEUES = ['grants', 'locks', 'barriers', 'frames', 'slots', 'turns', 'batches', 'releases'] as const;
export type Queue = (typeof QUEUES)[number];

/** One event loop of native code. */
export interface ReactorActivity {
  loops: number;
  /** busy polls, and those in which work came */
  spins: number;
  spinHits: number;
  requests: number;
  /** requests complete in the turn they came in */
  inline: number;
  /** requests complete later */
  waited: number;
  /** requests that failed */
  errors: number;
  /** records sent to the mapper */
  faults: number;
  reads: number;
  writes: number;
  readBytes: number;
  writeBytes: number;
  /** microseconds, of those that `waited`, by the clock of the loop's turns */
  waits: Record<WaitKind, Distribution>;
}

export interface PoolActivity {
  name: string;
  /** handed out since the start */
  slotsTaken: number;
  /** freed for good */
  slotsFreed: number;
  /** zeroed again */
  slotsZeroed: number;
  /** slots freed or being zeroed, not free yet */
  slotsReclaiming: number;
  /** of these: could not be zeroed, tried again later */
  slotsLost: number;
}

/** A volume or snapshot that is open. What it counts began when it was opened, or some openings ago. */
export interface OpenActivity {
  name: string;
  /** NBD connections and others that have it open */
  openCount: number;
  reads: number;
  writes: number;
  readBytes: number;
  writeBytes: number;
  faults: number;
}

/** What the mapper knows. */
export interface MapperActivity {
  mapper: {
    /** turns in which there was something to do or to look at */
    turns: number;
    /** time not spent waiting for work */
    busySeconds: number;
    /** records taken at once */
    batches: Distribution;
  };
  /** microseconds from taking the fault to its answer; a write's data is moved in between */
  faults: Record<FaultKind, Distribution>;
  faultErrors: Record<FaultError, number>;
  queues: Record<Queue, number>;
  commits: {
    /** microseconds from the cut of a volume's batch until it is durable: data sync, queue, transaction */
    times: Distribution;
    /** map pages of a batch */
    pages: Distribution;
  };
  store: {
    /** microseconds of a transaction, and of its COMMIT, which writes and syncs the log */
    transactions: Distribution;
    syncs: Distribution;
    /** batches in one transaction */
    batches: Distribution;
  };
  freeing: {
    /** map pages given back */
    pages: number;
  };
  pools: PoolActivity[];
  /** open volumes that refuse writes since their data could not be made durable */
  volumesFailed: number;
  open: OpenActivity[];
}

export interface Activity extends MapperActivity {
  /** monotonic; rates are differences over differences of it */
  uptimeSeconds: number;
  reactors: ReactorActivity[];
  /** data syncs of pool files: microseconds, and how many failed */
  dataSyncs: { times: Distribution; errors: number };
  nbd: {
    connections: number;
    /** requests on their way */
    inFlight: number;
    /** payload memory of connections */
    bytesHeld: number;
  };
  home: {
    /** of the file system that has the store */
    freeBytes: number;
    /** the store and its log */
    storeBytes: number;
  };
}
