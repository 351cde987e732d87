import { describe, expect, it } from 'vitest';
import { loadNative } from '../../src/xseg/native.ts';
import { blockHash, NODE_BYTES, nodeHash, resourceHash } from '../../src/xseg/seal/tree-hash.ts';
import { HASH_BYTES } from '../../src/xseg/store/seal-batch.ts';

const ROUNDS = 100_000;
/** What is garbage by then takes less; a Buffer or a hasher for each round that stays takes more. */
const GROWTH_MAX = 12 * 2 ** 20;

describe('hashing without an event loop', () => {
  const { hashBlocks } = loadNative();
  const block = Buffer.alloc(1024, 1);
  const [hash, hashed] = [Buffer.alloc(HASH_BYTES), Buffer.alloc(1)];
  const children = Buffer.alloc(NODE_BYTES, 2);
  it.each([
    ['blocks', () => blockHash(block)],
    ['many blocks', () => hashBlocks(block, block.length, hash, hashed)],
    ['nodes', () => nodeHash(0, children)],
    ['resources', () => resourceHash(4096, 12, 0, block)],
  ])('keeps nothing of the hashes of %s', (_what, hash) => {
    const rounds = () => {
      for (let i = 0; i < ROUNDS; i++) hash();
    };
    // the heap is as large as it gets then
    rounds();
    const before = process.memoryUsage().rss;
    rounds();
    expect(process.memoryUsage().rss - before).toBeLessThan(GROWTH_MAX);
  });
});
