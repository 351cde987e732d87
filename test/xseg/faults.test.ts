/** Pools that break: errors reach the client as themselves, nothing acknowledged is lost, a failed sync is never retried into success. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { FaultSpec } from '../../src/xseg/native.ts';
import { Home } from './engine.ts';

const MIB = 1024 * 1024;
const EIO = expect.objectContaining({ errno: 5 });
let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

describe('a sync that fails once', () => {
  it('fails the flush, then every write and flush for good; reads go on; the flushed past is there afterwards', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    await e.createVolume({ name: 'w', size: 8 * MIB });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(MIB, 1));
    await c.flush();
    await c.close();
    await home.close();

    e = await home.open({ poolFaults: { local: [{ kind: 'error', sync: true, errno: 5, times: 1 }] } });
    c = await home.connect('v');
    await c.write(0, Buffer.alloc(4096, 2));
    await expect(c.flush()).rejects.toThrow(EIO);
    await expect(c.flush()).rejects.toThrow(EIO);
    await expect(c.write(0, Buffer.alloc(4096, 3))).rejects.toThrow(EIO);
    await expect(c.write(4 * MIB, Buffer.alloc(4096, 3))).rejects.toThrow(EIO);
    expect((await c.read(MIB / 2, 4096)).every((b) => b === 1)).toBe(true);
    const other = await home.connect('w');
    await expect(other.write(0, Buffer.alloc(4096, 3)).then(() => other.flush())).rejects.toThrow(EIO);
    expect(await e.showPool('local')).toMatchObject({ state: 'failed' });
    await expect(e.createSnapshot('v', 's')).rejects.toThrow();
    await c.close();
    await other.close();
    await home.close();

    e = await home.open();
    c = await home.connect('v');
    expect((await c.read(4096, MIB - 4096)).every((b) => b === 1)).toBe(true);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('a sync that fails under a map change', () => {
  it('commits nothing of it', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    await home.close();
    e = await home.open({ poolFaults: { local: [{ kind: 'error', sync: true, errno: 5, times: 1 }] } });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(MIB, 1));
    await expect(c.flush()).rejects.toThrow(EIO);
    await c.close();
    await home.close();
    e = await home.open();
    expect((await e.showVolume('v')).mappedBytes).toBe(0);
    c = await home.connect('v');
    expect((await c.read(0, MIB)).every((b) => b === 0)).toBe(true);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('a snapshot whose data cannot be made durable', () => {
  it('is not there: its name is free, now and afterwards', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    await home.close();
    e = await home.open({ poolFaults: { local: [{ kind: 'error', sync: true, errno: 5, times: 1 }] } });
    const c = await home.connect('v');
    await c.write(0, Buffer.alloc(MIB, 1));
    // the second fails because the volume has, and not because the name is taken
    for (let i = 0; i < 2; i++)
      await expect(e.createSnapshot('v', 's')).rejects.toThrow(expect.objectContaining({ code: 'POOL_FAILED' }));
    await expect(e.showSnapshot('v@s')).rejects.toThrow(expect.objectContaining({ code: 'NOT_FOUND' }));
    expect(await e.listSnapshots()).toEqual([]);
    expect((await e.showVolume('v')).snapshots).toBe(0);
    await c.close();
    await home.close();
    e = await home.open();
    expect((await e.createSnapshot('v', 's')).mappedBytes).toBe(0);
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('writes that fail', () => {
  it('reach the client with their cause, and the slots they were to have come back', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    await home.close();
    e = await home.open({ poolFaults: { local: [{ kind: 'error', write: true, errno: 28, times: 1 }] } });
    const c = await home.connect('v');
    await expect(c.write(0, Buffer.alloc(65536, 1))).rejects.toThrow(expect.objectContaining({ errno: 28 }));
    await c.write(65536, Buffer.alloc(65536, 2));
    await c.flush();
    expect((await c.read(0, 65536)).every((b) => b === 0)).toBe(true);
    expect((await e.showVolume('v')).mappedBytes).toBe(65536);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('a write that the medium fails (EIO)', () => {
  // where the volume has a block, which is written in place, and where it has none
  it.each([
    ['in place', MIB / 2],
    ['of a block that was not there', 4 * MIB],
  ])(
    '%s, fails all later writes and flushes of its pool, and nothing else; the flushed past is there afterwards',
    async (_, at) => {
      let e = await home.open();
      await e.createPool({ name: 'other', path: `${home.dir}/other/` });
      await e.createVolume({ name: 'v', size: 8 * MIB });
      await e.createVolume({ name: 'w', size: 8 * MIB });
      await e.createVolume({ name: 'x', size: 8 * MIB, pool: 'other' });
      const fill = async (name: string, byte: number) => {
        const client = await home.connect(name);
        await client.write(0, Buffer.alloc(MIB, byte));
        await client.flush();
        await client.close();
      };
      await fill('v', 1);
      await fill('w', 2);
      await home.close();

      e = await home.open({ poolFaults: { local: [{ kind: 'error', write: true, errno: 5, times: 1 }] } });
      const c = await home.connect('v');
      await expect(c.write(at, Buffer.alloc(65536, 3))).rejects.toThrow(EIO);
      await expect(c.write(at, Buffer.alloc(65536, 3))).rejects.toThrow(EIO);
      await expect(c.write(0, Buffer.alloc(4096, 3))).rejects.toThrow(EIO);
      await expect(c.flush()).rejects.toThrow(EIO);
      expect((await c.read(0, MIB)).every((b) => b === 1)).toBe(true);
      expect((await c.read(at, 65536)).every((b) => b === (at < MIB ? 1 : 0))).toBe(true);
      // whoever else is in that pool; and in another one
      const w = await home.connect('w');
      await expect(w.write(0, Buffer.alloc(4096, 3))).rejects.toThrow(EIO);
      expect((await w.read(0, MIB)).every((b) => b === 2)).toBe(true);
      await fill('x', 4);
      expect(await e.showPool('local')).toMatchObject({ state: 'failed', reason: expect.stringContaining('write') });
      expect(await e.showPool('other')).toMatchObject({ state: 'ok' });
      await expect(e.createSnapshot('v', 's')).rejects.toThrow();
      await c.close();
      await w.close();
      await home.close();

      e = await home.open();
      expect(await e.showPool('local')).toMatchObject({ state: 'ok' });
      for (const [name, byte] of [
        ['v', 1],
        ['w', 2],
        ['x', 4],
      ] as const) {
        const client = await home.connect(name);
        expect((await client.read(0, MIB)).every((b) => b === byte)).toBe(true);
        expect((await client.read(4 * MIB, MIB)).every((b) => b === 0)).toBe(true);
        await client.write(4 * MIB, Buffer.alloc(4096, 5));
        await client.flush();
        await client.close();
      }
      expect(await e.check()).toMatchObject({ ok: true });
    },
  );
});

describe('reads that fail', () => {
  it('answer EIO and nothing else', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 8 * MIB });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(65536, 1));
    await c.flush();
    await c.close();
    await home.close();
    e = await home.open({ poolFaults: { local: [{ kind: 'error', read: true, errno: 5, times: 1 }] } });
    c = await home.connect('v');
    await expect(c.read(0, 4096)).rejects.toThrow(EIO);
    expect((await c.read(0, 65536)).every((b) => b === 1)).toBe(true);
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('a full pool whose freed slots cannot be had', () => {
  /** A full pool, and a writer that waits for what another volume of it freed. */
  async function waiting(fault: FaultSpec) {
    const e = await home.open({ poolFaults: { p: [fault] } });
    await e.createPool({ name: 'p', path: `${home.dir}/p/`, size: 64 * MIB });
    await e.createVolume({ name: 'v', size: 128 * MIB, pool: 'p' });
    await e.createVolume({ name: 'w', size: 128 * MIB, pool: 'p' });
    const v = await home.connect('v');
    const w = await home.connect('w');
    for (let i = 0; i < 64; i++) await v.write(i * MIB, Buffer.alloc(MIB, 1));
    await v.trim(0, 8 * MIB);
    const write = w.write(0, Buffer.alloc(MIB, 2));
    write.catch(() => undefined);
    return { e, v, w, write };
  }

  it('answers ENOSPC when zeroing fails for want of space, and goes on when it succeeds later', async () => {
    const { e, v, w, write } = await waiting({ kind: 'error', zero: true, errno: 28, times: 1 });
    await expect(write).rejects.toThrow(expect.objectContaining({ errno: 28 }));
    for (let i = 0; (await e.showPool('p')).reclaimingBytes > 0; i++) {
      if (i > 200) throw new Error('it is not tried again');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await w.write(0, Buffer.alloc(MIB, 2));
    await v.close();
    await w.close();
    expect(await e.check()).toMatchObject({ ok: true });
  }, 30_000);

  it('answers EIO when zeroing breaks the pool', async () => {
    const { v, w, write } = await waiting({ kind: 'error', zero: true, errno: 5, times: 1 });
    await expect(write).rejects.toThrow(EIO);
    await expect(w.write(MIB, Buffer.alloc(MIB, 2))).rejects.toThrow(EIO);
    await v.close();
    await w.close();
  });

  it('answers EIO when the commit that frees them cannot be', async () => {
    const { v, w, write } = await waiting({ kind: 'error', sync: true, errno: 5, times: 1 });
    await expect(write).rejects.toThrow(EIO);
    await v.close();
    await w.close();
  });
});

describe('a slow pool', () => {
  it('slows its own volumes only', async () => {
    let e = await home.open();
    await e.createPool({ name: 'slow', path: `${home.dir}/slow/` });
    await home.close();
    e = await home.open({ poolFaults: { slow: [{ kind: 'delay', sync: true, delayMs: 1500 }] } });
    await e.createVolume({ name: 'v', size: 8 * MIB, pool: 'slow' });
    await e.createVolume({ name: 'w', size: 8 * MIB, pool: 'local' });
    const slow = await home.connect('v');
    const quick = await home.connect('w');
    await slow.write(0, Buffer.alloc(65536, 1));
    let flushed = false;
    const flush = slow.flush().then(() => {
      flushed = true;
    });
    for (let i = 0; i < 50; i++) await quick.write(i * 65536, Buffer.alloc(4096, 2));
    await quick.flush();
    expect(flushed).toBe(false);
    await flush;
    await slow.close();
    await quick.close();
  });
});
