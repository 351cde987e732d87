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

/** requests on the control socket take from a millisecond to the seconds that a slow disk takes */
const CONTROL_SECONDS = [0.001, 0.004, 0.016, 0.064, 0.25, 1, 4, 16];

export class Metrics {
  readonly contentType: string;
  readonly #registry = new Registry();
  readonly #fill: ((source: Source) => void)[];
  readonly #requests: Counter<'route' | 'status'>;
  readonly #seconds: Histogram;
  #scrape: Promise<string> | null = null;

  constructor(private readonly read: () => Promise<Omit<Source, 'process'>>) {
    this.contentType = this.#registry.contentType;
    const registers = [this.#registry];
    this.#fill = CATALOG.map((definition) => filler(definition, this.#registry));
    this.#requests = new Counter({
      name: 'atoll_control_requests_total',
      help: 'Requests on the control socket',
      labelNames: ['route', 'status'],
      registers,
    });
    this.#seconds = new Histogram({
      name: 'atoll_control_request_seconds',
      help: 'Requests on the control socket, from their head to the end of the answer',
      buckets: CONTROL_SECONDS,
      registers,
    });
  }

  /** @param route as it is written down, with its parameters' names: nothing of a user's may be in it */
  controlRequest(route: string, status: number, seconds: number): void {
    this.#requests.inc({ route, status: String(status) });
    this.#seconds.observe(seconds);
  }

  /** The page. Who asks while one is being made gets that one: however many ask, the engine is asked once. */
  page(): Promise<string> {
    this.#scrape ??= this.#make().finally(() => {
      this.#scrape = null;
    });
    return this.#scrape;
  }

  async #make(): Promise<string> {
    const source = { ...(await this.read()), process: processFacts() };
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
