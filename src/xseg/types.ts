/**
 * What the engine's face (`engine.ts`) speaks: resources, pools, errors. No code besides the error class.
 */

import type { Activity } from './activity.ts';
import type { FaultSpec, MountAnswer, MountEvents, MountSettings } from './native.ts';

export type { MountAnswer, MountEvents, MountSettings } from './native.ts';

/** Every error of the engine. `code` maps once to errno (`native`, NBD), once to HTTP, once to an exit code. */
export class EngineError extends Error {
  constructor(
    readonly code: EngineErrorCode,
    message: string,
  ) {
    super(message);
    this.name = 'EngineError';
  }
}

export type EngineErrorCode =
  | 'NOT_FOUND'
  | 'EXISTS'
  | 'INVALID'
  | 'TOO_LARGE'
  | 'BUSY'
  | 'HAS_SNAPSHOTS'
  | 'PROTECTED'
  | 'NO_SPACE'
  | 'READ_ONLY'
  | 'CORRUPT'
  | 'IO'
  | 'POOL_FAILED'
  | 'FORMAT_NEWER'
  | 'NOT_OURS'
  | 'HELD'
  | 'STALE'
  | 'STALE_LEASE'
  | 'BASE_DIFFERS'
  | 'UNSUPPORTED'
  | 'SHUTTING_DOWN';

/** An exclusive attachment of a volume: who opens it by another name than `export` may only read. */
export interface Attachment {
  /** a UUID; whoever knows it, and reaches the NBD socket, may write */
  id: string;
  /** who has it, as he was called */
  to: string;
  /** ISO 8601, UTC */
  since: string;
  /** NBD export: `VOLUME/ID` */
  export: string;
}

export interface AttachSpec {
  to: string;
  /** a UUID; default: a new one */
  id?: string;
}

/** How something is opened; `any`: for writing where that is allowed. */
export type Access = 'read' | 'write' | 'any';

export interface VolumeInfo {
  id: string;
  name: string;
  kind: 'volume';
  /** bytes */
  size: number;
  blockSize: number;
  pool: string;
  /** bytes of blocks that have a slot */
  mappedBytes: number;
  /** what deleting it would free; null: not known, or being computed */
  exclusiveBytes: number | null;
  /** mapped and held by others too; null as above */
  sharedBytes: number | null;
  /** ISO 8601, UTC */
  createdAt: string;
  snapshots: number;
  protected: boolean;
  /** open handles (NBD connections and others) */
  openCount: number;
  /** null: it is not attached exclusively */
  attached: Attachment | null;
  /** NAME@SNAP it was cloned from, as it was called then; informative */
  clonedFrom: string | null;
}

export interface SnapshotInfo {
  id: string;
  /** VOL@SNAP */
  name: string;
  kind: 'snapshot';
  volume: string;
  snapshot: string;
  size: number;
  blockSize: number;
  pool: string;
  mappedBytes: number;
  /** what deleting it would free; null: not known, or being computed */
  exclusiveBytes: number | null;
  /** mapped and held by others too; null as above */
  sharedBytes: number | null;
  createdAt: string;
  protected: boolean;
  openCount: number;
  /** of its bytes, size and block size (docs/format.md, "Resource hash"), 64 hex digits; null until it is sealed */
  hash: string | null;
}

/** How a pool is sealed and scrubbed. */
export interface SealInfo {
  /** snapshots are sealed */
  on: boolean;
  paused: boolean;
  /** bytes/s read for it, 0 no bound */
  rate: number;
  /** bytes/s read by scrubbing, 0: none */
  scrubRate: number;
  /** sealed blocks are compared with their hash before their bytes are returned */
  verifyOnRead: boolean;
  /** blocks in the index, and about what they take in the store */
  entries: number;
  indexBytes: number;
  /** ever */
  hashedBytes: number;
  foldedBytes: number;
  /** hashed / (hashed − folded); 1 before anything was hashed */
  dedupRatio: number;
  /** snapshots without a hash, and at most how much there is to hash for them; 0 when off */
  backlogSnapshots: number;
  backlogBytes: number;
  /** blocks whose bytes are not what they should be: reads of them answer EIO */
  quarantined: number;
  /** ISO 8601, of the last whole pass of scrubbing; null none yet */
  scrubbedAt: string | null;
}

