/** Damage of every kind planted in a store: check names it, repair mends it, and data is what it was. */
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkStore } from '../../src/xseg/check.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { Repair, repairStore } from '../../src/xseg/repair.ts';
import { DAMAGES, type Store } from './damage.ts';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;
const KIB = 1024;
const native = loadNative();

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
      damaged((db) => plant(db, (name) => contents.delete(name)));
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

  it('that took the row of a pool with volumes is refused, and what could be mended stays too', () => {
    damaged((db) => {
      expect(db.prepare("DELETE FROM pool WHERE name = 'p'").run().changes).toBe(1);
      expect(db.prepare("UPDATE resource SET mapped = 1 WHERE name = 'w'").run().changes).toBe(1);
    });
    const [store, before] = [fs.readFileSync(storePath()), data()];
    const refused = { code: 'CORRUPT', message: expect.stringMatching(/pools that the store does not have \(2\)/) };
    expect(repair).toThrow(expect.objectContaining(refused));
    expect(fs.readFileSync(storePath()).equals(store)).toBe(true);
    expect(fs.existsSync(`${storePath()}-wal`)).toBe(false);
    expect(data()).toBe(before);
    expect(check()).toMatchObject({ ok: false });
  });

  it('that was half mended when the machine stopped is as it was', () => {
    damaged((db) => DAMAGES[0].plant(db, () => undefined));
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
