/** The queue of releases as a whole: how long it gets, in which order it is worked off, and how much of the time that takes. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Commits, type CommitsHost } from '../../src/xseg/mapper/commits.ts';
import { Frames, OWNED } from '../../src/xseg/mapper/frames.ts';
import { BEHIND_MIN, BUSY_SHARE, Freeing, type FreeingHost } from '../../src/xseg/mapper/freeing.ts';
import { Tree, type TreeHost } from '../../src/xseg/mapper/tree.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { type CommitBatch, RELEASE_PAGE, RELEASE_SLOT, type ReleaseRow } from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';

const native = loadNative();
const POOL = 1;
/** Children of an inner page; three levels of inner pages above the leaves. */
const FANOUT = 8;
const INNER_LEVELS = 3;
/** The clock goes on by this for each page that is read. */
const READ_MS = 1;
/** So many such pages are a group: it ends after 2 ms. */
const GROUP_PAGES = 3;
const TURNS_MAX = 20_000;

let core: number;
beforeEach(() => {
  core = native.createCore({ reactors: 1, frames: 64, spinUs: 0, ioThreads: 1, ioUring: false });
});
afterEach(() => native.destroyCore(core));

/** Freeing on a store in memory, whose clock goes on when pages are read and when it is told to. */
class Bench {
  now = 0;
  guests = false;
  readonly pinned = new Set<number>();
  readonly pages = new Map<number, Buffer>();
  /** by number, ascending */
  readonly rows = new Map<number, ReleaseRow>();
  /** slots that became free, in order */
  readonly freed: number[] = [];
  /** most rows that were durable at a time, and those that freeing knew of */
  rowsMax = 0;
  queuedMax = 0;
  readonly sent: CommitBatch[] = [];
  #freeing: Freeing | null = null;
  #commits: Commits | null = null;
  #nextPage = 1;
  #nextRow = 1;
  #landed = 0;

  /** A tree of such a height, each leaf with one slot; its root's page id. */
  tree(level: number): number {
    const id = this.#nextPage++;
    const entries = new Uint32Array(1024);
    for (let i = 0; i < (level === 0 ? 1 : FANOUT); i++) {
      entries[i * 2] = level === 0 ? id + 1 : this.tree(level - 1);
      entries[i * 2 + 1] = OWNED;
    }
    const blob = Buffer.alloc(8192);
    const length = native.encodePageFrom(entries, level, id, 0, 9, 1, FANOUT ** level, blob, 0);
    this.pages.set(id, blob.subarray(0, length));
    return id;
  }

  queue(kind: number, ids: number[]): void {
    for (const id of ids) {
      const seq = this.#nextRow++;
      this.rows.set(seq, { seq, kind, id, pool: POOL });
    }
  }

