/** Sealing at a set rate, and what ends it early: what is read by when, on a clock that only goes on when the sealer waits. */
import { describe, expect, it } from 'vitest';
import type { Commits } from '../../src/xseg/mapper/commits.ts';
import type { Frames } from '../../src/xseg/mapper/frames.ts';
import type { Resource } from '../../src/xseg/mapper/resource.ts';
import { Sealer, type SealerHost } from '../../src/xseg/mapper/sealer.ts';
import type { SlotPool } from '../../src/xseg/mapper/slots.ts';
import { heightFor, type Tree } from '../../src/xseg/mapper/tree.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { type HashResult, type HashWish, JOB_BYTES_MAX, SLOT_HASHED, SLOT_KNOWN } from '../../src/xseg/seal/job.ts';
import { type CommitBatch, emptyBatch } from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';
import { defaultSealPool } from '../../src/xseg/store/seal-batch.ts';

const native = loadNative();
const MIB = 1024 * 1024;
const BLOCK = 65536;
const POOL = { id: 1, handle: 1, blockSize: BLOCK } as SlotPool;
/** Leaves of the snapshot; one is a job, four are a group. */
const LEAVES = 8;
const BYTES = LEAVES * 512 * BLOCK;
const SNAPSHOT = 7;
const ROOT = 1;
const START_MS = 5000;
const TURNS_MAX = 10_000;

/** A page whose entries name values of which each is used once. */
function page(id: number, level: number, count: number, first: number): Buffer {
  const entries = new Uint32Array(1024);
  for (let i = 0; i < count; i++) {
    entries[i * 2] = first + i;
    entries[i * 2 + 1] = 0x40000000;
  }
  const blob = Buffer.alloc(8192);
  return blob.subarray(0, native.encodePageFrom(entries, level, id, 0, SNAPSHOT, 1, count * 512 ** level, blob, 0));
}

/** @param known the index has all blocks already, so that nothing is read */
class Bench {
  now = START_MS;
  /** each job: when it was sent, and what it reads */
  readonly jobs: { at: number; bytes: number }[] = [];
  readonly settings = { ...defaultSealPool(POOL.id), seal: 1 };
  readonly sealer: Sealer;
  /** the snapshot is no longer there */
  gone = false;
  #job: { wish: HashWish; done: (result: HashResult | null) => void } | null = null;
  #sealed = false;

