/**
 * What a seed is about. Three of eleven are of everything; each of the others makes one kind of situation common that a mix of
 * everything makes once in a thousand seeds: few slots that are used again at once, snapshots over writes that take long, equal
 * blocks that fold while what has them comes and goes, more pages than frames, sizes that change under writes, rot that is found and forgotten, streams that bring
 * what is just being deleted.
 */
import type { Likes } from './workload/wishes.ts';

/** A moment at which a life may end. */
export type Moment = 'promise' | 'waiting' | 'durable' | 'any';

/** Who gets a turn. */
export type Part = 'mapper' | 'reactors' | 'io' | 'jobs' | 'store' | 'face' | 'workload' | 'hashing' | 'threads';

/** Of a list one is picked: for a pool, a volume, or a life of the daemon. */
export interface Profile extends Likes {
  readonly pools: {
    /** chance that there are two */
    readonly second: number;
    readonly kinds: readonly ('directory' | 'file' | 'device')[];
    readonly shifts: readonly number[];
    /** slots of one that is bounded */
    readonly slots: readonly number[];
    /** chance that a directory is bounded; others are */
    readonly bounded: number;
    readonly groupSlots: readonly number[];
  };
  readonly volumes: {
    readonly most: number;
    /** of one */
    readonly snapshots: number;
    /** sizes, in leaves of the map */
    readonly leaves: readonly number[];
    /** places that are used of large ones, and blocks of each */
    readonly windows: number;
    readonly windowBlocks: number;
  };
  readonly lives: {
    /** steps */
    readonly lengths: readonly number[];
    readonly moments: readonly Moment[];
    /** chance that a life ends with a clean stop */
    readonly clean: number;
    /** chance that something of it breaks: little of use happens in it then */
    readonly faults: number;
    readonly frames: readonly number[];
    /** how fast the clock runs */
    readonly times: readonly number[];
    /** share of the block I/O that takes long */
    readonly slow: readonly number[];
    /** share of a part's turns, of the usual */
    readonly pace: Partial<Record<Part, readonly number[]>>;
    /** chance per step that a reactor that slept, and is to be woken, is not for a while */
    readonly stalls: number;
  };
  /** blocks that others wrote too: so many there are */
  readonly patterns: number;
  /** share of the requests that are for whole blocks, besides those that are by chance */
  readonly whole: number;
  /** share of the zeroes that are to have slots */
  readonly noHole: number;
  readonly sealing: {
    /** share of the seeds that seal before their end */
    readonly early: number;
    /** share of the seeds in which media forget */
    readonly rots: number;
    /** chance that a pool is set when a life begins */
    readonly told: number;
    /** of the settings of a pool: on, paused, bytes a second; scrubbing; a share, or null: as the seed has it */
    readonly on: number;
    readonly paused: number;
    readonly rates: readonly number[];
    readonly scrubRates: readonly number[];
    readonly verifies: number | null;
    /** settings are changed some at a time, several before the first is answered */
    readonly piecemeal: boolean;
    /** steps from one look at all that is in the index to the next, a power of two */
    readonly looks: number;
  };
  readonly streams: {
    /** share of those that are sent in several batches */
    readonly long: number;
    /** a batch ends with blocks that have to be written */
    readonly edged: boolean;
    /** share of those that are given up */
    readonly aborted: number;
    /** one comes at the very end, when everything is sealed */
    readonly last: boolean;
  };
}

/** Bytes a second: faster than anything here needs. */
export const SCRUB_RATE_FAST = 2 ** 26;

const GENERAL: Profile = {
  pools: {
    second: 0.25,
    kinds: ['directory', 'directory', 'directory', 'file', 'device'],
    shifts: [12, 12, 12, 13, 16],
    slots: [128, 256, 512, 4096],
    bounded: 0.4,
    groupSlots: [64, 64, 128, 1024],
  },
  volumes: {
    most: 5,
    snapshots: 4,
    leaves: [0.05, 0.3, 1, 2.5, 2.5, 700, 512 * 512 * 1.5],
    windows: 4,
    windowBlocks: 32,
  },
  lives: {
    lengths: [50, 400, 1500, 4000],
    moments: ['promise', 'promise', 'waiting', 'any'],
    clean: 0.15,
    faults: 0.35,
    frames: [96, 160, 512, 2048],
    times: [1, 1, 10, 100],
    slow: [0.02, 0.1, 0.4],
    pace: {},
    stalls: 0,
  },
  wishes: {},
  equal: [0, 0.2, 0.7],
  patterns: 6,
  flushed: [0, 0, 0.2, 0.7],
  whole: 0,
  noHole: 0.4,
  sealing: {
    early: 0.6,
    rots: 0.3,
    told: 0.5,
    on: 0.9,
    paused: 0.15,
    rates: [0, 0, 0, 2 ** 22],
    scrubRates: [0, 0, 2 ** 20, SCRUB_RATE_FAST],
    verifies: null,
    piecemeal: false,
    looks: 4096,
  },
  streams: { long: 0.08, edged: false, aborted: 0.15, last: false },
};

