/** Images and backup streams, in and out of real daemons. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import { ControlClient } from '../../src/control/client.ts';
import { NbdClient } from '../../src/control/nbd/client.ts';
import { exportStream } from '../../src/control/transfer/streams.ts';
import { TargetFile } from '../../src/control/transfer/target-file.ts';
import { inProcess } from '../control/in-process.ts';
import { World } from './lib/daemon.ts';

const KIB = 1024;
const MIB = 1 << 20;

const world = new World();
let daemon: Daemon;
let other: Daemon;
beforeAll(async () => {
  daemon = await world.start();
  other = await world.start();
  // A pool of other blocks: a stream does not care.
  await other.cli('pool', 'create', 'small', '--path', world.file('small/'), '--block-size', '4K');
});
afterAll(() => world.end());
beforeAll(() => {
  sparseFile('in.raw', 256 * MIB, [
    [0, 4 * KIB, 1],
    [100 * MIB + 512, 3 * MIB, 2],
    [256 * MIB - 512, 512, 3],
  ]);
});

interface Ran {
  exit: number | null;
  out: string;
  err: string;
}

function atoll(at: Daemon, argv: string[], env: NodeJS.ProcessEnv = {}): Ran {
  const { status, stdout, stderr } = spawnSync(ATOLL, argv, {
    env: { ...process.env, ATOLL_HOME: at.home, ...env },
    cwd: world.dir,
    encoding: 'utf8',
  });
  return { exit: status, out: stdout, err: stderr };
}

function ok(at: Daemon, ...argv: string[]): string {
  const { exit, out, err } = atoll(at, argv);
  expect([exit, err.replace(/^atoll: note: .*\n/gm, '')], argv.join(' ')).toEqual([0, '']);
  return out;
}

function refused(at: Daemon, exit: number, words: RegExp, ...argv: string[]): void {
  const ran = atoll(at, argv);
  expect(ran.err).toMatch(words);
  expect([ran.exit, ran.err.match(/\n/g)?.length], argv.join(' ')).toEqual([exit, 1]);
}

async function withDisk<T>(at: Daemon, name: string, work: (nbd: NbdClient) => Promise<T>): Promise<T> {
  const nbd = await NbdClient.connect({ socket: at.nbdSocket, exportName: name });
  try {
    return await work(nbd);
  } finally {
    await nbd.close();
  }
}

/** SHA-256 of what an export reads as. */
function digest(at: Daemon, name: string): Promise<string> {
  return withDisk(at, name, async (nbd) => {
    const hash = createHash('sha256');
    for (let offset = 0; offset < nbd.size; offset += MIB)
      hash.update(await nbd.read(offset, Math.min(MIB, nbd.size - offset)));
    return hash.digest('hex');
  });
}

async function names(at: Daemon): Promise<string[]> {
  const { volumes } = await at.http<{ volumes: { name: string }[] }>('GET', '/v1/volumes?hidden=true');
  const { snapshots } = await at.http<{ snapshots: { name: string }[] }>('GET', '/v1/snapshots?hidden=true');
  return [...volumes, ...snapshots].map(({ name }) => name).sort();
}

async function untilGone(at: Daemon): Promise<void> {
  for (let tries = 0; tries < 300; tries++) {
    if (!(await names(at)).some((name) => name.includes('.atoll-'))) return;
    await sleep(20);
  }
  expect(await names(at)).toEqual([]);
}

/** What is called .atoll-… in the folder: files that should have gone. */
const leftovers = () => fs.readdirSync(world.dir).filter((name) => name.startsWith('.atoll-'));

/** A sparse file with some data in it. */
function sparseFile(name: string, size: number, pieces: [number, number, number][]): string {
  const at = world.file(name);
  const fd = fs.openSync(at, 'w');
  fs.ftruncateSync(fd, size);
  for (const [offset, length, value] of pieces) fs.writeSync(fd, Buffer.alloc(length, value), 0, length, offset);
  fs.closeSync(fd);
  return at;
}

const sameFiles = (a: string, b: string) => spawnSync('cmp', [a, b]).status === 0;

