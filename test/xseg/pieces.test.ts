/** Pieces of an ingest: what of a file is read where, compared in the cache, and written, and read again when it is missed. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BLOCK_ZERO, LOOK_BYTES, type PieceHashes, type PieceJob, STEP_BYTES } from '../../src/xseg/ingest/job.ts';
import { type AtIndex, Pieces } from '../../src/xseg/ingest/pieces.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { blockHash } from '../../src/xseg/seal/tree-hash.ts';
import { HASH_BYTES } from '../../src/xseg/store/seal-batch.ts';
import type { SealReader } from '../../src/xseg/store/seal-reader.ts';

/** Of the pool's file, where the known blocks lie; runs are within a group. */
const GROUP_SLOTS = 64;
const KNOWN_FROM = 100;
const NEW_FROM = 1000;

/** A pool, and an index of what it has. */
class Pool {
  constructor(readonly blockSize: number) {}

  readonly slots = new Map<number, Buffer>();
  readonly index = new Map<string, number>();
  readonly pieces = new Pieces({
    hashBlocks: (...args) => {
      expect(this.#looking).toBe(false);
      loadNative().hashBlocks(...args);
    },
    readNow: (_core: number, _handle: number, address: number, into: Uint8Array) => {
      expect(this.#looking).toBe(false);
      for (let at = 0; at < into.length; at += this.blockSize) {
        const slot = this.slots.get((address + at) / this.blockSize);
        if (slot === undefined) throw new Error('no such slot');
        into.set(slot, at);
      }
    },
    writeNow: (_core: number, _handle: number, address: number, bytes: Uint8Array) => {
      expect(bytes.length).toBeLessThanOrEqual(Math.max(STEP_BYTES, this.blockSize));
      for (let at = 0; at < bytes.length; at += this.blockSize)
        this.slots.set((address + at) / this.blockSize, Buffer.from(bytes.subarray(at, at + this.blockSize)));
    },
  });

  know(slot: number, block: Buffer): void {
    this.slots.set(slot, block);
    this.index.set(blockHash(block).toString('hex'), slot);
  }

  /** what was guessed at each look */
  readonly guesses: (number | undefined)[] = [];

  /** the index is looked at: what is read, hashed or compared then keeps the store's log from being emptied */
  #looking = false;
  readonly look: AtIndex = (work) => {
    this.#looking = true;
    try {
      return work(this.#reader);
    } finally {
      this.#looking = false;
    }
  };

  get #reader(): SealReader {
    const slotsOf = (_pool: number, hashes: Uint8Array, guess?: number): Float64Array => {
      this.guesses.push(guess);
      return Float64Array.from({ length: hashes.length / HASH_BYTES }, (_, i) => {
        const hash = Buffer.from(hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES)).toString('hex');
        return this.index.get(hash) ?? -1;
      });
    };
    return { any: () => this.index.size > 0, slotsOf } as unknown as SealReader;
  }
}

describe.each([4096, 65_536, 1_048_576])('a piece of blocks of %i bytes', (blockSize) => {
  const looked = Math.max(1, LOOK_BYTES / blockSize);
  let dir: string;
  let file: number;
  let pool: Pool;
  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-pieces-'));
    file = fs.openSync(path.join(dir, 'file'), 'w+');
    pool = new Pool(blockSize);
  });
  afterEach(() => {
    fs.closeSync(file);
    fs.rmSync(dir, { recursive: true });
  });

