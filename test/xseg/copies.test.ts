/** When copies of the store are made and removed, against a pool and a copier that do what the test says. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { CopyPlace } from '../../src/xseg/copies/place.ts';
import type { CopierAnswer, CopierRequest } from '../../src/xseg/copies/requests.ts';
import { systemClock } from '../../src/xseg/mapper/clock.ts';
import { Copies, type Generation, HELD_MS, PRESSED_MS_MAX } from '../../src/xseg/mapper/copies.ts';
import { Holding } from '../../src/xseg/mapper/holding.ts';
import type { SlotPool } from '../../src/xseg/mapper/slots.ts';
import { POOL_ROW } from './pool-row.ts';

const INTERVAL_MS = 300_000;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['Date', 'performance'] });
});
afterEach(() => {
  vi.useRealTimers();
});

class Bench {
  readonly sent: CopierRequest[] = [];
  readonly logged: string[] = [];
  readonly holding = new Holding(64);
  readonly copies: Copies;
  readonly pool: SlotPool;
  commits = 0;
  woken = 0;
  #sequence = 10;

  constructor(found: Generation[] = [], row = {}, place: CopyPlace | null = { path: '/nowhere', area: 0 }) {
    const bench = this;
    this.pool = {
      row: { ...POOL_ROW, ...row },
      id: 1,
      blockSize: 65536,
      holding: this.holding,
      oldCopies: false,
      pressed: false,
      copiesStay: false,
      failed: false,
      get heldSlots() {
        return bench.holding.held;
      },
      hasFailed: () => false,
      letGo() {
        bench.pool.pressed = false;
        bench.woken++;
      },
    } as unknown as SlotPool;
    this.copies = new Copies(INTERVAL_MS, { uuid: 'home', line: 'line' }, systemClock, {
      send: (request) => void this.sent.push(request),
      nextSequence: () => this.#sequence++,
      commits: () => this.commits,
      log: (_level, event) => void this.logged.push(event),
    });
    this.copies.add(this.pool, place, found);
  }

  /** time passes, and the mapper turns */
  after(ms: number): CopierRequest[] {
    vi.advanceTimersByTime(ms);
    this.copies.turn(performance.now());
    return this.sent.splice(0);
  }

  answer(op: 'write' | 'drop', more: Partial<CopierAnswer> = {}): void {
    const answer = {
      pool: 1,
      op,
      error: null,
      takenAt: Date.now(),
      bytes: 4096,
      ms: 20,
      unnamed: false,
      naming: false,
    };
    this.copies.result({ ...answer, ...more });
  }

  /** two copies are there, and one more slot was freed since */
  ready(): this {
    for (let i = 0; i < 2; i++) {
      this.commits++;
      expect(this.after(INTERVAL_MS)).toMatchObject([{ op: 'write' }]);
      this.answer('write');
    }
    this.holding.add([5, 1]);
    return this;
  }
}

const named = (name: string, sequence: number): Generation => ({ name, sequence, takenAt: Date.now(), bytes: 4096 });

