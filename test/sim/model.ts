/**
 * What must be read, kept beside the engine: for every sector the values it may have now, and those it may have after a crash.
 *
 * The workload never has two writes of one sector on their way at once, so the writes of a sector have an order. A read may find
 * the last one that was answered before the read was asked, or anything later. A crash may leave the last one that a finished flush
 * covers, or anything later.
 */

import { ROT_MIN } from './disk.ts';

/** A sector that nobody can say anything of: quarantine answered EIO. */
export const UNREADABLE = 0xffffffff;

/** Rot, or a copy of it, or what quarantine keeps from being read. */
export function isWild(value: number): boolean {
  return value >= ROT_MIN;
}

/** Something that changes sectors [from, from + count). */
export interface Write {
  from: number;
  count: number;
  /** value of the first sector, the next ones count up; 0: zeroes */
  base: number;
  /** the value is `base` again after so many sectors; 0: never, and nobody else writes these values */
  cycle: number;
  /** when it was asked */
  issued: number;
  /** when it was answered; Infinity: not yet */
  answered: number;
  /** answered with an error: each sector may be old or new */
  failed: boolean;
}

/** What a write leaves in the sector `i` sectors after its first. */
export function writtenBy(write: Write, i: number): number {
  if (write.base === 0) return 0;
  return write.base + (write.cycle === 0 ? i : i % write.cycle);
}

const BEFORE_ALL = -1;

/** A sector's values in the order of their writes. */
interface Cell {
  values: number[];
  writes: (Write | null)[];
  /** index of the oldest one that a crash may leave */
  durable: number;
}

/** Index of the last value that must have been there at `time`. */
function settledAt(cell: Cell, time: number): number {
  for (let i = cell.values.length - 1; i > 0; i--) {
    const write = cell.writes[i];
    if (write === null || (write.answered < time && !write.failed)) return i;
  }
  return 0;
}

/** Why something that was read cannot be. */
export class Mismatch extends Error {}

/** The bytes of a live volume. */
export class Content {
  size: number;
  readonly #cells = new Map<number, Cell>();
  /** sectors with more than one value */
  readonly #open = new Set<number>();
  /** reads and snapshots on their way: what they may find must be remembered */
  observers = 0;

  constructor(size: number) {
    this.size = size;
  }

  static of(size: number, values: ReadonlyMap<number, number>): Content {
    const content = new Content(size);
    for (const [sector, value] of values) content.#cells.set(sector, { values: [value], writes: [null], durable: 0 });
    return content;
  }

  issue(write: Write): void {
    if (write.base === 0) {
      // sectors never written are zero before and after
      this.#eachCell(write.from, write.count, (sector, cell) => this.#add(sector, cell, 0, write));
      return;
    }
    for (let i = 0; i < write.count; i++) {
      const sector = write.from + i;
      let cell = this.#cells.get(sector);
      if (cell === undefined) {
        cell = { values: [0], writes: [null], durable: 0 };
        this.#cells.set(sector, cell);
      }
      this.#add(sector, cell, writtenBy(write, i), write);
    }
  }

