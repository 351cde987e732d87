/**
 * The end of the store's log as a disk may leave it: ending at a sector, or a sector that is all zeroes or noise. Whoever
 * opens it finds all transactions before the damage, whole, and nothing of the others.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { random } from '../../bench/scatter.ts';
import { checkStore } from '../../src/xseg/check.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { openWriter } from '../../src/xseg/store/schema.ts';
import { LONG } from '../e2e/lib/long.ts';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;
const BLOCK = 64 * 1024;
const SECTOR = 512;
/** Of SQLite's log: its header, and that of each page in it. */
const LOG_HEAD_BYTES = 32;
const FRAME_HEAD_BYTES = 24;
const PAGE_BYTES = 4096;
const FRAME_BYTES = FRAME_HEAD_BYTES + PAGE_BYTES;
/** The last transactions, whose sectors are damaged. */
const TAIL = 8;
/** Sectors and ways to damage them that are tried; all of them in the long suite. */
const TRIES = LONG ? Number.POSITIVE_INFINITY : 150;
/** Of the damaged logs, those that a whole engine is started on. */
const STARTS = 3;
const VOLUMES = 6;
const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);

const native = loadNative();

/** Something that the engine answered, so that it is durable. */
interface Answered {
  /** bytes of the log then */
  logBytes: number;
  /** of all rows of the store then */
  digest: string;
  /** volumes and snapshots that there were then → the byte that they are filled with, 0 nothing written */
  holds: Map<string, number>;
}

const DAMAGES = {
  'cut off': (log: Buffer, at: number) => log.subarray(0, at),
  zeroed: (log: Buffer, at: number) => Buffer.from(log).fill(0, at, Math.min(log.length, at + SECTOR)),
  noise: (log: Buffer, at: number, next: () => number) => {
    const bytes = Buffer.from(log);
    for (let i = at; i < Math.min(bytes.length, at + SECTOR); i++) bytes[i] = Math.floor(next() * 256);
    return bytes;
  },
};
type Damage = keyof typeof DAMAGES;

/** Where transactions end in a log, ascending. */
function endsOf(log: Buffer): number[] {
  const ends: number[] = [];
  for (let at = LOG_HEAD_BYTES; at + FRAME_BYTES <= log.length; at += FRAME_BYTES)
    if (log.readUInt32BE(at + 4) !== 0) ends.push(at + FRAME_BYTES);
  return ends;
}

/** All rows of all tables. */
function digestOf(file: string): string {
  const db = openWriter(file);
  // what it moves out of the log at the end nobody needs to keep
  db.pragma('synchronous = OFF');
  try {
    const hash = createHash('sha256');
    const tables = db.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").pluck().all();
    for (const table of tables) {
      hash.update(`\n${table}`);
      for (const row of db.prepare(`SELECT * FROM "${table}"`).raw().iterate() as Iterable<unknown[]>)
        for (const cell of row) hash.update('\t').update(Buffer.isBuffer(cell) ? cell : String(cell));
    }
    return hash.digest('hex');
  } finally {
    db.close();
  }
}

