/**
 * The hashes of docs/format.md, "Resource hash": of blocks, of nodes (map pages), of whole resources.
 *
 * The library's Buffers and hashers are given back by its thread's event loop, which those that hash may never come to: the
 * mapper has none, and threads with job after job do not return to theirs. So hashers are kept, and hashes come as text.
 */
import { Blake3Hasher, blake3UrlSafeBase64 } from '@napi-rs/blake-hash';
import { PAGE_ENTRIES } from '../layout.gen.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';

const CONTEXT_NODE = 'atoll map 1 node';
const CONTEXT_RESOURCE = 'atoll map 1 resource';
/** Bytes of a node's children. */
export const NODE_BYTES = PAGE_ENTRIES * HASH_BYTES;
/** What is empty, zero or absent, on every level. */
export const ZERO_HASH = Buffer.alloc(HASH_BYTES);
const NO_CHILDREN = Buffer.alloc(NODE_BYTES);

const nodes = Blake3Hasher.newDeriveKey(CONTEXT_NODE);
const resources = Blake3Hasher.newDeriveKey(CONTEXT_RESOURCE);

function derived(hasher: Blake3Hasher, head: Buffer, rest: Buffer): Buffer {
  hasher.reset();
  hasher.update(head);
  hasher.update(rest);
  return Buffer.from(hasher.digest('base64'), 'base64');
}

/** Plain BLAKE3-256 of a block's bytes. For many blocks, `Native.hashBlocks`. */
export function blockHash(block: Buffer): Buffer {
  const hash = Buffer.allocUnsafe(HASH_BYTES);
  hash.write(blake3UrlSafeBase64(block), 0, HASH_BYTES, 'base64url');
  return hash;
}

const zeroBlocks = new Map<number, Buffer>();

/** Plain hash of a block of zeroes, which is how one is found. In the tree it counts as ZERO_HASH. */
export function zeroBlockHash(blockSize: number): Buffer {
  let hash = zeroBlocks.get(blockSize);
  if (hash === undefined) {
    hash = blockHash(Buffer.alloc(blockSize));
    zeroBlocks.set(blockSize, hash);
  }
  return hash;
}

/**
 * @param level 0: the children are blocks
 * @param children NODE_BYTES, ZERO_HASH where there is nothing
 */
export function nodeHash(level: number, children: Buffer): Buffer {
  if (children.equals(NO_CHILDREN)) return ZERO_HASH;
  return derived(nodes, Buffer.from([level]), children);
}

/**
 * @param size bytes
 * @param height the least level whose one node covers all
 * @param node hash of that node
 */
export function resourceHash(size: number, blockShift: number, height: number, node: Buffer): Buffer {
  const head = Buffer.alloc(16);
  head.writeBigUInt64LE(BigInt(size), 0);
  head.writeUInt32LE(blockShift, 8);
  head.writeUInt32LE(height, 12);
  return derived(resources, head, node);
}
