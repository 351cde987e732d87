/** Images in and out: raw and qcow2 files, by qemu-img, through NBD. */
import type { VolumeInfo } from '../../xseg/types.ts';
import type { ControlClient } from '../client.ts';
import { ControlError } from '../errors.ts';
import { NbdClient } from '../nbd/client.ts';
import { nbdUri } from '../nbd/uri.ts';
import { roundUpToSector } from '../sizes.ts';
import { CONVERT_ARGS, check, convert } from './qemu-img.ts';
import { SOURCE_PATH } from './qemu-tool.ts';
import { findNbdSocket, showSnapshot, withTransfer } from './remote.ts';
import type { ImageSource } from './source.ts';
import type { TargetFile } from './target-file.ts';

export interface TransferRun {
  client: ControlClient;
  /** @param share 0..1 */
  onProgress: (share: number) => void;
  signal: AbortSignal;
}

/** Fills a new volume, which appears under its name when it is whole and durable. */
export async function importImage(
  run: TransferRun,
  source: ImageSource,
  name: string,
  pool: string | undefined,
): Promise<VolumeInfo> {
  const from = [imageOptions(source)];
  const common = { sourceFd: source.file.fd, sourceName: source.path, signal: run.signal };
  if (source.format === 'qcow2') await check({ ...common, args: from });
  const socket = await findNbdSocket(run.client);
  return withTransfer(run.client, { kind: 'create', name, size: source.size, pool }, async (transfer) => {
    const uri = nbdUri(socket, transfer.info.export);
    // A new volume reads as zeroes, so zeroes need not be written.
    const args = [...CONVERT_ARGS, '-n', '--target-is-zero', ...from, '-O', 'raw', uri];
    await convert({ ...common, args, onProgress: run.onProgress });
    await refuseShorter(source);
    // qemu-img flushes only when its cache mode says so; a flush on any connection covers what all have written.
    await flushExport(socket, transfer.info.export);
    return transfer.commit();
  });
}

/** What QEMU's tools open, as a file name: the descriptor that they get, as the format that was found. */
export function imageOptions({ format, device }: ImageSource): string {
  const file = { driver: device ? 'host_device' : 'file', filename: SOURCE_PATH };
  // No backing file, whatever the image says by the time that QEMU opens it.
  const node = format === 'qcow2' ? { driver: format, file, backing: null } : { driver: format, file };
  return `json:${JSON.stringify(node)}`;
}

/** What lies beyond the end of a raw file reads as zeroes to QEMU, also when the file became shorter meanwhile. */
async function refuseShorter({ file, path, format, device, size }: ImageSource): Promise<void> {
  if (format !== 'raw' || device || roundUpToSector((await file.stat()).size) >= size) return;
  throw new ControlError('DAMAGED', `${path} became shorter while it was read`);
}

async function flushExport(socket: string, exportName: string): Promise<void> {
  const nbd = await NbdClient.connect({ socket, exportName });
  try {
    await nbd.flush();
  } finally {
    await nbd.close();
  }
}

/**
 * Copies a volume or snapshot to a file. Of a live volume, one moment is copied, whatever is written meanwhile.
 * @param name VOL or VOL@SNAP
 */
export async function exportImage(
  run: TransferRun,
  name: string,
  target: TargetFile,
  format: 'raw' | 'qcow2',
): Promise<{ bytes: number; diskBytes: number }> {
  const socket = await findNbdSocket(run.client);
  const copy = async (exportName: string) => {
    try {
      await convert({
        args: [...CONVERT_ARGS, '-f', 'raw', '-O', format, nbdUri(socket, exportName), target.temporary],
        onProgress: run.onProgress,
        signal: run.signal,
      });
      return target.publish();
    } finally {
      target.discard();
    }
  };
  if (name.includes('@')) {
    // What is not there is our error and not one of qemu-img's.
    await showSnapshot(run.client, name);
    return copy(name);
  }
  return withTransfer(run.client, { kind: 'read', volume: name }, (transfer) => copy(transfer.info.export));
}
