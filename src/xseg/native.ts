/**
 * The addon as TypeScript sees it. The addon translates and nothing else; what each call does is in `native/`.
 *
 * One `Core` per daemon: made on the main thread, attached by number from the worker threads.
 * Errors: calls that can fail throw an Error with `code` (an errno name such as "ENOSPC") and `errno` (positive).
 */
import { createRequire } from 'node:module';
import type { Distribution } from './activity.ts';

export interface CoreOptions {
  reactors: number;
  /** map pages kept in memory; cache bytes / FRAME_BYTES */
  frames: number;
  /** longest busy poll of a reactor, microseconds */
  spinUs: number;
  /** threads for blocking work (fsync, zeroing, cold I/O without io_uring) */
  ioThreads: number;
  /** false: never io_uring, threads only */
  ioUring: boolean;
}

/** What a pool's driver is made from. `faults` stack `error`/`delay`/`log` layers on it, outermost last. */
export interface PoolSpec {
  driver: 'local' | 'memory' | 'null';
  /** local: a directory of files, one file, or a block device */
  path?: string;
  kind?: 'directory' | 'file' | 'device';
  /** bytes at the start of a `file` or `device` that are not slot space (the superblock) */
  dataOffset?: number;
  /** bytes of slot space per file; a power of two; for `file` and `device`: larger than the pool, one file */
  fileSpan: number;
  /** declared size in bytes; 0: as much as the file system has */
  capacityBytes: number;
  direct?: boolean;
  preallocate?: boolean;
  /** e.g. [{kind:'delay', readMs:5}, {kind:'error', writes:true, errno:5, after:1000}] */
  faults?: FaultSpec[];
}

export interface FaultSpec {
  kind: 'error' | 'delay' | 'log';
  /** operations it touches; default all */
  read?: boolean;
  write?: boolean;
  sync?: boolean;
  zero?: boolean;
  /** error: errno returned */
  errno?: number;
  /** error: operations let through first */
  after?: number;
  /** error: operations that fail once begun; 0 = for ever */
  times?: number;
  /** delay: milliseconds */
  delayMs?: number;
  /** log: file it appends lines to */
  path?: string;
}

export interface MountSettings {
  /** absolute, an existing folder */
  path: string;
  allowOther: boolean;
  uid: number;
  gid: number;
}

/** What a mount is asked by the kernel: `src/frontends/fuse/tree.ts` answers, and says which is which. */
export interface MountEvents {
  ask(
    token: number,
    what: number,
    ino: number,
    ino2: number,
    name: string,
    name2: string,
    a: number,
    b: number,
    c: number,
    d: number,
  ): void;
  /** the kernel has shaken hands */
  live(): void;
  /** it was unmounted by somebody else */
  ended(): void;
}

/** `node`, `list`: ino, mode, links, size, blocks, io bytes, mtime, ctime of each. */
export interface MountAnswer {
  node?: Float64Array;
  /** handle, 1 read-only */
  open?: Float64Array;
  /** bytes */
  copy?: Float64Array;
  /** block bytes, blocks, free blocks, nodes */
  statistics?: Float64Array;
  list?: Float64Array;
  /** each ends with a NUL */
  names?: string;
  end?: boolean;
  /** folders whose nodes are the last of `list`, each as its number and its count */
  ahead?: Float64Array;
}

export interface NbdEvents {
  /** Answer through `nbdAnswerOpen(token, …)` exactly once, as the others through theirs; later is fine. `name` is UTF-8 that the client sent (≤ 4096 bytes). */
  open(token: number, name: string, connection: number): void;
  list(token: number): void;
  /**
   * Metadata context query on an export; answers the contexts that exist. `listing`: a query may be a prefix that ends in a
   * colon (`base:`, `atoll:`), no queries mean all, handles of the answer are ignored. Else queries are exact and handles opened.
   */
  contexts(token: number, name: string, queries: string[], listing: boolean): void;
  /** the connection does not use the handle any more; called once for each that it got by open or contexts; `readOnly` as it was opened */
  closed(connection: number, handle: number, readOnly: boolean): void;
}

export interface Native {
  // ---- life: main thread
  createCore(options: CoreOptions): number;
  /** stops listeners, connections and reactors; joins threads */
  destroyCore(core: number): void;
  /** the whole segment, wrapped once per environment (thread) */
  segment(core: number): ArrayBuffer;

  // ---- any thread
  /** V8 begins to look for garbage of this thread, which has an event loop, beside what it does. */
  collectGarbage(): void;
  /** Pages of the C library's heaps, of all threads, that are free whole go back to the system. Takes about a millisecond. */
  trimHeaps(): void;

