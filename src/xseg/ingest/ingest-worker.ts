/**
 * A thread of the ingest pool: hashes a piece of a stream and finds out which of its blocks the pool has; writes those that it
 * has not. No state but open connections: a job that was lost with its thread can be run again (slots that are written are
 * the ingest's own).
 */
import { loadNative } from '../native.ts';
import { IndexSnapshot } from '../seal/index-snapshot.ts';
import { blockHash } from '../seal/tree-hash.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';
import type { SealReader } from '../store/seal-reader.ts';
import { BLOCK_HASHED, BLOCK_ZERO, PIECE_BYTES, type PieceHashes, type PieceJob, type WriteError } from './job.ts';

const native = loadNative();
const indexes = new Map<string, IndexSnapshot>();
const zeroes = new Map<number, Buffer>();
/** what slots of the index hold */
let other = Buffer.alloc(0);

function zeroOf(blockSize: number): Buffer {
  let zero = zeroes.get(blockSize);
  if (zero === undefined) {
    zero = Buffer.alloc(blockSize);
    zeroes.set(blockSize, zero);
  }
  return zero;
}

/** Piscina's entry. */
export function hashPiece(job: PieceJob): PieceHashes {
  let index = indexes.get(job.storePath);
  if (index === undefined) {
    index = new IndexSnapshot(job.storePath);
    indexes.set(job.storePath, index);
  }
  return index.look((reader) => hashed(job, reader));
}

function hashed(job: PieceJob, index: SealReader): PieceHashes {
  const { blocks, blockSize, pool } = job;
  const zero = zeroOf(blockSize);
  const bytes = Buffer.from(job.bytes);
  const states = new Uint8Array(blocks);
  const hashes = new Uint8Array(blocks * HASH_BYTES);
  const same = new Float64Array(blocks).fill(-1);
  const any = index.any();
  for (let i = 0; i < blocks; i++) {
    const block = bytes.subarray(i * blockSize, (i + 1) * blockSize);
    if (block.equals(zero)) {
      states[i] = BLOCK_ZERO;
      continue;
    }
    const hash = blockHash(block);
    states[i] = BLOCK_HASHED;
    hashes.set(hash, i * HASH_BYTES);
    if (any) same[i] = index.slotOf(pool, hash);
  }
  if (any) compare(job, bytes, same);
  return { states, hashes, same };
}

/** Forgets slots that do not hold these bytes any more: on a disk that lost them the stream would be the last copy. */
function compare(job: PieceJob, bytes: Buffer, same: Float64Array): void {
  const { blockSize, groupSlots } = job;
  if (other.length === 0) other = Buffer.alloc(PIECE_BYTES);
  for (let i = 0; i < job.blocks; ) {
    if (same[i] < 0) {
      i++;
      continue;
    }
    const count = runAt(same, i, job.blocks, groupSlots);
    const held = other.subarray(0, count * blockSize);
    if (!holds(job, same[i], bytes.subarray(i * blockSize, (i + count) * blockSize), held)) {
      for (let k = i; k < i + count; k++) {
        const block = bytes.subarray(k * blockSize, (k + 1) * blockSize);
        if (count === 1 || !holds(job, same[k], block, held.subarray(0, blockSize))) same[k] = -1;
      }
    }
    i += count;
  }
}

function holds({ core, handle, blockSize }: PieceJob, slot: number, bytes: Buffer, held: Buffer): boolean {
  try {
    native.readNow(core, handle, slot * blockSize, held);
  } catch {
    return false;
  }
  return held.equals(bytes);
}

/** How many slots from `i` on lie one behind the other, in one group. */
function runAt(slots: Float64Array, i: number, end: number, groupSlots: number): number {
  let count = 1;
  while (i + count < end && slots[i + count] === slots[i] + count && slots[i + count] % groupSlots !== 0) count++;
  return count;
}

/** Piscina's entry. @param slots per block, −1 not to be written. @returns what went wrong; errors lose their codes between threads */
export function writePiece({ job, slots }: { job: PieceJob; slots: Float64Array }): WriteError | null {
  try {
    write(job, slots);
    return null;
  } catch (error) {
    const { code = 'EIO', message } = error as { code?: string; message: string };
    return { code, message };
  }
}

function write(job: PieceJob, slots: Float64Array): void {
  const { core, handle, blockSize, groupSlots, blocks } = job;
  const bytes = Buffer.from(job.bytes);
  for (let i = 0; i < blocks; ) {
    if (slots[i] < 0) {
      i++;
      continue;
    }
    const count = runAt(slots, i, blocks, groupSlots);
    native.writeNow(core, handle, slots[i] * blockSize, bytes.subarray(i * blockSize, (i + count) * blockSize));
    i += count;
  }
}
