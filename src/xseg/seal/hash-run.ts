/**
 * One hashing job: reads slots, hashes them, and looks up who has the same bytes. Knows neither threads nor where the store
 * is: `hash-worker.ts` and the simulation say what it reads with.
 */
import type { Native } from '../native.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';
import type { SealReader } from '../store/seal-reader.ts';
import { type HashResult, type HashWish, SLOT_BAD, SLOT_HASHED, SLOT_KNOWN, SLOT_UNREADABLE } from './job.ts';
import { zeroBlockHash } from './tree-hash.ts';

/**
 * One read; slots beside each other are read together up to this, or one slot where that is more. A fraction of a core's
 * second-level cache, so that hashing finds there what reading brought.
 */
const READ_BYTES_MAX = 256 * 1024;

/**
 * Of the thread, whose garbage nobody looks for between two jobs: what is read to be hashed, a slot of the index, and one that
 * may be its equal.
 */
const memory = { read: Buffer.alloc(0), same: Buffer.alloc(0), own: Buffer.alloc(0) };

/** So many bytes of it, with whatever was in them. */
function take(of: keyof typeof memory, bytes: number, atLeast = bytes): Buffer {
  if (memory[of].length < bytes) memory[of] = Buffer.alloc(Math.max(bytes, atLeast));
  return memory[of].subarray(0, bytes);
}

export type HashJobParts = HashWish & { core: number };

export class HashRun {
  readonly result: HashResult;
  /** of the result */
  readonly #hashes: Buffer;
  #zeroHash: Buffer;
  /** slot of the index that was read last, and its bytes */
  #lastSame = -1;
  readonly #other: Buffer;
  readonly #own: Buffer;

  constructor(
    readonly job: HashJobParts,
    readonly index: SealReader,
    readonly native: Pick<Native, 'readNow' | 'hashBlocks'>,
  ) {
    const count = job.slots.length;
    this.result = {
      states: new Uint8Array(count),
      hashes: new Uint8Array(count * HASH_BYTES),
      same: new Float64Array(count).fill(-1),
      bytesRead: 0,
      ms: 0,
    };
    this.#hashes = Buffer.from(this.result.hashes.buffer);
    this.#other = take('same', job.blockSize);
    this.#own = take('own', job.blockSize);
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
    if (!always) this.#look();
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
    const bytes = take('read', count * blockSize, READ_BYTES_MAX);
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
    this.#hash(i, i + count, bytes);
  }

  /** @param bytes those of the slots */
  #hash(from: number, to: number, bytes: Buffer): void {
    const { states } = this.result;
    const hashes = this.#hashes.subarray(from * HASH_BYTES, to * HASH_BYTES);
    const hashed = states.subarray(from, to);
    this.native.hashBlocks(bytes, this.job.blockSize, hashes, hashed);
    for (let k = 0; k < hashed.length; k++) if (hashed[k] === 0) hashes.set(this.#zeroHash, k * HASH_BYTES);
    hashed.fill(SLOT_HASHED);
  }

  /** Who has the same bytes, of all that was hashed. Zeroes need no slot. */
  #look(): void {
    const { states, hashes, same } = this.result;
    const hashed: number[] = [];
    for (let i = 0; i < states.length; i++) {
      const hash = hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES);
      if (states[i] === SLOT_HASHED && !this.#zeroHash.equals(hash)) hashed.push(i);
    }
    const wanted = Buffer.alloc(hashed.length * HASH_BYTES);
    for (const [k, i] of hashed.entries())
      wanted.set(hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES), k * HASH_BYTES);
    const found = this.index.slotsOf(this.job.pool, wanted);
    for (const [k, i] of hashed.entries())
      if (found[k] >= 0 && this.#holds(found[k], this.job.slots[i])) same[i] = found[k];
  }

  /** Whether the slot of the index still has the same bytes: on a disk that lost them the other would be the last copy. */
  #holds(same: number, slot: number): boolean {
    try {
      if (this.#lastSame !== same) {
        this.#lastSame = -1;
        this.#readOne(same, this.#other);
        this.#lastSame = same;
      }
      this.#readOne(slot, this.#own);
    } catch {
      return false;
    }
    return this.#other.equals(this.#own);
  }

  #readOne(slot: number, into: Buffer): void {
    const { core, handle, blockSize } = this.job;
    this.native.readNow(core, handle, slot * blockSize, into);
    this.result.bytesRead += blockSize;
  }
}
