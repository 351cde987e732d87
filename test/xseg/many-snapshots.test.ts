/** More resources at once than the registry keeps in memory. */
import { afterEach, expect, it } from 'vitest';
import { CACHED_MAX } from '../../src/xseg/mapper/registry.ts';
import { Home } from './engine.ts';

const AT_ONCE = 100;

let h: Home;
afterEach(() => h.end());

it('deletes a volume with more snapshots than are kept in memory, at the first try', { timeout: 60_000 }, async () => {
  h = new Home();
  let e = await h.open();
  await e.createVolume({ name: 'v', size: 1 << 20 });
  const count = Math.ceil((CACHED_MAX + 1) / AT_ONCE) * AT_ONCE;
  for (let i = 0; i < count; i += AT_ONCE)
    await Promise.all(Array.from({ length: AT_ONCE }, (_, k) => e.createSnapshot('v', `s${i + k}`)));
  // none of them is in memory
  await h.close();
  e = await h.open();
  await e.deleteVolume('v', { withSnapshots: true });
  expect(await e.status()).toMatchObject({ volumes: 0, snapshots: 0 });
});
