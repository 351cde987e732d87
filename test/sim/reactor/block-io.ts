/** Asynchronous block I/O of a reactor. Each has two steps: its bytes move, and the reactor hears of it. */
import type { SimDisk } from '../disk.ts';
import type { SimNative } from '../native.ts';
import type { Rng } from '../rng.ts';
import type { Work } from './work.ts';

/** Some takes long enough for what it looked up to be given up, freed and used again meanwhile. */
const SLOW_MS = [200, 2000, 10_000];
/** what a reactor publishes that holds nothing */
export const EPOCH_IDLE = Number.POSITIVE_INFINITY;

export interface Io {
  work: Work;
  epoch: number;
  /** what moves the bytes; null when they have moved */
  run: (() => number) | null;
  error: number;
  address: number;
  length: number;
  /** nothing of it happens before: some disks are slow now and then */
  due: number;
}

export class BlockIo {
  readonly #ios: Io[] = [];

  constructor(
    readonly native: SimNative,
    readonly rng: Rng,
  ) {}

  start(work: Work, epoch: number, address: number, length: number, run: () => number): void {
    const { native, rng } = this;
    const due = native.clock.now() + (rng.chance(native.slowShare) ? rng.int(rng.pick(SLOW_MS)) * native.time : 0);
    this.#ios.push({ work, epoch, run, error: 0, address, length, due });
  }

  /** How many could go on now. */
  get ready(): number {
    const now = this.native.clock.now();
    let count = 0;
    for (const io of this.#ios) if (io.due <= now) count++;
    return count;
  }

  /** One that could go on now. */
  pick(): Io {
    const now = this.native.clock.now();
    return this.rng.pick(this.#ios.filter((one) => one.due <= now));
  }

  /** The reactor has heard of it. */
  remove(io: Io): void {
    this.#ios.splice(this.#ios.indexOf(io), 1);
  }

  /** Epoch of the oldest. */
  get oldest(): number {
    let oldest = EPOCH_IDLE;
    for (const io of this.#ios) oldest = Math.min(oldest, io.epoch);
    return oldest;
  }

  /** True when one that has not moved its bytes yet is for bytes of this range of a pool. */
  holds(disk: SimDisk, address: number, length: number): boolean {
    return this.#ios.some(
      (io) =>
        io.run !== null &&
        this.native.diskOf(io.work.volume) === disk &&
        io.address < address + length &&
        address < io.address + io.length,
    );
  }

  /** Some move their bytes although the daemon is no more: they were with the kernel. */
  orphan(): void {
    for (const io of this.#ios) if (io.run !== null && this.rng.chance(0.5)) io.run();
  }
}
