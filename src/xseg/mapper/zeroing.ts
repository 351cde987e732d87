/**
 * Freed slots of a pool on their way back to zero: first until no reactor can hold them any more, then until their group
 * has collected what is freed beside them, then in the hands of native threads.
 *
 * Collecting matters: slots of one volume are freed in the order of its map, which is any order on disk. Punched one by
 * one, each is an extent of its own in the file system's journal and, under `discard`, a request of its own to the disk.
 */
import type { Native } from '../native.ts';
import { bitFill, findSetRun } from '../store/bitmap.ts';
import { type Clock, systemClock } from './clock.ts';

/** Work given to native threads at once: runs and bytes per job, jobs on their way. A device may have to write the bytes. */
const ZERO_RUNS_MAX = 1024;
const ZERO_BYTES_MAX = 64 * 1024 * 1024;
const ZERO_JOBS_MAX = 2;
/** While guests work and nobody waits for slots: one job at a time, and this share of the time. */
const BUSY_SHARE = 0.1;
const BUSY_PAUSE_MS_MAX = 1000;
/** Looked at again after this, when something collects or waits for reactors. */
const COLLECT_LOOK_MS = 20;
const HELD_LOOK_MS = 1;
/** A group is zeroed when nothing was freed in it for so long… */
export const COLLECT_QUIET_MS = 500;
/** …or when something waits for so long. */
export const COLLECT_MS_MAX = 5000;
/** A group that a volume allocates from waits until it is left, or so long: punching holds up writes into its file. */
export const COLLECT_BUSY_MS_MAX = 60_000;
/** Slots that could not be zeroed are tried again after this, while the pool has not failed. */
export const ZERO_RETRY_MS = 5000;

/** What is on its way in one group. */
interface Pending {
  /** 1 = in here at all: zeroed twice, the second time may be somebody's data */
  slots: Uint8Array;
  count: number;
  /** of them, those that could not be zeroed */
  lost: number;
  /** 1 = nobody can hold it; waits for its neighbours */
  due: Uint8Array;
  dueCount: number;
  /** monotonic ms of the first and of the last that became due */
  since: number;
  last: number;
}

export interface ZeroingHost {
  ticket(done: (error: number) => void): number;
  /** a volume allocates from this group */
  busy(grp: number): boolean;
  /** a run of one group reads as zeroes now */
  zeroed(slot: number, count: number): void;
  /** slots could not be zeroed; they are tried again later */
  lost(slots: number, error: number): void;
  /** a job ended, well or not */
  ended(): void;
  guestsBusy(now: number): boolean;
}

export class Zeroing {
  /** slots that are waiting or being zeroed */
  waitingSlots = 0;
  /** slots that could not be zeroed: nobody should wait for them */
  lostSlots = 0;
  #groups = new Map<number, Pending>();
  /** runs [slot, count, …] that a reactor may still hold, oldest first */
  #held: { epoch: number; runs: number[]; urgent: boolean }[] = [];
  /** runs of `lostSlots`, oldest first, and when to try again */
  #lost: { at: number; runs: number[] }[] = [];
  #jobs = 0;
  #pausedUntil = 0;

  constructor(
    readonly native: Native,
    readonly core: number,
    /** native handle of the pool */
    readonly handle: number,
    readonly blockSize: number,
    readonly groupSlots: number,
    readonly host: ZeroingHost,
    readonly clock: Clock = systemClock,
  ) {}

