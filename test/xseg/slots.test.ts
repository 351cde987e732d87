/** A pool's slots against a store, a core and a committer that do what the test says, when it says so. */
import { afterEach, describe, expect, it, vi } from 'vitest';
import { FILES_MAX } from '../../src/xseg/layout.gen.ts';
import { type PoolHost, ROOMY_GROUPS_MAX, SlotPool, THIN_RESERVE_BYTES } from '../../src/xseg/mapper/slots.ts';
import { COLLECT_BUSY_MS_MAX, COLLECT_MS_MAX, COLLECT_QUIET_MS, ZERO_RETRY_MS } from '../../src/xseg/mapper/zeroing.ts';
import type { Native } from '../../src/xseg/native.ts';
import { GROUP_ACTIVE, GROUP_SEALED, type GroupChange, type PoolRow } from '../../src/xseg/store/batch.ts';
import { bitFill, bitGet } from '../../src/xseg/store/bitmap.ts';
import type { GroupRow, StoreReader } from '../../src/xseg/store/reader.ts';
import { POOL_ROW } from './pool-row.ts';

const BLOCK = 65536;
const GROUP_SLOTS = 64;

/** A bitmap of one group with these slots set. */
function bits(...slots: number[]): Uint8Array {
  const map = new Uint8Array(GROUP_SLOTS / 8);
  for (const slot of slots) bitFill(map, slot, 1, true);
  return map;
}

class Bench {
  readonly pool: SlotPool;
  /** zeroing on its way: [slot, count, …] */
  readonly jobs: { runs: number[]; done: (error: number) => void }[] = [];
  /** groups being made active */
  readonly activations: { change: GroupChange; done: (ok: boolean) => void }[] = [];
  readonly owner = { id: 1, group: null };
  failed = false;
  capacity = 2 ** 50;
  comes = false;
  guests = false;

  constructor(row: Partial<PoolRow>, groups: GroupRow[] = []) {
    let epoch = 0;
    const tickets: ((error: number) => void)[] = [];
    const native = {
      poolUsage: () => ({ capacityBytes: this.capacity, physicalBytes: 0, failed: this.failed }),
      epochAdvance: () => ++epoch,
      epochSafe: () => epoch,
      zeroRuns: (_core: number, _pool: number, runs: Float64Array, count: number, ticket: number) => {
        const slots = [...runs.subarray(0, count * 2)].map((bytes) => bytes / BLOCK);
        this.jobs.push({ runs: slots, done: tickets[ticket] });
      },
    } as unknown as Native;
    const reader = {
      groups: () => groups,
      group: (_pool: number, grp: number) => groups.find((g) => g.grp === grp),
    } as unknown as StoreReader;
    const host: PoolHost = {
      activate: (_pool, change, _ensure, done) => void this.activations.push({ change, done }),
      ticket: (done) => tickets.push(done) - 1,
      comes: () => this.comes,
      guestsBusy: () => this.guests,
      log: () => undefined,
    };
    this.pool = new SlotPool({ ...POOL_ROW, ...row }, 0, native, 0, reader, host);
  }

  activated(ok = true): void {
    for (const one of this.activations.splice(0)) one.done(ok);
  }

  allocate(count = 1) {
    return this.pool.allocate(this.owner, count);
  }
}

