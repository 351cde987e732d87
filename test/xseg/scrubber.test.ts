/** Scrubbing a pool that is damaged all over, and the pace of it. */
import { describe, expect, it } from 'vitest';
import type { Commits } from '../../src/xseg/mapper/commits.ts';
import type { Quarantine } from '../../src/xseg/mapper/quarantine.ts';
import { LOOK_MS_MAX, Scrubber, type ScrubberHost } from '../../src/xseg/mapper/scrubber.ts';
import type { Sealer } from '../../src/xseg/mapper/sealer.ts';
import type { SlotPool } from '../../src/xseg/mapper/slots.ts';
import type { Native } from '../../src/xseg/native.ts';
import { type HashWish, SLOT_HASHED } from '../../src/xseg/seal/job.ts';
import { type CommitBatch, emptyBatch } from '../../src/xseg/store/batch.ts';
import type { StoreReader } from '../../src/xseg/store/reader.ts';

const BLOCK = 4096;
const SLOTS = 20;
const POOL = { id: 1, handle: 1, blockSize: BLOCK, groupSlots: 64, row: { name: 'p', kind: 'directory' } } as SlotPool;

/** Each look at a slot takes a millisecond. */
function setUp(slots = SLOTS) {
  let now = 100_000;
  const hash = Buffer.alloc(32, 7);
  const rows = Array.from({ length: slots }, (_, slot) => ({ slot, hash, bad: null }));
  const settings = { scrub_rate: 2 ** 30, scrub_at: 0, scrubbed_at: 0 };
  const sent: CommitBatch[] = [];
  const answers: (() => void)[] = [];
  const seal = {
    from: (_pool: number, at: number, max: number) => rows.slice(at, at + max),
    row: (_pool: number, slot: number) => rows[slot],
    slotOf: () => -1,
  };
  const commits = {
    newBatch: () => emptyBatch(1),
    sendLoose: (batch: CommitBatch, done: () => void) => {
      sent.push(batch);
      answers.push(done);
    },
  };
  const native = {
    readNow: () => {
      now++;
    },
  };
  let job: { job: HashWish; done: Parameters<ScrubberHost['hash']>[1] } | null = null;
  const host: ScrubberHost = {
    hash: (one, done) => {
      job = { job: one, done };
    },
    pools: () => [POOL],
    ticket: () => 1,
    log: () => undefined,
  };
  const scrubber = new Scrubber(
    { settings: () => settings } as unknown as Sealer,
    { has: () => false, add: () => undefined, remove: () => undefined } as unknown as Quarantine,
    { seal } as unknown as StoreReader,
    commits as unknown as Commits,
    native as unknown as Native,
    0,
    { now: () => now, date: () => now },
    host,
  );
  /** @param byte 7: they are well */
  const hashed = (byte = 0) => {
    const { job: wish, done } = job!;
    job = null;
    const count = wish.slots.length;
    done({
      states: new Uint8Array(count).fill(SLOT_HASHED),
      hashes: new Uint8Array(count * 32).fill(byte),
      bytes: 0,
    } as never);
  };
  /** the committer answers all */
  const answer = () => {
    for (const done of answers.splice(0)) done();
  };
  const wait = (ms: number) => {
    now += ms;
  };
  const asked = () => job?.job.slots.length ?? 0;
  return { scrubber, settings, sent, hashed, answer, asked, wait, now: () => now };
}

const condemned = (batches: CommitBatch[]) => batches.map(({ seal }) => (seal?.bad.length ?? 0) / 3);

it('looks at few slots in a turn, and at all in the end', () => {
  const t = setUp();
  t.scrubber.turn(t.now());
  t.hashed();
  expect(condemned(t.sent)).toEqual([LOOK_MS_MAX]);
  expect(t.settings.scrub_at).toBe(0);
  // what it found is durable first
  t.scrubber.turn(t.now());
  expect(t.sent).toHaveLength(1);
  for (let i = 0; i < SLOTS && t.settings.scrub_at === 0; i++) {
    t.answer();
    expect(t.scrubber.dueIn()).toBe(1);
    t.scrubber.turn(t.now());
  }
  expect(condemned(t.sent).reduce((a, b) => a + b)).toBe(SLOTS);
  expect(t.settings.scrub_at).toBe(SLOTS);
});

