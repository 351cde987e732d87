/**
 * The parts of a backup stream as bytes: docs/stream.md is the description, this is it in code. No I/O here.
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { type Static, Type } from '@sinclair/typebox';
import { Value } from '@sinclair/typebox/value';
import { ControlError } from '../errors.ts';
import { SECTOR_BYTES, SIZE_MAX } from '../sizes.ts';

export const STREAM_MAGIC = Buffer.from('ATOLLSTM', 'latin1');
export const STREAM_VERSION = 1;
export const PROLOGUE_BYTES = 32;
export const STREAM_HEADER_MAX = 65536;
export const DIGEST_BYTES = 32;
export const RECORD_BYTES = 64;
/** longest run of data in one record: what a reader has to hold at once */
export const STREAM_DATA_MAX = 4 << 20;

const RECORD_MAGIC = 0x43455241;
const TYPE_DATA = 1;
const TYPE_HOLE = 2;
const TYPE_END = 3;
/** bytes of a record's head that its digest covers */
const RECORD_COVERED = 32;

const CONTEXT_HEADER = 'atoll stream 1 header';
const CONTEXT_RECORD = 'atoll stream 1 record';
const CONTEXT_WHOLE = 'atoll stream 1 whole';

const Size = Type.Integer({ minimum: SECTOR_BYTES, maximum: SIZE_MAX, multipleOf: SECTOR_BYTES });
const Name = Type.String({ maxLength: 1024 });

const Header = Type.Object(
  {
    kind: Type.Union([Type.Literal('full'), Type.Literal('incremental')]),
    size: Size,
    blockSize: Type.Integer({ minimum: 4096, maximum: 4 << 20 }),
    base: Type.Union([
      Type.Null(),
      Type.Object({ size: Size, hash: Type.String({ pattern: '^[0-9a-f]{64}$' }) }, { additionalProperties: false }),
    ]),
    source: Type.Object({ target: Name, base: Type.Union([Type.Null(), Name]) }, { additionalProperties: false }),
    createdAt: Type.String({ maxLength: 64 }),
  },
  { additionalProperties: false },
);

export type StreamHeader = Static<typeof Header>;

/** A data or hole record, its place in the file, and for data where its bytes are. */
export interface StreamRecord {
  kind: 'data' | 'hole';
  offset: number;
  length: number;
}

export interface StreamEnd {
  kind: 'end';
  records: number;
  dataBytes: number;
}

export function damaged(at: number, what: string): ControlError {
  return new ControlError('DAMAGED', `the stream is damaged at byte ${at}: ${what}; get the file again`);
}

// --- header ------------------------------------------------------------------------------------------

/** @returns prologue, header and header digest */
export function encodeHeader(header: StreamHeader): Buffer {
  const json = Buffer.from(JSON.stringify(header));
  if (json.length > STREAM_HEADER_MAX) throw new ControlError('INTERNAL', 'the stream header is too long');
  const prologue = Buffer.alloc(PROLOGUE_BYTES);
  STREAM_MAGIC.copy(prologue);
  prologue.writeUInt32LE(STREAM_VERSION, 8);
  prologue.writeUInt32LE(json.length, 12);
  return Buffer.concat([prologue, json, digestOf(CONTEXT_HEADER, prologue, json)]);
}

/** @returns bytes of header JSON that follow the prologue */
export function decodePrologue(prologue: Buffer): number {
  if (!prologue.subarray(0, 8).equals(STREAM_MAGIC)) {
    throw new ControlError('DAMAGED', 'the file is no Atoll stream (its first bytes are others)');
  }
  const version = prologue.readUInt32LE(8);
  if (version !== STREAM_VERSION) {
    throw new ControlError('FORMAT_NEWER', `the stream has version ${version}, this atoll reads ${STREAM_VERSION}`);
  }
  const length = prologue.readUInt32LE(12);
  if (length < 2 || length > STREAM_HEADER_MAX) throw damaged(12, `a header of ${length} bytes`);
  if (!isZero(prologue.subarray(16))) throw damaged(16, 'reserved bytes are not zero');
  return length;
}

export function decodeHeader(prologue: Buffer, json: Buffer, digest: Buffer): StreamHeader {
  if (!digestOf(CONTEXT_HEADER, prologue, json).equals(digest)) throw damaged(0, 'the header fails its checksum');
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch {
    throw damaged(PROLOGUE_BYTES, 'the header is no JSON');
  }
  if (!Value.Check(Header, header)) {
    const first = Value.Errors(Header, header).First();
    throw damaged(PROLOGUE_BYTES, `header ${first?.path ?? ''}: ${first?.message ?? 'not as it should be'}`);
  }
  if ((header.kind === 'incremental') !== (header.base !== null)) {
    throw damaged(PROLOGUE_BYTES, `a stream that is ${header.kind} ${header.base ? 'has' : 'lacks'} a base`);
  }
  if ((header.blockSize & (header.blockSize - 1)) !== 0) {
    throw damaged(PROLOGUE_BYTES, 'blockSize is no power of two');
  }
  return header;
}

