/** kill -9 and the store gone with it: what the pool's last copy has comes back, and nobody's bytes in anybody else's place. */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { afterAll, describe, expect, it } from 'vitest';
import type { Daemon } from '../../bench/daemon.ts';
import { NbdClient } from '../../bench/nbd.ts';
import { MIB } from '../../bench/size.ts';
import { COLLECT_MS_MAX } from '../../src/xseg/mapper/zeroing.ts';
import { World } from '../e2e/lib/daemon.ts';

const BLOCK = 65536;
const SIZE = 4 * MIB;

interface Pool {
  usedBytes: number;
  copies: { takenAt: string | null; sequence: number; generations: number; heldBytes: number };
}
interface Report {
  volumes: number;
  snapshots: number;
  pools: { complete: boolean; takenAt: string; damaged: unknown[] }[];
  check: { ok: boolean };
}

async function fill(daemon: Daemon, name: string, block: number, byte: number, count = 1): Promise<void> {
  const client = await NbdClient.connect(daemon.nbdSocket, name);
  await client.write(block * BLOCK, Buffer.alloc(count * BLOCK, byte));
  await client.flush();
  await client.close();
}

async function read(daemon: Daemon, name: string): Promise<Buffer> {
  const client = await NbdClient.connect(daemon.nbdSocket, name);
  const bytes = Buffer.alloc(client.size);
  for (let at = 0; at < bytes.length; at += MIB) (await client.read(at, MIB)).copy(bytes, at);
  await client.close();
  return bytes;
}

/** What is lost and recovered: the pool of a home, or another one in a file. */
interface Place {
  pool: string;
  at(daemon: Daemon): string;
}
const LOCAL: Place = { pool: 'local', at: (daemon) => path.join(daemon.home, 'pools', 'local') };
const FILE: Place = { pool: 'file', at: (daemon) => `${daemon.home}.pool` };

const pool = (daemon: Daemon, place: Place) => daemon.http<Pool>('GET', `/v1/pools/${place.pool}`);

/** Waits until the pool has a copy that was begun after now. */
async function copied(daemon: Daemon, place = LOCAL): Promise<void> {
  const since = Date.now();
  for (;;) {
    const { takenAt } = (await pool(daemon, place)).copies;
    if (takenAt !== null && Date.parse(takenAt) > since) return;
    await sleep(50);
  }
}

/** What is in the way of a copy that is written: those that are named stay the newest. */
async function noMoreCopies(daemon: Daemon, place = LOCAL): Promise<void> {
  const store = new Database(path.join(daemon.home, 'store.db'), { readonly: true });
  const uuid = store.prepare('SELECT uuid FROM pool WHERE name = ?').pluck().get(place.pool);
  store.close();
  const file =
    place === LOCAL
      ? path.join(LOCAL.at(daemon), 'store-copy.new')
      : path.join(daemon.home, `store.db.copying.${uuid}`);
  for (;;) {
    try {
      fs.mkdirSync(file);
      return;
    } catch {
      await sleep(5); // one is being written
    }
  }
}

/** Waits until nothing is left to drop in the background. */
async function dropped(daemon: Daemon): Promise<void> {
  while ((await daemon.status()).background.dropQueue) await sleep(20);
}