describe(`the store's log (seed ${seed})`, () => {
  const next = random(seed);
  const home = new Home();
  const store = path.join(home.home, 'store.db');
  const copy = path.join(home.dir, 'copy.db');
  const answered: Answered[] = [];
  /** the store and its log as the daemon had them after the last answer */
  let base: Buffer;
  let log: Buffer;
  const ends: number[] = [];
  /** per end: of all rows of the store */
  const digests: string[] = [];

  /** A store with that log, at `file`. */
  function put(file: string, bytes: Buffer): void {
    fs.rmSync(`${file}-shm`, { force: true });
    fs.writeFileSync(file, base);
    fs.writeFileSync(`${file}-wal`, bytes);
  }

  beforeAll(async () => {
    console.log(`seed ${seed}`);
    const e = await home.open({ copyIntervalMs: 0 });
    const holds = new Map<string, number>();
    /** Notes what is there now, which somebody was told of. */
    const note = () => {
      base = fs.readFileSync(store);
      // the daemon may be writing more of it
      const bytes = fs.readFileSync(`${store}-wal`);
      log = bytes.subarray(0, endsOf(bytes).at(-1));
      put(copy, log);
      answered.push({ logBytes: log.length, digest: digestOf(copy), holds: new Map(holds) });
    };
    for (let i = 1; i <= VOLUMES; i++) {
      const name = `v${i}`;
      await e.createVolume({ name, size: 4 * MIB });
      holds.set(name, 0);
      note();
      const client = await home.connect(name);
      await client.write(0, Buffer.alloc(MIB, i));
      await client.flush();
      holds.set(name, i);
      note();
      await e.createSnapshot(name, 's');
      holds.set(`${name}@s`, i);
      note();
      // elsewhere: the snapshot has the blocks
      await client.write(0, Buffer.alloc(MIB, 100 + i));
      await client.flush();
      holds.set(name, 100 + i);
      note();
      await client.close();
      await closed(e, name);
    }
    await home.close();

    ends.push(...endsOf(log));
    for (const end of ends) {
      put(copy, log.subarray(0, end));
      digests.push(digestOf(copy));
    }
  });
  afterAll(() => home.end());

  it('has a transaction for each answer, with what was answered', () => {
    expect(ends.length).toBeGreaterThan(TAIL);
    expect(ends.at(-1)).toBe(log.length);
    expect(new Set(answered.map(({ logBytes }) => logBytes)).size).toBe(answered.length);
    for (const { logBytes, digest } of answered) expect(digests[ends.indexOf(logBytes)]).toBe(digest);
  });

  /** How many whole transactions are before the first byte that differs. */
  function wholeBefore(damaged: Buffer): number {
    let at = 0;
    while (at < damaged.length && damaged[at] === log[at]) at++;
    return ends.filter((end) => end <= at).length;
  }

  /** Sectors of the tail, each with each damage, in an order by chance. */
  function tries(): { sector: number; damage: Damage }[] {
    const all: { sector: number; damage: Damage }[] = [];
    const first = Math.ceil(ends[ends.length - TAIL - 1] / SECTOR);
    for (let sector = first; sector * SECTOR < log.length; sector++)
      for (const damage of Object.keys(DAMAGES) as Damage[]) all.push({ sector, damage });
    for (let i = all.length - 1; i > 0; i--) {
      const k = Math.floor(next() * (i + 1));
      [all[i], all[k]] = [all[k], all[i]];
    }
    return all.slice(0, TRIES);
  }

  it('damaged in any sector of its end is read up to the transaction before that, and check finds nothing', () => {
    const found = new Set<number>();
    for (const { sector, damage } of tries()) {
      const damaged = DAMAGES[damage](log, sector * SECTOR, next);
      const whole = wholeBefore(damaged);
      put(copy, damaged);
      const what = `sector ${sector} ${damage}, seed ${seed}`;
      const digest = digestOf(copy);
      expect(digest === digests[whole - 1] ? whole : digests.indexOf(digest) + 1, what).toBe(whole);
      expect(checkStore(copy, native, () => undefined).problems, what).toEqual([]);
      found.add(whole);
    }
    expect(found.size).toBeGreaterThan(TAIL / 2);
  });

  it('damaged so is what a daemon starts on: volumes and snapshots of the transactions before, with their bytes', async () => {
    // The longest first: what an engine frees and zeroes is nobody's in a shorter one.
    const chosen = tries()
      .slice(0, STARTS)
      .sort((a, b) => b.sector - a.sector);
    for (const { sector, damage } of chosen) {
      const damaged = DAMAGES[damage](log, sector * SECTOR, next);
      const end = ends[wholeBefore(damaged) - 1];
      const last = answered.findLastIndex(({ logBytes }) => logBytes <= end);
      // and what was under way after the last answer, or not
      const [{ holds }, after] = [answered[last], answered[last + 1]?.holds];
      put(store, damaged);
      const what = `sector ${sector} ${damage}, seed ${seed}`;
      const e = await home.open({ copyIntervalMs: 0 });
      const names = [...(await e.listVolumes()), ...(await e.listSnapshots())].map(({ name }) => name);
      expect(names, what).toEqual(expect.arrayContaining([...holds.keys()]));
      for (const name of names) {
        const client = await home.connect(name);
        const bytes = await client.read(0, MIB);
        await client.close();
        for (let at = 0; at < MIB; at += BLOCK) {
          const block = bytes.subarray(at, at + BLOCK);
          expect([holds.get(name), after?.get(name)], `${name} at ${at}, ${what}`).toContain(block[0]);
          expect(block.equals(Buffer.alloc(BLOCK, block[0])), `${name} at ${at}, ${what}`).toBe(true);
        }
      }
      expect((await e.check()).problems, what).toEqual([]);
      await home.close();
    }
  });
});
