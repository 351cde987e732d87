/** The copies of the store that a pool carries (docs/format.md, "Copies of the store"): finding, marking, removing. */
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { EngineError } from '../types.ts';
import { type CopyFooter, decodeFooter, FOOTER_BYTES, tableBytes } from './footer.ts';
import { LINE_BYTES, lineName } from './lines.ts';
import { areaAt, COPY_NAMES, type CopyPlace, labelOf, SERVING_AT } from './place.ts';

export const COPY_NEW = 'store-copy.new';
/** There while a daemon may have changed the pool since its newest copy; says of which line its store is. */
const SERVING = 'serving';
/** The same in a file or on a device; zeroes when it is not there. */
const SERVING_MAGIC = Buffer.from('ATOLLSRV', 'latin1');

type Crc = (bytes: Uint8Array) => number;

/** A generation that is named. Without a footer it is damaged: nothing can be recovered from it. */
export interface CopyFile {
  name: string;
  footer: CopyFooter | null;
  /** why there is no footer */
  error: EngineError | null;
}

export function syncFolder(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Writes bytes of a file or device and syncs them. */
function putSynced(path: string, bytes: Buffer, at: number): void {
  const fd = openSync(path, 'r+');
  try {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, at + done);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Exactly `length` bytes at `at`. @throws {EngineError} CORRUPT when the file is shorter */
export function readAt(fd: number, at: number, length: number, path: string): Buffer {
  return readInto(fd, at, Buffer.allocUnsafe(length), path);
}

/** Fills `into` from `at`, and returns it. @throws {EngineError} CORRUPT when the file is shorter, or cannot be read there */
export function readInto(fd: number, at: number, into: Buffer, path: string): Buffer {
  for (let done = 0; done < into.length; ) {
    const n = readPart(fd, into, done, at + done, path);
    if (n === 0) throw new EngineError('CORRUPT', `${path} is cut off`);
    done += n;
  }
  return into;
}

function readPart(fd: number, into: Buffer, done: number, at: number, path: string): number {
  try {
    return readSync(fd, into, done, into.length - done, at);
  } catch (error) {
    throw new EngineError('CORRUPT', `${path} cannot be read at byte ${at}: ${(error as Error).message}`);
  }
}

/** Where a generation lies, open for reading. */
export interface CopyReader {
  fd: number;
  /** of its first byte */
  at: number;
  /** of its footer; −1: it is not named */
  footerAt: number;
}

/** The caller closes it. @returns null when there is no such file */
export function openCopy(place: CopyPlace, name: string): CopyReader | null {
  if (place.area === 0) {
    const path = join(place.path, name);
    if (!existsSync(path)) return null;
    const fd = openSync(path, 'r');
    return { fd, at: 0, footerAt: fstatSync(fd).size - FOOTER_BYTES };
  }
  const at = areaAt(place, name);
  return { fd: openSync(place.path, 'r'), at, footerAt: at + place.area - FOOTER_BYTES };
}

/**
 * Reads and checks a copy's footer, and that the copy lies where it says.
 * @returns null: an area that holds none
 * @throws {EngineError} CORRUPT, FORMAT_NEWER
 */
function readFooter(place: CopyPlace, name: string, { fd, at, footerAt }: CopyReader, crc32c: Crc): CopyFooter | null {
  const label = labelOf(place, name);
  if (footerAt < at) throw new EngineError('CORRUPT', `${label} is cut off`);
  if (place.area > 0 && fstatSync(fd).isFile() && fstatSync(fd).size < footerAt + FOOTER_BYTES) return null;
  const bytes = readAt(fd, footerAt, FOOTER_BYTES, label);
  if (place.area > 0 && bytes.every((byte) => byte === 0)) return null;
  const footer = decodeFooter(bytes, label, crc32c);
  const end = at + footer.bytes + tableBytes(footer.bytes);
  if (place.area === 0 ? end !== footerAt : end > footerAt)
    throw new EngineError('CORRUPT', `${label} has another length than its footer says`);
  return footer;
}

/** Whose copies are looked for. */
export interface CopyOwner {
  homeUuid: string;
  poolUuid: string;
}

/**
 * The copies that a pool carries, the newest first, those without a footer last. Looks at footers only.
 * @param owner copies of others are damaged ones: what somebody left on the device
 */
export function findCopies(place: CopyPlace, crc32c: Crc, owner?: CopyOwner): CopyFile[] {
  const found: CopyFile[] = [];
  for (const name of COPY_NAMES) {
    let reader: CopyReader | null = null;
    try {
      reader = openCopy(place, name);
      const footer = reader === null ? null : readFooter(place, name, reader, crc32c);
      if (footer !== null) checkOwner(footer, owner, labelOf(place, name));
      if (footer !== null) found.push({ name, footer, error: null });
    } catch (error) {
      const { message } = error as Error;
      const known = error instanceof EngineError ? error : new EngineError('IO', `${labelOf(place, name)}: ${message}`);
      found.push({ name, footer: null, error: known });
    } finally {
      if (reader !== null) closeSync(reader.fd);
    }
  }
  return found.sort((a, b) => (b.footer?.sequence ?? -1) - (a.footer?.sequence ?? -1));
}

function checkOwner({ homeUuid, poolUuid }: CopyFooter, owner: CopyOwner | undefined, label: string): void {
  if (owner === undefined || (poolUuid === owner.poolUuid && homeUuid === owner.homeUuid)) return;
  throw new EngineError('NOT_OURS', `${label} is a copy of another pool's store`);
}

/** Removes copies, durably. Of those in areas only the footers go. */
export function removeCopies(place: CopyPlace, names: readonly string[]): void {
  if (place.area > 0) {
    for (const name of names)
      putSynced(place.path, Buffer.alloc(FOOTER_BYTES), areaAt(place, name) + place.area - FOOTER_BYTES);
    return;
  }
  for (const name of names) rmSync(join(place.path, name), { force: true });
  syncFolder(place.path);
}

/** From here on the pool may be newer than its copies, by a store of that line. Durable when this returns. */
export function markServing(place: CopyPlace, line: string): void {
  if (servingLine(place) === line) return;
  if (place.area > 0) {
    const block = Buffer.alloc(FOOTER_BYTES);
    SERVING_MAGIC.copy(block);
    Buffer.from(line, 'hex').copy(block, SERVING_MAGIC.length);
    putSynced(place.path, block, SERVING_AT);
    return;
  }
  const mark = join(place.path, SERVING);
  writeFileSync(`${mark}.new`, line, { mode: 0o600, flush: true });
  renameSync(`${mark}.new`, mark);
  syncFolder(place.path);
}

/** The newest copy is all there is. */
export function unmarkServing(place: CopyPlace): void {
  if (place.area > 0) return putSynced(place.path, Buffer.alloc(FOOTER_BYTES), SERVING_AT);
  rmSync(join(place.path, SERVING), { force: true });
  syncFolder(place.path);
}

export function isServing(place: CopyPlace): boolean {
  return servingLine(place) !== null;
}

/** Of the store that the mark tells of; null: there is none. */
function servingLine(place: CopyPlace): string | null {
  if (place.area === 0) {
    const mark = join(place.path, SERVING);
    return existsSync(mark) ? lineName(Buffer.from(readFileSync(mark, 'latin1'), 'hex')) : null;
  }
  const fd = openSync(place.path, 'r');
  try {
    const bytes = Buffer.alloc(SERVING_MAGIC.length + LINE_BYTES);
    readSync(fd, bytes, 0, bytes.length, SERVING_AT);
    return bytes.some((byte) => byte !== 0) ? lineName(bytes.subarray(SERVING_MAGIC.length)) : null;
  } finally {
    closeSync(fd);
  }
}

/** Of the store that served the pool last; null: nothing says. @param found its copies, the newest first */
export function lineOf(place: CopyPlace, found: readonly CopyFile[]): string | null {
  return servingLine(place) ?? found[0]?.footer?.line ?? null;
}
