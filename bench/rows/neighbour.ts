/**
 * Hot reads of one volume while another volume of the same server reads cold and flushes what was written to it:
 * p99 beside the p99 in quiet. nbdkit's file plugin, serving a folder, is measured the same way, to see what the
 * machine makes of it.
 */
import fs from 'node:fs';
import path from 'node:path';
import { type Bench, type Contender, Skipped } from '../bench.ts';
import { nbdkitFolder } from '../peers/nbdkit.ts';
import { ATOLL, type Export, flush, NBDKIT_FILE } from '../peers/server.ts';
import { dropCaches } from '../proc.ts';
import { addLatencies, atMost, newRow, type RowResult, valuesOf } from '../result.ts';
import { GIB, MIB } from '../size.ts';
import { median } from '../stats.ts';
import type { Row } from './row.ts';

const GOAL = 2;
const HOT_BYTES = 256 * MIB;
const COLD_BYTES = 4 * GIB;
const COLD_BYTES_QUICK = 512 * MIB;
const COLD_DEPTH = 4;

const HOT = 'hot';
const COLD = 'cold';
const WRITTEN = 'written';

export const neighbour: Row = {
  ids: ['neighbour'],
  async *run(bench): AsyncIterable<RowResult> {
    if (!dropCaches())
      throw new Skipped('the page cache cannot be dropped here: /proc/sys/vm/drop_caches is not writable');
    const bytes = bench.options.quick ? COLD_BYTES_QUICK : COLD_BYTES;
    const title = `hot reads beside a neighbour that reads cold and flushes ${bytes / GIB} GiB: p99 / quiet p99`;
    const row = newRow('neighbour', title, '×', 'lower');
    bench.say(`${row.id}: ${row.title}`);
    const contenders: Contender[] = [];
    const ends: (() => Promise<void>)[] = [];
    const add = async (name: string, at: (volume: string) => Export): Promise<void> => {
      await bench.fill(at(HOT), HOT_BYTES);
      await bench.fill(at(COLD), bytes);
      await bench.fill(at(WRITTEN), bytes);
      contenders.push({ name, prepare: async () => at(HOT) });
    };
    if (bench.wants(ATOLL)) {
      const { daemon, end } = await bench.ownDaemon();
      ends.push(end);
      await daemon.createVolume(HOT, HOT_BYTES);
      await daemon.createVolume(COLD, bytes);
      await daemon.createVolume(WRITTEN, bytes);
      await add(ATOLL, (volume) => bench.exportOf(daemon, volume));
    }
    if (bench.wants(NBDKIT_FILE)) {
      const dir = bench.file('neighbour');
      fs.mkdirSync(dir);
      for (const [name, size] of [
        [HOT, HOT_BYTES],
        [COLD, bytes],
        [WRITTEN, bytes],
      ] as const) {
        fs.writeFileSync(path.join(dir, name), '');
        fs.truncateSync(path.join(dir, name), size);
      }
      const server = await nbdkitFolder(bench.children, dir);
      ends.push(async () => {
        await server.stop();
        bench.remove(dir);
      });
      await add(NBDKIT_FILE, (volume) => ({ socket: server.socket, pid: server.pid, exportName: volume }));
    }
    const quietUs = new Map<string, number[]>();
    const besideUs = new Map<string, number[]>();
    await bench.compare(row, contenders, async (hot, round, name) => {
      const { quiet, beside } = await measure(bench, hot, round);
      quietUs.get(name)?.push(quiet) ?? quietUs.set(name, [quiet]);
      besideUs.get(name)?.push(beside) ?? besideUs.set(name, [beside]);
      return { value: beside / quiet, cpuPerMillion: null };
    });
    for (const [name, values] of quietUs) addLatencies(row, `p99 of ${name} in quiet`, values, 'µs');
    for (const [name, values] of besideUs) addLatencies(row, `p99 of ${name} beside the neighbour`, values, 'µs');
    const ratios = valuesOf(row, ATOLL);
    if (ratios) atMost(row, `p99 ≤ ${GOAL} × quiet`, median(ratios), GOAL, '×');
    for (const end of ends) await end();
    yield row;
  },
};

/** p99 in microseconds of depth-1 reads of a volume that is in the page cache. */
async function measure(bench: Bench, hot: Export, round: number): Promise<{ quiet: number; beside: number }> {
  const at = (volume: string): Export => ({ socket: hot.socket, pid: hot.pid, exportName: volume });
  const seconds = bench.options.runtimeSeconds;
  const hotReads = { rw: 'randread', blockSize: '4k', depth: 1, seed: round } as const;
  const coldReads = { rw: 'randread', blockSize: '64k', depth: COLD_DEPTH, seed: round } as const;

  dropCaches();
  await bench.fio(hot, { rw: 'read', blockSize: '1m', depth: 4, size: HOT_BYTES });
  const quiet = await bench.fio(hot, { ...hotReads, runtimeSeconds: seconds });
  await bench.fio(at(WRITTEN), { rw: 'write', blockSize: '1m', depth: 4 });
  // The neighbour begins first and ends last.
  const cold = bench.fio(at(COLD), { ...coldReads, runtimeSeconds: seconds + 1 });
  const flushed = flush(at(WRITTEN));
  const beside = await bench.fio(hot, { ...hotReads, runtimeSeconds: seconds });
  await Promise.all([cold, flushed]);
  return { quiet: quiet.p99Us, beside: beside.p99Us };
}