describe('a copy', () => {
  it('is made when the store changed and the newest is old, into the place of the older', () => {
    const t = new Bench();
    expect(t.after(INTERVAL_MS - 1)).toEqual([]);
    t.commits = 1;
    expect(t.after(1)).toMatchObject([{ op: 'write', name: 'store-copy.0', sequence: 10, paced: true, clean: false }]);
    t.answer('write');
    expect(t.after(2 * INTERVAL_MS)).toEqual([]);
    t.commits = 2;
    expect(t.after(0)).toMatchObject([{ op: 'write', name: 'store-copy.1', sequence: 11 }]);
    t.answer('write');
    t.commits = 3;
    expect(t.after(INTERVAL_MS)).toMatchObject([{ op: 'write', name: 'store-copy.0', sequence: 12 }]);
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'ok', generations: 2 });
  });

  it('takes the place of a damaged one first, and damaged ones hold slots too', () => {
    const t = new Bench([named('store-copy.1', 7), named('store-copy.0', -1)]);
    expect([t.holding.on, t.pool.oldCopies]).toEqual([true, true]);
    t.commits = 1;
    expect(t.after(INTERVAL_MS)).toMatchObject([{ name: 'store-copy.0' }]);
    t.answer('write');
    expect(t.pool.oldCopies).toBe(true);
    t.commits = 2;
    expect(t.after(INTERVAL_MS)).toMatchObject([{ name: 'store-copy.1' }]);
    t.answer('write');
    expect(t.pool.oldCopies).toBe(false);
  });

  it('is made sooner while slots are held, twice, but not more often than it can be', () => {
    const t = new Bench().ready();
    expect(t.after(HELD_MS - 1)).toEqual([]);
    expect(t.after(1)).toMatchObject([{ op: 'write', paced: true }]);
    t.answer('write', { ms: 1000 });
    expect([t.holding.held, t.holding.ready]).toEqual([1, 0]);
    expect(t.copies.view(t.pool).heldBytes).toBe(65536);
    expect(t.after(49_999)).toEqual([]);
    expect(t.after(1)).toMatchObject([{ op: 'write' }]);
    t.answer('write');
    expect([t.holding.held, t.holding.ready]).toEqual([0, 1]);
    expect(t.copies.view(t.pool).heldBytes).toBe(0);
    expect(t.woken).toBe(1);
    expect(t.after(HELD_MS)).toEqual([]);
  });

  it('that fails keeps what is held, is told, and is tried again', () => {
    const t = new Bench().ready();
    t.after(HELD_MS);
    t.answer('write', { error: { code: 'NO_SPACE', message: 'full' } });
    expect([t.holding.held, t.holding.ready]).toEqual([1, 0]);
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'ok', reason: 'the last copy could not be made: full' });
    expect(t.logged).toEqual(['a copy of the store could not be made']);
    expect(t.after(59_999)).toEqual([]);
    expect(t.after(1)).toMatchObject([{ op: 'write' }]);
  });

  it('that fails where there is none holds nothing back', () => {
    const t = new Bench();
    t.commits = 1;
    t.after(INTERVAL_MS);
    t.holding.add([1, 1]);
    t.answer('write', { error: { code: 'NO_SPACE', message: 'full' } });
    expect([t.holding.on, t.holding.held, t.holding.ready]).toEqual([false, 0, 1]);
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'none' });
  });

  it('that fails when it may be there already holds what a copy holds, until it is replaced', () => {
    const t = new Bench();
    t.commits = 1;
    t.after(INTERVAL_MS);
    t.holding.add([1, 1]);
    t.answer('write', { error: { code: 'EIO', message: 'bad' }, naming: true });
    expect([t.holding.on, t.holding.held, t.holding.ready]).toEqual([true, 1, 0]);
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'none' });
    expect(t.after(60_000)).toMatchObject([{ op: 'write', name: 'store-copy.1' }]);
    t.answer('write');
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'ok', generations: 2 });
    expect([t.holding.held, t.holding.ready]).toEqual([1, 0]);
    t.commits = 2;
    expect(t.after(INTERVAL_MS)).toMatchObject([{ op: 'write', name: 'store-copy.0' }]);
    t.answer('write');
    expect([t.holding.held, t.holding.ready]).toEqual([0, 1]);
    // of two that were sound, it is the one to be replaced
    t.commits = 3;
    expect(t.after(INTERVAL_MS)).toMatchObject([{ op: 'write', name: 'store-copy.1' }]);
    t.answer('write', { error: { code: 'EIO', message: 'bad' }, naming: true });
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'ok', generations: 2 });
    expect(t.after(INTERVAL_MS)).toMatchObject([{ op: 'write', name: 'store-copy.1' }]);
  });

  it('that fails when the older one had made room for it lets go what only that one named', () => {
    const t = new Bench().ready();
    t.after(HELD_MS);
    t.answer('write');
    t.holding.add([6, 1]);
    t.after(HELD_MS);
    expect([t.holding.held, t.holding.ready]).toEqual([2, 0]);
    t.answer('write', { error: { code: 'EIO', message: 'bad' }, unnamed: true });
    // slot 5 was freed before the newest copy was begun, slot 6 after it
    expect([t.holding.held, t.holding.ready]).toEqual([1, 1]);
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'ok', generations: 1 });
  });

  it('is not for files and devices without a place, nor where copies are off, and the pool says why', () => {
    for (const kind of ['file', 'device']) {
      const t = new Bench([], { kind }, null);
      t.commits = 1;
      expect(t.after(INTERVAL_MS)).toEqual([]);
      expect(t.copies.view(t.pool)).toMatchObject({ state: 'unsupported', reason: expect.stringContaining(kind) });
    }
    const host = { send: () => expect.fail('sent'), nextSequence: () => 1, commits: () => 1, log: () => undefined };
    const t = new Bench();
    const off = new Copies(0, { uuid: 'home', line: 'line' }, systemClock, host);
    off.add(t.pool, { path: '/nowhere', area: 0 }, [named('store-copy.0', 1)]);
    off.turn(1e9);
    expect(off.view(t.pool)).toMatchObject({ state: 'off' });
  });
});

