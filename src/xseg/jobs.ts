/** Pure jobs of the engine on piscina's threads: hashing. Lives on the main thread, since the mapper's has no events. */
import type { Piscina } from 'piscina';

/** A job is begun so often at most: one that was lost with its thread, or that failed by itself, is run again. */
export const TRIES_MAX = 3;
/** A thread that had nothing to do for so long ends, with its memory. */
const IDLE_MS = 30_000;

export class Jobs {
  /** its library is loaded for the first job */
  #pool: Promise<Piscina> | null = null;
  #closing = false;

  /**
   * @param file compiled or not, what the threads run; its jobs can be run again
   * @param nice 0: beside guests; 10: guests come first
   */
  constructor(
    readonly file: URL,
    readonly threads: number,
    readonly nice: number,
  ) {}

  /**
   * @param name of the file's function
   * @throws the last try's error when TRIES_MAX failed, or this is closed
   */
  async run<T>(name: string, job: unknown): Promise<T> {
    for (let tries = 1; ; tries++) {
      if (this.#closing) throw new Error('closing');
      this.#pool ??= this.#start();
      try {
        return (await (await this.#pool).run(job, { name })) as T;
      } catch (error) {
        if (this.#closing || tries >= TRIES_MAX) throw error;
      }
    }
  }

  async #start(): Promise<Piscina> {
    const { Piscina } = await import('piscina');
    const pool = new Piscina({
      filename: this.file.href,
      minThreads: 0,
      maxThreads: this.threads,
      idleTimeout: IDLE_MS,
      niceIncrement: this.nice,
    });
    // A thread that ends before it is ready fails no job: those that wait for one would wait for ever.
    const look = () =>
      setImmediate(() => {
        if (pool.threads.length > 0 || pool.queueSize === 0) return;
        this.#pool = null;
        void pool.destroy();
      });
    pool.on('workerDestroy', look);
    // Also when one cannot even be made, which would end the process if nobody listened.
    pool.on('error', look);
    return pool;
  }

  async close(): Promise<void> {
    this.#closing = true;
    await (await this.#pool)?.destroy();
  }
}
