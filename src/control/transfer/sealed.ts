/**
 * `atoll import FILE VOLUME@SNAPSHOT`: an image, or a full backup stream, becomes a sealed snapshot, through /v1/ingests. The
 * daemon reads a raw image itself where it can; else bytes are sent.
 */
import path from 'node:path';
import type { SnapshotInfo } from '../../xseg/types.ts';
import { type ControlClient, route, withQuery } from '../client.ts';
import { ControlError } from '../errors.ts';
import type { NamedFile } from '../ingest-file.ts';
import type { IngestInfo } from '../ingests.ts';
import { roundUpToSector } from '../sizes.ts';
import { imageOptions, type TransferRun } from './images.ts';
import { GAP_BYTES, named, nbdParts, type Part, rawParts, streamParts } from './parts.ts';
import { check } from './qemu-img.ts';
import { withQemuNbd } from './qemu-nbd.ts';
import { interrupted } from './qemu-tool.ts';
import type { ImageSource } from './source.ts';
import { openFull } from './streams.ts';

/** Read by the daemon for one request. */
const READ_BYTES = 256 * 1024 * 1024;
/** Zeroes are not sent, from so many on that lie in such a piece of a part. */
const ZERO_BYTES = GAP_BYTES;
const ZEROES = Buffer.alloc(ZERO_BYTES);

export interface SealedTarget {
  volume: string;
  snapshot: string;
  pool?: string;
}

export function importSealed(run: TransferRun, source: ImageSource, target: SealedTarget): Promise<SnapshotInfo> {
  if (source.format === 'qcow2') return importQcow2(run, source, target);
  if (source.format === 'stream') return importFull(run, source, target);
  return importRaw(run, source, target);
}

async function importRaw(run: TransferRun, source: ImageSource, target: SealedTarget): Promise<SnapshotInfo> {
  const named = { ...target, file: await nameOf(source) };
  return withIngest(run, named, source.size, ({ id, reads }) =>
    reads ? readThere(run, source, id) : sendAll(run, source.size, id, rawParts(source)),
  );
}

async function importQcow2(run: TransferRun, source: ImageSource, target: SealedTarget): Promise<SnapshotInfo> {
  const image = imageOptions(source);
  const common = { sourceFd: source.file.fd, sourceName: source.path, signal: run.signal };
  await check({ ...common, args: [image] });
  return withQemuNbd({ ...common, image }, (nbd) => {
    if (nbd.size !== source.size) throw new ControlError('DAMAGED', `${source.path} changed while it was read`);
    const parts = named(source.path, nbdParts(nbd));
    return withIngest(run, target, source.size, ({ id }) => sendAll(run, source.size, id, parts));
  });
}

/** Read once: nothing of it is there before its end was found to be sound. */
async function importFull(run: TransferRun, source: ImageSource, target: SealedTarget): Promise<SnapshotInfo> {
  const reader = await openFull(source);
  const { size } = reader.header;
  const parts = named(source.path, streamParts(reader, run.signal));
  return withIngest(run, target, size, ({ id }) => sendAll(run, size, id, parts));
}

/** @param size bytes; what `fill` leaves out up to there is zeroes */
async function withIngest(
  { client }: TransferRun,
  begin: SealedTarget & { file?: NamedFile },
  size: number,
  fill: (ingest: IngestInfo) => Promise<void>,
): Promise<SnapshotInfo> {
  const lines = client.lines(route('ingests'), begin);
  const first = await lines.next();
  if (first.done || !first.value.ingest) throw new ControlError('PROTOCOL', 'the daemon began no ingest');
  const ingest = first.value.ingest as IngestInfo;
  try {
    await fill(ingest);
    return await client.post<SnapshotInfo>(route('ingests', ingest.id, 'commit'), { size });
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
  { size, path: name }: ImageSource,
  id: string,
): Promise<void> {
  for (let offset = 0; offset < size; offset += READ_BYTES) {
    if (signal.aborted) throw interrupted();
    onProgress(offset / size);
    const length = Math.min(READ_BYTES, size - offset);
    const { position } = await client.post<IngestInfo>(route('ingests', id, 'file'), { offset, length });
    // it had less than that already when the daemon opened it
    if (roundUpToSector(position) < offset + length)
      throw new ControlError('DAMAGED', `${name} became shorter while it was read`);
  }
}

/** One part is sent while the next is read. */
async function sendAll(
  { client, signal, onProgress }: TransferRun,
  size: number,
  id: string,
  parts: AsyncIterable<Part>,
): Promise<void> {
  let sent: Promise<unknown> = Promise.resolve();
  for await (const part of parts) {
    await sent;
    if (signal.aborted) throw interrupted();
    onProgress(part.offset / size);
    sent = send(client, id, part);
    sent.catch(() => undefined);
  }
  await sent;
  if (signal.aborted) throw interrupted();
}

/** What is not zero of it. */
async function send(client: ControlClient, id: string, { offset, bytes }: Part): Promise<void> {
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
