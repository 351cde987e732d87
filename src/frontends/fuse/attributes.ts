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
    const list = new Float64Array(NODE_NUMBERS);
    this.putFolder(list, 0, ino);
    return list;
  }

  /** To `list` from `at` on. */
  putFolder(list: Float64Array, at: number, ino: number): void {
    list[at] = ino;
    list[at + 1] = S_IFDIR | (this.allowOther ? 0o770 : 0o700);
    list[at + 2] = ino === ROOT ? 2 + [VOLUMES, SNAPSHOTS].length : 2;
    list[at + 3] = 0;
    list[at + 4] = 0;
    list[at + 5] = IO_BYTES;
    list[at + 6] = this.#started;
    list[at + 7] = this.#started;
  }

  file(node: Shown): Float64Array {
    const { id, kind, size, mappedBytes, createdMs, changes, attached } = node;
    const list = new Float64Array(NODE_NUMBERS);
    this.putFile(list, 0, id, kind === 'volume', size, mappedBytes, createdMs, changes, attached);
    return list;
  }

  /** To `list` from `at` on: a hundred thousand of them are listed at once, and make no objects. */
  putFile(
    list: Float64Array,
    at: number,
    id: number,
    isVolume: boolean,
    sizeNow: number,
    mappedBytes: number,
    createdMs: number,
    changes: number,
    attached: boolean,
  ): void {
    const write = isVolume && !attached ? 0o220 : 0;
    const ino = isVolume ? volumeIno(id) : snapshotIno(id);
    const time = this.#time(ino, changes, createdMs);
    const size = this.sizeOf(ino) ?? sizeNow;
    // a snapshot seems to have no holes: from files with holes `cp` reads, and asks for no clone (docs/fuse.md, "Clones")
    const blocks = (isVolume ? Math.min(mappedBytes, size) : size) / SECTOR;
    list[at] = ino;
    list[at + 1] = S_IFREG | ((0o440 | write) & (this.allowOther ? 0o660 : 0o600));
    list[at + 2] = 1;
    list[at + 3] = size;
    list[at + 4] = Math.ceil(blocks);
    list[at + 5] = IO_BYTES;
    list[at + 6] = time;
    list[at + 7] = time;
  }

  /** It is as old as somebody says, until it changes. */
  setTime(ino: number, ms: number, changes: number): void {
    this.#times.set(ino, { ms, changes });
  }

  /** Times of volumes are not stored: since it was made, or since something here saw that it changed. */
  #time(ino: number, changes: number, createdMs: number): number {
    const known = this.#times.get(ino);
    if (changes !== 0 && changes !== known?.changes) {
      const ms = Date.now();
      this.#times.set(ino, { ms, changes });
      return ms;
    }
    return known?.ms ?? createdMs;
  }
}
