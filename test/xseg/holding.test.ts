import { describe, expect, it } from 'vitest';
import { Holding } from '../../src/xseg/mapper/holding.ts';

const all = (h: Holding) => h.take(1000);

describe('slots that copies may name', () => {
  it('go when the older of two copies that were named is gone: after two more copies', () => {
    const h = new Holding(64);
    h.begun();
    h.completed(true);
    h.add([3, 2]);
    h.begun();
    h.add([10, 1]);
    h.completed(false);
    expect([h.held, h.heldByOlder, h.ready]).toEqual([3, 2, 0]);
    h.begun();
    expect(all(h)).toEqual([]);
    h.completed(false);
    expect(all(h)).toEqual([3, 2]);
    h.begun();
    h.completed(false);
    expect(all(h)).toEqual([10, 1]);
    expect([h.held, h.ready]).toEqual([0, 0]);
  });

  it('go with the first copy there is, if they were freed before it was begun', () => {
    const h = new Holding(64);
    h.begun();
    h.add([1, 1]);
    h.completed(true);
    expect([h.on, h.held, h.ready]).toEqual([true, 1, 0]);
    h.begun();
    h.completed(true);
    expect(all(h)).toEqual([1, 1]);
  });

  it('stay when a copy fails, and go when the older one is removed, or all', () => {
    const h = new Holding(64);
    h.begun();
    h.completed(true);
    h.add([1, 1]);
    h.begun();
    h.failed();
    expect([h.held, h.heldByOlder, h.ready]).toEqual([1, 0, 0]);
    h.olderGone();
    expect(h.ready).toBe(0);
    h.begun();
    h.completed(false);
    h.add([2, 1]);
    h.olderGone();
    expect(all(h)).toEqual([1, 1]);
    h.allGone();
    expect(all(h)).toEqual([2, 1]);
    expect(h.on).toBe(false);
  });

  it('are told by group, whatever stage they are in, and leave in pieces', () => {
    const h = new Holding(64);
    h.begun();
    h.completed(true);
    h.add([64, 64]);
    h.begun();
    h.add([128, 2, 0, 1]);
    h.completed(false);
    const set = (grp: number) =>
      [...(h.pending(grp) ?? [])].reduce((n, byte) => n + byte.toString(2).replaceAll('0', '').length, 0);
    expect([0, 1, 2, 3].map(set)).toEqual([1, 64, 2, 0]);
    h.allGone();
    expect(h.take(10)).toEqual([128, 2, 0, 1, 64, 7]);
    expect([0, 1, 2].map(set)).toEqual([0, 57, 0]);
    let left = 0;
    for (let runs = h.take(30); runs.length > 0; runs = h.take(30))
      for (let i = 1; i < runs.length; i += 2) left += runs[i];
    expect(left).toBe(57);
    expect([0, 1, 2].map((grp) => h.pending(grp))).toEqual([undefined, undefined, undefined]);
  });
});
