/**
 * A pool's files on a simulated disk. What was written and not synced is only in the cache; a power cut keeps, loses, reorders
 * or tears it, sector by sector. A file is durable up to a sync that succeeded, and what a failed sync dropped never is.
 *
 * A sector is one number. 0 reads as zeroes; anything else names who wrote it.
 */
import { EIO, ENOSPC } from '../../src/xseg/mapper/errors.ts';
import type { PoolRow } from '../../src/xseg/store/batch.ts';
import type { Rng } from './rng.ts';

export const SECTOR = 512;
/** What a device holds before anything is written to it. */
const GARBAGE = 0xdead0001;

/** What rot leaves in a sector: from here on. No write has such a value. */
export const ROT_MIN = 0xe0000000;

/** The bytes of sectors: each has its number, and zeroes. */
export function bytesOf(sectors: Uint32Array): Buffer {
  const bytes = Buffer.alloc(sectors.length * SECTOR);
  for (const [i, value] of sectors.entries()) if (value !== 0) bytes.writeUInt32LE(value, i * SECTOR);
  return bytes;
}

/** Faults that a pool has until the next crash; each is the number of operations until it strikes, −1 never. */
export interface DiskFaults {
  syncFails: number;
  writeEio: number;
  writeEnospc: number;
  readEio: number;
  zeroFails: number;
  ensureFails: number;
}

export const NO_FAULTS: DiskFaults = {
  syncFails: -1,
  writeEio: -1,
  writeEnospc: -1,
  readEio: -1,
  zeroFails: -1,
  ensureFails: -1,
};

/** How a power cut treats what was not synced. */
export type CutMode = 'lose' | 'keep' | 'sectors' | 'writes';

/** Values of a sector that are not durable, oldest first. */
interface Pending {
  versions: number[];
  values: number[];
}

interface SimFile {
  cache: Map<number, number>;
  durable: Map<number, number>;
  pending: Map<number, Pending>;
  /** versions that a failed sync dropped: in the cache, and never durable */
  lost: Set<number>;
}

export class SimDisk {
  /** sectors of one file's span */
  readonly fileSectors: number;
  readonly #files = new Map<number, SimFile>();
  #version = 1;
  failed = false;
  /** a failed sync is not for good (planted) */
  forgives = false;
  faults: DiskFaults = { ...NO_FAULTS };
  /** free bytes of the file system below a thin pool */
  freeBytes = Number.MAX_SAFE_INTEGER / 2;
  /** true once a sync failed: what the cache has is no evidence of anything any more */
  tainted = false;

  constructor(
    readonly row: PoolRow,
    readonly rng: Rng,
  ) {
    const span = row.kind === 'directory' ? row.group_slots * 2 ** row.block_shift : 2 ** 50;
    this.fileSectors = span / SECTOR;
    if (row.kind !== 'directory') this.#files.set(0, emptyFile());
  }

  fileOf(address: number): number {
    return Math.floor(address / SECTOR / this.fileSectors);
  }

  /** bytes from `address` to the end of its file */
  room(address: number): number {
    const span = this.fileSectors * SECTOR;
    return span - (address % span);
  }

