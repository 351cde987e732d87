/**
 * What of a piece its thread reads itself, from files that the daemon has open. In steps, so that what was read is hashed
 * while the processor's cache has it.
 */
import { readSync } from 'node:fs';
import { type FileRead, STEP_BYTES } from './job.ts';

export class Filling {
  #next = 0;
  /** bytes of the next one that are there */
  #done = 0;

  /** @param reads in the order of their places */
  constructor(
    readonly reads: readonly FileRead[],
    readonly bytes: Buffer,
  ) {}

  /** Bytes before `end` are there. @throws what reading threw, and when a file has become shorter */
  until(end: number): void {
    for (let read = this.reads[this.#next]; read !== undefined; read = this.reads[this.#next]) {
      const at = read.at + this.#done;
      if (at >= end) return;
      const position = read.position + this.#done;
      const count = readSync(read.file, this.bytes, at, Math.min(STEP_BYTES, read.length - this.#done), position);
      if (count === 0) throw new Error(`it ended at byte ${position} while it was read`);
      this.#done += count;
      if (this.#done < read.length) continue;
      this.#next++;
      this.#done = 0;
    }
  }
}
