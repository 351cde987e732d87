/**
 * Copying snapshots into volumes without moving data (docs/fuse.md, "Clones"): what `copy_file_range` tells of is remembered by
 * volume, and done when the volume is closed or something else is done with it.
 */
import type { Files } from '../../xseg/types.ts';
import { EOPNOTSUPP, Refusal } from './errno.ts';
import { placeOf } from './numbers.ts';
import { SnapshotCopy } from './snapshot-copy.ts';

/** A file that is open through the mount. */
export interface Open {
  handle: number;
  count: number;
  /** of these, opened for writing */
  writers: number;
  blockSize: number;
}

export class Copies {
  /** by ino of the volume */
  readonly #copies = new Map<number, SnapshotCopy>();
  /** one after another */
  #running: Promise<unknown> = Promise.resolve();

  /**
   * @param opens by ino
   * @param owning runs work that changes what the keys name
   */
  constructor(
    readonly files: Files,
    readonly opens: ReadonlyMap<number, Open>,
    readonly owning: <T>(keys: string[], work: () => Promise<T>) => Promise<T>,
  ) {}

  has(ino: number): boolean {
    return this.#copies.has(ino);
  }

  /** bytes that a volume seems to have while it is copied into */
  sizeOf(ino: number): number | undefined {
    return this.#copies.get(ino)?.size;
  }

  unsettled(): number[] {
    return [...this.#copies.keys()];
  }

  /**
   * A piece of a snapshot that goes to the same place of a volume without bytes. Others are refused, and the kernel copies their
   * bytes. @returns bytes
   */
  piece(from: number, offset: number, to: number, toOffset: number, length: number): Promise<number> {
    return this.#one(async () => {
      const source = placeOf(from);
      const copy = this.#copies.get(to) ?? (await this.#begin(from, to));
      const count =
        copy === null || source?.kind !== 'snapshot' || source.id !== copy.source.id || offset !== toOffset
          ? 0
          : copy.add(offset, length);
      if (copy !== null && count > 0) {
        this.#copies.set(to, copy);
        return count;
      }
      await this.#settle(to);
      throw new Refusal(EOPNOTSUPP);
    });
  }

  /** What was copied is there, or never will be: who asked for this is told. */
  settle(ino: number): Promise<void> {
    return this.#one(() => this.#settle(ino));
  }

  /** `cp` gives a copy that ends with a hole its size this way. */
  resize(ino: number, id: number, size: number): Promise<void> {
    return this.#one(async () => {
      const copy = this.#copies.get(ino);
      if (copy !== undefined && copy.source.size === size) {
        copy.size = size;
        return;
      }
      await this.#settle(ino);
      await this.owning([`${id}`], () => this.files.resize(id, size));
    });
  }

  #one<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#running.then(work);
    this.#running = result.catch(() => undefined);
    return result;
  }

  async #begin(from: number, to: number): Promise<SnapshotCopy | null> {
    const [source, target] = [placeOf(from), placeOf(to)];
    const open = this.opens.get(to);
    const blockSize = this.opens.get(from)?.blockSize;
    if (source?.kind !== 'snapshot' || target?.kind !== 'volume' || open === undefined || blockSize === undefined)
      return null;
    const [snapshot, volume] = [await this.files.node(source.id), await this.files.node(target.id)];
    // whom nobody else sees: they would see it without bytes until it is closed
    const alone = volume.size === 0 && volume.openCount === open.count;
    return alone && volume.pool === snapshot.pool ? new SnapshotCopy(snapshot, blockSize) : null;
  }

  async #settle(ino: number): Promise<void> {
    const copy = this.#copies.get(ino);
    const place = placeOf(ino);
    if (copy === undefined || place?.kind !== 'volume') return;
    const { source, size, blocks } = copy;
    try {
      const { fullName } = await this.files.node(source.id);
      await this.owning([`${place.id}`], () => this.files.fill(place.id, fullName, size, blocks));
    } finally {
      this.#copies.delete(ino);
    }
  }
}
