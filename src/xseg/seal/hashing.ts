/** The hashing pool: jobs of the mapper on piscina's threads. Lives on the main thread, since the mapper's has no events. */
import type { Piscina } from 'piscina';
import type { HashJob, HashResult } from './job.ts';

/** A job that was lost with its thread is run again so often. */
const TRIES_MAX = 3;
/** A thread that had nothing to do for so long ends, with its memory. */
const IDLE_MS = 30_000;

export class Hashing {
  /** its library is loaded for the first job */
  #pool: Promise<Piscina> | null = null;
  #closing = false;

  constructor(readonly threads = 1) {}

  /** @throws when the job could not be run TRIES_MAX times, or this is closed */
  async run(job: HashJob): Promise<HashResult> {
    for (let tries = 1; ; tries++) {
      if (this.#closing) throw new Error('closing');
      this.#pool ??= this.#start();
      try {
        return (await (await this.#pool).run(job, { name: 'hashSlots' })) as HashResult;
      } catch (error) {
        if (this.#closing || tries >= TRIES_MAX) throw error;
      }
    }
  }

  async #start(): Promise<Piscina> {
    const { Piscina } = await import('piscina');
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    return new Piscina({
      filename: new URL(`hash-worker.${extension}`, import.meta.url).href,
      minThreads: 0,
      maxThreads: this.threads,
      idleTimeout: IDLE_MS,
      // guests come first
      niceIncrement: 10,
    });
  }

  async close(): Promise<void> {
    this.#closing = true;
    await (await this.#pool)?.destroy();
  }
}
