/**
 * Other people's clients: what they write is what they, and the others, read.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Daemon } from '../../bench/daemon.ts';
import { random } from '../../bench/scatter.ts';
import { KIB, MIB } from '../../bench/size.ts';
import { World } from './lib/daemon.ts';
import { LONG } from './lib/long.ts';

const IMAGE_BYTES = 24 * MIB;
const VERIFY_JOBS = 4;
const VERIFY_BYTES = (LONG ? 512 : 32) * MIB;
const VERIFY_MS_MAX = 600_000;

interface MapExtent {
  offset: number;
  length: number;
  type: number;
  description: string;
}

describe('real clients', () => {
  const world = new World();
  let daemon: Daemon;
  const image = world.file('image.raw');
  beforeAll(async () => {
    daemon = await world.start();
    makeImage(image);
  });
  afterAll(async () => {
    await daemon?.stop();
    await world.end();
  });

  it('nbdcopy there and back gives the same bytes, and holes stay holes', async () => {
    await daemon.createVolume('copied', IMAGE_BYTES);
    await world.run('nbdcopy', image, daemon.uri('copied'));
    const back = world.file('back.raw');
    await world.run('nbdcopy', daemon.uri('copied'), back);
    expect(digest(back)).toBe(digest(image));
    const volume = await daemon.cli<{ mappedBytes: number }>('volume', 'show', 'copied');
    expect(volume.mappedBytes).toBeGreaterThan(0);
    expect(volume.mappedBytes).toBeLessThan(IMAGE_BYTES);
    // From one export to another, with several connections.
    await daemon.createVolume('copied-2', IMAGE_BYTES);
    await world.run('nbdcopy', '--connections=4', daemon.uri('copied'), daemon.uri('copied-2'));
    await world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, daemon.uri('copied-2'));
  });

  it('qemu-img convert there and back, through qcow2, gives the same bytes', async () => {
    const qcow2 = world.file('image.qcow2');
    await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', image, qcow2);
    await daemon.createVolume('converted', IMAGE_BYTES);
    await world.run('qemu-img', 'convert', '-n', '-f', 'qcow2', '-O', 'raw', qcow2, daemon.uri('converted'));
    const back = world.file('converted.qcow2');
    await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', daemon.uri('converted'), back);
    await world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', image, back);
    await world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', image, daemon.uri('converted'));
  });

  it('qemu-io patterns: parts of blocks, zeroes and discards, seen again after a restart', async () => {
    await daemon.createVolume('patterns', IMAGE_BYTES);
    const io = (name: string, ...commands: string[]) =>
      world.run('qemu-io', '-f', 'raw', '-t', 'writeback', ...commands.flatMap((one) => ['-c', one]), daemon.uri(name));
    await io('patterns', 'write -P 0xaa 0 256k', 'write -P 0xbb 1000 70000', 'write -z 128k 64k', 'discard 192k 64k');
    await io('patterns', 'write -P 0xcc 65024 1024', 'write -f -P 0xdd 512k 4k', 'flush');
    const reads = [
      'read -P 0xaa 0 1000',
      'read -P 0xbb 1000 64024',
      'read -P 0xcc 65024 1024',
      'read -P 0xbb 66048 4952',
      'read -P 0xaa 71000 60072',
      'read -P 0 128k 128k',
      'read -P 0 256k 256k',
      'read -P 0xdd 512k 4k',
      'read -P 0 516k 60k',
    ];
    await io('patterns', ...reads);
    await daemon.snapshot('patterns', 'kept');
    await io('patterns', 'write -P 0x11 0 1M');
    await daemon.stop();
    await daemon.restart();
    const kept = (...commands: string[]) =>
      world.run('qemu-io', '-r', '-f', 'raw', ...commands.flatMap((one) => ['-c', one]), daemon.uri('patterns@kept'));
    await kept(...reads);
    await io('patterns', 'read -P 0x11 0 1M');
    // The check can fail: a pattern that is not there is noticed.
    await expect(io('patterns', 'read -P 0x12 0 4k')).rejects.toThrow('verification failed');
  });

  it('nbdinfo shows holes and data where they are', async () => {
    await daemon.createVolume('mapped', IMAGE_BYTES);
    const block = 64 * KIB;
    await world.run(
      'qemu-io',
      '-f',
      'raw',
      '-c',
      `write ${block} ${block}`,
      '-c',
      `write ${8 * block} 4k`,
      daemon.uri('mapped'),
    );
    const extents = JSON.parse(await world.run('nbdinfo', '--map', '--json', daemon.uri('mapped'))) as MapExtent[];
    expect(extents.map(({ offset, length, type }) => ({ offset, length, type }))).toEqual([
      { offset: 0, length: block, type: 3 },
      { offset: block, length: block, type: 0 },
      { offset: 2 * block, length: 6 * block, type: 3 },
      { offset: 8 * block, length: block, type: 0 },
      { offset: 9 * block, length: IMAGE_BYTES - 9 * block, type: 3 },
    ]);
    const list = JSON.parse(
      await world.run('nbdinfo', '--list', '--json', `nbd+unix:///?socket=${daemon.nbdSocket}`),
    ) as {
      exports: { 'export-name': string }[];
    };
    const names = list.exports.map((one) => one['export-name']);
    expect(names).toEqual(expect.arrayContaining(['mapped', 'patterns', 'patterns@kept']));
  });

  it('nbdinfo shows what changed since a snapshot', async () => {
    const block = 64 * KIB;
    await daemon.createVolume('changing', IMAGE_BYTES);
    const write = (at: number) =>
      world.run('qemu-io', '-f', 'raw', '-c', `write -P 7 ${at * block} ${block}`, daemon.uri('changing'));
    await write(0);
    await write(3);
    await daemon.snapshot('changing', 'before');
    await write(3);
    await write(5);
    const context = '--map=atoll:changed-since:before';
    const extents = JSON.parse(await world.run('nbdinfo', context, '--json', daemon.uri('changing'))) as MapExtent[];
    const changed = extents.filter(({ type }) => (type & 1) !== 0).map(({ offset, length }) => [offset, length]);
    expect(changed).toEqual([
      [3 * block, block],
      [5 * block, block],
    ]);
  });

  it('fio: mixed sizes over several connections, every byte verified, and again after a restart', {
    timeout: VERIFY_MS_MAX,
  }, async () => {
    await daemon.createVolume('verified', VERIFY_JOBS * VERIFY_BYTES);
    const argv = ['--name=verify', '--ioengine=nbd', `--uri=${daemon.uri('verified')}`, '--rw=randwrite'];
    argv.push('--bsrange=512-128k', '--verify=crc32c', '--verify_fatal=1', '--iodepth=16', '--randseed=7');
    argv.push(`--numjobs=${VERIFY_JOBS}`, `--size=${VERIFY_BYTES}`, `--offset_increment=${VERIFY_BYTES}`);
    await world.run('fio', ...argv, '--do_verify=1', '--end_fsync=1');
    await daemon.clone(await daemon.snapshot('verified', 's'), 'verified-clone');
    await daemon.stop();
    await daemon.restart();
    await world.run('fio', ...argv, '--verify_only');
    // A clone reads the same, and what is changed under it is noticed.
    const clone = argv.map((one) => (one.startsWith('--uri') ? `--uri=${daemon.uri('verified-clone')}` : one));
    await world.run('fio', ...clone, '--verify_only');
    await world.run('qemu-io', '-f', 'raw', '-c', `write -P 0x77 0 ${VERIFY_BYTES / 2}`, daemon.uri('verified-clone'));
    await expect(world.run('fio', ...clone, '--verify_only')).rejects.toThrow('bad magic');
    await world.run('fio', ...argv, '--verify_only');
    await daemon.deleteVolume('verified');
  });

  it('has no fault left behind', async () => {
    expect(await daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
  });
});

/** Data, holes, zeroes that are written, and an end that is no whole block. */
function makeImage(file: string): void {
  const next = random(11);
  const descriptor = fs.openSync(file, 'w');
  fs.ftruncateSync(descriptor, IMAGE_BYTES);
  for (let at = 0; at < IMAGE_BYTES; at += 512 * KIB) {
    const kind = next();
    if (kind < 0.4) continue;
    const length = 512 + Math.floor(next() * 400) * 512;
    const data = Buffer.alloc(length, kind < 0.5 ? 0 : Math.floor(next() * 255) + 1);
    fs.writeSync(descriptor, data, 0, length, at + Math.floor(next() * 16) * 512);
  }
  fs.writeSync(descriptor, Buffer.alloc(512, 0x99), 0, 512, IMAGE_BYTES - 512);
  fs.closeSync(descriptor);
}

function digest(file: string): string {
  return createHash('sha256').update(fs.readFileSync(file)).digest('hex');
}
