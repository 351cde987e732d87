/**
 * Ingest: `atoll import FILE VOL@SNAP` of a file in the page cache, from the command's start until it says that all is durable.
 * Beside it `cp` of that file into the same file system, and a sync of the copy; and restic and borg. First bytes that the
 * pool has not, then the same file again; the daemon has ingested an eighth as much, twice, before.
 */

import path from 'node:path';
import type { Bench } from '../bench.ts';
import { writeContent } from '../content.ts';
import { ATOLL } from '../peers/server.ts';
import { newRow, type RowResult, ratioGoal, type Sample, valuesOf } from '../result.ts';
import { GIB, MIB } from '../size.ts';
import { rotate } from '../stats.ts';
import { KEEPERS, keep } from './keepers.ts';
import type { Row } from './row.ts';

const BYTES = 2 * GIB;
const BYTES_QUICK = 256 * MIB;
const PIECE = 16 * MIB;
const GOAL_CP = 0.8;
const GOAL_AGAIN = 2;
const GOAL_PEER = 4;
const CP = 'cp';
const AGAIN = 'atoll, the same again';

export const ingest: Row = {
  ids: ['ingest'],
  async *run(bench): AsyncIterable<RowResult> {
    const bytes = bench.options.quick ? BYTES_QUICK : BYTES;
    const row = newRow('ingest', `ingest of ${bytes / GIB} GiB, none of it twice`, 'GB/s');
    bench.say(`${row.id}: ${row.title}`);
    const samples = new Map<string, Sample[]>();
    const add = (name: string, seconds: number | null) => {
      if (seconds === null) return;
      const list = samples.get(name) ?? [];
      list.push({ value: bytes / seconds / 1e9, cpuPerMillion: null });
      samples.set(name, list);
    };
    for (let round = 0; round < bench.options.rounds; round++) {
      const file = bench.file('ingested');
      writeContent(file, { bytes, piece: PIECE, times: 1 });
      const own = async () => {
        const { first, again } = await ingestTwice(bench, file, bytes);
        add(ATOLL, first);
        add(AGAIN, again);
      };
      const contenders = [
        { name: ATOLL, run: own },
        { name: CP, run: async () => add(CP, await copy(bench, file, bytes)) },
        ...KEEPERS.map((one) => ({
          name: one.name,
          run: async () => {
            await warm(bench, bytes, file);
            add(one.name, await keep(bench, one, file));
          },
        })),
      ].filter(({ name }) => bench.wants(name));
      for (const { run } of rotate(contenders, round)) await run();
      bench.remove(file);
      const last = [...samples].map(([name, list]) => `${name} ${list[list.length - 1]!.value.toPrecision(4)}`);
      bench.say(`  round ${round + 1}/${bench.options.rounds}  ${last.join('  ')}`);
    }
    for (const [name, list] of samples) row.series.push({ name, samples: list });
    ratioGoal(row, ATOLL, CP, GOAL_CP);
    ratioGoal(row, AGAIN, ATOLL, GOAL_AGAIN);
    for (const { name } of KEEPERS) {
      if (valuesOf(row, name) === null) row.notes.push(`${name} is not installed, or not wanted`);
      else ratioGoal(row, ATOLL, name, GOAL_PEER);
    }
    yield row;
  },
};

/**
 * Right before each measurement: what nobody has used for seconds the host may have taken back, and taking it again costs
 * more than all else here.
 *
 * @param places files and folders that are to be in the page cache
 */
async function warm(bench: Bench, bytes: number, ...places: string[]): Promise<void> {
  for (const place of places) bench.intoCache(place);
  await bench.warmMemory(2 * bytes);
}

async function ingestTwice(bench: Bench, file: string, bytes: number): Promise<{ first: number; again: number }> {
  const { daemon, end } = await bench.ownDaemon();
  try {
    // a daemon that has done both before: all its threads are there, and have compiled what they run
    const small = bench.file('warm');
    writeContent(small, { bytes: bytes / 8, piece: PIECE, times: 1 });
    for (const name of ['warm@s', 'again@s']) await daemon.cli('import', small, name, '--format', 'raw');
    bench.remove(small);
    const timed = async (name: string) => {
      await warm(bench, bytes, file, path.join(daemon.home, 'pools'));
      const began = performance.now();
      await daemon.cli('import', file, name, '--format', 'raw');
      return (performance.now() - began) / 1000;
    };
    return { first: await timed('v@s'), again: await timed('w@s') };
  } finally {
    await end();
  }
}

async function copy(bench: Bench, file: string, bytes: number): Promise<number> {
  const to = bench.file('copy');
  await warm(bench, bytes, file);
  const began = performance.now();
  await bench.children.run('cp', ['--reflink=never', file, to]);
  await bench.children.run('sync', [to]);
  const seconds = (performance.now() - began) / 1000;
  bench.remove(to);
  return seconds;
}
