/** `atoll check` and `atoll check --repair` as a user types them, on homes of real daemons with damage planted in the store. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import { NbdClient } from '../../src/control/nbd/client.ts';
import type { CheckReport, RepairReport } from '../../src/xseg/types.ts';
import { World } from './lib/daemon.ts';

const MIB = 1024 * 1024;
const world = new World();
let daemon: Daemon;
/** the store of the daemon that stopped, sound */
let sound: Buffer;
/** files of the pool: name → what they held then */
const blocks = new Map<string, Buffer>();

const storePath = () => path.join(daemon.home, 'store.db');
const poolDir = () => path.join(daemon.home, 'pools/local');

function poolFiles(): string[] {
  return fs
    .readdirSync(poolDir())
    .filter((name) => /^s\d+$/.test(name))
    .sort();
}

/** What a few volumes have of a file of the pool, which is sparse. */
function head(name: string): Buffer {
  const fd = fs.openSync(path.join(poolDir(), name), 'r');
  const bytes = Buffer.alloc(8 * MIB);
  const length = fs.readSync(fd, bytes, 0, bytes.length, 0);
  fs.closeSync(fd);
  return bytes.subarray(0, length);
}

beforeAll(async () => {
  daemon = await world.start();
  await daemon.createVolume('v', 8 * MIB);
  await write('v', 0, 2 * MIB, 1);
  await daemon.snapshot('v', 's');
  await write('v', MIB, 64 * 1024, 2);
  await daemon.clone('v@s', 'c');
  await write('c', 0, 64 * 1024, 3);
  expect(atoll('check').exit).toBe(0);
  await daemon.stop();
  sound = fs.readFileSync(storePath());
  for (const name of poolFiles()) blocks.set(name, head(name));
  expect(blocks.size).toBeGreaterThan(0);
});
afterAll(() => world.end());

async function write(name: string, offset: number, length: number, fill: number): Promise<void> {
  const nbd = await NbdClient.connect({ socket: daemon.nbdSocket, exportName: name });
  await nbd.write(offset, Buffer.alloc(length, fill));
  await nbd.close();
}

interface Ran {
  exit: number | null;
  out: string;
  err: string;
}

function atoll(...argv: string[]): Ran {
  const env = { ...process.env, ATOLL_HOME: daemon.home };
  const { status, stdout, stderr } = spawnSync(ATOLL, argv, { env, encoding: 'utf8' });
  return { exit: status, out: stdout, err: stderr };
}

type Answer = CheckReport & { offline: boolean; repaired?: RepairReport };

function asJson(ran: Ran): Answer {
  expect(ran.err).toBe('');
  return JSON.parse(ran.out) as Answer;
}

/** The sound store again, and something done to it. */
function plant(work: (db: Database.Database) => void): void {
  for (const tail of ['-wal', '-shm']) fs.rmSync(storePath() + tail, { force: true });
  fs.writeFileSync(storePath(), sound);
  const db = new Database(storePath());
  work(db);
  db.pragma('wal_checkpoint(TRUNCATE)');
  db.close();
}

/** Data of the pool is what it was, and was not even written. */
function untouched(before: number[]): void {
  for (const [name, bytes] of blocks) expect(head(name).equals(bytes), name).toBe(true);
  expect(written()).toEqual(before);
}

const written = () => poolFiles().map((name) => fs.statSync(path.join(poolDir(), name)).mtimeMs);

