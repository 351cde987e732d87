/** `atoll pool set --verify-on-read` as a user types it: sealed blocks rot on their disk, and qemu-io reads them. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import type { CheckReport, PoolInfo, SnapshotInfo } from '../../src/xseg/types.ts';
import { World } from './lib/daemon.ts';

const BLOCK = 64 * 1024;
const BLOCKS = 16;
const WAIT_MS_MAX = 60_000;
const world = new World();
let daemon: Daemon;

interface Ran {
  exit: number | null;
  out: string;
  err: string;
}

function ran(command: string, ...argv: string[]): Ran {
  const env = { ...process.env, ATOLL_HOME: daemon.home };
  const { status, stdout, stderr } = spawnSync(command, argv, { env, encoding: 'utf8' });
  return { exit: status, out: stdout, err: stderr };
}

function atoll(...argv: string[]): string {
  const { exit, out, err } = ran(ATOLL, ...argv);
  expect([exit, err], argv.join(' ')).toEqual([0, '']);
  return out;
}

function json<T>(...argv: string[]): T {
  return JSON.parse(atoll(...argv, '--json')) as T;
}

/** What a block is filled with. */
const fill = (block: number): number => 0x10 + block;

/** What qemu-io says of a block: 'right', 'wrong' bytes without an error, or the error. */
function read(name: string, block: number): string {
  const command = `read -P ${fill(block)} ${block * BLOCK} ${BLOCK}`;
  const { exit, out, err } = ran('qemu-io', '-r', '-f', 'raw', '-c', command, daemon.uri(name));
  const said = out + err;
  if (said.includes('Pattern verification failed')) return 'wrong';
  return exit === 0 ? 'right' : (/read failed: (.*)/.exec(said)?.[1] ?? said);
}

function pool(): NonNullable<PoolInfo['seal']> {
  return json<PoolInfo>('pool', 'show', 'local').seal as NonNullable<PoolInfo['seal']>;
}

/** The disk changes a byte of a block, in the pool's file, and says nothing. */
function rot(block: number): void {
  const folder = path.join(daemon.home, 'pools/local');
  for (const name of fs.readdirSync(folder).filter((one) => /^s\d+$/.test(one))) {
    const fd = fs.openSync(path.join(folder, name), 'r+');
    const bytes = Buffer.alloc(BLOCK);
    for (let at = 0; at < 4 * BLOCKS * BLOCK; at += BLOCK) {
      if (fs.readSync(fd, bytes, 0, BLOCK, at) < BLOCK || !bytes.equals(Buffer.alloc(BLOCK, fill(block)))) continue;
      fs.writeSync(fd, Buffer.from([0xff]), 0, 1, at + 1000);
      fs.closeSync(fd);
      return;
    }
    fs.closeSync(fd);
  }
  throw new Error(`block ${block} is in no file of the pool`);
}

beforeAll(async () => {
  daemon = await world.start();
  atoll('volume', 'create', 'disk', '--size', String(BLOCKS * BLOCK));
  const writes = Array.from({ length: BLOCKS }, (_, i) => ['-c', `write -P ${fill(i)} ${i * BLOCK} ${BLOCK}`]).flat();
  expect(ran('qemu-io', '-f', 'raw', ...writes, '-c', 'flush', daemon.uri('disk')).exit).toBe(0);
  atoll('pool', 'set', 'local', '--seal', 'on');
  atoll('snapshot', 'create', 'disk', 's');
  const since = Date.now();
  while (json<SnapshotInfo>('snapshot', 'show', 'disk@s').hash === null) {
    if (Date.now() - since > WAIT_MS_MAX) throw new Error('the snapshot is not sealed');
    await sleep(50);
  }
});
afterAll(() => world.end());

it('off, which is how it begins: what a disk changed is returned', () => {
  expect(pool().verifyOnRead).toBe(false);
  expect(read('disk@s', 3)).toBe('right');
  rot(3);
  expect(read('disk@s', 3)).toBe('wrong');
  expect(read('disk', 3)).toBe('wrong');
  expect(pool().quarantined).toBe(0);
});

it('on: it is EIO for whoever shares the block, what is sound is read, and check names it', () => {
  atoll('pool', 'set', 'local', '--verify-on-read', 'on');
  expect(pool().verifyOnRead).toBe(true);
  expect(atoll('pool', 'show', 'local')).toContain('reads are verified');
  expect(read('disk@s', 3)).toBe('Input/output error');
  expect(read('disk', 3)).toBe('Input/output error');
  for (const block of [0, 2, 4, BLOCKS - 1]) {
    expect(read('disk@s', block)).toBe('right');
    expect(read('disk', block)).toBe('right');
  }
  expect(pool().quarantined).toBe(1);
  const { exit, out } = ran(ATOLL, 'check', '--json');
  expect(exit).toBe(7);
  expect((JSON.parse(out) as CheckReport).problems.map(({ code }) => code)).toEqual(['BAD_BLOCK']);
});

it('a volume is written over what is rotten, by whole blocks only', () => {
  const write = (bytes: number) =>
    ran('qemu-io', '-f', 'raw', '-c', `write -P ${fill(3)} ${3 * BLOCK} ${bytes}`, daemon.uri('disk'));
  expect(write(512).out).toContain('write failed: Input/output error');
  expect(write(BLOCK).exit).toBe(0);
  expect(read('disk', 3)).toBe('right');
  expect(read('disk@s', 3)).toBe('Input/output error');
});

it('stays as it is set over a restart, until it is off', async () => {
  await daemon.stop();
  daemon = await world.start([], daemon.home);
  expect(pool().verifyOnRead).toBe(true);
  rot(5);
  expect(read('disk', 5)).toBe('Input/output error');
  atoll('pool', 'set', 'local', '--verify-on-read', 'off');
  rot(7);
  expect(read('disk@s', 7)).toBe('wrong');
  // what was found stays found
  expect(read('disk@s', 5)).toBe('Input/output error');
  expect(pool().quarantined).toBe(2);
});

it('refuses what is neither on nor off', () => {
  const { exit, out, err } = ran(ATOLL, 'pool', 'set', 'local', '--verify-on-read', 'yes');
  expect([exit, out]).toEqual([2, '']);
  expect(err).toMatch(/^atoll: [^\n]+\n$/);
  expect(pool().verifyOnRead).toBe(false);
});
