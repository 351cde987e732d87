/** Copies of snapshots into empty volumes, as mounts make them (docs/fuse.md, "Clones"). */
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { Files } from '../../src/xseg/types.ts';
import { Home } from './engine.ts';

const BLOCK = 65536;
const BLOCKS = 49152;
const SIZE = BLOCKS * BLOCK;
/** of an NBD request */
const NO_HOLE = 2;
const ZEROED_AT_ONCE = 2 ** 30;

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

it('leaves out tens of thousands of pieces, and says after a restart where it came from', {
  timeout: 120_000,
}, async () => {
  let e = await home.open();
  await e.createVolume({ name: 'v', size: SIZE });
  const c = await home.connect('v');
  for (let at = 0; at < SIZE; at += ZEROED_AT_ONCE) await c.writeZeroes(at, ZEROED_AT_ONCE, NO_HOLE);
  const written = [0, BLOCKS / 2, BLOCKS - 2];
  for (const block of written) await c.write(block * BLOCK, Buffer.alloc(2 * BLOCK, 7));
  await c.close();
  await e.createSnapshot('v', 's');
  // every other block
  const copied = Array.from({ length: BLOCKS / 2 }, (_, i) => [2 * i, 2 * i + 1]).flat();
  const files = e.files as Files;
  await files.create('w');
  const { id } = await files.lookup('volumes', 'w');
  await files.fill(id, 'v@s', SIZE, copied);
  const shown = { size: SIZE, mappedBytes: SIZE / 2, clonedFrom: 'v@s' };
  expect(await e.showVolume('w')).toMatchObject(shown);
  const r = await home.connect('w');
  for (const block of written) {
    const bytes = await r.read(block * BLOCK, 2 * BLOCK);
    expect(bytes.equals(Buffer.concat([Buffer.alloc(BLOCK, 7), Buffer.alloc(BLOCK)]))).toBe(true);
  }
  await r.close();
  expect(await e.check()).toMatchObject({ ok: true });
  await home.close();
  e = await home.open();
  expect(await e.showVolume('w')).toMatchObject(shown);
});
