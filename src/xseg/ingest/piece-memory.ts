/**
 * The memory that pieces of all ingests share. Who asks first is served first. An ingest that waits for its sender holds one
 * piece at most, and what is on its way comes back whatever others do: nobody waits for ever. Of the main thread.
 */
import { PIECE_BYTES_MAX, PIECES_ALL_MAX } from './job.ts';

export class PieceMemory {
  #free: SharedArrayBuffer[] = [];
  #made = 0;
  #waiting: ((memory: SharedArrayBuffer) => void)[] = [];

  /** PIECE_BYTES_MAX of it, with whatever was in it; only what is touched takes memory. */
  async take(): Promise<SharedArrayBuffer> {
    const memory = this.#free.pop();
    if (memory !== undefined) return memory;
    if (this.#made === PIECES_ALL_MAX) return new Promise((resolve) => this.#waiting.push(resolve));
    this.#made++;
    return new SharedArrayBuffer(PIECE_BYTES_MAX);
  }

  give(memory: SharedArrayBuffer): void {
    const next = this.#waiting.shift();
    if (next !== undefined) next(memory);
    else this.#free.push(memory);
  }

  /** Nobody needs any now: what came back is let go. */
  trim(): void {
    this.#made -= this.#free.length;
    this.#free = [];
  }
}