  // ---- pools: any thread; handle is a small integer. Throws on errors.
  openPool(core: number, spec: PoolSpec): number;
  closePool(core: number, pool: number): void;
  poolUsage(core: number, pool: number): { capacityBytes: number; physicalBytes: number; failed: boolean };
  poolCapabilities(core: number, pool: number): { persistent: boolean; zeroIsHole: boolean; direct: boolean };
  /** its declared size is a larger one: allocates what is to be preallocated; blocks. Nothing has changed when it throws */
  growPool(core: number, pool: number, bytes: number): void;
  /** creates and sizes a file of the pool; blocks */
  ensureFile(core: number, pool: number, file: number): void;
  /** blocking zero of a slot run; for open-time use in a worker */
  zeroNow(core: number, pool: number, address: number, length: number): void;
  /** blocking reads and writes past all maps: for tests, checks and repair */
  readNow(core: number, pool: number, address: number, buffer: Uint8Array): void;
  writeNow(core: number, pool: number, address: number, buffer: Uint8Array): void;

  // ---- the mapper thread (one)
  /**
   * Takes up to `max` requests from all rings, fairly, into `staging` (RECORD_BYTES each; layout `Request`).
   * Waits up to `timeoutMs` (spins ≤ 5 µs, then sleeps on a futex) when there is none. Returns how many.
   */
  take(core: number, staging: Uint8Array, max: number, timeoutMs: number): number;
  /** Puts `count` replies (layout `Reply`; `reactor` says where to) and rings each doorbell once. */
  reply(core: number, staging: Uint8Array, count: number): void;
  /** any thread: puts an OP_WAKE so that the mapper looks at its control messages */
  wake(core: number): void;
  /** frame[index] = value as one 64-bit store; value = hi * 2^32 + lo */
  publish(core: number, frame: number, index: number, lo: number, hi: number): void;
  /** entries [index, index+count) of a frame become consecutive values starting at slot+1 with flag bits `hiFlags` */
  publishRun(core: number, frame: number, index: number, count: number, slot: number, hiFlags: number): void;
  /** entries [index, index+count) = 0 */
  clearRun(core: number, frame: number, index: number, count: number): void;
  /** copies a page: target = source with OWNED and EXCLUSIVE cleared */
  copyFrameShared(core: number, source: number, target: number): void;
  clearFrame(core: number, frame: number): void;
  /** a frame that nobody uses gives its memory back; what it holds is undefined then */
  dropFrame(core: number, frame: number): void;
  /** both words of the stamp in one store */
  stamp(core: number, frame: number, volume: number, generation: number): void;
  /**
   * False beyond half of SegmentHeader.hashCapacity entries (≥ 2 per frame; entries of FRAME_EMPTY count too), and when the
   * places near where it belongs are taken: remove others first.
   */
  hashInsert(core: number, volume: number, leaf: number, frame: number): boolean;
  hashRemove(core: number, volume: number, leaf: number): void;
  /** frame number, or -1 */
  hashFind(core: number, volume: number, leaf: number): number;
  /** advances the volume's generation and returns the new one; writers of the old one may still be on their way */
  advanceGeneration(core: number, volume: number): number;
  /** true when no write admitted under an older generation is on its way */
  writersDrained(core: number, volume: number): boolean;
  /** advances the global epoch and returns it: things unpublished before this call are unused once epochSafe() >= it */
  epochAdvance(core: number): number;
  epochSafe(core: number): number;
  /** data sync of every file the volume wrote since its last one; ends with OP_SYNC_DONE{ticket,error} on the mapper's ring */
  syncVolume(core: number, volume: number, ticket: number): void;
  /** marks a file as written by the volume (copies made for it elsewhere) */
  markFile(core: number, volume: number, file: number): void;
  /** no file is marked as written by the volume: its handle gets another one */
  forgetFiles(core: number, volume: number): void;
  /** runs zero_now on `count` runs (pairs address,length as float64) on background threads, then OP_ZERO_DONE{ticket,error} */
  zeroRuns(core: number, pool: number, runs: Float64Array, count: number, ticket: number): void;
  /** data sync of one file in the background, then OP_SYNC_DONE{ticket,error} */
  syncFile(core: number, pool: number, file: number, ticket: number): void;

