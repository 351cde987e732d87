/**
 * Counts of how long things took, or of how many there were, in buckets whose bounds double (`Distribution`). Observing is
 * a few instructions and allocates nothing. Belongs to the thread that observes.
 */
import type { Distribution } from './activity.ts';

/** Bounds 1 µs … 2^24 µs (17 s), and one bucket beyond; native/latency.h has the same. */
export const DURATION_BUCKETS = 26;
/** beyond it Math.clz32 would see other bits */
const VALUE_MAX = 2 ** 31;

export class Histogram {
  readonly #counts: Float64Array;
  #sum = 0;

  /** @param buckets the last one has no bound; 2..32 */
  constructor(readonly buckets: number) {
    this.#counts = new Float64Array(buckets);
  }

  /** @param value microseconds, or a count; not negative */
  observe(value: number): void {
    this.#counts[
      value <= 1 ? 0 : Math.min(this.buckets - 1, 32 - Math.clz32(Math.ceil(Math.min(value, VALUE_MAX)) - 1))
    ]++;
    this.#sum += value;
  }

  read(): Distribution {
    return { counts: [...this.#counts], sum: this.#sum };
  }
}
