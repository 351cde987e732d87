/** What frames are not to be had for others: pages that are not durable yet, and those that never will be. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Frames, UNSETTLED_SHARE_MAX } from '../../src/xseg/mapper/frames.ts';
import { loadNative } from '../../src/xseg/native.ts';

const native = loadNative();
const COUNT = 64;
let core: number;
beforeEach(() => {
  core = native.createCore({ reactors: 1, frames: COUNT, spinUs: 0, ioThreads: 1, ioUring: false });
});
afterEach(() => native.destroyCore(core));

it('are as many as leave some for what others read, whatever a disk does that does not answer', () => {
  const f = new Frames(native, core);
  let page = 1;
  const fly = () => {
    const frame = f.allocate(page++);
    f.fly(frame);
    f.fly(frame); // two batches have it: it is one frame
    return frame;
  };
  const flying: number[] = [];
  for (const most = Math.ceil(COUNT * UNSETTLED_SHARE_MAX); flying.length < most; flying.push(fly()))
    expect([flying.length, f.crowded]).toEqual([flying.length, false]);
  expect(f.crowded).toBe(true);
  // what was changed again meanwhile is one frame
  const unsettled = f.unsettledCount;
  f.markDirty(flying[1]);
  expect(f.unsettledCount).toBe(unsettled);
  f.markClean(flying[1]);
  expect(f.unsettledCount).toBe(unsettled);
  // changed ones count as well
  f.land(flying[0]);
  f.land(flying[0]);
  expect(f.crowded).toBe(false);
  f.markDirty(flying[0]);
  expect(f.crowded).toBe(true);
  f.markClean(flying[0]);
  // their volume fails: they stay, and others have the rest, but for as much of that
  for (const frame of flying.slice(1)) f.lose(frame);
  expect([f.crowded, f.lostCount, f.unsettledCount]).toEqual([false, flying.length - 1, flying.length - 1]);
  const rest = Math.ceil((COUNT - f.lostCount) * UNSETTLED_SHARE_MAX);
  const others: number[] = [];
  for (; others.length < rest; others.push(fly())) expect([others.length, f.crowded]).toEqual([others.length, false]);
  expect(f.crowded).toBe(true);
  // and is deleted
  for (const frame of flying.slice(1)) f.forget(frame);
  expect([f.crowded, f.lostCount, f.unsettledCount]).toEqual([false, 0, others.length]);
  expect(flying.slice(1).some((frame) => f.byPage.get(frame) !== undefined && f.pageId[frame] !== 0)).toBe(false);
  for (const frame of others) for (let i = 0; i < 2; i++) f.land(frame);
  expect(f.unsettledCount).toBe(0);
});
