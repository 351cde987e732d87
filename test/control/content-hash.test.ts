/** The content hash, against a second implementation that follows docs/stream.md without being clever. */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ContentHash, HASH_LEAF } from '../../src/control/stream/content-hash.ts';

function derive(context: string, ...parts: Buffer[]): Buffer {
  const hasher = Blake3Hasher.newDeriveKey(context);
  for (const part of parts) hasher.update(part);
  return hasher.digestBuffer();
}

const ZERO = Buffer.alloc(32);

/** docs/stream.md, "Content hash", word by word; all leaves in memory. */
function plain(size: number, leaves: ReadonlyMap<number, Buffer>): string {
  const count = Math.ceil(size / 65536);
  let hashes: Map<number, Buffer> = new Map();
  for (const [index, bytes] of leaves)
    if (!bytes.every((b) => b === 0)) hashes.set(index, derive('atoll content 1 leaf', bytes));
  let levels = 1;
  while (256 ** levels < count) levels++;
  for (let level = 1; level <= levels; level++) {
    const above: Map<number, Buffer> = new Map();
    for (const node of new Set([...hashes.keys()].map((child) => Math.floor(child / 256)))) {
      const children = Array.from({ length: 256 }, (_, index) => hashes.get(node * 256 + index) ?? ZERO);
      above.set(node, derive('atoll content 1 node', Buffer.from([level]), ...children));
    }
    hashes = above;
  }
  const sizeBytes = Buffer.alloc(8);
  sizeBytes.writeBigUInt64LE(BigInt(size));
  return derive('atoll content 1 root', sizeBytes, hashes.get(0) ?? ZERO).toString('hex');
}

function fast(size: number, leaves: ReadonlyMap<number, Buffer>): string {
  const hash = new ContentHash(size);
  for (const index of [...leaves.keys()].sort((a, b) => a - b)) hash.update(index, leaves.get(index)!);
  return hash.digest();
}

function leafOf(size: number, index: number, value: number): Buffer {
  return Buffer.alloc(Math.min(65536, size - index * 65536), value);
}

describe('ContentHash', () => {
  it('is what the description says, for any size and any leaves', () => {
    const sectors = fc.oneof(
      fc.integer({ min: 1, max: 128 * 10 }),
      fc.integer({ min: 1, max: 2 ** 41 }),
      fc.constantFrom(128 * 256, 128 * 256 + 1, 128 * 65536, 128 * 65536 + 1, 2 ** 41),
    );
    fc.assert(
      fc.property(
        sectors,
        fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 0, max: 3 })), {
          maxLength: 12,
        }),
        (count, picks) => {
          const size = count * 512;
          const last = Math.ceil(size / 65536) - 1;
          const leaves = new Map(
            picks.map(([where, value]) => {
              const index = Math.min(last, Math.floor(where * (last + 1)));
              return [index, leafOf(size, index, value)] as const;
            }),
          );
          expect(fast(size, leaves)).toBe(plain(size, leaves));
        },
      ),
      { numRuns: 60 },
    );
  });

  it('does not tell zeroes that were read from zeroes that were not', () => {
    const size = 600 * HASH_LEAF;
    const only = new Map([[300, leafOf(size, 300, 1)]]);
    const all = new Map(Array.from({ length: 600 }, (_, i) => [i, leafOf(size, i, i === 300 ? 1 : 0)] as const));
    expect(fast(size, all)).toBe(fast(size, only));
  });

  it('tells contents apart that differ in size, place or bytes only', () => {
    const size = 512 * HASH_LEAF;
    const one = (total: number, index: number, value: number) =>
      fast(total, new Map([[index, leafOf(total, index, value)]]));
    const hashes = [
      fast(size, new Map()),
      fast(size + 512, new Map()),
      fast(size * 256, new Map()),
      one(size, 0, 1),
      one(size, 1, 1),
      one(size, 256, 1),
      one(size, 0, 2),
      one(size + 512, 0, 1),
      one(size * 256, 0, 1),
    ];
    expect(new Set(hashes).size).toBe(hashes.length);
  });

  it('does not change: the value is part of the format', () => {
    expect(fast(1 << 20, new Map())).toBe('7526b08c31dd75a85efb455a38e4d80ca8d7ab5c84ac786f365f59d503ff4f72');
    expect(fast(1 << 20, new Map([[3, Buffer.alloc(HASH_LEAF, 0x61)]]))).toBe(
      '3f6972d7a974388081b3ff05c8138cf79c49867fad1748b3e5f1c9a204f2dbdf',
    );
  });

  it('refuses leaves out of order, out of range, or of a wrong length', () => {
    const hash = new ContentHash(3 * HASH_LEAF + 512);
    hash.update(1, Buffer.alloc(HASH_LEAF));
    expect(() => hash.update(1, Buffer.alloc(HASH_LEAF))).toThrow(RangeError);
    expect(() => hash.update(0, Buffer.alloc(HASH_LEAF))).toThrow(RangeError);
    expect(() => hash.update(4, Buffer.alloc(HASH_LEAF))).toThrow(RangeError);
    expect(() => hash.update(3, Buffer.alloc(HASH_LEAF))).toThrow(RangeError);
    hash.update(3, Buffer.alloc(512));
  });
});