  /** Milliseconds until it wants a turn; a job that ends wakes the mapper. */
  waitMs(now: number): number {
    if (this.#held.length > 0) return HELD_LOOK_MS;
    if (this.waitingSlots > 0 && this.#jobs === 0) return Math.max(COLLECT_LOOK_MS, this.#pausedUntil - now);
    return this.#lost.length > 0 ? Math.max(0, this.#lost[0].at - now) : Number.POSITIVE_INFINITY;
  }

  /** Slots of a group that are in here, 1 = yes, and how many of them are coming; undefined when there are none. */
  pending(grp: number): { readonly slots: Uint8Array; readonly coming: number } | undefined {
    const group = this.#groups.get(grp);
    return group === undefined ? undefined : { slots: group.slots, coming: group.count - group.lost };
  }

  /**
   * @param epoch when it is safe no reactor holds them
   * @param runs [slot, count, …], none across a group's border, none pending already
   * @param urgent zero them without waiting for neighbours
   */
  add(epoch: number, runs: number[], urgent: boolean): void {
    if (runs.length === 0) return;
    for (let i = 0; i < runs.length; i += 2) {
      const grp = Math.floor(runs[i] / this.groupSlots);
      let group = this.#groups.get(grp);
      if (group === undefined) {
        const bytes = this.groupSlots / 8;
        const bitmaps = { slots: new Uint8Array(bytes), due: new Uint8Array(bytes) };
        group = { ...bitmaps, count: 0, lost: 0, dueCount: 0, since: 0, last: 0 };
        this.#groups.set(grp, group);
      }
      group.count += bitFill(group.slots, runs[i] - grp * this.groupSlots, runs[i + 1], true);
      this.waitingSlots += runs[i + 1];
    }
    this.#held.push({ epoch, runs, urgent });
  }

  /**
   * Starts what may be started.
   * @param hurry somebody waits for slots: do not collect
   */
  turn(hurry: boolean): void {
    if (this.#lost.length > 0) this.#retryLost();
    if (this.waitingSlots === 0) return;
    this.#release();
    if (this.#jobs >= ZERO_JOBS_MAX) return;
    const now = this.clock.now();
    if (!hurry && (now < this.#pausedUntil || (this.#jobs > 0 && this.host.guestsBusy(now)))) return;
    for (const [grp, group] of this.#groups) {
      if (group.dueCount === 0) continue;
      if (!hurry && !this.#ripe(grp, group, now)) continue;
      this.#start(grp, group);
      if (this.#jobs >= ZERO_JOBS_MAX || (!hurry && this.host.guestsBusy(now))) return;
    }
  }

  #ripe(grp: number, group: Pending, now: number): boolean {
    const waited = now - group.since;
    if (this.host.busy(grp)) return waited >= COLLECT_BUSY_MS_MAX;
    return waited >= COLLECT_MS_MAX || now - group.last >= COLLECT_QUIET_MS;
  }

  /** What no reactor can hold any more becomes due. */
  #release(): void {
    if (this.#held.length === 0) return;
    const safe = this.native.epochSafe(this.core);
    let released = 0;
    for (const item of this.#held) {
      if (item.epoch > safe) break;
      released++;
      this.#due(item.runs, item.urgent);
    }
    if (released > 0) this.#held.splice(0, released);
  }

  #due(runs: number[], urgent: boolean): void {
    const now = urgent ? Number.NEGATIVE_INFINITY : this.clock.now();
    for (let i = 0; i < runs.length; i += 2) {
      const grp = Math.floor(runs[i] / this.groupSlots);
      const group = this.#groups.get(grp) as Pending;
      if (group.dueCount === 0) group.since = now;
      group.last = now;
      group.dueCount += bitFill(group.due, runs[i] - grp * this.groupSlots, runs[i + 1], true);
    }
  }

  /** One job of what is due in a group; what is left of it is not held back again. */
  #start(grp: number, group: Pending): void {
    const first = grp * this.groupSlots;
    const runs: number[] = [];
    let room = Math.max(1, Math.floor(ZERO_BYTES_MAX / this.blockSize));
    let from = 0;
    while (room > 0 && runs.length < ZERO_RUNS_MAX * 2) {
      const [start, count] = findSetRun(group.due, this.groupSlots, from, room);
      if (count === 0) break;
      runs.push(first + start, count);
      group.dueCount -= bitFill(group.due, start, count, false);
      room -= count;
      from = start + count;
    }
    if (group.dueCount > 0) group.since = Number.NEGATIVE_INFINITY;
    const list = Float64Array.from(runs, (slots) => slots * this.blockSize);
    this.#jobs++;
    const started = this.clock.now();
    const ticket = this.host.ticket((error) => {
      this.#jobs--;
      const now = this.clock.now();
      if (this.host.guestsBusy(now))
        this.#pausedUntil = now + Math.min(BUSY_PAUSE_MS_MAX, (now - started) * (1 / BUSY_SHARE - 1));
      if (error !== 0) this.#lose(runs, error);
      else this.#done(grp, runs);
      this.host.ended();
    });
    this.native.zeroRuns(this.core, this.handle, list, list.length / 2, ticket);
  }

  #done(grp: number, runs: number[]): void {
    const group = this.#groups.get(grp) as Pending;
    for (let i = 0; i < runs.length; i += 2) {
      this.waitingSlots -= runs[i + 1];
      group.count -= bitFill(group.slots, runs[i] - grp * this.groupSlots, runs[i + 1], false);
    }
    if (group.count === 0) this.#groups.delete(grp);
    for (let i = 0; i < runs.length; i += 2) this.host.zeroed(runs[i], runs[i + 1]);
  }

  /** What could not be zeroed is no space for those who wait. */
  #lose(runs: number[], error: number): void {
    const slots = countOf(runs);
    this.waitingSlots -= slots;
    this.lostSlots += slots;
    this.#ofGroup(runs).lost += slots;
    this.#lost.push({ at: this.clock.now() + ZERO_RETRY_MS, runs });
    this.host.lost(slots, error);
  }

  #retryLost(): void {
    const now = this.clock.now();
    while (this.#lost.length > 0 && this.#lost[0].at <= now) {
      const { runs } = this.#lost.shift() as { runs: number[] };
      const slots = countOf(runs);
      this.lostSlots -= slots;
      this.waitingSlots += slots;
      this.#ofGroup(runs).lost -= slots;
      this.#due(runs, true);
    }
  }

  /** Of runs of one job, which are of one group. */
  #ofGroup(runs: number[]): Pending {
    return this.#groups.get(Math.floor(runs[0] / this.groupSlots)) as Pending;
  }
}

/** Slots in [slot, count] runs. */
function countOf(runs: number[]): number {
  let slots = 0;
  for (let i = 1; i < runs.length; i += 2) slots += runs[i];
  return slots;
}