describe('a slot that is freed in a group nobody loaded', () => {
  it('is zeroed once, also when the group is loaded meanwhile, and handed out once', () => {
    const t = new Bench({ size: 8 * BLOCK }, [
      { grp: 0, used: 7, state: GROUP_SEALED, bitmap: bits(0, 1, 2, 3, 4, 6, 7), dirty: bits(5) },
    ]);
    t.pool.freeingSlots = 1;
    t.pool.freedDurable([5, 1]);
    t.pool.turn();
    expect(t.jobs).toEqual([]);
    expect(t.allocate()).toBe('wait');
    t.pool.turn();
    expect(t.jobs.map((job) => job.runs)).toEqual([[5, 1]]);
    t.activated();
    t.pool.turn();
    expect(t.jobs).toHaveLength(1);
    expect(t.allocate()).toBe('wait');
    t.jobs[0].done(0);
    expect(t.allocate()).toEqual({ slot: 5, count: 1 });
    t.pool.turn();
    expect(t.jobs).toHaveLength(1);
    expect(t.allocate()).toBe('full');
    // freed again, it is zeroed again
    t.pool.abandon(5, 1);
    expect(t.allocate()).toBe('wait');
    t.pool.turn();
    t.jobs[1].done(0);
    expect(t.allocate()).toEqual({ slot: 5, count: 1 });
    expect(t.pool.reclaimingSlots).toBe(0);
  });
});

describe('groups that were nearly full at the start', () => {
  const full = (grp: number, free: number): GroupRow => {
    const bitmap = new Uint8Array(GROUP_SLOTS / 8).fill(0xff);
    bitFill(bitmap, 0, free, false);
    return { grp, used: GROUP_SLOTS - free, state: GROUP_SEALED, bitmap, dirty: bits() };
  };

  it('give back what is freed in them since', () => {
    const groups = [full(0, 0), full(1, 0)];
    const t = new Bench({ size: 2 * GROUP_SLOTS * BLOCK }, groups);
    expect(t.allocate()).toBe('full');
    groups[1] = full(1, 1);
    t.pool.freeingSlots = 1;
    t.pool.freedDurable([GROUP_SLOTS, 1]);
    expect(t.allocate()).toBe('wait');
    expect(t.activations.map(({ change }) => change.grp)).toEqual([1]);
    t.pool.turn();
    t.activated();
    expect(t.jobs.map((job) => job.runs)).toEqual([[GROUP_SLOTS, 1]]);
    t.jobs[0].done(0);
    expect(t.allocate()).toEqual({ slot: GROUP_SLOTS, count: 1 });
    expect(t.allocate()).toBe('full');
  });

  it('have what is left of them taken, when nothing else is left', () => {
    const t = new Bench({ size: 3 * GROUP_SLOTS * BLOCK }, [full(0, 3), full(1, 0), full(2, 4)]);
    expect(t.allocate()).toBe('wait');
    // 60 of 64 used is less than 95 %, 61 is not
    expect(t.activations.map(({ change }) => change.grp)).toEqual([2]);
    t.activated();
    expect(t.allocate(4)).toEqual({ slot: 2 * GROUP_SLOTS, count: 4 });
    expect(t.allocate()).toBe('wait');
    expect(t.activations.map(({ change }) => change.grp)).toEqual([0]);
    t.activated();
    expect(t.allocate(3)).toEqual({ slot: 0, count: 3 });
    expect(t.allocate()).toBe('full');
  });

  it('are left alone where new ones can be made, and taken at once when they cannot', () => {
    const t = new Bench({}, [full(0, 3)]);
    expect(t.allocate()).toBe('wait');
    expect(t.activations.map(({ change }) => change.grp)).toEqual([1, 2]);
    t.activated(false);
    expect(t.allocate()).toBe('wait');
    expect(t.activations.map(({ change }) => change.grp)).toEqual([0]);
    t.activated();
    expect(t.allocate(3)).toEqual({ slot: 0, count: 3 });
    expect(t.allocate()).toBe('full');
  });
});