/** What can be set on a pool; what is not given stays. */
export interface PoolSettings {
  seal?: boolean;
  /** bytes/s, 0 no bound */
  sealRate?: number;
  sealPaused?: boolean;
  /** bytes/s, 0: no scrubbing */
  scrubRate?: number;
  verifyOnRead?: boolean;
}

/** What is exclusive is computed when somebody asks: not at all, without waiting, or with waiting a moment. */
export interface ShowOptions {
  account?: 'ask' | 'wait';
}

/** How full a pool is: docs/cli.md, `atoll serve --pool-warn`. */
export type PoolLevel = 'ok' | 'warning' | 'critical';

export interface PoolInfo {
  id: string;
  name: string;
  driver: 'local' | 'memory' | 'null';
  kind: 'directory' | 'file' | 'device' | 'none';
  path: string;
  blockSize: number;
  direct: boolean;
  /** what it can hold; thin pools: used + what the file system has free, or the declared size */
  capacityBytes: number;
  /** slots that hold a block, times the block size */
  usedBytes: number;
  freeBytes: number;
  /** what it takes on its backend */
  physicalBytes: number;
  /** slots that are freed but not zeroed yet */
  reclaimingBytes: number;
  /** copies of the store that the pool carries; null while it is not open */
  copies: PoolCopies | null;
  /** mapped by what is being deleted: an estimate of what becomes free, 0 when nothing is queued */
  releasingBytes: number;
  /** sizes of its volumes and snapshots */
  logicalBytes: number;
  /** what they map, each by itself */
  mappedBytes: number;
  /** what single resources have alone; null: not known, being computed, or not asked for (lists) */
  exclusiveBytes: number | null;
  /** used slots that several resources have; null as above */
  sharedBytes: number | null;
  /** 100 · used / capacity */
  fullPercent: number;
  level: PoolLevel;
  state: 'ok' | 'failed' | 'missing';
  /** why, when not ok */
  reason: string | null;
  /** null while the pool is not open */
  seal: SealInfo | null;
}

/** Copies of the store that a pool carries (docs/backup-and-recovery.md). */
export interface PoolCopies {
  state: 'ok' | 'none' | 'off' | 'unsupported';
  /** why there is none, or why the last one could not be made */
  reason: string | null;
  /** moment of the newest, ISO 8601, UTC; null when there is none */
  takenAt: string | null;
  /** of the newest */
  bytes: number;
  generations: number;
  /** freed, and not used again before newer copies are there; part of `reclaimingBytes` */
  heldBytes: number;
}

export interface BackupReport {
  path: string;
  /** ISO 8601, UTC: the moment that it shows */
  takenAt: string;
  bytes: number;
  seconds: number;
}

export interface PoolSpecInput {
  name: string;
  path: string;
  /** bytes; default: thin (file system) or the device's size */
  size?: number;
  /** power of two, 4 KiB..4 MiB; default 64 KiB */
  blockSize?: number;
  direct?: boolean;
  preallocate?: boolean;
}

/** Changed or allocated piece of a resource, in bytes. */
export interface ExtentInfo {
  offset: number;
  length: number;
  /** false: reads as zeroes now */
  data: boolean;
}

export interface EngineStatus {
  version: string;
  home: string;
  pid: number;
  uptimeSeconds: number;
  pools: PoolInfo[];
  volumes: number;
  snapshots: number;
  map: {
    cacheBytes: number;
    residentPages: number;
    dirtyPages: number;
    faults: number;
    faultP50Us: number;
    faultP99Us: number;
    loads: number;
    evictions: number;
  };
  commits: { count: number; pages: number; p50Ms: number; p99Ms: number; logBytes: number };
  /**
   * what is left to do: rows of the queue of releases, bytes they map (an estimate of what becomes free), bytes to zero now.
   * What copies of the store hold is not to do yet: `reclaimingBytes` of pools has it, and `copies.heldBytes` alone
   */
  background: { dropQueue: number; freeQueueBytes: number; zeroQueueBytes: number };
}

