/** Writes one copy of the store into a pool: whole, synced, and only then named. */
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
import { dirname, join } from 'node:path';
import type { Native } from '../native.ts';
import { beginCopyFile, type CopyControl, copyStore, Pace } from '../store/copying.ts';
import { FORMAT_VERSION } from '../store/upgrade.ts';
import { EngineError } from '../types.ts';
import { COPY_NEW, readAt, readInto, removeCopies, syncFolder, unmarkServing } from './files.ts';
import { COPY_CHUNK_BYTES, encodeFooter, FOOTER_BYTES, tableBytes } from './footer.ts';
import { areaAt, type CopyPlace } from './place.ts';
import type { CopierRequest } from './requests.ts';

/** Left free beside a copy: what thin pools leave themselves, twice. */
export const COPY_RESERVE_BYTES = 128 * 1024 * 1024;

/** Chunks go through this: one for the thread's life, which makes too few objects for its garbage to be looked for soon. */
const chunkBuffer = Buffer.allocUnsafeSlow(COPY_CHUNK_BYTES);

/** Written back this often, so that no sync of a guest's finds all of it before it. */
const SYNC_EVERY_CHUNKS = 8;

export interface CopySteps {
  /** the generation that it replaces is gone, and the new one is not there yet */
  unnamed(): void;
  /** from here on it may be there, whatever becomes of the rest */
  naming(): void;
}

type WriteRequest = Extract<CopierRequest, { op: 'write' }>;

/**
 * A copy for a file or device is made beside the store first: SQLite writes files, and what is in the area is overwritten
 * only when there is a whole copy to put there.
 *
 * @param steps are told how far it came
 * @throws {EngineError} NO_SPACE; Cancelled; what the disk says. Nothing is left behind then, but for what `naming` says.
 */
export async function writeCopy(
  storePath: string,
  request: WriteRequest,
  native: Native,
  control: CopyControl,
  steps: CopySteps,
): Promise<{ takenAt: number; bytes: number }> {
  const { place } = request;
  const folder = place.area === 0 ? place.path : dirname(storePath);
  // beside the store under a name that a home without a store may have: a crash leaves it there
  const file = place.area === 0 ? join(folder, COPY_NEW) : `${storePath}.copying.${request.poolUuid}`;
  if (place.area > 0) wantArea(statSync(storePath).size, place);
  beginCopyFile(file);
  try {
    wantRoom(storePath, folder);
    const takenAt = await copyStore(storePath, file, control);
    const bytes = await finishCopy(file, request, takenAt, native, control);
    if (place.area > 0) await moveIntoArea(file, bytes, request, control, steps);
    else {
      steps.naming();
      renameSync(file, join(folder, request.name));
      syncFolder(folder);
    }
    if (request.clean) unmarkServing(place);
    return { takenAt, bytes };
  } finally {
    for (const end of ['', '-journal']) rmSync(`${file}${end}`, { force: true });
  }
}

/** @throws {EngineError} NO_SPACE */
function wantArea(bytes: number, { path, area }: CopyPlace): void {
  if (bytes + tableBytes(bytes) + FOOTER_BYTES > area)
    throw new EngineError('NO_SPACE', `the store has ${bytes} bytes, ${path} keeps ${area} for a copy of it`);
}

/** The footer last, by itself: it names what is durable before it. */
async function moveIntoArea(
  file: string,
  bytes: number,
  { place, name }: WriteRequest,
  control: CopyControl,
  steps: CopySteps,
): Promise<void> {
  wantArea(bytes, place);
  removeCopies(place, [name]);
  steps.unnamed();
  const from = openSync(file, 'r');
  const to = openSync(place.path, 'r+');
  try {
    const start = areaAt(place, name);
    const end = bytes + tableBytes(bytes);
    const pace = new Pace(control);
    for (let at = 0, chunks = 1; at < end; at += COPY_CHUNK_BYTES, chunks++) {
      const chunk = readInto(from, at, chunkBuffer.subarray(0, end - at), file);
      writeAll(to, chunk, start + at);
      if (chunks % SYNC_EVERY_CHUNKS === 0) fdatasyncSync(to);
      pace.took(chunk.length);
      await new Promise((resolve) => setImmediate(resolve));
    }
    fdatasyncSync(to);
    steps.naming();
    writeAll(to, readAt(from, end, FOOTER_BYTES, file), start + place.area - FOOTER_BYTES);
    fdatasyncSync(to);
  } finally {
    closeSync(to);
    closeSync(from);
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
      const chunk = readInto(fd, at, chunkBuffer.subarray(0, bytes - at), file);
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
        line: request.line,
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
