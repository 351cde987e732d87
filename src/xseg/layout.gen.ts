// Written by scripts/gen-layout.mjs from native/segment/layout.json. Do not edit.

/** 'LLTA' little endian */
export const SEGMENT_MAGIC = 1096043852;
/** layout version of the shared segment (not of anything on disk) */
export const SEGMENT_VERSION = 1;
/** entries of a map page; 9 bits of block number per level */
export const PAGE_ENTRIES = 512;
/** log2 of PAGE_ENTRIES */
export const PAGE_ENTRIES_SHIFT = 9;
/** a map page in memory: PAGE_ENTRIES entries of 8 bytes */
export const FRAME_BYTES = 4096;
/** of a map page's blob (docs/format.md) */
export const PAGE_HEADER_BYTES = 48;
/** header and PAGE_ENTRIES runs of at most 12 bytes */
export const PAGE_BLOB_MAX = 6192;
/** a leaf is 0; six levels of 9 bits are more than the 2^53 that JavaScript counts exactly */
export const PAGE_LEVEL_MAX = 5;
/** open volumes and snapshots at once; bounded by the 12 bits of a hash entry */
export const VOLUMES_MAX = 4096;
/** native event loops; more than one machine's worth of cores pays */
export const REACTORS_MAX = 16;
/** files of one pool: one dirty bit each per volume (8 KiB) */
export const FILES_MAX = 65536;
/** records of one ring; a power of two */
export const RING_RECORDS = 4096;
/** one cache line */
export const RECORD_BYTES = 64;
/** block status answers in flight per reactor */
export const SCRATCH_SLOTS = 8;
/** extents of one block status answer */
export const SCRATCH_EXTENTS = 4096;
/** open pools of one daemon */
export const POOLS_MAX = 256;
/** the frame that is all zero for ever: a leaf that is known to be empty */
export const FRAME_EMPTY = 0;
/** stampVolume of a page that nobody may write in place */
export const STAMP_NONE = 4294967295;
/** 2^48-1: no slot */
export const SLOT_NONE = 281474976710655;
/** request: make the leaves of [block, block+count) resident */
export const OP_LOAD = 1;
/** request: a place for a write that the map cannot serve in place */
export const OP_MAP_WRITE = 2;
/** request: the data of a grant is in its slot (or failed): publish it */
export const OP_DONE = 3;
/** request: unmap whole blocks [block, block+count) */
export const OP_UNMAP = 4;
/** request: make everything acknowledged on the volume durable, map included */
export const OP_FLUSH = 5;
/** request: extents of [offset, offset+length) into a scratch slot */
export const OP_STATUS = 6;
/** request: what the bytes of slot `block` hash to; reply: count 1 and the hash at REPLY_HASH, or count 0 when the slot is not in the index */
export const OP_HASH = 7;
/** request: the bytes of slot `block` do not hash to that; reply: EIO, or 0 when there is something else to read by now */
export const OP_ROTTEN = 8;
/** OP_HASH: where in the reply the 32 bytes of the hash begin, in place of the slots */
export const REPLY_HASH = 32;
/** misc: a control message waits */
export const OP_WAKE = 16;
/** misc: a data sync asked for by the mapper has ended */
export const OP_SYNC_DONE = 17;
/** misc: a zeroing of slots asked for by the mapper has ended */
export const OP_ZERO_DONE = 18;
/** OP_MAP_WRITE: every block of the run is covered whole */
export const FLAG_FULL = 1;
/** OP_UNMAP: blocks read as zeroes but keep or get a slot (NBD NO_HOLE) */
export const FLAG_ALLOCATE = 2;
/** OP_STATUS: context is changed-since snapshot `grant` instead of base:allocation */
export const FLAG_CHANGED_SINCE = 4;
/** reply: the block is writable in place by now; try the fast path again */
export const GRANT_IN_PLACE = 1;
/** reply: the new slot may hold old bytes; zero what neither write nor copy covers */
export const GRANT_ZERO_REST = 2;
/** NBD_STATE_HOLE */
export const EXTENT_HOLE = 1;
/** NBD_STATE_ZERO */
export const EXTENT_ZERO = 2;
/** atoll:changed-since: bytes may differ */
export const EXTENT_CHANGED = 1;
/** volume record state */
export const VOLUME_FREE = 0;
/** volume record state */
export const VOLUME_OPEN = 1;
/** volume record flag */
export const VOLUME_READ_ONLY = 1;
/** volume record flag: blocks are compared with their hash before their bytes are returned or copied */
export const VOLUME_VERIFY = 2;

// a map entry, 64 bits: bits 0-47 slot+1 (leaf) or page id (inner), 0 = empty, 2^48-1 in a leaf = zeroes that were folded away: no slot, reads as empty; bit 61 BAD: in memory only, the slot does not hold what it should and reads of it answer EIO; bit 62 OWNED: this page holds the reference; bit 63 EXCLUSIVE: a leaf's slot may be written in place while the frame's stamp is the volume's
// a leaf hash entry, 64 bits, 0 = empty, 1 = deleted: bits 0-21 frame+2, bits 22-51 leaf number (block >> 9), bits 52-63 volume handle

