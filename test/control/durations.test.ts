import { describe, expect, it } from 'vitest';
import { parseDuration } from '../../src/control/durations.ts';

describe('times', () => {
  it('are a number and a unit', () => {
    const read = ['0', '1ms', '30s', '5m', '2h', '1d', '999999999s'].map(parseDuration);
    expect(read).toEqual([0, 1, 30_000, 300_000, 7_200_000, 86_400_000, 999_999_999_000]);
  });

  it('are refused in one line when they are none', () => {
    for (const text of ['', '5', '-1s', '1.5h', '5 m', 'm', '5M', '1000000000s', `${'9'.repeat(100)}s`]) {
      expect(() => parseDuration(text)).toThrow(expect.objectContaining({ code: 'INVALID' }));
      expect(() => parseDuration(text)).toThrow(/^.{1,120}$/);
    }
  });
});
