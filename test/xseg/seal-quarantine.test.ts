/** Quarantine and the leaves that carry its bit. */
import { afterEach, beforeEach, expect, it } from 'vitest';
import { BAD, Frames, OWNED } from '../../src/xseg/mapper/frames.ts';
import { Quarantine } from '../../src/xseg/mapper/quarantine.ts';
import type { Resource } from '../../src/xseg/mapper/resource.ts';
import { loadNative } from '../../src/xseg/native.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';

const native = loadNative();
const POOL = 1;
const HANDLE = 3;
let core: number;
let frames: Frames;
let quarantine: Quarantine;
beforeEach(() => {
  core = native.createCore({ reactors: 1, frames: 64, spinUs: 0, ioThreads: 1, ioUring: false });
  frames = new Frames(native, core);
  const reader = { seal: { bad: () => [] } } as unknown as StoreReader;
  const resource = { row: { pool: POOL } } as unknown as Resource;
  quarantine = new Quarantine(frames, reader, () => resource);
  quarantine.addPool(POOL);
});
afterEach(() => native.destroyCore(core));

const leaf = (slot: number): number => {
  const frame = frames.allocate(10);
  native.clearFrame(core, frame);
  frames.set(frame, 0, slot + 1, OWNED);
  return frame;
};
const show = (frame: number) => {
  quarantine.mark(POOL, frame);
  frames.hash(HANDLE, 0, frame);
};

it('a slot that got well while nobody saw a leaf that names it is read again when the leaf is shown', () => {
  const frame = leaf(5);
  show(frame);
  quarantine.add(POOL, 5);
  expect(frames.flags(frame, 0)).toBe(OWNED | BAD);
  frames.unhashRange(HANDLE, 0, 1);
  quarantine.remove(POOL, 5);
  show(frame);
  expect(frames.flags(frame, 0)).toBe(OWNED);
});

it('a slot that is found damaged while its end is on its way is not bad for who has it next', () => {
  quarantine.add(POOL, 5);
  quarantine.add(POOL, 9);
  quarantine.freed(POOL, [4, 2]);
  expect(quarantine.slots(POOL)).toEqual([9]);
  const frame = leaf(5);
  show(frame);
  expect(frames.flags(frame, 0)).toBe(OWNED);
});