const DAMAGE: [string, string, (db: Database.Database) => void, (repaired: RepairReport) => number][] = [
  [
    'references of a slot that nobody has',
    'SLOT_REFS',
    (db) => db.prepare('INSERT INTO slot_ref (pool, slot, extra) VALUES (1, 3, 4)').run(),
    (r) => r.slotRefs,
  ],
  [
    'references of a page counted wrong',
    'PAGE_REFS',
    (db) => db.prepare('INSERT OR REPLACE INTO page_ref (id, extra) SELECT max(id), 5 FROM page').run(),
    (r) => r.pageRefs,
  ],
  [
    'used slots that the bitmap calls free',
    'SLOTS',
    (db) => db.prepare('UPDATE slot_group SET bitmap = zeroblob(length(bitmap)), used = 0').run(),
    (r) => r.slotsTaken,
  ],
  [
    'a free slot that the bitmap calls used',
    'LEAK',
    (db) => {
      const row = db.prepare('SELECT bitmap FROM slot_group WHERE grp = 0').get() as { bitmap: Buffer };
      const last = row.bitmap.length - 1;
      expect(row.bitmap[last]).toBe(0);
      row.bitmap[last] = 0x80;
      db.prepare('UPDATE slot_group SET bitmap = ?, used = used + 1 WHERE grp = 0').run(row.bitmap);
    },
    (r) => r.slotsFreed,
  ],
  [
    'a row of the index of a slot that is free',
    'SEAL',
    (db) => {
      db.prepare('INSERT INTO sealed (pool, slot, hash) VALUES (1, 1000, ?)').run(Buffer.alloc(32, 7));
      db.prepare('INSERT OR REPLACE INTO seal_pool (pool, entries) VALUES (1, 1)').run();
    },
    (r) => r.seal,
  ],
  [
    'an index that has another number of rows than counted',
    'SEAL',
    (db) => db.prepare('INSERT OR REPLACE INTO seal_pool (pool, entries) VALUES (1, 9)').run(),
    (r) => r.seal,
  ],
  [
    'a page that nothing reaches',
    'UNREACHABLE',
    (db) => {
      // a volume's record is gone: its pages were nobody's since
      const { root } = db.prepare("SELECT root FROM resource WHERE name = 'c'").get() as { root: number };
      expect(root).toBeGreaterThan(0);
      db.prepare("DELETE FROM resource WHERE name = 'c'").run();
    },
    (r) => r.pagesRemoved,
  ],
  [
    'a number of blocks that a record has wrong',
    'RESOURCE',
    (db) => db.prepare("UPDATE resource SET mapped = 77 WHERE name = 'v'").run(),
    (r) => r.resources,
  ],
  [
    'ids that would be given out again',
    'META',
    (db) => db.prepare("UPDATE meta SET value = 1 WHERE key = 'next_page'").run(),
    (r) => r.meta,
  ],
];

