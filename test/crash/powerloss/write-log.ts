/**
 * Reads the log of a block device's writes, in the format of Linux's dm-log-writes
 * (Documentation/admin-guide/device-mapper/log-writes.rst), which qemu's `blklogwrites` driver writes.
 *
 * Sector 0 is the super block; behind it come entries, each a header of one sector and then its data. All numbers are
 * little endian. The log is trusted in nothing: a reader that runs off the track would replay nonsense.
 */
import fs from 'node:fs';

const MAGIC = 0x6a736677736872n;
const VERSION = 1n;
export const FLAG = { flush: 1, fua: 2, discard: 4, mark: 8 } as const;
const FLAGS_KNOWN = 0x1f;
/** magic, version, number of entries, sector size */
const SUPER_BYTES = 28;
/** sector, number of sectors, flags, length of a mark's text */
const HEADER_BYTES = 32;
const SECTOR_BYTES_MIN = 512;
const SECTOR_BYTES_MAX = 4096;

export interface LogEntry {
  /** where its header begins in the log: an entry was written when the log is longer than that */
  at: number;
  /** bytes from the device's begin */
  offset: number;
  /** bytes that it writes or discards */
  length: number;
  flags: number;
  /** where its data begins in the log; −1: it has none */
  data: number;
}

export class WriteLogError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'WriteLogError';
  }
}

/**
 * All entries of a log that is complete: the super block is written again with every flush.
 * @throws {WriteLogError} for anything that is no such log, or one cut short
 */
export function readWriteLog(file: string): LogEntry[] {
  const fd = fs.openSync(file, 'r');
  try {
    const end = fs.fstatSync(fd).size;
    const top = take(fd, 0, SUPER_BYTES, end);
    if (top.readBigUInt64LE(0) !== MAGIC) throw new WriteLogError('no log of writes: wrong magic');
    if (top.readBigUInt64LE(8) !== VERSION) throw new WriteLogError(`version ${top.readBigUInt64LE(8)} is not known`);
    const count = Number(top.readBigUInt64LE(16));
    const sector = top.readUInt32LE(24);
    if (sector < SECTOR_BYTES_MIN || sector > SECTOR_BYTES_MAX || (sector & (sector - 1)) !== 0)
      throw new WriteLogError(`sectors of ${sector} bytes`);
    const entries: LogEntry[] = [];
    for (let at = sector; entries.length < count; ) {
      const entry = readEntry(fd, at, sector, end);
      entries.push(entry);
      at += sector + (entry.data < 0 ? 0 : entry.length);
    }
    return entries;
  } finally {
    fs.closeSync(fd);
  }
}

function readEntry(fd: number, at: number, sector: number, end: number): LogEntry {
  const header = take(fd, at, HEADER_BYTES, end);
  const offset = Number(header.readBigUInt64LE(0)) * sector;
  const length = Number(header.readBigUInt64LE(8)) * sector;
  const flags = Number(header.readBigUInt64LE(16));
  if ((flags & ~FLAGS_KNOWN) !== 0) throw new WriteLogError(`entry at ${at} has flags 0x${flags.toString(16)}`);
  if ((flags & FLAG.mark) !== 0) throw new WriteLogError(`entry at ${at} is a mark, which nobody here makes`);
  if (!Number.isSafeInteger(offset + length)) throw new WriteLogError(`entry at ${at} is beyond any device`);
  const data = length > 0 && (flags & FLAG.discard) === 0 ? at + sector : -1;
  if (data >= 0 && data + length > end) throw new WriteLogError(`entry at ${at} is cut short`);
  return { at, offset, length, flags, data };
}

function take(fd: number, at: number, length: number, end: number): Buffer {
  if (at + length > end) throw new WriteLogError(`the log ends at ${end}, within what begins at ${at}`);
  const bytes = Buffer.alloc(length);
  if (fs.readSync(fd, bytes, 0, length, at) !== length) throw new WriteLogError(`${at} could not be read`);
  return bytes;
}
