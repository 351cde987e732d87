/** The map's pages in a cache that is as full as a test wants it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EXCLUSIVE, Frames, OWNED } from '../../src/xseg/mapper/frames.ts';
import { Changes, Resource } from '../../src/xseg/mapper/resource.ts';
import { BROKEN, Tree, WAIT } from '../../src/xseg/mapper/tree.ts';
import { loadNative } from '../../src/xseg/native.ts';
import type { ResourceRow } from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';

const native = loadNative();
const LEAF = 1000;
let core: number;
beforeEach(() => {
  core = native.createCore({ reactors: 1, frames: 64, spinUs: 0, ioThreads: 1, ioUring: false });
});
afterEach(() => native.destroyCore(core));

function bench() {
  const store = new Map<number, Buffer>();
  const errors: string[] = [];
  let nextPage = 1;
  const frames = new Frames(native, core);
  const reader = { page: (id: number) => store.get(id) } as unknown as StoreReader;
  const tree = new Tree(frames, reader, native, core, {
    nextPage: () => nextPage++,
    nextRelease: () => 1,
    baseAdded: () => undefined,
    changed: () => undefined,
    log: (level, event) => void (level === 'error' && errors.push(event)),
  });
  const r = new Resource({ id: 1, root: 0, height: 2, generation: 1 } as ResourceRow);
  /** what the resource changed goes to the store */
  const commit = () => {
    tree.settle(r);
    for (const f of r.changes.frames) {
      const blob = Buffer.alloc(8192);
      const { level, pageId, base, owner, generation, mapped } = frames;
      const length = native.encodePage(
        core,
        f,
        level[f],
        pageId[f],
        base[f],
        owner[f],
        generation[f],
        mapped[f],
        blob,
        0,
      );
      store.set(pageId[f], blob.subarray(0, length));
      frames.markClean(f);
    }
    r.changes = new Changes();
  };
  /** block 0 of LEAF gets a slot */
  const publish = (leaf: number) => {
    frames.set(leaf, 0, 1, OWNED | EXCLUSIVE);
    frames.delta[leaf]++;
    tree.touch(r, leaf);
  };
  /** pages of others take all frames that can be had */
  const fill = () => {
    const taken: number[] = [];
    for (let tries = 0; tries < 5; tries++) {
      for (let f = frames.allocate(2 ** 30 + taken.length); f !== 0; f = frames.allocate(2 ** 30 + taken.length)) {
        frames.markDirty(f);
        taken.push(f);
      }
    }
    return () => {
      for (const f of taken) frames.markClean(f);
    };
  };
  const mappedOfRoot = () => frames.mapped[tree.find(r, LEAF, 2)];
  return { frames, tree, r, store, errors, commit, publish, fill, mappedOfRoot };
}

describe('the count of mapped blocks', () => {
  it('comes to all pages above a leaf, however full the cache is when a batch is made', () => {
    const t = bench();
    t.tree.writable(t.r, LEAF);
    t.commit();
    t.publish(t.tree.writable(t.r, LEAF));
    const empty = t.fill();
    t.commit();
    empty();
    expect(t.errors).toEqual([]);
    expect(t.mappedOfRoot()).toBe(1);
    expect(t.frames.mapped[t.tree.find(t.r, LEAF, 1)]).toBe(1);
    expect(t.frames.mapped[t.tree.find(t.r, LEAF)]).toBe(1);
  });

  it('comes there also when a batch was made between the grant of a slot and its use', () => {
    const t = bench();
    const leaf = t.tree.writable(t.r, LEAF);
    const held = [...t.tree.above(t.r, LEAF), leaf];
    expect(held).toHaveLength(3);
    for (const f of held) t.frames.pins[f]++;
    t.commit();
    const empty = t.fill();
    t.publish(leaf);
    for (const f of held) t.frames.pins[f]--;
    t.commit();
    empty();
    expect(t.errors).toEqual([]);
    expect(t.mappedOfRoot()).toBe(1);
  });
});

describe('a level more', () => {
  it('says whether it waits for memory or will never be', () => {
    const t = bench();
    t.tree.writable(t.r, LEAF);
    t.commit();
    const { root } = t.r.row;
    const empty = t.fill();
    expect(t.tree.grow(t.r)).toBe(WAIT);
    empty();
    t.store.delete(root);
    expect(t.tree.grow(t.r)).toBe(BROKEN);
    expect(t.r.row).toMatchObject({ root, height: 2 });
    expect(t.r.changes.empty).toBe(true);
  });
});
