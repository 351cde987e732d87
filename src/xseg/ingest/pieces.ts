/**
 * Pieces of streams: hashes them, finds out which of their blocks the pool has, writes those that it has not. No state but
 * memory: a job that was lost half done can be done again (slots that are written are the ingest's own). Of one thread.
 */
import type { Native } from '../native.ts';
import { blockHash } from '../seal/tree-hash.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';
import type { SealReader } from '../store/seal-reader.ts';
import { Filling, readAgain } from './filling.ts';
import { BLOCK_ZERO, LOOK_BYTES, type PieceHashes, type PieceJob, type PieceWrite, STEP_BYTES } from './job.ts';

/** Runs `work` at one moment of the index. Short ones: as long as one lasts the store's log cannot be emptied. */
export type AtIndex = <T>(work: (reader: SealReader) => T) => T;

export class Pieces {
  /** what slots of the index hold */
  #other = Buffer.alloc(0);

  constructor(readonly native: Pick<Native, 'readNow' | 'writeNow' | 'hashBlocks'>) {}

  /** @throws when what the thread is to read cannot be read */
  hash(job: PieceJob, atIndex: AtIndex): PieceHashes {
    const { blocks, blockSize } = job;
    const bytes = Buffer.from(job.bytes);
    const hashed: PieceHashes = {
      states: new Uint8Array(blocks),
      hashes: new Uint8Array(blocks * HASH_BYTES),
      same: new Float64Array(blocks).fill(-1),
      places: new Int32Array(blocks),
    };
    const filling = new Filling(job.reads, bytes);
    const looks = atIndex((reader) => reader.any());
    const again = looks && filling.covers(blocks * blockSize);
    const step = Math.max(1, LOOK_BYTES / blockSize);
    const readStep = Math.max(1, STEP_BYTES / blockSize);
    /** blocks before this one that nobody needs: what is read goes so much before its place */
    let back = 0;
    for (let from = 0; from < blocks; from += step) {
      const to = Math.min(blocks, from + step);
      for (let i = from; i < to; i += readStep) {
        const end = Math.min(to, i + readStep);
        filling.until(end * blockSize, to * blockSize, back * blockSize);
        for (let k = i; k < end; k++) hashed.places[k] = k - back;
        this.#hash(job, hashed, bytes, i, end);
      }
      if (!looks) continue;
      this.#look(job, atIndex, hashed, bytes, from, to);
      if (!again || !hashed.same.subarray(from, to).every((slot, k) => slot >= 0 || isZero(hashed, from + k))) continue;
      hashed.places.fill(-1, from, to);
      back += to - from;
    }
    return hashed;
  }

  /** Blocks that lie beside each other. */
  #hash(
    { blockSize }: PieceJob,
    { states, hashes, places }: PieceHashes,
    bytes: Buffer,
    from: number,
    to: number,
  ): void {
    const blocks = bytes.subarray(places[from] * blockSize, (places[from] + to - from) * blockSize);
    const into = hashes.subarray(from * HASH_BYTES, to * HASH_BYTES);
    this.native.hashBlocks(blocks, blockSize, into, states.subarray(from, to));
  }

  /** Which slots hold the same bytes as these blocks. */
  #look(job: PieceJob, atIndex: AtIndex, hashed: PieceHashes, bytes: Buffer, from: number, to: number): void {
    const before = from > 0 ? hashed.same[from - 1] : -1;
    const hashes = hashed.hashes.subarray(from * HASH_BYTES, to * HASH_BYTES);
    const found = atIndex((reader) => reader.slotsOf(job.pool, hashes, before < 0 ? -1 : before + 1));
    for (let i = from; i < to; i++) if (!isZero(hashed, i)) hashed.same[i] = found[i - from];
    this.#compare(job, bytes, hashed, from, to);
  }

  /** Forgets slots that do not hold these bytes any more: on a disk that lost them the stream would be the last copy. */
  #compare(job: PieceJob, bytes: Buffer, { same, places }: PieceHashes, from: number, to: number): void {
    const { blockSize, groupSlots } = job;
    const step = Math.max(STEP_BYTES, blockSize);
    if (this.#other.length < step) this.#other = Buffer.alloc(step);
    const blocksAt = (i: number, count: number): Buffer =>
      bytes.subarray(places[i] * blockSize, (places[i] + count) * blockSize);
    for (let i = from; i < to; ) {
      if (same[i] < 0) {
        i++;
        continue;
      }
      const count = runAt(same, i, Math.min(to, i + step / blockSize), groupSlots);
      const held = this.#other.subarray(0, count * blockSize);
      if (!this.#holds(job, same[i], blocksAt(i, count), held)) {
        for (let k = i; k < i + count; k++)
          if (count === 1 || !this.#holds(job, same[k], blocksAt(k, 1), held.subarray(0, blockSize))) same[k] = -1;
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

  /** @throws the errno of what could not be written, or an error without a code when the file has changed */
  write({ job, hashed, slots }: PieceWrite): void {
    const { core, handle, blockSize, groupSlots, blocks } = job;
    const { places } = hashed;
    const step = Math.max(STEP_BYTES, blockSize);
    const bytes = Buffer.from(job.bytes);
    for (let i = 0; i < blocks; ) {
      if (slots[i] < 0) {
        i++;
        continue;
      }
      if (places[i] < 0) {
        this.native.writeNow(core, handle, slots[i] * blockSize, this.#readAgain(job, hashed, i));
        i++;
        continue;
      }
      let count = runAt(slots, i, Math.min(blocks, i + step / blockSize), groupSlots);
      for (let k = 1; k < count; k++) if (places[i + k] !== places[i] + k) count = k;
      const from = places[i] * blockSize;
      this.native.writeNow(core, handle, slots[i] * blockSize, bytes.subarray(from, from + count * blockSize));
      i += count;
    }
  }

  /** A block that the pool had when the piece was hashed, and has not any more. */
  #readAgain({ reads, blockSize }: PieceJob, { hashes }: PieceWrite['hashed'], i: number): Buffer {
    if (this.#other.length < blockSize) this.#other = Buffer.alloc(blockSize);
    const block = this.#other.subarray(0, blockSize);
    readAgain(reads[0].file, block, reads[0].position + i * blockSize);
    if (!blockHash(block).equals(hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES)))
      throw new Error('the file changed while it was read');
    return block;
  }
}

const isZero = ({ states }: PieceHashes, i: number): boolean => states[i] === BLOCK_ZERO;

/** How many slots from `i` on lie one behind the other, in one group. */
function runAt(slots: Float64Array, i: number, end: number, groupSlots: number): number {
  let count = 1;
  while (i + count < end && slots[i + count] === slots[i] + count && slots[i + count] % groupSlots !== 0) count++;
  return count;
}