describe('images', () => {
  it('raw in and out: the same bytes, holes stay holes', async () => {
    const source = world.file('in.raw');
    const volume = JSON.parse(ok(daemon, 'import', source, 'raw', '--json'));
    expect(volume).toMatchObject({ format: 'raw', notes: [], volume: { name: 'raw', size: 256 * MIB } });
    expect(volume.volume.mappedBytes).toBeLessThanOrEqual(4 * MIB);
    const target = world.file('out.raw');
    expect(ok(daemon, 'export', 'raw', target)).toMatch(/raw as raw, 256 MiB/);
    expect(sameFiles(source, target)).toBe(true);
    expect(fs.statSync(target).blocks * 512).toBeLessThan(8 * MIB);
    await untilGone(daemon);
    expect(leftovers()).toEqual([]);
  });

  it('explicit zeroes take no space', async () => {
    fs.writeFileSync(world.file('zero.raw'), Buffer.alloc(8 * MIB));
    ok(daemon, 'import', 'zero.raw', 'zero');
    expect(await daemon.http('GET', '/v1/volumes/zero')).toMatchObject({ size: 8 * MIB, mappedBytes: 0 });
  });

  it('a size is rounded up to a sector, with a note', async () => {
    fs.writeFileSync(world.file('odd.raw'), Buffer.alloc(100_001, 7));
    const { exit, err } = atoll(daemon, ['import', 'odd.raw', 'odd']);
    expect([exit, err]).toEqual([
      0,
      expect.stringMatching(/^atoll: note: odd.raw: its 100001 bytes are rounded up to 100352/),
    ]);
    await withDisk(daemon, 'odd', async (nbd) => {
      const bytes = await nbd.read(0, nbd.size);
      expect(nbd.size).toBe(100_352);
      expect(bytes.equals(Buffer.concat([Buffer.alloc(100_001, 7), Buffer.alloc(351)]))).toBe(true);
    });
  });

  it.each([
    ['qcow2', []],
    ['compressed', ['-c']],
    ['zstd', ['-c', '-o', 'compression_type=zstd']],
    ['old', ['-o', 'compat=0.10']],
    ['small-clusters', ['-o', 'cluster_size=512']],
  ])('qcow2 in and out: %s', async (name, options) => {
    const raw = sparseFile(`${name}.raw`, 64 * MIB, [
      [MIB, 2 * MIB, 5],
      [40 * MIB, 64 * KIB, 6],
    ]);
    const image = world.file(`${name}.qcow2`);
    await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', ...options, raw, image);
    ok(daemon, 'import', image, name);
    const back = world.file(`${name}-back.qcow2`);
    expect(ok(daemon, 'export', name, back)).toContain('as qcow2');
    await world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', raw, back);
    await world.run('qemu-img', 'check', '-f', 'qcow2', back);
    expect(fs.statSync(back).blocks * 512).toBeLessThan(8 * MIB);
  });

  it('no file is read that was not named: a backing file is refused, and nothing stays', async () => {
    await world.run('qemu-img', 'create', '-q', '-f', 'qcow2', '-b', '/etc/hostname', '-F', 'raw', 'evil.qcow2', '1M');
    const before = await names(daemon);
    refused(daemon, 8, /backing file/, 'import', 'evil.qcow2', 'evil');
    expect(await names(daemon)).toEqual(before);
    // As raw it is just bytes.
    ok(daemon, 'import', 'evil.qcow2', 'evil', '--format', 'raw');
  });

  it.each([
    'json:{"driver":"null-co"}',
    'nbd:localhost:1',
    'a,b=c',
    ':',
    '-x.raw',
    'file:x',
    'ünï "quoted"\'s.raw',
    'x'.repeat(255),
  ])('a file called %j is a file', async (name) => {
    fs.writeFileSync(world.file(name), Buffer.alloc(64 * KIB, 9));
    ok(daemon, 'import', `./${name}`, 'named');
    fs.rmSync(world.file(name));
    ok(daemon, 'export', 'named', `./${name}`, '--format', 'raw');
    expect(fs.readFileSync(world.file(name)).equals(Buffer.alloc(64 * KIB, 9))).toBe(true);
    await daemon.deleteVolume('named');
    fs.rmSync(world.file(name));
  });

  it('an image that was cut off, or whose tables lead nowhere, makes no volume (qemu-img alone reads zeroes there)', async () => {
    const raw = sparseFile('d.raw', 8 * MIB, [[0, 8 * MIB, 1]]);
    await world.run('qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', raw, 'sound.qcow2');
    const sound = fs.readFileSync(world.file('sound.qcow2'));
    fs.writeFileSync(world.file('cut.qcow2'), sound.subarray(0, 4 * MIB));
    const astray = Buffer.from(sound);
    astray.writeBigUInt64BE(0x80ffffffffff0000n, Number(sound.readBigUInt64BE(40)));
    fs.writeFileSync(world.file('astray.qcow2'), astray);
    const before = await names(daemon);
    for (const name of ['cut', 'astray']) refused(daemon, 7, /damaged or cut off/, 'import', `${name}.qcow2`, name);
    expect(await names(daemon)).toEqual(before);
    ok(daemon, 'import', 'sound.qcow2', 'sound');
  });

  it('a name that is taken, a volume that is not there, a file that is: refused before anything moves', () => {
    refused(daemon, 4, /already/, 'import', 'in.raw', 'raw');
    refused(daemon, 3, /raw2/, 'export', 'raw2', 'x.raw');
    refused(daemon, 4, /--force/, 'export', 'raw', 'in.raw');
    refused(daemon, 3, /no such file/, 'import', 'none.raw', 'new');
    ok(daemon, 'export', 'raw', 'out.raw', '--force');
  });

  it('qemu-img that is missing: says what to install', () => {
    const bin = world.file('bin');
    fs.mkdirSync(bin, { recursive: true });
    // sh, readlink, dirname for bin/atoll, and node; no qemu-img.
    for (const tool of ['sh', 'readlink', 'dirname'])
      fs.symlinkSync(fs.realpathSync(`/usr/bin/${tool}`), `${bin}/${tool}`);
    const { exit, err } = atoll(daemon, ['import', 'in.raw', 'new'], { PATH: bin, ATOLL_NODE: process.execPath });
    expect([exit, err]).toEqual([8, 'atoll: qemu-img is not installed; on Debian: apt-get install qemu-utils\n']);
  });

  it('an export of a volume in use is one moment of it', async () => {
    await daemon.createVolume('live', 64 * MIB);
    let stop = false;
    const writer = withDisk(daemon, 'live', async (nbd) => {
      // Each round writes its number everywhere, in order: one moment has at most two neighbouring numbers, in order.
      for (let round = 1; !stop; round++) {
        for (let at = 0; at < 64 && !stop; at++) await nbd.write(at * MIB, Buffer.alloc(64 * KIB, round % 250));
      }
    });
    await sleep(300);
    const { exit, err } = await new Promise<Ran>((resolve) => {
      const child = spawn(ATOLL, ['export', 'live', 'live.raw'], {
        env: { ...process.env, ATOLL_HOME: daemon.home },
        cwd: world.dir,
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let text = '';
      child.stderr.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      child.once('close', (code) => resolve({ exit: code, out: '', err: text }));
    });
    stop = true;
    await writer;
    expect([exit, err]).toEqual([0, '']);
    const image = fs.readFileSync(world.file('live.raw'));
    const values = Array.from({ length: 64 }, (_, at) => image[at * MIB]!);
    const changes = values.filter((value, at) => at > 0 && value !== values[at - 1]).length;
    expect(changes).toBeLessThanOrEqual(1);
    for (let at = 0; at < 64; at++) {
      const block = image.subarray(at * MIB, at * MIB + 64 * KIB);
      expect(block.equals(Buffer.alloc(64 * KIB, values[at]))).toBe(true);
    }
    await daemon.deleteVolume('live');
  });

  it('a full pool: exit 5, no volume, and the pool is as before', async () => {
    await daemon.cli('pool', 'create', 'tiny', '--path', world.file('tiny.pool'), '--size', '64M');
    fs.writeFileSync(world.file('big.raw'), Buffer.alloc(96 * MIB, 1));
    refused(daemon, 5, /[Nn]o space|full/, 'import', 'big.raw', 'big', '--pool', 'tiny');
    await untilGone(daemon);
    expect(await names(daemon)).not.toContain('big');
    fs.rmSync(world.file('big.raw'));
  });

  it.each(['SIGTERM', 'SIGINT', 'SIGKILL'] as const)('an import that gets %s leaves nothing', async (signal) => {
    const source = world.file('slow.raw');
    if (!fs.existsSync(source)) fs.writeFileSync(source, Buffer.alloc(512 * MIB, 3));
    const before = await names(daemon);
    const child = spawn(ATOLL, ['import', source, 'slow'], {
      env: { ...process.env, ATOLL_HOME: daemon.home },
      stdio: 'ignore',
    });
    const gone = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
    for (let tries = 0; tries < 3000 && (await names(daemon)).length === before.length; tries++) await sleep(5);
    child.kill(signal);
    const exit = await gone;
    // It may have been done a moment before: then it is whole, and only then.
    if (exit === 0) {
      expect((await daemon.http<{ mappedBytes: number }>('GET', '/v1/volumes/slow')).mappedBytes).toBe(512 * MIB);
      await daemon.deleteVolume('slow');
    } else if (signal !== 'SIGKILL') {
      expect(exit).toBe(130);
    }
    await untilGone(daemon);
    expect(await names(daemon)).toEqual(before);
  });

  it('an export that is interrupted leaves no file', async () => {
    await daemon.createVolume('wide', 512 * MIB);
    await withDisk(daemon, 'wide', async (nbd) => {
      for (let at = 0; at < 512; at += 8)
        await Promise.all(Array.from({ length: 8 }, (_, i) => nbd.write((at + i) * MIB, Buffer.alloc(MIB, 4))));
    });
    for (const format of ['raw', 'stream']) {
      if (format === 'stream') await daemon.snapshot('wide', 's');
      const name = format === 'raw' ? 'wide' : 'wide@s';
      const child = spawn(ATOLL, ['export', name, 'wide.out', '--format', format], {
        env: { ...process.env, ATOLL_HOME: daemon.home },
        cwd: world.dir,
        stdio: 'ignore',
      });
      const gone = new Promise((resolve) => child.once('exit', resolve));
      for (let tries = 0; tries < 3000 && leftovers().length === 0; tries++) await sleep(5);
      child.kill('SIGINT');
      if ((await gone) === 0) fs.rmSync(world.file('wide.out'));
      expect(fs.existsSync(world.file('wide.out'))).toBe(false);
      expect(leftovers()).toEqual([]);
    }
    await untilGone(daemon);
    await daemon.deleteVolume('wide');
  });
});

describe('backup streams', () => {
  /** A volume with three snapshots between which it changed, grew, and was zeroed in part. */
  async function history(name: string): Promise<void> {
    await daemon.createVolume(name, 32 * MIB);
    await withDisk(daemon, name, async (nbd) => {
      await nbd.write(0, Buffer.alloc(4 * MIB, 1));
      await nbd.write(20 * MIB + 512, Buffer.alloc(MIB, 2));
      await nbd.flush();
    });
    await daemon.snapshot(name, 'a');
    await withDisk(daemon, name, async (nbd) => {
      await nbd.write(MIB, Buffer.alloc(4 * KIB, 3));
      await nbd.zero(2 * MIB, MIB);
      await nbd.write(20 * MIB + 512, Buffer.alloc(MIB));
      await nbd.flush();
    });
    await daemon.cli('volume', 'resize', name, '--size', '48M');
    await withDisk(daemon, name, async (nbd) => {
      await nbd.write(47 * MIB, Buffer.alloc(MIB, 4));
      await nbd.flush();
    });
    await daemon.snapshot(name, 'b');
    // The engine keeps a volume at least as large as its snapshots, so it does not shrink here.
    await withDisk(daemon, name, async (nbd) => {
      await nbd.write(8 * MIB, Buffer.alloc(64 * KIB, 5));
      await nbd.flush();
    });
    await daemon.snapshot(name, 'c');
  }

  beforeAll(async () => {
    await history('src');
    ok(daemon, 'export', 'src@a', 'a.full', '--format', 'stream');
    ok(daemon, 'export', 'src@b', 'ab.inc', '--since', 'a');
    ok(daemon, 'export', 'src@c', 'bc.inc', '--since', 'src@b');
  });

  it('a full stream and its increments rebuild every moment, in another daemon and with other blocks', async () => {
    ok(other, 'import', 'a.full', 'copy', '--pool', 'small');
    expect(await digest(other, 'copy')).toBe(await digest(daemon, 'src@a'));
    const { id } = await other.http<{ id: string }>('GET', '/v1/volumes/copy');
    await other.snapshot('copy', 'mon');
    ok(other, 'import', 'ab.inc', '--onto', 'copy');
    expect(await digest(other, 'copy')).toBe(await digest(daemon, 'src@b'));
    ok(other, 'import', 'bc.inc', '--onto', 'copy');
    expect(await digest(other, 'copy')).toBe(await digest(daemon, 'src@c'));
    // It is the same volume still, and its own snapshots are as they were.
    expect(await other.http('GET', '/v1/volumes/copy')).toMatchObject({
      id,
      name: 'copy',
      size: 48 * MIB,
      pool: 'small',
    });
    expect(await digest(other, 'copy@mon')).toBe(await digest(daemon, 'src@a'));
    await untilGone(other);
    expect(await other.cli('check')).toMatchObject({ ok: true });
  });

  it('what an increment is made from cannot be deleted while that is written, and is the same in the end', async () => {
    const exported = (name: string, deleted: () => Ran) => {
      const client = new ControlClient({ socket: daemon.controlSocket, startHint: '' });
      const { get } = client;
      let asked = false;
      client.get = async <T>(target: string): Promise<T> => {
        const answer = await get.call(client, target);
        if (!asked && target.startsWith('/v1/diff')) {
          asked = true;
          tried = deleted();
        }
        return answer as T;
      };
      const run = { client, onProgress: () => undefined, signal: new AbortController().signal };
      return exportStream(run, `${name}@b`, 'a', TargetFile.prepare(world.file(`${name}.inc`), false));
    };
    let tried: Ran | undefined;
    await history('base');
    await exported('base', () => atoll(daemon, ['snapshot', 'delete', 'base@a']));
    expect(tried).toMatchObject({ exit: 4, err: expect.stringContaining('open') });
    expect(sameFiles(world.file('base.inc'), world.file('ab.inc'))).toBe(false); // made at another time
    await history('forced');
    const again = () => {
      atoll(daemon, ['snapshot', 'delete', 'forced@a', '--force']);
      return atoll(daemon, ['snapshot', 'create', 'forced', 'a']);
    };
    await expect(exported('forced', again)).rejects.toMatchObject({ code: 'BASE_DIFFERS' });
    expect(tried).toMatchObject({ exit: 0 });
    expect(fs.existsSync(world.file('forced.inc'))).toBe(false);
    expect(leftovers()).toEqual([]);
  });

  it('increments are small, and zeroes cost nothing', () => {
    expect(fs.statSync(world.file('a.full')).size).toBeLessThan(5.2 * MIB);
    expect(fs.statSync(world.file('ab.inc')).size).toBeLessThan(1.2 * MIB);
    expect(fs.statSync(world.file('bc.inc')).size).toBeLessThan(256 * KIB);
  });

  it('a full stream may replace what a volume has', async () => {
    await other.createVolume('other', 64 * MIB);
    await withDisk(other, 'other', async (nbd) => {
      await nbd.write(10 * MIB, Buffer.alloc(MIB, 9));
      await nbd.write(60 * MIB, Buffer.alloc(MIB, 9));
      await nbd.flush();
    });
    ok(other, 'import', 'a.full', '--onto', 'other');
    expect(await digest(other, 'other')).toBe(await digest(daemon, 'src@a'));
  });

  it('an increment onto another content is refused, and the volume is as it was', async () => {
    ok(other, 'import', 'a.full', 'differs');
    await withDisk(other, 'differs', async (nbd) => {
      await nbd.write(31 * MIB, Buffer.from(Buffer.alloc(512, 1)));
      await nbd.flush();
    });
    const before = await digest(other, 'differs');
    refused(other, 4, /src@a.*holds something else/, 'import', 'ab.inc', '--onto', 'differs');
    refused(other, 4, /nothing was applied/, 'import', 'bc.inc', '--onto', 'differs');
    expect(await digest(other, 'differs')).toBe(before);
    await untilGone(other);
    // Taken back, it fits: it is the content that counts.
    await withDisk(other, 'differs', async (nbd) => {
      await nbd.zero(31 * MIB, 512);
      await nbd.flush();
    });
    ok(other, 'import', 'ab.inc', '--onto', 'differs');
    expect(await digest(other, 'differs')).toBe(await digest(daemon, 'src@b'));
  });

  it('damage anywhere is found before anything is done', async () => {
    ok(other, 'import', 'a.full', 'safe');
    const before = await digest(other, 'safe');
    const sound = fs.readFileSync(world.file('ab.inc'));
    const damages: [string, Buffer][] = [
      ['cut', sound.subarray(0, sound.length - 1)],
      ['half', sound.subarray(0, sound.length >> 1)],
      ['longer', Buffer.concat([sound, Buffer.alloc(1)])],
    ];
    for (const at of [0, 9, 20, 40, 400, sound.length >> 1, sound.length - 100, sound.length - 1]) {
      const bytes = Buffer.from(sound);
      bytes[at]! ^= 0x10;
      damages.push([`bit at ${at}`, bytes]);
    }
    for (const [what, bytes] of damages) {
      fs.writeFileSync(world.file('damaged.inc'), bytes);
      const file = world.file('damaged.inc');
      const { exit, err } = await inProcess(other, ['import', file, '--onto', 'safe', '--format', 'stream']);
      expect([7, 8], `${what}: ${err}`).toContain(exit);
      expect(err).toMatch(/^atoll: [^\n]+\n$/);
    }
    expect(await digest(other, 'safe')).toBe(before);
    await untilGone(other);
  });

  it('an open volume is refused, an increment is no new volume, an image goes onto nothing', async () => {
    ok(other, 'import', 'a.full', 'busy');
    await withDisk(other, 'busy', async () => {
      refused(other, 4, /is open/, 'import', 'ab.inc', '--onto', 'busy');
    });
    refused(other, 2, /--onto/, 'import', 'ab.inc', 'fresh');
    refused(other, 2, /backup streams/, 'import', 'in.raw', '--onto', 'busy');
    refused(other, 3, /none/, 'import', 'ab.inc', '--onto', 'none');
  });

  it.each(['SIGINT', 'SIGKILL'] as const)(
    'a command that gets %s in the middle leaves the volume as it was',
    async (signal) => {
      const name = `mid-${signal}`;
      if (!fs.existsSync(world.file('large.inc'))) {
        await daemon.createVolume('large', 512 * MIB);
        await daemon.snapshot('large', 'a');
        await withDisk(daemon, 'large', async (nbd) => {
          for (let at = 0; at < 384; at += 8)
            await Promise.all(
              Array.from({ length: 8 }, (_, i) => nbd.write((at + i) * MIB, Buffer.alloc(MIB, (at % 250) + 1))),
            );
          await nbd.flush();
        });
        await daemon.snapshot('large', 'b');
        ok(daemon, 'export', 'large@b', 'large.inc', '--since', 'a');
      }
      await other.createVolume(name, 512 * MIB);
      const child = spawn(ATOLL, ['import', world.file('large.inc'), '--onto', name], {
        env: { ...process.env, ATOLL_HOME: other.home },
        stdio: 'ignore',
      });
      const gone = new Promise((resolve) => child.once('exit', resolve));
      const staged = async () => (await names(other)).some((one) => one.startsWith('.atoll-'));
      for (let tries = 0; tries < 2000 && !(await staged()); tries++) await sleep(5);
      child.kill(signal);
      const exit = await gone;
      await untilGone(other);
      const { mappedBytes } = await other.http<{ mappedBytes: number }>('GET', `/v1/volumes/${name}`);
      expect(mappedBytes).toBe(exit === 0 ? 384 * MIB : 0);
      await other.deleteVolume(name);
    },
  );

  it('a daemon that is killed in the middle of an import comes back with the volume as it was', async () => {
    await other.createVolume('crash', 512 * MIB);
    const child = spawn(ATOLL, ['import', world.file('large.inc'), '--onto', 'crash'], {
      env: { ...process.env, ATOLL_HOME: other.home },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let err = '';
    child.stderr.setEncoding('utf8').on('data', (chunk) => {
      err += chunk;
    });
    const gone = new Promise((resolve) => child.once('close', resolve));
    const staged = async () => (await names(other)).some((one) => one.startsWith('.atoll-'));
    for (let tries = 0; tries < 2000 && !(await staged()); tries++) await sleep(5);
    await other.kill();
    const exit = await gone;
    await other.restart();
    const { mappedBytes } = await other.http<{ mappedBytes: number }>('GET', '/v1/volumes/crash');
    if (exit === 0) {
      expect(mappedBytes).toBe(384 * MIB);
    } else {
      expect(err).toMatch(/^atoll: [^\n]+\n$/);
      expect(mappedBytes).toBe(0);
    }
    await untilGone(other);
    expect(await other.cli('check')).toMatchObject({ ok: true });
  });
});
