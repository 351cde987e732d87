import { describe, expect, it } from 'vitest';
import { DURATION_BUCKETS, Histogram } from '../../src/xseg/histogram.ts';

function bucketOf(value: number, buckets = DURATION_BUCKETS): number {
  const histogram = new Histogram(buckets);
  histogram.observe(value);
  const { counts, sum } = histogram.read();
  expect(counts).toHaveLength(buckets);
  expect(counts.reduce((a, b) => a + b)).toBe(1);
  expect(sum).toBe(value);
  return counts.indexOf(1);
}

describe('a histogram', () => {
  it('has bounds that double, each in the bucket below it', () => {
    expect(bucketOf(0)).toBe(0);
    expect(bucketOf(1)).toBe(0);
    for (let i = 1; i < DURATION_BUCKETS - 1; i++) {
      expect(bucketOf(2 ** i)).toBe(i);
      expect(bucketOf(2 ** i - 0.01)).toBe(i);
      expect(bucketOf(2 ** i + 0.01)).toBe(i + 1);
    }
    for (const beyond of [2 ** 25, 2 ** 31, 2 ** 32, 2 ** 40, 1e300])
      expect(bucketOf(beyond)).toBe(DURATION_BUCKETS - 1);
    expect(bucketOf(256, 10)).toBe(8);
    expect(bucketOf(257, 10)).toBe(9);
  });

  it('adds up', () => {
    const histogram = new Histogram(4);
    for (const value of [1, 2, 2, 3, 4, 100]) histogram.observe(value);
    expect(histogram.read()).toEqual({ counts: [1, 2, 2, 1], sum: 112 });
  });
});
