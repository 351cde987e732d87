/**
 * Reads of one volume while another, 1 TiB of scattered map, is being freed: p99 beside the p99 in quiet of the same
 * round, and what the daemon's memory grows by meanwhile.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import type { FioJob } from '../fio.ts';
import { memory } from '../proc.ts';
import { addLatencies, atMost, newRow, type RowResult } from '../result.ts';
import { SCATTER_BYTES, SCATTER_PER_LEAF, SCATTER_PER_LEAF_QUICK, scatter } from '../scatter.ts';
import { MIB } from '../size.ts';
import { median } from '../stats.ts';
import type { Row } from './row.ts';

const GOAL_P99 = 1.5;
const GOAL_GROWTH_MIB = 64;
/**
 * Answered at once, whatever the size: one row of the queue and its commit, and nothing of the 1 TiB, which takes seconds. It
 * was 49 ms; what is left is for a disk that syncs slowly beside the load.
 */
const GOAL_DELETE_MS = 1000;
const HOT = 'hot';
const HOT_BYTES = 256 * MIB;
const DEPTHS = [1, 32] as const;
const LOOK_MS = 100;
/** Freed in a round; a round makes it anew, which takes as long as all else. */
const ROUNDS_MAX = 3;
/** A disk that has to be told of each hole takes its time. */
const ZEROED_MS_MAX = 900_000;

/** What one round saw. */
interface Round {
  /** µs, by depth */
  quiet: Map<number, number>;
  beside: Map<number, number>;
  growthMiB: number;
  /** of the blocks that the volume had, freed while it was read */
  freedPercent: number;
  /** from the delete until no map page and slot is named, and until the last slot was zeroed */
  freedSeconds: number;
  zeroedSeconds: number;
  deleteMs: number;
}

export const freeing: Row = {
  ids: ['freeing'],
  async *run(bench): AsyncIterable<RowResult> {
    bench.needsAtoll();
    const row = newRow('freeing', 'reads while 1 TiB of scattered map is freed: p99 / quiet p99', '×', 'lower');
    bench.say(`${row.id}: ${row.title}`);
    const { daemon, end } = await bench.ownDaemon();
    await daemon.createVolume(HOT, HOT_BYTES);
    await bench.fill(bench.exportOf(daemon, HOT), HOT_BYTES);
    const rounds: Round[] = [];
    for (let round = 0; round < Math.min(ROUNDS_MAX, bench.options.rounds); round++) {
      rounds.push(await oneRound(bench, daemon, round));
      bench.say(`  round ${round + 1}: ${tell(rounds[round]!)}`);
    }
    for (const depth of DEPTHS) {
      const quiet = rounds.map((one) => one.quiet.get(depth)!);
      const beside = rounds.map((one) => one.beside.get(depth)!);
      addLatencies(row, `p99 at depth ${depth} in quiet`, quiet, 'µs');
      addLatencies(row, `p99 at depth ${depth} while freeing`, beside, 'µs');
      const ratio = median(beside.map((value, i) => value / quiet[i]!));
      atMost(row, `p99 at depth ${depth} ≤ ${GOAL_P99} × quiet`, ratio, GOAL_P99, '×');
    }
    const growth = Math.max(...rounds.map((one) => one.growthMiB));
    atMost(row, `memory grows by ≤ ${GOAL_GROWTH_MIB} MiB`, growth, GOAL_GROWTH_MIB, 'MiB');
    const deleteMs = Math.max(...rounds.map((one) => one.deleteMs));
    atMost(row, `the deletion is answered in ≤ ${GOAL_DELETE_MS} ms`, deleteMs, GOAL_DELETE_MS, 'ms');
    row.facts.seconds_to_free = median(rounds.map((one) => one.freedSeconds));
    row.facts.seconds_to_zero = median(rounds.map((one) => one.zeroedSeconds));
    row.facts.freed_while_read_percent = median(rounds.map((one) => one.freedPercent));
    row.notes.push(
      'the largest memory of all rounds counts, sampled ten times a second until the last slot is zero; and the slowest deletion',
    );
    await end();
    yield row;
  },
};

async function oneRound(bench: Bench, daemon: Daemon, round: number): Promise<Round> {
  const hot = bench.exportOf(daemon, HOT);
  const big = bench.fresh('big');
  await daemon.createVolume(big, SCATTER_BYTES);
  bench.say('  making 1 TiB of scattered map');
  const perLeaf = bench.options.quick ? SCATTER_PER_LEAF_QUICK : SCATTER_PER_LEAF;
  await scatter(bench.exportOf(daemon, big), SCATTER_BYTES, perLeaf);
  await bench.fio(hot, { rw: 'read', blockSize: '1m', depth: 4, size: HOT_BYTES });
  const p99 = async (depth: number): Promise<number> => {
    const job: FioJob = { rw: 'randread', blockSize: '4k', depth, seed: round };
    return (await bench.fio(hot, { ...job, runtimeSeconds: bench.options.runtimeSeconds })).p99Us;
  };
  const quiet = new Map<number, number>();
  const beside = new Map<number, number>();
  for (const depth of DEPTHS) quiet.set(depth, await p99(depth));

  const before = memory(daemon.pid).rssBytes;
  let largest = before;
  let done = false;
  const watching = (async () => {
    while (!done) {
      largest = Math.max(largest, memory(daemon.pid).rssBytes);
      await sleep(LOOK_MS);
    }
  })();
  const started = Date.now();
  try {
    await daemon.deleteVolume(big);
    const deleteMs = Date.now() - started;
    const all = await releasing(daemon);
    for (const depth of DEPTHS) beside.set(depth, await p99(depth));
    const left = await releasing(daemon);
    if (left === 0) bench.say('  freeing was over before the reads were: run with a shorter --runtime');
    while ((await releasing(daemon)) > 0) await sleep(LOOK_MS);
    const freedSeconds = (Date.now() - started) / 1000;
    await bench.quiet(daemon, ZEROED_MS_MAX);
    const zeroedSeconds = (Date.now() - started) / 1000;
    const freedPercent = all === 0 ? 0 : (1 - left / all) * 100;
    const growthMiB = (largest - before) / MIB;
    return { quiet, beside, growthMiB, freedPercent, freedSeconds, zeroedSeconds, deleteMs };
  } finally {
    done = true;
    await watching;
  }
}

/** Bytes of deleted resources that are not freed yet. */
async function releasing(daemon: Daemon): Promise<number> {
  const { pools } = await daemon.http<{ pools: { releasingBytes: number }[] }>('GET', '/v1/pools');
  return pools.reduce((sum, pool) => sum + pool.releasingBytes, 0);
}

function tell({ quiet, beside, growthMiB, freedPercent, freedSeconds, zeroedSeconds }: Round): string {
  const ratios = DEPTHS.map(
    (depth) => `depth ${depth} ${beside.get(depth)!.toFixed(0)}/${quiet.get(depth)!.toFixed(0)} µs`,
  );
  const freed = `freed ${freedPercent.toFixed(0)} % meanwhile, all in ${freedSeconds.toFixed(1)} s, zeroed in ${zeroedSeconds.toFixed(1)} s`;
  return `${ratios.join(', ')}, memory +${growthMiB.toFixed(1)} MiB, ${freed}`;
}