  // ---- map page codec (docs/format.md, "Map page")
  /** encodes frame into `out` at `at`; returns bytes written (≤ PAGE_BLOB_MAX). Ids as doubles (< 2^53). */
  encodePage(
    core: number,
    frame: number,
    level: number,
    pageId: number,
    base: number,
    owner: number,
    generation: number,
    mapped: number,
    out: Uint8Array,
    at: number,
  ): number;
  /** verifies and decodes into `frame`; fills header: [level, pageId, base, owner, generation, mapped, entryCount]. 0, or an error: 1 checksum, 2 format, 3 version, 4 other page id */
  decodePage(core: number, blob: Uint8Array, expectedPageId: number, frame: number, header: Float64Array): number;
  /** the same without a core: entries as 512 × (lo, hi) words; for check and tests */
  decodePageTo(blob: Uint8Array, expectedPageId: number, entries: Uint32Array, header: Float64Array): number;
  encodePageFrom(
    entries: Uint32Array,
    level: number,
    pageId: number,
    base: number,
    owner: number,
    generation: number,
    mapped: number,
    out: Uint8Array,
    at: number,
  ): number;
  crc32c(bytes: Uint8Array, seed: number): number;
  /**
   * Plain BLAKE3-256 of blocks one behind the other: 1 into `hashed` and 32 bytes into `hashes` for each; 0, and its hash left
   * as it was, for one that is all zeroes. Throws EINVAL when `blocks` is not whole blocks, or the others have room for fewer or more.
   */
  hashBlocks(blocks: Uint8Array, blockSize: number, hashes: Uint8Array, hashed: Uint8Array): void;

  // ---- NBD: main thread
  nbdStart(
    core: number,
    events: NbdEvents,
    limits: { connectionsMax: number; negotiationMs: number; connectionBytesMax: number },
  ): void;
  /** 'unix:/path' (mode 0600 unless `mode`) or 'tcp:127.0.0.1:10809'; returns listener id and the bound address */
  nbdListen(core: number, address: string, mode?: number): { id: number; address: string };
  nbdClose(core: number, listener: number): void;
  /** open: handle ≥ 0 and its facts, or errno > 0 with a message */
  nbdAnswerOpen(
    core: number,
    token: number,
    answer: {
      error: number;
      message?: string;
      handle?: number;
      size?: number;
      blockSize?: number;
      readOnly?: boolean;
      description?: string;
    },
  ): void;
  nbdAnswerList(core: number, token: number, exports: { name: string; description: string }[]): void;
  /** handle: what Request.context gets; 0xffffffff for base:allocation */
  nbdAnswerContexts(
    core: number,
    token: number,
    answer: { error: number; contexts: { name: string; handle: number }[] },
  ): void;
  /** ends listeners and connections; what was on its way is answered first (bounded wait, blocks) */
  nbdStop(core: number): void;
  /** ends every connection on a handle (forced delete) */
  nbdDisconnect(core: number, handle: number): void;
  nbdStatus(core: number): {
    connections: { id: number; name: string; handle: number; inFlight: number; bytesHeld: number; reactor: number }[];
  };
  // ---- FUSE: main thread
  /** Mounts and returns a number; the tree is live when `events.live` was called. */
  fuseMount(
    core: number,
    events: MountEvents,
    settings: MountSettings & { nameSeconds: number; attributeSeconds: number; folderSeconds: number },
  ): number;
  /** Detaches the tree; what is on its way is answered first (bounded wait, blocks). */
  fuseUnmount(core: number, mount: number): void;
  fuseAnswer(core: number, mount: number, token: number, errno: number, answer?: MountAnswer): void;
  /** See `Files.tell`. How many were told so far, this one included. */
  fuseTell(core: number, mount: number, folder: number, ino: number, name: string): number;
  /** of those, how many the kernel has heard */
  fuseTold(core: number, mount: number): number;
  fuseRevoke(core: number, mount: number, ino: number): number;
  /** PR_SET_IO_FLUSHER for this thread and those it makes; false: not permitted */
  ioFlusher(): boolean;
  /** this thread has it; false too when it may not be asked for */
  isIoFlusher(): boolean;
  /** execve: another program in place of this process, with its standard input and outputs; returns the errno when it cannot */
  execute(file: string, argv: string[]): number;
  reactorStats(core: number): {
    loops: number;
    spins: number;
    spinHits: number;
    requests: number;
    inline: number;
    async: number;
    faults: number;
    errors: number;
    reads: number;
    writes: number;
    readBytes: number;
    writeBytes: number;
    /** of requests that were not complete at once, by what they were; microseconds */
    waits: Record<'read' | 'write' | 'flush' | 'other', Distribution>;
  }[];
  /** data syncs of pool files, microseconds, and those that failed */
  syncStats(core: number): { times: Distribution; errors: number };
}

const require = createRequire(import.meta.url);

/** Loads the addon built by `npm run setup`, or the one that $ATOLL_ADDON names: another build of it, for tests. */
export function loadNative(): Native {
  const other = process.env.ATOLL_ADDON;
  if (other !== undefined) return require(other) as Native;
  const root = import.meta.url.includes('/dist/') ? '../../../' : '../../';
  return require(`${root}build/Release/atoll.node`) as Native;
}
