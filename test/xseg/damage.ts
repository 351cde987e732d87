/** Damage to plant in a store whose pools are 'local' with volume w, and 'p' with volumes v, c, d and snapshot v@s2. */
import type Database from 'better-sqlite3';
import { expect } from 'vitest';
import { loadNative } from '../../src/xseg/native.ts';
import { bitFill, findSetRun } from '../../src/xseg/store/bitmap.ts';
import { HASH_BYTES } from '../../src/xseg/store/seal-batch.ts';

const native = loadNative();
const EXCLUSIVE = 0x80000000;
const OWNED = 0x40000000;

export type Store = Database.Database;

interface Page {
  id: number;
  level: number;
  base: number;
  owner: number;
  generation: number;
  mapped: number;
  entries: Uint32Array;
}

function pages(db: Store): Page[] {
  const rows = db.prepare('SELECT id, data FROM page').all() as { id: number; data: Buffer }[];
  return rows.map(({ id, data: blob }) => {
    const entries = new Uint32Array(1024);
    const header = new Float64Array(8);
    expect(native.decodePageTo(blob, id, entries, header)).toBe(0);
    const [level, , base, owner, generation, mapped] = header;
    return { id, level, base, owner, generation, mapped, entries };
  });
}

function put(db: Store, page: Page): void {
  const blob = Buffer.alloc(8192);
  const { entries, level, id, base, owner, generation, mapped } = page;
  const length = native.encodePageFrom(entries, level, id, base, owner, generation, mapped, blob, 0);
  db.prepare('INSERT OR REPLACE INTO page (id, base, data) VALUES (?, ?, ?)').run(
    id,
    base === 0 ? null : base,
    blob.subarray(0, length),
  );
}

const slotOf = (page: Page, i: number) => page.entries[i * 2] + (page.entries[i * 2 + 1] & 0xffff) * 2 ** 32 - 1;

/** A page that fits, and one of its entries that does. */
function find(db: Store, fits: (page: Page, high: number, i: number) => boolean): { page: Page; i: number } {
  for (const page of pages(db))
    for (let i = 0; i < 512; i++) {
      const high = page.entries[i * 2 + 1];
      if ((page.entries[i * 2] !== 0 || high !== 0) && fits(page, high, i)) return { page, i };
    }
  throw new Error('no page of that kind in the store');
}

/** the pool with volumes v, c, d */
const POOL = 2;
/** all that the store has */
const INDEXES = expect.toSatisfy((count: number) => count > 5) as number;

function groupOf(db: Store, pool: number) {
  return db.prepare('SELECT grp, used, bitmap FROM slot_group WHERE pool = ? AND used > 0').get(pool) as {
    grp: number;
    used: number;
    bitmap: Buffer;
  };
}

function setBits(db: Store, pool: number, work: (bitmap: Buffer) => void): void {
  const { grp, bitmap } = groupOf(db, pool);
  const changed = Buffer.from(bitmap);
  work(changed);
  let used = 0;
  for (const byte of changed) for (let b = byte; b > 0; b >>= 1) used += b & 1;
  db.prepare('UPDATE slot_group SET bitmap = ?, used = ? WHERE pool = ? AND grp = ?').run(changed, used, pool, grp);
}

/** Whether a volume writes a page of that kind in place. */
function live(db: Store): (page: Page) => boolean {
  const own = db.prepare('SELECT id, generation FROM resource WHERE kind = 1').all() as {
    id: number;
    generation: number;
  }[];
  return (page) => own.some((r) => r.id === page.owner && r.generation === page.generation);
}

/** Three slots of the pool that belong to pages that nobody writes any more. */
function frozenSlots(db: Store): number[] {
  const isLive = live(db);
  const slots: number[] = [];
  const other = db.prepare("SELECT id FROM resource WHERE name = 'w'").pluck().get();
  for (const page of pages(db))
    for (let i = 0; i < 512 && page.level === 0 && !isLive(page) && page.owner !== other; i++)
      if ((page.entries[i * 2 + 1] & OWNED) !== 0) slots.push(slotOf(page, i));
  expect(slots.length).toBeGreaterThan(3);
  return slots.slice(0, 3);
}

/** These slots of the pool are in the index of sealed blocks. */
function seal(db: Store, slots: number[], bytes = HASH_BYTES): void {
  for (const slot of slots) {
    const hash = Buffer.from(Array.from({ length: bytes }, (_, i) => slot * 7 + i));
    db.prepare('INSERT INTO sealed (pool, slot, hash) VALUES (?, ?, ?)').run(POOL, slot, hash);
  }
  db.prepare('INSERT INTO seal_pool (pool, entries) VALUES (?, ?)').run(POOL, slots.length);
}

