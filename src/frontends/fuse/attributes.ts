/** What `stat` shows of files and folders, as native/fuse takes it: NODE_NUMBERS numbers for each. */
import type { FileNode } from '../../xseg/types.ts';
import { ROOT, SNAPSHOTS, snapshotIno, VOLUMES, volumeIno } from './numbers.ts';

/** ino, mode, links, size, blocks of 512 bytes, bytes to read at once, mtime ms, ctime ms */
export const NODE_NUMBERS = 8;

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const SECTOR = 512;
/** what programs read and write at once when they ask */
const IO_BYTES = 128 * 1024;

/** What is shown of a node. */
export type Shown = Pick<FileNode, 'id' | 'kind' | 'size' | 'mappedBytes' | 'createdMs' | 'changes' | 'attached'>;

export class Attributes {
  readonly #started = Date.now();
  /** by ino: when it changed last, as far as somebody looked; and what its counter said then */
  readonly #times = new Map<number, { ms: number; changes: number }>();

  /** @param sizeOf bytes that a volume seems to have while it is copied into; undefined for others */
  constructor(
    readonly allowOther: boolean,
    readonly sizeOf: (ino: number) => number | undefined,
  ) {}

  folder(ino: number): Float64Array {
    const mode = S_IFDIR | (this.allowOther ? 0o770 : 0o700);
    const links = ino === ROOT ? 2 + [VOLUMES, SNAPSHOTS].length : 2;
    return Float64Array.of(ino, mode, links, 0, 0, IO_BYTES, this.#started, this.#started);
  }

  file(node: Shown): Float64Array {
    const write = node.kind === 'volume' && !node.attached ? 0o220 : 0;
    const mode = S_IFREG | ((0o440 | write) & (this.allowOther ? 0o660 : 0o600));
    const ino = node.kind === 'volume' ? volumeIno(node.id) : snapshotIno(node.id);
    const time = this.#time(ino, node);
    const size = this.sizeOf(ino) ?? node.size;
    // a snapshot seems to have no holes: from files with holes `cp` reads, and asks for no clone (docs/fuse.md, "Clones")
    const blocks = (node.kind === 'snapshot' ? size : Math.min(node.mappedBytes, size)) / SECTOR;
    return Float64Array.of(ino, mode, 1, size, Math.ceil(blocks), IO_BYTES, time, time);
  }

  /** It is as old as somebody says, until it changes. */
  setTime(ino: number, ms: number, changes: number): void {
    this.#times.set(ino, { ms, changes });
  }

  /** Times of volumes are not stored: since it was made, or since something here saw that it changed. */
  #time(ino: number, node: Shown): number {
    const known = this.#times.get(ino);
    if (node.changes !== 0 && node.changes !== known?.changes) {
      const ms = Date.now();
      this.#times.set(ino, { ms, changes: node.changes });
      return ms;
    }
    return known?.ms ?? node.createdMs;
  }
}