describe('a group that was never used', () => {
  it('is clean in a directory, whose files are made with their groups', () => {
    const t = new Bench({});
    expect(t.allocate()).toBe('wait');
    t.activated();
    t.pool.turn();
    expect(t.jobs).toEqual([]);
    expect(t.allocate()).toEqual({ slot: 0, count: 1 });
  });

  for (const kind of ['file', 'device']) {
    it(`is zeroed first in a ${kind}, in pieces that become free one by one`, () => {
      // 2^10 blocks of 64 KiB are one piece
      const t = new Bench({ kind, group_slots: 4096, size: 2048 * BLOCK });
      expect(t.allocate()).toBe('wait');
      t.activated();
      for (let i = 0; i < 4; i++) t.pool.turn();
      expect(t.jobs.map((job) => job.runs)).toEqual([
        [0, 1024],
        [1024, 1024],
      ]);
      expect(t.allocate()).toBe('wait');
      t.jobs[1].done(0);
      expect(t.allocate()).toEqual({ slot: 1024, count: 1 });
      t.jobs[0].done(0);
      expect(t.allocate(2048)).toEqual({ slot: 1025, count: 1023 });
      expect(t.allocate(2048)).toEqual({ slot: 0, count: 1024 });
      expect(t.pool.reclaimingSlots).toBe(0);
    });
  }
});

describe('slots that are freed one by one', () => {
  afterEach(() => void vi.useRealTimers());

  function freed() {
    vi.useFakeTimers({ toFake: ['performance'] });
    const t = new Bench({});
    t.allocate();
    t.activated();
    expect(t.allocate(32)).toEqual({ slot: 0, count: 32 });
    t.pool.releaseOwner(t.owner);
    return t;
  }

  it('are zeroed together, in order, when no more come', () => {
    const t = freed();
    for (const slot of [7, 3, 5, 4, 12, 6, 13]) {
      t.pool.abandon(slot, 1);
      t.pool.turn();
      vi.advanceTimersByTime(COLLECT_QUIET_MS - 1);
      t.pool.turn();
      expect(t.jobs).toEqual([]);
    }
    vi.advanceTimersByTime(1);
    t.pool.turn();
    expect(t.jobs.map((job) => job.runs)).toEqual([[3, 5, 12, 2]]);
    expect(t.pool.reclaimingSlots).toBe(7);
    t.jobs[0].done(0);
    expect(t.pool.reclaimingSlots).toBe(0);
    expect(t.pool.waitMs(performance.now())).toBe(Number.POSITIVE_INFINITY);
  });

  it('do not wait for more for ever', () => {
    const t = freed();
    const step = COLLECT_QUIET_MS / 2;
    let ms = 0;
    for (let slot = 0; t.jobs.length === 0; slot++, ms += step) {
      t.pool.abandon(slot, 1);
      t.pool.turn();
      vi.advanceTimersByTime(step);
      t.pool.turn();
    }
    expect(ms).toBe(COLLECT_MS_MAX);
    expect(t.jobs[0].runs).toEqual([0, COLLECT_MS_MAX / step]);
  });

  it('wait for longer while a volume allocates from their group, and not when it has left', () => {
    const t = freed();
    expect(t.allocate()).toEqual({ slot: 32, count: 1 });
    t.pool.abandon(4, 1);
    t.pool.turn();
    vi.advanceTimersByTime(COLLECT_BUSY_MS_MAX - 1);
    t.pool.turn();
    expect(t.jobs).toEqual([]);
    vi.advanceTimersByTime(1);
    t.pool.turn();
    expect(t.jobs.map((job) => job.runs)).toEqual([[4, 1]]);

    t.pool.abandon(5, 1);
    t.pool.turn();
    vi.advanceTimersByTime(COLLECT_MS_MAX);
    t.pool.turn();
    expect(t.jobs).toHaveLength(1);
    t.pool.releaseOwner(t.owner);
    t.pool.turn();
    expect(t.jobs[1].runs).toEqual([5, 1]);
  });

  it('are zeroed at once when somebody waits for slots', () => {
    const t = new Bench({ size: GROUP_SLOTS * BLOCK });
    t.allocate();
    t.activated();
    expect(t.allocate(GROUP_SLOTS)).toEqual({ slot: 0, count: GROUP_SLOTS });
    t.pool.abandon(9, 1);
    t.pool.turn();
    expect(t.jobs).toEqual([]);
    expect(t.allocate()).toBe('wait');
    t.pool.turn();
    expect(t.jobs.map((job) => job.runs)).toEqual([[9, 1]]);
  });
});

