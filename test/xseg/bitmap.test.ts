import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bitCount, bitFill, bitGet, findClearRun, findSetRun } from '../../src/xseg/store/bitmap.ts';

const BITS = 200;
const op = fc.record({ from: fc.nat(BITS - 1), count: fc.integer({ min: 1, max: 80 }), value: fc.boolean() });

describe('bitmaps', () => {
  it('agree with an array of booleans', () => {
    fc.assert(
      fc.property(
        fc.array(op, { maxLength: 30 }),
        fc.nat(BITS - 1),
        fc.integer({ min: 1, max: 90 }),
        (ops, from, max) => {
          const bitmap = new Uint8Array(Math.ceil(BITS / 8));
          const model = new Array<boolean>(BITS).fill(false);
          for (const o of ops) {
            const count = Math.min(o.count, BITS - o.from);
            let changed = 0;
            for (let i = o.from; i < o.from + count; i++) {
              if (model[i] !== o.value) changed++;
              model[i] = o.value;
            }
            expect(bitFill(bitmap, o.from, count, o.value)).toBe(changed);
          }
          expect(bitCount(bitmap)).toBe(model.filter(Boolean).length);
          for (let i = 0; i < BITS; i++) expect(bitGet(bitmap, i)).toBe(model[i]);
          for (const [value, find] of [
            [false, findClearRun],
            [true, findSetRun],
          ] as const) {
            const start = model.indexOf(value, from);
            let end = start;
            while (end < BITS && end - start < max && model[end] === value) end++;
            expect(find(bitmap, BITS, from, max)).toEqual(start < 0 ? [0, 0] : [start, end - start]);
          }
        },
      ),
    );
  });
});
