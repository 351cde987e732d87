/** A block of the index whose bytes rotted, unnoticed yet. */
import fs from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { Home } from './engine.ts';

const BLOCK = 4096;

it('nothing folds into a block that does not hold its bytes any more', async () => {
  const home = new Home();
  try {
    const e = await home.open();
    await e.createPool({ name: 'p', path: path.join(home.dir, 'p/'), blockSize: BLOCK });
    await e.setPool('p', { seal: true });
    const bytes = Buffer.alloc(BLOCK, 7);
    const seal = async (name: string) => {
      await e.createVolume({ name, size: 1024 * 1024, pool: 'p' });
      const client = await home.connect(name);
      await client.write(0, bytes);
      await client.flush();
      await client.close();
      await e.createSnapshot(name, 's');
      while ((await e.showSnapshot(`${name}@s`)).hash === null) await new Promise((resolve) => setTimeout(resolve, 5));
    };
    await seal('a');
    const file = path.join(home.dir, 'p', 's00000000');
    const at = fs.readFileSync(file).indexOf(bytes);
    expect(at).toBeGreaterThanOrEqual(0);
    const fd = fs.openSync(file, 'r+');
    fs.writeSync(fd, Buffer.from('rot'), 0, 3, at + 100);
    fs.closeSync(fd);
    await seal('b');
    const client = await home.connect('b@s');
    expect((await client.read(0, BLOCK)).equals(bytes)).toBe(true);
    await client.close();
    expect((await e.showPool('p')).seal).toMatchObject({ entries: 2, foldedBytes: 0 });
  } finally {
    await home.end();
  }
});