describe('slots that copies of the store hold', () => {
  it('are on their way back in what the pool says, and not zeroed', () => {
    const groups = [{ grp: 0, used: 3, state: GROUP_SEALED, bitmap: bits(0, 1, 2), dirty: bits() }];
    const t = new Bench({ size: 8 * BLOCK }, groups);
    t.pool.holding.on = true;
    t.pool.freeingSlots = 2;
    t.pool.freedDurable([0, 2]);
    expect([t.pool.heldSlots, t.pool.reclaimingSlots]).toEqual([2, 0]);
    expect(t.pool.usage()).toMatchObject({ usedBytes: BLOCK, freeBytes: 7 * BLOCK, reclaimingBytes: 2 * BLOCK });
    t.pool.turn();
    expect(t.jobs).toEqual([]);
  });
});

describe('somebody who waits for slots', () => {
  /** a full pool, and a slot of it that copies of the store hold */
  function waiting(): Bench {
    const t = new Bench({ size: 8 * BLOCK });
    t.allocate();
    t.activated();
    t.allocate(8);
    t.pool.holding.on = true;
    t.pool.freeingSlots = 1;
    t.pool.freedDurable([0, 1]);
    expect(t.allocate()).toBe('wait');
    return t;
  }

  it('is told when the pool fails meanwhile, whoever finds out', () => {
    const t = waiting();
    let woken = 0;
    t.pool.waiters.push(() => woken++);
    t.failed = true;
    t.pool.usage();
    t.pool.turn();
    expect(woken).toBe(1);
    expect(t.allocate()).toBe('failed');
  });

  it('waits for what is being zeroed in a thin pool too, when its file system is full', () => {
    const t = new Bench({});
    t.allocate();
    t.activated();
    expect(t.allocate()).toEqual({ slot: 0, count: 1 });
    t.pool.abandon(0, 1);
    t.capacity = THIN_RESERVE_BYTES - 1;
    t.pool.usage();
    expect(t.allocate()).toBe('wait');
    t.pool.turn();
    t.capacity = 2 ** 50;
    t.jobs[0].done(0);
    expect(t.allocate()).toEqual({ slot: 1, count: 1 });
    t.capacity = THIN_RESERVE_BYTES - 1;
    t.pool.usage();
    expect(t.allocate()).toBe('full');
  });

  it('gets a group that is left when those that are ready could not be zeroed', () => {
    const t = new Bench({ size: 3 * GROUP_SLOTS * BLOCK, kind: 'file' });
    expect(t.allocate()).toBe('wait');
    expect(t.activations.map(({ change }) => change.grp)).toEqual([0, 1]);
    t.activated();
    t.pool.turn();
    for (const job of t.jobs.splice(0)) job.done(28);
    expect(t.allocate()).toBe('wait');
    expect(t.activations.map(({ change }) => change.grp)).toEqual([2]);
  });

  it('does not wait for what copies hold that cannot be removed', () => {
    const t = waiting();
    t.pool.copiesStay = true;
    expect(t.allocate()).toBe('full');
  });
});

