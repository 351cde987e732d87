/**
 * The engine's end of an ingest: takes a stream of bytes, in pieces of shared memory that threads hash and write, and asks the
 * mapper where they go. Bytes are copied once, into a piece; those of open files are read by the threads. On the main thread.
 */
import { EngineError, type Ingest, type IngestSpec, type SnapshotInfo } from '../types.ts';
import {
  type Decided,
  type FileRead,
  type IngestBegun,
  PIECES_MAX,
  type Piece,
  type PieceHashes,
  type PieceJob,
  type PieceWrite,
  pieceBytes,
} from './job.ts';
import type { PieceMemory } from './piece-memory.ts';

/** Largest resource: 1 PiB. */
const SIZE_MAX = 2 ** 50;
/** Sizes are multiples of this. */
const SECTOR_BYTES = 512;

export interface IngestParts {
  core: number;
  storePath: string;
  memory: PieceMemory;
  /** of the mapper */
  call<T>(op: string, ...args: unknown[]): Promise<T>;
  /** on the ingest threads */
  run<T>(name: string, job: unknown): Promise<T>;
  /** it is over, one way or the other */
  ended(): void;
}

export class IngestStream implements Ingest {
  readonly blockSize: number;
  readonly pool: string;
  readonly #pieceBytes: number;
  #position = 0;
  /** pieces that it has */
  #held = 0;
  #piece: Uint8Array | null = null;
  #filled = 0;
  /** what of the piece its thread will read */
  #reads: FileRead[] = [];
  #waiting: (() => void)[] = [];
  /** the mapper is told of pieces in the stream's order */
  #line: Promise<void> = Promise.resolve();
  #out = 0;
  #durable = 0;
  #failed: Error | null = null;
  #end: Promise<unknown> | null = null;
  #over = false;

  constructor(
    readonly begun: IngestBegun,
    readonly spec: IngestSpec,
    readonly parts: IngestParts,
  ) {
    this.blockSize = begun.blockSize;
    this.#pieceBytes = pieceBytes(begun.blockSize);
    this.pool = begun.poolName;
  }

  get position(): number {
    return this.#position;
  }

