/** What a group of leaves is, at its bounds. */
import { expect, it } from 'vitest';
import { GROUP_LEAVES_MAX, SealWalk } from '../../src/xseg/mapper/seal-walk.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { ZEROES } from '../../src/xseg/page-table.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';

const native = loadNative();

function page(id: number, level: number, values: number[]): Buffer {
  const entries = new Uint32Array(1024);
  for (const [i, value] of values.entries()) {
    entries[i * 2] = value % 2 ** 32;
    entries[i * 2 + 1] = Math.floor(value / 2 ** 32);
  }
  const blob = Buffer.alloc(8192);
  const length = native.encodePageFrom(entries, level, id, 0, 7, 1, values.length * 512 ** level, blob, 0);
  return blob.subarray(0, length);
}

/** Leaves in the first group of a snapshot that has `count` of them, each with these entries. */
function firstGroup(count: number, entries: (leaf: number) => number[], slotsMax: number): number {
  const leaves = Array.from({ length: count }, (_, i) => 1000 + i);
  const pages = new Map(leaves.map((id, i) => [id, page(id, 0, entries(i))]));
  pages.set(1, page(1, 1, leaves));
  const reader = { page: (id: number) => pages.get(id), seal: { page: () => undefined } } as unknown as StoreReader;
  const walk = new SealWalk(reader, native, 1, 1, 1, slotsMax, () => undefined);
  for (let step = walk.step(); step !== 'group'; step = walk.step()) expect(step).toBe('more');
  return walk.leaves.length;
}

it('has as many slots as it may', () => {
  const full = (leaf: number) => Array.from({ length: 512 }, (_, i) => 1 + leaf * 512 + i);
  expect(firstGroup(8, full, 2048)).toBe(4);
  expect(firstGroup(8, full, 2047)).toBe(3);
  expect(firstGroup(8, full, 1)).toBe(1);
});

it.each([
  ['one slot each', (leaf: number) => [1 + leaf]],
  ['nothing but zeroes', () => [ZEROES, ZEROES]],
])('has as many leaves as it may when they have %s', (_, entries) => {
  expect(firstGroup(GROUP_LEAVES_MAX, entries, 2048)).toBe(GROUP_LEAVES_MAX);
  expect(firstGroup(GROUP_LEAVES_MAX + 1, entries, 2048)).toBe(GROUP_LEAVES_MAX);
});