export interface CheckReport {
  ok: boolean;
  pages: number;
  slots: number;
  resources: number;
  /** at most PROBLEMS_MAX are listed; `problemCount` counts all */
  problems: { code: string; message: string; resource?: string }[];
  problemCount: number;
  seconds: number;
}

/** What a repair changed, by what it is. Rows that were right are not counted. */
export interface RepairReport {
  /** map pages whose flags, counts or base were put right */
  pages: number;
  /** map pages that nothing reached */
  pagesRemoved: number;
  pageRefs: number;
  slotRefs: number;
  /** slots that were used and named by nothing */
  slotsFreed: number;
  /** slots that were free and named */
  slotsTaken: number;
  groups: number;
  resources: number;
  releases: number;
  meta: number;
  /** rows of the index of sealed blocks, and hashes of what is gone */
  seal: number;
  /** SQLite's indexes made anew: all, when one of them did not say what its table says */
  indexes: number;
  /** a page is damaged or missing: nothing was freed, no count lowered */
  inDoubt: boolean;
}

export interface IngestSpec {
  /** name of the volume that is made, with the snapshot's content */
  volume: string;
  /** the snapshot's own name */
  snapshot: string;
  /** default: `local` */
  pool?: string | undefined;
}

/**
 * A stream of bytes that becomes a sealed snapshot: hashed before it is stored, and stored only where the pool does not have
 * the same bytes. One writer, that waits for each call; all reject with EngineError, and after the first failure nothing of
 * it remains but `abort` to call.
 */
export interface Ingest {
  readonly blockSize: number;
  /** its name */
  readonly pool: string;
  /** bytes that came, holes too */
  readonly position: number;
  /** what comes next; `bytes` may be used again when it resolves, which is when there is room for more */
  write(bytes: Uint8Array): Promise<void>;
  /**
   * what comes next is in a file that this process has open, at `position`; resolves when there is room for more. The file
   * stays open until `finish` or `abort` has answered
   */
  read(file: number, position: number, length: number): Promise<void>;
  /** zeroes come next: whole blocks of them take neither time nor space */
  skip(length: number): Promise<void>;
  /**
   * Ends the stream: its size is rounded up to 512 with zeroes. Makes the volume and its snapshot, durable and sealed.
   * @throws EXISTS when a volume has that name; nothing of the ingest is left then
   */
  finish(): Promise<SnapshotInfo>;
  /** gives it up, durably: no resource and no slot is left */
  abort(): Promise<void>;
}

/** What an NBD or FUSE frontend gets when it opens a resource. */
export interface OpenHandle {
  handle: number;
  id: string;
  name: string;
  size: number;
  blockSize: number;
  readOnly: boolean;
}

/** What a mount shows of a volume or snapshot. Its number is never another's, whatever is renamed or deleted. */
export interface FileNode {
  id: number;
  kind: 'volume' | 'snapshot';
  name: string;
  /** NAME or VOL@SNAP */
  fullName: string;
  /** snapshots: number of their volume; else 0 */
  volume: number;
  /** name of its pool */
  pool: string;
  size: number;
  mappedBytes: number;
  createdMs: number;
  /** writes, trims and zeroings since it was opened */
  changes: number;
  openCount: number;
  /** exclusively: nothing but who has it may write */
  attached: boolean;
}

/** all volumes; those that have snapshots; the snapshots of one */
export type NodeFolder = 'volumes' | 'owners' | number;

/** Numbers of one node in a page: id, kind (1 volume, 2 snapshot), size, mappedBytes, createdMs, changes, attached (0, 1). */
export const PAGE_NUMBERS = 7;