  /** Takes the bytes that come next. They may be used again when it resolves. */
  async write(bytes: Uint8Array): Promise<void> {
    this.#check(bytes.length);
    for (let at = 0; at < bytes.length; ) {
      const piece = this.#piece ?? (await this.#begin());
      const count = Math.min(bytes.length - at, this.#pieceBytes - this.#filled);
      piece.set(count === bytes.length ? bytes : bytes.subarray(at, at + count), this.#filled);
      this.#filled += count;
      this.#position += count;
      at += count;
      if (this.#filled === this.#pieceBytes) this.#send();
    }
  }

  /** Takes what comes next from an open file. */
  async read(file: number, position: number, length: number): Promise<void> {
    this.#check(length);
    for (let done = 0; done < length; ) {
      if (this.#piece === null) await this.#begin();
      const count = Math.min(length - done, this.#pieceBytes - this.#filled);
      this.#reads.push({ file, position: position + done, at: this.#filled, length: count });
      this.#filled += count;
      this.#position += count;
      done += count;
      if (this.#filled === this.#pieceBytes) this.#send();
    }
  }

  /** Zeroes come next, that nobody has to send. */
  async skip(length: number): Promise<void> {
    this.#check(length);
    let left = length;
    if (this.#filled > 0 || this.#position % this.blockSize !== 0) {
      const piece = this.#piece ?? (await this.#begin());
      const count = Math.min(left, (this.blockSize - (this.#filled % this.blockSize)) % this.blockSize);
      piece.fill(0, this.#filled, this.#filled + count);
      this.#filled += count;
      this.#position += count;
      left -= count;
      if (this.#filled === this.#pieceBytes) this.#send();
    }
    const blocks = Math.floor(left / this.blockSize);
    if (blocks > 0) {
      if (this.#filled > 0) this.#send();
      this.#tell(() => this.parts.call('ingestSkip', this.begun.id, blocks));
      this.#position += blocks * this.blockSize;
      left -= blocks * this.blockSize;
    }
    if (left === 0) return;
    const piece = this.#piece ?? (await this.#begin());
    piece.fill(0, this.#filled, this.#filled + left);
    this.#filled += left;
    this.#position += left;
  }

  #check(length: number): void {
    if (this.#failed !== null) throw this.#failed;
    if (this.#end !== null) throw new EngineError('INVALID', 'the ingest has ended');
    if (this.#position + length > SIZE_MAX) throw new EngineError('TOO_LARGE', 'a snapshot has at most 1 PiB');
  }

  /** A piece to fill, when there is one. */
  async #begin(): Promise<Uint8Array> {
    while (this.#held === PIECES_MAX) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    if (this.#failed !== null) throw this.#failed;
    this.#held++;
    const memory = await this.parts.memory.take();
    this.#filled = 0;
    this.#piece = new Uint8Array(memory);
    if (this.#failed === null) return this.#piece;
    this.#letGo();
    throw this.#failed;
  }

  /** What nobody will fill any more. */
  #letGo(): void {
    if (this.#piece === null) return;
    this.#give(this.#piece.buffer as SharedArrayBuffer);
    this.#piece = null;
    this.#filled = 0;
    this.#reads = [];
  }

  #give(memory: SharedArrayBuffer): void {
    this.#held--;
    this.parts.memory.give(memory);
  }

  /** The piece goes its way: hashed beside others, decided in its turn, written beside others. */
  #send(): void {
    const piece = this.#piece as Uint8Array;
    const { core, storePath } = this.parts;
    const blocks = Math.ceil(this.#filled / this.blockSize);
    piece.fill(0, this.#filled, blocks * this.blockSize);
    const job: PieceJob = {
      ...this.begun.target,
      ...{ core, storePath, bytes: piece.buffer as SharedArrayBuffer, reads: this.#reads, blocks },
    };
    this.#piece = null;
    this.#filled = 0;
    this.#reads = [];
    const seen = this.#durable;
    const hashed = this.#hash(job);
    // heard of when its turn comes
    hashed.catch(() => undefined);
    this.#out++;
    let writing: Promise<void> = Promise.resolve();
    this.#tell(async () => {
      const { places, ...found } = await hashed;
      const told: Piece = { ...found, ingest: this.begun.id, blocks, seen };
      const decided = await this.parts.call<Decided & { piece: number }>('ingestDecide', told);
      this.#durable = decided.durable;
      writing = this.#write({ job, hashed: { hashes: found.hashes, places }, slots: decided.slots }, decided.piece);
      writing.catch(() => undefined);
    });
    const told = this.#line;
    void told
      // the thread may be at it though nobody wants it any more
      .then(() => hashed.catch(() => undefined))
      .then(() => writing)
      .catch((error: Error) => this.#fail(error))
      .then(() => {
        this.#out--;
        this.#give(job.bytes);
        this.#wake();
      });
  }

  async #hash(job: PieceJob): Promise<PieceHashes> {
    try {
      return await this.parts.run<PieceHashes>('hashPiece', job);
    } catch (error) {
      if (job.reads.length === 0) throw error;
      throw new EngineError('IO', `the file could not be read: ${(error as Error).message}`);
    }
  }

  async #write(work: PieceWrite, piece: number): Promise<void> {
    let error: { code: string; message: string } | null = null;
    try {
      if (work.slots.some((slot) => slot >= 0)) error = await this.parts.run('writePiece', work);
    } catch (cause) {
      error = { code: 'EIO', message: (cause as Error).message };
    }
    this.#durable = await this.parts.call<number>('ingestWritten', this.begun.id, piece, error);
    if (error !== null) throw new EngineError('IO', error.message);
  }

  /** In the stream's order; nothing more after a failure. */
  #tell(work: () => Promise<unknown>): void {
    this.#line = this.#line.then(async () => {
      if (this.#failed !== null) return;
      try {
        await work();
      } catch (error) {
        this.#fail(error as Error);
      }
    });
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    this.#wake();
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const run of waiting) run();
  }

  /** All pieces came back. */
  async #drained(): Promise<void> {
    await this.#line;
    while (this.#out > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  finish(): Promise<SnapshotInfo> {
    if (this.#end !== null) throw new EngineError('INVALID', 'the ingest has ended');
    const end = this.#finish();
    this.#end = end.catch(() => undefined);
    return end;
  }

  async #finish(): Promise<SnapshotInfo> {
    if (this.#filled > 0) this.#send();
    await this.#drained();
    try {
      if (this.#failed !== null) throw this.#failed;
      const size = Math.ceil(this.#position / SECTOR_BYTES) * SECTOR_BYTES;
      if (size === 0) throw new EngineError('INVALID', 'nothing came: a snapshot has at least one byte');
      const info = await this.parts.call<SnapshotInfo>('ingestFinish', this.begun.id, size, this.spec);
      this.#close();
      return info;
    } catch (error) {
      await this.#takeBack();
      throw error;
    }
  }

  /** Leaves nothing of it. After `finish` has made the snapshot it does nothing. */
  async abort(): Promise<void> {
    if (this.#end === null) {
      this.#fail(new EngineError('SHUTTING_DOWN', 'the ingest was given up'));
      this.#end = this.#drained().then(() => this.#takeBack());
    }
    await this.#end;
  }

  async #takeBack(): Promise<void> {
    if (!this.#over) await this.parts.call('ingestAbort', this.begun.id);
    this.#close();
  }

  #close(): void {
    if (this.#over) return;
    this.#over = true;
    this.#letGo();
    this.parts.ended();
  }
}
