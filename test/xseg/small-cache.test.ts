/** A map several times larger than its cache: pages come and go under load, and nothing else changes. */
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;
const LEAVES = 12_000;
/** bytes that a leaf covers with blocks of 4 KiB */
const LEAF = 512 * 4096;
/** frames of the smallest cache */
const FRAMES = (16 * MIB) / 4096;

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

/** A block that says where it belongs and when it was written. */
function block(leaf: number, age: number): Buffer {
  const b = Buffer.alloc(4096, age);
  b.writeUInt32LE(leaf, 0);
  return b;
}

async function inBatches(count: number, work: (i: number) => Promise<void>): Promise<void> {
  for (let i = 0; i < count; i += 128) {
    await Promise.all(Array.from({ length: Math.min(128, count - i) }, (_, k) => work(i + k)));
  }
}

describe('a map larger than its cache', () => {
  it('is read, written, snapshotted, cloned, trimmed and freed as any other', { timeout: 240_000 }, async () => {
    let e = await home.open();
    await e.createPool({ name: 'p', path: path.join(home.dir, 'p/'), blockSize: 4096 });
    await e.createVolume({ name: 'v', size: 2 ** 50, pool: 'p' });
    const c = await home.connect('v');
    const order = Array.from({ length: LEAVES }, (_, i) => (i * 7919) % LEAVES);
    await inBatches(LEAVES, (i) => c.write(order[i] * LEAF + 8192, block(order[i], 1)));
    await c.flush();
    await e.createSnapshot('v', 's');
    await inBatches(LEAVES / 2, (i) => c.write(order[i] * LEAF + 8192, block(order[i], 2)));
    await c.flush();
    const status = await e.status();
    expect(status.map.residentPages).toBeLessThanOrEqual(FRAMES);
    expect(status.map.evictions).toBeGreaterThan(LEAVES - FRAMES);
    await e.clone('v@s', 'w');
    const s = await home.connect('v@s');
    const w = await home.connect('w');
    const half = new Set(order.slice(0, LEAVES / 2));
    await inBatches(LEAVES, async (leaf) => {
      const at = leaf * LEAF + 8192;
      expect((await c.read(at, 4096)).equals(block(leaf, half.has(leaf) ? 2 : 1))).toBe(true);
      expect((await (leaf % 2 ? s : w).read(at, 4096)).equals(block(leaf, 1))).toBe(true);
    });
    expect(await e.check()).toMatchObject({ ok: true });
    // terabytes at once; the snapshot keeps what it had
    for (let at = 0; at < LEAVES * LEAF; at += 2 ** 32 - 65536) await c.trim(at, 2 ** 32 - 65536);
    await c.flush();
    expect((await e.showVolume('v')).mappedBytes).toBe(0);
    expect((await c.read(8192, 4096)).every((x) => x === 0)).toBe(true);
    expect((await s.read(8192, 4096)).equals(block(0, 1))).toBe(true);
    for (const client of [c, s, w]) await client.close();
    for (const name of ['v', 'v@s', 'w']) await closed(e, name);
    expect(await e.check()).toMatchObject({ ok: true });
    await e.deleteVolume('v', { withSnapshots: true });
    await home.close();
    e = await home.open();
    const again = await home.connect('w');
    await inBatches(LEAVES, async (leaf) => {
      expect((await again.read(leaf * LEAF + 8192, 4096)).equals(block(leaf, 1))).toBe(true);
    });
    await again.close();
    await closed(e, 'w');
    await e.deleteVolume('w', {});
    for (let i = 0; ; i++) {
      const pool = await e.showPool('p');
      if (pool.usedBytes === 0 && pool.reclaimingBytes === 0) break;
      if (i > 6000) throw new Error(`space does not come back: ${JSON.stringify(pool)}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(await e.check()).toMatchObject({ ok: true, slots: 0 });
    expect(home.errors).toEqual([]);
  });
});
