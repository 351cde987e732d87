/**
 * Makes the map of a resource whose blocks are told from the first to the last: pages are full when they are written, but for
 * the right edge, which is written again with each batch. Nothing of it is in the page cache. The hash tree
 * (docs/format.md, "Resource hash") grows with it.
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { NODE_BYTES, nodeHash, ZERO_HASH } from '../seal/tree-hash.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';
import { PAGE_BLOB_MAX } from './commits.ts';
import { OWNED } from './frames.ts';

/** A page of the right edge. */
interface Node {
  /** page id; 0 while nothing below it has a slot */
  id: number;
  entries: Uint32Array;
  hashes: Buffer;
  /** entries that are told */
  count: number;
  /** blocks that have a slot below those */
  mapped: number;
  /** not in a batch since it changed */
  dirty: boolean;
}

/** Pages that are to be stored. */
export interface BuiltPages {
  /** [id, base, offset in `blob`, length] quads */
  pages: number[];
  blob: Uint8Array;
  /** pages that will not change any more, and HASH_BYTES each */
  hashed: number[];
  hashes: Buffer[];
  /** the page that is above all now; 0 none */
  root: number;
  height: number;
  mapped: number;
}

export class MapBuilder {
  /** blocks told so far */
  blocks = 0;
  #levels: Node[] = [];
  /** full pages that left the edge since the last batch */
  #done: { node: Node; level: number }[] = [];
  #hashed: number[] = [];
  #hashes: Buffer[] = [];

  constructor(
    readonly native: Native,
    /** in the pages' headers */
    readonly owner: number,
    readonly generation: number,
    readonly nextPage: () => number,
  ) {}

  /** pages that the next batch has, about */
  get pending(): number {
    return this.#done.length + this.#levels.length;
  }

  /** The next block is in `slot`. */
  add(slot: number, hash: Uint8Array): void {
    this.#push(0, slot + 1, hash, 1);
    this.blocks++;
  }

  /** The next `count` blocks have none. */
  skip(count: number): void {
    for (let left = count; left > 0; ) {
      let level = 0;
      let span = 1;
      while (this.blocks % (span * PAGE_ENTRIES) === 0 && left >= span * PAGE_ENTRIES) {
        span *= PAGE_ENTRIES;
        level++;
      }
      // what is full below is told to its parent before it
      for (let l = 0; l < level; l++) this.#rise(l);
      this.#push(level, 0, ZERO_HASH, 0);
      this.blocks += span;
      left -= span;
    }
  }

  #push(level: number, value: number, hash: Uint8Array, mapped: number): void {
    if (this.#at(level).count === PAGE_ENTRIES) this.#rise(level);
    // an open page has a place in its parent: what is full above it rises before it begins
    if (level + 1 < this.#levels.length && this.#levels[level + 1].count === PAGE_ENTRIES) this.#rise(level + 1);
    const node = this.#at(level);
    if (value !== 0) this.#set(node, node.count, value);
    node.hashes.set(hash, node.count * HASH_BYTES);
    node.count++;
    node.mapped += mapped;
    node.dirty = true;
  }

  #set(node: Node, index: number, value: number): void {
    if (node.id === 0) node.id = this.nextPage();
    node.entries[index * 2] = value % 2 ** 32;
    node.entries[index * 2 + 1] = (Math.floor(value / 2 ** 32) | OWNED) >>> 0;
  }

  #at(level: number): Node {
    while (this.#levels.length <= level) this.#levels.push(newNode());
    return this.#levels[level];
  }

  /** A page that ends: its parent learns of it, and the level begins anew. An empty one is nothing. */
  #rise(level: number): void {
    const node = this.#at(level);
    if (node.count === 0) return;
    const hash = nodeHash(level, node.hashes);
    this.#complete(node, level, hash);
    this.#levels[level] = newNode();
    this.#push(level + 1, node.id, hash, node.mapped);
  }

  #complete(node: Node, level: number, hash: Buffer): void {
    if (node.id === 0) return;
    this.#done.push({ node, level });
    this.#hashed.push(node.id);
    this.#hashes.push(hash);
  }

  /** What is to be stored now, so that all told so far hangs on `root`. */
  batch(): BuiltPages {
    const height = Math.max(0, this.#levels.length - 1);
    const pages: { node: Node; level: number; mapped: number }[] = this.#done.map(({ node, level }) => ({
      node,
      level,
      mapped: node.mapped,
    }));
    this.#done = [];
    let below = 0;
    let mapped = 0;
    for (let level = 0; level < this.#levels.length; level++) {
      const node = this.#levels[level];
      if (below !== 0) {
        // the open page below is its parent's entry before it is full
        this.#set(node, node.count, below);
        node.dirty = true;
      }
      mapped += node.mapped;
      if (node.id !== 0 && node.dirty) pages.push({ node, level, mapped });
      node.dirty = false;
      below = node.id;
    }
    return this.#encode(pages, below, height, mapped);
  }

  /** All blocks are told. @param height the least level that covers them; @returns the last pages and the top's hash */
  finish(height: number): { built: BuiltPages; hash: Buffer } {
    for (let level = 0; level < height; level++) this.#rise(level);
    const top = this.#at(height);
    const hash = nodeHash(height, top.hashes);
    if (top.id !== 0) {
      this.#hashed.push(top.id);
      this.#hashes.push(hash);
    }
    const pages = [...this.#done, { node: top, level: height }]
      .filter(({ node }) => node.id !== 0)
      .map(({ node, level }) => ({ node, level, mapped: node.mapped }));
    this.#done = [];
    return { built: this.#encode(pages, top.id, height, top.mapped), hash };
  }

  #encode(
    pages: { node: Node; level: number; mapped: number }[],
    root: number,
    height: number,
    mapped: number,
  ): BuiltPages {
    const blob = new Uint8Array(pages.length * PAGE_BLOB_MAX);
    const quads: number[] = [];
    let at = 0;
    for (const { node, level, mapped: below } of pages) {
      const { owner, generation } = this;
      const length = this.native.encodePageFrom(node.entries, level, node.id, 0, owner, generation, below, blob, at);
      quads.push(node.id, 0, at, length);
      at += length;
    }
    const hashed = this.#hashed;
    const hashes = this.#hashes;
    this.#hashed = [];
    this.#hashes = [];
    return { pages: quads, blob: blob.slice(0, at), hashed, hashes, root, height: root === 0 ? 0 : height, mapped };
  }
}

function newNode(): Node {
  return {
    id: 0,
    entries: new Uint32Array(PAGE_ENTRIES * 2),
    hashes: Buffer.alloc(NODE_BYTES),
    count: 0,
    mapped: 0,
    dirty: false,
  };
}
