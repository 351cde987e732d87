import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { median, nearestRank, pairedRatios, quantile, rotate, spread } from '../../bench/stats.ts';

const values = fc.array(fc.double({ min: -1e9, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 50 });

describe('bench statistics', () => {
  it('takes the middle, or the mean of the two in the middle, whatever the order', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(median([5])).toBe(5);
  });

  it('interpolates quantiles', () => {
    expect(quantile([0, 10], 0.25)).toBe(2.5);
    expect(quantile([1, 2, 3], 0)).toBe(1);
    expect(quantile([1, 2, 3], 1)).toBe(3);
  });

  it('takes a rank that happened: p99 of 100 is the 99th, of fewer the largest', () => {
    const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
    expect(nearestRank(hundred, 0.99)).toBe(99);
    expect(nearestRank(hundred.slice(0, 50), 0.99)).toBe(100);
    expect(nearestRank([7], 0)).toBe(7);
  });

  it('refuses no values and quantiles beyond 0..1', () => {
    expect(() => median([])).toThrow(RangeError);
    expect(() => nearestRank([], 0.5)).toThrow(RangeError);
    expect(() => quantile([1], 1.1)).toThrow(RangeError);
    expect(() => nearestRank([1], -0.1)).toThrow(RangeError);
  });

  it('pairs what was measured in the same round', () => {
    expect(pairedRatios([10, 30], [5, 10])).toEqual([2, 3]);
    expect(() => pairedRatios([1], [1, 2])).toThrow(RangeError);
  });

  it('gives every contender every place as often', () => {
    const orders = [0, 1, 2].map((round) => rotate(['a', 'b', 'c'], round).join(''));
    expect(orders).toEqual(['abc', 'bca', 'cab']);
    expect(rotate([], 3)).toEqual([]);
    expect(rotate(['a', 'b'], 5)).toEqual(['b', 'a']);
  });

  it('does not change its input, and stays within it', () => {
    fc.assert(
      fc.property(values, fc.double({ min: 0, max: 1, noNaN: true }), (list, q) => {
        const before = [...list];
        const { min, max, median: middle } = spread(list);
        expect(list).toEqual(before);
        expect(list).toContain(nearestRank(list, q));
        expect(middle).toBeGreaterThanOrEqual(min);
        expect(middle).toBeLessThanOrEqual(max);
        const at = nearestRank(list, q);
        expect(list.filter((value) => value <= at).length).toBeGreaterThanOrEqual(q * list.length - 1e-9);
      }),
    );
  });
});
