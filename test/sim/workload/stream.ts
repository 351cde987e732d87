/** A stream that is ingested, as its sender knows it: what comes, what of it went where, and whose turn it is. */
import { SECTOR } from '../disk.ts';
import type { Profile } from '../profiles.ts';
import type { Rng } from '../rng.ts';
import type { Resume, Wait } from '../world.ts';
import type { Values } from './values.ts';
import { type Range, WHOLE_SECTORS_MAX } from './volume.ts';

/** Streams have few pieces; some begin with enough blocks of zeroes for batches that are sent before their end. */
const LONG_BLOCKS = 4096;
/** What is sent at once: senders may send less than a piece has. */
const PIECE_BYTES = 4 * 1024 * 1024;
const PIECES_MAX = 6;
const PIECE_BLOCKS_MAX = 40;

/** A piece, or blocks of zeroes that nobody sends. */
export interface Part {
  /** first sector */
  from: number;
  blocks: number;
  /** null: skipped */
  sectors: Uint32Array | null;
}

export class Stream {
  readonly parts: Part[] = [];
  /** sectors of the whole */
  size = 0;
  /** what it holds, sectors that are not zero */
  readonly values = new Map<number, number>();
  /** where bytes are */
  windows: Range[] = [];
  failed: string | null = null;
  /** batches that were durable when the mapper last said so */
  durable = 0;
  /** pieces that were begun and have not come back */
  out = 0;
  #turn = 0;
  #waiting: Resume[] = [];

  constructor(
    readonly rng: Rng,
    readonly source: Values,
    readonly blockSectors: number,
    { streams }: Profile,
  ) {
    const count = 1 + rng.int(PIECES_MAX);
    const edge = () => (streams.edged ? 1 + rng.int(PIECE_BLOCKS_MAX) : 0);
    if (rng.chance(streams.long)) this.#zeroes(LONG_BLOCKS - edge());
    for (let i = 0; i < count; i++) {
      if (rng.chance(0.15)) this.#skip(rng.pick([1, 600, 300_000]));
      this.#piece(1 + rng.int(PIECE_BLOCKS_MAX));
    }
    // the last block may be a part of one
    const cut = rng.chance(0.4) ? rng.int(blockSectors) : 0;
    for (let i = 0; i < cut; i++) this.#erase(--this.size);
    if (this.size <= WHOLE_SECTORS_MAX) this.windows = [{ from: 0, to: 2 ** 45 }];
  }

  get #pieceBlocksMax(): number {
    return PIECE_BYTES / SECTOR / this.blockSectors;
  }

  #skip(blocks: number): void {
    this.parts.push({ from: this.size, blocks, sectors: null });
    this.size += blocks * this.blockSectors;
  }

  /** Zeroes that are sent. */
  #zeroes(blocks: number): void {
    for (let left = blocks; left > 0; left -= this.#pieceBlocksMax) this.#part(Math.min(left, this.#pieceBlocksMax));
  }

  #part(blocks: number): Uint32Array {
    const sectors = new Uint32Array(blocks * this.blockSectors);
    this.parts.push({ from: this.size, blocks, sectors });
    this.size += sectors.length;
    return sectors;
  }

  #piece(wanted: number): void {
    const { rng, source, blockSectors } = this;
    const blocks = Math.min(wanted, this.#pieceBlocksMax);
    const from = this.size;
    const sectors = this.#part(blocks);
    for (let b = 0; b < blocks; b++) {
      const what = rng.int(10);
      if (what < 2) continue;
      const first = what < 7 ? source.pattern(0) : source.fresh(blockSectors);
      for (let i = 0; i < blockSectors; i++) {
        sectors[b * blockSectors + i] = first + i;
        this.values.set(from + b * blockSectors + i, first + i);
      }
    }
    const last = this.windows[this.windows.length - 1];
    if (last?.to === from) last.to = this.size;
    else this.windows.push({ from, to: this.size });
  }

  #erase(sector: number): void {
    this.values.delete(sector);
    const { from, sectors } = this.parts[this.parts.length - 1];
    if (sectors !== null) sectors[sector - from] = 0;
  }

  // ---- turns

  /** Something of it has changed. */
  changed(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resume of waiting) resume(undefined as never);
  }

  /** Until `changed`. */
  readonly change: Wait = (resume) => void this.#waiting.push(resume);

  /** The mapper is told of parts in their order. */
  *turn(part: number): Generator<Wait, void, never> {
    while (this.#turn !== part) yield this.change;
  }

  passed(): void {
    this.#turn++;
    this.changed();
  }

  /** Parts whose turn has passed. */
  get told(): number {
    return this.#turn;
  }
}
