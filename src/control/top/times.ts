/** Times out of distributions: how many, and within what half of them and 99 % of them were done. */
import type { Distribution } from '../../xseg/activity.ts';

/** milliseconds; null when nothing was timed */
export interface Times {
  perSecond: number;
  p50Ms: number | null;
  p99Ms: number | null;
}

/** What `after` has more than `before`. Both of one daemon. */
export function difference(before: Distribution, after: Distribution): Distribution {
  return {
    counts: after.counts.map((count, bucket) => count - (before.counts[bucket] ?? 0)),
    sum: after.sum - before.sum,
  };
}

export function countOf({ counts }: Distribution): number {
  return counts.reduce((sum, count) => sum + count, 0);
}

/**
 * The value that `share` of them do not exceed, taken to be spread evenly in their bucket; the last bucket's lower bound
 * when it is in there. @returns null when there are none
 */
export function quantile({ counts }: Distribution, share: number): number | null {
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (all === 0) return null;
  let left = all * share;
  for (let bucket = 0; bucket < counts.length; bucket++) {
    const count = counts[bucket]!;
    if (count > 0 && left <= count) {
      const low = bucket === 0 ? 0 : 2 ** (bucket - 1);
      const high = bucket === counts.length - 1 ? low : 2 ** bucket;
      return low + ((high - low) * left) / count;
    }
    left -= count;
  }
  return 2 ** (counts.length - 2);
}

/** @param distribution microseconds */
export function timesOf(distribution: Distribution, seconds: number): Times {
  const ms = (share: number) => {
    const us = quantile(distribution, share);
    return us === null ? null : us / 1000;
  };
  return { perSecond: countOf(distribution) / seconds, p50Ms: ms(0.5), p99Ms: ms(0.99) };
}
