/** The resource hash, for tests: nothing of the engine's is used. */
import { Blake3Hasher, blake3 } from '@napi-rs/blake-hash';

/** docs/format.md, "Resource hash", written again from the page. */
export function expectedHash(bytes: Buffer, blockSize: number): string {
  const zero = Buffer.alloc(32);
  const blocks = Math.ceil(bytes.length / blockSize);
  let level: Buffer[] = [];
  for (let b = 0; b < blocks; b++) {
    const block = Buffer.alloc(blockSize);
    bytes.copy(block, 0, b * blockSize, Math.min(bytes.length, (b + 1) * blockSize));
    level.push(block.every((byte) => byte === 0) ? zero : blake3(block));
  }
  let height = 0;
  for (; ; height++) {
    const nodes: Buffer[] = [];
    for (let n = 0; n < Math.ceil(level.length / 512); n++) {
      const children = Buffer.alloc(512 * 32);
      Buffer.concat(level.slice(n * 512, n * 512 + 512)).copy(children);
      const all = Buffer.concat([Buffer.from([height]), children]);
      nodes.push(
        children.every((byte) => byte === 0)
          ? zero
          : Blake3Hasher.newDeriveKey('atoll map 1 node').update(all).digestBuffer(),
      );
    }
    level = nodes;
    if (level.length === 1) break;
  }
  const head = Buffer.alloc(16);
  head.writeBigUInt64LE(BigInt(bytes.length));
  head.writeUInt32LE(Math.log2(blockSize), 8);
  head.writeUInt32LE(height, 12);
  return Blake3Hasher.newDeriveKey('atoll map 1 resource')
    .update(Buffer.concat([head, level[0]]))
    .digestBuffer()
    .toString('hex');
}
