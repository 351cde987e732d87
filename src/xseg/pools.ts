/** Pools as a whole: making, opening, growing them. What is in them is the mapper's. */
import { randomUUID } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  type Stats,
  statfsSync,
  statSync,
  truncateSync,
} from 'node:fs';
import { isAbsolute, join, resolve } from 'node:path';
import { areaFor, type CopyPlace } from './copies/place.ts';
import { makeFolder } from './home.ts';
import { FILES_MAX } from './layout.gen.ts';
import type { FaultSpec, Native, PoolSpec } from './native.ts';
import {
  dataOffsetOf,
  decodeSuperblock,
  encodeSuperblock,
  POOL_DATA_OFFSET,
  type PoolKind,
  readSuperblockBytes,
  SUPERBLOCK_BYTES,
  type Superblock,
  writeSuperblock,
} from './pool-superblock.ts';
import type { PoolRow } from './store/batch.ts';
import { EngineError, type PoolSpecInput } from './types.ts';

export const BLOCK_SIZE_DEFAULT = 64 * 1024;
export const BLOCK_SIZE_MIN = 4 * 1024;
export const BLOCK_SIZE_MAX = 4 * 1024 * 1024;
const GROUP_SLOTS = 2 ** 14;
const GROUP_BYTES_MAX = 4 * 1024 ** 3;
/** Smallest pool of a declared size. */
export const POOL_SIZE_MIN = 64 * 1024 * 1024;
export const POOL_SIZE_MAX = 2 ** 50;
/** File and device pools are one span. */
const ONE_SPAN = 2 ** 52;

export function groupSlotsFor(blockSize: number): number {
  return Math.min(GROUP_SLOTS, GROUP_BYTES_MAX / blockSize);
}

export function crcOf(native: Native): (bytes: Uint8Array) => number {
  return (bytes) => native.crc32c(bytes, 0);
}

function fail(error: unknown, what: string): never {
  const { code, message } = error as NodeJS.ErrnoException;
  if (error instanceof EngineError) throw error;
  if (code === 'ENOENT') throw new EngineError('NOT_FOUND', `${what}: ${message}`);
  if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM')
    throw new EngineError('READ_ONLY', `${what}: ${message}`);
  if (code === 'ENOSPC') throw new EngineError('NO_SPACE', `${what}: ${message}`);
  if (code === 'EBUSY') throw new EngineError('HELD', `${what}: ${message}`);
  throw new EngineError('IO', `${what}: ${message}`);
}

function kindOf(path: string, spec: PoolSpecInput): PoolKind {
  let info: Stats | undefined;
  try {
    info = statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    fail(error, `pool ${spec.name}`);
  }
  if (info === undefined) return spec.path.endsWith('/') ? 'directory' : 'file';
  if (info.isBlockDevice()) return 'device';
  if (info.isDirectory()) return 'directory';
  if (info.isFile()) return 'file';
  throw new EngineError('INVALID', `${path} is neither a file, a folder nor a block device`);
}

/** A pool that is to be made. */
export interface PoolPlan {
  row: PoolRow;
  /** bytes of each area for a copy of the store; 0: a folder, or too small for them */
  copyArea: number;
}

