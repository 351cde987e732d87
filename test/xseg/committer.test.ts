import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  emptyBatch,
  GROUP_ACTIVE,
  GROUP_SEALED,
  KIND_VOLUME,
  NOT_ATTACHED,
  type ResourceRow,
} from '../../src/xseg/store/batch.ts';
import { bitGet } from '../../src/xseg/store/bitmap.ts';
import { Committer } from '../../src/xseg/store/committer.ts';
import { StoreReader } from '../../src/xseg/store/reader.ts';
import { APPLICATION_ID, BUSY_MS_MAX, openWriter, WAL_BYTES_MAX } from '../../src/xseg/store/schema.ts';
import { emptySeal } from '../../src/xseg/store/seal-batch.ts';
import { FORMAT_VERSION } from '../../src/xseg/store/upgrade.ts';
import { POOL_ROW as pool } from './pool-row.ts';

let dir: string;
let file: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-store-'));
  file = path.join(dir, 'store.db');
});
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

function batch(change: (b: ReturnType<typeof emptyBatch>) => void) {
  const b = emptyBatch(1);
  change(b);
  return b;
}

describe('committer', () => {
  it('applies a batch whole: pages, references, slots, records', () => {
    const c = new Committer(file);
    c.apply([batch((b) => b.pools.push(pool))]);
    c.apply([
      batch((b) => {
        b.groups.push({ pool: 1, grp: 0, state: GROUP_ACTIVE, dirty: null });
        b.taken.push(1, 3, 4);
        b.pages.push(7, 0, 0, 3, 8, 7, 3, 2);
        b.blob = Uint8Array.from([1, 2, 3, 4, 5]);
        b.pageRefs.push(7, 2, 7, -1);
        b.slotRefs.push(1, 3, 1, 1, 3, -1);
        b.meta.next_page = 9;
      }),
      batch((b) => {
        b.meta.next_page = 5;
      }),
    ]);
    const r = new StoreReader(file);
    expect([...(r.page(8) as Buffer)]).toEqual([4, 5]);
    expect(r.children(7, 9)).toEqual([8]);
    expect(r.pageExtra(7)).toBe(1);
    expect(r.slotExtra(1, 3)).toBe(0);
    expect(r.meta('next_page')).toBe(9);
    const group = r.group(1, 0);
    expect(group?.used).toBe(4);
    expect([2, 3, 6, 7].map((i) => bitGet(group?.bitmap as Uint8Array, i))).toEqual([false, true, true, false]);
    r.close();
    c.close();
  });

  it('has of a record what it was put with last', () => {
    const c = new Committer(file);
    const row = { id: 5, uuid: 'u', name: 'a', kind: KIND_VOLUME, volume: 0, pool: 1, size: 512, root: 0, height: 0 };
    const more = { generation: 1, protected: 0, created_at: 7, cloned_from: null, grp: 0, mapped: 0, ...NOT_ATTACHED };
    const first: ResourceRow = { ...row, ...more };
    const last: ResourceRow = {
      ...{ ...first, name: 'b', size: 1024, root: 3, height: 1, generation: 2, protected: 1, cloned_from: 'x@y' },
      ...{ grp: 9, mapped: 4, attached: 'w', attached_to: 'here', attached_at: 8 },
    };
    for (const one of [first, last]) c.apply([batch((b) => b.resources.push(one))]);
    c.close();
    const r = new StoreReader(file);
    expect(r.resource(5)).toEqual(last);
    r.close();
  });

  it('goes on from the store when it gave back the pages that it kept', () => {
    const c = new Committer(file);
    const count = (by: number) => batch((b) => b.pageRefs.push(7, by));
    c.apply([count(3)]);
    c.shrink();
    c.apply([count(-1)]);
    c.close();
    const r = new StoreReader(file);
    expect(r.pageExtra(7)).toBe(2);
    r.close();
  });

  it('what is read at one moment is of one moment, whoever commits meanwhile', () => {
    const c = new Committer(file);
    const r = new StoreReader(file);
    const page = (id: number) => batch((b) => b.pageRefs.push(id, 1));
    c.apply([page(1)]);
    r.look(() => {
      expect(r.pageExtra(1)).toBe(1);
      c.apply([page(1)]);
      expect(r.look(() => r.pageExtra(1))).toBe(1);
      expect(r.pageExtra(1)).toBe(1);
    });
    expect(r.pageExtra(1)).toBe(2);
    expect(() =>
      r.look(() => {
        throw new Error('in the middle');
      }),
    ).toThrow('in the middle');
    c.apply([page(1)]);
    expect(r.pageExtra(1)).toBe(3);
    r.close();
    c.close();
  });

  it('finds the least slot with the same bytes, for one hash or for many, of its pool, and none in quarantine', () => {
    const c = new Committer(file);
    const hash = (n: number) => Buffer.alloc(32, n);
    // differs behind the part that is indexed
    const like = Buffer.concat([hash(1).subarray(0, 31), Buffer.from([9])]);
    c.apply([
      batch((b) => {
        b.seal = emptySeal();
        b.seal.sealed = [1, 8, 1, 5, 1, 6, 2, 4, 1, 7];
        b.seal.hashes = Buffer.concat([hash(1), hash(1), hash(2), hash(3), like]);
        b.seal.bad = [1, 6, 1];
      }),
    ]);
    const r = new StoreReader(file);
    const asked = [hash(1), hash(2), hash(3), like, hash(4), hash(1)];
    const found = [5, -1, -1, 7, -1, 5];
    expect(asked.map((one) => r.seal.slotOf(1, one))).toEqual(found);
    expect([...r.seal.slotsOf(1, Buffer.concat(asked))]).toEqual(found);
    expect([...r.seal.slotsOf(2, hash(3))]).toEqual([4]);
    expect([...r.seal.slotsOf(1, Buffer.alloc(0))]).toEqual([]);
    expect([...r.seal.slotsOf(1, Buffer.alloc(0), 5)]).toEqual([]);
    // a guess is taken when it holds for all, and is none otherwise: quarantine, other bytes, no row, another pool's
    expect([...r.seal.slotsOf(1, Buffer.concat([like, hash(1)]), 7)]).toEqual([7, 8]);
    expect([...r.seal.slotsOf(1, Buffer.concat([hash(1), hash(2), like]), 5)]).toEqual([5, -1, 7]);
    expect([...r.seal.slotsOf(1, Buffer.concat([hash(1), like]), 7)]).toEqual([5, 7]);
    expect([...r.seal.slotsOf(1, Buffer.concat([hash(1), hash(3)]), 8)]).toEqual([5, -1]);
    expect([...r.seal.slotsOf(1, hash(3), 4)]).toEqual([-1]);
    expect([...r.seal.slotsOf(2, hash(3), 4)]).toEqual([4]);
    expect(r.seal.slotOf(1, hash(1), 5)).toBe(8);
    r.close();
    c.close();
  });

  it('says which slots still are in the index with the bytes that somebody knows of them', () => {
    const c = new Committer(file);
    const hash = (n: number) => Buffer.alloc(32, n);
    c.apply([
      batch((b) => {
        b.seal = emptySeal();
        b.seal.sealed = [1, 5, 1, 6, 1, 7, 1, 9, 2, 8];
        b.seal.hashes = Buffer.concat([5, 6, 7, 9, 8].map(hash));
        b.seal.bad = [1, 6, 1];
      }),
    ]);
    const r = new StoreReader(file);
    // [slot, what it is thought to hold, held]
    const asked: [number, number, 0 | 1][] = [
      [9, 9, 1], // by itself
      [5, 5, 1],
      [6, 6, 0], // quarantined
      [7, 7, 1],
      [8, 8, 0], // of another pool
      [-1, 5, 0],
      [7, 6, 0], // other bytes
      [7, 7, 1],
      [7, 7, 1],
      [10, 9, 0], // none
      [5, 5, 1],
    ];
    const hashes = Buffer.concat(asked.map(([, n]) => hash(n)));
    const held = r.seal.hold(
      1,
      Float64Array.from(asked, ([slot]) => slot),
      hashes,
    );
    expect([...held]).toEqual(asked.map(([, , one]) => one));
    expect([...r.seal.hold(1, new Float64Array(0), Buffer.alloc(0))]).toEqual([]);
    r.close();
    c.close();
  });

  it('leaves no row of a slot whose references come to none, in whatever order they change', () => {
    const c = new Committer(file);
    const extras = () => {
      const r = new StoreReader(file);
      const found = [3, 4, 5, 6].map((slot) =>
        r.db.prepare('SELECT extra FROM slot_ref WHERE slot = ?').pluck().get(slot),
      );
      r.close();
      return found;
    };
    c.apply([batch((b) => b.slotRefs.push(1, 3, 2, 1, 4, 1))]);
    c.apply([
      batch((b) => b.slotRefs.push(1, 5, -1, 1, 4, -1, 1, 3, -1)),
      batch((b) => b.slotRefs.push(1, 5, 1, 1, 6, 1, 1, 6, -1)),
    ]);
    expect(extras()).toEqual([1, undefined, undefined, undefined]);
    c.apply([batch((b) => b.slotRefs.push(1, 3, 1))]);
    expect(extras()).toEqual([2, undefined, undefined, undefined]);
    c.apply([batch((b) => b.slotRefs.push(1, 3, -2))]);
    expect(extras()).toEqual([undefined, undefined, undefined, undefined]);
    c.close();
  });

  it('is refused when another has taken the store over, and changes nothing', () => {
    const first = new Committer(file);
    first.apply([batch((b) => b.pools.push(pool))]);
    const second = new Committer(file);
    expect(second.epoch).toBe(first.epoch + 1);
    expect(() => first.apply([batch((b) => Object.assign(b.meta, { next_page: 9 }))])).toThrow(
      expect.objectContaining({ code: 'STALE_LEASE' }),
    );
    second.apply([batch((b) => Object.assign(b.meta, { next_release: 4 }))]);
    expect(() => first.apply([emptyBatch(2)])).toThrow(expect.objectContaining({ code: 'STALE_LEASE' }));
    const r = new StoreReader(file);
    expect([r.meta('next_page'), r.meta('next_release'), r.meta('epoch')]).toEqual([undefined, 4, second.epoch]);
    r.close();
    first.close();
    second.close();
  });

  it('refuses a slot taken twice, one freed twice, one taken from a sealed group, and leaves nothing of the batch', () => {
    const c = new Committer(file);
    c.apply([batch((b) => b.pools.push(pool))]);
    c.apply([
      batch((b) => {
        b.groups.push({ pool: 1, grp: 0, state: GROUP_ACTIVE, dirty: null });
        b.taken.push(1, 0, 2);
      }),
    ]);
    const twice = batch((b) => {
      b.pages.push(5, 0, 0, 1);
      b.blob = Uint8Array.from([1]);
      b.taken.push(1, 1, 1);
    });
    expect(() => c.apply([twice])).toThrow(/were not all free/);
    expect(() => c.apply([batch((b) => b.freed.push(1, 2, 1))])).toThrow(/were not all used/);
    c.apply([batch((b) => b.groups.push({ pool: 1, grp: 0, state: GROUP_SEALED, dirty: new Uint8Array(8) }))]);
    expect(() => c.apply([batch((b) => b.taken.push(1, 9, 1))])).toThrow(/sealed group/);
    const r = new StoreReader(file);
    expect(r.page(5)).toBeUndefined();
    expect(r.group(1, 0)?.used).toBe(2);
    r.close();
    c.close();
  });

  it('remembers that a slot freed in a sealed group is not known to be zero', () => {
    const c = new Committer(file);
    c.apply([batch((b) => b.pools.push(pool))]);
    c.apply([
      batch((b) => {
        b.groups.push({ pool: 1, grp: 0, state: GROUP_ACTIVE, dirty: null });
        b.taken.push(1, 0, 2);
      }),
    ]);
    c.apply([batch((b) => b.groups.push({ pool: 1, grp: 0, state: GROUP_SEALED, dirty: new Uint8Array(8) }))]);
    c.apply([batch((b) => b.freed.push(1, 1, 1))]);
    const r = new StoreReader(file);
    const group = r.group(1, 0);
    expect(bitGet(group?.dirty as Uint8Array, 1)).toBe(true);
    expect(bitGet(group?.dirty as Uint8Array, 0)).toBe(false);
    r.close();
    c.close();
  });

  it('writes with synchronous=FULL in WAL mode', () => {
    const c = new Committer(file);
    expect(c.db.pragma('synchronous', { simple: true })).toBe(2);
    expect(c.db.pragma('journal_mode', { simple: true })).toBe('wal');
    c.close();
  });
});

