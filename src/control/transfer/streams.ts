/** Backup streams in and out: docs/stream.md says what each step is for. */
import { isDeepStrictEqual } from 'node:util';
import { splitName } from '../../xseg/names.ts';
import type { SnapshotInfo, VolumeInfo } from '../../xseg/types.ts';
import type { ControlClient } from '../client.ts';
import { diffPages } from '../diff.ts';
import { ControlError } from '../errors.ts';
import { allocated } from '../nbd/allocated.ts';
import { NbdClient } from '../nbd/client.ts';
import { ordered } from '../ordered.ts';
import type { StreamHeader } from '../stream/format.ts';
import { hashExport } from '../stream/hash-export.ts';
import { StreamReader } from '../stream/read.ts';
import { type StreamTotals, type TargetExtent, writeStream } from '../stream/write.ts';
import type { TransferRun } from './images.ts';
import { interrupted } from './qemu-tool.ts';
import { findNbdSocket, type RemoteTransfer, showSnapshot, withTransfer } from './remote.ts';
import type { ImageSource } from './source.ts';
import type { TargetFile } from './target-file.ts';

const WRITE_DEPTH = 16;

// --- out ---------------------------------------------------------------------------------------------

/**
 * @param name VOL@SNAP
 * @param since the name of an older snapshot of VOL; null: a full stream
 */
export async function exportStream(
  run: TransferRun,
  name: string,
  since: string | null,
  target: TargetFile,
): Promise<StreamTotals & { kind: StreamHeader['kind'] }> {
  const { volume } = splitName(name);
  const snapshot = await showSnapshot(run.client, name);
  const baseName = since === null ? null : `${volume}@${since}`;
  const base = baseName === null ? null : await showSnapshot(run.client, baseName);
  const socket = await findNbdSocket(run.client);
  // Progress: the base is read to name it, then the target.
  const part = steps(run, base === null ? 1 : 2);
  const write = async (hash: string | null) => {
    const header: StreamHeader = {
      kind: base === null ? 'full' : 'incremental',
      size: snapshot.size,
      blockSize: snapshot.blockSize,
      base: base === null || hash === null ? null : { size: base.size, hash },
      source: { target: name, base: baseName },
      createdAt: new Date().toISOString(),
    };
    const out = await target.create();
    try {
      const totals = await withExport(socket, name, (nbd) =>
        writeStream({
          out,
          header,
          extents: base === null ? allExtents(nbd) : changedExtents(run.client, base, snapshot),
          read: (offset, length) => nbd.read(offset, length),
          onProgress: part(snapshot.size),
        }),
      );
      await out.close();
      target.publish();
      return { ...totals, kind: header.kind };
    } finally {
      await out.close().catch(() => undefined);
      target.discard();
    }
  };
  if (base === null) return write(null);
  // Open until all is written: what is open is not deleted, so that its name means no other snapshot by then.
  return withExport(socket, base.name, async (nbd) => write(await hashExport(nbd, part(base.size))));
}

async function* allExtents(nbd: NbdClient): AsyncGenerator<TargetExtent> {
  for await (const run of allocated(nbd)) yield { ...run, data: true };
}

async function* changedExtents(
  client: ControlClient,
  base: SnapshotInfo,
  target: SnapshotInfo,
): AsyncGenerator<TargetExtent> {
  for await (const page of diffPages(client, base.name, target.name)) {
    for (const { offset, length, data } of page) {
      // Where the target is shorter there is nothing to say: its size says it.
      const inside = Math.min(length, target.size - offset);
      if (inside > 0) yield { offset, length: inside, data };
    }
  }
  // Unless it was deleted by force. Each page is asked for by name.
  for (const { id, name } of [base, target]) {
    if ((await showSnapshot(client, name)).id === id) continue;
    throw new ControlError('BASE_DIFFERS', `${name} was deleted and made again while it was exported; export it again`);
  }
}

// --- in ----------------------------------------------------------------------------------------------

/** A full stream becomes a new volume. */
export async function importStream(
  run: TransferRun,
  source: ImageSource,
  name: string,
  pool: string | undefined,
): Promise<VolumeInfo> {
  const part = steps(run, 2);
  const header = await verify(source, run.signal, part(source.size));
  checkFull(header, source);
  const socket = await findNbdSocket(run.client);
  return withTransfer(run.client, { kind: 'create', name, size: header.size, pool }, async (transfer) => {
    await withExport(socket, transfer.info.export, (nbd) => apply(source, header, nbd, run.signal, part(source.size)));
    return transfer.commit();
  });
}

