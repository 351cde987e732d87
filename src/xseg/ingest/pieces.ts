/**
 * Pieces of streams: hashes them, finds out which of their blocks the pool has, writes those that it has not. No state but
 * memory: a job that was lost half done can be done again (slots that are written are the ingest's own). Of one thread.
 */
import type { Native } from '../native.ts';
import { blockHash } from '../seal/tree-hash.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';
import type { SealReader } from '../store/seal-reader.ts';
import { Filling } from './filling.ts';
import { BLOCK_HASHED, BLOCK_ZERO, type PieceHashes, type PieceJob, STEP_BYTES } from './job.ts';

export class Pieces {
  #zeroes = new Map<number, Buffer>();
  /** what slots of the index hold */
  #other = Buffer.alloc(0);

  constructor(readonly native: Pick<Native, 'readNow' | 'writeNow'>) {}

  #zeroOf(blockSize: number): Buffer {
    let zero = this.#zeroes.get(blockSize);
    if (zero === undefined) {
      zero = Buffer.alloc(blockSize);
      this.#zeroes.set(blockSize, zero);
    }
    return zero;
  }

  /** @throws when what the thread is to read cannot be read */
  hash(job: PieceJob, index: SealReader): PieceHashes {
    const { blocks, blockSize, pool } = job;
    const zero = this.#zeroOf(blockSize);
    const bytes = Buffer.from(job.bytes);
    const states = new Uint8Array(blocks);
    const hashes = new Uint8Array(blocks * HASH_BYTES);
    const same = new Float64Array(blocks).fill(-1);
    const filling = new Filling(job.reads, bytes);
    for (let i = 0; i < blocks; i++) {
      filling.until((i + 1) * blockSize);
      const block = bytes.subarray(i * blockSize, (i + 1) * blockSize);
      if (block.equals(zero)) {
        states[i] = BLOCK_ZERO;
        continue;
      }
      const hash = blockHash(block);
      states[i] = BLOCK_HASHED;
      hashes.set(hash, i * HASH_BYTES);
    }
    if (index.any()) {
      const found = index.slotsOf(pool, hashes);
      for (let i = 0; i < blocks; i++) if (states[i] === BLOCK_HASHED) same[i] = found[i];
      this.#compare(job, bytes, same);
    }
    return { states, hashes, same };
  }

  /** Forgets slots that do not hold these bytes any more: on a disk that lost them the stream would be the last copy. */
  #compare(job: PieceJob, bytes: Buffer, same: Float64Array): void {
    const { blockSize, groupSlots } = job;
    const step = Math.max(STEP_BYTES, blockSize);
    if (this.#other.length < step) this.#other = Buffer.alloc(step);
    for (let i = 0; i < job.blocks; ) {
      if (same[i] < 0) {
        i++;
        continue;
      }
      const count = runAt(same, i, Math.min(job.blocks, i + step / blockSize), groupSlots);
      const held = this.#other.subarray(0, count * blockSize);
      if (!this.#holds(job, same[i], bytes.subarray(i * blockSize, (i + count) * blockSize), held)) {
        for (let k = i; k < i + count; k++) {
          const block = bytes.subarray(k * blockSize, (k + 1) * blockSize);
          if (count === 1 || !this.#holds(job, same[k], block, held.subarray(0, blockSize))) same[k] = -1;
        }
      }
      i += count;
    }
  }

  #holds({ core, handle, blockSize }: PieceJob, slot: number, bytes: Buffer, held: Buffer): boolean {
    try {
      this.native.readNow(core, handle, slot * blockSize, held);
    } catch {
      return false;
    }
    return held.equals(bytes);
  }

  /** @param slots per block, −1 not to be written. @throws the errno of what could not be written */
  write(job: PieceJob, slots: Float64Array): void {
    const { core, handle, blockSize, groupSlots, blocks } = job;
    const step = Math.max(STEP_BYTES, blockSize);
    const bytes = Buffer.from(job.bytes);
    for (let i = 0; i < blocks; ) {
      if (slots[i] < 0) {
        i++;
        continue;
      }
      const count = runAt(slots, i, Math.min(blocks, i + step / blockSize), groupSlots);
      this.native.writeNow(core, handle, slots[i] * blockSize, bytes.subarray(i * blockSize, (i + count) * blockSize));
      i += count;
    }
  }
}

/** How many slots from `i` on lie one behind the other, in one group. */
function runAt(slots: Float64Array, i: number, end: number, groupSlots: number): number {
  let count = 1;
  while (i + count < end && slots[i + count] === slots[i] + count && slots[i + count] % groupSlots !== 0) count++;
  return count;
}
