/**
 * The soak: a daemon under a steady load for an hour, or as long as asked, and its curves: descriptors, memory, latencies.
 * docs/benchmarks.md, "Soak".
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Children } from '../children.ts';
import { CHECKOUT, Daemon } from '../daemon.ts';
import { draw } from '../plot.ts';
import { type MachineTime, machine, machineTime } from '../proc.ts';
import { MIB } from '../size.ts';
import { Beside } from './beside.ts';
import { Load } from './load.ts';
import { judge, percentile, type Sample, type SoakReport, takeFacts, type Verdict } from './samples.ts';

const USAGE = `usage: npm run soak -- [options]

  --minutes N            length, 2 to 10000 (default 60)
  --warm-up N            minutes that are not judged (default a sixth of the length)
  --volumes N            default 200
  --connections N        default 64
  --snapshots N          a second (default 10)
  --requests N           a second, of all connections (default 1500)
  --dir DIR              where data goes (default $ATOLL_BENCH_DIR, else the temporary folder)
  --out DIR              where the report goes (default bench/out)
`;
/** Windows of a run; a window is no shorter than the least. */
const WINDOWS = 120;
const WINDOW_MS_MIN = 5000;
const SCRUB = '20M';
const COPY_EVERY = '1m';

interface PoolFacts {
  usedBytes: number;
  physicalBytes: number;
}

interface Options {
  numbers: Record<'minutes' | 'warm-up' | 'volumes' | 'connections' | 'snapshots' | 'requests', number>;
  dir: string;
  out: string;
}

class UsageError extends Error {}

