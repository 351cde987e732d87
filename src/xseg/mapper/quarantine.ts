/**
 * Slots whose bytes are not what they should be. Reactors learn of them by a bit in the entries that name them, set wherever
 * a leaf is shown to them and taken away when the slot is well again; a read of such an entry answers EIO.
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { StoreReader } from '../store/reader.ts';
import { BAD, type Frames } from './frames.ts';
import type { Resource } from './resource.ts';

export class Quarantine {
  #slots = new Map<number, Set<number>>();
  /** pools that had a slot in here: leaves that nobody saw when it left may still have the bit */
  #marked = new Set<number>();

  constructor(
    readonly frames: Frames,
    readonly reader: StoreReader,
    /** by segment handle */
    readonly resourceOf: (handle: number) => Resource | undefined,
  ) {}

  addPool(pool: number): void {
    const slots = new Set(this.reader.seal.bad(pool));
    this.#slots.set(pool, slots);
    if (slots.size > 0) this.#marked.add(pool);
  }

  has(pool: number, slot: number): boolean {
    return this.#slots.get(pool)?.has(slot) === true;
  }

  /** how many of a pool are in here */
  count(pool: number): number {
    return this.#slots.get(pool)?.size ?? 0;
  }

  /** slots of a pool, ascending */
  slots(pool: number): number[] {
    return [...(this.#slots.get(pool) ?? [])].sort((a, b) => a - b);
  }

  /** A leaf is about to be shown to reactors. */
  mark(pool: number, frame: number): void {
    const slots = this.#slots.get(pool);
    if (slots === undefined || !this.#marked.has(pool)) return;
    for (let i = 0; i < PAGE_ENTRIES; i++) {
      const value = this.frames.value(frame, i);
      if (value !== 0) this.#set(frame, i, value, slots.has(value - 1));
    }
  }

  /** From this call on reads of the slot answer EIO. */
  add(pool: number, slot: number): void {
    this.#slots.get(pool)?.add(slot);
    this.#marked.add(pool);
    this.#change(pool, slot, true);
  }

  /** The slot is well. */
  remove(pool: number, slot: number): void {
    if (this.#slots.get(pool)?.delete(slot)) this.#change(pool, slot, false);
  }

  /** Runs [slot, count, …] are free, durably: before anything else can be in them. No entry names them, so none has the bit. */
  freed(pool: number, runs: number[]): void {
    const slots = this.#slots.get(pool);
    if (slots === undefined) return;
    for (let i = 0; i < runs.length && slots.size > 0; i += 2)
      for (let slot = runs[i]; slot < runs[i] + runs[i + 1]; slot++) slots.delete(slot);
  }

  /** In all leaves that reactors see. */
  #change(pool: number, slot: number, bad: boolean): void {
    const { frames } = this;
    for (const [handle, leaves] of frames.leaves) {
      if (this.resourceOf(handle)?.row.pool !== pool) continue;
      for (const frame of leaves.values()) {
        if (frame === 0) continue;
        for (let i = 0; i < PAGE_ENTRIES; i++)
          if (frames.value(frame, i) === slot + 1) this.#set(frame, i, slot + 1, bad);
      }
    }
  }

  #set(frame: number, index: number, value: number, bad: boolean): void {
    const flags = this.frames.flags(frame, index);
    const wanted = (bad ? flags | BAD : flags & ~BAD) >>> 0;
    if (flags !== wanted) this.frames.set(frame, index, value, wanted);
  }
}
