/** What is written: values that nobody else writes, and patterns that many do. */
import type { Rng } from '../rng.ts';

/** Values that many writes have: so many blocks of bytes that are all over the place. */
const PATTERN_MIN = 0xc0000000;

export class Values {
  #next = 1;

  /** @param patterns how many there are */
  constructor(
    readonly rng: Rng,
    readonly patterns: number,
  ) {}

  /** The first of `count` values that follow each other. */
  fresh(count: number): number {
    const first = this.#next;
    this.#next += count;
    return first;
  }

  /** First value of a pattern that begins `inside` sectors into a block; it begins anew with every block. */
  pattern(inside: number): number {
    // blocks that begin anywhere else hold something else
    return PATTERN_MIN + this.rng.int(this.patterns) * 2 ** 20 + inside * 2 ** 10;
  }
}