/** Little breaks. */
const LIVES = { ...GENERAL.lives, faults: 0.1 };
/** Nobody seals, and no medium forgets. */
const UNSEALED = { ...GENERAL.sealing, early: 0, rots: 0, on: 0, verifies: 0 };
/** Everything is sealed as soon as it can be. */
const SEALED = {
  ...GENERAL.sealing,
  early: 1,
  rots: 0,
  told: 1,
  on: 1,
  paused: 0,
  rates: [0],
  verifies: 0,
  looks: 256,
};

export const PROFILES = {
  general: GENERAL,

  /** More blocks than slots: what is freed is zeroed and used again at once, while reads of it are slow and commits late. */
  reuse: {
    ...GENERAL,
    pools: { ...GENERAL.pools, second: 0, shifts: [12], slots: [64, 256], bounded: 1, groupSlots: [64] },
    volumes: { ...GENERAL.volumes, most: 2, snapshots: 1, leaves: [0.3, 0.6] },
    lives: {
      ...LIVES,
      lengths: [400, 800, 1500],
      moments: ['promise', 'waiting', 'waiting', 'any'],
      slow: [0, 0.4],
      pace: { store: [0.02, 0.05, 0.2], jobs: [1, 4] },
    },
    wishes: {
      read: 25,
      write: 20,
      trim: 16,
      zeroes: 20,
      flush: 5,
      import: 0,
      snapshot: 0.3,
      clone: 0.1,
      resize: 0.2,
      drop: 0.2,
    },
    flushed: [0, 0.2],
    whole: 0.6,
    noHole: 0.9,
    sealing: UNSEALED,
  },

  /** A few blocks, written in place by I/O that takes long, and snapshot after snapshot of them. */
  cuts: {
    ...GENERAL,
    volumes: { ...GENERAL.volumes, most: 3, snapshots: 6, leaves: [0.01, 0.02, 0.05] },
    lives: { ...LIVES, slow: [0.1, 0.4], pace: { io: [0.2, 1], store: [0.1, 1] }, stalls: 0.01 },
    wishes: {
      write: 40,
      flush: 2,
      snapshot: 9,
      verify: 8,
      dropSnapshot: 8,
      clone: 4,
      rollback: 3,
      import: 0,
      resize: 0.3,
    },
    equal: [0.5],
    whole: 0.3,
    sealing: UNSEALED,
  },

  /** Equal blocks fold beside their deletion and over what is written meanwhile; hashing is slow, or reactors are. */
  sealing: {
    ...GENERAL,
    pools: { ...GENERAL.pools, second: 0, shifts: [12], slots: [128, 256], bounded: 0.7, groupSlots: [64] },
    volumes: { ...GENERAL.volumes, most: 4, snapshots: 3, leaves: [0.01, 0.03, 0.05] },
    lives: {
      ...LIVES,
      lengths: [200, 400, 1500],
      moments: ['promise', 'waiting', 'durable', 'durable'],
      pace: { hashing: [0.03, 0.1, 0.4], store: [0.2, 1] },
      stalls: 0.01,
    },
    wishes: {
      create: 9,
      flush: 1,
      snapshot: 8,
      dropSnapshot: 5,
      drop: 9,
      clone: 4,
      verify: 2,
      import: 0.5,
      setPool: 0.2,
    },
    equal: [0.5, 0.9],
    patterns: 40,
    flushed: [0, 0, 0.2],
    whole: 0.6,
    sealing: SEALED,
  },

  /** A few blocks, nearly all equal: they fold while guests write over them, and nobody flushes. */
  folding: {
    ...GENERAL,
    pools: { ...GENERAL.pools, second: 0, shifts: [12], slots: [64, 128], bounded: 0.7, groupSlots: [64] },
    volumes: { ...GENERAL.volumes, most: 3, snapshots: 3, leaves: [0.01, 0.02] },
    lives: {
      ...LIVES,
      lengths: [600, 1500],
      moments: ['promise', 'durable', 'durable', 'durable'],
      times: [1],
      slow: [0, 0.1],
      pace: { workload: [2, 4], face: [4], hashing: [0.03, 0.1, 1], store: [1] },
      stalls: 0.02,
    },
    wishes: {
      write: 40,
      read: 4,
      trim: 1,
      flush: 0,
      open: 20,
      snapshot: 10,
      dropSnapshot: 6,
      clone: 1,
      import: 0,
      setPool: 0.2,
    },
    equal: [0.5, 0.9],
    patterns: 2,
    flushed: [0.1],
    whole: 0.6,
    sealing: SEALED,
  },

  /** More pages than frames: leaves come and go below those who read through them. */
  cache: {
    ...GENERAL,
    pools: { ...GENERAL.pools, second: 0, shifts: [12], bounded: 0 },
    volumes: { most: 4, snapshots: 2, leaves: [60, 700], windows: 40, windowBlocks: 1 },
    lives: { ...LIVES, frames: [96] },
    wishes: { read: 40, write: 25, trim: 3, snapshot: 2, clone: 2, import: 0, resize: 0.2 },
    sealing: UNSEALED,
  },

  /** Volumes become smaller and larger while they are written, while pages and slots are short: the new end divides a block mostly. */
  sizes: {
    ...GENERAL,
    pools: { ...GENERAL.pools, second: 0, shifts: [12], slots: [128, 256], bounded: 0.5, groupSlots: [64] },
    volumes: { most: 3, snapshots: 1, leaves: [0.02, 0.1, 60], windows: 40, windowBlocks: 1 },
    lives: { ...LIVES, frames: [96], slow: [0.1, 0.4], pace: { store: [0.2, 1], io: [0.2, 1] } },
    wishes: {
      write: 40,
      trim: 8,
      zeroes: 6,
      flush: 2,
      resize: 12,
      open: 14,
      close: 3,
      snapshot: 1,
      dropSnapshot: 2,
      clone: 1,
      import: 0,
      setPool: 0,
    },
    noHole: 0.2,
    sealing: UNSEALED,
  },

  /** Media forget, scrubbing and readers find it, and pools are set one way and the other meanwhile. */
  rot: {
    ...GENERAL,
    pools: { ...GENERAL.pools, shifts: [12] },
    volumes: { ...GENERAL.volumes, most: 3, snapshots: 3, leaves: [0.02, 0.05, 0.3] },
    lives: { ...LIVES, lengths: [400, 800, 1500], moments: ['promise', 'waiting', 'durable', 'any'] },
    wishes: { read: 10, snapshot: 5, verify: 10, setPool: 5, rot: 6, clone: 3, close: 4, import: 1 },
    equal: [0.2, 0.7],
    whole: 0.5,
    sealing: {
      ...SEALED,
      rots: 1,
      on: 0.9,
      scrubRates: [0, SCRUB_RATE_FAST, SCRUB_RATE_FAST],
      verifies: 0.5,
      piecemeal: true,
      looks: 4096,
    },
  },

  /** Streams bring what there is already, while that is being deleted, and are given up or crash at each step. */
  ingest: {
    ...GENERAL,
    pools: { ...GENERAL.pools, second: 0, shifts: [12], slots: [256, 512], bounded: 0.5, groupSlots: [64, 128] },
    volumes: { ...GENERAL.volumes, most: 4, snapshots: 2, leaves: [0.05] },
    lives: {
      ...LIVES,
      lengths: [200, 800, 1500],
      moments: ['promise', 'waiting', 'durable', 'durable'],
      clean: 0.35,
      pace: { threads: [0.1, 0.3, 1], store: [0.2, 1] },
    },
    wishes: { write: 8, import: 14, drop: 9, snapshot: 1, clone: 1, setPool: 0.2, verify: 1 },
    equal: [0.3],
    patterns: 200,
    whole: 0.5,
    sealing: { ...SEALED, on: 0.5 },
    streams: { long: 0.25, edged: true, aborted: 0.25, last: true },
  },
} satisfies Record<string, Profile>;

export type ProfileName = keyof typeof PROFILES;

const TURNS: readonly ProfileName[] = [
  ...(['general', 'sealing', 'ingest'] as const),
  ...(['general', 'reuse', 'rot'] as const),
  ...(['general', 'cuts', 'cache', 'folding', 'sizes'] as const),
];

/** Seeds that follow each other are about different things. */
export function profileOf(seed: number): ProfileName {
  return TURNS[seed % TURNS.length];
}
