/** Groups of releases: ghosts that dissolve, in a cache that keeps nothing it may drop; and slots. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Commits, type CommitsHost } from '../../src/xseg/mapper/commits.ts';
import { EXCLUSIVE, Frames, OWNED } from '../../src/xseg/mapper/frames.ts';
import { Freeing, type FreeingHost, GROUP_MAX } from '../../src/xseg/mapper/freeing.ts';
import { Resource } from '../../src/xseg/mapper/resource.ts';
import type { SlotPool } from '../../src/xseg/mapper/slots.ts';
import { Tree, type TreeHost } from '../../src/xseg/mapper/tree.ts';
import { loadNative } from '../../src/xseg/native.ts';
import {
  type CommitBatch,
  RELEASE_GHOST,
  RELEASE_SLOT,
  type ReleaseRow,
  type ResourceRow,
} from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';

const native = loadNative();
let core: number;
let frames: Frames;
beforeEach(() => {
  // fewer frames than are evicted at once: every load drops all that is clean and not pinned
  core = native.createCore({ reactors: 1, frames: 64, spinUs: 0, ioThreads: 1, ioUring: false });
});
afterEach(() => native.destroyCore(core));

/** A leaf whose first entry is `slot`. */
function leaf(id: number, base: number, slot: number, flags: number): Buffer {
  const entries = new Uint32Array(1024);
  entries[0] = slot + 1;
  entries[1] = flags;
  const blob = Buffer.alloc(8192);
  return blob.subarray(0, native.encodePageFrom(entries, 0, id, base, 9, 1, 1, blob, 0));
}

/** One group: these rows of a store with these pages. @param children page → those that the store knows to borrow from it */
function group(store: Map<number, Buffer>, children: Record<number, number[]>, ghosts: number[]): CommitBatch {
  const rows = ghosts.map((id, i) => ({ seq: i + 1, kind: RELEASE_GHOST, id, pool: 1 }));
  return groups(rows, { store, children, ghosts })[0];
}

interface Given {
  store?: Map<number, Buffer>;
  children?: Record<number, number[]>;
  ghosts?: number[];
  /** slot → references but the first */
  extras?: ReadonlyMap<number, number>;
  pinned?: (slot: number) => boolean;
  /** of all pages that are put; none: they are nobody's */
  owner?: Resource;
  /** none: it is not open */
  pool?: SlotPool;
  /** reads that began before the rows were read have ended; asked with how many groups were made */
  safe?: (made: number) => boolean;
}

/** The groups that these rows make, each durable before the next. */
function groups(rows: ReleaseRow[], given: Given): CommitBatch[] {
  const {
    store = new Map(),
    children = {},
    ghosts = [],
    extras = new Map(),
    pinned = () => false,
    owner,
    pool,
    safe = () => true,
  } = given;
  const reader = {
    look: <T>(work: () => T) => work(),
    page: (id: number) => store.get(id),
    children: (id: number, max: number) => children[id].slice(0, max),
    pageExtra: (id: number) => (ghosts.includes(id) ? -1 : 0),
    slotExtra: () => 0,
    slotExtras: (_pool: number, first: number, count: number) =>
      [...extras].filter(([slot]) => slot >= first && slot < first + count).map(([slot, extra]) => ({ slot, extra })),
    releaseMax: () => 0,
    releases: () => rows.splice(0),
    releaseCount: () => rows.length,
  } as unknown as StoreReader;
  frames = new Frames(native, core);
  const tree = new Tree(frames, reader, native, core, {
    log: () => undefined,
    changed: () => undefined,
  } as unknown as TreeHost);
  const sent: CommitBatch[] = [];
  const commitsHost: Partial<CommitsHost> = { send: (batch) => void sent.push(batch), meta: () => ({}) };
  const commits = new Commits(frames, tree, native, core, () => 0, commitsHost as CommitsHost);
  const host: Partial<FreeingHost> = {
    nextRelease: () => 9,
    ownerOf: () => owner,
    pool: () => pool,
    epochAdvance: () => 1,
    epochSafe: () => (safe(sent.length) ? 1 : 0),
    changed: () => undefined,
    commitSoon: () => undefined,
    guestsBusy: () => false,
    hasNewChildren: () => false,
    held: () => false,
    pinned: (_pool, slot) => pinned(slot),
    pinning: () => false,
    slotsDropped: () => undefined,
    indexed: () => false,
    freed: () => undefined,
    pendingPageRefs: () => 0,
  };
  let now = 0;
  const freeing = new Freeing(frames, tree, reader, commits, native, host as FreeingHost, {
    now: () => now,
    date: () => now,
  });
  for (let turn = 0; turn < 9; turn++) {
    freeing.turn(now);
    const batch = sent.at(-1);
    if (batch !== undefined) commits.result({ seq: batch.seq, error: null, ms: 0, logBytes: 0 });
    now += 2;
  }
  return sent;
}

