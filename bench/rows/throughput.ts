/**
 * The table of the issue: one mapped volume in the page cache, Atoll beside its peers, and beside what the socket and
 * the client allow.
 */
import type { Bench, Contender } from '../bench.ts';
import type { FioJob, FioResult } from '../fio.ts';
import { compileLimitProbe, hasCompiler, limitProbe } from '../peers/limit-probe.ts';
import { createFile, nbdkitFile, nbdkitMemory } from '../peers/nbdkit.ts';
import { createImage, qemuNbd } from '../peers/qemu.ts';
import {
  ATOLL,
  CLIENT_LIMIT,
  type Export,
  LIMIT_PROBE,
  LIMITS,
  NBDKIT_FILE,
  NBDKIT_MEMORY,
  type PeerServer,
  QEMU_QCOW2,
  QEMU_RAW,
} from '../peers/server.ts';
import { newRow, pairedFact, type RowResult, ratioGoal } from '../result.ts';
import { GIB, MIB } from '../size.ts';
import type { Row } from './row.ts';

const DATA_BYTES = GIB;
const DATA_BYTES_QUICK = 128 * MIB;

/**
 * Files that are filled by 1 MiB at a time lie in the page cache in such pieces, and 4 KiB writes to them are slow
 * (ext4, Linux 6.18: 44k IOPS, 118k after a fill by 64 KiB; 41k, and 122k when the same file was read in anew by
 * 4 KiB). The probe is to show the limit of the socket, not of that.
 */
const PROBE_FILL_BLOCK_SIZE = '64k';

interface Work {
  id: string;
  title: string;
  unit: 'IOPS' | 'GB/s';
  job: FioJob;
  /** [peer, factor] */
  goals: [string, number][];
  /** contenders for whom it says nothing */
  without?: string[];
}

const WORKS: Work[] = [
  {
    id: 'read-4k-d1',
    title: 'random read 4K, depth 1',
    unit: 'IOPS',
    job: { rw: 'randread', blockSize: '4k', depth: 1 },
    goals: [[NBDKIT_MEMORY, 1.5]],
  },
  {
    id: 'read-4k-d32',
    title: 'random read 4K, depth 32',
    unit: 'IOPS',
    job: { rw: 'randread', blockSize: '4k', depth: 32 },
    goals: [[NBDKIT_MEMORY, 1.8]],
  },
  {
    id: 'read-4k-4x16',
    title: 'random read 4K, 4 connections × 16',
    unit: 'IOPS',
    job: { rw: 'randread', blockSize: '4k', depth: 16, jobs: 4 },
    goals: [[NBDKIT_MEMORY, 2.2]],
  },
  {
    id: 'write-4k-d32',
    title: 'random write 4K, depth 32',
    unit: 'IOPS',
    job: { rw: 'randwrite', blockSize: '4k', depth: 32 },
    goals: [[QEMU_QCOW2, 3]],
    without: [CLIENT_LIMIT],
  },
  {
    id: 'write-4k-fsync',
    title: 'random write 4K, each fsynced',
    unit: 'IOPS',
    job: { rw: 'randwrite', blockSize: '4k', depth: 1, fsync: 1 },
    goals: [[NBDKIT_FILE, 1.4]],
    without: [NBDKIT_MEMORY, CLIENT_LIMIT],
  },
  {
    id: 'seqread-256k-d8',
    title: 'sequential read 256K, depth 8',
    unit: 'GB/s',
    job: { rw: 'read', blockSize: '256k', depth: 8 },
    goals: [[NBDKIT_FILE, 1.5]],
    without: [CLIENT_LIMIT],
  },
  {
    id: 'seqwrite-256k-d8',
    title: 'sequential write 256K, depth 8',
    unit: 'GB/s',
    job: { rw: 'write', blockSize: '256k', depth: 8 },
    goals: [
      [NBDKIT_FILE, 1.1],
      [QEMU_QCOW2, 3],
    ],
  },
];

