/**
 * Past the page cache: a pool with O_DIRECT beside a raw image with cache=none, and the default pool with a cold cache
 * beside a raw image with qemu-nbd's default cache. There is no goal; the disk is the same, and so should the numbers.
 */
import path from 'node:path';
import { type Bench, type Contender, Skipped } from '../bench.ts';
import type { FioJob } from '../fio.ts';
import { createImage, qemuNbd } from '../peers/qemu.ts';
import { ATOLL, type Export, QEMU_RAW } from '../peers/server.ts';
import { dropCaches } from '../proc.ts';
import { newRow, pairedFact, type RowResult } from '../result.ts';
import { GIB, MIB } from '../size.ts';
import type { Row } from './row.ts';

const BYTES = GIB;
const BYTES_QUICK = 128 * MIB;

interface Work {
  id: string;
  what: string;
  unit: 'IOPS' | 'GB/s';
  job: FioJob;
}

const DIRECT: Work[] = [
  {
    id: 'read-4k-d1',
    what: 'random read 4K, depth 1',
    unit: 'IOPS',
    job: { rw: 'randread', blockSize: '4k', depth: 1 },
  },
  {
    id: 'read-4k-d32',
    what: 'random read 4K, depth 32',
    unit: 'IOPS',
    job: { rw: 'randread', blockSize: '4k', depth: 32 },
  },
  {
    id: 'write-4k-d32',
    what: 'random write 4K, depth 32',
    unit: 'IOPS',
    job: { rw: 'randwrite', blockSize: '4k', depth: 32 },
  },
  {
    id: 'seqread-256k-d8',
    what: 'sequential read 256K, depth 8',
    unit: 'GB/s',
    job: { rw: 'read', blockSize: '256k', depth: 8 },
  },
];
const COLD = DIRECT.filter((work) => work.job.rw !== 'randwrite');

const DIRECT_IDS = DIRECT.map((work) => `direct-${work.id}`);
const COLD_IDS = COLD.map((work) => `cold-${work.id}`);

export const direct: Row = {
  ids: [...DIRECT_IDS, ...COLD_IDS],
  async *run(bench, wanted): AsyncIterable<RowResult> {
    if (DIRECT_IDS.some(wanted)) {
      const pair = await makePair(bench, 'none');
      for (const work of DIRECT) {
        if (!wanted(`direct-${work.id}`)) continue;
        const title = `O_DIRECT: ${work.what}`;
        yield await measure(bench, `direct-${work.id}`, title, work, pair, () => {});
      }
      await pair.end();
    }
    if (COLD_IDS.some(wanted)) {
      if (!dropCaches())
        throw new Skipped('the page cache cannot be dropped here: /proc/sys/vm/drop_caches is not writable');
      const pair = await makePair(bench, 'writeback');
      for (const work of COLD) {
        if (!wanted(`cold-${work.id}`)) continue;
        const title = `cold page cache: ${work.what}`;
        yield await measure(bench, `cold-${work.id}`, title, work, pair, dropCaches);
      }
      await pair.end();
    }
  },
};

interface Pair {
  atoll: Export | null;
  raw: Export | null;
  end: () => Promise<void>;
}

async function makePair(bench: Bench, cache: 'none' | 'writeback'): Promise<Pair> {
  const bytes = bench.options.quick ? BYTES_QUICK : BYTES;
  const pair: Pair = { atoll: null, raw: null, end: async () => {} };
  const ends: (() => Promise<void>)[] = [];
  if (bench.wants(ATOLL)) {
    const { daemon, end } = await bench.ownDaemon();
    ends.push(end);
    const pool = path.join(bench.dir, 'direct-pool');
    if (cache === 'none') await daemon.cli('pool', 'create', 'direct', '--path', pool, '--direct');
    await daemon.createVolume('disk', bytes, cache === 'none' ? 'direct' : undefined);
    pair.atoll = bench.exportOf(daemon, 'disk');
    await bench.fill(pair.atoll, bytes);
    ends.push(async () => bench.remove(pool));
  }
  if (bench.wants(QEMU_RAW)) {
    const file = bench.file(`${cache}.raw`);
    await createImage(bench.children, 'raw', file, bytes);
    const server = await qemuNbd(bench.children, 'raw', file, { cache });
    pair.raw = server;
    await bench.fill(server, bytes);
    ends.push(async () => {
      await server.stop();
      bench.remove(file);
    });
  }
  pair.end = async () => {
    for (const end of ends) await end();
  };
  return pair;
}

async function measure(
  bench: Bench,
  id: string,
  title: string,
  work: Work,
  pair: Pair,
  before: () => void,
): Promise<RowResult> {
  const row = newRow(id, title, work.unit);
  bench.say(`${id}: ${title}`);
  const contenders: Contender[] = [];
  for (const [name, target] of [
    [ATOLL, pair.atoll],
    [QEMU_RAW, pair.raw],
  ] as const) {
    if (!target) continue;
    contenders.push({
      name,
      prepare: async () => {
        before();
        return target;
      },
    });
  }
  await bench.compare(row, contenders, (target, round) =>
    bench.sample(target, { ...work.job, runtimeSeconds: bench.options.runtimeSeconds, seed: round }, (result) =>
      work.unit === 'IOPS' ? result.iops : result.bytesPerSecond / 1e9,
    ),
  );
  pairedFact(row, 'atoll_to_qemu_raw_ratio', ATOLL, QEMU_RAW);
  return row;
}
