/**
 * What an earlier life of the daemon wrote to a pool and may not have synced. When only the daemon died it is in the kernel's
 * cache: clients read it, and a power cut would take it back. So after an unclean stop every file of the pool is synced
 * once, in the background, and what is to be durable waits for that. Files that have nothing to sync cost next to nothing.
 */
import type { Native } from '../native.ts';

/** Files synced at once. */
const PARALLEL_MAX = 4;

export class Leftovers {
  #next = 0;
  #left: number;
  #error = 0;
  #waiting: ((error: number) => void)[] = [];

  constructor(
    readonly native: Native,
    readonly core: number,
    /** native handle of the pool */
    readonly pool: number,
    readonly files: readonly number[],
    readonly ticket: (done: (error: number) => void) => number,
  ) {
    this.#left = files.length;
    for (let i = 0; i < PARALLEL_MAX; i++) this.#sync();
  }

  get done(): boolean {
    return this.#left === 0;
  }

  /** Runs `run` when all is durable (0) or one file could not be made so (errno). */
  whenDone(run: (error: number) => void): void {
    if (this.done) run(this.#error);
    else this.#waiting.push(run);
  }

  #sync(): void {
    if (this.#next === this.files.length) return;
    const file = this.files[this.#next++];
    const ticket = this.ticket((error) => {
      this.#error ||= error;
      this.#left--;
      this.#sync();
      if (this.done) for (const run of this.#waiting.splice(0)) run(this.#error);
    });
    this.native.syncFile(this.core, this.pool, file, ticket);
  }
}