  /** Blocks as letters say: n new, k known, z zeroes, r known by a hash though the pool's slot has rotted. */
  function content(letters: string): Buffer[] {
    return [...letters].map((letter, i) => {
      if (letter === 'z') return Buffer.alloc(blockSize);
      const block = randomBytes(blockSize);
      if (letter === 'k') pool.know(KNOWN_FROM + i, block);
      if (letter === 'r') {
        pool.know(KNOWN_FROM + i, block);
        pool.slots.set(KNOWN_FROM + i, randomBytes(blockSize));
      }
      return block;
    });
  }
  function fromFile(blocks: Buffer[]): PieceJob {
    fs.writeSync(file, Buffer.concat(blocks), 0, blocks.length * blockSize, 4096);
    const length = blocks.length * blockSize;
    return { ...sent(blocks, false), reads: [{ file, position: 4096, at: 0, length }] };
  }
  function sent(blocks: Buffer[], there = true): PieceJob {
    const bytes = new SharedArrayBuffer(blocks.length * blockSize);
    if (there) new Uint8Array(bytes).set(Buffer.concat(blocks));
    return {
      ...{ core: 0, storePath: '', bytes, reads: [], blocks: blocks.length },
      ...{ pool: 1, handle: 0, blockSize, groupSlots: GROUP_SLOTS },
    };
  }
  /** What is known of every block is true. */
  function expectTrue(blocks: Buffer[], hashed: PieceHashes, letters: string): void {
    for (const [i, letter] of [...letters].entries()) {
      expect(hashed.states[i]).toBe(letter === 'z' ? BLOCK_ZERO : 1);
      expect(hashed.same[i]).toBe(letter === 'k' ? KNOWN_FROM + i : -1);
      if (letter === 'z') continue;
      const hash = hashed.hashes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES);
      expect(blockHash(blocks[i]).equals(hash)).toBe(true);
    }
  }
  /** Writes the blocks that are wanted, and looks whether their slots have them. */
  function expectWritten(job: PieceJob, blocks: Buffer[], hashed: PieceHashes, wanted: (i: number) => boolean): void {
    const slots = Float64Array.from(blocks, (_, i) => (wanted(i) ? NEW_FROM + i : -1));
    pool.pieces.write({ job, hashed, slots });
    for (let i = 0; i < blocks.length; i++)
      if (wanted(i)) expect(pool.slots.get(NEW_FROM + i)?.equals(blocks[i])).toBe(true);
      else expect(pool.slots.has(NEW_FROM + i)).toBe(false);
  }

  const step = (letter: string) => letter.repeat(looked);
  const CASES: [string, string][] = [
    ['is new', step('n') + step('n')],
    ['is known', step('k') + step('k') + step('k')],
    ['is known between new ones', step('n') + step('k') + step('n') + step('k') + step('k') + step('n')],
    ['is known but for one block', `${step('k')}${'k'.repeat(looked - 1)}n${step('k')}`],
    ['is zeroes and known', `${'zk'.repeat(looked)}n${'z'.repeat(looked * 2)}kn`],
    ['was known, and has rotted', `${step('k')}kkr${'k'.repeat(looked)}`],
    ['ends in the middle of a step', `${step('k')}kkk`],
  ];

  for (const [what, letters] of CASES) {
    it(`of a file ${what}: hashed, compared and written`, () => {
      const blocks = content(letters);
      const job = fromFile(blocks);
      const hashed = pool.pieces.hash(job, pool.look);
      expectTrue(blocks, hashed, letters);
      expectWritten(job, blocks, hashed, (i) => letters[i] === 'n' || letters[i] === 'r');
    });

    it(`that was sent ${what}: stays where it is`, () => {
      const blocks = content(letters);
      const job = sent(blocks);
      const hashed = pool.pieces.hash(job, pool.look);
      expectTrue(blocks, hashed, letters);
      expect([...hashed.places]).toEqual(blocks.map((_, i) => i));
      expectWritten(job, blocks, hashed, () => true);
    });
  }

  it('of known blocks takes the memory of one step', () => {
    const blocks = content(step('k').repeat(4));
    const job = fromFile(blocks);
    const hashed = pool.pieces.hash(job, pool.look);
    expect([...hashed.places]).toEqual(blocks.map(() => -1));
    expect(new Uint8Array(job.bytes).subarray(looked * blockSize).every((byte) => byte === 0)).toBe(true);
  });

  it('is looked for behind what was found, after what was not by hash alone', () => {
    const letters = `${step('k')}${step('k')}${step('n')}${step('k')}`;
    const blocks = content(letters);
    expectTrue(blocks, pool.pieces.hash(sent(blocks), pool.look), letters);
    expect(pool.guesses).toEqual([-1, KNOWN_FROM + looked, KNOWN_FROM + 2 * looked, -1]);
  });

  it('that is wanted after all is read again from the file', () => {
    const letters = `${step('k')}${step('n')}${step('k')}`;
    const blocks = content(letters);
    const job = fromFile(blocks);
    const hashed = pool.pieces.hash(job, pool.look);
    expect(hashed.places[0]).toBe(-1);
    expectWritten(job, blocks, hashed, (i) => i % 3 !== 1);
  });

  it('that is wanted after all, of a file that has changed, or ends before it, is refused', () => {
    const blocks = content('k'.repeat(Math.max(4, looked)));
    const job = fromFile(blocks);
    const hashed = pool.pieces.hash(job, pool.look);
    const slots = new Float64Array(blocks.length).fill(-1);
    slots[2] = NEW_FROM;
    fs.writeSync(file, 'x', 4096 + 3 * blockSize - 1);
    expect(() => pool.pieces.write({ job, hashed, slots })).toThrow('changed');
    fs.ftruncateSync(file, 4096 + 2 * blockSize + 1);
    expect(() => pool.pieces.write({ job, hashed, slots })).toThrow('ended');
    expect(pool.slots.has(NEW_FROM)).toBe(false);
  });

  it('that is a file in part stays where it is', () => {
    const blocks = content(step('k') + step('k'));
    const job = fromFile(blocks);
    new Uint8Array(job.bytes).set(blocks[looked * 2 - 1], (looked * 2 - 1) * blockSize);
    job.reads[0].length -= blockSize;
    const hashed = pool.pieces.hash(job, pool.look);
    expectTrue(blocks, hashed, step('k') + step('k'));
    expect([...hashed.places]).toEqual(blocks.map((_, i) => i));
  });

  it('of a file that ends early is an error', () => {
    const job = fromFile(content(step('n')));
    fs.ftruncateSync(file, blockSize);
    expect(() => pool.pieces.hash(job, pool.look)).toThrow('ended');
  });
});
