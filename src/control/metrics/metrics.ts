/** The metrics of a daemon: what it counts itself, and the page at GET /metrics, whose library is loaded for the first scrape. */
import { DURATION_BUCKETS, Histogram } from '../../xseg/histogram.ts';
import { type ControlRequests, MICROSECONDS, type Source } from './definition.ts';
import type { Page } from './page.ts';

export type Read = () => Promise<Omit<Source, 'process' | 'control'>>;

export class Metrics {
  readonly contentType = 'text/plain; version=0.0.4; charset=utf-8';
  readonly #requests: ControlRequests = new Map();
  readonly #times = new Histogram(DURATION_BUCKETS);
  #page: Promise<Page> | null = null;
  #scrape: Promise<string> | null = null;

  constructor(private readonly read: Read) {}

  /** @param route as it is written down, with its parameters' names: nothing of a user's may be in it */
  controlRequest(route: string, status: number, seconds: number): void {
    const statuses = this.#requests.get(route) ?? new Map<number, number>();
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
    this.#requests.set(route, statuses);
    this.#times.observe(seconds * MICROSECONDS);
  }

  /** The page. Who asks while one is being made gets that one: however many ask, the engine is asked once. */
  page(): Promise<string> {
    this.#scrape ??= this.#make().finally(() => {
      this.#scrape = null;
    });
    return this.#scrape;
  }

  async #make(): Promise<string> {
    this.#page ??= import('./page.ts').then((module) => new module.Page());
    const [page, read] = await Promise.all([this.#page, this.read()]);
    return page.make({ ...read, control: { requests: this.#requests, times: this.#times.read() } });
  }
}
