/** Damage of every kind planted in a store: check names it, repair mends it, and data is what it was. */
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkStore } from '../../src/xseg/check.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { Repair, repairStore } from '../../src/xseg/repair.ts';
import { bitFill, findSetRun } from '../../src/xseg/store/bitmap.ts';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;
const KIB = 1024;
const native = loadNative();
const EXCLUSIVE = 0x80000000;
const OWNED = 0x40000000;

type Store = Database.Database;

/** A home with volumes, snapshots, clones, and pages and slots that they share; closed. */
const home = new Home();
/** name → what it holds */
const contents = new Map<string, Buffer>();
/** the store as the daemon left it */
let sound: Buffer;
/** what was written of the pools' files: what a test frees is zeroed */
const blocks = new Map<string, Buffer>();
const storePath = () => path.join(home.home, 'store.db');

beforeAll(async () => {
  const e = await home.open();
  await e.createPool({ name: 'p', path: path.join(home.dir, 'p/'), blockSize: 4096 });
  await e.createVolume({ name: 'v', size: 8 * MIB, pool: 'p' });
  await e.createVolume({ name: 'w', size: MIB });
  const write = async (name: string, offset: number, length: number, fill: number) => {
    const c = await home.connect(name);
    await c.write(offset, Buffer.alloc(length, fill));
    await c.close();
    await closed(e, name);
  };
  await write('w', 0, 256 * KIB, 9);
  await write('v', 0, 6 * MIB, 1);
  await e.createSnapshot('v', 's1');
  await write('v', MIB, 64 * KIB, 2);
  await e.createSnapshot('v', 's2');
  await write('v', 4 * MIB, 8 * KIB, 3);
  await e.clone('v@s1', 'c');
  await write('c', 64 * KIB, 4 * KIB, 4);
  await e.clone('v@s2', 'd');
  await write('d', MIB, 4 * KIB, 5);
  // dissolves: slots with more than one reference
  await e.deleteSnapshot('v@s1');
  for (;;) {
    const { background } = await e.status();
    if (Object.values(background).every((left) => left === 0)) break;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  for (const name of ['v', 'v@s2', 'c', 'd', 'w']) contents.set(name, await read(name));
  await home.close();
  sound = fs.readFileSync(storePath());
  for (const file of poolFiles()) blocks.set(file, used(file));
});
afterAll(() => home.end());

async function read(name: string): Promise<Buffer> {
  const c = await home.connect(name);
  const parts: Buffer[] = [];
  for (let at = 0; at < c.size; at += MIB) parts.push(await c.read(at, Math.min(MIB, c.size - at)));
  await c.close();
  return Buffer.concat(parts);
}

/** The sound store again, and something done to it. */
function damaged(work: (db: Store) => void): void {
  fs.rmSync(`${storePath()}-wal`, { force: true });
  fs.rmSync(`${storePath()}-shm`, { force: true });
  fs.writeFileSync(storePath(), sound);
  for (const [file, bytes] of blocks) {
    const fd = fs.openSync(file, 'r+');
    fs.writeSync(fd, bytes, 0, bytes.length, 0);
    fs.closeSync(fd);
  }
  const db = new Database(storePath());
  work(db);
  db.pragma('wal_checkpoint(TRUNCATE)');
  db.close();
}

const check = () => checkStore(storePath(), native, () => undefined);
const repair = () => repairStore(storePath(), native, () => undefined);

function poolFiles(): string[] {
  const dirs = [path.join(home.dir, 'p'), path.join(home.home, 'pools/local')];
  return dirs.flatMap((dir) =>
    fs
      .readdirSync(dir)
      .sort()
      .map((name) => path.join(dir, name)),
  );
}

/** the part of a file that a pool so small uses */
function used(file: string): Buffer {
  const bytes = Buffer.alloc(16 * MIB);
  const fd = fs.openSync(file, 'r');
  const n = fs.readSync(fd, bytes, 0, bytes.length, 0);
  fs.closeSync(fd);
  return bytes.subarray(0, n);
}

/** when the files of all pools were last written, and what their used part holds */
function data(): string {
  return poolFiles()
    .map((file) => {
      const { size, mtimeNs } = fs.statSync(file, { bigint: true });
      return `${file} ${size} ${mtimeNs} ${native.crc32c(used(file), 0)}`;
    })
    .join('\n');
}

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

const usedSlot = (bitmap: Buffer) => findSetRun(bitmap, bitmap.length * 8, 0, 1)[0];

interface Damage {
  what: string;
  /** code that check gives it */
  code: string;
  /** what repair says it did */
  mended: object;
  plant: (db: Store) => void;
}

const DAMAGES: Damage[] = [
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
    plant: (db) => {
      // v@s2 goes, without anybody to free what it had; what borrows from its root keeps that
      const { id, root } = db.prepare("SELECT id, root FROM resource WHERE name = 's2'").get() as {
        id: number;
        root: number;
      };
      const borrowers = db.prepare('SELECT count(*) FROM page WHERE base = ?').pluck().get(root);
      expect(borrowers).toBeGreaterThan(0);
      db.prepare('DELETE FROM resource WHERE id = ?').run(id);
      db.prepare('INSERT INTO page_ref VALUES (?, -1) ON CONFLICT DO UPDATE SET extra = -1').run(root);
      contents.delete('v@s2');
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
    plant: (db) => {
      // two volumes' own pages name one slot
      const own = db.prepare('SELECT id, generation FROM resource WHERE kind = 1').all() as {
        id: number;
        generation: number;
      }[];
      const live = (page: Page) => own.some((r) => r.id === page.owner && r.generation === page.generation);
      const from = find(db, (one, high) => live(one) && one.level === 0 && (high & EXCLUSIVE) !== 0 && one.base !== 0);
      const onto = find(
        db,
        (one, high) =>
          live(one) && one.owner !== from.page.owner && one.level === 0 && (high & EXCLUSIVE) !== 0 && one.base !== 0,
      );
      const [freed, kept] = [slotOf(onto.page, onto.i), slotOf(from.page, from.i)];
      onto.page.entries.set(from.page.entries.subarray(from.i * 2, from.i * 2 + 2), onto.i * 2);
      put(db, onto.page);
      db.prepare('INSERT INTO slot_ref VALUES (?, ?, 1)').run(POOL, kept);
      setBits(db, POOL, (bitmap) => void bitFill(bitmap, freed, 1, false));
      contents.delete(
        (db.prepare('SELECT name FROM resource WHERE id = ?').pluck().get(onto.page.owner) as string) ?? '',
      );
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
];

describe('a sound store', () => {
  it('is found sound, and a repair changes nothing', () => {
    damaged(() => undefined);
    expect(check()).toMatchObject({ ok: true, problems: [] });
    const zero = expect.objectContaining({
      pages: 0,
      slotsFreed: 0,
      slotRefs: 0,
      pageRefs: 0,
      groups: 0,
      inDoubt: false,
    });
    expect(repair()).toEqual(zero);
    expect(check()).toMatchObject({ ok: true });
  });

  it('is the same in windows of any size', () => {
    const db = new Database(storePath(), { readonly: true });
    const windows = [1, 16384, 2 ** 20].map((slots) => new Repair(db, native, slots).windowSlots);
    expect(windows).toEqual([1, 16384, 2 ** 20]);
    db.close();
  });
});

describe('damage', () => {
  for (const { what, code, mended, plant } of DAMAGES) {
    it(`${what} is named (${code}), and mended without touching data`, async () => {
      const all = new Map(contents);
      damaged(plant);
      const before = data();
      const found = check();
      expect(found.ok).toBe(false);
      expect(found.problems.map((p) => p.code)).toContain(code);
      expect(repair()).toMatchObject(mended);
      expect(check()).toMatchObject({ ok: true, problems: [] });
      expect(data()).toBe(before);
      const e = await home.open();
      // what is handed out next is nobody's, and reads as zeroes
      await e.createVolume({ name: 'new', size: MIB, pool: 'p' });
      const c = await home.connect('new');
      await c.write(0, Buffer.alloc(1));
      expect((await c.read(0, MIB)).every((byte) => byte === 0)).toBe(true);
      await c.close();
      await closed(e, 'new');
      for (const [name, bytes] of contents) expect((await read(name)).equals(bytes), name).toBe(true);
      expect(await e.check()).toMatchObject({ ok: true });
      expect(home.errors.splice(0)).toEqual([]);
      await home.close();
      for (const [name, bytes] of all) contents.set(name, bytes);
    });
  }

  it('that takes what a page holds frees nothing, and stays named', () => {
    for (const plant of [
      (db: Store) => db.prepare('DELETE FROM page WHERE id = (SELECT root FROM resource WHERE name = ?)').run('v'),
      (db: Store) =>
        db
          .prepare('UPDATE page SET data = zeroblob(60) WHERE id = (SELECT root FROM resource WHERE name = ?)')
          .run('v'),
    ]) {
      damaged((db) => void plant(db));
      const used = usedOf();
      expect(check()).toMatchObject({ ok: false });
      expect(repair()).toMatchObject({ inDoubt: true, slotsFreed: 0, pagesRemoved: 0 });
      expect(usedOf()).toEqual(used);
      const after = check();
      expect(after.problems.map((p) => p.code)).toContain('PAGE');
    }
  });

  it('that was half mended when the machine stopped is as it was', () => {
    damaged(DAMAGES[0].plant);
    const before = check();
    const db = new Database(storePath());
    db.exec('BEGIN IMMEDIATE');
    new Repair(db, native).run(() => undefined);
    db.close();
    expect({ ...check(), seconds: 0 }).toEqual({ ...before, seconds: 0 });
  });
});

function usedOf(): unknown {
  const db = new Database(storePath(), { readonly: true });
  const rows = db.prepare('SELECT pool, grp, used FROM slot_group ORDER BY pool, grp').all();
  db.close();
  return rows;
}
