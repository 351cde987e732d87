/** `atoll import FILE VOLUME@SNAPSHOT`: images of all formats, and backup streams, become sealed snapshots. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import { inProcess } from '../control/in-process.ts';
import { World } from './lib/daemon.ts';

const KIB = 1024;
const MIB = 1 << 20;

interface Sealed {
  format: string;
  snapshot: { name: string; size: number; mappedBytes: number; hash: string };
}

const world = new World();
let daemon: Daemon;
/** what the raw image became */
let first: Sealed;

beforeAll(async () => {
  daemon = await world.start();
  const fd = fs.openSync(world.file('in.raw'), 'w');
  fs.ftruncateSync(fd, 256 * MIB);
  // No two blocks alike, so that what is stored can be counted; then blocks that are, and an end that is no whole block.
  fs.writeSync(fd, blocks(48 * MIB, 1), 0, 48 * MIB, 0);
  fs.writeSync(fd, blocks(3 * MIB, 2), 0, 3 * MIB, 100 * MIB + 512);
  fs.writeSync(fd, Buffer.alloc(64 * KIB, 7), 0, 64 * KIB, 200 * MIB);
  fs.writeSync(fd, Buffer.alloc(512, 3), 0, 512, 256 * MIB - 512);
  fs.closeSync(fd);
  first = await imported('in.raw', 'first@s');
});
afterAll(() => world.end());

/** Every 4 KiB begin with a number of their own. */
function blocks(bytes: number, kind: number): Buffer {
  const made = Buffer.alloc(bytes, kind);
  for (let at = 0; at < bytes; at += 4 * KIB) made.writeUInt32LE(at / (4 * KIB), at);
  return made;
}

async function imported(file: string, name: string, ...more: string[]): Promise<Sealed> {
  const { exit, out, err } = await inProcess(daemon, ['import', world.file(file), name, '--json', ...more]);
  expect([exit, err], file).toEqual([0, '']);
  return JSON.parse(out) as Sealed;
}

async function refused(exit: number, words: RegExp, file: string, name: string, ...more: string[]): Promise<void> {
  const ran = await inProcess(daemon, ['import', world.file(file), name, ...more]);
  expect(ran.err).toMatch(words);
  expect([ran.exit, ran.err.match(/\n/g)?.length], file).toEqual([exit, 1]);
}

async function names(): Promise<string[]> {
  const { volumes } = await daemon.http<{ volumes: { name: string }[] }>('GET', '/v1/volumes?hidden=true');
  return volumes.map(({ name }) => name).sort();
}

async function used(pool = 'local'): Promise<number> {
  return (await daemon.http<{ usedBytes: number }>('GET', `/v1/pools/${pool}`)).usedBytes;
}

async function until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
  for (let tries = 0; tries < 1000; tries++) {
    if (await holds()) return;
    await sleep(20);
  }
  expect.fail(what);
}

async function forget(volume: string): Promise<void> {
  await daemon.deleteSnapshot(`${volume}@s`);
  await daemon.deleteVolume(volume);
}

async function sameAs(file: string, name: string): Promise<void> {
  const target = world.file('back.raw');
  const { exit, err } = await inProcess(daemon, ['export', name, target, '--format', 'raw', '--force']);
  expect([exit, err]).toEqual([0, '']);
  expect(spawnSync('cmp', [world.file(file), target]).status).toBe(0);
}

