/** What a soak watches, window by window, and what is read off the curves. All pure but `takeFacts`. */
import fs from 'node:fs';
import { memory } from '../proc.ts';
import { MIB } from '../size.ts';
import { median, nearestRank } from '../stats.ts';

/** What the kernel says of the daemon. */
export interface Facts {
  descriptors: number;
  /** of them */
  sockets: number;
  /** of them: files of pools, which come with the groups of slots that a pool has */
  poolFiles: number;
  threads: number;
  rssMiB: number;
  anonMiB: number;
  sharedMiB: number;
}

export interface Sample extends Facts {
  /** since the load began */
  seconds: number;
  /** of the window that ends here; null when there were none */
  readP50Us: number | null;
  readP99Us: number | null;
  writeP99Us: number | null;
  snapshotP99Ms: number | null;
  /** the same of nbdkit's memory plugin in that window; null without one */
  besideReadP99Us: number | null;
  besideWriteP99Us: number | null;
  /** of the processors' time, what the host took from this machine in that window, 0..1 */
  stolenShare: number;
  requestsPerSecond: number;
  snapshotsPerSecond: number;
  snapshots: number;
  connections: number;
  /** rows in the queue of releases */
  dropQueue: number;
  usedMiB: number;
  physicalMiB: number;
  storeMiB: number;
}

export interface Verdict {
  text: string;
  value: number;
  bound: number;
  unit: string;
  pass: boolean;
}

export interface SoakReport {
  startedAt: string;
  machine: Record<string, string>;
  options: Record<string, number>;
  warmUpSeconds: number;
  verdicts: Verdict[];
  /** told by the load; none is fine */
  errors: string[];
  samples: Sample[];
}

/** Share of the samples after the warm-up that each end of a curve is the median of. */
const END_SHARE = 0.2;
export const RSS_PERCENT_PER_HOUR_MAX = 1;
export const P99_PERCENT_MAX = 20;
const POOL_FILE = /\/pools\/[^/]+\/s[0-9a-f]+$/;

export function takeFacts(pid: number): Facts {
  const folder = `/proc/${pid}/fd`;
  let sockets = 0;
  let descriptors = 0;
  let poolFiles = 0;
  for (const fd of fs.readdirSync(folder)) {
    let target: string;
    try {
      target = fs.readlinkSync(`${folder}/${fd}`);
    } catch {
      continue; // closed meanwhile
    }
    descriptors++;
    if (target.startsWith('socket:')) sockets++;
    if (POOL_FILE.test(target)) poolFiles++;
  }
  const { rssBytes, anonBytes, sharedBytes } = memory(pid);
  return {
    descriptors,
    sockets,
    poolFiles,
    threads: fs.readdirSync(`/proc/${pid}/task`).length,
    rssMiB: rssBytes / MIB,
    anonMiB: anonBytes / MIB,
    sharedMiB: sharedBytes / MIB,
  };
}

export function percentile(values: readonly number[], q: number): number | null {
  return values.length === 0 ? null : nearestRank(values, q);
}

/** Slope of the least squares line, per unit of x. @param points at least two with different x */
export function slope(points: readonly (readonly [number, number])[]): number {
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / points.length;
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / points.length;
  let over = 0;
  let under = 0;
  for (const [x, y] of points) {
    over += (x - meanX) * (y - meanY);
    under += (x - meanX) ** 2;
  }
  if (under === 0) throw new RangeError('a slope of one place');
  return over / under;
}

/** The medians of the first and of the last samples. @param values at least one */
export function ends(values: readonly number[]): { first: number; last: number } {
  const count = Math.max(1, Math.floor(values.length * END_SHARE));
  return { first: median(values.slice(0, count)), last: median(values.slice(-count)) };
}

/** The samples with the number of threads that most have: the hashing thread comes with descriptors, and goes when idle. */
export function withUsualThreads(samples: readonly Sample[]): Sample[] {
  const counts = new Map<number, number>();
  for (const { threads } of samples) counts.set(threads, (counts.get(threads) ?? 0) + 1);
  const [usual] = [...counts].sort((a, b) => b[1] - a[1])[0]!;
  return samples.filter(({ threads }) => threads === usual);
}

/** What is asked of the curves after the warm-up. @param samples those of the whole run */
export function judge(samples: readonly Sample[], warmUpSeconds: number): Verdict[] {
  const after = samples.filter(({ seconds }) => seconds >= warmUpSeconds);
  if (after.length < 2) throw new RangeError('no two samples after the warm-up');
  const alike = withUsualThreads(after);
  const descriptors = ends(alike.map((one) => one.descriptors));
  const threads = ends(after.map((one) => one.threads));
  const perSecond = slope(after.map(({ seconds, rssMiB }) => [seconds, rssMiB]));
  const rss = ((perSecond * 3600) / median(after.map((one) => one.rssMiB))) * 100;
  const verdicts: Verdict[] = [
    atMost('descriptors stay equal', Math.abs(descriptors.last - descriptors.first), 0, ''),
    // the hashing thread comes and goes
    atMost('threads rise', threads.last - threads.first, 1, ''),
    atMost('resident memory rises', rss, RSS_PERCENT_PER_HOUR_MAX, '% an hour'),
  ];
  for (const [what, key, besideKey] of [
    ['reads', 'readP99Us', 'besideReadP99Us'],
    ['writes', 'writeP99Us', 'besideWriteP99Us'],
  ] as const) {
    const own = after.flatMap((one) => one[key] ?? []);
    // of one window both: what the host takes from the machine cancels out
    const ratios = after.flatMap((one) => {
      const [value, beside] = [one[key], one[besideKey]];
      return value === null || beside === null ? [] : [value / beside];
    });
    verdicts.push(...p99Rise(`p99 of ${what} rises`, own));
    verdicts.push(...p99Rise(`p99 of ${what} in that of nbdkit beside rises`, ratios));
  }
  return verdicts;
}

/** None of no values. */
function p99Rise(text: string, values: readonly number[]): Verdict[] {
  if (values.length === 0) return [];
  const { first, last } = ends(values);
  return [atMost(text, (last / first - 1) * 100, P99_PERCENT_MAX, '%')];
}

function atMost(text: string, value: number, bound: number, unit: string): Verdict {
  return { text, value, bound, unit, pass: value <= bound };
}
