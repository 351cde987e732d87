/**
 * Looks at the header of a qcow2 image and decides whether qemu-img may open it. An image names other files (a backing file, a data
 * file) and can ask for much memory, so everything here is bounded and what is not known is refused.
 * Source: docs/interop/qcow2.txt of QEMU.
 */
import { ControlError } from '../errors.ts';
import { SECTOR_BYTES, SIZE_MAX } from '../sizes.ts';

export const QCOW2_MAGIC = Buffer.from([0x51, 0x46, 0x49, 0xfb]);
/** what inspectQcow2() wants to see of a file: header and extensions are within the first cluster, ours within this */
export const QCOW2_HEAD_BYTES = 64 * 1024;

const HEADER_V2_BYTES = 72;
const HEADER_V3_MIN_BYTES = 104;
const CLUSTER_BITS_MIN = 9;
const CLUSTER_BITS_MAX = 21;
/** QEMU's own bound on the active L1 table, bytes */
const L1_BYTES_MAX = 32 << 20;
const REFCOUNT_ORDER_MAX = 6;

const INCOMPATIBLE = { dirty: 1n, corrupt: 2n, dataFile: 4n, compression: 8n, extendedL2: 16n };
/** a dirty image has wrong reference counts, which readers do not need */
const INCOMPATIBLE_READABLE = INCOMPATIBLE.dirty | INCOMPATIBLE.compression | INCOMPATIBLE.extendedL2;

const EXTENSION = { end: 0, backingFormat: 0xe2792aca, dataFileName: 0x44415441, cryptoHeader: 0x0537be77 };
const EXTENSIONS_MAX = 64;

export interface Qcow2Facts {
  /** bytes, whole sectors */
  size: number;
  /** what the user should know */
  notes: string[];
}

/**
 * @param head the first QCOW2_HEAD_BYTES of the file, or as much as there is
 * @throws {ControlError} UNSUPPORTED, DAMAGED, TOO_LARGE
 */
export function inspectQcow2(head: Buffer): Qcow2Facts {
  if (head.length < HEADER_V2_BYTES) throw broken('its header is cut off');
  const version = head.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw refused(`has version ${version}; versions 2 and 3 are known`);
  if (version === 3 && head.length < HEADER_V3_MIN_BYTES) throw broken('its header is cut off');
  checkTables(head);
  if (version === 3) checkVersion3(head);
  if (head.readBigUInt64BE(8) !== 0n || head.readUInt32BE(16) !== 0) throw hasBacking();
  if (head.readUInt32BE(32) !== 0) throw refused('is encrypted; decrypt it first, with qemu-img convert');
  checkExtensions(head, version === 3 ? head.readUInt32BE(100) : HEADER_V2_BYTES);
  return { size: sizeOf(head), notes: notesOf(head) };
}

function sizeOf(head: Buffer): number {
  const size = head.readBigUInt64BE(24);
  if (size === 0n) throw broken('its size is zero');
  if (size > BigInt(SIZE_MAX))
    throw new ControlError('TOO_LARGE', 'the qcow2 image is larger than 1 PiB, the largest volume');
  // QEMU would leave out what is behind the last whole one.
  if (size % BigInt(SECTOR_BYTES) !== 0n) throw refused(`has ${size} bytes, no multiple of ${SECTOR_BYTES}`);
  return Number(size);
}

function notesOf(head: Buffer): string[] {
  const snapshots = head.readUInt32BE(60);
  return snapshots > 0 ? [`its ${snapshots} internal snapshots are left out`] : [];
}

function checkTables(head: Buffer): void {
  const clusterBits = head.readUInt32BE(20);
  if (clusterBits < CLUSTER_BITS_MIN || clusterBits > CLUSTER_BITS_MAX)
    throw broken(`clusters of 2^${clusterBits} bytes`);
  const l1Entries = head.readUInt32BE(36);
  if (l1Entries > L1_BYTES_MAX / 8) throw broken('its L1 table is beyond every bound');
  const clusterBytes = BigInt(1 << clusterBits);
  // An L2 table is one cluster of 8-byte entries (16-byte ones, with half the reach, in images with subclusters).
  const reach = (clusterBytes / 8n) * clusterBytes;
  if (BigInt(l1Entries) * reach < head.readBigUInt64BE(24)) throw broken('its L1 table is shorter than its size needs');
  if (head.readBigUInt64BE(40) % clusterBytes !== 0n) throw broken('its L1 table is not at a cluster');
}

function checkVersion3(head: Buffer): void {
  const incompatible = head.readBigUInt64BE(72);
  if ((incompatible & INCOMPATIBLE.dataFile) !== 0n) throw hasDataFile();
  if ((incompatible & INCOMPATIBLE.corrupt) !== 0n) throw broken('it is marked corrupt; qemu-img check may repair it');
  const unknown = incompatible & ~(INCOMPATIBLE_READABLE | INCOMPATIBLE.dataFile | INCOMPATIBLE.corrupt);
  if (unknown !== 0n) throw refused(`uses features that are not known (0x${unknown.toString(16)})`);
  if (head.readUInt32BE(96) > REFCOUNT_ORDER_MAX) throw broken('its reference counts are too wide');
  const length = head.readUInt32BE(100);
  if (length < HEADER_V3_MIN_BYTES || length % 8 !== 0 || length > 1 << head.readUInt32BE(20)) {
    throw broken(`a header of ${length} bytes`);
  }
}

/** Extensions lie behind the header, within the first cluster; the ones that name other files are refused. */
function checkExtensions(head: Buffer, start: number): void {
  const limit = Math.min(head.length, 1 << head.readUInt32BE(20));
  let at = start;
  for (let count = 0; at + 8 <= limit; count++) {
    const type = head.readUInt32BE(at);
    const length = head.readUInt32BE(at + 4);
    if (type === EXTENSION.end) return;
    if (type === EXTENSION.dataFileName) throw hasDataFile();
    if (type === EXTENSION.backingFormat) throw hasBacking();
    if (type === EXTENSION.cryptoHeader) throw refused('is encrypted; decrypt it first, with qemu-img convert');
    if (count >= EXTENSIONS_MAX || length > limit - at - 8) throw broken('its header extensions do not end');
    at += 8 + Math.ceil(length / 8) * 8;
  }
}

function broken(what: string): ControlError {
  return new ControlError('DAMAGED', `the qcow2 image is damaged: ${what}`);
}

function refused(what: string): ControlError {
  return new ControlError('UNSUPPORTED', `the qcow2 image ${what}`);
}

function hasBacking(): ControlError {
  return refused('has a backing file, which is not followed; make it whole first: qemu-img convert -O qcow2 OLD NEW');
}

function hasDataFile(): ControlError {
  return refused('keeps its data in another file, which is not followed; make it whole first, with qemu-img convert');
}
