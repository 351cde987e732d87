/**
 * Walks a snapshot's map for sealing, the deepest pages first, past subtrees that have a hash already: the cost is that of
 * what no sealed snapshot shares. Reads pages from the store: the cache is the guests'.
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { ZEROES } from '../page-table.ts';
import { NODE_BYTES, nodeHash, ZERO_HASH } from '../seal/tree-hash.ts';
import type { StoreReader } from '../store/reader.ts';
import { HASH_BYTES } from '../store/seal-batch.ts';

/** Leaves of a group, whatever few blocks they have: each takes 20 KiB until its row is durable. */
export const GROUP_LEAVES_MAX = 256;
/** Entries looked at in one step. */
const LOOKS_MAX = 1024;

interface Node {
  id: number;
  level: number;
  /** place among its parent's children */
  at: number;
  /** page ids, 0 none */
  children: number[];
  next: number;
  hashes: Buffer;
}

/** A leaf whose blocks have to be hashed. */
export interface Leaf {
  id: number;
  at: number;
  /** PAGE_ENTRIES slots, −1 where there is none */
  slots: Float64Array;
  /** children of its node; whoever hashes the blocks fills them in */
  hashes: Buffer;
  /** entries that are not −1 */
  present: number;
}

/** 'more': call again; 'group': `leaves` are to be hashed; 'gone': a page was freed; 'broken': one is damaged */
export type Step = 'more' | 'group' | 'done' | 'gone' | 'broken';

export class SealWalk {
  leaves: Leaf[] = [];
  /** nodes of inner pages that nobody has stored yet: ids, and their hashes */
  ids: number[] = [];
  hashes: Buffer[] = [];
  /** when done: the node that covers all */
  result: Buffer = ZERO_HASH;
  #stack: Node[] = [];
  #words = new Uint32Array(PAGE_ENTRIES * 2);
  #header = new Float64Array(8);

  /**
   * @param root page id or 0
   * @param level of the root
   * @param height the least level that covers the resource: levels above it have one child
   * @param slotsMax of a group, unless one leaf has more
   * @param taken told of every leaf as it is read
   */
  constructor(
    readonly reader: StoreReader,
    readonly native: Native,
    readonly root: number,
    readonly level: number,
    readonly height: number,
    readonly slotsMax: number,
    readonly taken: (page: number) => void,
  ) {}

  step(): Step {
    if (this.#stack.length === 0) {
      const top = this.#top();
      if (typeof top === 'string') return top;
      this.#push(0, this.height + 1, 0, [top]);
    }
    let looks = 0;
    for (;;) {
      const node = this.#stack[this.#stack.length - 1];
      if (node.next === node.children.length) {
        if (this.leaves.length > 0) return 'group';
        if (this.#complete(node)) return 'done';
        continue;
      }
      if (this.#full()) return 'group';
      if (looks++ === LOOKS_MAX) return 'more';
      const step = this.#child(node);
      if (step !== null) return step;
    }
  }

  /** A leaf's node is known. */
  hashed(leaf: Leaf, hash: Buffer): void {
    const node = this.#stack[this.#stack.length - 1];
    node.hashes.set(hash, leaf.at * HASH_BYTES);
  }

  #full(): boolean {
    if (this.leaves.length >= GROUP_LEAVES_MAX) return true;
    let slots = 0;
    for (const leaf of this.leaves) slots += leaf.present;
    return this.leaves.length > 0 && slots + PAGE_ENTRIES > this.slotsMax;
  }

  /** The page of level `height`: below roots that are higher than the size needs. */
  #top(): number | 'gone' | 'broken' {
    let id = this.root;
    for (let at = this.level; at > this.height && id !== 0; at--) {
      const read = this.#read(id, at);
      if (read !== null) return read;
      id = this.#value(0);
    }
    return id;
  }

  #child(node: Node): Step | null {
    const at = node.next;
    const id = node.children[at];
    const known = id === 0 ? ZERO_HASH : this.reader.seal.page(id);
    if (known !== undefined) {
      node.hashes.set(known, at * HASH_BYTES);
      node.next++;
      return null;
    }
    const level = node.level - 1;
    const read = this.#read(id, level);
    if (read !== null) return read;
    node.next++;
    if (level > 0) {
      this.#push(
        id,
        level,
        at,
        Array.from({ length: PAGE_ENTRIES }, (_, i) => this.#value(i)),
      );
      return null;
    }
    const slots = Float64Array.from({ length: PAGE_ENTRIES }, (_, i) => this.#slot(i));
    const present = slots.reduce((sum, slot) => sum + (slot < 0 ? 0 : 1), 0);
    this.leaves.push({ id, at, slots, hashes: Buffer.alloc(NODE_BYTES), present });
    this.taken(id);
    return null;
  }

  #push(id: number, level: number, at: number, children: number[]): void {
    this.#stack.push({ id, level, at, children, next: 0, hashes: Buffer.alloc(NODE_BYTES) });
  }

  /** All children of a node are known. True for the last one, which stands above the whole. */
  #complete(node: Node): boolean {
    this.#stack.pop();
    const parent = this.#stack[this.#stack.length - 1];
    if (parent === undefined) {
      this.result = Buffer.from(node.hashes.subarray(0, HASH_BYTES));
      return true;
    }
    const hash = nodeHash(node.level, node.hashes);
    this.ids.push(node.id);
    this.hashes.push(hash);
    parent.hashes.set(hash, node.at * HASH_BYTES);
    return false;
  }

  #read(id: number, level: number): 'gone' | 'broken' | null {
    const blob = this.reader.page(id);
    if (blob === undefined) return 'gone';
    if (this.native.decodePageTo(blob, id, this.#words, this.#header) !== 0 || this.#header[0] !== level)
      return 'broken';
    return null;
  }

  /** −1: it reads as zeroes */
  #slot(index: number): number {
    const value = this.#value(index);
    return value === ZEROES ? -1 : value - 1;
  }

  #value(index: number): number {
    return this.#words[index * 2] + (this.#words[index * 2 + 1] & 0xffff) * 2 ** 32;
  }
}