describe('zeroing beside guests', () => {
  afterEach(() => void vi.useRealTimers());

  /** Three groups with a slot each that may be zeroed now. */
  function due() {
    vi.useFakeTimers({ toFake: ['performance'] });
    const t = new Bench({});
    t.guests = true;
    const runs: number[] = [];
    while (runs.length < 3) {
      const run = t.allocate(GROUP_SLOTS);
      if (run === 'wait') t.activated();
      else if (typeof run === 'string') throw new Error(run);
      else runs.push(run.slot);
    }
    t.pool.releaseOwner(t.owner);
    for (const slot of runs) t.pool.abandon(slot + 3, 1);
    t.pool.turn();
    expect(t.jobs).toEqual([]);
    vi.advanceTimersByTime(COLLECT_QUIET_MS);
    return t;
  }

  it('is one job at a time, and nine times as long a pause; without them it is two, and none', () => {
    const t = due();
    for (let i = 0; i < 3; i++) t.pool.turn();
    expect(t.jobs).toHaveLength(1);
    vi.advanceTimersByTime(30);
    t.jobs[0].done(0);
    expect(t.pool.waitMs(performance.now())).toBe(270);
    vi.advanceTimersByTime(269);
    t.pool.turn();
    expect(t.jobs).toHaveLength(1);
    vi.advanceTimersByTime(1);
    t.pool.turn();
    expect(t.jobs).toHaveLength(2);
    // they go while it is on its way
    t.guests = false;
    t.pool.turn();
    expect(t.jobs).toHaveLength(3);
    for (const job of t.jobs.slice(1)) job.done(0);
    expect(t.pool.reclaimingSlots).toBe(0);
  });

  it('is not stopped by a slow disk: the pause has an end', () => {
    const t = due();
    t.pool.turn();
    vi.advanceTimersByTime(10_000);
    t.jobs[0].done(0);
    expect(t.pool.waitMs(performance.now())).toBe(1000);
    vi.advanceTimersByTime(1000);
    t.pool.turn();
    expect(t.jobs).toHaveLength(2);
  });

  it('keeps nobody waiting who needs the slots', () => {
    const t = new Bench({ size: GROUP_SLOTS * BLOCK });
    t.guests = true;
    t.allocate();
    t.activated();
    expect(t.allocate(GROUP_SLOTS)).toEqual({ slot: 0, count: GROUP_SLOTS });
    t.pool.abandon(9, 1);
    expect(t.allocate()).toBe('wait');
    t.pool.turn();
    t.pool.abandon(20, 1);
    t.pool.turn();
    expect(t.jobs.map((job) => job.runs)).toEqual([
      [9, 1],
      [20, 1],
    ]);
  });
});

describe('zeroing that fails', () => {
  function fullPool() {
    const t = new Bench({ size: 8 * BLOCK });
    t.allocate();
    t.activated();
    expect(t.allocate(8)).toEqual({ slot: 0, count: 8 });
    t.pool.abandon(2, 3);
    expect(t.allocate()).toBe('wait');
    t.pool.turn();
    let woken = 0;
    t.pool.waiters.push(() => woken++);
    return { t, woken: () => woken };
  }

  it('is no space for those who wait, and is tried again later', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const { t, woken } = fullPool();
    t.jobs[0].done(28);
    expect(woken()).toBe(1);
    expect(t.allocate()).toBe('full');
    expect([t.pool.reclaimingSlots, t.pool.lostSlots]).toEqual([0, 3]);
    expect(t.pool.usage().reclaimingBytes).toBe(3 * BLOCK);
    t.pool.turn();
    expect(t.jobs).toHaveLength(1);
    vi.advanceTimersByTime(ZERO_RETRY_MS);
    t.pool.turn();
    expect(t.jobs[1].runs).toEqual([2, 3]);
    expect(t.allocate()).toBe('wait');
    t.jobs[1].done(0);
    expect(t.allocate(3)).toEqual({ slot: 2, count: 3 });
    expect([t.pool.reclaimingSlots, t.pool.lostSlots]).toEqual([0, 0]);
    vi.useRealTimers();
  });

  it('tells those who wait when the pool failed by it', () => {
    const { t, woken } = fullPool();
    t.failed = true;
    t.jobs[0].done(5);
    expect(woken()).toBe(1);
    expect(t.allocate()).toBe('failed');
  });
});

