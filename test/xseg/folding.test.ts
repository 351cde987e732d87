/** Folding under volumes that cannot follow. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Commits, type CommitsHost } from '../../src/xseg/mapper/commits.ts';
import { Folding, type FoldingHost, TO_ZEROES } from '../../src/xseg/mapper/folding.ts';
import { Frames, OWNED } from '../../src/xseg/mapper/frames.ts';
import { Changes, type Resource } from '../../src/xseg/mapper/resource.ts';
import { Tree, type TreeHost } from '../../src/xseg/mapper/tree.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { ZEROES } from '../../src/xseg/page-table.ts';
import { type CommitBatch, RELEASE_SLOT } from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';

const native = loadNative();
const HASH = Buffer.alloc(32, 7);
const [PAGE, CHILD, FROM, TO] = [10, 11, 100, 200];
const VOLUME = 9;

let core: number;
beforeEach(() => {
  core = native.createCore({ reactors: 1, frames: 64, spinUs: 0, ioThreads: 1, ioUring: false });
});
afterEach(() => native.destroyCore(core));

/** A leaf whose first entry is `slot`. */
function leaf(id: number, base: number, slot: number, flags: number, owner: number): Buffer {
  const entries = new Uint32Array(1024);
  entries[0] = (slot + 1) % 2 ** 32;
  entries[1] = Math.floor((slot + 1) / 2 ** 32) + flags;
  const blob = Buffer.alloc(8192);
  return blob.subarray(0, native.encodePageFrom(entries, 0, id, base, owner, 1, 1, blob, 0));
}

/** A sealed page, and one in place of a volume that borrows from it. */
function setUp(live: { failed: number; changes: Changes } | undefined, to = TO) {
  const store = new Map<number, Buffer>([
    [PAGE, leaf(PAGE, 0, FROM, OWNED, 1)],
    [CHILD, leaf(CHILD, PAGE, FROM, 0, VOLUME)],
  ]);
  let there = true;
  const reader = {
    page: (id: number) => store.get(id),
    childrenAfter: (id: number, after: number) => (id === PAGE && after < CHILD ? [CHILD] : []),
    seal: {
      row: (_pool: number, slot: number) => (there && slot === TO ? { slot, hash: HASH, bad: null } : undefined),
      hold: (_pool: number, slots: Float64Array, hashes: Buffer) =>
        Uint8Array.from(slots, (slot, i) =>
          Number(there && slot === TO && hashes.subarray(i * 32, i * 32 + 32).equals(HASH)),
        ),
    },
  } as unknown as StoreReader;
  const frames = new Frames(native, core);
  const treeHost = { log: () => undefined, changed: () => undefined } as unknown as TreeHost;
  const tree = new Tree(frames, reader, native, core, treeHost);
  const sent: CommitBatch[] = [];
  const commitsHost: Partial<CommitsHost> = { send: (batch) => void sent.push(batch), meta: () => ({}) };
  const commits = new Commits(frames, tree, native, core, () => 0, commitsHost as CommitsHost);
  const listed: number[] = [];
  let children = false;
  const host: FoldingHost = {
    ownerOf: (id) => (id === VOLUME ? (live as Resource | undefined) : undefined),
    hasNewChildren: () => children,
    isBad: () => false,
    nextRelease: () => 1,
    changed: () => undefined,
    commitSoon: () => undefined,
    commitAll: () => undefined,
    poke: () => undefined,
    listed: (pool) => void listed.push(pool),
  };
  const folding = new Folding(frames, tree, reader, commits, native, host);
  folding.start(1, [{ page: PAGE, moves: new Map([[0, { from: FROM, to, hash: HASH }]]), hash: HASH }], 0);
  const entry = (page: number) => {
    const frame = frames.byPage.get(page) as number;
    return [frames.value(frame, 0) - 1, frames.flags(frame, 0)];
  };
  const answer = (batch: CommitBatch) => commits.result({ seq: batch.seq, error: null, ms: 0, logBytes: 0 });
  const setNewChildren = (on: boolean) => (children = on);
  const setThere = (on: boolean) => (there = on);
  return { folding, tree, frames, store, sent, listed, entry, answer, setNewChildren, setThere };
}