/** Checks a wish for a pool completely, before anything is made. */
export function planPool(spec: PoolSpecInput, id: number): PoolPlan {
  const blockSize = spec.blockSize ?? BLOCK_SIZE_DEFAULT;
  if (!Number.isInteger(Math.log2(blockSize)) || blockSize < BLOCK_SIZE_MIN || blockSize > BLOCK_SIZE_MAX) {
    throw new EngineError('INVALID', 'a block size is a power of two from 4K to 4M');
  }
  const size = spec.size ?? 0;
  if (size !== 0 && (size < POOL_SIZE_MIN || size > POOL_SIZE_MAX))
    throw new EngineError('INVALID', 'a pool has from 64M to 1P');
  const path = isAbsolute(spec.path) ? spec.path : resolve(spec.path);
  const kind = kindOf(path, spec);
  const row: PoolRow = {
    id,
    uuid: randomUUID(),
    name: spec.name,
    driver: 'local',
    kind,
    path,
    block_shift: Math.log2(blockSize),
    group_slots: groupSlotsFor(blockSize),
    size,
    direct: spec.direct ? 1 : 0,
    preallocate: spec.preallocate ? 1 : 0,
    created_at: Date.now(),
  };
  let bytes = kind === 'device' ? deviceBytes(path) : 0;
  if (kind === 'file' && size === 0) bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  let copyArea = kind === 'directory' ? 0 : areaFor(size > 0 ? size : Math.max(0, bytes - POOL_DATA_OFFSET));
  // better no copies than no pool
  if (bytes > 0 && bytes < dataOffsetOf({ kind, copyArea }) + Math.max(size, POOL_SIZE_MIN)) copyArea = 0;
  if (bytes > 0) row.size = usable(bytes, size, path, dataOffsetOf({ kind, copyArea }));
  if (spec.preallocate && row.size === 0) throw new EngineError('INVALID', 'a preallocated pool needs --size');
  return { row, copyArea };
}

function usable(bytes: number, wanted: number, path: string, dataOffset: number): number {
  const room = bytes - dataOffset;
  if (wanted > 0 && wanted > room)
    throw new EngineError('INVALID', `${path} has room for ${Math.max(0, room)} bytes, less than --size`);
  if (room < POOL_SIZE_MIN) throw new EngineError('INVALID', `${path} is smaller than 64M`);
  return wanted > 0 ? wanted : room;
}

/** Size of a block device, from sysfs (512-byte sectors). */
export function deviceBytes(path: string): number {
  const { rdev } = statSync(path);
  // glibc's encoding of dev_t, for the low 32 bits that devices use
  const major = Math.floor(rdev / 256) & 0xfff;
  const minor = (rdev & 0xff) | ((Math.floor(rdev / 2 ** 20) & 0xfff) << 8);
  try {
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8').trim()) * 512;
  } catch (error) {
    throw new EngineError('IO', `${path}: its size cannot be read: ${(error as Error).message}`);
  }
}

/** Writes the superblock where nobody's data is. @returns undoes it. @throws NOT_OURS, EXISTS */
export function formatPool(
  { row, copyArea }: PoolPlan,
  homeUuid: string,
  native: Native,
  firstStart = false,
): () => void {
  const crc = crcOf(native);
  const at = superblockPath(row);
  const before = statSync(at, { throwIfNoEntry: false });
  try {
    if (row.kind === 'directory') {
      makeFolder(row.path);
      const entries = readdirSync(row.path).filter((name) => name !== 'lost+found');
      if (entries.length > 0) {
        if (existsSync(at) && !firstStart)
          refuseExisting(at, decodeSuperblock(readSuperblockBytes(at), at, crc), homeUuid);
        if (firstStart && existsSync(at) && entries.some((name) => name !== 'superblock'))
          throw new EngineError(
            'NOT_OURS',
            `${row.path} holds a pool and the home has no store; if that was lost, \`atoll recover ${row.path}\` rebuilds it`,
          );
        if (!firstStart || entries.some((name) => name !== 'superblock')) {
          throw new EngineError('NOT_OURS', `${row.path} is not empty; a pool wants an empty folder`);
        }
      }
    } else if (existsSync(at)) {
      const bytes = readSuperblockBytes(at);
      if (bytes.length > 0) refuseExisting(at, decodeSuperblock(bytes, at, crc), homeUuid);
    }
    const superblock: Superblock = {
      blockShift: row.block_shift,
      kind: row.kind as PoolKind,
      poolUuid: row.uuid,
      homeUuid,
      groupSlots: row.group_slots,
      size: row.size,
      createdAt: row.created_at,
      copyArea,
    };
    writeSuperblock(at, encodeSuperblock(superblock, crc), row.kind !== 'device', row.kind === 'device');
    if (row.kind === 'directory') syncFolder(row.path);
    return () => {
      // somebody else may have made a pool there meanwhile
      if (decodeSuperblock(readSuperblockBytes(at), at, crc)?.poolUuid !== row.uuid) return;
      if (before === undefined) rmSync(at, { force: true });
      else if (before.isFile() && before.size < SUPERBLOCK_BYTES) truncateSync(at, before.size);
      else writeSuperblock(at, Buffer.alloc(SUPERBLOCK_BYTES), false);
    };
  } catch (error) {
    fail(error, `pool ${row.name}`);
  }
}

