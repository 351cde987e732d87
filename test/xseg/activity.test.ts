/** What the engine says it did, against what was done. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Activity, Distribution } from '../../src/xseg/activity.ts';
import type { Engine } from '../../src/xseg/types.ts';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;
const BLOCK = 64 * 1024;

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

const countOf = ({ counts }: Distribution) => counts.reduce((sum, count) => sum + count, 0);

function sum(
  activity: Activity,
  counter: 'requests' | 'inline' | 'waited' | 'reads' | 'writes' | 'readBytes' | 'writeBytes' | 'errors',
) {
  return activity.reactors.reduce((all, reactor) => all + reactor[counter], 0);
}

/** Reactors hand over what they counted when they sleep. */
async function until(engine: Engine, is: (activity: Activity) => boolean): Promise<Activity> {
  for (let tries = 0; ; tries++) {
    const activity = await engine.activity();
    if (is(activity)) return activity;
    if (tries > 1000) throw new Error(`it never was: ${JSON.stringify(activity)}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

describe('activity', () => {
  it('of an engine that did nothing is nothing', async () => {
    const engine = await home.open({ reactors: 2 });
    const activity = await engine.activity();
    expect(activity.reactors).toHaveLength(2);
    expect(sum(activity, 'requests')).toBe(0);
    for (const kind of Object.values(activity.faults)) expect(countOf(kind)).toBe(0);
    expect(Object.values(activity.queues).every((length) => length === 0)).toBe(true);
    expect(activity.open).toEqual([]);
    expect(activity.home.storeBytes).toBeGreaterThan(4096);
    expect(activity.home.freeBytes).toBeGreaterThan(0);
    expect(JSON.stringify(activity)).not.toContain('null');
  });

  it('counts requests, faults, commits, syncs and slots of what clients do', async () => {
    const engine = await home.open({ reactors: 1 });
    await engine.createVolume({ name: 'v', size: 64 * MIB });
    const before = await engine.activity();
    const client = await home.connect('v');
    for (let i = 0; i < 16; i++) await client.write(i * BLOCK, Buffer.alloc(BLOCK, i + 1));
    await client.flush();
    for (let i = 0; i < 16; i++) await client.read(i * BLOCK, 4096);
    await client.trim(0, 4 * BLOCK);
    await client.flush();
    const after = await until(engine, (activity) => sum(activity, 'reads') >= 16);
    expect(sum(after, 'writes')).toBe(16);
    expect(sum(after, 'writeBytes')).toBe(MIB);
    expect(sum(after, 'readBytes')).toBe(16 * 4096);
    expect(sum(after, 'requests')).toBe(16 + 1 + 16 + 1 + 1);
    expect(sum(after, 'inline') + sum(after, 'waited')).toBe(sum(after, 'requests'));
    expect(sum(after, 'errors')).toBe(0);
    // each first write is a fault, and waits for it
    expect(countOf(after.faults.write)).toBe(16);
    expect(countOf(after.faults.unmap)).toBe(1);
    expect(countOf(after.faults.flush)).toBe(2);
    const waits = after.reactors[0]!.waits;
    expect(countOf(waits.write)).toBe(16);
    expect(Object.values(waits).reduce((all, one) => all + countOf(one), 0)).toBe(sum(after, 'waited'));
    expect(countOf(after.mapper.batches)).toBeGreaterThan(0);
    expect(after.mapper.batches.sum).toBeGreaterThanOrEqual(16 * 2 + 3);
    expect(after.mapper.busySeconds).toBeGreaterThan(before.mapper.busySeconds);
    expect(countOf(after.commits.times)).toBeGreaterThan(countOf(before.commits.times));
    expect(countOf(after.store.transactions)).toBeGreaterThan(countOf(before.store.transactions));
    expect(countOf(after.store.syncs)).toBe(countOf(after.store.transactions));
    expect(after.store.syncs.sum).toBeLessThanOrEqual(after.store.transactions.sum);
    // every batch is in a transaction
    expect(after.store.batches.sum).toBeGreaterThanOrEqual(countOf(after.commits.times));
    expect(countOf(after.dataSyncs.times)).toBeGreaterThan(0);
    expect(after.dataSyncs.errors).toBe(0);
    const pool = await until(engine, ({ pools }) => pools[0]!.slotsFreed >= 4);
    expect(pool.pools[0]).toMatchObject({ name: 'local', slotsTaken: 16, slotsFreed: 4 });
    expect(after.open).toEqual([expect.objectContaining({ name: 'v', openCount: 1 })]);
    await client.close();
    await closed(engine, 'v');
    expect((await engine.activity()).open).toEqual([]);
  });

  it('zeroed slots are counted when they are zero again', async () => {
    const engine = await home.open();
    await engine.createVolume({ name: 'v', size: 64 * MIB });
    const client = await home.connect('v');
    await client.write(0, Buffer.alloc(8 * BLOCK, 1));
    await client.close();
    await closed(engine, 'v');
    await engine.deleteVolume('v', {});
    const freed = await until(engine, ({ pools }) => pools[0]!.slotsZeroed === 8);
    expect(freed.pools[0]).toMatchObject({ slotsTaken: 8, slotsFreed: 8, slotsReclaiming: 0, slotsLost: 0 });
    expect(freed.freeing.pages).toBeGreaterThan(0);
  });

  it('loads and block status are faults of their own', async () => {
    let engine = await home.open();
    await engine.createVolume({ name: 'v', size: 64 * MIB });
    let client = await home.connect('v');
    await client.write(0, Buffer.alloc(BLOCK, 1));
    await client.close();
    await home.close();
    engine = await home.open();
    client = await home.connect('v');
    await client.read(0, 4096);
    const { faults } = await engine.activity();
    expect(countOf(faults.load)).toBe(1);
    expect(countOf(faults.write)).toBe(0);
    await client.close();
  });

  it('failures are counted by errno, and the volumes that refuse writes', async () => {
    let engine = await home.open();
    await engine.createVolume({ name: 'v', size: 8 * MIB });
    await home.close();
    engine = await home.open({ poolFaults: { local: [{ kind: 'error', sync: true, errno: 5, times: 1 }] } });
    const client = await home.connect('v');
    await client.write(0, Buffer.alloc(4096, 1));
    await expect(client.flush()).rejects.toThrow();
    const failed = await engine.activity();
    expect(failed.volumesFailed).toBe(1);
    expect(failed.dataSyncs.errors).toBe(1);
    expect(failed.faultErrors.EIO).toBeGreaterThan(0);
    expect(sum(failed, 'errors')).toBe(1);
    await client.close();
  });

  it('a full pool is ENOSPC, and who waits for slots is seen waiting', async () => {
    const engine = await home.open({ poolFaults: { p: [{ kind: 'delay', zero: true, delayMs: 300 }] } });
    await engine.createPool({ name: 'p', path: `${home.dir}/p/`, size: 64 * MIB });
    await engine.createVolume({ name: 'v', size: 128 * MIB, pool: 'p' });
    const client = await home.connect('v');
    for (let i = 0; i < 64; i++) await client.write(i * MIB, Buffer.alloc(MIB, 1));
    await expect(client.write(64 * MIB, Buffer.alloc(BLOCK, 1))).rejects.toThrow(
      expect.objectContaining({ errno: 28 }),
    );
    expect((await engine.activity()).faultErrors.ENOSPC).toBeGreaterThan(0);
    await client.trim(0, 8 * MIB);
    const write = client.write(64 * MIB, Buffer.alloc(BLOCK, 1));
    const waiting = await until(engine, ({ queues }) => queues.slots > 0);
    expect(waiting.pools.find(({ name }) => name === 'p')!.slotsReclaiming).toBeGreaterThan(0);
    await write;
    const after = await engine.activity();
    expect(after.queues.slots).toBe(0);
    await client.close();
  });

  it('a request that waits for a slow disk is timed', async () => {
    let engine = await home.open({ reactors: 1 });
    await engine.createVolume({ name: 'v', size: 8 * MIB });
    let client = await home.connect('v');
    await client.write(0, Buffer.alloc(BLOCK, 1));
    await client.close();
    await home.close();
    engine = await home.open({ reactors: 1, poolFaults: { local: [{ kind: 'delay', read: true, delayMs: 50 }] } });
    client = await home.connect('v');
    await client.read(0, 4096);
    const { waits } = (await engine.activity()).reactors[0]!;
    // a load of the page and the block itself, in one request
    expect(countOf(waits.read)).toBe(1);
    expect(waits.read.sum).toBeGreaterThan(25_000);
    await client.close();
  });
});
