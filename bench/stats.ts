/**
 * The statistics of the reports. All pure.
 */

/** @param values at least one */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/**
 * The `q` quantile, interpolated between the two nearest ranks.
 *
 * @param values at least one, in any order
 * @param q 0..1
 */
export function quantile(values: readonly number[], q: number): number {
  if (values.length === 0) throw new RangeError('quantile of no values');
  if (q < 0 || q > 1) throw new RangeError(`quantile ${q} is not in 0..1`);
  const sorted = [...values].sort((a, b) => a - b);
  const at = q * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low]! + (sorted[high]! - sorted[low]!) * (at - low);
}

/**
 * The smallest value that at least `q` of all values do not exceed. For latencies: it is one that happened,
 * and p99 of fewer than 100 values is their maximum.
 */
export function nearestRank(values: readonly number[], q: number): number {
  if (values.length === 0) throw new RangeError('rank of no values');
  if (q < 0 || q > 1) throw new RangeError(`rank ${q} is not in 0..1`);
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(q * sorted.length) - 1)]!;
}

export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** @param values at least one */
export function spread(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) };
}

/**
 * Ratios of values that were measured in the same round: what drifts over the run (page cache, a neighbour on the
 * machine) hits both and cancels out, which a ratio of two medians does not give.
 */
export function pairedRatios(ours: readonly number[], theirs: readonly number[]): number[] {
  if (ours.length !== theirs.length)
    throw new RangeError(`${ours.length} values cannot be paired with ${theirs.length}`);
  return ours.map((value, round) => value / theirs[round]!);
}

/** `items` rotated left by `by`, so that over the rounds each comes first, second, … equally often. */
export function rotate<T>(items: readonly T[], by: number): T[] {
  if (items.length === 0) return [];
  const shift = by % items.length;
  return [...items.slice(shift), ...items.slice(0, shift)];
}