describe('somebody who waits for held slots', () => {
  it('gets those that only the older copy may name when that is removed', () => {
    const t = new Bench().ready();
    t.after(HELD_MS);
    t.answer('write');
    t.pool.pressed = true;
    expect(t.after(1)).toMatchObject([{ op: 'drop', names: ['store-copy.1'] }]);
    t.answer('drop');
    expect([t.holding.held, t.holding.ready, t.pool.pressed]).toEqual([0, 1, false]);
    expect(t.copies.view(t.pool)).toMatchObject({ generations: 1 });
  });

  it('makes a copy at once, unpaced; a paced one hurries', () => {
    const t = new Bench().ready();
    t.pool.pressed = true;
    expect(t.after(1000)).toMatchObject([{ op: 'write', paced: false }]);
    expect(t.after(1)).toEqual([]);
    t.answer('write');
    expect(t.after(1)).toMatchObject([{ op: 'drop' }]);
    t.answer('drop');
    expect(t.holding.ready).toBe(1);
    const slow = new Bench().ready();
    expect(slow.after(HELD_MS)).toMatchObject([{ op: 'write', paced: true }]);
    slow.pool.pressed = true;
    expect(slow.after(1)).toEqual([{ op: 'hurry', pool: 1 }]);
    expect(slow.after(1)).toEqual([]);
  });

  it('waits no longer than it must: then all copies go, and the next comes in its time', () => {
    const t = new Bench().ready();
    t.pool.pressed = true;
    t.after(1000);
    expect(t.after(PRESSED_MS_MAX)).toEqual([]);
    expect(t.after(1)).toEqual([{ op: 'cancel', pool: 1 }]);
    expect(t.after(1)).toEqual([]);
    t.answer('write', { error: { code: 'CANCELLED', message: 'cancelled' } });
    expect(t.after(1)).toMatchObject([{ op: 'drop', names: ['store-copy.1', 'store-copy.0'] }]);
    t.holding.add([9, 1]);
    t.answer('drop');
    expect([t.holding.on, t.holding.held, t.holding.ready, t.pool.pressed]).toEqual([false, 0, 2, false]);
    expect(t.copies.view(t.pool)).toMatchObject({ state: 'none', reason: expect.stringContaining('given up') });
    expect(t.logged).toEqual(['the pool was full: its copies of the store were removed']);
    t.commits++;
    expect(t.after(INTERVAL_MS - 1)).toEqual([]);
    expect(t.after(1)).toMatchObject([{ op: 'write' }]);
  });

  it('does not make copies all the time: one takes a tenth of it', () => {
    const t = new Bench().ready();
    t.after(HELD_MS);
    t.answer('write', { ms: 100 });
    t.holding.olderGone();
    t.holding.add([7, 1]);
    t.pool.pressed = true;
    expect(t.after(899)).toEqual([]);
    expect(t.after(1)).toMatchObject([{ op: 'write', paced: false }]);
  });

  it('does not get slots whose copies could not be removed', () => {
    const t = new Bench().ready();
    t.after(HELD_MS);
    t.answer('write');
    t.pool.pressed = true;
    t.after(1);
    t.answer('drop', { error: { code: 'EROFS', message: 'read-only' } });
    expect([t.holding.held, t.holding.ready]).toEqual([1, 0]);
    expect(t.after(999)).toEqual([]);
    expect(t.after(1)).toMatchObject([{ op: 'drop' }]);
  });
});

describe('a clean stop', () => {
  it('makes a last copy, unpaced; one that is being made is given up for it', () => {
    const t = new Bench().ready();
    t.after(HELD_MS);
    let done = false;
    t.copies.finish(() => {
      done = true;
    });
    expect(t.after(1)).toEqual([{ op: 'cancel', pool: 1 }]);
    t.answer('write', { error: { code: 'CANCELLED', message: 'cancelled' } });
    expect(t.after(1)).toMatchObject([{ op: 'write', clean: true, paced: false }]);
    expect(done).toBe(false);
    t.answer('write');
    t.after(1);
    expect(done).toBe(true);
  });

  it('ends also when the copy cannot be made', () => {
    const t = new Bench();
    let done = false;
    t.copies.finish(() => {
      done = true;
    });
    t.after(1);
    t.answer('write', { error: { code: 'EIO', message: 'broken' } });
    t.after(1);
    expect(done).toBe(true);
  });
});
