/**
 * When a pool's copies of the store are made, and when they have to go (docs/format.md, "Copies of the store"). The copier's
 * thread writes them; here is decided, for each pool by itself, since what a copy may name binds its pool's freed slots.
 */
import { COPY_NAMES, type CopyPlace } from '../copies/place.ts';
import type { CopierAnswer, CopierRequest } from '../copies/requests.ts';
import type { Clock } from './clock.ts';
import type { SlotPool } from './slots.ts';

/** Held slots make a copy due after this (or the interval, where that is shorter)… */
export const HELD_MS = 10_000;
/** …or after so many times what the last one took, so that copying has little of the machine. */
const HELD_TIMES = 50;
/** One that failed is tried again after this, at most. */
export const RETRY_MS_MAX = 60_000;
/** Removing that failed is tried again after this. */
const DROP_RETRY_MS = 1000;
/** Somebody has waited for slots for so long: no copy is worth more. */
export const PRESSED_MS_MAX = 5_000;
/** With somebody waiting, a copy is made if the last one ended more than so many of its own times ago. */
const PRESSED_TIMES = 9;

/** A copy that is named. */
export interface Generation {
  name: string;
  /** −1: damaged, nothing can be recovered from it */
  sequence: number;
  /** Unix ms */
  takenAt: number;
  /** of the store */
  bytes: number;
}

export interface CopiesHost {
  /** to the copier's thread */
  send(request: CopierRequest): void;
  nextSequence(): number;
  /** rises with every commit */
  commits(): number;
  log(level: 'info' | 'warn' | 'error', event: string, fields: Record<string, unknown>): void;
}

/** What `pool show` says. */
export interface CopiesView {
  state: 'ok' | 'none' | 'off' | 'unsupported';
  reason: string | null;
  /** Unix ms; 0 none */
  takenAt: number;
  bytes: number;
  generations: number;
  heldBytes: number;
}

class PoolCopies {
  /** the newest first */
  generations: Generation[];
  busy: 'no' | 'writing' | 'dropping' = 'no';
  /** of the one that is being written */
  writing: { name: string; sequence: number; clean: boolean; hurried: boolean; cancelled: boolean } | null = null;
  dropping: string[] = [];
  /** generations from before this start */
  old: Set<string>;
  /** commits when the newest was begun; −1 never in this run */
  commits = -1;
  /** monotonic ms: when the last one ended, and how long it took */
  ended = 0;
  took = 0;
  /** monotonic ms: when one may be tried again after a failure, and when removing may be */
  retryAt = 0;
  dropAt = 0;
  /** monotonic ms since when somebody waits, 0 nobody */
  pressedAt = 0;
  reason: string | null = null;
  finished = false;

  constructor(
    readonly pool: SlotPool,
    readonly place: CopyPlace,
    found: Generation[],
  ) {
    this.generations = found;
    this.old = new Set(found.map(({ name }) => name));
    pool.holding.on = found.length > 0;
    pool.oldCopies = found.length > 0;
  }
}

export class Copies {
  #pools = new Map<number, PoolCopies>();
  /** pools that have no place for copies */
  #without = new Set<number>();
  #started: number;
  #finishing: (() => void) | null = null;

  /** @param intervalMs oldest that a copy may become while the store changes; 0: there are none */
  constructor(
    readonly intervalMs: number,
    readonly home: { uuid: string; line: string },
    readonly clock: Clock,
    readonly host: CopiesHost,
  ) {
    this.#started = clock.date();
  }

  /**
   * @param place of its copies; null: it has none
   * @param found the copies that it carries, the newest first
   */
  add(pool: SlotPool, place: CopyPlace | null, found: Generation[]): void {
    if (place === null) this.#without.add(pool.id);
    else if (this.intervalMs > 0) this.#pools.set(pool.id, new PoolCopies(pool, place, found));
  }

  view(pool: SlotPool): CopiesView {
    const heldBytes = pool.heldSlots * pool.blockSize;
    const nothing = { takenAt: 0, bytes: 0, generations: 0, heldBytes };
    if (this.#without.has(pool.id)) {
      const reason = `this ${pool.row.kind} has no place for one: it is too small, or an older Atoll made it; use \`atoll backup\``;
      return { state: 'unsupported', reason, ...nothing };
    }
    const copies = this.#pools.get(pool.id);
    if (copies === undefined) return { state: 'off', reason: 'the daemon was started with --copy-every 0', ...nothing };
    const newest = copies.generations[0];
    if (newest === undefined || newest.sequence < 0)
      return { state: 'none', reason: copies.reason ?? 'none was made yet', ...nothing };
    const { takenAt, bytes } = newest;
    return { state: 'ok', reason: copies.reason, takenAt, bytes, generations: copies.generations.length, heldBytes };
  }

