/**
 * `atoll import FILE VOLUME@SNAPSHOT`: a raw image becomes a sealed snapshot, through /v1/ingests. The daemon reads the file
 * itself where it can; else its bytes are sent.
 */
import path from 'node:path';
import type { SnapshotInfo } from '../../xseg/types.ts';
import { type ControlClient, route, withQuery } from '../client.ts';
import { ControlError } from '../errors.ts';
import type { NamedFile } from '../ingest-file.ts';
import type { IngestInfo } from '../ingests.ts';
import type { TransferRun } from './images.ts';
import type { ImageSource } from './source.ts';

/** Read by the daemon for one request. */
const READ_BYTES = 256 * 1024 * 1024;
/** Read, and sent in one request; the next is read meanwhile. */
const PART_BYTES = 16 * 1024 * 1024;
/** Zeroes are not sent, from so many on that lie in such a piece. */
const ZERO_BYTES = 1024 * 1024;
const ZEROES = Buffer.alloc(ZERO_BYTES);

export async function importSealed(
  run: TransferRun,
  source: ImageSource,
  name: { volume: string; snapshot: string },
  pool: string | undefined,
): Promise<SnapshotInfo> {
  if (source.format !== 'raw') {
    const way = source.format === 'qcow2' ? '; `qemu-img convert -O raw` makes one of it' : '';
    throw new ControlError('UNSUPPORTED', `a snapshot is imported from a raw image, and ${source.path} is none${way}`);
  }
  const { client } = run;
  const named = { ...name, ...(pool === undefined ? {} : { pool }), file: await nameOf(source) };
  const lines = client.lines(route('ingests'), named);
  const first = await lines.next();
  if (first.done || !first.value.ingest) throw new ControlError('PROTOCOL', 'the daemon began no ingest');
  const { id, reads } = first.value.ingest as IngestInfo;
  try {
    if (reads) await readThere(run, source, id);
    else await sendAll(run, source, id);
    return await client.post<SnapshotInfo>(route('ingests', id, 'commit'), { size: source.size });
  } finally {
    await lines.return(undefined);
  }
}

/** The daemon may be elsewhere, where the path is another file's: it compares the numbers. */
async function nameOf(source: ImageSource): Promise<NamedFile> {
  const { dev, ino } = await source.file.stat({ bigint: true });
  return { path: path.resolve(source.path), dev: String(dev), ino: String(ino) };
}

async function readThere(
  { client, signal, onProgress }: TransferRun,
  { size }: ImageSource,
  id: string,
): Promise<void> {
  for (let offset = 0; offset < size; offset += READ_BYTES) {
    signal.throwIfAborted();
    onProgress(offset / size);
    await client.post(route('ingests', id, 'file'), { offset, length: Math.min(READ_BYTES, size - offset) });
  }
}

async function sendAll({ client, signal, onProgress }: TransferRun, source: ImageSource, id: string): Promise<void> {
  const buffers = [Buffer.allocUnsafe(PART_BYTES), Buffer.allocUnsafe(PART_BYTES)];
  let sent: Promise<unknown> = Promise.resolve();
  for (let at = 0, turn = 0; at < source.size; turn++) {
    const buffer = buffers[turn % 2]!;
    const length = await fill(source, buffer, at, Math.min(PART_BYTES, source.size - at));
    await sent;
    signal.throwIfAborted();
    onProgress(at / source.size);
    if (length === 0) break;
    sent = send(client, id, at, buffer.subarray(0, length));
    sent.catch(() => undefined);
    at += length;
  }
  await sent;
}

/** @returns bytes read; fewer than wanted at the end of a file only */
async function fill({ file }: ImageSource, buffer: Buffer, at: number, wanted: number): Promise<number> {
  let length = 0;
  while (length < wanted) {
    const { bytesRead } = await file.read(buffer, length, wanted - length, at + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return length;
}

/** What is not zero of it. */
async function send(client: ControlClient, id: string, offset: number, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    if (isZero(bytes, at)) {
      at += ZERO_BYTES;
      continue;
    }
    let end = at;
    while (end < bytes.length && !isZero(bytes, end)) end = Math.min(bytes.length, end + ZERO_BYTES);
    const target = withQuery(route('ingests', id, 'bytes'), { offset: offset + at });
    await client.upload(target, bytes.subarray(at, end));
    at = end;
  }
}

function isZero(bytes: Buffer, at: number): boolean {
  const piece = bytes.subarray(at, at + ZERO_BYTES);
  return piece.equals(ZEROES.subarray(0, piece.length));
}
