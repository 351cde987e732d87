/**
 * fio against an NBD server or a file: one run, and what of its JSON is used.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { Children } from './children.ts';

export interface FioJob {
  rw: 'read' | 'write' | 'randread' | 'randwrite' | 'randrw';
  /** bytes, or a range such as 512-128k */
  blockSize: string;
  depth: number;
  /** connections; each has `depth` requests on their way */
  jobs?: number;
  /** ends by time */
  runtimeSeconds?: number;
  /** ends after so many requests, all jobs together */
  requests?: number;
  /** bytes of the export that are used, from its start */
  size?: number;
  /** a flush after every n writes */
  fsync?: number;
  endFsync?: boolean;
  /** the same seed gives the same offsets */
  seed?: number;
  /** requests per second at most, all jobs together */
  rateIops?: number;
  /** writes `PREFIX_clat.N.log` with the time and latency of every request, in Unix milliseconds */
  latencyLog?: string;
  /** random data in every request instead of one pattern again and again */
  refill?: boolean;
}

export interface FioResult {
  iops: number;
  bytesPerSecond: number;
  requests: number;
  seconds: number;
  p50Us: number;
  p99Us: number;
  /** processor time that fio took, in cores: near its number of jobs it was fio that could not go faster */
  clientCores: number;
}

interface Direction {
  iops: number;
  bw_bytes: number;
  total_ios: number;
  runtime: number;
  clat_ns?: { percentile?: Record<string, number> };
}

interface Job {
  error: number;
  read: Direction;
  write: Direction;
  /** percent of the time of all jobs together */
  usr_cpu: number;
  sys_cpu: number;
}

/** fio hangs on a server that does not answer; no run of ours takes this much longer than it was told. */
const GRACE_SECONDS = 120;

/** @param target an NBD URI, or the absolute path of a file, which is read and written with O_DIRECT */
export async function fio(children: Children, dir: string, target: string, job: FioJob): Promise<FioResult> {
  const jobs = job.jobs ?? 1;
  const output = path.join(dir, `fio-${process.pid}-${Date.now()}-${Math.floor(Math.random() * 1e9)}.json`);
  const where = target.startsWith('/')
    ? ['--ioengine=libaio', '--direct=1', `--filename=${target}`]
    : ['--ioengine=nbd', `--uri=${target}`];
  const argv = ['--name=bench', ...where, `--rw=${job.rw}`];
  argv.push(job.blockSize.includes('-') ? `--bsrange=${job.blockSize}` : `--bs=${job.blockSize}`);
  argv.push(`--iodepth=${job.depth}`, `--numjobs=${jobs}`, '--group_reporting', '--percentile_list=50:99:99.9');
  argv.push('--output-format=json', `--output=${output}`);
  if (job.rw.startsWith('rand')) argv.push('--norandommap', '--randrepeat=1', `--randseed=${1000 + (job.seed ?? 0)}`);
  if (job.runtimeSeconds) argv.push('--time_based', `--runtime=${job.runtimeSeconds}`);
  if (job.requests) argv.push(`--number_ios=${Math.ceil(job.requests / jobs)}`);
  if (job.size) argv.push(`--size=${job.size}`);
  if (job.fsync) argv.push(`--fsync=${job.fsync}`);
  if (job.endFsync) argv.push('--end_fsync=1');
  if (job.rateIops) argv.push(`--rate_iops=${Math.ceil(job.rateIops / jobs)}`);
  if (job.refill) argv.push('--refill_buffers');
  if (job.latencyLog) argv.push(`--write_lat_log=${job.latencyLog}`, '--log_unix_epoch=1');

  const limit = job.runtimeSeconds ? AbortSignal.timeout((job.runtimeSeconds + GRACE_SECONDS) * 1000) : undefined;
  try {
    // fio writes stray state files into its working directory.
    await children.run('fio', argv, { cwd: dir, ...(limit ? { signal: limit } : {}) });
    return parseFio(fs.readFileSync(output, 'utf8'), job.rw, jobs);
  } finally {
    fs.rmSync(output, { force: true });
  }
}

/** @param text what `--output-format=json` wrote; warnings may stand before the JSON */
export function parseFio(text: string, rw: FioJob['rw'], jobs = 1): FioResult {
  const json = JSON.parse(text.slice(text.indexOf('{'))) as {
    jobs: Job[];
  };
  const job = json.jobs[0];
  if (!job) throw new Error('fio reported no job');
  if (job.error !== 0) throw new Error(`fio reported error ${job.error}`);
  const used = rw === 'randrw' ? [job.read, job.write] : [rw.endsWith('read') ? job.read : job.write];
  const sum = (of: (direction: Direction) => number): number => used.reduce((total, one) => total + of(one), 0);
  const percentile = (key: string): number =>
    Math.max(...used.map((one) => one.clat_ns?.percentile?.[key] ?? 0)) / 1000;
  const requests = sum((one) => one.total_ios);
  if (requests === 0) throw new Error('fio did no I/O');
  return {
    iops: sum((one) => one.iops),
    bytesPerSecond: sum((one) => one.bw_bytes),
    requests,
    seconds: Math.max(...used.map((one) => one.runtime)) / 1000,
    p50Us: percentile('50.000000'),
    p99Us: percentile('99.000000'),
    clientCores: ((job.usr_cpu + job.sys_cpu) / 100) * jobs,
  };
}
