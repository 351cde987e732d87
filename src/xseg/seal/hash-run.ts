/**
 * One hashing job: reads slots, hashes them, and looks up who has the same bytes. Knows neither threads nor where the store
 * is: `hash-worker.ts` and the simulation say what it reads with.
 */
import type { Native } from '../native.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';
import type { SealReader } from '../store/seal-reader.ts';
import { type HashResult, type HashWish, SLOT_BAD, SLOT_HASHED, SLOT_KNOWN, SLOT_UNREADABLE } from './job.ts';
import { blockHash, zeroBlockHash } from './tree-hash.ts';

/** One read; slots beside each other are read together up to this, or one slot where that is more. */
const READ_BYTES_MAX = 1024 * 1024;

let buffer = Buffer.alloc(0);

export type HashJobParts = HashWish & { core: number };

export class HashRun {
  readonly result: HashResult;
  #zero: Buffer;
  #zeroHash: Buffer;
  /** slot of the index that was read last, and its bytes */
  #lastSame = -1;
  #other: Buffer;

  constructor(
    readonly job: HashJobParts,
    readonly index: SealReader,
    readonly native: Pick<Native, 'readNow'>,
  ) {
    const count = job.slots.length;
    this.result = {
      states: new Uint8Array(count),
      hashes: new Uint8Array(count * HASH_BYTES),
      same: new Float64Array(count).fill(-1),
      bytesRead: 0,
      ms: 0,
    };
    this.#zero = Buffer.alloc(job.blockSize);
    this.#other = Buffer.alloc(job.blockSize);
    this.#zeroHash = zeroBlockHash(job.blockSize);
  }

  run(): HashResult {
    const started = performance.now();
    const { slots, blockSize, always } = this.job;
    const most = Math.max(1, Math.floor(READ_BYTES_MAX / blockSize));
    const known = always ? new Uint8Array(slots.length) : this.#known();
    for (let i = 0; i < slots.length; ) {
      if (known[i]) {
        i++;
        continue;
      }
      let count = 1;
      while (count < most && i + count < slots.length && slots[i + count] === slots[i] + count && !known[i + count])
        count++;
      this.#read(i, count);
      i += count;
    }
    this.result.ms = performance.now() - started;
    return this.result;
  }

  /** 1 for slots that the index has: one look per run of slots beside each other. */
  #known(): Uint8Array {
    const { pool, slots } = this.job;
    const known = new Uint8Array(slots.length);
    for (let i = 0; i < slots.length; ) {
      let count = 1;
      while (i + count < slots.length && slots[i + count] === slots[i] + count) count++;
      for (const row of this.index.between(pool, slots[i], slots[i] + count)) {
        const at = i + row.slot - slots[i];
        known[at] = 1;
        this.result.states[at] = row.bad === null ? SLOT_KNOWN : SLOT_BAD;
        this.result.hashes.set(row.hash, at * HASH_BYTES);
      }
      i += count;
    }
    return known;
  }

  #read(i: number, count: number): void {
    const { core, handle, slots, blockSize } = this.job;
    if (buffer.length < count * blockSize) buffer = Buffer.alloc(Math.max(READ_BYTES_MAX, count * blockSize));
    const bytes = buffer.subarray(0, count * blockSize);
    try {
      this.native.readNow(core, handle, slots[i] * blockSize, bytes);
    } catch {
      if (count === 1) {
        this.result.states[i] = SLOT_UNREADABLE;
      } else {
        // a run may end beyond a pool file's end, or hold one slot that cannot be read: each by itself
        for (let k = 0; k < count; k++) this.#read(i + k, 1);
      }
      return;
    }
    this.result.bytesRead += bytes.length;
    for (let k = 0; k < count; k++) this.#hash(i + k, bytes.subarray(k * blockSize, (k + 1) * blockSize));
  }

  #hash(i: number, block: Buffer): void {
    const hash = block.equals(this.#zero) ? this.#zeroHash : blockHash(block);
    this.result.states[i] = SLOT_HASHED;
    this.result.hashes.set(hash, i * HASH_BYTES);
    if (this.job.always) return;
    const same = this.index.slotOf(this.job.pool, hash);
    if (same >= 0 && this.#holds(same, block)) this.result.same[i] = same;
  }

  /** Whether the slot of the index still has these bytes: on a disk that lost them the block in hand would be the last copy. */
  #holds(slot: number, block: Buffer): boolean {
    const { core, handle, blockSize } = this.job;
    if (this.#lastSame !== slot) {
      this.#lastSame = -1;
      try {
        this.native.readNow(core, handle, slot * blockSize, this.#other);
      } catch {
        return false;
      }
      this.#lastSame = slot;
      this.result.bytesRead += blockSize;
    }
    return this.#other.equals(block);
  }
}