/** byte offsets of `SegmentHeader` */
export const SegmentHeader = {
  BYTES: 4096,
  /** u32 */
  magic: 0,
  /** u32 */
  version: 4,
  /** u32 */
  reactorCount: 8,
  /** u32 */
  frameCount: 12,
  /** u32: entries of the leaf hash; a power of two */
  hashCapacity: 16,
  /** u64 */
  totalBytes: 24,
  /** u64 */
  volumesOffset: 32,
  /** u64 */
  inflightOffset: 40,
  /** u64 */
  dirtyFilesOffset: 48,
  /** u64 */
  frameMetaOffset: 56,
  /** u64 */
  framesOffset: 64,
  /** u64 */
  hashOffset: 72,
  /** u64 */
  ringsOffset: 80,
  /** u64 */
  scratchOffset: 88,
  /** u64: of the leaf hash; another one in each life of the daemon */
  hashSeed: 96,
  /** u64: advanced by the mapper only */
  globalEpoch: 128,
  /** u64 × 16: oldest epoch a reactor may still use; 2^64-1 when it is idle */
  reactorEpoch: 192,
  reactorEpochStride: 64,
  /** u32: doorbell: 1 while the mapper sleeps on this word (futex) */
  mapperAsleep: 1216,
  /** u32 × 16: doorbell: 1 while a reactor sleeps in epoll (its eventfd is beside) */
  reactorAsleep: 1280,
  reactorAsleepStride: 64,
} as const;

/** byte offsets of `VolumeRecord` */
export const VolumeRecord = {
  BYTES: 256,
  /** u32 */
  state: 0,
  /** u32 */
  flags: 4,
  /** u32: advanced by snapshot; a frame is writable only while its stamp equals it */
  generation: 8,
  /** u32 */
  blockShift: 12,
  /** u64: bytes */
  size: 16,
  /** u32: block peer handle */
  pool: 24,
  /** u32: advanced by the mapper before a reply that published a map change */
  mapDirty: 28,
  /** u32: value of mapDirty that is durable; equal means a flush needs no map commit */
  mapDurable: 32,
  /** u32: errno that writes and flushes get; 0 when well */
  failed: 36,
  /** u64 */
  reads: 64,
  /** u64 */
  writes: 72,
  /** u64 */
  readBytes: 80,
  /** u64 */
  writeBytes: 88,
  /** u64 */
  faults: 96,
  /** u64: writes, trims and zeroings */
  changes: 104,
  /** u64: of these: through mounts */
  mountChanges: 112,
} as const;

/** byte offsets of `FrameMeta` */
export const FrameMeta = {
  BYTES: 64,
  /** u32: volume handle that may write this page in place; 0xffffffff none */
  stampVolume: 0,
  /** u32: valid with stampVolume; both are read as one u64 */
  stampGeneration: 4,
  /** u32: set by reactors on use, cleared by the mapper's clock hand */
  referenced: 8,
} as const;

/** byte offsets of `Request` */
export const Request = {
  BYTES: 64,
  /** u32 */
  op: 0,
  /** u32 */
  volume: 4,
  /** u32 */
  reactor: 8,
  /** u32 */
  flags: 12,
  /** u32: the sender's name for the request */
  ticket: 16,
  /** u32: OP_DONE: grant of the reply */
  grant: 20,
  /** u64 */
  block: 24,
  /** u64 */
  count: 32,
  /** u64: OP_MAP_WRITE partial: first byte inside the block; OP_STATUS: byte offset */
  offset: 40,
  /** u64: OP_MAP_WRITE partial: bytes; OP_STATUS: bytes; OP_UNMAP: bytes of the last block, which the volume's end cut when this was asked; 0: all of it */
  length: 48,
  /** u32: OP_DONE, OP_*_DONE: errno or 0 */
  error: 56,
  /** u32: OP_STATUS: scratch slot | max extents << 8 (context volume in grant) */
  arg: 60,
} as const;

/** byte offsets of `Reply` */
export const Reply = {
  BYTES: 64,
  /** u32 */
  op: 0,
  /** u32 */
  volume: 4,
  /** u32 */
  reactor: 8,
  /** u32 */
  flags: 12,
  /** u32 */
  ticket: 16,
  /** u32 */
  grant: 20,
  /** u32: errno or 0 */
  error: 24,
  /** u32: blocks granted; extents written; OP_UNMAP: 1 when the volume has grown beyond the cut and the last block was left as it is */
  count: 28,
  /** u64: first of `count` contiguous slots */
  slotNew: 32,
  /** u64: copy what the write does not cover from here; SLOT_NONE: nothing to copy */
  slotOld: 40,
} as const;

/** byte offsets of `Extent` */
export const Extent = {
  BYTES: 16,
  /** u64: bytes */
  length: 0,
  /** u32 */
  flags: 8,
} as const;
