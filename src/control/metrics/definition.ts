/**
 * What a metric is here: a name, and how its values are read from what the daemon knows. Nothing is counted for metrics'
 * sake in this folder: whoever does the work counts it (src/xseg/activity.ts), and a scrape reads.
 */
import type { Activity, Distribution } from '../../xseg/activity.ts';
import type { EngineStatus } from '../../xseg/types.ts';
import type { LogCounts } from '../log.ts';

/** What one scrape reads from. */
export interface Source {
  status: EngineStatus;
  activity: Activity;
  /** imports and exports under way */
  transfers: number;
  log: LogCounts;
  control: { requests: ControlRequests; times: Distribution };
  process: ProcessFacts;
}

/** Requests on the control socket: route → status → how many. */
export type ControlRequests = Map<string, Map<number, number>>;

export interface ProcessFacts {
  cpuSeconds: number;
  residentBytes: number;
  openDescriptors: number;
  /** Unix seconds */
  startTime: number;
}

export type Labels = Readonly<Record<string, string>>;
export type Series<Value> = readonly [Labels, Value];

interface Named {
  name: string;
  help: string;
  /** names of labels; each is in LABELS */
  labels: readonly string[];
}

export interface NumberMetric extends Named {
  kind: 'counter' | 'gauge';
  read: (source: Source) => readonly Series<number>[];
}

export interface HistogramMetric extends Named {
  kind: 'histogram';
  /** how many of the distribution's units make one of the metric's */
  divisor: number;
  read: (source: Source) => readonly Series<Distribution>[];
}

export type Definition = NumberMetric | HistogramMetric;

/** a distribution's microseconds are a metric's seconds */
export const MICROSECONDS = 1e6;
const ALONE: Labels = {};

export function counter(name: string, help: string, read: (source: Source) => number): NumberMetric {
  return { kind: 'counter', name, help, labels: [], read: (source) => [[ALONE, read(source)]] };
}

export function gauge(name: string, help: string, read: (source: Source) => number): NumberMetric {
  return { kind: 'gauge', name, help, labels: [], read: (source) => [[ALONE, read(source)]] };
}

/** One series for each member of what `read` returns, with its name as the label's value. */
export function countersBy(
  label: string,
  name: string,
  help: string,
  read: (source: Source) => Readonly<Record<string, number>>,
): NumberMetric {
  return { kind: 'counter', name, help, labels: [label], read: (source) => byLabel(label, read(source)) };
}

export function gaugesBy(
  label: string,
  name: string,
  help: string,
  read: (source: Source) => Readonly<Record<string, number>>,
): NumberMetric {
  return { kind: 'gauge', name, help, labels: [label], read: (source) => byLabel(label, read(source)) };
}

export function durations(name: string, help: string, read: (source: Source) => Distribution): HistogramMetric {
  return histogram(name, help, [], MICROSECONDS, (source) => [[ALONE, read(source)]]);
}

export function durationsBy(
  label: string,
  name: string,
  help: string,
  read: (source: Source) => Readonly<Record<string, Distribution>>,
): HistogramMetric {
  return histogram(name, help, [label], MICROSECONDS, (source) => byLabel(label, read(source)));
}

export function counts(name: string, help: string, read: (source: Source) => Distribution): HistogramMetric {
  return histogram(name, help, [], 1, (source) => [[ALONE, read(source)]]);
}

function histogram(
  name: string,
  help: string,
  labels: readonly string[],
  divisor: number,
  read: HistogramMetric['read'],
): HistogramMetric {
  return { kind: 'histogram', name, help, labels, divisor, read };
}

function byLabel<Value>(label: string, values: Readonly<Record<string, Value>>): Series<Value>[] {
  return Object.entries(values).map(([key, value]) => [{ [label]: key }, value]);
}
