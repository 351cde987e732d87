/** Leaves that reactors find, when the table has no place for one. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Frames } from '../../src/xseg/mapper/frames.ts';
import { loadNative, type Native } from '../../src/xseg/native.ts';

const native = loadNative();
let core: number;
beforeEach(() => {
  core = native.createCore({ reactors: 1, frames: 64, spinUs: 0, ioThreads: 1, ioUring: false });
});
afterEach(() => native.destroyCore(core));

describe('a leaf that has no place in the hash', () => {
  /** Frames whose table has no place for the next so many. */
  function frames() {
    const state = { refuse: 0 };
    const refusing: Native = {
      ...native,
      hashInsert: (...of) => (state.refuse-- > 0 ? false : native.hashInsert(...of)),
    };
    return { f: new Frames(refusing, core), state };
  }

  it('gets one when the others have gone, and they come back as they are asked for', () => {
    const { f, state } = frames();
    const [a, b] = [f.allocate(1), f.allocate(2)];
    f.hash(1, 10, a);
    f.hash(2, 20, b);
    state.refuse = 1;
    f.hash(1, 11, b);
    expect([native.hashFind(core, 1, 11), native.hashFind(core, 1, 10), native.hashFind(core, 2, 20)]).toEqual([
      b,
      -1,
      -1,
    ]);
    state.refuse = 0;
    f.hash(2, 20, b);
    f.hash(1, 10, a);
    expect([native.hashFind(core, 1, 10), native.hashFind(core, 2, 20)]).toEqual([a, b]);
    // all know of it: nothing is left when the page goes
    f.unhashAll(b);
    expect([native.hashFind(core, 1, 11), native.hashFind(core, 2, 20), native.hashFind(core, 1, 10)]).toEqual([
      -1,
      -1,
      a,
    ]);
  });

  it('gets one too when it only points elsewhere now', () => {
    const { f, state } = frames();
    const [a, b] = [f.allocate(1), f.allocate(2)];
    f.hash(1, 10, a);
    state.refuse = 1;
    f.hash(1, 10, b);
    expect(native.hashFind(core, 1, 10)).toBe(b);
    f.unhashAll(a);
    expect(native.hashFind(core, 1, 10)).toBe(b);
    f.unhashAll(b);
    expect(native.hashFind(core, 1, 10)).toBe(-1);
  });

  it('is put there again when the table lost it', () => {
    const { f } = frames();
    const a = f.allocate(1);
    f.hash(1, 10, a);
    native.hashRemove(core, 1, 10); // as a rebuild that finds no place
    f.hash(1, 10, a);
    expect(native.hashFind(core, 1, 10)).toBe(a);
    f.unhash(1, 10);
    expect(native.hashFind(core, 1, 10)).toBe(-1);
  });
});