describe('what is imported', () => {
  it('a raw image, read by the daemon, or sent', async () => {
    expect(first).toMatchObject({ format: 'raw', snapshot: { name: 'first@s', size: 256 * MIB } });
    await sameAs('in.raw', 'first@s');
    const stdin = fs.openSync(world.file('in.raw'), 'r');
    const sent = spawnSync(ATOLL, ['import', '/dev/stdin', 'sent@s', '--format', 'raw', '--json'], {
      stdio: [stdin, 'pipe', 'pipe'],
      env: daemon.cliEnv(),
    });
    fs.closeSync(stdin);
    expect(JSON.parse(String(sent.stdout)).snapshot).toMatchObject({ hash: first.snapshot.hash, name: 'sent@s' });
    await sameAs('in.raw', 'sent@s');
  });

  it.each([
    ['qcow2', []],
    ['compressed', ['-c']],
    ['zstd', ['-c', '-o', 'compression_type=zstd']],
    ['old', ['-o', 'compat=0.10']],
    ['small-clusters', ['-o', 'cluster_size=512']],
    ['subclusters', ['-o', 'cluster_size=128k,extended_l2=on']],
  ])('a qcow2 image has the hash of the raw one, and takes no space again: %s', async (name, options) => {
    const raw = world.file('in.raw');
    await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, `${name}.qcow2`);
    const before = await used();
    const made = await imported(`${name}.qcow2`, `${name}@s`);
    expect(made).toMatchObject({ format: 'qcow2', snapshot: { ...sameContent(), name: `${name}@s` } });
    expect((await used()) - before).toBeLessThan(MIB);
    fs.rmSync(world.file(`${name}.qcow2`));
  });

  it('a full backup stream too, of whatever block size it was made', async () => {
    await daemon.cli('pool', 'create', 'small', '--path', world.file('small/'), '--block-size', '4K');
    await imported('in.raw', 'other@s', '--pool', 'small');
    await inProcess(daemon, ['export', 'other@s', world.file('in.full'), '--format', 'stream']);
    const before = await used();
    const made = await imported('in.full', 'streamed@s');
    expect(made).toMatchObject({ format: 'stream', snapshot: { ...sameContent(), name: 'streamed@s' } });
    expect((await used()) - before).toBeLessThan(MIB);
    const small = await imported('in.full', 'streamed-small@s', '--pool', 'small');
    expect(small.snapshot.hash).not.toBe(first.snapshot.hash);
    await sameAs('in.raw', 'streamed-small@s');
  });

  it('an empty image is a snapshot of zeroes, without time or space', async () => {
    await world.run('qemu-img', 'create', '-q', '-f', 'qcow2', 'empty.qcow2', '1T');
    const made = await imported('empty.qcow2', 'empty@s');
    expect(made.snapshot).toMatchObject({ size: 2 ** 40, mappedBytes: 0 });
  });

  const sameContent = () => ({ hash: first.snapshot.hash, size: 256 * MIB, mappedBytes: first.snapshot.mappedBytes });
});

