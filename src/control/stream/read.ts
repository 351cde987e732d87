/** Reads a backup stream (docs/stream.md) from a file, checking everything on the way. */
import type { FileHandle } from 'node:fs/promises';
import {
  checkEnd,
  checkRecordDigest,
  DIGEST_BYTES,
  damaged,
  decodeHeader,
  decodePrologue,
  decodeRecord,
  PROLOGUE_BYTES,
  RECORD_BYTES,
  STREAM_MAGIC,
  type StreamHeader,
  type StreamRecord,
  WholeHash,
} from './format.ts';

const BUFFER_BYTES = 1 << 20;

export interface ReadRecord extends StreamRecord {
  /** null for holes */
  bytes: Buffer | null;
  /** bytes of the file up to the end of this record */
  fileOffset: number;
}

export function isStream(start: Buffer): boolean {
  return start.subarray(0, STREAM_MAGIC.length).equals(STREAM_MAGIC);
}

/** Reads a file from its beginning to its end, knowing where it is. */
class FileSource {
  offset = 0;
  private readonly buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  private start = 0;
  private end = 0;

  constructor(private readonly file: FileHandle) {}

  /** @throws DAMAGED when the file ends before */
  async take(length: number, what: string): Promise<Buffer> {
    const target = Buffer.allocUnsafe(length);
    const at = this.offset;
    const had = await this.fill(target);
    if (had < length) throw damaged(at + had, `the file ends within ${what}`);
    return target;
  }

  async atEnd(): Promise<boolean> {
    return (await this.fill(Buffer.allocUnsafe(1))) === 0;
  }

  private async fill(target: Buffer): Promise<number> {
    let at = 0;
    while (at < target.length) {
      if (this.start === this.end) {
        const { bytesRead } = await this.file.read(this.buffer, 0, BUFFER_BYTES, this.offset);
        if (bytesRead === 0) break;
        this.start = 0;
        this.end = bytesRead;
      }
      const used = this.buffer.copy(target, at, this.start, this.end);
      this.start += used;
      this.offset += used;
      at += used;
    }
    return at;
  }
}

export class StreamReader {
  private constructor(
    private readonly source: FileSource,
    private readonly whole: WholeHash,
    readonly header: StreamHeader,
  ) {}

  /** @throws DAMAGED, FORMAT_NEWER */
  static async open(file: FileHandle): Promise<StreamReader> {
    const source = new FileSource(file);
    const prologue = await source.take(PROLOGUE_BYTES, 'the prologue');
    const json = await source.take(decodePrologue(prologue), 'the header');
    const digest = await source.take(DIGEST_BYTES, 'the header');
    const header = decodeHeader(prologue, json, digest);
    const whole = new WholeHash();
    for (const part of [prologue, json, digest]) whole.update(part);
    return new StreamReader(source, whole, header);
  }

  /** Every record, checked. Ending without an error means that the whole stream is sound. */
  async *records(): AsyncGenerator<ReadRecord> {
    const seen = { records: 0, dataBytes: 0 };
    let after = 0;
    for (;;) {
      const at = this.source.offset;
      const head = await this.source.take(RECORD_BYTES, 'a record');
      const record = decodeRecord(head, at, this.header.size, after);
      if (record.kind === 'end') {
        checkEnd(head, record, seen, this.whole, at);
        if (!(await this.source.atEnd())) throw damaged(at + RECORD_BYTES, 'something follows the end');
        return;
      }
      const bytes = record.kind === 'data' ? await this.source.take(record.length, 'data') : null;
      checkRecordDigest(head, bytes, at);
      this.whole.update(head);
      if (bytes) this.whole.update(bytes);
      seen.records++;
      seen.dataBytes += bytes?.length ?? 0;
      after = record.offset + record.length;
      yield { ...record, bytes, fileOffset: this.source.offset };
    }
  }
}