  constructor(
    rate: number,
    readonly jobMs = 0,
    readonly known = false,
  ) {
    this.settings.rate = rate;
    const pages = new Map([[ROOT, page(ROOT, 1, LEAVES, 10)]]);
    for (let leaf = 0; leaf < LEAVES; leaf++) pages.set(10 + leaf, page(10 + leaf, 0, 512, 1 + leaf * 512));
    const row = { id: SNAPSHOT, name: 's', size: BYTES, root: ROOT, height: heightFor(BYTES, BLOCK) };
    const reader = {
      look: <T>(work: () => T) => work(),
      page: (id: number) => pages.get(id),
      seal: {
        pool: () => this.settings,
        page: () => undefined,
        lastResource: () => SNAPSHOT,
        firstUnsealed: (_pool: number, from: number) => (this.#sealed || from >= SNAPSHOT ? undefined : SNAPSHOT),
      },
    } as unknown as StoreReader;
    const commits = {
      newBatch: () => emptyBatch(1),
      sendLoose: (batch: CommitBatch, done: (error: null) => void) => {
        if (batch.seal?.resources.includes(SNAPSHOT)) this.#sealed = true;
        done(null);
      },
    } as unknown as Commits;
    const host: Partial<SealerHost> = {
      hash: (wish, done) => {
        this.#job = { wish, done };
      },
      pool: () => POOL,
      resource: () => (this.gone ? undefined : ({ row } as Resource)),
      pendingFrom: () => SNAPSHOT + 1,
      freeing: () => false,
      poke: () => undefined,
    };
    const clock = { now: () => this.now, date: () => this.now };
    this.sealer = new Sealer({} as Frames, {} as Tree, reader, commits, native, clock, host as SealerHost);
    this.sealer.settings(POOL.id);
  }

  /** A turn; a job that it sends is done `jobMs` later. With nothing to do the clock goes on until there is. */
  turn(): void {
    this.sealer.turn(this.now);
    if (this.#job === null) {
      const ms = this.sealer.dueIn();
      if (ms < Number.POSITIVE_INFINITY) this.now += ms;
      return;
    }
    const { wish, done } = this.#job;
    this.#job = null;
    const count = wish.slots.length;
    const bytes = this.known ? 0 : count * wish.blockSize;
    this.jobs.push({ at: this.now, bytes: count * wish.blockSize });
    this.now += this.jobMs;
    const hashes = Buffer.alloc(count * 32);
    for (let i = 0; i < count; i++) hashes.writeDoubleLE(wish.slots[i] + 1, i * 32);
    done({
      states: new Uint8Array(count).fill(this.known ? SLOT_KNOWN : SLOT_HASHED),
      hashes,
      same: new Float64Array(count).fill(-1),
      bytesRead: bytes,
      ms: 0,
    });
  }

  /** Until the snapshot has its hash. @returns milliseconds from the first job to the last */
  seal(): number {
    for (let turns = 0; !this.#sealed; turns++) {
      expect(turns).toBeLessThan(TURNS_MAX);
      this.turn();
    }
    expect(this.jobs.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(BYTES);
    return this.jobs[this.jobs.length - 1].at - this.jobs[0].at;
  }
}

/** From each job to each later one no more was read than the rate allows; what the last one reads comes after. */
function expectBounded(jobs: Bench['jobs'], rate: number): void {
  for (let i = 0; i < jobs.length; i++) {
    expect(jobs[i].bytes).toBeLessThanOrEqual(JOB_BYTES_MAX);
    let bytes = 0;
    for (let k = i + 1; k < jobs.length; k++) {
      bytes += jobs[k - 1].bytes;
      expect(bytes).toBeLessThanOrEqual((rate * (jobs[k].at - jobs[i].at)) / 1000);
    }
  }
}

for (const rate of [1, 20, 500].map((n) => n * MIB))
  it(`${rate / MIB} MiB/s bounds what is read by when, and no more than that`, () => {
    const t = new Bench(rate);
    const ms = t.seal();
    expectBounded(t.jobs, rate);
    const least = ((BYTES - t.jobs[t.jobs.length - 1].bytes) / rate) * 1000;
    expect(ms).toBeGreaterThanOrEqual(least);
    // waits are of whole milliseconds
    expect(ms).toBeLessThanOrEqual(least + 10 * t.jobs.length);
  });

it('hashing that takes its time is part of it, and what it missed is not caught up with', () => {
  const rate = 64 * MIB;
  const paced = new Bench(rate, 200);
  expect(paced.seal()).toBeLessThanOrEqual(((BYTES - JOB_BYTES_MAX) / rate) * 1000 + 10 * paced.jobs.length);
  expectBounded(paced.jobs, rate);
  const slow = new Bench(rate, 3000);
  expect(slow.seal()).toBeLessThanOrEqual(3000 * (slow.jobs.length - 1) + 10 * slow.jobs.length);
  expectBounded(slow.jobs, rate);
});

it('no rate is no bound: the clock hardly goes on', () => {
  expect(new Bench(0).seal()).toBeLessThan(100);
});

it('what the index has is not read, and takes no time of the rate', () => {
  expect(new Bench(MIB, 0, true).seal()).toBeLessThan(100);
});

it('a new rate counts at once', () => {
  const t = new Bench(MIB);
  while (t.jobs.length === 0) t.turn();
  t.sealer.turn(t.now);
  expect(t.sealer.dueIn()).toBe((JOB_BYTES_MAX / MIB) * 1000);
  t.sealer.changed({ ...t.settings, rate: 2 * MIB });
  t.turn();
  expect(t.jobs).toHaveLength(2);
  expect(t.jobs[1].at).toBe(t.jobs[0].at);
  expect(t.sealer.dueIn()).toBe((JOB_BYTES_MAX / MIB / 2) * 1000);
});

describe('a group of blocks of which one job is done', () => {
  /** What happens then, and all that the sealer does about it. */
  function afterFirst(happens: (t: Bench) => void): Bench {
    const t = new Bench(MIB);
    while (t.jobs.length === 0) t.turn();
    expect(t.sealer.held(10)).toBe(true);
    happens(t);
    for (let turns = 0; t.sealer.dueIn() < Number.POSITIVE_INFINITY; turns++) {
      expect(turns).toBeLessThan(TURNS_MAX);
      t.turn();
    }
    return t;
  }

  /** Nothing more was hashed, and no page is kept from being freed. */
  function expectStopped(t: Bench): void {
    expect(t.jobs).toHaveLength(1);
    for (let leaf = 0; leaf < LEAVES; leaf++) expect(t.sealer.held(10 + leaf)).toBe(false);
  }

  it('is given up when its snapshot is gone', () => {
    expectStopped(
      afterFirst((t) => {
        t.gone = true;
      }),
    );
  });

  for (const [what, setting] of [
    ['sealing is paused', { paused: 1 }],
    ['its pool is sealed no more', { seal: 0 }],
  ] as const)
    it(`is given up when ${what}, and begun anew when it may be sealed`, () => {
      const t = afterFirst((bench) => bench.sealer.changed({ ...bench.settings, ...setting }));
      expectStopped(t);
      t.jobs.length = 0;
      t.sealer.changed({ ...t.settings, seal: 1, paused: 0, rate: 0 });
      t.seal();
    });
});