// --- records -----------------------------------------------------------------------------------------

/** @returns the record's head; its data, if any, follows in the file */
export function encodeRecord(record: StreamRecord, data: Buffer | null): Buffer {
  const head = recordHead(record.kind === 'data' ? TYPE_DATA : TYPE_HOLE, record.offset, record.length);
  recordDigest(head, data).copy(head, RECORD_COVERED);
  return head;
}

/** @param whole has seen every byte before the end record */
export function encodeEnd(end: Omit<StreamEnd, 'kind'>, whole: WholeHash): Buffer {
  const head = recordHead(TYPE_END, end.records, end.dataBytes);
  whole.update(head.subarray(0, RECORD_COVERED));
  whole.digest().copy(head, RECORD_COVERED);
  return head;
}

function recordHead(type: number, offset: number, length: number): Buffer {
  const head = Buffer.alloc(RECORD_BYTES);
  head.writeUInt32LE(RECORD_MAGIC, 0);
  head.writeUInt32LE(type, 4);
  head.writeBigUInt64LE(BigInt(offset), 8);
  head.writeBigUInt64LE(BigInt(length), 16);
  return head;
}

/**
 * Takes a record's head apart and checks what can be checked without its data.
 * @param at where the head is in the file, for errors
 * @param size the target's
 * @param after end of the record before
 */
export function decodeRecord(head: Buffer, at: number, size: number, after: number): StreamRecord | StreamEnd {
  if (head.readUInt32LE(0) !== RECORD_MAGIC) throw damaged(at, 'no record begins here');
  if (!isZero(head.subarray(24, RECORD_COVERED))) throw damaged(at + 24, 'reserved bytes are not zero');
  const type = head.readUInt32LE(4);
  const offset = readU53(head, 8, at);
  const length = readU53(head, 16, at);
  if (type === TYPE_END) return { kind: 'end', records: offset, dataBytes: length };
  if (type !== TYPE_DATA && type !== TYPE_HOLE) throw damaged(at + 4, `a record of type ${type}`);
  if (offset % SECTOR_BYTES !== 0 || length % SECTOR_BYTES !== 0 || length === 0) {
    throw damaged(at + 8, 'an extent that is not whole sectors');
  }
  if (offset < after) throw damaged(at + 8, 'an extent that overlaps or precedes the one before');
  if (length > size || offset > size - length) throw damaged(at + 8, 'an extent beyond the end of the target');
  if (type === TYPE_DATA && length > STREAM_DATA_MAX) throw damaged(at + 16, `a data record of ${length} bytes`);
  return { kind: type === TYPE_DATA ? 'data' : 'hole', offset, length };
}

export function checkRecordDigest(head: Buffer, data: Buffer | null, at: number): void {
  if (!recordDigest(head, data).equals(head.subarray(RECORD_COVERED))) throw damaged(at, 'a record fails its checksum');
}

/** Checks the end record against what was seen before it. `whole` has seen every byte before the end record. */
export function checkEnd(
  head: Buffer,
  end: StreamEnd,
  seen: Omit<StreamEnd, 'kind'>,
  whole: WholeHash,
  at: number,
): void {
  whole.update(head.subarray(0, RECORD_COVERED));
  if (!whole.digest().equals(head.subarray(RECORD_COVERED))) throw damaged(at, 'the whole fails its checksum');
  if (end.records !== seen.records || end.dataBytes !== seen.dataBytes) {
    throw damaged(at, `${seen.records} records where ${end.records} were written`);
  }
}

function readU53(head: Buffer, field: number, at: number): number {
  const value = head.readBigUInt64LE(field);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw damaged(at + field, 'a number beyond every bound');
  return Number(value);
}

// --- hashes ------------------------------------------------------------------------------------------

export class WholeHash {
  private readonly hasher = Blake3Hasher.newDeriveKey(CONTEXT_WHOLE);

  update(bytes: Buffer): void {
    this.hasher.update(bytes);
  }

  digest(): Buffer {
    return this.hasher.digestBuffer();
  }
}

function recordDigest(head: Buffer, data: Buffer | null): Buffer {
  const covered = head.subarray(0, RECORD_COVERED);
  return data === null ? digestOf(CONTEXT_RECORD, covered) : digestOf(CONTEXT_RECORD, covered, data);
}

function digestOf(context: string, ...parts: Buffer[]): Buffer {
  const hasher = Blake3Hasher.newDeriveKey(context);
  for (const part of parts) hasher.update(part);
  return hasher.digestBuffer();
}

const ZEROES = Buffer.alloc(64 * 1024);

export function isZero(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += ZEROES.length) {
    const piece = bytes.subarray(at, at + ZEROES.length);
    if (piece.compare(ZEROES, 0, piece.length) !== 0) return false;
  }
  return true;
}