  get #blank(): number {
    return this.row.kind === 'device' ? GARBAGE : 0;
  }

  #strikes(name: keyof DiskFaults): boolean {
    const left = this.faults[name];
    if (left < 0) return false;
    this.faults[name] = left - 1;
    return left === 0;
  }

  #file(address: number, length: number): SimFile {
    const at = address / SECTOR;
    const file = this.#files.get(Math.floor(at / this.fileSectors));
    if (file === undefined) throw new Error(`I/O at ${address} of pool ${this.row.name}: its file was never made`);
    if ((at % this.fileSectors) + length / SECTOR > this.fileSectors)
      throw new Error(`I/O at ${address}+${length} crosses the border of a file`);
    if (address % SECTOR !== 0 || length % SECTOR !== 0) throw new Error('I/O of a part of a sector');
    return file;
  }

  /** Makes a file, durably. 0 or errno. */
  ensure(file: number): number {
    if (this.failed) return EIO;
    if (this.#strikes('ensureFails')) return ENOSPC;
    if (!this.#files.has(file)) this.#files.set(file, emptyFile());
    return 0;
  }

  /** 0 or errno. `out` gets one number per sector. */
  read(address: number, out: Uint32Array, from: number, sectors: number): number {
    if (this.#strikes('readEio')) return EIO;
    this.peek(address, out, from, sectors);
    return 0;
  }

  /** What a read would find, whatever is broken. */
  peek(address: number, out: Uint32Array, from: number, sectors: number): void {
    const file = this.#file(address, sectors * SECTOR);
    const first = (address / SECTOR) % this.fileSectors;
    const blank = this.#blank;
    for (let i = 0; i < sectors; i++) out[from + i] = file.cache.get(first + i) ?? file.durable.get(first + i) ?? blank;
  }

  /** Blocks that take space: with a sector that does not read as zeroes. */
  get takenBlocks(): number {
    const blockSectors = 2 ** this.row.block_shift / SECTOR;
    let taken = 0;
    for (const { cache, durable } of this.#files.values()) {
      const blocks = new Set<number>();
      for (const [sector, value] of cache) if (value !== 0) blocks.add(Math.floor(sector / blockSectors));
      for (const [sector, value] of durable)
        if (value !== 0 && !cache.has(sector)) blocks.add(Math.floor(sector / blockSectors));
      taken += blocks.size;
    }
    return taken;
  }

  /** 0 or errno; when it fails, some of it may have been written. */
  write(address: number, from: Uint32Array, at: number, sectors: number): number {
    if (this.failed) return EIO;
    const file = this.#file(address, sectors * SECTOR);
    let count = sectors;
    let result = 0;
    if (this.#strikes('writeEio')) {
      result = EIO;
      this.failed = true;
    } else if (this.#strikes('writeEnospc')) result = ENOSPC;
    if (result !== 0) count = this.rng.int(sectors + 1);
    const first = (address / SECTOR) % this.fileSectors;
    const version = this.#version++;
    for (let i = 0; i < count; i++) put(file, first + i, from[at + i], version);
    return result;
  }

  /** A write that is durable when it ends, as with RWF_DSYNC. */
  writeDurable(address: number, from: Uint32Array, at: number, sectors: number): number {
    const result = this.write(address, from, at, sectors);
    if (result !== 0) return result;
    if (this.#strikes('syncFails')) {
      this.#syncFailed(this.#file(address, sectors * SECTOR));
      return EIO;
    }
    const file = this.#file(address, sectors * SECTOR);
    const first = (address / SECTOR) % this.fileSectors;
    for (let i = 0; i < sectors; i++) {
      file.durable.set(first + i, from[at + i]);
      file.pending.delete(first + i);
    }
    return 0;
  }

  /** Zeroes by punching a hole: as volatile as a write. 0 or errno. */
  zero(address: number, length: number): number {
    if (this.failed) return EIO;
    const file = this.#file(address, length);
    if (this.#strikes('zeroFails')) return ENOSPC;
    const first = (address / SECTOR) % this.fileSectors;
    const version = this.#version++;
    const blank = this.#blank;
    for (let i = first; i < first + length / SECTOR; i++) {
      const now = file.cache.get(i) ?? file.durable.get(i) ?? blank;
      if (now !== 0 || file.pending.has(i)) put(file, i, 0, version);
    }
    return 0;
  }

  /** A sync begins: what it will cover is what has been written by now. */
  syncBegins(): number {
    return this.#version;
  }

  /** A sync that began at `version` ends. 0 or errno; a failure is for good. */
  syncEnds(number: number, version: number): number {
    if (this.failed) return EIO;
    const file = this.#files.get(number);
    if (file === undefined) throw new Error(`sync of file ${number} of pool ${this.row.name}, which was never made`);
    if (this.#strikes('syncFails')) {
      this.#syncFailed(file);
      return EIO;
    }
    for (const [sector, pending] of file.pending) settle(file, sector, pending, version);
    return 0;
  }

  #syncFailed(file: SimFile): void {
    this.failed = !this.forgives;
    this.tainted = true;
    // the kernel says once that it lost them and keeps them as clean pages
    for (const pending of file.pending.values())
      for (const version of pending.versions) if (this.rng.chance(0.7)) file.lost.add(version);
  }

  /** The medium changes what a sector holds; it was durable. */
  rot(address: number, value: number): void {
    const file = this.#file(address, SECTOR);
    const sector = (address / SECTOR) % this.fileSectors;
    file.cache.delete(sector);
    file.pending.delete(sector);
    file.durable.set(sector, value);
  }

  /** The machine loses power. */
  cut(mode: CutMode): void {
    for (const file of this.#files.values()) {
      const kept = new Map<number, boolean>();
      for (const [sector, pending] of file.pending) {
        let value: number | undefined;
        for (let i = 0; i < pending.versions.length; i++) {
          if (file.lost.has(pending.versions[i])) continue;
          if (this.#survives(mode, pending.versions[i], kept)) value = pending.values[i];
        }
        if (value !== undefined) file.durable.set(sector, value);
      }
      file.pending.clear();
      file.cache.clear();
      file.lost.clear();
    }
    this.tainted = false;
    this.#restart();
  }

  #survives(mode: CutMode, version: number, kept: Map<number, boolean>): boolean {
    if (mode === 'lose') return false;
    if (mode === 'keep') return true;
    if (mode === 'sectors') return this.rng.chance(0.5);
    let keep = kept.get(version);
    if (keep === undefined) {
      keep = this.rng.chance(0.5);
      kept.set(version, keep);
    }
    return keep;
  }

  /** The daemon was killed: the cache, which is the kernel's, stays. */
  killed(): void {
    this.#restart();
  }

  #restart(): void {
    this.failed = false;
    this.faults = { ...NO_FAULTS };
  }
}

function emptyFile(): SimFile {
  return { cache: new Map(), durable: new Map(), pending: new Map(), lost: new Set() };
}

function put(file: SimFile, sector: number, value: number, version: number): void {
  file.cache.set(sector, value);
  const pending = file.pending.get(sector);
  if (pending === undefined) file.pending.set(sector, { versions: [version], values: [value] });
  else {
    pending.versions.push(version);
    pending.values.push(value);
  }
}

/** What was written before `version` is durable now. */
function settle(file: SimFile, sector: number, pending: Pending, version: number): void {
  let done = 0;
  while (done < pending.versions.length && pending.versions[done] < version) {
    if (!file.lost.has(pending.versions[done])) file.durable.set(sector, pending.values[done]);
    done++;
  }
  if (done === 0) return;
  if (done === pending.versions.length) {
    file.pending.delete(sector);
    // the cache is as the disk: one copy will do, unless a failed sync dropped what it has
    if (file.durable.get(sector) === file.cache.get(sector)) file.cache.delete(sector);
  } else {
    pending.versions.splice(0, done);
    pending.values.splice(0, done);
  }
}
