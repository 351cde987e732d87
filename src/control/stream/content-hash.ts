/**
 * The content hash of docs/stream.md, fed in ascending order and only with what may be other than zero:
 * memory is one run of child hashes per level, whatever the size.
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { isZero } from './format.ts';

export const HASH_LEAF = 65536;
export const HASH_FANOUT = 256;

const HASH_BYTES = 32;
const CONTEXT_LEAF = 'atoll content 1 leaf';
const CONTEXT_NODE = 'atoll content 1 node';
const CONTEXT_ROOT = 'atoll content 1 root';

interface Level {
  /** number of the node on its level that is being filled */
  node: number;
  children: Buffer;
  /** false: all children so far are the zero hash */
  touched: boolean;
}

export class ContentHash {
  private readonly size: number;
  private readonly leaves: number;
  private readonly levels: Level[] = [];
  private nextLeaf = 0;
  private readonly leafHasher = Blake3Hasher.newDeriveKey(CONTEXT_LEAF);

  /** @param size of the content, bytes */
  constructor(size: number) {
    this.size = size;
    this.leaves = Math.ceil(size / HASH_LEAF);
    let reach = HASH_FANOUT;
    this.addLevel();
    while (reach < this.leaves) {
      this.addLevel();
      reach *= HASH_FANOUT;
    }
  }

  /** bytes of the leaf; the last may be shorter than HASH_LEAF */
  leafLength(leaf: number): number {
    return Math.min(HASH_LEAF, this.size - leaf * HASH_LEAF);
  }

  /** Takes a whole leaf. Leaves come in ascending order; those left out are zero. */
  update(leaf: number, bytes: Buffer): void {
    if (leaf < this.nextLeaf || leaf >= this.leaves) throw new RangeError(`leaf ${leaf} out of order or out of range`);
    if (bytes.length !== this.leafLength(leaf)) throw new RangeError(`leaf ${leaf} has ${bytes.length} bytes`);
    this.nextLeaf = leaf + 1;
    if (isZero(bytes)) return;
    this.leafHasher.reset();
    this.leafHasher.update(bytes);
    this.put(0, leaf, this.leafHasher.digestBuffer());
  }

  /** @returns 64 hex digits; the object is spent */
  digest(): string {
    let top: Buffer = Buffer.alloc(HASH_BYTES);
    for (let index = 0; index < this.levels.length; index++) {
      const level = this.levels[index]!;
      if (!level.touched) continue;
      const hash = this.nodeHash(index, level);
      if (index + 1 < this.levels.length) this.put(index + 1, level.node, hash);
      else top = hash;
    }
    const root = Blake3Hasher.newDeriveKey(CONTEXT_ROOT);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(this.size));
    root.update(size);
    root.update(top);
    return root.digest('hex');
  }

  private addLevel(): void {
    this.levels.push({ node: 0, children: Buffer.alloc(HASH_FANOUT * HASH_BYTES), touched: false });
  }

  /** Puts a child's hash that is not zero; a node that is left behind goes up first. */
  private put(index: number, child: number, hash: Buffer): void {
    const level = this.levels[index]!;
    const node = Math.floor(child / HASH_FANOUT);
    if (node !== level.node) {
      if (level.touched) {
        this.put(index + 1, level.node, this.nodeHash(index, level));
        level.children.fill(0);
        level.touched = false;
      }
      level.node = node;
    }
    hash.copy(level.children, (child % HASH_FANOUT) * HASH_BYTES);
    level.touched = true;
  }

  private nodeHash(index: number, level: Level): Buffer {
    const hasher = Blake3Hasher.newDeriveKey(CONTEXT_NODE);
    hasher.update(Buffer.from([index + 1]));
    hasher.update(level.children);
    return hasher.digestBuffer();
  }
}
