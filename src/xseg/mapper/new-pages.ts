/**
 * Pages, and references to pages, that are in memory or on their way, and not durable. What they stand on may not be given up
 * although the store knows of nobody who needs it.
 */
export class NewPages {
  /** page → its base */
  readonly #bases = new Map<number, number>();
  /** base → how many of them */
  readonly #children = new Map<number, number>();
  /** page → references on their way */
  readonly #refs = new Map<number, number>();

  /** A page was made that borrows from `base`. */
  added(page: number, base: number): void {
    this.#bases.set(page, base);
    add(this.#children, base);
  }

  /** It is in the store, or will never be. */
  durable(page: number): void {
    const base = this.#bases.get(page);
    if (base === undefined) return;
    this.#bases.delete(page);
    take(this.#children, base);
  }

  /** Pages that borrow from this one are not durable. */
  hasChildren(base: number): boolean {
    return this.#children.has(base);
  }

  refAdded(page: number): void {
    add(this.#refs, page);
  }

  refDurable(page: number): void {
    take(this.#refs, page);
  }

  /** References to the page that the store does not have yet. */
  refs(page: number): number {
    return this.#refs.get(page) ?? 0;
  }
}

function add(counts: Map<number, number>, key: number): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

function take(counts: Map<number, number>, key: number): void {
  const left = (counts.get(key) ?? 0) - 1;
  if (left <= 0) counts.delete(key);
  else counts.set(key, left);
}
