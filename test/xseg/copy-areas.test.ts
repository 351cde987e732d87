/** Copies of the store that a pool in a file or on a device carries, between its superblock and its slots. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findCopies } from '../../src/xseg/copies/files.ts';
import { FIRST_LINE } from '../../src/xseg/copies/lines.ts';
import { AREA_BYTES_MAX, AREA_BYTES_MIN, AREA_BYTES_THIN, areaAt, areaFor } from '../../src/xseg/copies/place.ts';
import type { RecoverOptions, RecoverReport } from '../../src/xseg/copies/recover.ts';
import type { CopierRequest } from '../../src/xseg/copies/requests.ts';
import { writeCopy } from '../../src/xseg/copies/write.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { crcOf } from '../../src/xseg/pools.ts';
import type { Engine } from '../../src/xseg/types.ts';
import { closed, Home } from './engine.ts';

const compiled = '../../dist/src/xseg/engine.js';
const { recoverHome } = (await import(compiled)) as { recoverHome: (options: RecoverOptions) => RecoverReport };

const BLOCK = 65536;
const MIB = 2 ** 20;
const GIB = 2 ** 30;
const SIZE = 4 * MIB;
const AREA = AREA_BYTES_MIN;
const code = (wanted: string) => expect.objectContaining({ code: wanted });
const native = loadNative();

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

async function fill(name: string, block: number, byte: number, count = 1): Promise<void> {
  const client = await home.connect(name);
  await client.write(block * BLOCK, Buffer.alloc(count * BLOCK, byte));
  await client.flush();
  await client.close();
  await closed(home.engine as Engine, name);
}

async function blocksOf(h: Home, name: string, count: number): Promise<number[]> {
  const client = await h.connect(name);
  const found: number[] = [];
  for (let i = 0; i < count; i++) found.push((await client.read(i * BLOCK, BLOCK))[0]);
  await client.close();
  return found;
}

/** Waits until the newest copy of pool `p` is from after now. */
async function copied(e: Engine, since = Date.now()): Promise<void> {
  for (;;) {
    const { copies } = await e.showPool('p');
    if (copies?.takenAt && Date.parse(copies.takenAt) > since) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const placeAt = (file: string, area = AREA) => ({ path: file, area });

/** A home with a pool at `file`, two copies in it, and one volume with a snapshot. */
async function populated(file: string, size?: number): Promise<Engine> {
  const e = await home.open({ copyIntervalMs: 1000 });
  await e.createPool({ name: 'p', path: file, ...(size === undefined ? {} : { size }) });
  await e.createVolume({ name: 'disk', size: SIZE, pool: 'p' });
  await fill('disk', 0, 1, 8);
  await e.createSnapshot('disk', 'monday');
  await copied(e);
  await fill('disk', 2, 2, 2);
  await copied(e);
  expect((await e.showPool('p')).copies).toMatchObject({ state: 'ok', generations: 2 });
  return e;
}

async function recovered(pool: string, monday: number[], disk: number[], complete: boolean): Promise<RecoverReport> {
  const other = new Home();
  try {
    const report = recoverHome({ pools: [pool], home: other.home });
    expect(report).toMatchObject({ volumes: 1, snapshots: 1, check: { ok: true }, pools: [{ complete }] });
    const e = await other.open();
    expect(await e.check()).toMatchObject({ ok: true, problems: [] });
    expect(await blocksOf(other, 'disk@monday', 5)).toEqual(monday);
    expect(await blocksOf(other, 'disk', 5)).toEqual(disk);
    // it goes on, and carries copies again
    expect((await e.showPool('p')).copies?.state).not.toBe('unsupported');
    return report;
  } finally {
    await other.end();
  }
}

const MONDAY = [1, 1, 1, 1, 1];
const DISK = [1, 1, 2, 2, 1];

describe('areas for copies', () => {
  it('have a 256th of the slots, in bounds, and a fixed size where the end is not known', () => {
    expect(areaFor(0)).toBe(AREA_BYTES_THIN);
    expect(areaFor(64 * MIB)).toBe(AREA_BYTES_MIN);
    expect(areaFor(256 * AREA_BYTES_MIN)).toBe(AREA_BYTES_MIN);
    expect(areaFor(256 * AREA_BYTES_MIN + 1)).toBe(AREA_BYTES_MIN + MIB);
    expect(areaFor(1024 * GIB)).toBe(4 * GIB);
    expect(areaFor(256 * AREA_BYTES_MAX)).toBe(AREA_BYTES_MAX);
    expect(areaFor(2 ** 50)).toBe(AREA_BYTES_MAX);
  });

  it('are left out where the least pool would not fit beside them', async () => {
    const e = await home.open();
    for (const [bytes, state, size] of [
      [1 * MIB + 2 * AREA + 64 * MIB - 1, 'unsupported', 2 * AREA + 64 * MIB - 1],
      [1 * MIB + 2 * AREA + 64 * MIB, 'none', 64 * MIB],
    ] as const) {
      const file = path.join(home.dir, `of-${bytes}`);
      fs.writeFileSync(file, '');
      fs.truncateSync(file, bytes);
      const name = `p${bytes % 2}`;
      expect((await e.createPool({ name, path: file })).copies?.state).toBe(state);
      expect((await e.showPool(name)).capacityBytes).toBe(size - (size % BLOCK));
    }
  });

  it('take no store that is larger, and say so; what was there stays', async () => {
    const file = path.join(home.dir, 'file');
    await populated(file, 64 * MIB);
    await home.close();
    const store = path.join(home.home, 'store.db');
    const bytes = fs.statSync(store).size;
    const small = path.join(home.dir, 'small');
    fs.writeFileSync(small, '');
    const request = (area: number): Extract<CopierRequest, { op: 'write' }> => ({
      ...{ op: 'write', pool: 1, place: placeAt(small, area), name: 'store-copy.0', clean: false, paced: false },
      ...{ homeUuid: '0'.repeat(32), poolUuid: '1'.repeat(32), sequence: 1, line: FIRST_LINE },
    });
    const control = { paced: () => false, cancelled: () => false };
    const steps = { unnamed: () => undefined, naming: () => undefined };
    const write = (area: number) => writeCopy(store, request(area), native, control, steps);
    await expect(write(bytes + 8191)).rejects.toThrow(code('NO_SPACE'));
    expect(fs.statSync(small).size).toBe(0);
    await write(bytes + 8192);
    expect(findCopies(placeAt(small, bytes + 8192), crcOf(native))).toMatchObject([{ footer: { bytes } }]);
    expect(fs.readdirSync(home.home).filter((name) => name.includes('copying'))).toEqual([]);
  });
});

describe('a pool in a file', () => {
  it('brings its home back alone: all of it after a clean stop', async () => {
    const file = path.join(home.dir, 'file');
    await populated(file, 64 * MIB);
    await home.close();
    await recovered(file, MONDAY, DISK, true);
  });

  it('and when it is thin', async () => {
    const file = path.join(home.dir, 'file');
    await populated(file);
    await home.close();
    const { blocks } = fs.statSync(file);
    expect(blocks * 512).toBeLessThan(32 * MIB);
    await recovered(file, MONDAY, DISK, true);
  });

  it('has the older copy when the newest is damaged or was being replaced, and says so', async () => {
    const file = path.join(home.dir, 'file');
    await populated(file, 64 * MIB);
    await home.close();
    const [newest, older] = findCopies(placeAt(file), crcOf(native));
    expect(newest.footer?.clean).toBe(true);
    const start = areaAt(placeAt(file), newest.name);
    const whole = fs.readFileSync(file);
    /** the pool with something done to it: what is recovered is opened, and made anew */
    const broken = (breaks: (bytes: Buffer) => void): string => {
      const bytes = Buffer.from(whole);
      breaks(bytes);
      const image = path.join(home.dir, 'image');
      fs.writeFileSync(image, bytes);
      return image;
    };
    const bytes = newest.footer?.bytes as number;
    for (const at of [start, start + bytes - 1, start + bytes, start + AREA - 4096, start + AREA - 1]) {
      const image = broken((b) => {
        b[at] ^= 0xff;
      });
      const report = await recovered(image, MONDAY, DISK, false);
      expect(report.pools).toMatchObject([{ source: older.name, damaged: [{ file: newest.name }] }]);
    }
    // one that is being written: no footer, and part of its bytes
    const partly = broken((b) => b.fill(0, start + AREA - 4096, start + AREA).fill(7, start, start + 8192));
    expect((await recovered(partly, MONDAY, DISK, false)).pools).toMatchObject([{ source: older.name, damaged: [] }]);
    const none = broken((b) => {
      for (const { name } of [newest, older]) b[areaAt(placeAt(file), name)] ^= 0xff;
    });
    const other = new Home();
    expect(() => recoverHome({ pools: [none], home: other.home })).toThrow(code('CORRUPT'));
    await other.end();
  });

  it('has nothing of the copies that a pool left which was there before', async () => {
    const file = path.join(home.dir, 'file');
    await populated(file, 64 * MIB);
    await home.close();
    expect(findCopies(placeAt(file), crcOf(native))).toHaveLength(2);
    const put = fs.openSync(file, 'r+');
    fs.writeSync(put, Buffer.alloc(4096), 0, 4096, 0);
    fs.closeSync(put);
    const other = new Home();
    const e = await other.open({ copyIntervalMs: 24 * 3600_000 });
    await e.createPool({ name: 'p', path: file, size: 64 * MIB });
    expect(findCopies(placeAt(file), crcOf(native))).toEqual([]);
    expect((await e.showPool('p')).copies).toMatchObject({ state: 'none', generations: 0 });
    await other.end();
  });

  it('says that something may be lost when a daemon opened it since', async () => {
    const file = path.join(home.dir, 'file');
    await populated(file, 64 * MIB);
    await home.close();
    const put = fs.openSync(file, 'r+');
    fs.writeSync(put, Buffer.from('ATOLLSRV'), 0, 8, 4096);
    fs.closeSync(put);
    await recovered(file, MONDAY, DISK, false);
  });

  it('loses its copies where they are switched off, and grows with them', async () => {
    const file = path.join(home.dir, 'file');
    await populated(file, 64 * MIB);
    await home.close();
    const e = await home.open({ copyIntervalMs: 0 });
    expect(findCopies(placeAt(file), crcOf(native))).toEqual([]);
    expect((await e.showPool('p')).copies?.state).toBe('off');
    await home.close();
    const again = await home.open({ copyIntervalMs: 1000 });
    expect((await again.growPool('p', 128 * MIB)).capacityBytes).toBe(128 * MIB);
    await fill('disk', 0, 1);
    await copied(again);
    await home.close();
    await recovered(file, MONDAY, DISK, true);
  });
});

const loop = spawnSync('losetup', ['--find'], { encoding: 'utf8' }).status === 0 && process.getuid?.() === 0;

describe.skipIf(!loop)('a pool on a device', () => {
  it('brings its home back alone, with O_DIRECT too', async () => {
    const file = path.join(home.dir, 'disk.img');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, 96 * MIB);
    const device = spawnSync('losetup', ['--find', '--show', file], { encoding: 'utf8' }).stdout.trim();
    try {
      const e = await home.open({ copyIntervalMs: 1000 });
      const pool = await e.createPool({ name: 'p', path: device, direct: true });
      expect(pool.capacityBytes).toBe((96 - 1) * MIB - 2 * AREA);
      await e.createVolume({ name: 'disk', size: SIZE, pool: 'p' });
      await fill('disk', 0, 1, 8);
      await e.createSnapshot('disk', 'monday');
      await fill('disk', 2, 2, 2);
      await copied(e);
      await home.close();
      await recovered(device, MONDAY, DISK, true);
    } finally {
      await home.close();
      spawnSync('losetup', ['--detach', device]);
    }
  });
});
