/** Which slot groups volumes take, seen from the files of a directory pool: one file per group. */
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

const files = () => fs.readdirSync(path.join(home.home, 'pools/local')).filter((name) => /^s\d/.test(name)).length;

it('volumes that are written one after another share a group; those that are written together have their own', async () => {
  const e = await home.open();
  for (let i = 0; i < 20; i++) {
    const name = `v${i}`;
    await e.createVolume({ name, size: 8 * MIB });
    const c = await home.connect(name);
    await c.write(0, Buffer.alloc(4096, i));
    await c.close();
    await closed(e, name);
  }
  const shared = files();
  // one in use, and the spare ones
  expect(shared).toBeLessThanOrEqual(3);

  const open = await Promise.all([0, 1, 2, 3, 4].map((i) => home.connect(`v${i}`)));
  for (const c of open) await c.write(MIB, Buffer.alloc(4096, 7));
  expect(files()).toBeGreaterThan(shared);
  for (const c of open) await c.close();
  for (let i = 0; i < 20; i++) {
    const c = await home.connect(`v${i}`);
    expect((await c.read(0, 4096)).equals(Buffer.alloc(4096, i))).toBe(true);
    await c.close();
  }
  expect(await e.check()).toMatchObject({ ok: true });
});
