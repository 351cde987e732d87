import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { giveBackRegularly } from '../../src/xseg/giving-back.ts';

const MINUTE_MS = 60_000;

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('caches are given back once a minute until it is ended', () => {
  let times = 0;
  const end = giveBackRegularly(() => void times++);
  vi.advanceTimersByTime(MINUTE_MS - 1);
  expect(times).toBe(0);
  vi.advanceTimersByTime(1);
  expect(times).toBe(1);
  vi.advanceTimersByTime(3 * MINUTE_MS);
  expect(times).toBe(4);
  end();
  vi.advanceTimersByTime(3 * MINUTE_MS);
  expect(times).toBe(4);
});
