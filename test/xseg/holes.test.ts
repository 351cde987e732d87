/** Space that comes back to the file system: what a pool takes on it falls when blocks are freed, however that comes. */
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Engine } from '../../src/xseg/types.ts';
import { Home } from './engine.ts';

const MIB = 1024 * 1024;
const SIZE = 16 * MIB;
/** What a file system needs to keep track of as much. */
const EXTRA_BYTES = MIB;
const POLL_MS = 20;
/** Longer than a group waits to be zeroed that a volume still allocates from. */
const WAIT_MS_MAX = 90_000;

describe.each([
  ['a folder of files', {}],
  ['one file', { size: 256 * MIB }],
])('a pool that is %s', (_, { size }: { size?: number }) => {
  let home: Home;
  let e: Engine;
  let place: string;
  beforeEach(async () => {
    home = new Home();
    // a copy of the store would name what is freed for a while
    e = await home.open({ copyIntervalMs: 0 });
    place = path.join(home.dir, size === undefined ? 'p/' : 'p');
    await e.createPool({ name: 'p', path: place, ...(size === undefined ? {} : { size }) });
    await e.createVolume({ name: 'kept', size: SIZE, pool: 'p' });
    await e.createVolume({ name: 'v', size: SIZE, pool: 'p' });
    await write('kept', 0, 2 * MIB);
    await write('v', 0, SIZE);
    await takes(SIZE + 2 * MIB);
  });
  afterEach(async () => {
    expect((await e.check()).problems).toEqual([]);
    await home.end();
    expect(home.errors).toEqual([]);
  });

  async function write(name: string, offset: number, bytes: number): Promise<void> {
    const client = await home.connect(name);
    for (let at = offset; at < offset + bytes; at += MIB) await client.write(at, Buffer.alloc(MIB, 1 + at / MIB));
    await client.flush();
    await client.close();
  }

  /** Bytes that the pool's files have blocks for. */
  function onDisk(): number {
    const files = size === undefined ? fs.readdirSync(place).map((name) => path.join(place, name)) : [place];
    return files.reduce((sum, file) => sum + fs.statSync(file).blocks * 512, 0);
  }

  /** Waits until what is told, which may be a second old, and what is so are no less than that, and little more. */
  async function takes(bytes: number): Promise<void> {
    const deadline = Date.now() + WAIT_MS_MAX;
    for (;;) {
      const { physicalBytes, usedBytes } = await e.showPool('p');
      const disk = onDisk();
      if (Math.max(physicalBytes, disk) <= bytes + EXTRA_BYTES && Math.min(physicalBytes, disk) >= bytes) return;
      if (Date.now() > deadline)
        throw new Error(`${physicalBytes} told, ${disk} taken, ${usedBytes} used; wanted ${bytes}`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }

  it('takes less when a volume is deleted', async () => {
    await e.deleteVolume('v', { force: true });
    await takes(2 * MIB);
  });

  it('takes less when a part of a volume is discarded', async () => {
    const client = await home.connect('v');
    await client.trim(4 * MIB, 8 * MIB);
    await client.flush();
    await client.close();
    await takes(SIZE - 8 * MIB + 2 * MIB);
  });

  it('takes less when a snapshot goes whose blocks were all overwritten', async () => {
    await e.createSnapshot('v', 's');
    await write('v', 0, SIZE);
    await takes(2 * SIZE + 2 * MIB);
    await e.deleteSnapshot('v@s', { force: true });
    await takes(SIZE + 2 * MIB);
  });
});
