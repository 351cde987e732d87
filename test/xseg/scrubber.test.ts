/** Scrubbing a pool that is damaged all over. */
import { expect, it } from 'vitest';
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
function setUp() {
  let now = 100_000;
  const hash = Buffer.alloc(32, 7);
  const rows = Array.from({ length: SLOTS }, (_, slot) => ({ slot, hash, bad: null }));
  const settings = { scrub_rate: 2 ** 30, scrub_at: 0, scrubbed_at: 0 };
  const sent: CommitBatch[] = [];
  const answers: (() => void)[] = [];
  const seal = {
    from: (_pool: number, at: number) => rows.slice(at),
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
  const hashed = () => {
    const count = job!.job.slots.length;
    job!.done({
      states: new Uint8Array(count).fill(SLOT_HASHED),
      hashes: new Uint8Array(count * 32),
      bytes: 0,
    } as never);
  };
  /** the committer answers all */
  const answer = () => {
    for (const done of answers.splice(0)) done();
  };
  return { scrubber, settings, sent, hashed, answer, now: () => now };
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
