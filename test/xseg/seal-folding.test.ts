/** Folding beside volumes whose changes are not durable: what a crash or a failed volume brings back must still be there. */
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Commits, type CommitsHost } from '../../src/xseg/mapper/commits.ts';
import { Folding, type FoldingHost } from '../../src/xseg/mapper/folding.ts';
import { EXCLUSIVE, Frames, OWNED } from '../../src/xseg/mapper/frames.ts';
import { Changes, type Resource } from '../../src/xseg/mapper/resource.ts';
import { Tree, type TreeHost } from '../../src/xseg/mapper/tree.ts';
import { loadNative } from '../../src/xseg/native.ts';
import type { CommitBatch } from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';
import { Home } from './engine.ts';

const native = loadNative();
const HASH = Buffer.alloc(32, 1);
/** the sealed leaf, what it names, and what that is to become */
const PAGE = 10;
const FROM = 5;
const TO = 7;
const VOLUME = 9;

/** A leaf whose first entry is `slot`, in place of the volume in generation 3. */
function leaf(id: number, base: number, slot: number, flags: number): Buffer {
  const entries = new Uint32Array(1024);
  entries[0] = slot + 1;
  entries[1] = flags;
  const blob = Buffer.alloc(8192);
  const generation = id === PAGE ? 1 : 3;
  return blob.subarray(0, native.encodePageFrom(entries, 0, id, base, VOLUME, generation, 1, blob, 0));
}

describe('a fold', () => {
  let core: number;
  let store: Map<number, Buffer>;
  let bases: Map<number, number[]>;
  let frames: Frames;
  let folding: Folding;
  let sent: CommitBatch[];
  let wanted: number;
  let bad: boolean;
  let volume: Resource;
  let now: number;

  beforeEach(() => {
    core = native.createCore({ reactors: 1, frames: 64, spinUs: 0, ioThreads: 1, ioUring: false });
    store = new Map([
      [PAGE, leaf(PAGE, 0, FROM, OWNED | EXCLUSIVE)],
      [11, leaf(11, PAGE, FROM, 0)],
    ]);
    bases = new Map([[PAGE, [11]]]);
    sent = [];
    wanted = 0;
    bad = false;
    now = 0;
    volume = { id: VOLUME, failed: 0, changes: new Changes(), row: { generation: 3 } } as unknown as Resource;
    const reader = {
      page: (id: number) => store.get(id),
      childrenAfter: (id: number, after: number, max: number) =>
        (bases.get(id) ?? []).filter((child) => child > after).slice(0, max),
      seal: {
        row: (_pool: number, slot: number) => (slot === TO ? { slot, hash: HASH, bad: null } : undefined),
        hold: (_pool: number, slots: Float64Array, hashes: Buffer) =>
          Uint8Array.from(slots, (slot, i) => Number(slot === TO && hashes.subarray(i * 32, i * 32 + 32).equals(HASH))),
      },
    } as unknown as StoreReader;
    frames = new Frames(native, core);
    const treeHost: Partial<TreeHost> = { log: () => undefined, changed: () => undefined };
    const tree = new Tree(frames, reader, native, core, treeHost as TreeHost);
    const commitsHost: Partial<CommitsHost> = { send: (batch) => void sent.push(batch), meta: () => ({}) };
    const commits = new Commits(frames, tree, native, core, () => 0, commitsHost as CommitsHost);
    const host: FoldingHost = {
      ownerOf: (id, generation) => (id === VOLUME && generation === 3 ? volume : undefined),
      hasNewChildren: () => false,
      isBad: () => bad,
      nextRelease: () => 1,
      changed: () => undefined,
      commitSoon: () => void wanted++,
      commitAll: () => undefined,
      poke: () => undefined,
      listed: () => undefined,
    };
    folding = new Folding(frames, tree, reader, commits, native, host);
    const moves = new Map([[0, { from: FROM, to: TO, hash: HASH }]]);
    folding.start(1, [{ page: PAGE, moves, hash: HASH }], now);
  });
  afterEach(() => native.destroyCore(core));

  const step = () => folding.step(++now);
  /** The volume's own leaf, loaded, with a block of its own in place of the one it borrows; not durable. */
  const written = (): number => {
    const frame = folding.tree.load(11, 0);
    frames.set(frame, 0, 99 + 1, OWNED | EXCLUSIVE);
    frames.markDirty(frame);
    return frame;
  };
  /** The leaf went over: its new slot has a reference more, and the old one is let go. */
  const folded = (batch: CommitBatch) => {
    expect(batch.pages[0]).toBe(PAGE);
    expect(batch.slotRefs).toEqual([1, TO, 1]);
    expect(batch.releases.map(({ id }) => id)).toEqual([FROM]);
  };
  /** The leaf stays as it is, and its slot is in the index. */
  const stayed = (batch: CommitBatch) => {
    expect(batch.pages).toEqual([]);
    expect(batch.slotRefs).toEqual([]);
    expect(batch.releases).toEqual([]);
    expect(batch.seal?.sealed).toEqual([1, FROM]);
    expect(batch.seal?.pages).toEqual([PAGE]);
  };

  it('waits for the batch of a page that borrows in the store and in memory does not', () => {
    const frame = written();
    for (let i = 0; i < 5; i++) step();
    expect(sent).toEqual([]);
    expect(wanted).toBeGreaterThan(0);
    // the batch is on its way
    frames.markClean(frame);
    frames.flying[frame] = 1;
    for (let i = 0; i < 5; i++) step();
    expect(sent).toEqual([]);
    // durable: further changes of the page are no reason to wait
    store.set(11, leaf(11, PAGE, 99, OWNED | EXCLUSIVE));
    frames.flying[frame] = 0;
    frames.markDirty(frame);
    step();
    folded(sent[0]);
  });

  it('does not happen under a volume that failed, whatever it has in memory', () => {
    const frame = written();
    volume.failed = 5;
    step();
    stayed(sent[0]);
    expect(frames.dirty[frame]).toBe(1);
  });

  it('does not happen when the volume fails with the batch that takes the entry over', () => {
    step();
    expect(folding.locked).toBe(true);
    expect(volume.changes.slotRefs).toEqual([1, TO, 1]);
    const frame = volume.changes.frames[0];
    frames.markClean(frame);
    frames.flying[frame] = 1; // for ever, as of any batch that failed
    volume.failed = 5;
    for (const waiter of volume.changes.waiters) waiter(5);
    for (let i = 0; i < 3; i++) step();
    stayed(sent[0]);
  });

  it('does not go to a slot that is found damaged meanwhile, though that is not durable', () => {
    store.delete(11);
    bases.clear();
    bad = true;
    step();
    stayed(sent[0]);
  });

  it('does not happen over a damaged page: what borrows through it cannot be known', () => {
    const blob = Buffer.from(store.get(11) as Buffer);
    blob[20] ^= 1;
    store.set(11, blob);
    step();
    stayed(sent[0]);
  });

  it('goes over when nothing is in the way', () => {
    store.delete(11);
    bases.clear();
    step();
    folded(sent[0]);
  });
});