describe('groups that cannot be prepared', () => {
  afterEach(() => void vi.useRealTimers());

  it('are tried again later and not one after another: the pool is full meanwhile', () => {
    vi.useFakeTimers();
    const groups = [{ grp: 0, used: 1, state: GROUP_SEALED, bitmap: bits(0), dirty: bits() }];
    const t = new Bench({ size: 2 * GROUP_SLOTS * BLOCK }, groups);
    for (let i = 0; i < 3; i++) {
      expect(t.allocate()).toBe('wait');
      expect(t.activations.map((a) => a.change.grp)).toEqual([0, 1]);
      t.activated(false);
      expect(t.allocate()).toBe('full');
      expect(t.activations).toEqual([]);
      vi.advanceTimersByTime(1001);
    }
    expect(t.allocate()).toBe('wait');
    t.activated();
    expect(t.allocate()).toEqual({ slot: 1, count: 1 });
  });

  it('leave the others alone', () => {
    vi.useFakeTimers();
    const t = new Bench({});
    t.allocate();
    t.activations[0].done(false);
    t.activations[1].done(true);
    t.activations.length = 0;
    expect(t.allocate()).toEqual({ slot: GROUP_SLOTS, count: 1 });
    const tried: number[] = [];
    // as long as there are slots, and then a while
    for (let i = 0; i < GROUP_SLOTS + 40; i++) {
      vi.advanceTimersByTime(1001);
      t.allocate();
      tried.push(...t.activations.map((a) => a.change.grp));
      t.activated(false);
    }
    // a few new ones, then those again
    expect(Math.max(...tried)).toBeLessThan(20);
    expect(tried.slice(-20)).toContain(0);
  });

  it('are as many as a directory can have files; a device has no such bound', () => {
    const groups = [{ grp: FILES_MAX - 1, used: GROUP_SLOTS, state: GROUP_SEALED, bitmap: bits(), dirty: bits() }];
    expect(new Bench({ kind: 'directory' }, groups).allocate()).toBe('full');
    const t = new Bench({ kind: 'device', size: 2 ** 50 }, groups);
    expect(t.allocate()).toBe('wait');
    expect(t.activations[0].change.grp).toBe(FILES_MAX);
  });
});

describe('groups that are being zeroed', () => {
  it('keep nobody waiting where a new one is zero from the start', () => {
    const groups = [0, 1, 2].map((grp) => ({ grp, used: 0, state: GROUP_ACTIVE, bitmap: bits(), dirty: null }));
    const t = new Bench({}, groups);
    expect(t.allocate()).toBe('wait');
    t.activated();
    t.pool.turn();
    // two groups of the store are being zeroed; nobody waits for them
    expect(t.jobs.length).toBeGreaterThan(0);
    expect(t.allocate()).toBe('wait');
    expect(t.activations.map(({ change }) => change.grp)).toEqual([3, 4]);
    t.activated();
    expect(t.allocate()).toEqual({ slot: 3 * GROUP_SLOTS, count: 1 });
    expect(t.activations).toEqual([]);
  });

  it('are waited for; no more of them are begun meanwhile', () => {
    const t = new Bench({ kind: 'device', size: 100 * GROUP_SLOTS * BLOCK });
    expect(t.allocate()).toBe('wait');
    expect(t.activations).toHaveLength(2);
    t.activated();
    t.pool.turn();
    for (let i = 0; i < 5; i++) expect(t.allocate()).toBe('wait');
    expect(t.activations).toHaveLength(0);
    t.jobs[0].done(0);
    expect(t.allocate()).toEqual({ slot: 0, count: 1 });
  });
});