it('goes on with what was read although scrubbing was switched off meanwhile', () => {
  const t = setUp();
  t.scrubber.turn(t.now());
  t.hashed();
  t.settings.scrub_rate = 0;
  for (let i = 0; i < SLOTS; i++) {
    t.answer();
    t.scrubber.turn(t.now());
  }
  expect(condemned(t.sent).reduce((a, b) => a + b)).toBe(SLOTS);
  expect(t.scrubber.dueIn()).toBe(Number.POSITIVE_INFINITY);
});

describe('a pass', () => {
  const MIB = 1024 * 1024;

  /** Each job of a pass: when it was sent, and what it reads. @param jobMs how long each takes */
  function pass(slots: number, rate: number, jobMs = 0) {
    const t = setUp(slots);
    t.settings.scrub_rate = rate;
    const jobs: { at: number; bytes: number }[] = [];
    for (let turns = 0; t.settings.scrubbed_at === 0; turns++) {
      expect(turns).toBeLessThan(10_000);
      t.scrubber.turn(t.now());
      if (t.asked() === 0) {
        t.wait(t.scrubber.dueIn());
        continue;
      }
      jobs.push({ at: t.now(), bytes: t.asked() * BLOCK });
      t.wait(jobMs);
      t.hashed(7);
      t.answer();
    }
    expect(t.sent.flatMap(({ seal }) => seal?.bad ?? [])).toEqual([]);
    expect(jobs.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(slots * BLOCK);
    return jobs;
  }

  for (const [what, rate, slots] of [
    ['less than a block a second', 1000, 5],
    ['1 MiB/s', MIB, 2000],
    ['20 MiB/s', 20 * MIB, 20_000],
  ] as const)
    it(`at ${what} reads no more by when, and no less`, () => {
      for (const jobMs of [0, 40]) {
        const jobs = pass(slots, rate, jobMs);
        for (let i = 0; i < jobs.length; i++) {
          // at once: what is due within a second
          expect(jobs[i].bytes).toBeLessThanOrEqual(Math.max(rate, BLOCK));
          let bytes = 0;
          for (let k = i + 1; k < jobs.length; k++) {
            bytes += jobs[k - 1].bytes;
            expect(bytes).toBeLessThanOrEqual((rate * (jobs[k].at - jobs[i].at)) / 1000);
          }
        }
        const last = jobs[jobs.length - 1];
        const least = ((slots * BLOCK - last.bytes) / rate) * 1000;
        // waits are of whole milliseconds
        expect(last.at - jobs[0].at).toBeLessThanOrEqual(least + 2 * jobs.length);
      }
    });

  it('on a slow disk is as long as that takes, and does not catch up with what it missed', () => {
    const jobs = pass(2000, MIB, 3000);
    for (let i = 1; i < jobs.length; i++) expect(jobs[i].at - jobs[i - 1].at).toBeGreaterThanOrEqual(3000);
    expect(jobs[jobs.length - 1].at - jobs[0].at).toBeLessThanOrEqual(3002 * (jobs.length - 1));
  });

  it('does not begin without a rate', () => {
    const t = setUp();
    t.settings.scrub_rate = 0;
    t.scrubber.turn(t.now());
    expect(t.asked()).toBe(0);
    expect(t.scrubber.dueIn()).toBe(Number.POSITIVE_INFINITY);
  });
});

it('reads nothing of a pool that has failed: what it wrote may be in memory alone', () => {
  const t = setUp();
  POOL.failed = true;
  try {
    t.scrubber.turn(t.now());
    expect(t.asked()).toBe(0);
    expect(t.scrubber.dueIn()).toBe(Number.POSITIVE_INFINITY);
  } finally {
    POOL.failed = false;
  }
  t.scrubber.turn(t.now());
  expect(t.asked()).toBe(SLOTS);
});