  /** As at a start of the daemon: what is queued is in the store. */
  open(queueLong?: number): Freeing {
    const rows = () => [...this.rows.values()];
    const reader = {
      look: <T>(work: () => T) => work(),
      page: (id: number) => {
        this.now += READ_MS;
        return this.pages.get(id);
      },
      children: () => [],
      pageExtra: () => 0,
      slotExtra: () => 0,
      slotExtras: () => [],
      releaseCount: () => this.rows.size,
      releaseMax: () => Math.max(...this.rows.keys()),
      releases: (after: number, max: number) =>
        rows()
          .filter(({ seq }) => seq > after)
          .slice(0, max),
      newestReleases: (before: number, max: number) =>
        rows()
          .filter(({ seq }) => seq < before)
          .reverse()
          .slice(0, max),
    } as unknown as StoreReader;
    const frames = new Frames(native, core);
    const tree = new Tree(frames, reader, native, core, { log: () => undefined } as unknown as TreeHost);
    const commitsHost: Partial<CommitsHost> = { send: (batch) => void this.sent.push(batch), meta: () => ({}) };
    const clock = { now: () => this.now, date: () => this.now };
    const commits = new Commits(frames, tree, native, core, () => 0, commitsHost as CommitsHost, clock);
    const host: Partial<FreeingHost> = {
      nextRelease: (pool, blocks) => {
        freeing.made(this.#nextRow, pool, blocks);
        return this.#nextRow++;
      },
      pool: () => undefined,
      epochAdvance: () => 0,
      epochSafe: () => 0,
      guestsBusy: () => this.guests,
      hasNewChildren: () => false,
      held: () => false,
      pinned: (_pool, slot) => this.pinned.has(slot),
      pinning: () => this.pinned.size > 0,
      slotsDropped: () => undefined,
      freed: (runs) => {
        for (let i = 0; i < runs.length; i += 3) for (let n = 0; n < runs[i + 2]; n++) this.freed.push(runs[i + 1] + n);
      },
      pendingPageRefs: () => 0,
    };
    const freeing = new Freeing(frames, tree, reader, commits, native, host as FreeingHost, clock, queueLong);
    this.#freeing = freeing;
    this.#commits = commits;
    // what was there is weighed before any of it is worked on
    expect(this.turn()).toBeUndefined();
    return freeing;
  }

  /** The next group, when it is due. @returns it, sent and not durable yet */
  turn(): CommitBatch | undefined {
    const before = this.sent.length;
    this.#freeing?.turn(this.now);
    return this.sent[before];
  }

  /** What was sent last is in the store, and freeing hears of it. */
  land(): void {
    if (this.#landed === this.sent.length) return;
    const batch = this.sent[this.#landed++];
    for (const id of batch.pagesDeleted) this.pages.delete(id);
    for (const seq of batch.releasesDone) expect(this.rows.delete(seq)).toBe(true);
    for (const row of batch.releases) this.rows.set(row.seq, row);
    this.rowsMax = Math.max(this.rowsMax, this.rows.size);
    this.queuedMax = Math.max(this.queuedMax, this.#freeing?.queued ?? 0);
    this.#commits?.result({ seq: batch.seq, error: null, ms: 0, logBytes: 0 });
  }

  /** Until nothing is left. @param group called with each, before it is durable */
  run(group: (batch: CommitBatch) => void = () => undefined): void {
    for (let turns = 0; this.rows.size > 0; turns++) {
      expect(turns).toBeLessThan(TURNS_MAX);
      const batch = this.turn();
      if (batch !== undefined) group(batch);
      this.land();
      this.now += this.#freeing?.waitMs(this.now) ?? 0;
    }
  }
}

/** Far from each other: no two are one run. */
const slots = (count: number) => Array.from({ length: count }, (_, i) => i * 2);
const PAGES = (FANOUT ** (INNER_LEVELS + 1) - 1) / (FANOUT - 1);
const LEAVES = FANOUT ** INNER_LEVELS;

describe('a queue', () => {
  const LONG = 16;

  it('that is short is worked off from its oldest row, one that is long from its newest', () => {
    for (const count of [LONG - 1, LONG, LONG + 1]) {
      const t = new Bench();
      t.queue(RELEASE_SLOT, slots(count));
      t.open(LONG);
      const seqs = [...t.rows.keys()];
      expect(t.turn()?.releasesDone).toEqual(count < LONG ? seqs : seqs.reverse());
    }
  });

  /** Frees a whole tree. @returns the most that was queued at a time */
  function freeTree(queueLong?: number): number {
    const t = new Bench();
    t.queue(RELEASE_PAGE, [t.tree(INNER_LEVELS)]);
    expect(t.pages.size).toBe(PAGES);
    const freeing = t.open(queueLong);
    t.run(({ releasesDone }) => {
      expect(releasesDone.length).toBeLessThanOrEqual(GROUP_PAGES);
      if (t.rows.size < (queueLong ?? Number.POSITIVE_INFINITY)) return;
      expect(releasesDone).toEqual([...t.rows.keys()].slice(-releasesDone.length).reverse());
    });
    expect(t.pages.size).toBe(0);
    expect([...t.freed].sort((a, b) => a - b)).toEqual([...new Set(t.freed)].sort((a, b) => a - b));
    expect([t.freed.length, freeing.slotsFreed, freeing.pagesFreed]).toEqual([LEAVES, LEAVES, PAGES]);
    expect([freeing.queued, freeing.blocksLeft(POOL)]).toEqual([0, 0]);
    expect(t.turn()).toBeUndefined();
    expect(freeing.waitMs(t.now)).toBe(Number.POSITIVE_INFINITY);
    expect(Math.abs(t.queuedMax - t.rowsMax)).toBeLessThanOrEqual(GROUP_PAGES * FANOUT);
    return t.queuedMax;
  }

  it('stays short whatever is freed: a group adds rows once for each level, and then they go before older ones', () => {
    // level by level it would be about as long as there are leaves
    expect(freeTree()).toBeGreaterThan(LEAVES * 0.8);
    expect(freeTree(LONG)).toBeLessThanOrEqual(LONG + INNER_LEVELS * GROUP_PAGES * FANOUT);
    expect(freeTree(1)).toBeLessThanOrEqual(INNER_LEVELS * GROUP_PAGES * FANOUT);
  });

  it('that is long comes back to what was put off', () => {
    const t = new Bench();
    t.queue(RELEASE_SLOT, slots(2 * LONG));
    const put = [2 * LONG - 1, LONG, 0].map((i) => i * 2);
    for (const slot of put) t.pinned.add(slot);
    const freeing = t.open(2);
    for (let i = 0; i < 50; i++) {
      t.turn();
      t.land();
      t.now += freeing.waitMs(t.now);
    }
    expect([...t.rows.values()].map(({ id }) => id).reverse()).toEqual(put);
    expect(t.freed).toHaveLength(2 * LONG - put.length);
    t.pinned.clear();
    t.run();
    expect(t.freed.slice(-put.length)).toEqual(put);
  });
});

describe('freeing beside guests', () => {
  /** Two groups. */
  function leaves() {
    const t = new Bench();
    t.guests = true;
    t.queue(
      RELEASE_PAGE,
      Array.from({ length: 2 * GROUP_PAGES }, () => t.tree(0)),
    );
    return { t, freeing: t.open() };
  }

  it('lets thirty-nine times as much time go by as a group and its commit took', () => {
    const { t, freeing } = leaves();
    expect(t.turn()).toBeDefined();
    t.now += 1;
    t.land();
    const pause = 39 * (GROUP_PAGES * READ_MS + 1);
    expect(freeing.waitMs(t.now)).toBe(pause);
    t.now += pause - 1;
    expect(t.turn()).toBeUndefined();
    t.now += 1;
    expect(t.turn()).toBeDefined();
  });

  it('lets nine times as much go by when it does not keep up with what others release', () => {
    for (const [waiting, times] of [
      [BEHIND_MIN, 9],
      [BEHIND_MIN - 1, 39],
    ]) {
      const { t, freeing } = leaves();
      for (let i = 0; i < waiting; i++) freeing.made(1_000_000 + i, POOL, 0);
      expect(t.turn()).toBeDefined();
      t.land();
      expect(freeing.waitMs(t.now)).toBe(times * GROUP_PAGES * READ_MS);
      // and no longer once they are done, or lost
      freeing.lost([{ seq: 1_000_000, kind: RELEASE_SLOT, id: 2, pool: POOL }]);
      t.now += freeing.waitMs(t.now);
      expect(t.turn()).toBeDefined();
      t.land();
      expect(freeing.waitMs(t.now)).toBe(39 * GROUP_PAGES * READ_MS);
    }
  });

  it('counts no rows of its own among them, however many it makes', () => {
    const t = new Bench();
    t.guests = true;
    // the row of a root makes those of all leaves: more than would be too many of others
    const leaves = 2 * BEHIND_MIN;
    t.queue(
      RELEASE_PAGE,
      Array.from({ length: leaves / FANOUT }, () => t.tree(1)),
    );
    const freeing = t.open();
    for (let groups = 0; freeing.queued < leaves * 0.8; ) {
      if (t.turn() !== undefined) {
        const worked = t.now;
        t.land();
        expect(freeing.waitMs(worked)).toBe(39 * GROUP_PAGES * READ_MS);
        expect(++groups).toBeLessThan(leaves);
      }
      t.now += freeing.waitMs(t.now);
    }
  });

  it('is not stopped by a slow disk: the pause has an end', () => {
    const { t, freeing } = leaves();
    expect(t.turn()).toBeDefined();
    t.now += 5000;
    t.land();
    expect(freeing.waitMs(t.now)).toBe(200);
    t.now += 200;
    expect(t.turn()).toBeDefined();
  });

  it('takes what it can get when they have gone', () => {
    const { t, freeing } = leaves();
    expect(t.turn()).toBeDefined();
    t.guests = false;
    t.now += 7;
    t.land();
    expect(freeing.waitMs(t.now)).toBe(1);
    t.now += 1;
    expect(t.turn()).toBeDefined();
  });

  it('takes a fortieth of the time, as long as they work, and frees all', () => {
    for (const guests of [true, false]) {
      const t = new Bench();
      t.guests = guests;
      t.queue(RELEASE_PAGE, [t.tree(INNER_LEVELS)]);
      t.open();
      t.run();
      expect(t.freed).toHaveLength(LEAVES);
      const share = (PAGES * READ_MS) / t.now;
      if (guests) expect(share).toBeLessThanOrEqual(BUSY_SHARE);
      else expect(share).toBeGreaterThan(0.5);
    }
  });
});