interface SchemaRow {
  type: string;
  name: string;
  tbl_name: string;
  rootpage: number;
  sql: string;
}

/** While `work` runs an index is said to be made by another statement, or not to be there at all (null). */
function withIndexAs(db: Store, name: string, change: (sql: string) => string | null, work: () => void): void {
  const row = db.prepare('SELECT * FROM sqlite_schema WHERE name = ?').get(name) as SchemaRow;
  const say = (sql: string | null) => {
    db.pragma('writable_schema = ON');
    db.prepare('DELETE FROM sqlite_schema WHERE name = ?').run(name);
    const put = 'INSERT INTO sqlite_schema VALUES (@type, @name, @tbl_name, @rootpage, @sql)';
    if (sql !== null) db.prepare(put).run({ ...row, sql });
    db.pragma('writable_schema = RESET');
  };
  db.unsafeMode();
  expect(change(row.sql)).not.toBe(row.sql);
  say(change(row.sql));
  work();
  say(row.sql);
  db.unsafeMode(false);
}

/** What an index has is as if it had been made by another statement. */
function indexAs(db: Store, name: string, change: (sql: string) => string): void {
  withIndexAs(db, name, change, () => db.exec(`REINDEX ${name}`));
}

const usedSlot = (bitmap: Buffer) => findSetRun(bitmap, bitmap.length * 8, 0, 1)[0];

export interface Damage {
  what: string;
  /** code that check gives it */
  code: string;
  /** what repair says it did */
  mended: object;
  /** @param lost named with each resource that does not hold afterwards what it held */
  plant: (db: Store, lost: (name: string) => void) => void;
}

