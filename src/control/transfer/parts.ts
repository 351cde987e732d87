/** The bytes of an image in large parts, in order: what an ingest is sent. What lies between two parts is zeroes. */
import { ControlError } from '../errors.ts';
import { allocated, type Run } from '../nbd/allocated.ts';
import type { NbdClient } from '../nbd/client.ts';
import { ordered } from '../ordered.ts';
import { roundUpToSector } from '../sizes.ts';
import type { StreamReader } from '../stream/read.ts';
import { interrupted } from './qemu-tool.ts';
import type { ImageSource } from './source.ts';

export interface Part {
  offset: number;
  /** stays as it is until the part after the next is asked for */
  bytes: Buffer;
}

/** Bytes of a part at most. */
export const PART_BYTES = 16 * 1024 * 1024;
/** Fewer zeroes between two pieces are sent as part of them: cheaper than one request more. */
export const GAP_BYTES = 1024 * 1024;
/** Bytes of a read over NBD, and reads on their way. */
const READ_BYTES = 1024 * 1024;
const READ_DEPTH = 8;
/** Of an image in a file, of which all is asked for at once: its clusters may be sectors, every other of them a hole. */
const WINDOW_BYTES = 256 * 1024 * 1024;

/** One is filled while the other is sent. */
class Buffers {
  private turn = 0;
  private readonly both = [Buffer.allocUnsafe(PART_BYTES), Buffer.allocUnsafe(PART_BYTES)];

  next(): Buffer {
    return this.both[this.turn++ % 2]!;
  }
}

/** Of a raw image, which may end inside its last sector. @throws DAMAGED where it ends before that */
export async function* rawParts(source: ImageSource): AsyncGenerator<Part> {
  const buffers = new Buffers();
  for (let offset = 0; offset < source.size; ) {
    const buffer = buffers.next();
    const wanted = Math.min(PART_BYTES, source.size - offset);
    const length = await fill(source, buffer, offset, wanted);
    const end = offset + length;
    if (length < wanted && roundUpToSector(end) !== source.size)
      throw new ControlError('DAMAGED', `${source.path} became shorter while it was read`);
    yield { offset, bytes: buffer.subarray(0, length) };
    if (length < wanted) return;
    offset = end;
  }
}

/** @returns bytes read; fewer than wanted at the end of a file only */
async function fill({ file }: ImageSource, buffer: Buffer, at: number, wanted: number): Promise<number> {
  let length = 0;
  while (length < wanted) {
    const { bytesRead } = await file.read(buffer, length, wanted - length, at + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return length;
}

/** Of an image that qemu-nbd serves: what may be other than zeroes. */
export function nbdParts(nbd: NbdClient): AsyncGenerator<Part> {
  const read = async ({ offset, length }: Run): Promise<Part> => ({ offset, bytes: await nbd.read(offset, length) });
  return gathered(ordered(reads(nbd), READ_DEPTH, read));
}

async function* reads(nbd: NbdClient): AsyncGenerator<Run> {
  const most = Math.min(READ_BYTES, nbd.payloadMax);
  for await (const { offset, length } of allocated(nbd, WINDOW_BYTES)) {
    for (let at = 0; at < length; at += most) yield { offset: offset + at, length: Math.min(most, length - at) };
  }
}

/** Of a full stream. What ends without an error was a sound one. */
export function streamParts(reader: StreamReader, signal: AbortSignal): AsyncGenerator<Part> {
  return gathered(dataOf(reader, signal));
}

async function* dataOf(reader: StreamReader, signal: AbortSignal): AsyncGenerator<Part> {
  for await (const { offset, bytes } of reader.records()) {
    if (signal.aborted) throw interrupted();
    if (bytes !== null) yield { offset, bytes };
  }
}

/** Says in errors whose parts they are. */
export async function* named(path: string, parts: AsyncIterable<Part>): AsyncGenerator<Part> {
  try {
    yield* parts;
  } catch (error) {
    if (!(error instanceof ControlError) || error.code === 'INTERRUPTED') throw error;
    throw new ControlError(error.code, `${path}: ${error.message}`);
  }
}

/** Pieces, ascending and each of PART_BYTES at most, become parts: what is adjacent or nearly so goes together. */
export async function* gathered(pieces: AsyncIterable<Part>): AsyncGenerator<Part> {
  const buffers = new Buffers();
  let part: { offset: number; buffer: Buffer; length: number } | null = null;
  for await (const { offset, bytes } of pieces) {
    const end = part === null ? 0 : part.offset + part.length;
    const gap = offset - end;
    if (part === null || gap >= GAP_BYTES || part.length + gap + bytes.length > PART_BYTES) {
      if (part !== null) yield { offset: part.offset, bytes: part.buffer.subarray(0, part.length) };
      part = { offset, buffer: buffers.next(), length: 0 };
    } else {
      part.buffer.fill(0, part.length, part.length + gap);
      part.length += gap;
    }
    part.length += bytes.copy(part.buffer, part.length);
  }
  if (part !== null) yield { offset: part.offset, bytes: part.buffer.subarray(0, part.length) };
}
