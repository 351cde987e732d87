/** Two things at once of which one is slow: what was acknowledged is there afterwards. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FaultSpec } from '../../src/xseg/native.ts';
import { Home } from './engine.ts';

const MIB = 1024 * 1024;
const BLOCK = 65536;
/** Writes take this long; everything else of a test happens in a fraction of it. */
const WRITE_MS = 1500;
const SLOW_WRITES: Record<string, FaultSpec[]> = { local: [{ kind: 'delay', write: true, delayMs: WRITE_MS }] };

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('a snapshot that is deleted while a block it shared is being copied', () => {
  it('takes no write with it that comes to the block meanwhile', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(2 * BLOCK, 1));
    await c.flush();
    await e.createSnapshot('v', 's');
    // the volume's own leaf, which borrows block 0
    await c.write(BLOCK, Buffer.alloc(4096, 2));
    await c.flush();
    await c.close();
    await home.close();

    e = await home.open({ poolFaults: SLOW_WRITES });
    c = await home.connect('v');
    const first = c.write(0, Buffer.alloc(4096, 3));
    await sleep(100);
    await e.deleteSnapshot('v@s');
    await sleep(400);
    const second = c.write(8192, Buffer.alloc(4096, 4));
    await Promise.all([first, second]);
    const block = await c.read(0, BLOCK);
    const byteAt = (at: number) => [...new Set(block.subarray(at, at + 4096))];
    expect([0, 4096, 8192, 12288].map(byteAt)).toEqual([[3], [1], [4], [1]]);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('a snapshot that is not durable yet', () => {
  /** Syncs take long, and fail with `errno` if that is given. */
  async function pending(errno?: number) {
    const failing: FaultSpec[] = errno === undefined ? [] : [{ kind: 'error', sync: true, errno, times: 1 }];
    const e = await home.open({ poolFaults: { local: [...failing, { kind: 'delay', sync: true, delayMs: 700 }] } });
    await e.createVolume({ name: 'v', size: 8 * MIB });
    const c = await home.connect('v');
    await c.write(0, Buffer.alloc(BLOCK, 1));
    const ended: string[] = [];
    const snapshot = e.createSnapshot('v', 's').then(() => void ended.push('snapshot'));
    await sleep(100);
    const clone = e.clone('v@s', 'c').then(() => void ended.push('clone'));
    return { e, c, ended, both: Promise.allSettled([snapshot, clone]) };
  }

  it('is cloned when it is', async () => {
    const { c, e, ended, both } = await pending();
    await both;
    expect(ended).toEqual(['snapshot', 'clone']);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('and never will be is not cloned', async () => {
    const { c, both } = await pending(5);
    const [snapshot, clone] = await both;
    expect(snapshot).toMatchObject({ status: 'rejected', reason: { code: 'POOL_FAILED' } });
    expect(clone).toMatchObject({ status: 'rejected', reason: { code: 'NOT_FOUND' } });
    await c.close();
    await home.close();
    const e = await home.open();
    expect((await e.listVolumes()).map(({ name }) => name)).toEqual(['v']);
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('a shrink while a write is on its way', () => {
  it('keeps the write to the block that the new end divides', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(4 * BLOCK, 1));
    await c.flush();
    await c.close();
    await home.close();

    e = await home.open({ poolFaults: SLOW_WRITES });
    c = await home.connect('v');
    const write = c.write(BLOCK, Buffer.alloc(4096, 2));
    await sleep(100);
    const shrunk = e.resizeVolume('v', BLOCK + 16384);
    await write;
    expect((await shrunk).size).toBe(BLOCK + 16384);
    const block = await c.read(BLOCK, 16384);
    expect([...new Set(block.subarray(0, 4096))]).toEqual([2]);
    expect([...new Set(block.subarray(4096))]).toEqual([1]);
    await c.close();
    await home.close();

    e = await home.open();
    expect((await e.resizeVolume('v', 8 * MIB)).mappedBytes).toBe(2 * BLOCK);
    c = await home.connect('v');
    expect((await c.read(BLOCK, 4096)).every((b) => b === 2)).toBe(true);
    expect((await c.read(BLOCK + 16384, 3 * BLOCK)).every((b) => b === 0)).toBe(true);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('refuses a write that crosses the new end, and maps nothing beyond it', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(BLOCK, 1));
    await c.flush();
    await c.close();
    await home.close();

    e = await home.open({ poolFaults: SLOW_WRITES });
    c = await home.connect('v');
    const before = c.write(0, Buffer.alloc(4096, 2));
    await sleep(100);
    const shrunk = e.resizeVolume('v', 2 * BLOCK + 4096);
    await sleep(100);
    const ends = [c.write(BLOCK, Buffer.alloc(8 * BLOCK, 3)), c.write(2 * BLOCK, Buffer.alloc(8192, 3))];
    for (const write of ends) await expect(write).rejects.toThrow(expect.objectContaining({ errno: 28 }));
    await before;
    expect((await shrunk).mappedBytes).toBe(BLOCK);
    await e.resizeVolume('v', 8 * MIB);
    expect((await c.read(BLOCK, 16 * BLOCK)).every((b) => b === 0)).toBe(true);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('a shrink that cannot be finished', () => {
  it('leaves the size as it was, here and in the store', async () => {
    let e = await home.open();
    await e.createPool({ name: 'p', path: `${home.dir}/pool/`, size: 64 * MIB });
    await e.createVolume({ name: 'v', size: BLOCK, pool: 'p' });
    await e.createVolume({ name: 'filler', size: 64 * MIB, pool: 'p' });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(BLOCK, 1));
    await c.flush();
    const filler = await home.connect('filler');
    const block = Buffer.alloc(BLOCK, 2);
    for (let i = 0; i < 1023; i++) await filler.write(i * BLOCK, block);
    // the block that the new end divides needs another slot, and there is none
    await expect(e.resizeVolume('v', 1024)).rejects.toThrow(expect.objectContaining({ code: 'NO_SPACE' }));
    expect((await e.showVolume('v')).size).toBe(BLOCK);
    // the slot is the volume's alone again when the page that named it before is gone
    const again = async (left: number): Promise<void> => {
      try {
        await c.write(4096, Buffer.alloc(4096, 3));
      } catch (error) {
        if (left === 0) throw error;
        await sleep(50);
        await again(left - 1);
      }
    };
    await again(100);
    await c.close();
    await filler.close();
    await home.close();
    e = await home.open();
    expect((await e.showVolume('v')).size).toBe(BLOCK);
    c = await home.connect('v');
    const bytes = await c.read(0, BLOCK);
    expect([0, 4096, 8192].map((at) => bytes[at])).toEqual([1, 3, 1]);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});
