/** A pool's superblock (docs/format.md, "Pool"): says whose the bytes are before anything is read or written there. */
import { closeSync, constants, fstatSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { EngineError } from './types.ts';

export const SUPERBLOCK_BYTES = 4096;
/** Slot space of file and device pools starts here, or behind their areas for copies of the store, which do. */
export const POOL_DATA_OFFSET = 1024 * 1024;
const MAGIC = Buffer.from('ATOLLPL1', 'latin1');
/** of those without areas for copies */
const VERSION_PLAIN = 1;
const VERSION = 2;
const AREA_MULTIPLE = 1024 * 1024;
const KINDS = ['directory', 'file', 'device'] as const;

export type PoolKind = (typeof KINDS)[number];

export interface Superblock {
  blockShift: number;
  kind: PoolKind;
  poolUuid: string;
  homeUuid: string;
  groupSlots: number;
  /** declared bytes, 0 thin */
  size: number;
  /** Unix ms */
  createdAt: number;
  /** bytes of each of the two areas for copies of the store, of a file or device; 0: it has none */
  copyArea: number;
}

/** First byte of slot space. */
export function dataOffsetOf({ kind, copyArea }: Pick<Superblock, 'kind' | 'copyArea'>): number {
  return kind === 'directory' ? 0 : POOL_DATA_OFFSET + 2 * copyArea;
}

const uuidBytes = (uuid: string) => Buffer.from(uuid.replaceAll('-', ''), 'hex');
const uuidText = (b: Buffer) => b.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

export function encodeSuperblock(s: Superblock, crc32c: (bytes: Uint8Array) => number): Buffer {
  const b = Buffer.alloc(SUPERBLOCK_BYTES);
  MAGIC.copy(b, 0);
  b.writeUInt32LE(s.copyArea > 0 ? VERSION : VERSION_PLAIN, 8);
  b.writeUInt32LE(s.blockShift, 12);
  b.writeUInt32LE(KINDS.indexOf(s.kind), 16);
  uuidBytes(s.poolUuid).copy(b, 24);
  uuidBytes(s.homeUuid).copy(b, 40);
  b.writeBigUInt64LE(BigInt(s.groupSlots), 56);
  b.writeBigUInt64LE(BigInt(s.size), 64);
  b.writeBigUInt64LE(BigInt(s.createdAt), 72);
  b.writeBigUInt64LE(BigInt(s.copyArea), 80);
  b.writeUInt32LE(crc32c(b.subarray(0, SUPERBLOCK_BYTES - 4)), SUPERBLOCK_BYTES - 4);
  return b;
}

/** @returns null for an area of zeroes (nobody's). @throws {EngineError} NOT_OURS, CORRUPT, FORMAT_NEWER */
export function decodeSuperblock(b: Buffer, path: string, crc32c: (bytes: Uint8Array) => number): Superblock | null {
  if (b.every((byte) => byte === 0)) return null;
  if (b.length < SUPERBLOCK_BYTES || !b.subarray(0, 8).equals(MAGIC)) {
    throw new EngineError(
      'NOT_OURS',
      `${path} holds something that is not an Atoll pool; choose another place, or wipe it first`,
    );
  }
  if (b.readUInt32LE(8) > VERSION)
    throw new EngineError('FORMAT_NEWER', `${path} has pool format ${b.readUInt32LE(8)}, this Atoll knows ${VERSION}`);
  if (b.readUInt32LE(SUPERBLOCK_BYTES - 4) !== crc32c(b.subarray(0, SUPERBLOCK_BYTES - 4))) {
    throw new EngineError('CORRUPT', `the superblock of ${path} is damaged`);
  }
  const copyArea = b.readUInt32LE(8) === VERSION_PLAIN ? 0 : Number(b.readBigUInt64LE(80));
  if (copyArea % AREA_MULTIPLE !== 0 || copyArea > 2 ** 44)
    throw new EngineError('CORRUPT', `the superblock of ${path} makes no sense`);
  return {
    blockShift: b.readUInt32LE(12),
    kind: KINDS[b.readUInt32LE(16)] ?? 'file',
    poolUuid: uuidText(b.subarray(24, 40)),
    homeUuid: uuidText(b.subarray(40, 56)),
    groupSlots: Number(b.readBigUInt64LE(56)),
    size: Number(b.readBigUInt64LE(64)),
    createdAt: Number(b.readBigUInt64LE(72)),
    copyArea,
  };
}

/** First 4 KiB of a file or device (fewer when it is shorter). */
export function readSuperblockBytes(path: string): Buffer {
  const fd = openSync(path, 'r');
  try {
    const b = Buffer.alloc(SUPERBLOCK_BYTES);
    const n = readSync(fd, b, 0, SUPERBLOCK_BYTES, 0);
    return n === SUPERBLOCK_BYTES || fstatSync(fd).isBlockDevice() ? b : b.subarray(0, n);
  } finally {
    closeSync(fd);
  }
}

/** @param unused refuses a device that something else uses: a mounted one may have zeroes where a superblock goes */
export function writeSuperblock(path: string, bytes: Buffer, create: boolean, unused = false): void {
  const how = (create ? constants.O_CREAT : 0) | (unused ? constants.O_EXCL : 0);
  const fd = openSync(path, constants.O_RDWR | how, 0o600);
  try {
    writeSync(fd, bytes, 0, bytes.length, 0);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