/** A part of a folder's nodes, with ids that ascend; lean, since a folder may have a hundred thousand. */
export interface NodePage {
  /** PAGE_NUMBERS for each */
  numbers: Float64Array;
  /** each ends with a NUL */
  names: string;
  /** goes on behind this number; `end`: there are no more */
  last: number;
  end: boolean;
  /** of a volume's snapshots: volumes with the next numbers that have some, whose snapshots are behind those of the folder */
  ahead: { volume: number; count: number }[];
  /** the volume behind all these that has snapshots; 0 none */
  next: number;
}

/** What a volume or snapshot is known by. */
export interface RootInfo {
  /** the `id` of VolumeInfo and SnapshotInfo */
  uuid: string;
  /** NAME or VOL@SNAP */
  name: string;
  size: number;
  createdMs: number;
}

/** A resource has another size or map, or a name came or went; or whoever has `handle` open is to let go of it. */
export interface NodeChange {
  id: number;
  name?: { volume: number; name: string; there: boolean };
  handle?: number;
}

/** The engine as a file system needs it. */
export interface Files {
  /** its threads do not wait for memory that is freed by writing to a disk, which may be a file of a mount (io-flusher.ts) */
  readonly ioFlusher: boolean;
  lookup(folder: NodeFolder, name: string): Promise<FileNode>;
  node(id: number): Promise<FileNode>;
  /** `ahead`: the snapshots of volumes that come next may come with those of a volume */
  list(folder: NodeFolder, after: number, ahead: boolean): Promise<NodePage>;
  /** those behind a number, of all volumes or all snapshots; goes on behind `last`, null: there are no more */
  roots(kind: 'volume' | 'snapshot', after: number): Promise<{ roots: RootInfo[]; last: number | null }>;
  /** a volume without bytes */
  create(name: string): Promise<void>;
  /** 0 and multiples of 512 */
  resize(id: number, size: number): Promise<void>;
  /** at least `size`; durable with the next flush */
  grow(id: number, size: number): Promise<void>;
  /**
   * A volume without bytes becomes what was copied of a snapshot of its pool: blocks [from, to) after each other, ascending;
   * `size` a multiple of a block, or the snapshot's. Other blocks are zeroes. @throws BUSY when somebody gave it bytes
   */
  fill(id: number, from: string, size: number, copied: number[]): Promise<void>;
  /** returns what ends it */
  onChange(hear: (change: NodeChange) => void): () => void;

  mount(settings: MountSettings, events: MountEvents): number;
  unmount(mount: number): void;
  answer(mount: number, token: number, errno: number, answer?: MountAnswer): void;
  /** the kernel forgets a node's attributes and data (folder 0), a name (ino 0), or that the node has it */
  tell(mount: number, folder: number, ino: number, name: string): void;
  /** an open node answers EIO from now on; requests on their way */
  revoke(mount: number, ino: number): number;
}

export interface EngineOptions {
  home: string;
  /** bytes of map pages kept in memory; default 256 MiB, minimum 16 MiB */
  cacheBytes?: number;
  reactors?: number;
  spinUs?: number;
  ioUring?: boolean;
  /** oldest that a pool's copy of the store may become while the store changes; 0: pools carry none; default 5 minutes */
  copyIntervalMs?: number;
  /** percent of its capacity at which a pool is called full to warn, and critically full; defaults 80 and 95 */
  poolWarnPercent?: number;
  poolCriticalPercent?: number;
  /** layers that break pools, by pool name: for tests */
  poolFaults?: Record<string, FaultSpec[]>;
  version: string;
  /** one structured line per event; the daemon gives pino */
  log: (level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>) => void;
  /** called when the engine cannot go on (mapper or store died): the daemon exits at once */
  onFatal: (reason: string) => void;
}

/**
 * The one face of the storage engine. Names: volumes `NAME`, snapshots `VOL@SNAP`.
 * All methods reject with EngineError. Sizes are bytes and multiples of 512.
 */
export interface Engine {
  status(): Promise<EngineStatus>;
  /** for metrics and `atoll top`; costs guests nothing */
  activity(): Promise<Activity>;
  /** @param signal ends it. @throws {EngineError} BUSY beside others, IO when it was ended */
  check(onProgress?: (done: number, total: number) => void, signal?: AbortSignal): Promise<CheckReport>;
  /** a consistent copy of the store, 0600; `path` absolute, a new file; `fixed` hears when its moment is fixed */
  backup(path: string, fixed?: () => void): Promise<BackupReport>;