export const throughput: Row = {
  ids: WORKS.map((work) => work.id),
  async *run(bench, wanted): AsyncIterable<RowResult> {
    const bytes = bench.options.quick ? DATA_BYTES_QUICK : DATA_BYTES;
    const { contenders, notes, end } = await serveAll(bench, bytes);
    for (const work of WORKS) {
      if (!wanted(work.id)) continue;
      const row = newRow(work.id, work.title, work.unit);
      bench.say(`${work.id}: ${work.title}`);
      const value = (result: FioResult): number => (work.unit === 'IOPS' ? result.iops : result.bytesPerSecond / 1e9);
      await bench.compare(
        row,
        contenders.filter((contender) => !work.without?.includes(contender.name)),
        (target, round) =>
          bench.sample(target, { ...work.job, runtimeSeconds: bench.options.runtimeSeconds, seed: round }, value),
      );
      for (const [peer, factor] of work.goals) ratioGoal(row, ATOLL, peer, factor);
      pairedFact(row, 'atoll_to_limit_probe_ratio', ATOLL, LIMIT_PROBE);
      row.notes.push(...notes);
      yield row;
    }
    await end();
  },
};

interface Served {
  contenders: Contender[];
  /** who is missing, and why */
  notes: string[];
  end: () => Promise<void>;
}

/** All servers at once, each with its own fully mapped `bytes`; only the one that is measured has work. */
async function serveAll(bench: Bench, bytes: number): Promise<Served> {
  const contenders: Contender[] = [];
  const servers: PeerServer[] = [];
  const notes: string[] = [];
  const take = async (name: string, make: () => Promise<Export>, fillBlockSize?: string): Promise<void> => {
    if (!bench.wants(name)) return;
    const target = await make();
    await bench.fill(target, bytes, fillBlockSize);
    contenders.push({ name, prepare: async () => target });
  };
  const peer = (make: () => Promise<PeerServer>) => async (): Promise<Export> => {
    const server = await make();
    servers.push(server);
    return server;
  };
  const volume = bench.fresh('full');
  await take(ATOLL, async () => {
    const daemon = await bench.daemon();
    await daemon.createVolume(volume, bytes);
    return bench.exportOf(daemon, volume);
  });
  for (const [name, format] of [
    [QEMU_QCOW2, 'qcow2'],
    [QEMU_RAW, 'raw'],
  ] as const) {
    const file = bench.file(`full.${format}`);
    await take(
      name,
      peer(async () => {
        await createImage(bench.children, format, file, bytes);
        return qemuNbd(bench.children, format, file);
      }),
    );
  }
  const plain = bench.file('full.file');
  await take(
    NBDKIT_FILE,
    peer(async () => {
      createFile(plain, bytes);
      return nbdkitFile(bench.children, plain);
    }),
  );
  await take(
    NBDKIT_MEMORY,
    peer(() => nbdkitMemory(bench.children, bench.dir, bytes)),
  );
  const probed = bench.file('full.probe');
  if (LIMITS.some((name) => bench.wants(name))) {
    if (hasCompiler()) {
      const program = await compileLimitProbe(bench.children, bench.dir);
      for (const [name, file] of [
        [LIMIT_PROBE, probed],
        [CLIENT_LIMIT, null],
      ] as const) {
        await take(
          name,
          peer(() => limitProbe(bench.children, program, bench.dir, bytes, file)),
          PROBE_FILL_BLOCK_SIZE,
        );
      }
    } else {
      notes.push(`${LIMITS.join(' and ')}: not measured, there is no g++`);
      bench.say(`  ${notes.at(-1)}`);
    }
  }
  const end = async (): Promise<void> => {
    for (const server of servers) await server.stop();
    for (const file of [bench.file('full.qcow2'), bench.file('full.raw'), plain, probed]) bench.remove(file);
    if (bench.wants(ATOLL)) await (await bench.daemon()).deleteVolume(volume);
  };
  return { contenders, notes, end };
}
