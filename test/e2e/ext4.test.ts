/**
 * A real file system on an export, through nbdfuse and a loop device: files in, a snapshot while more are written, a
 * clone of it, whose file system is whole after its journal is replayed and has every file that was synced before.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import type { Child } from '../../bench/children.ts';
import { random } from '../../bench/scatter.ts';
import { KIB, MIB } from '../../bench/size.ts';
import { World } from './lib/daemon.ts';
import { LONG } from './lib/long.ts';

const DISK_BYTES = 512 * MIB;
const FILES = LONG ? 400 : 60;
const SNAPSHOTS = LONG ? 10 : 3;
const TEST_MS_MAX = 600_000;
const WAIT_MS_MAX = 20_000;

/** Why this cannot be tested here, or null. */
function obstacle(): string | null {
  if (process.getuid?.() !== 0) return 'only root may mount';
  if (!fs.existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  const loop = spawnSync('losetup', ['--find'], { encoding: 'utf8' });
  if (loop.status !== 0) return `there is no loop device: ${loop.error?.message ?? loop.stderr.trim()}`;
  if (spawnSync('nbdfuse', ['--version']).status !== 0) return 'there is no nbdfuse (package libnbd-bin)';
  return null;
}

const missing = obstacle();
if (missing) console.warn(`ext4 tests are skipped: ${missing}`);

/** An export as a block device: nbdfuse makes it a file, a loop device makes that a disk. */
class BlockDevice {
  private constructor(
    private readonly world: World,
    private readonly fuse: Child,
    private readonly dir: string,
    readonly device: string,
  ) {}

  static async open(world: World, name: string, uri: string): Promise<BlockDevice> {
    const dir = world.file(`fuse-${name}`);
    fs.mkdirSync(dir);
    const fuse = world.children.spawn('nbdfuse', [dir, uri]);
    const file = path.join(dir, 'nbd');
    const deadline = Date.now() + WAIT_MS_MAX;
    while (!fs.existsSync(file)) {
      if (fuse.finished || Date.now() > deadline) throw new Error(`nbdfuse does not serve ${uri}`);
      await sleep(20);
    }
    const device = (await world.run('losetup', '--find', '--show', file)).trim();
    return new BlockDevice(world, fuse, dir, device);
  }

  async close(): Promise<void> {
    await this.world.run('losetup', '--detach', this.device);
    // The kernel lets go of the file a moment after the command has ended.
    const deadline = Date.now() + WAIT_MS_MAX;
    while (spawnSync('fusermount3', ['-u', this.dir]).status !== 0) {
      if (Date.now() > deadline) throw new Error(`${this.dir} stays busy`);
      await sleep(50);
    }
    await this.fuse.ended;
  }
}

describe.skipIf(missing !== null)('ext4 on an Atoll disk', () => {
  const world = new World();
  const mounts: string[] = [];
  const devices: BlockDevice[] = [];
  afterAll(async () => {
    // After a failure: what the kernel holds has to go before the daemon does.
    for (const mount of mounts) spawnSync('umount', [mount]);
    for (const device of devices) await device.close().catch(() => {});
    await world.end();
  });

  const open = async (name: string, uri: string): Promise<BlockDevice> => {
    const device = await BlockDevice.open(world, name, uri);
    devices.push(device);
    return device;
  };
  const close = async (device: BlockDevice): Promise<void> => {
    await device.close();
    devices.splice(devices.indexOf(device), 1);
  };
  const mount = async (device: BlockDevice, name: string): Promise<string> => {
    const dir = world.file(`mnt-${name}`);
    fs.mkdirSync(dir, { recursive: true });
    await world.run('mount', device.device, dir);
    mounts.push(dir);
    return dir;
  };
  const unmount = async (dir: string): Promise<void> => {
    await world.run('umount', dir);
    mounts.splice(mounts.indexOf(dir), 1);
  };

  it('is whole in every clone of a snapshot that was taken while it was written', {
    timeout: TEST_MS_MAX,
  }, async () => {
    const daemon = await world.start();
    await daemon.createVolume('disk', DISK_BYTES);
    const disk = await open('disk', daemon.uri('disk'));
    await world.run('mkfs.ext4', '-q', disk.device);
    const root = await mount(disk, 'disk');

    const next = random(5);
    const before = world.file('before');
    fs.mkdirSync(before);
    for (let i = 0; i < FILES; i++) {
      const data = Buffer.alloc(Math.floor(next() * 300 * KIB), Math.floor(next() * 256));
      data.write(`file ${i}`);
      fs.writeFileSync(path.join(before, `f${i}`), data);
    }
    await world.run('cp', '-r', before, path.join(root, 'before'));
    await world.run('sync', '-f', root);

    // Files come and go, by another process, while snapshots are taken.
    const end = world.file('end');
    const script =
      'i=0; while [ ! -e "$3" ]; do i=$((i+1)); cp -r "$1" "$2/n$i"; [ $i -gt 3 ] && rm -rf "$2/n$((i-3))"; sync -f "$2"; done';
    const load = world.children.spawn('sh', ['-c', script, 'load', before, root, end]);
    const snapshots: string[] = [];
    for (let i = 0; i < SNAPSHOTS; i++) {
      await sleep(300 + next() * 400);
      snapshots.push(await daemon.snapshot('disk', `s${i}`));
    }
    expect(load.finished).toBeNull();
    fs.writeFileSync(end, '');
    await load.ended;

    for (const [i, snapshot] of snapshots.entries()) {
      const name = `clone${i}`;
      await daemon.clone(snapshot, name);
      const clone = await open(name, daemon.uri(name));
      // Mounting replays the journal.
      const cloned = await mount(clone, name);
      await world.run('diff', '-r', before, path.join(cloned, 'before'));
      fs.writeFileSync(path.join(cloned, 'own'), name);
      await unmount(cloned);
      expect(await world.run('e2fsck', '-fn', clone.device)).toContain('Pass 5');
      await close(clone);
    }

    await unmount(root);
    expect(await world.run('e2fsck', '-fn', disk.device)).toContain('Pass 5');
    await close(disk);

    // The same after a restart, and what a clone wrote is its own.
    await daemon.stop();
    await daemon.restart();
    const again = await open('again', daemon.uri('disk'));
    const files = await mount(again, 'again');
    await world.run('diff', '-r', before, path.join(files, 'before'));
    expect(fs.existsSync(path.join(files, 'own'))).toBe(false);
    await unmount(files);
    await close(again);
    expect(await daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
    await daemon.stop();
  });
});