describe('a checkpoint', () => {
  /** more than half of what the log may hold */
  const fill = (c: Committer) =>
    c.apply([
      batch((b) => {
        b.blob = new Uint8Array(6000);
        for (let id = 1; id <= 6000; id++) b.pages.push(id, 0, 0, 6000);
      }),
    ]);

  it('empties a log that has grown', () => {
    const c = new Committer(file);
    fill(c);
    expect(c.logBytes()).toBeGreaterThan(WAL_BYTES_MAX / 2);
    c.checkpoint();
    expect(c.logBytes()).toBe(0);
    c.close();
  });

  it('waits for no reader, and is not tried after every commit', () => {
    const c = new Committer(file);
    const r = new StoreReader(file);
    r.db.exec('BEGIN');
    expect(r.resourceCount(1)).toBe(0);
    fill(c);
    const started = performance.now();
    c.checkpoint();
    expect(performance.now() - started).toBeLessThan(BUSY_MS_MAX / 2);
    expect(c.db.pragma('busy_timeout', { simple: true })).toBe(BUSY_MS_MAX);
    r.db.exec('COMMIT');
    c.checkpoint();
    expect(c.logBytes()).toBeGreaterThan(0);
    c.checkpoint(true);
    expect(c.logBytes()).toBe(0);
    r.close();
    c.close();
  });

  it('that finds the disk full leaves the log for later', () => {
    const c = new Committer(file);
    fill(c);
    const pragma = c.db.pragma.bind(c.db);
    const full = Object.assign(new Error('database or disk is full'), { code: 'SQLITE_FULL' });
    c.db.pragma = (source, options) => {
      if (source.startsWith('wal_checkpoint')) throw full;
      return pragma(source, options);
    };
    c.checkpoint();
    c.db.pragma = pragma;
    expect(c.logBytes()).toBeGreaterThan(0);
    c.close();
  });
});

describe('opening a store', () => {
  it('refuses a newer format and leaves it alone', () => {
    openWriter(file).close();
    const db = new Database(file);
    db.pragma(`user_version = ${FORMAT_VERSION + 1}`);
    db.close();
    expect(() => openWriter(file)).toThrow(expect.objectContaining({ code: 'FORMAT_NEWER' }));
  });

  it('refuses a SQLite file of somebody else, and a file that is none', () => {
    const db = new Database(file);
    db.exec('CREATE TABLE theirs (x)');
    db.close();
    expect(() => openWriter(file)).toThrow(expect.objectContaining({ code: 'NOT_OURS' }));
    fs.writeFileSync(
      file,
      'not a database, but long enough to be looked at as one by whoever reads the header of it....................',
    );
    expect(() => openWriter(file)).toThrow(expect.objectContaining({ code: 'IO' }));
  });

  it('marks what it makes', () => {
    const db = openWriter(file);
    expect(db.pragma('application_id', { simple: true })).toBe(APPLICATION_ID);
    expect(db.pragma('user_version', { simple: true })).toBe(FORMAT_VERSION);
    db.close();
  });
});
