/**
 * A guest with its disk on an export: it writes, reboots and finds its data; a clone of it boots beside it.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MIB } from '../../bench/size.ts';
import { World } from './lib/daemon.ts';
import { findKernel, runGuest } from './lib/guest.ts';

const DISK_BYTES = 64 * MIB;
const TEST_MS_MAX = 600_000;

const kernel = findKernel();
if (!kernel)
  console.warn('guest tests are skipped: no readable /boot/vmlinuz-*-cloud-* (package linux-image-cloud-amd64)');

describe.skipIf(!kernel)('a QEMU guest on an Atoll disk', () => {
  const world = new World();
  const initrd = world.file('initrd');
  beforeAll(async () => {
    await world.run(new URL('lib/mkinitrd.sh', import.meta.url).pathname, initrd, kernel!.version);
  });
  afterAll(() => world.end());

  it('writes, reboots, finds its data, and its clone boots beside it', { timeout: TEST_MS_MAX }, async () => {
    const daemon = await world.start();
    const run = (name: string, boots: number) => runGuest(world, kernel!, initrd, daemon.uri(name), boots);
    const image = world.file('ext4.raw');
    await world.run('mkfs.ext4', '-q', image, `${DISK_BYTES / 1024}k`);
    await daemon.createVolume('disk', DISK_BYTES);
    await world.run('qemu-img', 'convert', '-n', '-f', 'raw', '-O', 'raw', image, daemon.uri('disk'));

    const first = await run('disk', 2);
    expect(first.lines).toContain('reboots');
    expect([...first.sums('wrote').keys()]).toEqual([1, 2]);
    // The second boot has what the first one wrote.
    expect(first.sums('found').get(1)).toBe(first.sums('wrote').get(1));

    await daemon.clone(await daemon.snapshot('disk', 'after-two'), 'copy');
    const [original, copy] = await Promise.all([run('disk', 3), run('copy', 4)]);
    // Both go on from what the second boot wrote, and each then has its own.
    for (const guest of [original, copy]) expect(guest.sums('found').get(2)).toBe(first.sums('wrote').get(2));
    expect(copy.sums('found').get(3)).toBe(copy.sums('wrote').get(3));
    expect(original.sums('wrote').get(3)).not.toBe(copy.sums('wrote').get(3));

    // The data outlives the daemon.
    await daemon.stop();
    await daemon.restart();
    expect((await run('disk', 4)).sums('found').get(3)).toBe(original.sums('wrote').get(3));
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
    await daemon.stop();
  });
});