function refuseExisting(path: string, found: Superblock | null, homeUuid: string): void {
  if (found === null) return;
  if (found.homeUuid === homeUuid) throw new EngineError('EXISTS', `${path} is a pool of this home already`);
  throw new EngineError('NOT_OURS', `${path} is a pool of another home (${found.homeUuid})`);
}

function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

function superblockPath(row: PoolRow): string {
  return row.kind === 'directory' ? join(row.path, 'superblock') : row.path;
}

/** An open pool. */
export interface PoolOpened {
  /** native */
  handle: number;
  /** of its copies of the store; null: it has none */
  place: CopyPlace | null;
}

/** Checks that what lies there is this pool, and opens its driver. */
export function openPool(
  row: PoolRow,
  homeUuid: string,
  native: Native,
  core: number,
  faults: FaultSpec[] = [],
): PoolOpened {
  try {
    let found: Superblock | null = null;
    if (row.driver === 'local') {
      const at = superblockPath(row);
      found = decodeSuperblock(readSuperblockBytes(at), at, crcOf(native));
      if (found === null || found.poolUuid !== row.uuid || found.homeUuid !== homeUuid) {
        throw new EngineError('NOT_OURS', `${at} is not pool ${row.name} of this home any more`);
      }
    }
    const dataOffset = found === null ? POOL_DATA_OFFSET : dataOffsetOf(found);
    const handle = native.openPool(core, { ...poolSpec(row, dataOffset), faults });
    return { handle, place: found === null ? null : placeOf(row.path, found) };
  } catch (error) {
    fail(error, `pool ${row.name}`);
  }
}

/** Of the copies of the store that a pool carries; null: it has no place for them. */
export function placeOf(path: string, superblock: Superblock): CopyPlace | null {
  const { kind, copyArea } = superblock;
  return kind === 'directory' || copyArea > 0 ? { path, area: copyArea } : null;
}

export function poolSpec(row: PoolRow, dataOffset: number): PoolSpec {
  return {
    driver: row.driver as PoolSpec['driver'],
    path: row.path,
    kind: row.kind as PoolKind,
    dataOffset,
    fileSpan: row.kind === 'directory' ? row.group_slots * 2 ** row.block_shift : ONE_SPAN,
    capacityBytes: row.size,
    direct: row.direct !== 0,
    preallocate: row.preallocate !== 0,
  };
}

/**
 * The size a pool can be grown to. The areas for copies of the store stay as they are.
 * @param size undefined: what the device or file has
 */
export function plannedGrowth(row: PoolRow, size: number | undefined, place: CopyPlace | null): number {
  if (row.size === 0) throw new EngineError('INVALID', `pool ${row.name} is thin: it has what its file system has`);
  let wanted = size;
  const dataOffset = dataOffsetOf({ kind: row.kind as PoolKind, copyArea: place?.area ?? 0 });
  if (row.kind === 'device') wanted = usable(deviceBytes(row.path), size ?? 0, row.path, dataOffset);
  if (wanted === undefined) throw new EngineError('INVALID', 'say how large: --size');
  if (wanted < row.size)
    throw new EngineError('INVALID', `pool ${row.name} has ${row.size} bytes; pools do not shrink`);
  if (wanted > POOL_SIZE_MAX) throw new EngineError('TOO_LARGE', 'a pool has at most 1P');
  if (row.kind === 'directory' && wanted > FILES_MAX * row.group_slots * 2 ** row.block_shift) {
    throw new EngineError('TOO_LARGE', `pool ${row.name} can have at most ${FILES_MAX} groups`);
  }
  if (row.kind !== 'device') {
    const fs = statfsSync(row.kind === 'directory' ? row.path : resolve(row.path, '..'));
    if (row.preallocate && wanted - row.size > fs.bavail * fs.bsize)
      throw new EngineError('NO_SPACE', 'the file system has less than that free');
  }
  return wanted;
}
