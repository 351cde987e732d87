/** Writes a backup stream (docs/stream.md) to a file. */
import type { FileHandle } from 'node:fs/promises';
import type { Run } from '../nbd/allocated.ts';
import { ordered } from '../ordered.ts';
import {
  encodeEnd,
  encodeHeader,
  encodeRecord,
  isZero,
  type StreamHeader,
  type StreamRecord,
  WholeHash,
} from './format.ts';

/** one read, and the longest record that we write */
const READ_BYTES = 1 << 20;
const READ_DEPTH = 8;
/** zeroes are looked for in pieces of this: finer costs more records than it saves bytes */
const GRANULE = 65536;

/** A piece of the target: `data` false when it is known to be zero. */
export interface TargetExtent extends Run {
  data: boolean;
}

export interface WriteOptions {
  out: FileHandle;
  header: StreamHeader;
  /** ascending, not overlapping */
  extents: AsyncIterable<TargetExtent>;
  read: (offset: number, length: number) => Promise<Buffer>;
  /** end of what was written, in bytes of the target */
  onProgress: (offset: number) => void;
}

export interface StreamTotals {
  records: number;
  dataBytes: number;
  fileBytes: number;
}

interface Piece extends Run {
  bytes: Buffer | null;
}

export async function writeStream(options: WriteOptions): Promise<StreamTotals> {
  const sink = new StreamSink(options.out, options.header.kind === 'incremental');
  await sink.put(encodeHeader(options.header));
  const pieces = ordered(piecesOf(options.extents), READ_DEPTH, async (piece): Promise<Piece> => {
    const { offset, length, data } = piece;
    return { offset, length, bytes: data ? await options.read(offset, length) : null };
  });
  for await (const piece of pieces) {
    if (piece.bytes) await sink.data(piece.offset, piece.bytes);
    else await sink.hole(piece.offset, piece.length);
    options.onProgress(piece.offset + piece.length);
  }
  return sink.end();
}

async function* piecesOf(extents: AsyncIterable<TargetExtent>): AsyncGenerator<TargetExtent> {
  for await (const extent of extents) {
    if (!extent.data) {
      yield extent;
      continue;
    }
    const end = extent.offset + extent.length;
    // Pieces end at multiples of READ_BYTES, so that granules fall on blocks of the pool.
    for (let offset = extent.offset; offset < end; ) {
      const next = Math.min(end, (Math.floor(offset / READ_BYTES) + 1) * READ_BYTES);
      yield { offset, length: next - offset, data: true };
      offset = next;
    }
  }
}

class StreamSink {
  private readonly whole = new WholeHash();
  private records = 0;
  private dataBytes = 0;
  private fileBytes = 0;
  /** a hole that the next one may make longer */
  private pendingHole: StreamRecord | null = null;

  constructor(
    private readonly out: FileHandle,
    /** full streams leave holes out: what is not there is zero */
    private readonly keepHoles: boolean,
  ) {}

  async data(offset: number, bytes: Buffer): Promise<void> {
    let at = 0;
    while (at < bytes.length) {
      const zero = this.granuleIsZero(bytes, at);
      let end = at;
      while (end < bytes.length && this.granuleIsZero(bytes, end) === zero) end += GRANULE;
      end = Math.min(end, bytes.length);
      if (zero) await this.hole(offset + at, end - at);
      else await this.dataRecord(offset + at, bytes.subarray(at, end));
      at = end;
    }
  }

  async hole(offset: number, length: number): Promise<void> {
    if (!this.keepHoles) return;
    const before = this.pendingHole;
    if (before && before.offset + before.length === offset) {
      before.length += length;
      return;
    }
    await this.flushHole();
    this.pendingHole = { kind: 'hole', offset, length };
  }

  async end(): Promise<StreamTotals> {
    await this.flushHole();
    const { records, dataBytes } = this;
    const end = encodeEnd({ records, dataBytes }, this.whole);
    await this.write([end]);
    return { records, dataBytes, fileBytes: this.fileBytes };
  }

  async put(...parts: Buffer[]): Promise<void> {
    for (const part of parts) this.whole.update(part);
    await this.write(parts);
  }

  private async dataRecord(offset: number, bytes: Buffer): Promise<void> {
    await this.flushHole();
    this.records++;
    this.dataBytes += bytes.length;
    await this.put(encodeRecord({ kind: 'data', offset, length: bytes.length }, bytes), bytes);
  }

  private async flushHole(): Promise<void> {
    const hole = this.pendingHole;
    this.pendingHole = null;
    if (!hole) return;
    this.records++;
    await this.put(encodeRecord(hole, null));
  }

  private granuleIsZero(bytes: Buffer, at: number): boolean {
    return isZero(bytes.subarray(at, at + GRANULE));
  }

  private async write(parts: Buffer[]): Promise<void> {
    for (const part of parts) {
      let at = 0;
      while (at < part.length) {
        const { bytesWritten } = await this.out.write(part, at, part.length - at);
        at += bytesWritten;
      }
      this.fileBytes += part.length;
    }
  }
}