/** @throws INVALID for an incremental one */
export async function openFull(source: ImageSource): Promise<StreamReader> {
  const reader = await StreamReader.open(source.file);
  checkFull(reader.header, source);
  return reader;
}

function checkFull(header: StreamHeader, source: ImageSource): void {
  if (header.kind === 'full') return;
  const text = 'is incremental; apply it with --onto VOLUME to what it was made from';
  throw new ControlError('INVALID', `${source.path} ${text} (${header.source.base})`);
}

/** A stream becomes the content of a volume that is there, whole or not at all. */
export async function importStreamOnto(run: TransferRun, source: ImageSource, volume: string): Promise<VolumeInfo> {
  const part = steps(run, 3);
  const header = await verify(source, run.signal, part(source.size));
  const socket = await findNbdSocket(run.client);
  return withTransfer(run.client, { kind: 'onto', volume }, async (transfer) => {
    const { export: staged } = transfer.info;
    if (header.base !== null) await compareBase(header, transfer, socket, part(header.base.size));
    if (header.size !== transfer.info.size) await transfer.resize(header.size);
    await withExport(socket, staged, async (nbd) => {
      if (header.base === null) await nbd.zero(0, nbd.size);
      await apply(source, header, nbd, run.signal, part(source.size));
    });
    return transfer.commit();
  });
}

/** Reads the whole stream; nothing else happens before this has succeeded. */
async function verify(
  source: ImageSource,
  signal: AbortSignal,
  onProgress: (bytes: number) => void,
): Promise<StreamHeader> {
  const reader = await StreamReader.open(source.file);
  for await (const { fileOffset } of reader.records()) {
    if (signal.aborted) throw interrupted();
    onProgress(fileOffset);
  }
  return reader.header;
}

async function compareBase(
  header: StreamHeader,
  transfer: RemoteTransfer,
  socket: string,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const { info } = transfer;
  const base = header.base!;
  const made = `the stream was made from ${header.source.base ?? 'another content'}`;
  if (info.size !== base.size) {
    throw new ControlError(
      'BASE_DIFFERS',
      `${made} with ${base.size} bytes, volume ${info.volume} has ${info.size}; nothing was applied`,
    );
  }
  const hash = await withExport(socket, info.export, (nbd) => hashExport(nbd, onProgress));
  if (hash !== base.hash) {
    const text = `volume ${info.volume} holds something else; nothing was applied. Roll it back to that content, or import a full stream`;
    throw new ControlError('BASE_DIFFERS', `${made}, and ${text}`);
  }
}

/** Writes the records and flushes. The stream is checked a second time: the file may have changed since verify(). */
async function apply(
  source: ImageSource,
  verified: StreamHeader,
  nbd: NbdClient,
  signal: AbortSignal,
  onProgress: (bytes: number) => void,
): Promise<void> {
  const reader = await StreamReader.open(source.file);
  if (!isDeepStrictEqual(reader.header, verified) || verified.size !== nbd.size)
    throw new ControlError('DAMAGED', `${source.path} changed while it was read`);
  const writes = ordered(reader.records(), WRITE_DEPTH, async ({ offset, length, bytes, fileOffset }) => {
    if (bytes) await nbd.write(offset, bytes);
    else await nbd.zero(offset, length);
    return fileOffset;
  });
  for await (const fileOffset of writes) {
    if (signal.aborted) throw interrupted();
    onProgress(fileOffset);
  }
  await nbd.flush();
}

// --- both --------------------------------------------------------------------------------------------

async function withExport<T>(socket: string, exportName: string, work: (nbd: NbdClient) => Promise<T>): Promise<T> {
  const nbd = await NbdClient.connect({ socket, exportName });
  try {
    return await work(nbd);
  } finally {
    await nbd.close();
  }
}

/** Splits the progress bar into `count` equal parts; each part knows how much it is for. */
function steps(run: TransferRun, count: number): (total: number) => (done: number) => void {
  let step = 0;
  return (total) => {
    const at = step++;
    return (done) => {
      if (run.signal.aborted) throw interrupted();
      run.onProgress((at + done / total) / count);
    };
  };
}
