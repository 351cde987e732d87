/** The file that an import reads: opened once, looked at once, and used through that one descriptor. */

import { constants, type Stats } from 'node:fs';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { ControlError, describeError } from '../errors.ts';
import { roundUpToSector, SECTOR_BYTES, SIZE_MAX } from '../sizes.ts';
import { isStream } from '../stream/read.ts';
import type { SourceFormat } from './formats.ts';
import { inspectQcow2, QCOW2_HEAD_BYTES, QCOW2_MAGIC } from './qcow2.ts';

export interface ImageSource {
  file: FileHandle;
  path: string;
  format: SourceFormat;
  device: boolean;
  /** bytes of the volume that it becomes; for a stream, of the file */
  size: number;
  notes: string[];
}

/** what else people have, and would not want stored as the bytes of a disk */
const OTHER_FORMATS: readonly (readonly [string, number, string])[] = [
  ['VMDK', 0, 'KDMV'],
  ['VMDK', 0, '# Disk DescriptorFile'],
  ['VHDX', 0, 'vhdxfile'],
  ['VHD', 0, 'conectix'],
  ['VDI', 64, '\x7f\x10\xda\xbe'],
  ['QED', 0, 'QED\0'],
  ['LUKS', 0, 'LUKS\xba\xbe'],
  ['gzip', 0, '\x1f\x8b\x08'],
  ['xz', 0, '\xfd7zXZ\0'],
  ['zstd', 0, '\x28\xb5\x2f\xfd'],
];

/**
 * @param format undefined: by the magic at its beginning
 * @throws {ControlError} with the file's name in it
 */
export async function openSource(path: string, format: SourceFormat | undefined): Promise<ImageSource> {
  let file: FileHandle;
  try {
    // A FIFO would hold us for ever; O_NONBLOCK does nothing to files and devices.
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    throw new ControlError(describeError(error).code, describeError(error).message);
  }
  try {
    return await inspect(file, path, format);
  } catch (error) {
    await file.close();
    if (!(error instanceof ControlError)) throw error;
    throw new ControlError(error.code, `${path}: ${error.message}`);
  }
}

async function inspect(file: FileHandle, path: string, format: SourceFormat | undefined): Promise<ImageSource> {
  const stat = await file.stat();
  if (!stat.isFile() && !stat.isBlockDevice())
    throw new ControlError('INVALID', 'is neither a file nor a block device');
  const length = stat.isBlockDevice() ? await deviceSize(stat) : stat.size;
  if (length === 0) throw new ControlError('INVALID', 'is empty');
  const head = Buffer.alloc(QCOW2_HEAD_BYTES);
  const { bytesRead } = await file.read(head, 0, head.length, 0);
  const start = head.subarray(0, bytesRead);
  const found = format ?? sniff(start);
  const common = { file, path, device: stat.isBlockDevice(), format: found };
  if (found === 'stream') return { ...common, size: length, notes: [] };
  if (found === 'qcow2') {
    if (!start.subarray(0, 4).equals(QCOW2_MAGIC)) throw new ControlError('INVALID', 'is no qcow2 image');
    return { ...common, ...inspectQcow2(start) };
  }
  if (length > SIZE_MAX) throw new ControlError('TOO_LARGE', 'is larger than 1 PiB, the largest volume');
  const size = roundUpToSector(length);
  const note = `its ${length} bytes are rounded up to ${size}, a multiple of ${SECTOR_BYTES}`;
  return { ...common, size, notes: size === length ? [] : [note] };
}

function sniff(start: Buffer): SourceFormat {
  if (start.subarray(0, 4).equals(QCOW2_MAGIC)) return 'qcow2';
  if (isStream(start)) return 'stream';
  for (const [name, at, magic] of OTHER_FORMATS) {
    if (start.toString('latin1', at, at + magic.length) !== magic) continue;
    const way = name === name.toLowerCase() ? 'unpack it first' : 'convert it first (qemu-img convert -O qcow2)';
    throw new ControlError(
      'UNSUPPORTED',
      `looks like ${name}; ${way}, or say --format raw to store its bytes as they are`,
    );
  }
  return 'raw';
}

/** stat() knows no size of devices; the kernel does, in sectors of 512 bytes. */
async function deviceSize(stat: Stats): Promise<number> {
  // Linux's encoding of device numbers (makedev(3)).
  const major = Math.floor(stat.rdev / 256) % 4096;
  const minor = (stat.rdev % 256) + Math.floor(stat.rdev / 2 ** 20) * 256;
  const sectors = await readFile(`/sys/dev/block/${major}:${minor}/size`, 'utf8');
  return Number(sectors) * 512;
}