describe('check of a home that nobody serves', () => {
  it('finds nothing in a sound one: 0, a line for people, JSON that says it was offline', () => {
    plant(() => undefined);
    const text = atoll('check');
    expect([text.exit, text.err]).toEqual([0, '']);
    const report = asJson(atoll('check', '--json'));
    expect(report).toMatchObject({ ok: true, offline: true, resources: 3, problemCount: 0, problems: [] });
    expect(report.repaired).toBeUndefined();
    const nothing = atoll('check', '--repair');
    expect(nothing.exit).toBe(0);
    expect(nothing.out).toMatch(/^nothing to repair\n/);
  });

  for (const [what, code, damage, count] of DAMAGE)
    it(`names ${what} (7), changes nothing, and repair puts it right (0)`, () => {
      plant(damage);
      const before = written();
      const store = fs.readFileSync(storePath());
      const found = atoll('check', '--json');
      expect(found.exit).toBe(7);
      expect(asJson(found).problems.map((p) => p.code)).toContain(code);
      expect(fs.readFileSync(storePath()).equals(store)).toBe(true);
      const mended = atoll('check', '--repair', '--json');
      expect(mended.exit, mended.out).toBe(0);
      const { ok, repaired } = asJson(mended);
      expect(ok).toBe(true);
      expect(count(repaired!)).toBeGreaterThan(0);
      untouched(before);
    });

  it('repair ends with 7 and names what is left when a page is damaged, and frees nothing', () => {
    plant((db) => {
      const { id, data } = db.prepare('SELECT id, data FROM page WHERE base IS NULL ORDER BY id LIMIT 1').get() as {
        id: number;
        data: Buffer;
      };
      data[data.length - 1] ^= 1;
      db.prepare('UPDATE page SET data = ? WHERE id = ?').run(data, id);
    });
    const before = written();
    const mended = atoll('check', '--repair', '--json');
    expect(mended.exit).toBe(7);
    const { ok, problems, repaired } = asJson(mended);
    expect(ok).toBe(false);
    expect(problems.map((p) => p.code)).toContain('PAGE');
    expect(repaired).toMatchObject({ inDoubt: true, slotsFreed: 0, pagesRemoved: 0 });
    untouched(before);
  });

  it('what was repaired is served again, with the data it had', async () => {
    plant((db) => {
      db.prepare('UPDATE slot_group SET bitmap = zeroblob(length(bitmap)), used = 0').run();
      db.prepare('DELETE FROM page_ref').run();
    });
    expect(atoll('check', '--repair').exit).toBe(0);
    await daemon.restart();
    const nbd = await NbdClient.connect({ socket: daemon.nbdSocket, exportName: 'v' });
    expect((await nbd.read(0, 64 * 1024)).equals(Buffer.alloc(64 * 1024, 1))).toBe(true);
    expect((await nbd.read(MIB, 64 * 1024)).equals(Buffer.alloc(64 * 1024, 2))).toBe(true);
    await nbd.close();
    const held = atoll('check', '--repair', '--home', daemon.home);
    expect(held.exit).toBe(4);
    expect(held.out).toBe('');
    expect(held.err).toMatch(/^atoll: [^\n]*held by another daemon[^\n]*\n$/);
    // the daemon itself checks while it serves
    expect(asJson(atoll('check', '--json'))).toMatchObject({ ok: true, offline: false });
    await daemon.stop();
  });

  it('refuses a folder without a home (3 or 6) and makes nothing in it', () => {
    const empty = world.file('empty');
    fs.mkdirSync(empty);
    for (const argv of [
      ['check', '--home', empty],
      ['check', '--repair', '--home', empty],
    ]) {
      const ran = atoll(...argv);
      expect([3, 6], argv.join(' ')).toContain(ran.exit);
      expect(ran.err).toMatch(/^atoll: [^\n]+\n$/);
    }
    expect(fs.readdirSync(empty)).toEqual([]);
  });
});

/** Of deletions until one was interrupted. */
const TRIES_MAX = 10;

/** Rows of the queue of releases in the store of a daemon that is dead. */
function releases(home: string): number {
  const db = new Database(path.join(home, 'store.db'));
  const rows = db.prepare('SELECT count(*) FROM release').pluck().get() as number;
  db.close();
  return rows;
}

describe('a daemon that is killed while it frees a large volume', () => {
  it('goes on after it starts again, ends with all space back, and check is clean', async () => {
    const large = await world.start();
    await large.createVolume('kept', 8 * MIB);
    const fill = async (name: string, size: number, step: number) => {
      const nbd = await NbdClient.connect({ socket: large.nbdSocket, exportName: name });
      for (let at = 0; at < size; at += step) await nbd.write(at, Buffer.alloc(512, 5));
      await nbd.flush();
      await nbd.close();
    };
    await fill('kept', 8 * MIB, MIB);
    const used = async () => (await large.http<{ usedBytes: number }>('GET', '/v1/pools/local')).usedBytes;
    const kept = await used();
    expect(kept).toBe(8 * 64 * 1024);
    // what it had freed by the moment it was killed is chance: until one was in the middle
    for (let tries = 0; ; tries++) {
      expect(tries).toBeLessThan(TRIES_MAX);
      await large.createVolume('big', 16384 * MIB);
      await fill('big', 16384 * MIB, 8 * MIB);
      expect(await used()).toBe(kept + 2048 * 64 * 1024);
      await large.deleteVolume('big');
      await large.kill();
      const left = releases(large.home);
      await large.restart();
      if (left > 0) break;
    }
    await large.kill();
    await large.restart();
    for (;;) {
      const { background } = await large.status();
      if (Object.values(background).every((left) => left === 0)) break;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(await used()).toBe(kept);
    const check = spawnSync(ATOLL, ['check', '--json'], {
      env: { ...process.env, ATOLL_HOME: large.home },
      encoding: 'utf8',
    });
    expect([check.status, (JSON.parse(check.stdout) as Answer).problems]).toEqual([0, []]);
    await large.stop();
  });
});
