/** A copy of a snapshot into a volume without bytes, as `copy_file_range` tells of it: piece by piece (docs/fuse.md, "Clones"). */
import type { FileNode } from '../../xseg/types.ts';

/** Ranges of one copy; a snapshot with more holes is copied as bytes from there on. */
export const COPY_RANGES_MAX = 65536;

export class SnapshotCopy {
  /** blocks [from, to) after each other, ascending, none next to another */
  readonly blocks: number[] = [];
  /** bytes that the volume seems to have */
  size = 0;

  constructor(
    readonly source: Pick<FileNode, 'id' | 'size'>,
    readonly blockSize: number,
  ) {}

  /**
   * Takes whole blocks; the last one of the snapshot may end before its end.
   * @returns bytes from `offset` that count as copied; 0: copy them
   */
  add(offset: number, length: number): number {
    const { blockSize, source } = this;
    if (offset % blockSize !== 0 || offset >= source.size) return 0;
    let end = Math.min(offset + length, source.size);
    if (end < source.size) end -= end % blockSize;
    if (end <= offset) return 0;
    if (!this.#insert(offset / blockSize, Math.ceil(end / blockSize))) return 0;
    this.size = Math.max(this.size, end);
    return end - offset;
  }

  #insert(from: number, to: number): boolean {
    const { blocks } = this;
    // the first range that ends at `from` or behind it, and the first that begins behind `to`
    let first = blocks.length;
    while (first > 0 && blocks[first - 1] >= from) first -= 2;
    let last = first;
    while (last < blocks.length && blocks[last] <= to) last += 2;
    const merged = last > first;
    if (!merged && blocks.length >= 2 * COPY_RANGES_MAX) return false;
    const range = merged ? [Math.min(from, blocks[first]), Math.max(to, blocks[last - 1])] : [from, to];
    blocks.splice(first, last - first, ...range);
    return true;
  }
}