it('nothing folds under a volume that borrows in the store before what it wrote over that is durable', async () => {
  const home = new Home();
  try {
    const BLOCK = 4096;
    const e = await home.open();
    await e.createPool({ name: 'p', path: path.join(home.dir, 'p/'), blockSize: BLOCK });
    // a first snapshot: the thread that hashes is there when it matters
    await e.setPool('p', { seal: true });
    await e.createVolume({ name: 'first', size: 1024 * 1024, pool: 'p' });
    const first = await home.connect('first');
    await first.write(0, Buffer.alloc(BLOCK, 1));
    await first.close();
    await e.createSnapshot('first', 's');
    while ((await e.showSnapshot('first@s')).hash === null) await new Promise((resolve) => setTimeout(resolve, 5));
    await e.setPool('p', { sealPaused: true });
    await e.createVolume({ name: 'v', size: 1024 * 1024, pool: 'p' });
    const v = await home.connect('v');
    await v.write(0, Buffer.alloc(64 * BLOCK, 7));
    await v.flush();
    await v.close();
    await e.createSnapshot('v', 's');
    await e.clone('v@s', 'c');
    const c = await home.connect('c');
    await c.write(100 * BLOCK, Buffer.alloc(BLOCK, 8));
    await c.flush(); // it has a leaf of its own, which borrows 64 blocks
    await c.write(0, Buffer.alloc(64 * BLOCK, 9)); // and now does not, in memory
    await e.setPool('p', { sealPaused: false });
    const folded = async () => (await e.showPool('p')).seal?.foldedBytes ?? 0;
    while ((await folded()) === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    expect((await e.status()).map.dirtyPages).toBe(0);
    expect(await folded()).toBe(63 * BLOCK);
    expect((await e.check()).problems).toEqual([]);
    await c.close();
  } finally {
    await home.end();
  }
});