async function loseAndRecover(daemon: Daemon, place = LOCAL): Promise<Report> {
  for (const end of ['', '-wal', '-shm']) fs.rmSync(path.join(daemon.home, `store.db${end}`), { force: true });
  const report = await daemon.cli<Report>('recover', place.at(daemon));
  expect(report.check.ok).toBe(true);
  await daemon.restart();
  expect(await daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
  return report;
}

describe('a store that is lost in the middle of work', () => {
  const world = new World();
  afterAll(() => world.end());

  it.each([
    ['a folder', LOCAL],
    ['a file', FILE],
  ])('comes back from %s as of the last copy, and later bytes are nowhere', async (_where, place) => {
    const daemon = await world.start(['--copy-every', '1s']);
    if (place !== LOCAL) await daemon.cli('pool', 'create', place.pool, '--path', place.at(daemon), '--size', '64M');
    await daemon.createVolume('disk', SIZE, place.pool);
    await fill(daemon, 'disk', 0, 1, 16);
    await daemon.snapshot('disk', 'monday');
    await fill(daemon, 'disk', 3, 2, 4);
    await daemon.clone('disk@monday', 'clone');
    await fill(daemon, 'clone', 1, 3);
    await copied(daemon, place);
    await noMoreCopies(daemon, place);
    const names = ['disk', 'disk@monday', 'clone'];
    const old = new Map<string, Buffer>();
    for (const name of names) old.set(name, await read(daemon, name));
    // frees slots that the copy names, and wants slots for other bytes
    await daemon.deleteVolume('clone');
    await daemon.deleteSnapshot('disk@monday');
    await daemon.createVolume('later', SIZE, place.pool);
    await fill(daemon, 'later', 0, 0xee, 64);
    await fill(daemon, 'disk', 20, 0xdd, 4);
    await dropped(daemon);
    // by now what was freed would have been zeroed, if copies did not hold it
    await sleep(COLLECT_MS_MAX + 1000);
    await daemon.kill();
    const report = await loseAndRecover(daemon, place);
    expect(report).toMatchObject({ volumes: 2, snapshots: 1, pools: [{ complete: false, damaged: [] }] });
    for (const name of names) expect((await read(daemon, name)).equals(old.get(name) as Buffer), name).toBe(true);
    // and slots that it hands out are zeroes, whatever was in them
    await daemon.createVolume('new', SIZE, place.pool);
    const client = await NbdClient.connect(daemon.nbdSocket, 'new');
    for (let block = 0; block < 64; block++) await client.write(block * BLOCK, Buffer.alloc(512, 9));
    for (let block = 0; block < 64; block++)
      expect((await client.read(block * BLOCK + 512, BLOCK - 512)).every((b) => b === 0)).toBe(true);
    await client.close();
    await daemon.stop();
  });

  it('shows in a snapshot what it had, though a clone took its blocks over since and wrote them', async () => {
    const daemon = await world.start(['--copy-every', '1s']);
    await daemon.createVolume('disk', SIZE);
    await fill(daemon, 'disk', 0, 1, 32);
    await daemon.snapshot('disk', 'one');
    await daemon.clone('disk@one', 'clone');
    await fill(daemon, 'clone', 63, 7);
    await copied(daemon);
    await noMoreCopies(daemon);
    await daemon.deleteVolume('disk');
    await dropped(daemon);
    // in place, if it may: twice, so that the second time nothing is shared any more
    await fill(daemon, 'clone', 0, 0xee, 32);
    await fill(daemon, 'clone', 0, 0xef, 32);
    await daemon.kill();
    await loseAndRecover(daemon);
    expect((await read(daemon, 'disk@one')).subarray(0, 32 * BLOCK).every((b) => b === 1)).toBe(true);
    expect((await read(daemon, 'disk')).subarray(0, 32 * BLOCK).every((b) => b === 1)).toBe(true);
    await daemon.stop();
  });

  it('keeps, over several crashes, what any copy that is named may name', async () => {
    const daemon = await world.start(['--copy-every', '1s']);
    await daemon.createVolume('disk', SIZE);
    await fill(daemon, 'disk', 0, 1, 64);
    await daemon.snapshot('disk', 'kept');
    await copied(daemon);
    await noMoreCopies(daemon);
    await daemon.kill();
    for (let round = 0; round < 3; round++) {
      await daemon.restart();
      if (round === 0) await daemon.deleteVolume('disk');
      await dropped(daemon);
      await daemon.createVolume(`later${round}`, SIZE);
      await fill(daemon, `later${round}`, 0, 0xe0 + round, 64);
      await daemon.kill();
    }
    await loseAndRecover(daemon);
    expect((await read(daemon, 'disk@kept')).every((b) => b === 1)).toBe(true);
    await daemon.stop();
  });

  it('does not take the log of the lost store for the new one’s', async () => {
    const daemon = await world.start(['--copy-every', '1s']);
    await daemon.createVolume('disk', SIZE);
    await fill(daemon, 'disk', 0, 1, 8);
    await copied(daemon);
    await daemon.createVolume('later', SIZE);
    await daemon.kill();
    const store = path.join(daemon.home, 'store.db');
    const bytes = fs.statSync(`${store}-wal`).size;
    expect(bytes).toBeGreaterThan(0);
    fs.rmSync(store);
    const report = await daemon.cli<Report>('recover', LOCAL.at(daemon));
    expect(report.check.ok).toBe(true);
    expect(fs.statSync(`${store}-wal.lost`).size).toBe(bytes);
    await daemon.restart();
    expect((await read(daemon, 'disk')).subarray(0, 8 * BLOCK).every((b) => b === 1)).toBe(true);
    await daemon.stop();
  });
});
