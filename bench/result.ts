/**
 * What a row of the benchmark yields; the report, the plots and the JSON are made from this alone.
 */
import type { Memory } from './proc.ts';
import { MIB } from './size.ts';
import { median, nearestRank, pairedRatios, type Spread, spread } from './stats.ts';

/** One measurement of one contender in one round. */
export interface Sample {
  /** in the row's unit */
  value: number;
  /** CPU seconds of the server's process per million I/Os; null where it says nothing */
  cpuPerMillion: number | null;
  /** cores that the client was busy on */
  clientCores?: number;
}

export interface Series {
  name: string;
  /** one per round */
  samples: Sample[];
}

export interface Goal {
  text: string;
  direction: 'at least' | 'at most';
  bound: number;
  value: number;
  /** of the paired ratios, where it is one */
  spread: Spread | null;
  unit: string;
  pass: boolean;
}

export interface RowResult {
  id: string;
  title: string;
  /** of the series' values */
  unit: string;
  betterIs: 'higher' | 'lower';
  series: Series[];
  goals: Goal[];
  /** further numbers, by name, with their unit in the name */
  facts: Record<string, number>;
  latencies: Latencies[];
  notes: string[];
}

export interface Latencies {
  name: string;
  p50: number;
  p99: number;
  max: number;
  count: number;
  unit: string;
}

export interface RowFailure {
  id: string;
  title: string;
  error: string;
}

export interface Report {
  startedAt: string;
  seconds: number;
  rounds: number;
  runtimeSeconds: number;
  machine: Record<string, string>;
  rows: RowResult[];
  failures: RowFailure[];
}

export function newRow(id: string, title: string, unit: string, betterIs: 'higher' | 'lower' = 'higher'): RowResult {
  return { id, title, unit, betterIs, series: [], goals: [], facts: {}, latencies: [], notes: [] };
}

export function valuesOf(row: RowResult, name: string): number[] | null {
  const series = row.series.find((one) => one.name === name);
  return series && series.samples.length > 0 ? series.samples.map((sample) => sample.value) : null;
}

/** Adds "`ours` is at least `factor` × `theirs`"; nothing when either did not run. */
export function ratioGoal(row: RowResult, ours: string, theirs: string, factor: number): void {
  const mine = valuesOf(row, ours);
  const others = valuesOf(row, theirs);
  if (!mine || !others) return;
  const ratios = spread(pairedRatios(mine, others));
  row.goals.push({
    text: `≥ ${factor} × ${theirs}`,
    direction: 'at least',
    bound: factor,
    value: ratios.median,
    spread: ratios,
    unit: '×',
    pass: ratios.median >= factor,
  });
}

/** Adds the median of the paired ratios of two series as a fact; nothing when either did not run. */
export function pairedFact(row: RowResult, name: string, ours: string, theirs: string): void {
  const mine = valuesOf(row, ours);
  const others = valuesOf(row, theirs);
  if (mine && others) row.facts[name] = median(pairedRatios(mine, others));
}

/** Adds what a process takes. */
export function memoryFacts(row: RowResult, { rssBytes, anonBytes, sharedBytes }: Memory): void {
  row.facts.resident_MiB = rssBytes / MIB;
  row.facts.anonymous_MiB = anonBytes / MIB;
  row.facts.shared_MiB = sharedBytes / MIB;
}

export function atMost(row: RowResult, text: string, value: number, bound: number, unit: string): void {
  row.goals.push({ text, direction: 'at most', bound, value, spread: null, unit, pass: value <= bound });
}

/** Adds p50, p99 and maximum of `values`; nothing when there are none. */
export function addLatencies(row: RowResult, name: string, values: readonly number[], unit: string): void {
  if (values.length === 0) return;
  const [p50, p99, max] = [median(values), nearestRank(values, 0.99), Math.max(...values)];
  row.latencies.push({ name, p50, p99, max, count: values.length, unit });
}