function parseOptions(argv: string[]): Options {
  const text = { type: 'string' } as const;
  const options = {
    ...{ minutes: text, 'warm-up': text, volumes: text, connections: text, snapshots: text, requests: text },
    ...{ dir: text, out: text, help: { type: 'boolean', short: 'h' } as const },
  };
  let values: ReturnType<typeof parseArgs<{ options: typeof options }>>['values'];
  try {
    ({ values } = parseArgs({ args: argv, options }));
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  if (values.help) throw new UsageError('');
  const number = (name: keyof Options['numbers'], otherwise: number, least: number, most: number): number => {
    const given = values[name];
    const value = given === undefined ? otherwise : Number(given);
    if (!(value >= least && value <= most)) throw new UsageError(`--${name} is a number from ${least} to ${most}`);
    return value;
  };
  const minutes = number('minutes', 60, 2, 10_000);
  return {
    numbers: {
      minutes,
      'warm-up': number('warm-up', minutes / 6, 0, minutes - 1),
      volumes: number('volumes', 200, 1, 4000),
      connections: number('connections', 64, 1, 1000),
      snapshots: number('snapshots', 10, 0.1, 1000),
      requests: number('requests', 1500, 1, 1_000_000),
    },
    dir: path.resolve(values.dir ?? process.env.ATOLL_BENCH_DIR ?? (process.env.TMPDIR || '/tmp')),
    out: path.resolve(values.out ?? path.join(CHECKOUT, 'bench/out')),
  };
}

/** Where one window ends and the next begins. */
interface Moment {
  /** Unix ms */
  at: number;
  machine: MachineTime;
}

const moment = (): Moment => ({ at: Date.now(), machine: machineTime() });

interface Window {
  from: Moment;
  until: Moment;
  /** at its end, since the load began */
  seconds: number;
}

async function sample(
  daemon: Daemon,
  load: Load,
  beside: Beside | null,
  { from, until, seconds }: Window,
): Promise<Sample> {
  const windowSeconds = (until.at - from.at) / 1000;
  const { reads, writes, snapshotTimes, requests, snapshotsTaken } = load;
  [load.reads, load.writes, load.snapshotTimes, load.requests, load.snapshotsTaken] = [[], [], [], 0, 0];
  const besideReads = beside?.reads.splice(0) ?? [];
  const besideWrites = beside?.writes.splice(0) ?? [];
  const { background } = await daemon.status();
  const { pools } = await daemon.http<{ pools: PoolFacts[] }>('GET', '/v1/pools');
  const facts = await load.still(() => takeFacts(daemon.pid));
  const sum = (of: (pool: PoolFacts) => number): number => pools.reduce((total, pool) => total + of(pool), 0) / MIB;
  const sizeOf = (name: string): number =>
    fs.statSync(path.join(daemon.home, name), { throwIfNoEntry: false })?.size ?? 0;
  return {
    seconds,
    ...facts,
    readP50Us: percentile(reads, 0.5),
    readP99Us: percentile(reads, 0.99),
    writeP99Us: percentile(writes, 0.99),
    snapshotP99Ms: percentile(snapshotTimes, 0.99),
    besideReadP99Us: percentile(besideReads, 0.99),
    besideWriteP99Us: percentile(besideWrites, 0.99),
    stolenShare: (until.machine.stolen - from.machine.stolen) / (until.machine.total - from.machine.total),
    requestsPerSecond: requests / windowSeconds,
    snapshotsPerSecond: snapshotsTaken / windowSeconds,
    snapshots: load.snapshots.length,
    connections: load.connected,
    dropQueue: background.dropQueue ?? 0,
    usedMiB: sum((pool) => pool.usedBytes),
    physicalMiB: sum((pool) => pool.physicalBytes),
    storeMiB: (sizeOf('store.db') + sizeOf('store.db-wal')) / MIB,
  };
}

/** One panel per curve, over minutes. */
function curves(samples: readonly Sample[], warmUpSeconds: number): string {
  const panels: [string, (keyof Sample)[]][] = [
    ['descriptors', ['descriptors', 'sockets', 'poolFiles']],
    ['memory, MiB', ['rssMiB', 'anonMiB', 'sharedMiB']],
    ['latency, us', ['readP99Us', 'readP50Us', 'writeP99Us']],
    ['nbdkit beside, us', ['besideReadP99Us', 'besideWriteP99Us']],
    ['taken by the host', ['stolenShare']],
    ['snapshot p99, ms', ['snapshotP99Ms']],
    ['requests a second', ['requestsPerSecond']],
    ['space, MiB', ['usedMiB', 'physicalMiB', 'storeMiB']],
  ];
  const lines = ['set multiplot layout 2,4', 'set grid lc rgb "#dddddd"', 'set yrange [0:*]', 'set key bottom left'];
  lines.push(
    'set xlabel "minutes"',
    `set arrow from ${warmUpSeconds / 60},graph 0 to ${warmUpSeconds / 60},graph 1 nohead dt 2`,
  );
  panels.forEach(([title, keys], i) => {
    lines.push(`$p${i} << EOD`);
    for (const one of samples) lines.push([one.seconds / 60, ...keys.map((key) => one[key] ?? 'NaN')].join(' '));
    lines.push('EOD', `set title "${title}"`);
    const plots = keys.map((key, k) => `$p${i} using 1:${k + 2} with lines lw 2 title "${key}"`);
    lines.push(`plot ${plots.join(', ')}`);
  });
  lines.push('unset multiplot');
  return lines.join('\n');
}

async function soak(options: Options, children: Children, dir: string): Promise<SoakReport> {
  const { numbers } = options;
  const home = path.join(dir, 'home');
  const daemon = await Daemon.start(children, { home, args: ['--copy-every', COPY_EVERY] });
  await daemon.cli('pool', 'set', 'local', '--seal', 'on', '--scrub-rate', SCRUB);
  const load = new Load(daemon, {
    volumes: numbers.volumes,
    connections: numbers.connections,
    snapshotsPerSecond: numbers.snapshots,
    requestsPerSecond: numbers.requests,
    seed: 1,
  });
  await load.prepare();
  const windowMs = Math.max(WINDOW_MS_MIN, (numbers.minutes * 60_000) / WINDOWS);
  const warmUpSeconds = numbers['warm-up'] * 60;
  const report: SoakReport = {
    startedAt: new Date().toISOString(),
    machine: machine(options.dir),
    options: { ...numbers },
    warmUpSeconds,
    verdicts: [],
    errors: load.errors,
    samples: [],
  };
  const write = (): void =>
    fs.writeFileSync(path.join(options.out, 'soak.json'), `${JSON.stringify(report, null, 1)}\n`);
  const beside = await Beside.start(children, dir);
  load.start();
  const started = Date.now();
  let from = moment();
  while (Date.now() - started < numbers.minutes * 60_000) {
    await sleep(windowMs);
    if (!daemon.running) throw new Error(`the daemon ended: ${daemon.crashed}`);
    const until = moment();
    const one = await sample(daemon, load, beside, { from, until, seconds: (until.at - started) / 1000 });
    from = until;
    report.samples.push(one);
    write();
    const told = `${(one.seconds / 60).toFixed(1)} min  ${one.descriptors} descriptors  ${one.rssMiB.toFixed(1)} MiB  `;
    const p99 = `p99 ${one.readP99Us?.toFixed(0)} µs read, ${one.writeP99Us?.toFixed(0)} µs write, ${one.snapshotP99Ms?.toFixed(0)} ms snapshot`;
    const nbdkit = one.besideReadP99Us === null ? '' : `nbdkit ${one.besideReadP99Us.toFixed(0)} µs, `;
    const machineTold = `${nbdkit}host took ${(one.stolenShare * 100).toFixed(0)} %`;
    process.stderr.write(
      `${told}${p99}  ${one.requestsPerSecond.toFixed(0)} requests/s  queue ${one.dropQueue}  ${machineTold}\n`,
    );
  }
  report.verdicts = judge(report.samples, warmUpSeconds);
  await load.stop();
  await beside?.stop();
  const check = await daemon.cli<{ ok: boolean; problems: { message: string }[] }>('check');
  if (!check.ok) load.errors.push(...check.problems.map(({ message }) => message));
  await daemon.stop();
  write();
  return report;
}

function line({ text, value, bound, unit, pass }: Verdict): string {
  return `${pass ? 'pass' : 'MISS'}  ${text}: ${value.toFixed(2)} ${unit} (at most ${bound})\n`;
}

async function main(): Promise<number> {
  let options: Options;
  try {
    options = parseOptions(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(error.message ? `soak: ${error.message}\n\n${USAGE}` : USAGE);
    return error.message ? 2 : 0;
  }
  fs.mkdirSync(options.out, { recursive: true });
  const dir = fs.mkdtempSync(path.join(options.dir, 'atoll-soak-'));
  const children = new Children();
  const end = (): void => {
    children.killAll();
    fs.rmSync(dir, { recursive: true, force: true });
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => {
      end();
      process.exit(1);
    });
  try {
    const report = await soak(options, children, dir);
    for (const error of report.errors) process.stdout.write(`ERROR ${error}\n`);
    process.stdout.write(report.verdicts.map(line).join(''));
    try {
      await draw(children, options.out, 'soak', curves(report.samples, report.warmUpSeconds), 6);
    } catch (error) {
      process.stderr.write(`no plot: ${(error as Error).message}\n`);
    }
    process.stderr.write(`report and plot: ${options.out}/soak.*\n`);
    return report.errors.length > 0 || report.verdicts.some(({ pass }) => !pass) ? 1 : 0;
  } finally {
    end();
  }
}

process.exitCode = await main();