describe('folding', () => {
  it('gives a live page the entry in its volume’s batch, then the page that it borrows from', () => {
    const live = { failed: 0, changes: new Changes() };
    const t = setUp(live);
    expect(t.folding.step(0)).toBe(true);
    expect(t.entry(CHILD)).toEqual([TO, OWNED]);
    expect(t.entry(PAGE)).toEqual([FROM, OWNED]);
    expect(t.folding.locked).toBe(true);
    expect(t.sent).toEqual([]);
    expect(live.changes.slotRefs).toEqual([1, TO, 1]);
    expect(live.changes.releases).toEqual([]);
    t.store.set(CHILD, leaf(CHILD, PAGE, TO, OWNED, VOLUME)); // what the volume's batch brought
    for (const waiter of live.changes.waiters) waiter(0);
    t.folding.step(1); // freeing's turn
    t.folding.step(2);
    expect(t.entry(PAGE)).toEqual([TO, OWNED]);
    expect(t.sent[0]).toMatchObject({
      slotRefs: [1, TO, 1],
      releases: [{ kind: RELEASE_SLOT, id: FROM, pool: 1 }],
      seal: { pages: [PAGE], sealed: [], counts: [1, 0, 1] },
    });
    t.answer(t.sent[0]);
    expect(t.folding.done).toBe(true);
  });

  it('takes the slot from zeroes, and gives them none', () => {
    const live = { failed: 0, changes: new Changes() };
    const t = setUp(live, TO_ZEROES);
    t.setThere(false);
    expect(t.folding.step(0)).toBe(true);
    expect(t.entry(CHILD)).toEqual([ZEROES - 1, 0]);
    expect(t.entry(PAGE)).toEqual([FROM, OWNED]);
    expect([live.changes.slotRefs, live.changes.releases]).toEqual([[], []]);
    t.store.set(CHILD, leaf(CHILD, PAGE, ZEROES - 1, 0, VOLUME)); // what the volume's batch brought
    for (const waiter of live.changes.waiters) waiter(0);
    t.folding.step(1); // freeing's turn
    t.folding.step(2);
    expect(t.entry(PAGE)).toEqual([ZEROES - 1, 0]);
    expect(t.sent[0]).toMatchObject({
      slotRefs: [],
      releases: [{ kind: RELEASE_SLOT, id: FROM, pool: 1 }],
      seal: { pages: [PAGE], sealed: [], counts: [1, 0, 1] },
    });
  });

  it.each([
    ['a slot', TO],
    ['zeroes', TO_ZEROES],
  ])('to %s leaves a page as it is that a failed volume borrows from: what the volume gets is not durable', (_, to) => {
    for (const when of ['before', 'meanwhile']) {
      const live = { failed: when === 'before' ? 5 : 0, changes: new Changes() };
      const t = setUp(live, to);
      t.folding.step(0);
      if (when === 'meanwhile') {
        live.failed = 5;
        for (const waiter of live.changes.waiters) waiter(5);
        t.folding.step(1);
        t.folding.step(2);
      }
      expect(t.entry(PAGE)).toEqual([FROM, OWNED]);
      expect(t.sent).toHaveLength(1);
      expect(t.sent[0]).toMatchObject({ slotRefs: [], releases: [], seal: { pages: [PAGE], sealed: [1, FROM] } });
      // who asks whether it is in the index is told so before the row is there: it may be the pool's first
      expect(t.listed).toEqual([1]);
    }
  });

  it('waits for copies that the store does not have, and for grants', () => {
    const t = setUp({ failed: 0, changes: new Changes() });
    t.setNewChildren(true);
    expect(t.folding.step(0)).toBe(false);
    t.setNewChildren(false);
    const child = t.tree.load(CHILD, 0);
    t.frames.pins[child]++;
    expect(t.folding.step(1)).toBe(false);
    expect(t.entry(CHILD)).toEqual([FROM, 0]);
    t.frames.pins[child]--;
    expect(t.folding.step(2)).toBe(true);
    expect(t.entry(CHILD)).toEqual([TO, OWNED]);
  });

  it('leaves what borrows and what it borrows from as they are when the slot to go to is free by now', () => {
    const t = setUp({ failed: 0, changes: new Changes() });
    t.setThere(false);
    expect(t.folding.step(0)).toBe(true);
    expect([t.entry(CHILD), t.entry(PAGE)]).toEqual([
      [FROM, 0],
      [FROM, OWNED],
    ]);
    expect(t.sent).toHaveLength(1);
    expect(t.sent[0]).toMatchObject({ slotRefs: [], releases: [], seal: { pages: [PAGE], sealed: [1, FROM] } });
    t.answer(t.sent[0]);
    expect(t.folding.done).toBe(true);
  });

  it('does not go to a slot that was free once, although it has these bytes again', () => {
    const t = setUp({ failed: 0, changes: new Changes() });
    t.setThere(false);
    t.setNewChildren(true);
    // nothing is known of the borrower yet, and nothing is decided
    expect(t.folding.step(0)).toBe(false);
    t.setNewChildren(false);
    const page = t.tree.load(PAGE, 0);
    // the page itself cannot be changed in this step
    t.frames.flying[page]++;
    expect(t.folding.step(1)).toBe(false);
    t.frames.flying[page]--;
    t.setThere(true);
    expect(t.folding.step(2)).toBe(true);
    expect([t.entry(CHILD), t.entry(PAGE)]).toEqual([
      [FROM, 0],
      [FROM, OWNED],
    ]);
    expect(t.sent[0].seal).toMatchObject({ pages: [PAGE], sealed: [1, FROM] });
  });

  it('gives up what waits too long, and has the index name what stayed', () => {
    const t = setUp({ failed: 0, changes: new Changes() });
    t.setNewChildren(true);
    expect(t.folding.step(10_000)).toBe(false);
    expect(t.folding.step(10_001)).toBe(true);
    expect(t.entry(PAGE)).toEqual([FROM, OWNED]);
    expect(t.sent[0].seal).toMatchObject({ pages: [PAGE], sealed: [1, FROM] });
  });
});
