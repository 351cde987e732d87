/**
 * Keeps the rows of what was made in the engine by hand (docs/catalog.md, "Made by hand"): looks at all of it when the catalog has
 * opened, and at what changes from then on. What is done to one name is in `adopting.ts`.
 */
import { Adopting } from './adopting.ts';
import type { Changed, EngineSide, EngineWatch } from './roots.ts';
import type { CatalogSide } from './types.ts';

/** Changes are looked at so long after the first of them: guests' flushes come before it, and many are one write. */
export const FOLLOW_MS = 1000;
/** before what failed is done again, with all there is */
const AGAIN_MS = 10_000;
/** More changes than this, and all is looked at instead. */
export const CHANGES_MAX = 1024;

export class Adoption {
  /** by number and name, so that one that changes often is one */
  #changed = new Map<string, Changed>();
  #all = true;
  #timer: NodeJS.Timeout | null = null;
  #running: Promise<void> | null = null;
  #unwatch: () => void = () => undefined;
  #closed = false;
  readonly #adopting: Adopting;

  constructor(
    catalog: CatalogSide,
    private readonly engine: EngineSide,
    private readonly watch: EngineWatch,
  ) {
    this.#adopting = new Adopting(catalog, engine);
  }

  /** When the catalog is open. */
  start(): void {
    if (this.#closed) return;
    this.#unwatch = this.watch.onChange((changed) => this.#hear(changed));
    this.caughtUp().catch(() => undefined);
  }

  /** @returns when rows say what the engine had when this was called. @throws what they could not be written for */
  async caughtUp(): Promise<void> {
    // One that is running may have begun before the last change.
    while (this.#running) await this.#running.catch(() => undefined);
    if (this.#closed || (!this.#all && this.#changed.size === 0)) return;
    const running = this.#run();
    this.#running = running;
    try {
      await running;
    } finally {
      this.#running = null;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unwatch();
    if (this.#timer) clearTimeout(this.#timer);
    await this.#running?.catch(() => undefined);
  }

  #hear(changed: Changed): void {
    const { id, name } = changed;
    this.#changed.set(`${id} ${name?.volume ?? ''} ${name?.name ?? ''}`, changed);
    if (this.#changed.size > CHANGES_MAX) {
      this.#all = true;
      this.#changed.clear();
    }
    this.#wait(FOLLOW_MS);
  }

  #wait(ms: number): void {
    if (this.#timer || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.caughtUp().catch(() => undefined);
    }, ms).unref();
  }

  async #run(): Promise<void> {
    const changed = [...this.#changed.values()];
    const all = this.#all;
    this.#changed.clear();
    this.#all = false;
    try {
      if (all) await this.#adopting.everything(this.watch, () => this.#closed);
      else await this.#adopting.names(await this.watch.names(changed));
    } catch (error) {
      if (this.#closed) return;
      this.#all = true;
      this.engine.failed('what was made by hand', error as Error);
      this.#wait(AGAIN_MS);
      throw error;
    }
  }
}