  createPool(spec: PoolSpecInput): Promise<PoolInfo>;
  listPools(): Promise<PoolInfo[]>;
  showPool(name: string, options?: ShowOptions): Promise<PoolInfo>;
  /** `size` undefined: take what the file or device has grown to */
  growPool(name: string, size?: number): Promise<PoolInfo>;
  /** @throws INVALID for rates that are no bytes per second */
  setPool(name: string, settings: PoolSettings): Promise<PoolInfo>;

  createVolume(spec: { name: string; size?: number; pool?: string; from?: string }): Promise<VolumeInfo>;
  listVolumes(): Promise<VolumeInfo[]>;
  /** The daemon's own (names.ts), NAME or VOL@SNAP, snapshots first; however many others there are. */
  listHidden(): Promise<string[]>;
  showVolume(name: string, options?: ShowOptions): Promise<VolumeInfo>;
  resizeVolume(name: string, size: number): Promise<VolumeInfo>;
  renameVolume(name: string, to: string): Promise<VolumeInfo>;
  deleteVolume(name: string, options: { force?: boolean; withSnapshots?: boolean }): Promise<void>;
  /** volume or VOL@SNAP */
  protect(name: string, on: boolean): Promise<void>;
  /** Exclusively; durable. The same id again changes nothing. @throws BUSY when it is attached, or open for writing */
  attachVolume(name: string, spec: AttachSpec): Promise<VolumeInfo>;
  /**
   * What its holder sent is written, or never will be. `force`: its NBD connections are ended.
   * @throws NOT_FOUND when it is not attached, BUSY while its holder has it open
   */
  detachVolume(name: string, options?: { force?: boolean }): Promise<VolumeInfo>;

  createSnapshot(volume: string, snapshot: string): Promise<SnapshotInfo>;
  listSnapshots(volume?: string): Promise<SnapshotInfo[]>;
  showSnapshot(name: string, options?: ShowOptions): Promise<SnapshotInfo>;
  deleteSnapshot(name: string, options?: { force?: boolean }): Promise<void>;
  /** from: VOL@SNAP */
  clone(from: string, to: string): Promise<VolumeInfo>;
  rollback(snapshot: string): Promise<VolumeInfo>;
  /** extents that differ between two resources of one size class; `b` a volume or snapshot; a page of at most `max` extents from `offset` */
  diff(
    a: string,
    b: string,
    options?: { offset?: number; max?: number },
  ): Promise<{ extents: ExtentInfo[]; next: number | null }>;
  /**
   * Atomic: the volume becomes what `staged` (a volume) holds; `staged` goes away. Both closed. For stream imports.
   * @param since VOL@SNAP of the volume: only if it still has the bytes and the size of that
   * @throws BUSY, PROTECTED, BASE_DIFFERS (since)
   */
  replaceWith(volume: string, staged: string, since?: string | null): Promise<VolumeInfo>;

  /**
   * For bytes that arrive (files, images). An ingest that is not finished leaves nothing, whatever ends it.
   * @throws EXISTS for a volume of that name, NOT_FOUND for a pool, BUSY when too many are under way
   */
  ingest(spec: IngestSpec): Promise<Ingest>;

  /**
   * For frontends; read-only for snapshots. Every open needs one release, with the `readOnly` that it answered.
   * @param name of a volume or snapshot, or VOLUME/ATTACHMENT
   * @param access default: write
   * @throws BUSY for writing to what is attached by another name
   */
  open(name: string, access?: Access): Promise<OpenHandle>;
  release(handle: number, readOnly?: boolean): Promise<void>;

  /** what mounts are made of; absent where there is nothing to mount */
  readonly files?: Files;

  /** serves NBD on `unix:/path` or `tcp:host:port`; resolves to the bound address */
  listenNbd(address: string, mode?: number): Promise<string>;

  /** commits everything acknowledged and ends */
  close(): Promise<void>;
}
