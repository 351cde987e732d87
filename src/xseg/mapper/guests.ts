/** Whether guests work now: background work takes the whole machine when they do not, and little of it when they do. */
import type { Native } from '../native.ts';

/** Asked more often than this, the answer is the last one. */
const SAMPLE_MS = 20;

export class Guests {
  #at = Number.NEGATIVE_INFINITY;
  #requests = 0;
  #busy = false;

  constructor(
    readonly native: Native,
    readonly core: number,
  ) {}

  /** True when requests came since the last sample. @param now monotonic ms */
  busy(now: number): boolean {
    if (now - this.#at < SAMPLE_MS) return this.#busy;
    let requests = 0;
    for (const reactor of this.native.reactorStats(this.core)) requests += reactor.requests;
    this.#busy = requests !== this.#requests;
    this.#requests = requests;
    this.#at = now;
    return this.#busy;
  }
}
