/** Direct reads of a file through FUSE: Atoll's mount, a minimal server and one of fuse-native over a plain file, nbdfuse on Atoll's own export. */
import fs from 'node:fs';
import path from 'node:path';
import { type Bench, Skipped } from '../bench.ts';
import { type FioJob, fio } from '../fio.ts';
import {
  compileFuseFile,
  type FuseFile,
  fuseFile,
  fuseNative,
  fuseObstacle,
  hasNbdfuse,
  installFuseNative,
  nbdfuse,
} from '../peers/fuse.ts';
import { ATOLL, uriOf } from '../peers/server.ts';
import { cpuSeconds } from '../proc.ts';
import { newRow, type RowResult, ratioGoal, type Sample } from '../result.ts';
import { MIB } from '../size.ts';
import { rotate } from '../stats.ts';
import type { Row } from './row.ts';

const BYTES = 512 * MIB;
const MINIMAL = 'minimal libfuse3';
const NBDFUSE = 'nbdfuse on Atoll';
const FUSE_NATIVE = 'fuse-native';

const LOADS: { id: string; title: string; unit: string; job: FioJob }[] = [
  {
    id: 'fuse-read-4k-d1',
    title: 'FUSE: random 4K direct reads, depth 1',
    unit: 'IOPS',
    job: load('randread', '4k', 1),
  },
  { id: 'fuse-read-4k-d16', title: 'FUSE: the same, depth 16', unit: 'IOPS', job: load('randread', '4k', 16) },
  { id: 'fuse-read-1m', title: 'FUSE: sequential 1 MiB direct reads', unit: 'MB/s', job: load('read', '1m', 1) },
];

function load(rw: FioJob['rw'], blockSize: string, depth: number): FioJob {
  return { rw, blockSize, depth, size: BYTES };
}

export const fuse: Row = {
  ids: LOADS.map(({ id }) => id),
  async *run(bench, wanted): AsyncIterable<RowResult> {
    const obstacle = fuseObstacle();
    if (obstacle !== null) throw new Skipped(obstacle);
    bench.needsAtoll();
    const native = await bench.once('fuse-native', () => installFuseNative(bench.children, bench.dir));
    const servers = await start(bench, 'missing' in native ? null : native.dir);
    try {
      for (const one of LOADS.filter(({ id }) => wanted(id))) {
        const row = newRow(one.id, one.title, one.unit);
        bench.say(`${row.id}: ${row.title}`);
        const samples = new Map([...servers.keys()].map((name) => [name, [] as Sample[]]));
        for (let round = 0; round < bench.options.rounds; round++) {
          for (const [name, server] of rotate([...servers], round))
            samples.get(name)?.push(await measure(bench, server, { ...one.job, seed: round }, one.unit));
          const told = [...samples].map(([name, of]) => `${name} ${of.at(-1)?.value.toPrecision(4)}`);
          bench.say(`  round ${round + 1}/${bench.options.rounds}  ${told.sort().join('  ')}`);
        }
        for (const [name, of] of samples) row.series.push({ name, samples: of });
        ratioGoal(row, ATOLL, MINIMAL, 0.9);
        ratioGoal(row, ATOLL, NBDFUSE, 2);
        ratioGoal(row, ATOLL, FUSE_NATIVE, 3);
        if ('missing' in native) row.notes.push(`fuse-native is not measured: ${native.missing}`);
        if (!servers.has(NBDFUSE)) row.notes.push('nbdfuse is missing (Debian: libnbd-bin)');
        yield row;
      }
    } finally {
      for (const server of [...servers.values()].reverse()) await server.end();
    }
  },
};

async function measure(bench: Bench, server: FuseFile, job: FioJob, unit: string): Promise<Sample> {
  const before = cpuSeconds(server.pid);
  const result = await fio(bench.children, bench.dir, server.file, {
    ...job,
    runtimeSeconds: bench.options.runtimeSeconds,
  });
  const cpuPerMillion = ((cpuSeconds(server.pid) - before) / result.requests) * 1e6;
  const value = unit === 'IOPS' ? result.iops : result.bytesPerSecond / 1e6;
  return { value, cpuPerMillion, clientCores: result.clientCores };
}

/** All have the same bytes, in the page cache. @param native where fuse-native is; null nowhere */
async function start(bench: Bench, native: string | null): Promise<Map<string, FuseFile>> {
  const servers = new Map<string, FuseFile>();
  const folder = (name: string): string => {
    const dir = bench.file(bench.fresh(name));
    fs.mkdirSync(dir);
    return dir;
  };
  const daemon = await bench.daemon();
  const name = bench.fresh('fuse');
  await daemon.createVolume(name, BYTES);
  const target = bench.exportOf(daemon, name);
  await bench.fill(target, BYTES);
  const dir = folder('atoll');
  await daemon.cli('mount', dir);
  servers.set(ATOLL, {
    file: path.join(dir, 'volumes', name),
    pid: daemon.pid,
    end: async () => void (await daemon.cli('umount', '--lazy', dir)),
  });
  const plain = bench.file(bench.fresh('plain'));
  await bench.children.run('cp', [path.join(dir, 'volumes', name), plain]);
  const program = await bench.once('fuse-file', () => compileFuseFile(bench.children, bench.dir));
  servers.set(MINIMAL, await fuseFile(bench.children, program, plain, folder('minimal')));
  if (native !== null) servers.set(FUSE_NATIVE, await fuseNative(bench.children, native, plain, folder('fuse-native')));
  if (hasNbdfuse()) servers.set(NBDFUSE, await nbdfuse(bench.children, uriOf(target), folder('nbdfuse')));
  return servers;
}