export const DAMAGES: Damage[] = [
  {
    what: 'a slot that is used and named by nothing',
    code: 'LEAK',
    mended: { slotsFreed: 1, groups: 1 },
    plant: (db) => setBits(db, POOL, (bitmap) => void bitFill(bitmap, bitmap.length * 8 - 1, 1, true)),
  },
  {
    what: 'a slot that is named and free',
    code: 'SLOTS',
    mended: { slotsTaken: 1, groups: 1 },
    plant: (db) => setBits(db, 1, (bitmap) => void bitFill(bitmap, usedSlot(bitmap), 1, false)),
  },
  {
    what: 'a count of used slots',
    code: 'SLOTS',
    mended: { groups: 1 },
    plant: (db) => db.prepare('UPDATE slot_group SET used = used + 3 WHERE pool = ? AND used > 0').run(POOL),
  },
  {
    what: 'a group that is gone',
    code: 'SLOTS',
    mended: { groups: 2 },
    plant: (db) => db.prepare('DELETE FROM slot_group WHERE pool = ? AND grp = ?').run(1, groupOf(db, 1).grp),
  },
  {
    what: 'a reference of a slot too many',
    code: 'SLOT_REFS',
    mended: { slotRefs: 1 },
    plant: (db) => {
      const { page, i } = find(db, (one, high) => one.level === 0 && (high & OWNED) !== 0);
      db.prepare('INSERT INTO slot_ref VALUES (?, ?, 2) ON CONFLICT DO UPDATE SET extra = extra + 2').run(
        POOL,
        slotOf(page, i),
      );
    },
  },
  {
    what: 'all references of slots forgotten',
    code: 'SLOT_REFS',
    mended: {},
    plant: (db) => expect(db.prepare('DELETE FROM slot_ref').run().changes).toBeGreaterThan(0),
  },
  {
    what: 'references of a slot in no group',
    code: 'SLOT_REFS',
    mended: { slotRefs: 1 },
    plant: (db) => db.prepare('INSERT INTO slot_ref VALUES (?, ?, 1)').run(POOL, 2 ** 40),
  },
  {
    what: 'a reference of a page too many',
    code: 'PAGE_REFS',
    mended: { pageRefs: 1 },
    plant: (db) =>
      db
        .prepare(
          'INSERT INTO page_ref SELECT root, 5 FROM resource WHERE name = ? ON CONFLICT DO UPDATE SET extra = extra + 5',
        )
        .run('w'),
  },
  {
    what: 'all references of pages forgotten',
    code: 'PAGE_REFS',
    mended: {},
    plant: (db) => expect(db.prepare('DELETE FROM page_ref').run().changes).toBeGreaterThan(0),
  },
  {
    what: 'references of a page that is not there',
    code: 'PAGE_REFS',
    mended: { pageRefs: 1 },
    plant: (db) => db.prepare('INSERT INTO page_ref VALUES (?, 1)').run(2 ** 40),
  },
  {
    what: 'a page that nothing reaches',
    code: 'UNREACHABLE',
    mended: { pagesRemoved: 1 },
    plant: (db) => {
      const entries = new Uint32Array(1024);
      put(db, { id: 2 ** 30, level: 0, base: 0, owner: 1, generation: 1, mapped: 0, entries });
      db.prepare("UPDATE meta SET value = ? WHERE key = 'next_page'").run(2 ** 30 + 1);
    },
  },
  {
    what: 'a ghost that nothing dissolves',
    code: 'GHOST',
    mended: { releases: 1 },
    plant: (db, lost) => {
      // v@s2 goes, without anybody to free what it had; what borrows from its root keeps that
      const { id, root } = db.prepare("SELECT id, root FROM resource WHERE name = 's2'").get() as {
        id: number;
        root: number;
      };
      const borrowers = db.prepare('SELECT count(*) FROM page WHERE base = ?').pluck().get(root);
      expect(borrowers).toBeGreaterThan(0);
      db.prepare('DELETE FROM resource WHERE id = ?').run(id);
      db.prepare('INSERT INTO page_ref VALUES (?, -1) ON CONFLICT DO UPDATE SET extra = -1').run(root);
      lost('v@s2');
    },
  },
  {
    what: 'a count of mapped blocks, of pages and a record',
    code: 'MAPPED',
    mended: { pages: 1 },
    plant: (db) => {
      const { page } = find(db, (one) => one.level > 0);
      put(db, { ...page, mapped: page.mapped + 7 });
    },
  },
  {
    what: 'a count of mapped blocks of a leaf',
    code: 'MAPPED',
    mended: { pages: 1 },
    plant: (db) => {
      const { page } = find(db, (one) => one.level === 0);
      put(db, { ...page, mapped: page.mapped - 1 });
    },
  },
  {
    what: 'a count of mapped blocks of a record',
    code: 'RESOURCE',
    mended: { resources: 1 },
    plant: (db) => db.prepare("UPDATE resource SET mapped = 1 WHERE name = 'w'").run(),
  },
  {
    what: 'a column that says another base than its page',
    code: 'PAGE',
    mended: { pages: 1 },
    plant: (db) =>
      expect(
        db.prepare('UPDATE page SET base = NULL WHERE id = (SELECT max(id) FROM page WHERE base IS NOT NULL)').run()
          .changes,
      ).toBe(1),
  },
  {
    what: 'an entry that is borrowed from nobody',
    code: 'BORROWED',
    mended: { pages: 1 },
    plant: (db) => {
      const { page, i } = find(db, (one, high) => one.level === 0 && one.base === 0 && (high & OWNED) !== 0);
      page.entries[i * 2 + 1] &= 0xffff;
      put(db, page);
    },
  },
  {
    what: 'an entry of zeroes that holds a reference',
    code: 'PAGE',
    mended: { pages: 1, slotsFreed: 1, groups: 1 },
    plant: (db, lost) => {
      const isLive = live(db);
      const { page, i } = find(
        db,
        (one, high) => isLive(one) && one.level === 0 && (high & EXCLUSIVE) !== 0 && one.base !== 0,
      );
      page.entries.set([0xffffffff, (OWNED | 0xffff) >>> 0], i * 2);
      put(db, page);
      lost(db.prepare('SELECT name FROM resource WHERE id = ?').pluck().get(page.owner) as string);
    },
  },
  {
    what: 'an entry that is exclusive and not owned',
    code: 'PAGE',
    mended: { pages: 1 },
    plant: (db) => {
      const { page, i } = find(db, (one, high) => one.level === 0 && one.base !== 0 && (high & OWNED) === 0);
      page.entries[i * 2 + 1] = (page.entries[i * 2 + 1] | EXCLUSIVE) >>> 0;
      put(db, page);
    },
  },
  {
    what: 'an entry that may be written in place although others have its slot',
    code: 'EXCLUSIVE',
    mended: { pages: 2 },
    plant: (db, lost) => {
      // two volumes' own pages name one slot
      const isLive = live(db);
      const from = find(
        db,
        (one, high) => isLive(one) && one.level === 0 && (high & EXCLUSIVE) !== 0 && one.base !== 0,
      );
      const onto = find(
        db,
        (one, high) =>
          isLive(one) && one.owner !== from.page.owner && one.level === 0 && (high & EXCLUSIVE) !== 0 && one.base !== 0,
      );
      const [freed, kept] = [slotOf(onto.page, onto.i), slotOf(from.page, from.i)];
      onto.page.entries.set(from.page.entries.subarray(from.i * 2, from.i * 2 + 2), onto.i * 2);
      put(db, onto.page);
      db.prepare('INSERT INTO slot_ref VALUES (?, ?, 1)').run(POOL, kept);
      setBits(db, POOL, (bitmap) => void bitFill(bitmap, freed, 1, false));
      lost(db.prepare('SELECT name FROM resource WHERE id = ?').pluck().get(onto.page.owner) as string);
    },
  },
  {
    what: 'a queue with rows of no kind',
    code: 'RELEASE',
    mended: { releases: 1 },
    plant: (db) => db.prepare('INSERT INTO release VALUES (9999999, 77, 1, 1)').run(),
  },
  {
    what: 'an id that would be given out twice',
    code: 'META',
    mended: { meta: 1 },
    plant: (db) => db.prepare("UPDATE meta SET value = 1 WHERE key = 'next_page'").run(),
  },
  {
    what: 'a sealed slot that is free',
    code: 'SEAL',
    mended: { seal: 2 },
    plant: (db) => {
      const { grp, bitmap } = groupOf(db, POOL);
      seal(db, [(grp + 1) * bitmap.length * 8 - 1]);
    },
  },
  {
    what: 'a sealed slot that a volume may write in place',
    code: 'SEAL',
    mended: { pages: 1, seal: 0 },
    plant: (db) => {
      const isLive = live(db);
      const { page, i } = find(
        db,
        (one, high) => isLive(one) && one.level === 0 && (high & EXCLUSIVE) !== 0 && one.base !== 0,
      );
      seal(db, [slotOf(page, i)]);
    },
  },
  {
    what: 'a hash of a slot that is not whole',
    code: 'SEAL',
    mended: { seal: 4 },
    plant: (db) => seal(db, frozenSlots(db), HASH_BYTES - 1),
  },
  {
    what: 'a count of sealed slots',
    code: 'SEAL',
    mended: { seal: 1 },
    plant: (db) => {
      seal(db, frozenSlots(db));
      db.prepare('UPDATE seal_pool SET entries = entries + 5').run();
    },
  },
  {
    what: 'a hash of a page that is gone',
    code: 'SEAL',
    mended: { seal: 1 },
    plant: (db) => db.prepare('INSERT INTO page_hash VALUES (?, ?)').run(2 ** 40, Buffer.alloc(HASH_BYTES)),
  },
  {
    what: 'a hash of a snapshot that is gone',
    code: 'SEAL',
    mended: { seal: 1 },
    plant: (db) => db.prepare('INSERT INTO resource_hash VALUES (?, ?)').run(2 ** 40, Buffer.alloc(HASH_BYTES)),
  },
  {
    what: 'a block that the dedup index does not find',
    code: 'STORE',
    mended: { indexes: INDEXES, seal: 0 },
    plant: (db) => {
      const slots = frozenSlots(db);
      seal(db, slots);
      indexAs(db, 'sealed_hash', (sql) => `${sql} AND slot <> ${slots[1]}`);
    },
  },
  {
    what: 'blocks that the dedup index has under other hashes',
    code: 'STORE',
    mended: { indexes: INDEXES, seal: 0 },
    plant: (db) => {
      seal(db, frozenSlots(db));
      indexAs(db, 'sealed_hash', (sql) => sql.replace('substr(hash, 1, 8)', 'substr(hash, 2, 8)'));
    },
  },
  {
    what: 'a block that only the dedup index has',
    code: 'STORE',
    mended: { indexes: INDEXES, seal: 0 },
    plant: (db) => {
      const slots = frozenSlots(db);
      seal(db, slots);
      const drop = db.prepare('DELETE FROM sealed WHERE slot = ?');
      withIndexAs(
        db,
        'sealed_hash',
        () => null,
        () => expect(drop.run(slots[1]).changes).toBe(1),
      );
      db.prepare('UPDATE seal_pool SET entries = entries - 1').run();
    },
  },
  {
    what: 'a page that its base does not know to borrow from it',
    code: 'STORE',
    mended: { indexes: INDEXES, pages: 0 },
    plant: (db) => {
      const id = db.prepare('SELECT max(id) FROM page WHERE base IS NOT NULL').pluck().get();
      indexAs(db, 'page_base', (sql) => `${sql} AND id <> ${id}`);
    },
  },
  {
    what: 'a page that only the index has below its base',
    code: 'STORE',
    mended: { indexes: INDEXES, pages: 0 },
    plant: (db) => {
      const base = db.prepare('SELECT max(base) FROM page').pluck().get();
      const put = db.prepare('INSERT INTO page (id, base, data) VALUES (?, ?, zeroblob(1))');
      put.run(2 ** 30, base);
      const drop = db.prepare('DELETE FROM page WHERE id = ?');
      withIndexAs(
        db,
        'page_base',
        () => null,
        () => expect(drop.run(2 ** 30).changes).toBe(1),
      );
    },
  },
  {
    what: 'a volume that is not found by its name',
    code: 'STORE',
    mended: { indexes: INDEXES, resources: 0 },
    plant: (db) => indexAs(db, 'resource_name', (sql) => `${sql} WHERE name <> 'w'`),
  },
];
