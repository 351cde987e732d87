/** What `atoll status` tells people of space on its way back, of pools that run full, of sealing and of scrubbing. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { FakeEngine } from './fake-engine.ts';
import { inProcess } from './in-process.ts';
import { type ServedApi, serveApi } from './served-api.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

const engine = new FakeEngine();
let served: ServedApi;

beforeAll(async () => {
  served = await serveApi(engine);
});
beforeEach(() => engine.reset());
afterAll(() => served.end());

/** Its lines that begin with one of these. */
async function lines(...beginnings: string[]): Promise<string[]> {
  const { exit, out, err } = await inProcess({ home: served.folder }, ['status']);
  expect([exit, err]).toEqual([0, '']);
  return out.split('\n').filter((line) => beginnings.some((beginning) => line.startsWith(beginning)));
}

describe('space to free', () => {
  const left = async () => (await lines('space to free')).map((line) => line.replace(/^space to free +/, ''));

  it('is none when all of it is back', async () => {
    expect(await left()).toEqual(['none']);
  });

  it('goes down from what is deleted, over what is freed, to nothing', async () => {
    const pool = engine.pools.get('local')!;
    engine.background = { dropQueue: 12, freeQueueBytes: 5 * GIB, zeroQueueBytes: 0 };
    expect(await left()).toEqual(['about 5 GiB in 12 map pages']);
    engine.background = { dropQueue: 3, freeQueueBytes: GIB, zeroQueueBytes: 2 * GIB };
    pool.reclaimingBytes = 2 * GIB;
    expect(await left()).toEqual(['about 1 GiB in 3 map pages, 2 GiB to zero']);
    engine.background = { dropQueue: 0, freeQueueBytes: 0, zeroQueueBytes: 512 * MIB };
    pool.reclaimingBytes = 512 * MIB;
    expect(await left()).toEqual(['512 MiB to zero']);
  });

  it('has what copies of the store hold, of all pools', async () => {
    await engine.createPool({ name: 'other', path: '/other' });
    await engine.createPool({ name: 'missing', path: '/missing' });
    Object.assign(engine.pools.get('local')!, { reclaimingBytes: 3 * GIB });
    engine.pools.get('local')!.copies!.heldBytes = 2 * GIB;
    Object.assign(engine.pools.get('other')!, { reclaimingBytes: GIB });
    engine.pools.get('other')!.copies!.heldBytes = GIB;
    engine.pools.get('missing')!.copies = null;
    expect(await left()).toEqual(['4 GiB to zero, 3 GiB of that when copies of the store are newer']);
  });
});

describe('a pool that runs full', () => {
  it('is named with how full it is, and marked in the table; others are not', async () => {
    await engine.createPool({ name: 'wide', path: '/wide' });
    const full = () => lines('pool ');
    expect(await full()).toEqual([]);
    const pool = engine.pools.get('local')!;
    Object.assign(pool, { fullPercent: 83.4, level: 'warning', freeBytes: 5 * GIB });
    expect(await full()).toEqual(['pool local: 83.4 % full (warning), 5 GiB left']);
    Object.assign(pool, { fullPercent: 97.1, level: 'critical', freeBytes: GIB });
    expect(await full()).toEqual(['pool local: 97.1 % full (critical), 1 GiB left']);
    const [local, wide] = await lines('local ', 'wide ');
    expect(local).toMatch(/^local +ok +97 %! /);
    expect(wide).toMatch(/^wide +ok +0 % /);
  });
});

describe('sealing and scrubbing', () => {
  const told = () => lines('sealing ', 'scrubbing ');

  it('are told of pools that have them, with every number in its place', async () => {
    await engine.createPool({ name: 'plain', path: '/plain' });
    await engine.createPool({ name: 'missing', path: '/missing' });
    engine.pools.get('missing')!.seal = null;
    expect(await told()).toEqual([]);
    Object.assign(engine.pools.get('local')!.seal!, {
      ...{ on: true, rate: 20 * MIB, hashedBytes: 3 * GIB, foldedBytes: GIB, dedupRatio: 1.5 },
      ...{ entries: 4096, indexBytes: 280 * KIB, backlogSnapshots: 2, backlogBytes: 512 * MIB },
      ...{ scrubRate: MIB, scrubbedAt: '2026-01-31T12:00:00.500Z', quarantined: 3, verifyOnRead: true },
    });
    expect(await told()).toEqual([
      'sealing local: on at 20 MiB/s; 3 GiB hashed, 1 GiB folded (ratio 1.50); index 4096 blocks, about 280 KiB; 2 snapshots to go, at most 512 MiB',
      'scrubbing local: at 1 MiB/s; last whole pass ended 2026-01-31 12:00:00; 3 blocks in quarantine; reads are verified',
    ]);
  });

  it('say what they do now, also where sealing is off and the index is kept', async () => {
    const seal = engine.pools.get('local')!.seal!;
    seal.on = true;
    const nothing = '0 B hashed, 0 B folded (ratio 1.00); index 0 blocks, about 0 B; 0 snapshots to go, at most 0 B';
    const idle = 'scrubbing local: off; no whole pass yet; 0 blocks in quarantine';
    expect(await told()).toEqual([`sealing local: on; ${nothing}`, idle]);
    seal.paused = true;
    expect(await told()).toEqual([`sealing local: paused; ${nothing}`, idle]);
    Object.assign(seal, { on: false, paused: false, entries: 9 });
    expect(await told()).toEqual([`sealing local: off; ${nothing.replace('index 0', 'index 9')}`, idle]);
  });
});
