/** The pause between two tries doubles up to so many times the first one. */
export const PAUSES_MAX = 64;

/** Work that has to be done some time: tried at once, and again until it is. */
export class Again {
  readonly #left = new Set<string>();
  #timer: NodeJS.Timeout | null = null;
  #pause: number;
  #closed = false;

  /**
   * @param ms before the second try
   * @param work for one key; a second time for one that was done does no harm
   */
  constructor(
    private readonly ms: number,
    private readonly work: (key: string) => Promise<void>,
  ) {
    this.#pause = ms;
  }

  get count(): number {
    return this.#left.size;
  }

  /** Never fails. @returns after the first try */
  async add(key: string): Promise<void> {
    if (this.#closed) return;
    this.#left.add(key);
    await this.#try(key);
  }

  /** As add(), when the first try has just failed. */
  later(key: string): void {
    if (this.#closed) return;
    this.#left.add(key);
    this.#wait();
  }

  close(): void {
    this.#closed = true;
    if (this.#timer) clearTimeout(this.#timer);
    this.#left.clear();
  }

  async #try(key: string): Promise<void> {
    try {
      await this.work(key);
      this.#left.delete(key);
      if (this.#left.size === 0) this.#pause = this.ms;
    } catch {
      this.#wait();
    }
  }

  #wait(): void {
    if (this.#timer || this.#closed) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      for (const key of this.#left) void this.#try(key);
    }, this.#pause);
    this.#timer.unref();
    this.#pause = Math.min(this.#pause * 2, this.ms * PAUSES_MAX);
  }
}
