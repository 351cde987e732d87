/** The page at GET /metrics: prom-client's registry, filled from the catalog at each scrape. */
import fs from 'node:fs';
import {
  Counter,
  Gauge,
  Histogram,
  type MetricObjectWithValues,
  type MetricValueWithName,
  Registry,
} from 'prom-client';
import type { Distribution } from '../../xseg/activity.ts';
import { CATALOG } from './catalog.ts';
import type { Definition, HistogramMetric, NumberMetric, ProcessFacts, Series, Source } from './definition.ts';

export class Page {
  readonly #registry = new Registry();
  readonly #fill = CATALOG.map((definition) => filler(definition, this.#registry));

  make(read: Omit<Source, 'process'>): Promise<string> {
    const source = { ...read, process: processFacts() };
    for (const fill of this.#fill) fill(source);
    return this.#registry.metrics();
  }
}

function filler(definition: Definition, registry: Registry): (source: Source) => void {
  if (definition.kind === 'histogram') {
    const metric = new KeptHistogram(definition, registry);
    return (source) => metric.keep(definition.read(source));
  }
  return fillNumber(definition, registry);
}

function fillNumber({ kind, name, help, labels, read }: NumberMetric, registry: Registry): (source: Source) => void {
  const options = { name, help, labelNames: labels, registers: [registry] };
  if (kind === 'gauge') {
    const metric = new Gauge(options);
    return (source) => {
      metric.reset();
      for (const [series, value] of read(source)) metric.set(series, value);
    };
  }
  const metric = new Counter(options);
  return (source) => {
    metric.reset();
    for (const [series, value] of read(source)) metric.inc(series, value);
  };
}

type Exposed = MetricObjectWithValues<MetricValueWithName<string>>;

/** A histogram whose counts come from elsewhere, as a whole. */
class KeptHistogram extends Histogram<string> {
  #series: readonly Series<Distribution>[] = [];

  constructor(
    private readonly definition: HistogramMetric,
    registry: Registry,
  ) {
    super({
      name: definition.name,
      help: definition.help,
      labelNames: definition.labels,
      registers: [registry],
    });
  }

  keep(series: readonly Series<Distribution>[]): void {
    this.#series = series;
  }

  override async get(): Promise<Exposed> {
    const { name, help } = this.definition;
    const values = this.#series.flatMap(([labels, distribution]) => this.#lines(labels, distribution));
    // `type` is a word, whatever the package's types say
    return { name, help, type: 'histogram', values } as unknown as Exposed;
  }

  /** What the registry asks instead of get() where it finds it. */
  getForPromString(): Promise<Exposed> {
    return this.get();
  }

  #lines(labels: Series<Distribution>[0], { counts, sum }: Distribution): MetricValueWithName<string>[] {
    const { name, divisor } = this.definition;
    let below = 0;
    const lines = counts.map((count, bucket) => {
      below += count;
      const le = bucket === counts.length - 1 ? '+Inf' : String(2 ** bucket / divisor);
      return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: below };
    });
    return [
      ...lines,
      { metricName: `${name}_sum`, labels: { ...labels }, value: sum / divisor },
      { metricName: `${name}_count`, labels: { ...labels }, value: below },
    ];
  }
}

function processFacts(): ProcessFacts {
  const cpu = process.cpuUsage();
  return {
    cpuSeconds: (cpu.user + cpu.system) / 1e6,
    residentBytes: process.memoryUsage.rss(),
    openDescriptors: fs.readdirSync('/proc/self/fd').length,
    startTime: Date.now() / 1000 - process.uptime(),
  };
}
