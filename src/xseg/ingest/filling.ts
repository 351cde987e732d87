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

  /** One file has all of so many bytes: what was read can be read again. */
  covers(length: number): boolean {
    const [read] = this.reads;
    return this.reads.length === 1 && read.at === 0 && read.length === length;
  }

  /**
   * Bytes before `end` are there, and maybe some before `stop`.
   * @param back how many bytes before their place they go to
   * @throws what reading threw, and when a file has become shorter
   */
  until(end: number, stop: number, back: number): void {
    for (let read = this.reads[this.#next]; read !== undefined; read = this.reads[this.#next]) {
      const at = read.at + this.#done;
      if (at >= end) return;
      const most = Math.min(STEP_BYTES, read.length - this.#done, stop - at);
      this.#done += readSome(read.file, this.bytes, at - back, most, read.position + this.#done);
      if (this.#done < read.length) continue;
      this.#next++;
      this.#done = 0;
    }
  }
}

/** Reads exactly so much. @throws what reading threw, and when the file has become shorter */
export function readAgain(file: number, into: Buffer, position: number): void {
  for (let done = 0; done < into.length; ) done += readSome(file, into, done, into.length - done, position + done);
}

function readSome(file: number, into: Buffer, at: number, length: number, position: number): number {
  const count = readSync(file, into, at, length, position);
  if (count === 0) throw new Error(`it ended at byte ${position} while it was read`);
  return count;
}