describe('volumes that write at the same time', () => {
  /** The groups that so many have; none is ever left. */
  function groupsOf(volumes: number, count = 1) {
    const t = new Bench({});
    const groups = new Set<number>();
    const slots = new Set<number>();
    let prepared = 0;
    for (let id = 1; id <= volumes; id++) {
      const owner = { id, group: null };
      let run = t.pool.allocate(owner, count);
      for (; run === 'wait'; run = t.pool.allocate(owner, count)) {
        prepared += t.activations.length;
        t.activated();
      }
      if (typeof run === 'string') throw new Error(run);
      groups.add(Math.floor(run.slot / GROUP_SLOTS));
      for (let i = 0; i < run.count; i++) slots.add(run.slot + i);
      prepared += t.activations.length;
      t.activated();
    }
    expect(slots.size).toBe(volumes * count);
    return { groups: groups.size, prepared };
  }

  it('have a group each, until there are enough with room; then they share', () => {
    expect(groupsOf(ROOMY_GROUPS_MAX - 1)).toEqual({ groups: ROOMY_GROUPS_MAX - 1, prepared: ROOMY_GROUPS_MAX });
    expect(groupsOf(ROOMY_GROUPS_MAX)).toEqual({ groups: ROOMY_GROUPS_MAX, prepared: ROOMY_GROUPS_MAX });
    expect(groupsOf(ROOMY_GROUPS_MAX * 3)).toEqual({ groups: ROOMY_GROUPS_MAX, prepared: ROOMY_GROUPS_MAX });
  });

  it('get more groups when those have no room any more', () => {
    const most = (GROUP_SLOTS * 3) / 4;
    expect(groupsOf(ROOMY_GROUPS_MAX, most).prepared).toBe(ROOMY_GROUPS_MAX);
    expect(groupsOf(ROOMY_GROUPS_MAX, most + 1).prepared).toBeGreaterThan(ROOMY_GROUPS_MAX);
  });
});

describe('a group that its volume left for a sync', () => {
  it('is taken again last, and like others when the sync is over', () => {
    const t = new Bench({});
    t.allocate();
    t.activated();
    expect(t.allocate()).toEqual({ slot: 0, count: 1 });
    const synced = t.pool.leave(t.owner);
    expect(t.allocate()).toEqual({ slot: GROUP_SLOTS, count: 1 });
    t.activated();
    t.pool.releaseOwner(t.owner);
    synced();
    expect(t.allocate()).toEqual({ slot: 1, count: 1 });
  });

  it('is taken again meanwhile when there is no other', () => {
    const t = new Bench({ size: GROUP_SLOTS * BLOCK });
    t.allocate();
    t.activated();
    expect(t.allocate()).toEqual({ slot: 0, count: 1 });
    t.pool.leave(t.owner);
    expect(t.allocate()).toEqual({ slot: 1, count: 1 });
  });

  it('is none where the volume has not written', () => {
    const t = new Bench({});
    t.pool.leave(t.owner)();
    expect(t.allocate()).toBe('wait');
  });
});

describe('a full pool', () => {
  it('has its writers wait while what was deleted comes back, and no longer', () => {
    const t = new Bench({ size: 8 * BLOCK });
    t.allocate();
    t.activated();
    expect(t.allocate(8)).toEqual({ slot: 0, count: 8 });
    expect(t.allocate()).toBe('full');
    t.comes = true;
    expect(t.allocate()).toBe('wait');
    let woken = 0;
    t.pool.waiters.push(() => woken++);
    t.pool.turn();
    expect([woken, t.pool.wanted]).toEqual([0, true]);
    t.comes = false;
    t.pool.turn();
    expect([woken, t.pool.wanted]).toEqual([1, false]);
    expect(t.allocate()).toBe('full');
  });
});

describe('a clean stop', () => {
  it('takes no slot for zero that was handed out, whether or not a commit named it', () => {
    const t = new Bench({});
    expect(t.allocate()).toBe('wait');
    t.activated();
    expect(t.allocate(2)).toEqual({ slot: 0, count: 2 });
    const { changes } = t.pool.seal();
    const dirty = changes.find((change) => change.grp === 0)?.dirty as Uint8Array;
    expect([0, 1, 2, 3].map((slot) => bitGet(dirty, slot))).toEqual([true, true, false, false]);
    // and hands out none of what it says is zero
    expect(t.allocate()).toBe('failed');
  });

  it('hears of a failure that the core alone has seen', () => {
    const t = new Bench({});
    t.failed = true;
    expect(t.pool.failed).toBe(false);
    expect(t.pool.hasFailed()).toBe(true);
  });
});
