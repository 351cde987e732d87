/** Losing the store: a home from its pools alone, and from a backup. */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { decodeFooter, encodeFooter, FOOTER_BYTES, tableBytes } from '../../src/xseg/copies/footer.ts';
import type { RecoverOptions, RecoverReport } from '../../src/xseg/copies/recover.ts';
import { loadNative } from '../../src/xseg/native.ts';
import type { Engine, EngineOptions } from '../../src/xseg/types.ts';
import { closed, Home } from './engine.ts';

const compiled = '../../dist/src/xseg/engine.js';
const { recoverHome } = (await import(compiled)) as { recoverHome: (options: RecoverOptions) => RecoverReport };

const native = loadNative();
const BLOCK = 65536;
const MIB = 2 ** 20;
const SIZE = 4 * MIB;
const code = (wanted: string) => expect.objectContaining({ code: wanted });

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

const localOf = (h: Home) => path.join(h.home, 'pools', 'local');
const storeOf = (h: Home) => path.join(h.home, 'store.db');

function loseStore(h: Home): void {
  for (const end of ['', '-wal', '-shm']) fs.rmSync(`${storeOf(h)}${end}`, { force: true });
}

async function fill(h: Home, name: string, block: number, byte: number, count = 1): Promise<void> {
  const client = await h.connect(name);
  await client.write(block * BLOCK, Buffer.alloc(count * BLOCK, byte));
  await client.flush();
  await client.close();
  await closed(h.engine as Engine, name);
}

async function read(h: Home, name: string): Promise<Buffer> {
  const client = await h.connect(name);
  const bytes = Buffer.alloc(client.size);
  for (let at = 0; at < bytes.length; at += MIB)
    (await client.read(at, Math.min(MIB, bytes.length - at))).copy(bytes, at);
  await client.close();
  return bytes;
}

/** Everything in the home: names, and a hash of the bytes of each. */
async function contents(h: Home): Promise<Map<string, string>> {
  const e = h.engine as Engine;
  const found = new Map<string, string>();
  for (const { name } of [...(await e.listVolumes()), ...(await e.listSnapshots())])
    found.set(
      name,
      createHash('sha256')
        .update(await read(h, name))
        .digest('hex'),
    );
  return found;
}

/** A few volumes that share, with and without snapshots. */
async function populate(h: Home): Promise<void> {
  const e = h.engine as Engine;
  await e.createVolume({ name: 'disk', size: SIZE });
  await fill(h, 'disk', 0, 1, 16);
  await e.createSnapshot('disk', 'monday');
  await fill(h, 'disk', 3, 2, 4);
  await e.createSnapshot('disk', 'tuesday');
  await e.clone('disk@monday', 'clone');
  await fill(h, 'clone', 1, 3);
  await e.createVolume({ name: 'empty', size: MIB });
}

