/** The files that a pool's copies of the store are in (docs/format.md, "Copies of the store"): finding, marking, removing. */
import { closeSync, existsSync, fstatSync, fsyncSync, openSync, readSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { EngineError } from '../types.ts';
import { type CopyFooter, decodeFooter, FOOTER_BYTES, tableBytes } from './footer.ts';

/** Two generations, by turns. */
export const COPY_NAMES = ['store-copy.0', 'store-copy.1'] as const;
export const COPY_NEW = 'store-copy.new';
/** There while a daemon may have changed the pool since its newest copy. */
const SERVING = 'serving';

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

/** Exactly `length` bytes at `at`. @throws {EngineError} CORRUPT when the file is shorter */
export function readAt(fd: number, at: number, length: number, path: string): Buffer {
  const b = Buffer.allocUnsafe(length);
  for (let done = 0; done < length; ) {
    const n = readSync(fd, b, done, length - done, at + done);
    if (n === 0) throw new EngineError('CORRUPT', `${path} is cut off`);
    done += n;
  }
  return b;
}

/** Reads and checks a copy's footer, and that the file is as long as it says. @throws {EngineError} CORRUPT, FORMAT_NEWER */
export function readFooter(path: string, crc32c: Crc): CopyFooter {
  const fd = openSync(path, 'r');
  try {
    const size = fstatSync(fd).size;
    if (size < FOOTER_BYTES) throw new EngineError('CORRUPT', `${path} is cut off`);
    const footer = decodeFooter(readAt(fd, size - FOOTER_BYTES, FOOTER_BYTES, path), path, crc32c);
    if (size !== footer.bytes + tableBytes(footer.bytes) + FOOTER_BYTES)
      throw new EngineError('CORRUPT', `${path} has another length than its footer says`);
    return footer;
  } finally {
    closeSync(fd);
  }
}

/** The copies that are named in a pool's folder, the newest first, those without a footer last. Looks at footers only. */
export function findCopies(folder: string, crc32c: Crc): CopyFile[] {
  const found: CopyFile[] = [];
  for (const name of COPY_NAMES) {
    const path = join(folder, name);
    if (!existsSync(path)) continue;
    try {
      found.push({ name, footer: readFooter(path, crc32c), error: null });
    } catch (error) {
      const known =
        error instanceof EngineError ? error : new EngineError('IO', `${path}: ${(error as Error).message}`);
      found.push({ name, footer: null, error: known });
    }
  }
  return found.sort((a, b) => (b.footer?.sequence ?? -1) - (a.footer?.sequence ?? -1));
}

/** Removes copies, durably. */
export function removeCopies(folder: string, names: readonly string[]): void {
  for (const name of names) rmSync(join(folder, name), { force: true });
  syncFolder(folder);
}

/** From here on the pool may be newer than its copies. Durable when this returns. */
export function markServing(folder: string): void {
  if (isServing(folder)) return;
  closeSync(openSync(join(folder, SERVING), 'a', 0o600));
  syncFolder(folder);
}

/** The newest copy is all there is. */
export function unmarkServing(folder: string): void {
  rmSync(join(folder, SERVING), { force: true });
  syncFolder(folder);
}

export function isServing(folder: string): boolean {
  return existsSync(join(folder, SERVING));
}