  /** Somebody waits for held slots: turns must not be far between. */
  get waitedFor(): boolean {
    for (const { pool } of this.#pools.values()) if (pool.pressed) return true;
    return false;
  }

  /** Every turn of the mapper. */
  turn(now: number): void {
    for (const copies of this.#pools.values()) {
      if (this.#finishing !== null) this.#finish(copies);
      else if (copies.busy !== 'no') this.#watch(copies, now);
      else if (!copies.pool.failed) this.#look(copies, now);
    }
    if (this.#finishing === null) return;
    for (const copies of this.#pools.values()) if (!copies.finished) return;
    const done = this.#finishing;
    this.#finishing = null;
    this.#pools.clear();
    done();
  }

  /** A clean stop: last copies of what will not change any more. `done` runs when they are there, or cannot be. */
  finish(done: () => void): void {
    this.#finishing = done;
  }

  #finish(copies: PoolCopies): void {
    if (copies.finished || copies.busy === 'dropping') return;
    const { writing } = copies;
    if (writing === null) {
      if (copies.pool.hasFailed()) copies.finished = true;
      else this.#write(copies, false, true);
    } else if (!writing.clean && !writing.cancelled) {
      writing.cancelled = true;
      this.host.send({ op: 'cancel', pool: copies.pool.id });
    }
  }

  #look(copies: PoolCopies, now: number): void {
    const { pool } = copies;
    if (pool.pressed || pool.copiesStay) this.#pressed(copies, now);
    else if (now >= copies.retryAt && this.#due(copies, now)) this.#write(copies, true, false);
  }

  #due(copies: PoolCopies, now: number): boolean {
    const heldMs = Math.max(Math.min(HELD_MS, this.intervalMs), copies.took * HELD_TIMES);
    if (copies.pool.heldSlots > 0 && now - copies.ended >= heldMs) return true;
    if (this.host.commits() === copies.commits) return false;
    const newest = copies.generations[0];
    const since = newest === undefined || newest.sequence < 0 ? this.#started : newest.takenAt;
    return Math.abs(this.clock.date() - since) >= this.intervalMs;
  }

  /** Somebody waits for slots that copies hold: the cheapest that lets some go. */
  #pressed(copies: PoolCopies, now: number): void {
    const { pool, generations } = copies;
    if (copies.pressedAt === 0) copies.pressedAt = now;
    if (now < copies.dropAt) return;
    if (pool.heldSlots === 0) this.#letGo(copies);
    else if (generations.length > 1 && pool.holding.heldByOlder > 0) this.#drop(copies, [generations[1].name]);
    else if (now < copies.retryAt || now - copies.pressedAt > PRESSED_MS_MAX) {
      const all = generations.map(({ name }) => name);
      this.#drop(copies, all);
    } else if (copies.took === 0 || now - copies.ended >= copies.took * PRESSED_TIMES)
      this.#write(copies, false, false);
  }

  #watch(copies: PoolCopies, now: number): void {
    const { pool, writing } = copies;
    if (writing === null || !pool.pressed) return;
    if (copies.pressedAt === 0) copies.pressedAt = now;
    if (!writing.hurried) {
      writing.hurried = true;
      this.host.send({ op: 'hurry', pool: pool.id });
    }
    if (now - copies.pressedAt > PRESSED_MS_MAX && !writing.cancelled) {
      writing.cancelled = true;
      this.host.send({ op: 'cancel', pool: pool.id });
    }
  }