it('a group waits for reads that began before its rows were read: the slots may not be written meanwhile', () => {
  const store = new Map([
    [10, leaf(10, 0, 10, OWNED)],
    [11, leaf(11, 10, 10, 0)],
  ]);
  const made: number[] = [];
  const safe = (groupsMade: number) => made.push(groupsMade) > 4;
  const rows = [{ seq: 1, kind: RELEASE_GHOST, id: 10, pool: 1 }];
  expect(groups(rows, { store, children: { 10: [11] }, ghosts: [10], safe })).toHaveLength(1);
  expect(made).toEqual([0, 0, 0, 0, 0]);
});

/** [page, base] of what a batch puts into the store */
const put = (batch: CommitBatch) =>
  Array.from({ length: batch.pages.length / 4 }, (_, i) => batch.pages.slice(i * 4, i * 4 + 2));

it('pages that take over entries are all in the batch of their group', () => {
  const ghosts = [10, 20, 30];
  const store = new Map<number, Buffer>();
  for (const id of ghosts) {
    store.set(id, leaf(id, 0, id, OWNED));
    store.set(id + 1, leaf(id + 1, id, id, 0));
  }
  const batch = group(store, { 10: [11], 20: [21], 30: [31] }, ghosts);
  expect(batch.pagesDeleted).toEqual([10, 20, 30]);
  expect(put(batch)).toEqual([
    [11, 0],
    [21, 0],
    [31, 0],
  ]);
  expect([11, 21, 31].map((id) => frames.pins[frames.byPage.get(id) as number])).toEqual([0, 0, 0]);
});

it('a ghost that gets a child of another ghost in this group stays until the store knows of it', () => {
  const store = new Map<number, Buffer>([
    [10, leaf(10, 0, 100, OWNED)],
    [20, leaf(20, 10, 200, OWNED)],
    [21, leaf(21, 20, 200, 0)],
    [22, leaf(22, 20, 200, 0)],
  ]);
  // 21 borrows from 10 when it has what it needs of 20, which stays for 22
  const batch = group(store, { 10: [20], 20: [21, 22] }, [20, 10]);
  expect(put(batch)).toEqual([[21, 10]]);
  expect(batch.pagesDeleted).toEqual([]);
  expect(batch.releasesDone).toEqual([1]);
});

describe('a slot that a live volume is left alone with', () => {
  /** Whether the volume's page, the last that borrows it from a ghost, may write it in place afterwards. */
  function inPlace(pool: SlotPool | undefined): boolean {
    const owner = new Resource({ id: 9, generation: 1 } as ResourceRow);
    const store = new Map([
      [10, leaf(10, 0, 100, OWNED)],
      [11, leaf(11, 10, 100, 0)],
    ]);
    const row = { seq: 1, kind: RELEASE_GHOST, id: 10, pool: 1 };
    groups([row], { store, children: { 10: [11] }, ghosts: [10], owner, pool });
    expect(owner.changes).toMatchObject({ pagesDeleted: [10], releasesDone: [1] });
    const flags = frames.flags(frames.byPage.get(11) as number, 0);
    expect(flags & OWNED).toBe(OWNED);
    return (flags & EXCLUSIVE) !== 0;
  }

  it('is written in place again when its pool is open', () =>
    expect(inPlace({ holding: { on: false } } as SlotPool)).toBe(true));
  it('is not while a copy of the store may name it', () =>
    expect(inPlace({ holding: { on: true } } as SlotPool)).toBe(false));
  it('is not when its pool is not open: nobody knows which copies that carries', () =>
    expect(inPlace(undefined)).toBe(false));
});

describe('rows that release slots', () => {
  const rowsOf = (slots: number[]): ReleaseRow[] =>
    slots.map((id, i) => ({ seq: i + 1, kind: RELEASE_SLOT, id, pool: 1 }));

  it('beside each other are one run, of which what others refer to stays', () => {
    const rows = rowsOf([5, 6, 7, 8, 20, 9, 10]);
    const [batch, ...more] = groups(rows, { extras: new Map([[7, 1]]), pinned: (slot) => slot === 20 });
    expect(more).toEqual([]);
    expect(batch.slotRefs).toEqual([1, 7, -1]);
    // no pool says where a group ends: each slot is a run
    expect(batch.freed).toEqual([5, 6, 8, 9, 10].flatMap((slot) => [1, slot, 1]));
    expect(batch.releasesDone).toEqual([1, 2, 3, 4, 6, 7]);
  });

  it('of a slot that several have drop one reference each', () => {
    const [batch] = groups(rowsOf([5, 6, 5, 6, 5]), {
      extras: new Map([
        [5, 2],
        [6, 1],
      ]),
    });
    expect(batch.slotRefs).toEqual([5, 6, 5].flatMap((slot) => [1, slot, -1]));
    expect(batch.freed).toEqual([1, 6, 1, 1, 5, 1]);
  });

  it('are an eighth of one that releases a page: so many are a group, and one more is the next', () => {
    const count = GROUP_MAX * 8;
    const batches = groups(rowsOf(Array.from({ length: count + 1 }, (_, i) => i * 2)), {});
    expect(batches.map(({ releasesDone }) => releasesDone.length)).toEqual([count, 1]);
  });
});