/** Waits until the pool's newest copy is from after `when`. */
async function copied(e: Engine, pool = 'local', when = Date.now()): Promise<void> {
  for (;;) {
    const { copies } = await e.showPool(pool);
    if (copies?.takenAt && Date.parse(copies.takenAt) > when) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The older copy is taken, and the newest named as damaged. */
async function hasOlder(newest: RecoverReport['pools'][number]): Promise<void> {
  const other = new Home();
  const [pool] = recoverHome({ pools: [localOf(home)], home: other.home }).pools;
  expect(pool).toMatchObject({ complete: false, damaged: [{ file: newest.source }] });
  expect(pool.sequence).toBeLessThan(newest.sequence ?? 0);
  await other.end();
}

async function open(h: Home, options: Partial<EngineOptions> = {}): Promise<Engine> {
  const e = await h.open(options);
  expect(await e.check()).toMatchObject({ ok: true, problems: [] });
  return e;
}

describe('a home whose store is lost', () => {
  it('after a clean stop comes back whole, and knows that nothing is lost', async () => {
    await home.open();
    await populate(home);
    const before = await contents(home);
    await home.close();
    loseStore(home);
    const report = recoverHome({ pools: [localOf(home)], home: home.home });
    expect(report).toMatchObject({ volumes: 3, snapshots: 2, renamed: [], missingPools: [] });
    expect(report.pools).toMatchObject([{ name: 'local', complete: true, damaged: [] }]);
    expect(report.check).toMatchObject({ ok: true, problemCount: 0 });
    const e = await open(home);
    expect(await contents(home)).toEqual(before);
    // and it goes on: slots that it hands out read as zeroes
    await e.createVolume({ name: 'new', size: SIZE });
    const client = await home.connect('new');
    await client.write(512, Buffer.alloc(512, 9));
    expect((await client.read(0, 512)).every((b) => b === 0)).toBe(true);
    await client.close();
  });

  it('is rebuilt elsewhere when all but the pool is gone, private', async () => {
    await home.open();
    await populate(home);
    const before = await contents(home);
    await home.close();
    const other = new Home();
    const pool = path.join(other.dir, 'pool');
    fs.renameSync(localOf(home), pool);
    recoverHome({ pools: [pool], home: other.home });
    expect(fs.statSync(storeOf(other)).mode & 0o777).toBe(0o600);
    const e = await open(other);
    expect((await e.showPool('local')).path).toBe(pool);
    expect(await contents(other)).toEqual(before);
    await other.end();
  });

  it('has the older copy when the newest is damaged, wherever that is, and says so', async () => {
    const e = await home.open({ copyIntervalMs: 1000 });
    await populate(home);
    await copied(e);
    const before = await contents(home);
    await home.close();
    loseStore(home);
    const newest = recoverHome({ pools: [localOf(home)], home: home.home }).pools[0];
    const file = path.join(localOf(home), newest.source);
    const whole = fs.readFileSync(file);
    const places = [0, Math.floor(whole.length / 3), whole.length - 8192, whole.length - 4096, whole.length - 1];
    for (const place of places) {
      const broken = Buffer.from(whole);
      broken[place] ^= 1;
      fs.writeFileSync(file, broken);
      await hasOlder(newest);
    }
    for (const length of [0, 4096, whole.length - 4096]) {
      fs.writeFileSync(file, whole.subarray(0, length));
      const other = new Home();
      expect(recoverHome({ pools: [localOf(home)], home: other.home }).pools[0].damaged).toMatchObject([
        { file: newest.source },
      ]);
      await other.end();
    }
    loseStore(home);
    recoverHome({ pools: [localOf(home)], home: home.home });
    await open(home);
    expect(await contents(home)).toEqual(before);
  });

  it('does not know that nothing is lost when the newest copy has lost its footer', async () => {
    await home.open();
    await populate(home);
    await home.close();
    await home.open();
    await fill(home, 'disk', 9, 7);
    await home.close();
    loseStore(home);
    const first = new Home();
    const [newest] = recoverHome({ pools: [localOf(home)], home: first.home }).pools;
    expect(newest).toMatchObject({ complete: true, damaged: [] });
    await first.end();
    const file = path.join(localOf(home), newest.source);
    fs.truncateSync(file, fs.statSync(file).size - FOOTER_BYTES);
    await hasOlder(newest);
  });

  it('has the older copy when SQLite finds the newest broken, whatever its checksums say', async () => {
    const e = await home.open({ copyIntervalMs: 1000 });
    await populate(home);
    await copied(e);
    await home.close();
    loseStore(home);
    const newest = recoverHome({ pools: [localOf(home)], home: home.home }).pools[0];
    const file = path.join(localOf(home), newest.source);
    const broken = fs.readFileSync(file);
    const crc = (bytes: Uint8Array) => native.crc32c(bytes, 0);
    const footer = decodeFooter(broken.subarray(-FOOTER_BYTES), file, crc);
    broken.fill(0xff, 100, 4096);
    broken.writeUInt32LE(crc(broken.subarray(0, Math.min(MIB, footer.bytes))), footer.bytes);
    const tableCrc = crc(broken.subarray(footer.bytes, footer.bytes + tableBytes(footer.bytes)));
    encodeFooter({ ...footer, tableCrc }, crc).copy(broken, broken.length - FOOTER_BYTES);
    fs.writeFileSync(file, broken);
    await hasOlder(newest);
  });

  it('is another one from then on: the lost store does not serve the pool when it is found again', async () => {
    await home.open();
    await populate(home);
    await home.close();
    const found = path.join(home.dir, 'found.db');
    fs.renameSync(storeOf(home), found);
    loseStore(home);
    recoverHome({ pools: [localOf(home)], home: home.home });
    const e = await open(home);
    await fill(home, 'disk', 9, 7);
    const before = await contents(home);
    expect(e).toBeDefined();
    await home.close();
    fs.renameSync(storeOf(home), path.join(home.dir, 'new.db'));
    fs.copyFileSync(found, storeOf(home));
    const late = await home.open();
    const { state, reason } = await late.showPool('local');
    expect([state, reason]).toEqual(['missing', expect.stringMatching(/store that was recovered/)]);
    await home.close();
    loseStore(home);
    fs.renameSync(path.join(home.dir, 'new.db'), storeOf(home));
    await open(home);
    expect(await contents(home)).toEqual(before);
  });

  it('of several pools comes back from those that are given', async () => {
    const e = await home.open();
    const second = path.join(home.dir, 'second');
    await e.createPool({ name: 'second', path: `${second}/`, blockSize: 4096 });
    await e.createVolume({ name: 'a', size: SIZE });
    await e.createVolume({ name: 'b', size: SIZE, pool: 'second' });
    for (const name of ['a', 'b']) {
      await fill(home, name, 0, name.charCodeAt(0), 8);
      await e.createSnapshot(name, 's');
      await fill(home, name, 2, 1);
    }
    const before = await contents(home);
    await home.close();
    const alone = new Home();
    const report = recoverHome({ pools: [second], home: alone.home });
    expect(report).toMatchObject({ volumes: 1, snapshots: 1, missingPools: [{ name: 'local' }] });
    await open(alone);
    expect(await contents(alone)).toEqual(new Map([...before].filter(([name]) => name.startsWith('b'))));
    await alone.end();
    loseStore(home);
    expect(recoverHome({ pools: [localOf(home), second], home: home.home })).toMatchObject({
      ...{ volumes: 2, snapshots: 2, missingPools: [], renamed: [] },
      check: { ok: true },
    });
    await open(home);
    expect(await contents(home)).toEqual(before);
  });

  it('is not taken for a new one by a daemon that is started meanwhile, and can be recovered after that', async () => {
    await home.open();
    await populate(home);
    await home.close();
    loseStore(home);
    await expect(home.open()).rejects.toThrow(/atoll recover/);
    expect(recoverHome({ pools: [localOf(home)], home: home.home })).toMatchObject({ volumes: 3 });
    await open(home);
  });
});

describe('a recovered store', () => {
  const alone = () => path.join(home.dir, 'alone.db');

  function rows(db: Database.Database): [string, unknown[]][] {
    const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").pluck().all();
    return (tables as string[]).map((table) => [table, db.prepare(`SELECT * FROM ${table}`).all()]);
  }

  /**
   * Recovers while somebody else, who comes early, has the new store open too, and reads it by `sql`; its file alone is
   * copied. @returns all that the other one sees in it
   */
  function recoverBeside(sql: string): [string, unknown[]][] {
    let other: Database.Database | null = null;
    const { prepare } = Database.prototype;
    const spy = vi.spyOn(Database.prototype, 'prepare').mockImplementation(function (this: Database.Database, text) {
      if (
        other === null &&
        this.name.endsWith('.recovering') &&
        this.pragma('journal_mode', { simple: true }) === 'wal'
      ) {
        this.pragma('busy_timeout = 10');
        other = new Database(this.name, { readonly: true });
        other.exec(sql);
      }
      return prepare.call(this, text);
    });
    try {
      recoverHome({ pools: [localOf(home)], home: home.home });
      fs.copyFileSync(storeOf(home), alone());
      return rows(other as unknown as Database.Database);
    } finally {
      spy.mockRestore();
      expect(other).not.toBeNull();
      (other as Database.Database | null)?.close();
    }
  }

  beforeEach(async () => {
    await home.open();
    await populate(home);
  });

  // SQLite writes the log out when the last connection closes, and does not say when it could not
  it('is whole without its log, whether or not closing writes that out', async () => {
    const before = await contents(home);
    await home.close();
    loseStore(home);
    const seen = recoverBeside('SELECT * FROM meta');
    loseStore(home);
    fs.renameSync(alone(), storeOf(home));
    const db = new Database(storeOf(home));
    expect(rows(db)).toEqual(seen);
    db.close();
    await open(home);
    expect(await contents(home)).toEqual(before);
  });

  it('is none when it cannot be written out of its log', async () => {
    await home.close();
    loseStore(home);
    expect(() => recoverBeside('BEGIN; SELECT * FROM meta')).toThrow(/could not be written out of its log/);
    expect(fs.readdirSync(home.home).filter((name) => name.startsWith('store'))).toEqual([]);
    expect(recoverHome({ pools: [localOf(home)], home: home.home })).toMatchObject({ volumes: 3 });
  });
});

describe('recovering refuses', () => {
  it('a home that has a store, and one that is held; a pool that is held', async () => {
    await home.open();
    expect(() => recoverHome({ pools: [localOf(home)], home: home.home })).toThrow(code('HELD'));
    const other = new Home();
    expect(() => recoverHome({ pools: [localOf(home)], home: other.home })).toThrow(code('HELD'));
    await home.close();
    expect(() => recoverHome({ pools: [localOf(home)], home: home.home })).toThrow(code('EXISTS'));
    fs.writeFileSync(storeOf(other), 'anything');
    expect(() => recoverHome({ pools: [localOf(home)], home: other.home })).toThrow(code('EXISTS'));
    expect(fs.readFileSync(storeOf(other), 'latin1')).toBe('anything');
    await other.end();
  });

  it('what is no pool, a pool without a place for copies, no pool at all, one twice, and pools of two homes', async () => {
    const e = await home.open();
    const file = path.join(home.dir, 'file');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, 70 * MIB); // no room for copies
    await e.createPool({ name: 'f', path: file });
    await home.close();
    const other = new Home();
    await other.open();
    await other.close();
    const to = path.join(home.dir, 'to');
    const recover = (...pools: string[]) => recoverHome({ pools, home: to });
    expect(() => recover()).toThrow(code('INVALID'));
    expect(() => recover(path.join(home.dir, 'nothing'))).toThrow(code('NOT_FOUND'));
    expect(() => recover(home.dir)).toThrow(code('NOT_OURS'));
    expect(() => recover(storeOf(home))).toThrow(code('NOT_OURS'));
    expect(() => recover(file)).toThrow(code('UNSUPPORTED'));
    expect(() => recover(localOf(home), localOf(home))).toThrow(code('INVALID'));
    expect(() => recover(localOf(home), localOf(other))).toThrow(code('NOT_OURS'));
    await other.end();
  });

  it('a pool without copies, with none that is whole, with those of another pool, and with newer ones', async () => {
    await home.open();
    await home.close();
    const copy = path.join(localOf(home), 'store-copy.0');
    const whole = fs.readFileSync(copy);
    const to = path.join(home.dir, 'to');
    const recover = () => recoverHome({ pools: [localOf(home)], home: to });
    fs.rmSync(copy);
    expect(recover).toThrow(code('NOT_FOUND'));
    fs.writeFileSync(copy, whole.subarray(1));
    expect(recover).toThrow(code('CORRUPT'));
    const other = new Home();
    await other.open();
    await other.close();
    fs.copyFileSync(path.join(localOf(other), 'store-copy.0'), copy);
    expect(recover).toThrow(/another pool/);
    await other.end();
    expect(fs.readdirSync(to).filter((name) => name.startsWith('store'))).toEqual([]);
    fs.writeFileSync(copy, whole);
    expect(recover()).toMatchObject({ volumes: 0 });
  });
});

describe('copies', () => {
  it('that are off go, and are not made at a stop', async () => {
    await home.open();
    await home.close();
    const copies = () => fs.readdirSync(localOf(home)).filter((name) => name.startsWith('store-copy'));
    expect(copies()).toEqual(['store-copy.0']);
    const e = await home.open({ copyIntervalMs: 0 });
    expect(copies()).toEqual([]);
    expect((await e.showPool('local')).copies).toMatchObject({ state: 'off', generations: 0 });
    await home.close();
    expect(copies()).toEqual([]);
  });

  it('are made every second at most and every day at least, or never', async () => {
    for (const copyIntervalMs of [-1, 1, 999, 24 * 3600_000 + 1, Number.NaN])
      await expect(home.open({ copyIntervalMs })).rejects.toThrow(code('INVALID'));
    for (const copyIntervalMs of [1000, 24 * 3600_000]) {
      await home.open({ copyIntervalMs });
      await home.close();
    }
  });

  it('are two, private, and not in the way of space that comes back', async () => {
    const e = await home.open({ copyIntervalMs: 1000 });
    await e.createVolume({ name: 'disk', size: SIZE });
    await fill(home, 'disk', 0, 1, 64);
    await copied(e);
    await e.deleteVolume('disk', {});
    for (;;) {
      const pool = await e.showPool('local');
      if (pool.usedBytes === 0 && pool.reclaimingBytes === 0) break;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const names = fs.readdirSync(localOf(home)).filter((name) => /^store-copy\.\d$/.test(name));
    expect(names).toEqual(['store-copy.0', 'store-copy.1']);
    for (const name of names) expect(fs.statSync(path.join(localOf(home), name)).mode & 0o777).toBe(0o600);
  });

  it('give way in a pool that is full', async () => {
    const e = await home.open({ copyIntervalMs: 1000 });
    const place = path.join(home.dir, 'small');
    await e.createPool({ name: 'small', path: `${place}/`, size: 64 * MIB });
    await e.createVolume({ name: 'disk', size: 64 * MIB, pool: 'small' });
    await fill(home, 'disk', 0, 1, 512);
    await fill(home, 'disk', 512, 1, 512);
    await copied(e, 'small');
    await e.deleteVolume('disk', {});
    await e.createVolume({ name: 'next', size: 64 * MIB, pool: 'small' });
    await fill(home, 'next', 0, 2, 512);
    await fill(home, 'next', 512, 2, 512);
    const client = await home.connect('next');
    expect((await client.read(1023 * BLOCK, BLOCK)).every((b) => b === 2)).toBe(true);
    await client.close();
  });
});

describe('a backup', () => {
  it('under load is one moment: it is private, restores and checks clean', async () => {
    const e = await home.open({ copyIntervalMs: 1000 });
    await populate(home);
    const writing = await home.connect('disk');
    let stop = false;
    const load = (async () => {
      for (let i = 0; !stop; i++) {
        await writing.write((i % 64) * BLOCK, Buffer.alloc(BLOCK, i % 251));
        await writing.flush();
        if (i % 8 === 0) await e.createSnapshot('disk', `load${i}`);
      }
    })();
    const folder = path.join(home.dir, 'backups');
    fs.mkdirSync(folder);
    let fixed = 0;
    const made = await e.backup(path.join(folder, 'b.db'), () => fixed++);
    expect(fixed).toBe(1);
    stop = true;
    await load;
    await writing.close();
    expect(made.path).toBe(path.join(folder, 'b.db'));
    expect(fs.readdirSync(folder)).toEqual(['b.db']);
    expect(fs.statSync(made.path).mode & 0o777).toBe(0o600);
    expect(fs.statSync(made.path).size).toBe(made.bytes);
    const monday = (await contents(home)).get('disk@monday');
    await home.close();
    loseStore(home);
    // nothing was freed since that could have been used again, whether or not the pool can prove it
    const report = recoverHome({ pools: [localOf(home)], home: home.home, from: made.path, force: true });
    expect(report).toMatchObject({ volumes: 3, check: { ok: true } });
    await open(home);
    expect((await contents(home)).get('disk@monday')).toEqual(monday);
  });

  it('fits while the pool has not used slots again since, and is refused after that', async () => {
    const e = await home.open({ copyIntervalMs: 24 * 3600_000 });
    await populate(home);
    await home.close();
    await home.open({ copyIntervalMs: 24 * 3600_000 });
    const { path: file } = await (home.engine as Engine).backup(path.join(home.dir, 'backup.db'));
    await home.close();
    const restore = (to: Home) => recoverHome({ pools: [localOf(home)], home: to.home, from: file });
    const fits = new Home();
    expect(restore(fits)).toMatchObject({ volumes: 3, pools: [{ source: file, complete: false }] });
    await fits.end();
    for (let i = 0; i < 2; i++) {
      await home.open();
      await home.close();
    }
    const late = new Home();
    expect(() => restore(late)).toThrow(code('STALE'));
    for (const name of ['store-copy.0', 'store-copy.1']) fs.rmSync(path.join(localOf(home), name));
    expect(() => restore(late)).toThrow(code('STALE'));
    expect(recoverHome({ pools: [localOf(home)], home: late.home, from: file, force: true }).check.ok).toBe(true);
    await late.end();
    expect(e).toBeDefined();
  });

  it('is refused once a store that was recovered has served the pool, and not before', async () => {
    const copyIntervalMs = 24 * 3600_000;
    await home.open({ copyIntervalMs });
    await populate(home);
    await home.close();
    const e = await home.open({ copyIntervalMs });
    const { path: file } = await e.backup(path.join(home.dir, 'backup.db'));
    await home.close();
    loseStore(home);
    recoverHome({ pools: [localOf(home)], home: home.home });
    const restore = (to: Home) => recoverHome({ pools: [localOf(home)], home: to.home, from: file });
    const fits = new Home();
    expect(restore(fits)).toMatchObject({ volumes: 3 });
    await fits.end();
    await home.open({ copyIntervalMs });
    // as after a crash: what is on the disk now
    const left = path.join(home.dir, 'left');
    fs.cpSync(localOf(home), left, { recursive: true });
    await home.close();
    for (const pool of [left, localOf(home)]) {
      const late = new Home();
      const again = { pools: [pool], home: late.home, from: file };
      expect(() => recoverHome(again)).toThrow(/served by a store that was recovered/);
      expect(recoverHome({ ...again, force: true }).volumes).toBe(3);
      await late.end();
    }
  });

  it('brings back a pool in a file that has no place for copies', async () => {
    const e = await home.open();
    const file = path.join(home.dir, 'file');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, 70 * MIB); // no room for copies beside the least of a pool
    await e.createPool({ name: 'f', path: file });
    expect((await e.showPool('f')).copies).toMatchObject({ state: 'unsupported', takenAt: null });
    await e.createVolume({ name: 'disk', size: SIZE, pool: 'f' });
    await fill(home, 'disk', 0, 5, 8);
    const made = await e.backup(path.join(home.dir, 'b.db'));
    await home.close();
    const other = new Home();
    expect(() => recoverHome({ pools: [file], home: other.home, from: made.path })).toThrow(code('STALE'));
    expect(recoverHome({ pools: [file], home: other.home, from: made.path, force: true })).toMatchObject({
      ...{ volumes: 1, missingPools: [{ name: 'local' }] },
      check: { ok: true },
    });
    await open(other);
    expect((await read(other, 'disk')).subarray(0, 8 * BLOCK).every((b) => b === 5)).toBe(true);
    await other.end();
  });

  it('goes nowhere where it cannot, and leaves nothing there', async () => {
    const e = await home.open();
    const there = path.join(home.dir, 'there');
    fs.writeFileSync(there, 'x');
    await expect(e.backup('relative.db')).rejects.toThrow(code('INVALID'));
    await expect(e.backup(there)).rejects.toThrow(code('EXISTS'));
    await expect(e.backup(path.join(home.dir, 'no', 'file'))).rejects.toThrow(code('NOT_FOUND'));
    await expect(e.backup(`${path.join(home.dir, 'no')}/`)).rejects.toThrow(code('NOT_FOUND'));
    await expect(e.backup(path.join(there, 'below'))).rejects.toThrow(code('NOT_FOUND'));
    expect(fs.readFileSync(there, 'latin1')).toBe('x');
    expect(fs.readdirSync(home.dir).sort()).toEqual(['h', 's', 'there']);
    const from = path.join(home.dir, 'x');
    const recover = () => recoverHome({ pools: [localOf(home)], home: path.join(home.dir, 'to'), from });
    await home.close();
    expect(recover).toThrow(code('NOT_FOUND'));
    fs.writeFileSync(from, 'x'.repeat(100));
    expect(recover).toThrow(code('NOT_OURS'));
    const db = new Database(`${from}.db`);
    db.exec('CREATE TABLE theirs (x)');
    db.close();
    fs.renameSync(`${from}.db`, from);
    expect(recover).toThrow(code('NOT_OURS'));
    const other = new Home();
    const f = await other.open();
    fs.rmSync(from);
    await f.backup(from);
    await other.end();
    expect(recover).toThrow(code('NOT_OURS'));
  });
});