describe('what fails leaves nothing', () => {
  it('an image that was cut off, one that needs another file', async () => {
    await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', 'in.raw', 'sound.qcow2');
    const sound = fs.readFileSync(world.file('sound.qcow2'));
    fs.writeFileSync(world.file('cut.qcow2'), sound.subarray(0, sound.length >> 1));
    await world.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', '/etc/hostname', '-F', 'raw', 'evil.qcow2', '1M');
    const before = await names();
    await refused(7, /damaged or cut off/, 'cut.qcow2', 'cut@s');
    await refused(8, /backing file/, 'evil.qcow2', 'evil@s');
    expect(await names()).toEqual(before);
  });

  it('an incremental stream, and one that is damaged anywhere, at its very end too', async () => {
    await daemon.createVolume('src', 32 * MIB);
    await daemon.snapshot('src', 'a');
    await daemon.snapshot('src', 'b');
    await inProcess(daemon, ['export', 'src@b', world.file('ab.inc'), '--since', 'a']);
    await refused(2, /is incremental/, 'ab.inc', 'inc@s');
    const sound = fs.readFileSync(world.file('in.full'));
    await daemon.cli('pool', 'create', 'fresh', '--path', world.file('fresh/'));
    const before = { names: await names(), used: await used('fresh') };
    for (const at of [40, sound.length >> 1, sound.length - 1]) {
      const bytes = Buffer.from(sound);
      bytes[at]! ^= 0x10;
      fs.writeFileSync(world.file('damaged.full'), bytes);
      await refused(7, /damaged/, 'damaged.full', 'damaged@s', '--format', 'stream', '--pool', 'fresh');
    }
    await until('their space came back', async () => (await used('fresh')) === before.used);
    expect(await names()).toEqual(before.names);
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
  });

  it('an image that qemu-nbd cannot open or read: its reason, with the name of the file', async () => {
    const stub = world.file('stub');
    fs.mkdirSync(stub);
    const script = '#!/bin/sh\necho "qemu-nbd: Failed to get shared lock" >&2\nexit 1\n';
    fs.writeFileSync(`${stub}/qemu-nbd`, script, { mode: 0o755 });
    const { status, stderr } = spawnSync(ATOLL, ['import', world.file('sound.qcow2'), 'new@s'], {
      env: { ...daemon.cliEnv(), PATH: `${stub}:${process.env.PATH}` },
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([4, 'atoll: qemu-nbd: Failed to get shared lock\n']);
    // The tables of a compressed image are checked; what is in its clusters is found out when they are read.
    await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', 'in.raw', 'torn.qcow2');
    const bytes = fs.readFileSync(world.file('torn.qcow2'));
    bytes.fill(0xff, bytes.length >> 1, (bytes.length >> 1) + 64 * KIB);
    fs.writeFileSync(world.file('torn.qcow2'), bytes);
    const before = await names();
    const torn = spawnSync(ATOLL, ['import', world.file('torn.qcow2'), 'torn@s'], {
      env: daemon.cliEnv(),
      encoding: 'utf8',
    });
    expect(torn.stderr).toMatch(/torn\.qcow2/);
    expect(torn.status).not.toBe(0);
    expect(await names()).toEqual(before);
  });

  it('a folder for temporary files whose name is too long for a socket', () => {
    const long = world.file('x'.repeat(100));
    fs.mkdirSync(long);
    const { status, stderr } = spawnSync(ATOLL, ['import', world.file('sound.qcow2'), 'new@s'], {
      env: { ...daemon.cliEnv(), TMPDIR: long },
      encoding: 'utf8',
    });
    expect([status, stderr]).toEqual([2, expect.stringMatching(/TMPDIR/)]);
    expect(fs.readdirSync(long)).toEqual([]);
  });

  it('qemu-nbd that is missing: says what to install', () => {
    const bin = world.file('bin');
    fs.mkdirSync(bin);
    for (const tool of ['sh', 'readlink', 'dirname', 'qemu-img'])
      fs.symlinkSync(fs.realpathSync(`/usr/bin/${tool}`), `${bin}/${tool}`);
    const { status, stderr } = spawnSync(ATOLL, ['import', world.file('sound.qcow2'), 'new@s'], {
      env: { ...daemon.cliEnv(), PATH: bin, ATOLL_NODE: process.execPath },
      encoding: 'utf8',
    });
    const text = 'atoll: qemu-nbd is not installed; on Debian: apt-get install qemu-utils\n';
    expect([status, stderr]).toEqual([8, text]);
  });

  const signals = ['SIGTERM', 'SIGINT', 'SIGKILL'] as const;
  it.each(signals)('an import that gets %s: no volume, no qemu-nbd, no file', async (signal) => {
    const image = world.file('slow.qcow2');
    if (!fs.existsSync(image)) {
      fs.writeFileSync(world.file('slow.raw'), blocks(384 * MIB, 4));
      await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', '-c', 'slow.raw', image);
      fs.rmSync(world.file('slow.raw'));
    }
    const before = { names: await names(), used: await used() };
    const tmp = world.file(`tmp-${signal}`);
    fs.mkdirSync(tmp);
    const child = spawn(ATOLL, ['import', image, 'slow@s'], {
      env: { ...daemon.cliEnv(), TMPDIR: tmp },
      stdio: 'ignore',
    });
    const gone = new Promise<number | null>((resolve) => child.once('exit', resolve));
    let server: number[] = [];
    await until('qemu-nbd runs', () => {
      server = childrenOf(child).filter((pid) => commandOf(pid).startsWith('qemu-nbd'));
      return server.length > 0 || child.exitCode !== null;
    });
    await until('some of it is stored', async () => (await used()) > before.used);
    child.kill(signal);
    const exit = await gone;
    await until('qemu-nbd ended', () => server.every((pid) => !commandOf(pid).startsWith('qemu-nbd')));
    expect(fs.readdirSync(tmp)).toEqual([]);
    // It may have been done a moment before: then it is whole, and only then.
    if (exit === 0) await forget('slow');
    else if (signal !== 'SIGKILL') expect(exit).toBe(130);
    await until('its space came back', async () => (await used()) === before.used);
    expect(await names()).toEqual(before.names);
  });
});

function childrenOf({ pid }: ChildProcess): number[] {
  return processFile(`${pid}/task/${pid}/children`).split(' ').filter(Boolean).map(Number);
}

function commandOf(pid: number): string {
  return processFile(`${pid}/cmdline`);
}

/** Empty when there is no such process. */
function processFile(name: string): string {
  try {
    return fs.readFileSync(`/proc/${name}`, 'utf8');
  } catch {
    return '';
  }
}
