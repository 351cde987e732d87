import { describe, expect, it } from 'vitest';
import { random } from '../../../bench/scatter.ts';
import { COPY_RANGES_MAX, SnapshotCopy } from '../../../src/frontends/fuse/snapshot-copy.ts';

const BLOCK = 4096;

describe('a copy of a snapshot in pieces', () => {
  it('takes whole blocks, and the end of the snapshot', () => {
    const copy = new SnapshotCopy({ id: 1, size: 10 * BLOCK + 512 }, BLOCK);
    expect(copy.add(BLOCK, BLOCK)).toBe(BLOCK);
    expect(copy.size).toBe(2 * BLOCK);
    expect(copy.add(3 * BLOCK, BLOCK + 1)).toBe(BLOCK);
    expect(copy.add(5 * BLOCK, BLOCK - 1)).toBe(0);
    expect(copy.add(512, BLOCK)).toBe(0);
    expect(copy.add(10 * BLOCK, 512)).toBe(512);
    expect(copy.add(10 * BLOCK + 512, 512)).toBe(0);
    expect(copy.add(11 * BLOCK, BLOCK)).toBe(0);
    expect(copy.blocks).toEqual([1, 2, 3, 4, 10, 11]);
    expect(copy.add(9 * BLOCK, 2 ** 40)).toBe(BLOCK + 512);
    expect(copy.add(0, BLOCK)).toBe(BLOCK);
    expect(copy.blocks).toEqual([0, 2, 3, 4, 9, 11]);
    expect(copy.size).toBe(10 * BLOCK + 512);
  });

  it('knows the same blocks as a set of them', () => {
    const next = random(11);
    for (let round = 0; round < 50; round++) {
      const copy = new SnapshotCopy({ id: 1, size: 64 * BLOCK }, BLOCK);
      const blocks = new Set<number>();
      for (let i = 0; i < 20; i++) {
        const from = Math.floor(next() * 64);
        const count = 1 + Math.floor(next() * 6);
        copy.add(from * BLOCK, count * BLOCK);
        for (let b = from; b < Math.min(64, from + count); b++) blocks.add(b);
        const told: number[] = [];
        for (let k = 0; k < copy.blocks.length; k += 2) {
          if (k > 0) expect(copy.blocks[k]).toBeGreaterThan(copy.blocks[k - 1]);
          for (let b = copy.blocks[k]; b < copy.blocks[k + 1]; b++) told.push(b);
        }
        expect(told).toEqual([...blocks].sort((a, b) => a - b));
      }
    }
  });

  it('takes a bounded number of ranges', () => {
    const copy = new SnapshotCopy({ id: 1, size: 3 * COPY_RANGES_MAX * BLOCK }, BLOCK);
    for (let i = 0; i < COPY_RANGES_MAX; i++) expect(copy.add(2 * i * BLOCK, BLOCK)).toBe(BLOCK);
    expect(copy.add(2 * COPY_RANGES_MAX * BLOCK, BLOCK)).toBe(0);
    // one that joins others is none more
    expect(copy.add(BLOCK, BLOCK)).toBe(BLOCK);
  });
});