  #write(copies: PoolCopies, paced: boolean, clean: boolean): void {
    const { pool, generations } = copies;
    // a damaged one is replaced first, else the older
    const name =
      COPY_NAMES.find((one) => !generations.some((g) => g.name === one)) ?? generations[generations.length - 1].name;
    const sequence = this.host.nextSequence();
    copies.busy = 'writing';
    copies.writing = { name, sequence, clean, hurried: !paced, cancelled: false };
    copies.commits = this.host.commits();
    pool.holding.begun();
    this.host.send({
      op: 'write',
      pool: pool.id,
      place: copies.place,
      homeUuid: this.home.uuid,
      line: this.home.line,
      poolUuid: pool.row.uuid,
      sequence,
      name,
      clean,
      paced,
    });
  }

  #drop(copies: PoolCopies, names: string[]): void {
    if (names.length === 0) {
      // none is named and none is being written
      copies.pool.holding.allGone();
      this.#letGo(copies);
      return;
    }
    copies.busy = 'dropping';
    copies.dropping = names;
    this.host.send({ op: 'drop', pool: copies.pool.id, place: copies.place, names });
  }

  /** The copier's answer. */
  result(answer: CopierAnswer): void {
    const copies = this.#pools.get(answer.pool);
    if (copies === undefined) return;
    if (answer.op === 'drop') this.#dropped(copies, answer);
    else if (answer.error === null) this.#written(copies, answer);
    else this.#failed(copies, answer.error, answer);
    copies.busy = 'no';
    copies.writing = null;
  }

  #written(copies: PoolCopies, answer: CopierAnswer): void {
    const { name, sequence, clean } = copies.writing as NonNullable<PoolCopies['writing']>;
    const rest = copies.generations.filter((g) => g.name !== name);
    copies.generations = [{ name, sequence, takenAt: answer.takenAt, bytes: answer.bytes }, ...rest];
    copies.took = answer.ms;
    copies.ended = this.clock.now();
    copies.reason = null;
    copies.retryAt = 0;
    copies.finished ||= clean;
    copies.pool.copiesStay = false;
    this.#noLongerOld(copies, [name]);
    copies.pool.holding.completed(rest.length === 0);
    if (copies.pool.holding.ready > 0) this.#letGo(copies);
  }

  #failed(copies: PoolCopies, error: { code: string; message: string }, { unnamed, naming }: CopierAnswer): void {
    const { pool, writing } = copies;
    const { name, clean, cancelled } = writing as NonNullable<PoolCopies['writing']>;
    copies.finished ||= clean;
    copies.commits = -1;
    copies.ended = this.clock.now();
    pool.holding.failed();
    copies.retryAt = this.clock.now() + Math.min(RETRY_MS_MAX, this.intervalMs);
    if (!cancelled) {
      copies.reason = `the last copy could not be made: ${error.message}`;
      this.host.log('warn', 'a copy of the store could not be made', {
        pool: pool.row.name,
        code: error.code,
        reason: error.message,
      });
    }
    if (unnamed) {
      const older = copies.generations[1]?.name === name;
      copies.generations = copies.generations.filter((g) => g.name !== name);
      this.#noLongerOld(copies, [name]);
      if (older) pool.holding.olderGone();
    }
    if (naming) {
      // It may be there: a generation that nothing is expected of, and that holds what a copy holds until it is replaced or gone.
      const rest = copies.generations.filter((g) => g.name !== name);
      copies.generations = [...rest, { name, sequence: -1, takenAt: 0, bytes: 0 }];
    }
    if (copies.generations.length === 0) pool.holding.allGone();
    else if (!unnamed) return;
    this.#letGo(copies);
  }

  #dropped(copies: PoolCopies, answer: CopierAnswer): void {
    const { pool } = copies;
    if (answer.error !== null) {
      // they may still be named: nothing is let go
      const now = this.clock.now();
      copies.dropAt = now + DROP_RETRY_MS;
      if (now - copies.pressedAt > PRESSED_MS_MAX && !pool.copiesStay) {
        pool.copiesStay = true;
        pool.letGo();
      }
      this.host.log('error', 'copies of the store could not be removed; space that they hold does not come back', {
        pool: pool.row.name,
        reason: answer.error.message,
      });
      return;
    }
    copies.generations = copies.generations.filter((g) => !copies.dropping.includes(g.name));
    this.#noLongerOld(copies, copies.dropping);
    if (copies.generations.length > 0) pool.holding.olderGone();
    else {
      pool.holding.allGone();
      copies.reason = 'given up for space: the pool was full but for what copies held; the next comes in its time';
      copies.retryAt = this.clock.now() + this.intervalMs;
      this.host.log('warn', 'the pool was full: its copies of the store were removed', { pool: pool.row.name });
    }
    this.#letGo(copies);
  }

  #noLongerOld(copies: PoolCopies, names: string[]): void {
    for (const name of names) copies.old.delete(name);
    copies.pool.oldCopies = copies.old.size > 0;
  }

  #letGo(copies: PoolCopies): void {
    copies.pressedAt = 0;
    copies.pool.copiesStay = false;
    copies.pool.letGo();
  }
}
