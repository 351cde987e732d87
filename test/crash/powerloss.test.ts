/**
 * The power fails under the real daemon, its real store and files: a disk that logs every write and flush is replayed to
 * any moment, without what was not flushed or with a part of it, mounted, and served again. What was acknowledged by
 * then is there. docs/crash-testing.md says how it works.
 *
 * The seed is printed and taken from ATOLL_SEED. It fixes what is written and what is lost, not how threads interleave.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { random } from '../../bench/scatter.ts';
import { MIB } from '../../bench/size.ts';
import { LONG } from '../e2e/lib/long.ts';
import { SYNC_FAULT_ARGS, syncFaults } from './lib/sync-faults.ts';
import { Stand, whyNoDevice } from './powerloss/device.ts';
import { drawFailures, type Failure, record, replayWhole, survey } from './powerloss/recording.ts';

const DISK_BYTES = 384 * MIB;
/** Flushes answered in the daemon's last life. */
const FLUSHES = LONG ? 250 : 30;
/** Syncs of the store's log that the first life has at least. */
const LOG_SYNCS_MIN = 30;
/** Failures looked at; in the long run every cut, and as many more, drawn. ATOLL_FAILURES says another number. */
const FAILURES = Number(process.env.ATOLL_FAILURES ?? (LONG ? Number.POSITIVE_INFINITY : 11));
/** Failures in which a missing sync must be noticed. */
const FAILURES_TO_NOTICE = 12;
const TEST_MS_MAX = LONG ? 6 * 3600_000 : 300_000;

const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);
const why = whyNoDevice();
if (why) console.warn(`tests of power loss are skipped: ${why}`);

const byMoment = (a: Failure, b: Failure): number => a.cut.end - b.cut.end;

describe.skipIf(why)(`power loss (seed ${seed})`, () => {
  let stand: Stand;
  beforeEach(() => {
    stand = new Stand();
  });
  afterEach(() => stand.end());

  it('keeps what was acknowledged, whenever it comes and whatever the disk had not taken', {
    timeout: TEST_MS_MAX,
  }, async () => {
    const next = random(seed);
    const env = await syncFaults(stand.children, stand.file('sync-faults.so'));
    const recording = await record(stand, DISK_BYTES, {
      flushes: FLUSHES,
      random: next,
      // What the next daemon finds is then not durable yet: it may build nothing on it that is.
      deadlyEnv: env(`kill:/store.db-wal:${LOG_SYNCS_MIN + Math.floor(next() * LOG_SYNCS_MIN)}`),
    });
    const { cuts, entries, report, disk } = recording;
    expect(report.writes).toBeGreaterThan(FLUSHES);
    expect(report.snapshots).toBeGreaterThan(0);

    const failures = drawFailures(cuts, FAILURES, next);
    if (LONG) failures.push(...drawFailures(cuts, FAILURES, next));
    failures.push({ cut: cuts.at(-1)!, loss: 'none' });
    failures.sort(byMoment);
    const wrong: string[] = [];
    const started = Date.now();
    await survey(stand, recording, failures, next, ({ cut, loss }, problems) => {
      for (const problem of problems) wrong.push(`cut at ${cut.end} of ${entries.length}, lost ${loss}: ${problem}`);
      return wrong.length > 20;
    });
    const seconds = (Date.now() - started) / 1000;
    console.log(
      `seed ${seed}: ${JSON.stringify(report)}; ${entries.length} entries, ${cuts.length} cuts; ` +
        `${failures.length} failures in ${seconds.toFixed(0)} s`,
    );
    expect(wrong, `seed ${seed}`).toEqual([]);
    await stand.run('cmp', await replayWhole(stand, recording), disk.image);
  });

  it.each([
    ["the store's log", '/store.db-wal'],
    ["the pool's files", '/pools/local/s0'],
  ])('is noticed when a sync is taken out: %s', { timeout: TEST_MS_MAX }, async (_what, part) => {
    const env = await syncFaults(stand.children, stand.file('sync-faults.so'));
    const next = random(seed);
    const recording = await record(stand, DISK_BYTES, {
      flushes: FLUSHES,
      random: next,
      args: SYNC_FAULT_ARGS,
      env: env(`drop:${part}`),
    });
    const failures = drawFailures(recording.cuts, FAILURES_TO_NOTICE, next);
    for (const failure of failures) failure.loss = 'all';
    const noticed: string[] = [];
    await survey(stand, recording, failures, next, (_failure, problems) => {
      noticed.push(...problems);
      return noticed.length > 0;
    });
    console.log(`${part} not synced: ${noticed[0]}`);
    expect(noticed).not.toEqual([]);
    // Nothing is wrong with it but that a disk may lose more.
    const whole: Failure = { cut: recording.cuts.at(-1)!, loss: 'none' };
    await survey(stand, recording, [whole], next, (_failure, problems) => {
      expect(problems).toEqual([]);
      return true;
    });
  });
});
