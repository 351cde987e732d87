/** Numbers that are handed out once, ever: of resources, pages, releases and copies of the store. Each batch says how far they are. */
import type { StoreReader } from '../store/reader.ts';
import type { Generation } from './copies.ts';

export class Numbers {
  #page: number;
  #resource: number;
  #release: number;
  #copy: number;

  /** @param copies that pools carry: a store that was rebuilt may know less than they do */
  constructor(reader: StoreReader, copies: readonly Generation[]) {
    this.#page = Number(reader.meta('next_page') ?? 1);
    this.#resource = Number(reader.meta('next_resource') ?? 1);
    this.#release = Math.max(Number(reader.meta('next_release') ?? 1), reader.releaseMax() + 1);
    this.#copy = Number(reader.meta('next_copy') ?? 1);
    for (const { sequence } of copies) this.#copy = Math.max(this.#copy, sequence + 1);
  }

  readonly page = (): number => this.#page++;
  readonly resource = (): number => this.#resource++;
  readonly release = (): number => this.#release++;
  readonly copy = (): number => this.#copy++;

  /** As rows of the store's `meta`. */
  meta(): Record<string, number> {
    return {
      next_page: this.#page,
      next_resource: this.#resource,
      next_release: this.#release,
      next_copy: this.#copy,
    };
  }
}
