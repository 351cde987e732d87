/**
 * What a disk holds after its power failed: all that was flushed, and of what was written since, any part.
 *
 * A *cut* is a moment just before a flush is complete: what was written before the last flush is there for certain; of
 * what was written after it, a disk may have taken each sector or not, in any order, unless it was written with FUA.
 */
import fs from 'node:fs';
import { FLAG, type LogEntry } from './write-log.ts';

/** The smallest piece that a disk writes whole or not at all. */
const ATOM_BYTES = 512;
/**
 * ext4's superblock, two sectors with one checksum, which it writes in its place: of a torn one it says so and mounts
 * nothing before somebody has run e2fsck. That is between it and its disk.
 */
const SUPERBLOCK = { begin: 1024, end: 2048 };
/** Writes that a lossy cut tears, of those it keeps. */
const TORN_SHARE = 0.1;

/** Which of the unflushed writes a disk has taken. */
export type Loss =
  /** none: a disk that writes when it is told to */
  | 'all'
  /** each with a chance drawn for the cut, some of them torn */
  | 'some'
  /** all up to one, torn, and none after it: a disk that writes in order */
  | 'tail'
  /** none was lost */
  | 'none';
export const LOSSES: readonly Loss[] = ['all', 'some', 'tail', 'none'];

export interface Cut {
  /** of the entries of the log, how many were issued */
  end: number;
  /** the log's length at that moment: whatever was answered while it was no longer is due (history.ts) */
  position: number;
}

/** A cut before each flush and each FUA write is complete, and one at the end. */
export function cutsOf(entries: readonly LogEntry[]): Cut[] {
  const cuts: Cut[] = [];
  entries.forEach((entry, index) => {
    if ((entry.flags & (FLAG.flush | FLAG.fua)) !== 0) cuts.push({ end: index, position: entry.at });
  });
  cuts.push({ end: entries.length, position: Number.POSITIVE_INFINITY });
  return cuts;
}

/** @returns how many bytes of a write of which `length` were drawn reach the disk */
export function tornAt({ offset }: LogEntry, length: number): number {
  const end = offset + length;
  return end > SUPERBLOCK.begin && end < SUPERBLOCK.end ? SUPERBLOCK.end - offset : length;
}

/** Makes images of the device at cuts, which are asked for in the order of the log. */
export class Replay {
  /** entries that `base` has */
  private flushed = 0;
  private readonly log: number;
  private readonly base: number;

  /**
   * @param log file with the entries' data
   * @param basePath image of the device before the first entry; it is moved along
   */
  constructor(
    logPath: string,
    private readonly entries: readonly LogEntry[],
    readonly basePath: string,
  ) {
    this.log = fs.openSync(logPath, 'r');
    this.base = fs.openSync(basePath, 'r+');
  }

  /** Brings `basePath` to what is there for certain at the cut. @returns entries after that, in order */
  advance(cut: Cut): LogEntry[] {
    let last = -1;
    for (let i = cut.end - 1; i >= this.flushed && last < 0; i--) {
      if ((this.entries[i]!.flags & FLAG.flush) !== 0) last = i;
    }
    // A flush with data of its own comes before the data.
    for (; this.flushed < last; this.flushed++) this.apply(this.base, this.entries[this.flushed]!);
    return this.entries.slice(this.flushed, cut.end);
  }

  /**
   * Writes what of `unflushed` is not lost into an image that is a copy of `basePath`.
   *
   * @param random 0..1
   * @returns how many were kept whole or in part
   */
  keep(image: string, unflushed: readonly LogEntry[], loss: Loss, random: () => number): number {
    const fd = fs.openSync(image, 'r+');
    const chance = random();
    const writes = unflushed.filter(({ data }) => data >= 0);
    const stop = Math.floor(random() * writes.length);
    let kept = 0;
    try {
      writes.forEach((entry, index) => {
        const certain = (entry.flags & FLAG.fua) !== 0;
        let share = 1;
        if (!certain && loss === 'all') share = 0;
        else if (!certain && loss === 'tail') share = index < stop ? 1 : index === stop ? random() : 0;
        else if (!certain && loss === 'some') share = random() < chance ? (random() < TORN_SHARE ? random() : 1) : 0;
        if (share === 0) return;
        kept += 1;
        this.apply(fd, entry, tornAt(entry, Math.ceil((entry.length * share) / ATOM_BYTES) * ATOM_BYTES));
      });
    } finally {
      fs.closeSync(fd);
    }
    return kept;
  }

  close(): void {
    fs.closeSync(this.log);
    fs.closeSync(this.base);
  }

  /** @param length of its bytes that reach the disk. A discard may leave what was there, and does. */
  private apply(fd: number, entry: LogEntry, length = entry.length): void {
    if (entry.data < 0 || length === 0) return;
    const data = Buffer.allocUnsafe(Math.min(length, entry.length));
    if (fs.readSync(this.log, data, 0, data.length, entry.data) !== data.length)
      throw new Error('the log is cut short');
    fs.writeSync(fd, data, 0, data.length, entry.offset);
  }
}
