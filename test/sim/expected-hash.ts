/** The resource hash of docs/format.md, of what the model says a resource holds. */
import { PAGE_ENTRIES } from '../../src/xseg/layout.gen.ts';
import { heightFor } from '../../src/xseg/mapper/tree.ts';
import { blockHash, NODE_BYTES, nodeHash, resourceHash, ZERO_HASH } from '../../src/xseg/seal/tree-hash.ts';
import { HASH_BYTES } from '../../src/xseg/store/seal-batch.ts';
import { SECTOR } from './disk.ts';

/** @param values of sectors that are not zero. @returns hex */
export function expectedHash(values: ReadonlyMap<number, number>, size: number, blockShift: number): string {
  const blockSize = 2 ** blockShift;
  let hashes = new Map<number, Buffer>();
  for (const [block, bytes] of blocksOf(values, blockShift)) hashes.set(block, blockHash(bytes));
  const height = heightFor(size, blockSize);
  for (let level = 0; level <= height; level++) hashes = parents(level, hashes);
  return resourceHash(size, blockShift, height, hashes.get(0) ?? ZERO_HASH).toString('hex');
}

/** Blocks that are not zero: number → bytes. */
export function blocksOf(values: ReadonlyMap<number, number>, blockShift: number): Map<number, Buffer> {
  const blockSize = 2 ** blockShift;
  const sectors = blockSize / SECTOR;
  const blocks = new Map<number, Buffer>();
  for (const [sector, value] of values) {
    if (value === 0) continue;
    const block = Math.floor(sector / sectors);
    let bytes = blocks.get(block);
    if (bytes === undefined) {
      bytes = Buffer.alloc(blockSize);
      blocks.set(block, bytes);
    }
    bytes.writeUInt32LE(value, (sector % sectors) * SECTOR);
  }
  return blocks;
}

function parents(level: number, children: ReadonlyMap<number, Buffer>): Map<number, Buffer> {
  const nodes = new Map<number, Buffer>();
  for (const [at, hash] of children) {
    const parent = Math.floor(at / PAGE_ENTRIES);
    let node = nodes.get(parent);
    if (node === undefined) {
      node = Buffer.alloc(NODE_BYTES);
      nodes.set(parent, node);
    }
    node.set(hash, (at % PAGE_ENTRIES) * HASH_BYTES);
  }
  return new Map([...nodes].map(([at, node]) => [at, nodeHash(level, node)]));
}
