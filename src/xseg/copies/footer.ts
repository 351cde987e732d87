/** The footer of a copy of the store (docs/format.md, "Copies of the store"): what it is a copy of, and its checksums. */
import { EngineError } from '../types.ts';
import { LINE_BYTES, lineName } from './lines.ts';

export const FOOTER_BYTES = 4096;
/** Piece of the store under one checksum. */
export const COPY_CHUNK_BYTES = 1024 * 1024;
/** Largest store that a copy may claim: its table of checksums is then 64 MiB, and is read into memory. */
export const COPY_BYTES_MAX = 2 ** 44;
const MAGIC = Buffer.from('ATOLLCP1', 'latin1');
const VERSION = 1;
const FLAG_CLEAN = 1;

export interface CopyFooter {
  /** made by a clean stop */
  clean: boolean;
  sequence: number;
  /** Unix ms of the moment copied */
  takenAt: number;
  homeUuid: string;
  poolUuid: string;
  /** of the store */
  bytes: number;
  /** FORMAT_VERSION of the store */
  format: number;
  /** of the table of checksums with its padding */
  tableCrc: number;
  /** of the store: 32 hex digits */
  line: string;
}

type Crc = (bytes: Uint8Array) => number;

const uuidBytes = (uuid: string) => Buffer.from(uuid.replaceAll('-', ''), 'hex');
const uuidText = (b: Buffer) => b.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

/** Bytes of the table of checksums of a store of `bytes`, its padding included. */
export function tableBytes(bytes: number): number {
  return Math.ceil((Math.ceil(bytes / COPY_CHUNK_BYTES) * 4) / FOOTER_BYTES) * FOOTER_BYTES;
}

export function encodeFooter(f: CopyFooter, crc32c: Crc): Buffer {
  const b = Buffer.alloc(FOOTER_BYTES);
  MAGIC.copy(b, 0);
  b.writeUInt32LE(VERSION, 8);
  b.writeUInt32LE(f.clean ? FLAG_CLEAN : 0, 12);
  b.writeBigUInt64LE(BigInt(f.sequence), 16);
  b.writeBigUInt64LE(BigInt(f.takenAt), 24);
  uuidBytes(f.homeUuid).copy(b, 32);
  uuidBytes(f.poolUuid).copy(b, 48);
  b.writeBigUInt64LE(BigInt(f.bytes), 64);
  b.writeUInt32LE(COPY_CHUNK_BYTES, 72);
  b.writeUInt32LE(f.format, 76);
  b.writeUInt32LE(f.tableCrc, 80);
  Buffer.from(f.line, 'hex').copy(b, 84);
  b.writeUInt32LE(crc32c(b.subarray(0, FOOTER_BYTES - 4)), FOOTER_BYTES - 4);
  return b;
}

/** @throws {EngineError} CORRUPT, FORMAT_NEWER */
export function decodeFooter(b: Buffer, path: string, crc32c: Crc): CopyFooter {
  if (b.length !== FOOTER_BYTES || !b.subarray(0, 8).equals(MAGIC))
    throw new EngineError('CORRUPT', `${path} does not end like a copy of a store`);
  if (b.readUInt32LE(FOOTER_BYTES - 4) !== crc32c(b.subarray(0, FOOTER_BYTES - 4)))
    throw new EngineError('CORRUPT', `the footer of ${path} is damaged`);
  if (b.readUInt32LE(8) > VERSION)
    throw new EngineError('FORMAT_NEWER', `${path} has copy format ${b.readUInt32LE(8)}, this Atoll knows ${VERSION}`);
  const bytes = Number(b.readBigUInt64LE(64));
  if (bytes === 0 || bytes > COPY_BYTES_MAX || bytes % FOOTER_BYTES !== 0 || b.readUInt32LE(72) !== COPY_CHUNK_BYTES)
    throw new EngineError('CORRUPT', `the footer of ${path} makes no sense`);
  return {
    clean: (b.readUInt32LE(12) & FLAG_CLEAN) !== 0,
    sequence: Number(b.readBigUInt64LE(16)),
    takenAt: Number(b.readBigUInt64LE(24)),
    homeUuid: uuidText(b.subarray(32, 48)),
    poolUuid: uuidText(b.subarray(48, 64)),
    bytes,
    format: b.readUInt32LE(76),
    tableCrc: b.readUInt32LE(80),
    line: lineName(b.subarray(84, 84 + LINE_BYTES)),
  };
}