  #add(sector: number, cell: Cell, value: number, write: Write): void {
    cell.values.push(value);
    cell.writes.push(write);
    this.#open.add(sector);
  }

  #eachCell(from: number, count: number, run: (sector: number, cell: Cell) => void): void {
    if (count < this.#cells.size) {
      for (let s = from; s < from + count; s++) {
        const cell = this.#cells.get(s);
        if (cell !== undefined) run(s, cell);
      }
    } else {
      for (const [s, cell] of this.#cells) if (s >= from && s < from + count) run(s, cell);
    }
  }

  /** A flush that was asked at `issued` has been answered. */
  flushed(issued: number): void {
    for (const sector of this.#open) {
      const cell = this.#cells.get(sector) as Cell;
      cell.durable = Math.max(cell.durable, settledAt(cell, issued));
      this.#compact(sector, cell);
    }
  }

  /** A write that asked for it is durable by itself. */
  durable(write: Write): void {
    this.#eachCell(write.from, write.count, (sector, cell) => {
      cell.durable = Math.max(cell.durable, cell.writes.lastIndexOf(write));
      this.#compact(sector, cell);
    });
  }

  #compact(sector: number, cell: Cell): void {
    if (this.observers > 0) return;
    if (cell.durable > 0) {
      cell.values.splice(0, cell.durable);
      cell.writes.splice(0, cell.durable);
      cell.durable = 0;
    }
    if (cell.values.length === 1) this.#open.delete(sector);
  }

  /** Checks what a read that was asked at `issued` found from sector `from` on. */
  checkRead(found: Uint32Array, from: number, issued: number): void {
    for (let i = 0; i < found.length; i++) {
      const cell = this.#cells.get(from + i);
      const value = found[i];
      if (isWild(value)) continue;
      if (cell === undefined) {
        if (value !== 0) throw new Mismatch(`sector ${from + i} reads ${value}, was never written`);
        continue;
      }
      let ok = false;
      const first = settledAt(cell, issued);
      for (let k = cell.values.length - 1; k >= first && !ok; k--) ok = cell.values[k] === value;
      if (!ok)
        throw new Mismatch(`sector ${from + i} reads ${value}, may be ${cell.values.slice(first)} of ${cell.values}`);
    }
  }

  /** What a crash may have left in a sector. */
  afterCrash(sector: number): readonly number[] {
    const cell = this.#cells.get(sector);
    return cell === undefined ? [0] : cell.values.slice(cell.durable);
  }

  /** Every sector that ever had something. */
  sectors(): Iterable<number> {
    return this.#cells.keys();
  }

  /** Each sector's values that a snapshot asked at `issued` may have. */
  snapshot(issued: number): Map<number, number[]> {
    const values = new Map<number, number[]>();
    for (const [sector, cell] of this.#cells) values.set(sector, cell.values.slice(settledAt(cell, issued)));
    return values;
  }

  /** After a crash it may as well have been another one: of what cannot be read nobody knows which. */
  orAs(other: Content, found: ReadonlyMap<number, number>): void {
    for (const [sector, value] of found) {
      if (!isWild(value)) continue;
      const known = this.afterCrash(sector);
      for (const base of other.afterCrash(sector)) {
        if (known.includes(base)) continue;
        const cell = this.#cells.get(sector) ?? { values: [0], writes: [null], durable: 0 };
        this.#cells.set(sector, cell);
        const write: Write = { from: sector, count: 1, base, cycle: 0, issued: 0, answered: 0, failed: true };
        this.#add(sector, cell, base, write);
      }
    }
  }

  /**
   * After a crash: `found` is what is there. When only the daemon died it is in the kernel's cache, and what a power cut may
   * leave stays as uncertain as before, until a flush.
   */
  survived(found: ReadonlyMap<number, number>, powerCut: boolean, now: number): void {
    for (const [sector, cell] of this.#cells) {
      const value = found.get(sector) ?? 0;
      if (isWild(value)) {
        // any that the crash may have left, if it is ever found again
        const writes = cell.writes.slice(cell.durable).map((write) => write && { ...write, failed: true });
        this.#cells.set(sector, {
          values: cell.values.slice(cell.durable),
          writes: [null, ...writes.slice(1)],
          durable: 0,
        });
        continue;
      }
      if (powerCut || cell.values.length === 1) {
        this.#cells.set(sector, { values: [value], writes: [null], durable: 0 });
        this.#open.delete(sector);
      } else {
        const write: Write = {
          from: sector,
          count: 1,
          base: value,
          cycle: 0,
          issued: now,
          answered: now,
          failed: false,
        };
        this.#add(sector, cell, value, write);
      }
    }
    this.observers = 0;
  }

  /** Everything that was answered is durable: a clean stop. */
  stopped(): void {
    this.observers = 0;
    this.flushed(Number.POSITIVE_INFINITY);
  }

  /** Sectors from `from` on are no more. */
  cut(from: number): void {
    for (const sector of [...this.#cells.keys()]) {
      if (sector < from) continue;
      this.#cells.delete(sector);
      this.#open.delete(sector);
    }
  }

  copy(): Content {
    const content = new Content(this.size);
    for (const [sector, cell] of this.#cells)
      content.#cells.set(sector, { values: [...cell.values], writes: [...cell.writes], durable: cell.durable });
    for (const sector of this.#open) content.#open.add(sector);
    return content;
  }
}

/** A snapshot: first what it may be, then, once it was read, what it is. */
export class Frozen {
  #may: Map<number, number[]> | null;
  #is = new Map<number, number>();

  constructor(
    readonly size: number,
    may: Map<number, number[]>,
    /** writes that were on their way while it was taken */
    readonly window: readonly Write[],
  ) {
    this.#may = may;
  }

  get known(): boolean {
    return this.#may === null;
  }

  /** The values of its sectors that are not zero; it is known. */
  get values(): ReadonlyMap<number, number> {
    return this.#is;
  }

  sectors(): Iterable<number> {
    return this.#may === null ? this.#is.keys() : this.#may.keys();
  }

  /** Checks a whole reading; the first one without rot decides what it is from then on. */
  read(found: ReadonlyMap<number, number>): void {
    if (this.#may !== null) {
      this.#decide(found, this.#may);
      return;
    }
    for (const [sector, value] of found)
      if (!isWild(value) && (this.#is.get(sector) ?? 0) !== value)
        throw new Mismatch(`sector ${sector} of a snapshot was ${this.#is.get(sector) ?? 0} and reads ${value}`);
    for (const [sector, value] of this.#is)
      if (!found.has(sector)) throw new Mismatch(`sector ${sector} of a snapshot was ${value} and reads 0`);
  }

  #decide(found: ReadonlyMap<number, number>, may: Map<number, number[]>): void {
    const wild = [...found.values()].some(isWild);
    for (const [sector, value] of found)
      if (!isWild(value) && !(may.get(sector) ?? [0]).includes(value))
        throw new Mismatch(`sector ${sector} of a snapshot reads ${value}, may be ${may.get(sector) ?? [0]}`);
    for (const [sector, values] of may)
      if (!isWild(found.get(sector) ?? 0) && !values.includes(found.get(sector) ?? 0))
        throw new Mismatch(`sector ${sector} of a snapshot reads ${found.get(sector) ?? 0}, may be ${values}`);
    if (wild) return;
    this.#consistent(found, may);
    for (const [sector, value] of found) this.#is.set(sector, value);
    this.#may = null;
  }

  /** If B was issued after A was answered and B is in, A is in (invariant 5). */
  #consistent(found: ReadonlyMap<number, number>, may: Map<number, number[]>): void {
    let latest = BEFORE_ALL;
    for (const write of this.window) {
      if (write.base === 0 || write.cycle !== 0 || write.issued <= latest) continue;
      for (let i = 0; i < write.count; i++) if (found.get(write.from + i) === write.base + i) latest = write.issued;
    }
    for (const write of this.window) {
      if (write.base === 0 || write.cycle !== 0 || write.failed || write.answered >= latest) continue;
      for (let i = 0; i < write.count; i++) {
        const values = may.get(write.from + i) ?? [0];
        const at = values.indexOf(write.base + i);
        const is = values.lastIndexOf(found.get(write.from + i) ?? 0);
        if (at >= 0 && is < at)
          throw new Mismatch(
            `a snapshot lacks sector ${write.from + i} of a write that was answered before another in it`,
          );
      }
    }
  }
}
