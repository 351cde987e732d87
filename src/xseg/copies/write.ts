/** Writes one copy of the store into a pool's folder: whole, synced, and only then named. */
import {
  closeSync,
  fdatasyncSync,
  fstatSync,
  openSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Native } from '../native.ts';
import { beginCopyFile, type CopyControl, copyStore, Pace } from '../store/copying.ts';
import { FORMAT_VERSION } from '../store/upgrade.ts';
import { EngineError } from '../types.ts';
import { COPY_NEW, readAt, syncFolder, unmarkServing } from './files.ts';
import { COPY_CHUNK_BYTES, encodeFooter, tableBytes } from './footer.ts';
import type { CopierRequest } from './requests.ts';

/** Left free beside a copy: what thin pools leave themselves, twice. */
export const COPY_RESERVE_BYTES = 128 * 1024 * 1024;

type WriteRequest = Extract<CopierRequest, { op: 'write' }>;

/** @throws {EngineError} NO_SPACE; Cancelled; what the disk says. Nothing is left behind then. */
export async function writeCopy(
  storePath: string,
  request: WriteRequest,
  native: Native,
  control: CopyControl,
): Promise<{ takenAt: number; bytes: number }> {
  const { folder } = request;
  const file = join(folder, COPY_NEW);
  beginCopyFile(file);
  try {
    wantRoom(storePath, folder);
    const takenAt = await copyStore(storePath, file, control);
    const bytes = await finishCopy(file, request, takenAt, native, control);
    renameSync(file, join(folder, request.name));
    syncFolder(folder);
    if (request.clean) unmarkServing(folder);
    return { takenAt, bytes };
  } catch (error) {
    for (const end of ['', '-journal']) rmSync(`${file}${end}`, { force: true });
    throw error;
  }
}

function wantRoom(storePath: string, folder: string): void {
  const log = statSync(`${storePath}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  const wanted = statSync(storePath).size + log + COPY_RESERVE_BYTES;
  const { bavail, bsize } = statfsSync(folder);
  if (bavail * bsize < wanted)
    throw new EngineError(
      'NO_SPACE',
      `a copy of the store needs ${wanted} bytes free in ${folder}, its reserve included`,
    );
}

/** Appends checksums and footer, and syncs. @returns bytes of the store */
async function finishCopy(
  file: string,
  request: WriteRequest,
  takenAt: number,
  native: Native,
  control: CopyControl,
): Promise<number> {
  const fd = openSync(file, 'r+');
  try {
    const bytes = fstatSync(fd).size;
    const table = Buffer.alloc(tableBytes(bytes));
    const pace = new Pace(control);
    for (let at = 0, i = 0; at < bytes; at += COPY_CHUNK_BYTES, i++) {
      const chunk = readAt(fd, at, Math.min(COPY_CHUNK_BYTES, bytes - at), file);
      table.writeUInt32LE(native.crc32c(chunk, 0), i * 4);
      pace.took(chunk.length);
      // somebody may have said that it is in a hurry, or that we are to stop
      await new Promise((resolve) => setImmediate(resolve));
    }
    const footer = encodeFooter(
      {
        clean: request.clean,
        sequence: request.sequence,
        takenAt,
        homeUuid: request.homeUuid,
        poolUuid: request.poolUuid,
        bytes,
        format: FORMAT_VERSION,
        tableCrc: native.crc32c(table, 0),
      },
      (b) => native.crc32c(b, 0),
    );
    writeAll(fd, table, bytes);
    writeAll(fd, footer, bytes + table.length);
    fdatasyncSync(fd);
    return bytes;
  } finally {
    closeSync(fd);
  }
}

function writeAll(fd: number, bytes: Buffer, at: number): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, at + done);
}
