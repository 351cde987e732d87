/** From one format to the next: a home that version 1 made, and crashes in between. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkStore } from '../../src/xseg/check.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { encodeSuperblock } from '../../src/xseg/pool-superblock.ts';
import { openWriter } from '../../src/xseg/store/schema.ts';
import { FORMAT_OLDEST, FORMAT_VERSION, STEPS, upgrade } from '../../src/xseg/store/upgrade.ts';
import { Home } from './engine.ts';

const compiled = fileURLToPath(new URL('../../dist/src/xseg/store/upgrade.js', import.meta.url));
const BLOCK = 65536;

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

interface Shape {
  version: unknown;
  tables: string[];
}

function shapeOf(file: string): Shape {
  const db = new Database(file, { readonly: true });
  const tables = db.prepare("SELECT name || coalesce(sql, '') FROM sqlite_master ORDER BY name").pluck().all();
  const version = db.pragma('user_version', { simple: true });
  db.close();
  return { version, tables: tables as string[] };
}

/** The home that `fixtures/home-v1.sql` was dumped from: its store, and the slots that its maps name. */
function makeVersion1(): string {
  const local = path.join(home.home, 'pools', 'local');
  fs.mkdirSync(local, { recursive: true, mode: 0o700 });
  const file = path.join(home.home, 'store.db');
  const db = new Database(file);
  db.pragma('page_size = 4096');
  db.pragma('journal_mode = WAL');
  db.exec(fs.readFileSync(new URL('../fixtures/home-v1.sql', import.meta.url), 'utf8'));
  db.prepare('UPDATE pool SET path = ?').run(local);
  const pool = db.prepare('SELECT * FROM pool').get() as Record<string, number> & { uuid: string };
  const homeUuid = db.prepare("SELECT value FROM meta WHERE key = 'home_uuid'").pluck().get() as string;
  db.close();
  const native = loadNative();
  const superblock = encodeSuperblock(
    {
      blockShift: pool.block_shift,
      kind: 'directory',
      poolUuid: pool.uuid,
      homeUuid,
      groupSlots: pool.group_slots,
      size: pool.size,
      createdAt: pool.created_at,
      copyArea: 0,
    },
    (bytes) => native.crc32c(bytes, 0),
  );
  fs.writeFileSync(path.join(local, 'superblock'), superblock);
  // block 0 of `disk`, as the snapshot has it and as it is now; block 1 of `disk`; block 1 of the clone
  for (const [name, bytes] of [
    ['s00000000', [0xa1, 0xa2, 0xa3]],
    ['s00000001', [0xa4]],
    ['s00000002', []],
  ] as const) {
    const slots = fs.openSync(path.join(local, name), 'w');
    fs.ftruncateSync(slots, pool.group_slots * BLOCK);
    for (const [slot, byte] of bytes.entries()) fs.writeSync(slots, Buffer.alloc(BLOCK, byte), 0, BLOCK, slot * BLOCK);
    fs.closeSync(slots);
  }
  return file;
}

describe('a home of version 1', () => {
  it('is upgraded where it is: everything in it is there, and it is like a new one', async () => {
    const file = makeVersion1();
    expect(shapeOf(file).version).toBe(1);
    // sound, though nobody can look into it yet
    expect(() => checkStore(file, loadNative(), () => undefined)).toThrow(
      expect.objectContaining({
        code: 'UNSUPPORTED',
        message: expect.stringMatching(/has format 1; `atoll serve` upgrades it/),
      }),
    );
    expect(shapeOf(file).version).toBe(1);
    const e = await home.open();
    expect((await e.listVolumes()).map(({ name }) => name)).toEqual(['clone', 'disk']);
    expect((await e.listSnapshots()).map(({ name }) => name)).toEqual(['disk@monday']);
    for (const [name, wanted] of [
      ['disk', [0xa2, 0xa3]],
      ['disk@monday', [0xa1, 0]],
      ['clone', [0xa1, 0xa4]],
    ] as const) {
      const client = await home.connect(name);
      for (const [block, byte] of wanted.entries())
        expect((await client.read(block * BLOCK, BLOCK)).every((b) => b === byte)).toBe(true);
      await client.close();
    }
    expect(await e.check()).toMatchObject({ ok: true, problems: [] });
    await home.close();
    const fresh = path.join(home.dir, 'fresh.db');
    openWriter(fresh).close();
    expect(shapeOf(file)).toEqual(shapeOf(fresh));
    expect(shapeOf(file).version).toBe(FORMAT_VERSION);
  });

  it('whose upgrade was killed before its commit is one of version 1, whole, and is upgraded at the next start', async () => {
    const file = makeVersion1();
    const before = shapeOf(file);
    const steps = [
      { to: 2, sql: 'CREATE TABLE made (x); INSERT INTO made VALUES (1); DELETE FROM page;' },
      { to: 3, sql: 'ALTER TABLE resource ADD COLUMN made INTEGER' },
    ];
    const killed = (when: 'before' | 'after') =>
      spawnSync(process.execPath, [
        '--input-type=module',
        '-e',
        `import Database from 'better-sqlite3';
         import { upgrade } from ${JSON.stringify(compiled)};
         const db = new Database(${JSON.stringify(file)});
         db.pragma('synchronous = FULL');
         const die = () => process.kill(process.pid, 'SIGKILL');
         upgrade(db, ${JSON.stringify(steps)}, ${when === 'before' ? 'die' : 'undefined'});
         die();`,
      ]).signal;
    expect(killed('before')).toBe('SIGKILL');
    expect(shapeOf(file)).toEqual(before);
    await home.open();
    expect(await home.engine?.check()).toMatchObject({ ok: true, resources: 3 });
    await home.close();
    const again = path.join(home.dir, 'again');
    fs.renameSync(home.home, again);
    makeVersion1();
    expect(killed('after')).toBe('SIGKILL');
    expect(shapeOf(file)).toMatchObject({ version: 3, tables: expect.arrayContaining(['madeCREATE TABLE made (x)']) });
  });
});

describe('the steps', () => {
  it('leave no version out and end with the newest', () => {
    expect(STEPS.map(({ to }) => to)).toEqual(STEPS.map((_, i) => FORMAT_OLDEST + 1 + i));
    expect(STEPS.at(-1)?.to).toBe(FORMAT_VERSION);
  });

  it('that fail leave nothing behind', () => {
    const db = new Database(path.join(home.dir, 'x.db'));
    db.pragma('user_version = 1');
    expect(() => upgrade(db, [{ to: 2, sql: 'CREATE TABLE a (x); CREATE TABLE a (x);' }])).toThrow('already exists');
    expect(db.pragma('user_version', { simple: true })).toBe(1);
    expect(db.prepare('SELECT count(*) FROM sqlite_master').pluck().get()).toBe(0);
    db.close();
  });

  it('refuse a version that never was', () => {
    const db = new Database(path.join(home.dir, 'x.db'));
    for (const version of [-1, 0, FORMAT_VERSION + 1]) {
      db.pragma(`user_version = ${version}`);
      expect(() => upgrade(db)).toThrow(expect.objectContaining({ code: 'CORRUPT' }));
    }
    expect(upgrade(db, [{ to: FORMAT_VERSION + 1, sql: 'broken' }])).toBe(FORMAT_VERSION + 1);
    db.close();
  });
});
