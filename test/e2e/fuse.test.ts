/**
 * `atoll mount`: volumes and snapshots as files, used with the tools that everybody has, on ext4 on a loop device, beside NBD and
 * the command line, and after `kill -9`.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Daemon } from '../../bench/daemon.ts';
import { random } from '../../bench/scatter.ts';
import { KIB, MIB } from '../../bench/size.ts';
import { World } from './lib/daemon.ts';
import { LONG } from './lib/long.ts';

const TEST_MS_MAX = 300_000;
const WAIT_MS_MAX = 20_000;
const DISK_BYTES = 64 * MIB;
const STEPS = LONG ? 20_000 : 600;

/** Why this cannot be tested here, or null. */
function obstacle(): string | null {
  if (process.getuid?.() !== 0) return 'only root may mount';
  if (!fs.existsSync('/dev/fuse')) return 'there is no /dev/fuse';
  if (spawnSync('fusermount3', ['--version']).status !== 0) return 'there is no fusermount3 (package fuse3)';
  return null;
}

const missing = obstacle();
if (missing) console.warn(`FUSE tests are skipped: ${missing}`);

/**
 * Files of a mount are only touched by other processes: a daemon that hangs must not take the test with it, which could not end
 * it any more. Numbers of `code` are Linux's errno.
 */
const AGENT = `
import sys, os, json, mmap, fcntl, ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
def fallocate(fd, mode, at, n):
    if libc.fallocate(fd, mode, at, n) != 0: raise OSError(ctypes.get_errno(), 'fallocate')
def errno_of(work):
    try: work()
    except OSError as e: return e.errno
    return 0
`;

describe.skipIf(missing !== null)('a mount', () => {
  const world = new World();
  const mounts: string[] = [];
  const loops: string[] = [];
  let daemon: Daemon;
  let dir: string;

  const mount = async (name: string): Promise<string> => {
    const at = world.file(name);
    fs.mkdirSync(at, { recursive: true });
    mounts.push(at);
    await daemon.cli('mount', at);
    return at;
  };
  /** Python with AGENT before it; what it prints is JSON. */
  const agent = async (code: string, ...argv: string[]): Promise<unknown> =>
    JSON.parse(await world.run('timeout', '60', 'python3', '-c', AGENT + code, ...argv));
  const until = async (what: string, done: () => Promise<boolean>): Promise<void> => {
    const deadline = Date.now() + WAIT_MS_MAX;
    while (!(await done())) {
      if (Date.now() > deadline) throw new Error(`not within ${WAIT_MS_MAX} ms: ${what}`);
      await sleep(50);
    }
  };
  const names = async (folder: string): Promise<string[]> =>
    (await world.run('ls', '-1', folder)).split('\n').filter((name) => name !== '');

  beforeAll(async () => {
    daemon = await world.start();
    dir = await mount('m');
  });
  afterAll(async () => {
    for (const loop of loops) spawnSync('losetup', ['--detach', loop]);
    for (const at of mounts) spawnSync('fusermount3', ['-u', '-z', at], { stdio: 'ignore' });
    await world.end();
  });

  it('is copied into, compared, and has the bytes that NBD has', { timeout: TEST_MS_MAX }, async () => {
    const source = world.file('source');
    const next = random(3);
    fs.writeFileSync(source, Buffer.from(Array.from({ length: 3 * MIB }, () => Math.floor(next() * 256))));
    fs.truncateSync(source, 8 * MIB);
    const file = path.join(dir, 'volumes/copied');
    await world.run('timeout', '60', 'cp', source, file);
    await world.run('timeout', '60', 'cmp', source, file);
    const raw = world.file('raw');
    await world.run('qemu-img', 'convert', '-O', 'raw', daemon.uri('copied'), raw);
    await world.run('cmp', source, raw);
    await world.run('timeout', '60', 'tar', '-C', path.join(dir, 'volumes'), '-cf', world.file('t.tar'), 'copied');
    fs.mkdirSync(world.file('untar'));
    await world.run('tar', '-C', world.file('untar'), '-xf', world.file('t.tar'));
    await world.run('cmp', source, world.file('untar/copied'));
    // What NBD writes is read, although it was in the page cache.
    await world.run('timeout', '60', 'sh', '-c', 'exec 9<"$1"; cat <&9 >/dev/null', 'sh', file);
    await world.run('qemu-io', '-f', 'raw', daemon.uri('copied'), '-c', 'write -P 0x5a 1M 1M');
    const first = async () => (await world.run('od', '-An', '-tx1', '-j1048576', '-N1', file)).trim() === '5a';
    await until('what NBD wrote is read', first);
    await world.run('timeout', '60', 'dd', `if=${source}`, `of=${file}`, 'bs=1M', 'conv=notrunc,fsync', 'oflag=direct');
    await world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, daemon.uri('copied'));
    await world.run('timeout', '60', 'rm', file);
    expect(await names(path.join(dir, 'volumes'))).not.toContain('copied');
  });

  it('takes snapshots by touch, drops them by rm, and keeps what they hold', async () => {
    const volume = path.join(dir, 'volumes/v');
    await world.run('timeout', '60', 'dd', 'if=/dev/urandom', `of=${volume}`, 'bs=64k', 'count=16');
    await world.run('cp', volume, world.file('before'));
    await world.run('timeout', '60', 'touch', path.join(dir, 'snapshots/v/s'));
    await world.run('timeout', '60', 'dd', 'if=/dev/zero', `of=${volume}`, 'bs=64k', 'count=8', 'conv=notrunc');
    await world.run('timeout', '60', 'cmp', world.file('before'), path.join(dir, 'snapshots/v/s'));
    expect(await names(path.join(dir, 'snapshots'))).toEqual(['v']);
    expect((await daemon.cli<{ snapshots: { name: string }[] }>('snapshot', 'list', 'v')).snapshots).toMatchObject([
      { name: 'v@s' },
    ]);
    const errors = await agent(
      `s, v = sys.argv[1:]
print(json.dumps([errno_of(lambda: os.open(s, os.O_WRONLY)), errno_of(lambda: os.utime(s)),
  errno_of(lambda: os.unlink(v)), errno_of(lambda: os.truncate(s, 0))]))`,
      path.join(dir, 'snapshots/v/s'),
      volume,
    );
    expect(errors).toEqual([30, 30, 16, 30]); // EROFS, EROFS, EBUSY (it has a snapshot), EROFS
    await world.run('timeout', '60', 'rm', path.join(dir, 'snapshots/v/s'));
    expect((await daemon.cli<{ snapshots: unknown[] }>('snapshot', 'list', 'v')).snapshots).toEqual([]);
    await world.run('timeout', '60', 'rm', volume);
  });

  it('clones a snapshot that is copied, and what was not copied reads as zeroes', {
    timeout: TEST_MS_MAX,
  }, async () => {
    const at = (name: string) => path.join(dir, name);
    // data, a hole, data, a hole, and data that ends within a block
    const made = await agent(
      `import random
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); r = random.Random(5)
for place, n in ((0, 1 << 20), (2 << 20, 1 << 20), (5 << 20, 512)): os.pwrite(fd, r.randbytes(n), place)
os.fsync(fd); print(json.dumps(os.fstat(fd).st_size))`,
      at('volumes/origin'),
    );
    expect(made).toBe(5 * MIB + 512);
    await world.run('timeout', '60', 'touch', at('snapshots/origin/s'));
    await world.run('timeout', '60', 'cp', at('snapshots/origin/s'), world.file('shadow-s'));
    const show = (name: string) =>
      daemon.cli<{ clonedFrom: string | null; size: number; mappedBytes: number }>('volume', 'show', name);

    await world.run('timeout', '60', 'cp', '--preserve=timestamps', at('snapshots/origin/s'), at('volumes/clone'));
    expect(await show('clone')).toMatchObject({ clonedFrom: 'origin@s', size: made });
    await world.run('timeout', '60', 'cmp', world.file('shadow-s'), at('volumes/clone'));
    await world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', world.file('shadow-s'), daemon.uri('clone'));
    // it is a volume like others: written, and the snapshot keeps what it has
    await world.run('sh', '-c', 'printf changed | dd of="$1" conv=notrunc,fsync', 'sh', at('volumes/clone'));
    expect(await world.run('head', '-c', '7', at('volumes/clone'))).toBe('changed');
    await world.run('timeout', '60', 'cmp', world.file('shadow-s'), at('snapshots/origin/s'));

    await world.run('timeout', '60', 'cp', '--sparse=never', at('snapshots/origin/s'), at('volumes/dense'));
    await world.run('timeout', '60', 'cmp', world.file('shadow-s'), at('volumes/dense'));
    // copied as bytes
    await world.run('timeout', '60', 'cp', '--sparse=always', at('snapshots/origin/s'), at('volumes/holes'));
    await world.run('timeout', '60', 'cmp', world.file('shadow-s'), at('volumes/holes'));
    await world.run('timeout', '60', 'cp', '--reflink=never', at('snapshots/origin/s'), at('volumes/bytes'));
    await world.run('timeout', '60', 'cmp', world.file('shadow-s'), at('volumes/bytes'));
    expect(await show('bytes')).toMatchObject({ clonedFrom: null });
    await world.run(
      'timeout',
      '60',
      'dd',
      `if=${at('snapshots/origin/s')}`,
      `of=${at('volumes/dd')}`,
      'bs=64k',
      'count=20',
    );
    await world.run('cmp', '-n', String(20 * 64 * KIB), world.file('shadow-s'), at('volumes/dd'));
    expect(await show('dd')).toMatchObject({ size: 20 * 64 * KIB, clonedFrom: null });

    // in pieces: the second MiB of data without the first, odd ones, others before it is closed
    const pieces = await agent(
      `volumes, snapshot, shadow = sys.argv[1:]
s = os.open(snapshot, os.O_RDONLY); want = open(shadow, 'rb').read()
def fresh(name): return os.open(volumes + '/' + name, os.O_CREAT | os.O_EXCL | os.O_RDWR)
def piece(fd, at, n): return os.copy_file_range(s, fd, n, at, at)
def closed(fd, name):
    os.close(fd); return open(volumes + '/' + name, 'rb').read()
M = 1 << 20
found = []
fd = fresh('second'); n = piece(fd, 2 * M, M); found.append(n == M and os.fstat(fd).st_size == 3 * M)
found.append(closed(fd, 'second') == bytes(2 * M) + want[2 * M:3 * M])
fd = fresh('odd'); n = piece(fd, 65536, 65536 + 5000); found.append(65536 <= n <= 65536 + 5000)
found.append(closed(fd, 'odd')[:65536 + n] == bytes(65536) + want[65536:65536 + n])
fd = fresh('moved'); n = os.copy_file_range(s, fd, 65536, 0, 65536); found.append(closed(fd, 'moved')[:65536 + n] == bytes(65536) + want[:n])
fd = fresh('written'); piece(fd, 0, M); os.pwrite(fd, b'x' * 512, 512); n = piece(fd, 2 * M, M)
got = closed(fd, 'written'); found.append(got[:M] == want[:512] + b'x' * 512 + want[1024:M] and not any(got[M:2 * M]))
found.append(got[2 * M:2 * M + n] == want[2 * M:2 * M + n])
fd = fresh('read'); piece(fd, 2 * M, 65536); found.append(os.pread(fd, 65536, 2 * M) == want[2 * M:2 * M + 65536] and not any(os.pread(fd, 65536, 0)))
os.close(fd)
fd = fresh('cut'); piece(fd, 0, M); os.ftruncate(fd, 4096); os.ftruncate(fd, 2 * M); found.append(closed(fd, 'cut') == want[:4096] + bytes(2 * M - 4096))
fd = fresh('longer'); piece(fd, 0, M); os.ftruncate(fd, 8 * M); found.append(closed(fd, 'longer') == want[:M] + bytes(7 * M))
fd = fresh('synced'); piece(fd, 0, M); os.fsync(fd); found.append(os.lseek(fd, 0, os.SEEK_HOLE) == M); found.append(closed(fd, 'synced') == want[:M])
fd = fresh('emptied'); piece(fd, 0, M); os.close(os.open(volumes + '/emptied', os.O_WRONLY | os.O_TRUNC)); found.append(closed(fd, 'emptied') == b'')
if os.fork() == 0:
    fd = fresh('broken'); piece(fd, 0, M); os.kill(os.getpid(), 9)
os.wait(); found.append(open(volumes + '/broken', 'rb').read() == want[:M])
print(json.dumps(found))`,
      at('volumes'),
      at('snapshots/origin/s'),
      world.file('shadow-s'),
    );
    expect(pieces).toEqual(Array(14).fill(true));
    expect(await show('second')).toMatchObject({ clonedFrom: 'origin@s', mappedBytes: MIB });
    // a snapshot taken while it is being copied has what was copied
    const during = await agent(
      `volumes, snapshots, shadow = sys.argv[1:]
s = os.open(snapshots + '/origin/s', os.O_RDONLY); fd = os.open(volumes + '/during', os.O_CREAT | os.O_RDWR)
os.copy_file_range(s, fd, 1 << 20, 0, 0)
os.close(os.open(snapshots + '/during/t', os.O_CREAT | os.O_WRONLY))
print(json.dumps(open(snapshots + '/during/t', 'rb').read() == open(shadow, 'rb').read(1 << 20)))`,
      at('volumes'),
      at('snapshots'),
      world.file('shadow-s'),
    );
    expect(during).toBe(true);
    // somebody else gives it bytes: whoever copied is told, once
    const raced = await agent(
      `import subprocess
volumes, snapshot, atoll, home = sys.argv[1:]
# started first: a process that begins closes what it inherits, which settles the copy
other = subprocess.Popen(['sh', '-c', 'read go; exec "$@" >/dev/null', 'sh', atoll, 'volume', 'resize', 'raced', '--size', '2M', '--home', home], stdin=subprocess.PIPE)
s = os.open(snapshot, os.O_RDONLY); fd = os.open(volumes + '/raced', os.O_CREAT | os.O_RDWR)
os.copy_file_range(s, fd, 1 << 20, 0, 0)
other.communicate(b'go\\n'); assert other.returncode == 0
print(json.dumps([errno_of(lambda: os.fsync(fd)), errno_of(lambda: os.fsync(fd)), errno_of(lambda: os.close(fd)),
  any(open(volumes + '/raced', 'rb').read())]))`,
      at('volumes'),
      at('snapshots/origin/s'),
      path.resolve('bin/atoll'),
      daemon.home,
    );
    expect(raced).toEqual([16, 0, 0, false]); // EBUSY
    expect(await daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
    await world.run('timeout', '60', 'sh', '-c', 'rm "$1"/snapshots/*/* && rm "$1"/volumes/*', 'sh', dir);
    expect(await daemon.cli('status')).toMatchObject({ volumes: 0 });
  });

  it('says what is wrong with names, and takes odd ones', async () => {
    const found = await agent(
      `os.chdir(sys.argv[1])
make = lambda name: errno_of(lambda: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)))
print(json.dumps([make(b'a' * 255), make(b'a' * 256), make(b'x@y'), make(b'\\xff'), make(b'-x'), make(b'.atoll-x'),
  make('ü ñ\\u2028%'.encode()), make('ü ñ\\u2028%'.encode()), errno_of(lambda: os.mkdir('d')), errno_of(lambda: os.stat(b'\\xff')),
  errno_of(lambda: os.link('a' * 255, 'l')), errno_of(lambda: os.symlink('a', 'l')), errno_of(lambda: os.stat('a' * 256)),
  errno_of(lambda: os.rename('a' * 255, 'renamed')), errno_of(lambda: os.chmod('renamed', 0o777))]))`,
      path.join(dir, 'volumes'),
    );
    expect(found).toEqual([0, 36, 22, 22, 22, 22, 0, 17, 1, 2, 1, 1, 36, 0, 0]);
    const { volumes } = await daemon.cli<{ volumes: { name: string; size: number }[] }>('volume', 'list');
    expect(volumes.map(({ name }) => name).sort()).toEqual(['renamed', 'ü ñ\u2028%']);
    expect(volumes[0].size).toBe(0);
    await world.run('timeout', '60', 'sh', '-c', 'rm "$1"/volumes/*', 'sh', dir);
    expect(await names(path.join(dir, 'volumes'))).toEqual([]);
  });

  it('does what a file does: holes, truncation, zeroes, mmap, against a shadow copy', {
    timeout: TEST_MS_MAX,
  }, async () => {
    const steps = await agent(
      `import random
path, shadow, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
r = random.Random(7)
SECTOR, MOST = 512, 4 << 20
fd = os.open(path, os.O_CREAT | os.O_RDWR); fs = os.open(shadow, os.O_CREAT | os.O_RDWR)
done = {}
def same(at, n):
    a, b = os.pread(fd, n, at), os.pread(fs, n, at)
    assert a == b, (step, at, n, len(a), len(b))
for step in range(steps):
    size = os.fstat(fs).st_size
    assert os.fstat(fd).st_size == size, (step, os.fstat(fd).st_size, size)
    what = r.choice(['write', 'write', 'read', 'read', 'truncate', 'punch', 'zero', 'mmap', 'sync', 'seek', 'append'])
    at = r.randrange(MOST); n = r.randrange(1, 200000)
    if what in ('write', 'append'):
        if what == 'append': at = size
        end = (min(MOST, at + n) + SECTOR - 1) // SECTOR * SECTOR if at + n > size else at + n
        n = end - at
        if n <= 0: continue
        data = r.randbytes(n); os.pwrite(fd, data, at); os.pwrite(fs, data, at)
    elif what == 'read': same(at, n)
    elif what == 'truncate':
        if r.random() < 0.7: continue
        to = at // SECTOR * SECTOR; os.ftruncate(fd, to); os.ftruncate(fs, to)
    elif what == 'punch': fallocate(fd, 3, at, n); fallocate(fs, 3, at, n)
    elif what == 'zero': fallocate(fd, 0x11, at, n); fallocate(fs, 3, at, n)
    elif what == 'mmap' and size > 8192:
        with mmap.mmap(fd, size) as m:
            at %= size; n = min(n, size - at)
            assert m[at:at + n] == os.pread(fs, n, at), step
            data = r.randbytes(n); m[at:at + n] = data; m.flush(); os.pwrite(fs, data, at)
    elif what == 'sync': os.fsync(fd)
    elif what == 'seek' and at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            assert e.errno == 6; data = size
        assert data >= at and not any(os.pread(fs, data - at, at)), step
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        assert at <= hole <= size, step
    done[what] = done.get(what, 0) + 1
os.fsync(fd); os.close(fd); fd = os.open(path, os.O_RDONLY); same(0, MOST)
print(json.dumps(len(done)))`,
      path.join(dir, 'volumes/shadowed'),
      world.file('shadow'),
      String(STEPS),
    );
    expect(steps).toBe(9);
    await world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', world.file('shadow'), daemon.uri('shadowed'));
    await world.run('timeout', '60', 'rm', path.join(dir, 'volumes/shadowed'));
  });

  it('is verified by fio, buffered and direct, several jobs at once', { timeout: TEST_MS_MAX }, async () => {
    for (const direct of [0, 1]) {
      const job = ['--ioengine=libaio', '--iodepth=8', '--bs=4k', '--rw=randwrite', '--size=8M', '--numjobs=2'];
      const check = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--group_reporting', `--direct=${direct}`];
      const where = ['--name=v', `--directory=${path.join(dir, 'volumes')}`, `--filename_format=fio${direct}.$jobnum`];
      await world.run('timeout', '200', 'fio', ...job, ...check, ...where);
    }
    await world.run('timeout', '60', 'sh', '-c', 'rm "$1"/volumes/fio*', 'sh', dir);
  });

  it('two mounts and the command line see what each other do', async () => {
    const other = await mount('m2');
    await daemon.createVolume('shared', DISK_BYTES);
    await until('both have it', async () =>
      (await Promise.all([dir, other].map((at) => names(path.join(at, 'volumes'))))).every((all) =>
        all.includes('shared'),
      ),
    );
    await daemon.cli('volume', 'resize', 'shared', '--size', String(2 * DISK_BYTES));
    for (const at of [dir, other])
      await until('both have its size', async () => {
        const size = await world.run('stat', '-c', '%s', path.join(at, 'volumes/shared'));
        return size.trim() === String(2 * DISK_BYTES);
      });
    await world.run(
      'timeout',
      '60',
      'sh',
      '-c',
      'printf other | dd of="$1" conv=notrunc',
      'sh',
      path.join(other, 'volumes/shared'),
    );
    expect(await world.run('head', '-c', '5', path.join(dir, 'volumes/shared'))).toBe('other');
    // In use: refused. Not in use: gone.
    const holder = world.children.spawn('sh', [
      '-c',
      'exec sleep 1000 <"$1"',
      'sh',
      path.join(other, 'volumes/shared'),
    ]);
    await until(
      'it is open',
      async () => (await daemon.cli<{ openCount: number }>('volume', 'show', 'shared')).openCount === 1,
    );
    await expect(daemon.cli('umount', other)).rejects.toThrow(/in use/);
    await expect(daemon.cli('volume', 'delete', 'shared')).rejects.toThrow(/open/);
    await daemon.cli('volume', 'delete', 'shared', '--force');
    await until('it is gone', async () => !(await names(path.join(dir, 'volumes'))).includes('shared'));
    await holder.stop();
    await daemon.cli('umount', other);
    expect((await daemon.cli<{ mounts: { path: string }[] }>('mount')).mounts).toMatchObject([{ path: dir }]);
  });

  it('is not used by its own daemon, through links and loop devices neither', async () => {
    const link = world.file('link');
    fs.symlinkSync(dir, link);
    for (const at of [
      path.join(dir, 'volumes/'),
      path.join(link, 'volumes/'),
      path.join(link, 'volumes/none/below/'),
    ]) {
      await expect(daemon.cli('pool', 'create', 'inside', '--path', at)).rejects.toThrow(/serves itself/);
      await expect(daemon.cli('backup', path.join(at, 'b'))).rejects.toThrow(/serves itself/);
    }
    const disk = path.join(dir, 'volumes/looped');
    await world.run('timeout', '60', 'truncate', '-s', '64M', disk);
    const loop = spawnSync('losetup', ['--find', '--show', disk], { encoding: 'utf8' });
    if (loop.status === 0) {
      const device = loop.stdout.trim();
      loops.push(device);
      await expect(daemon.cli('pool', 'create', 'inside', '--path', device)).rejects.toThrow(/serves itself/);
      await world.run('losetup', '--detach', loops.pop() as string);
    }
  });

  it('says when the pool is full, and goes on when it is not', { timeout: TEST_MS_MAX }, async () => {
    await daemon.cli('pool', 'create', 'small', '--path', `${world.file('small')}/`, '--size', '64M');
    await daemon.cli('volume', 'create', 'big', '--size', '256M', '--pool', 'small');
    const big = path.join(dir, 'volumes/big');
    await until('it is there', async () => (await names(path.join(dir, 'volumes'))).includes('big'));
    const error = await agent(
      `fd = os.open(sys.argv[1], os.O_RDWR)
def fill():
    for i in range(256): os.pwrite(fd, bytes([i % 255 + 1]) * (1 << 20), i << 20)
error = errno_of(fill); first = os.pread(fd, 4096, 0) == b'\\x01' * 4096
free = os.fstatvfs(fd).f_bavail; print(json.dumps([error, first, free < 1024]))`,
      big,
    );
    expect(error).toEqual([28, true, true]); // ENOSPC
    await world.run('timeout', '60', 'fallocate', '--punch-hole', '--offset', '0', '--length', '16M', big);
    await until(
      'there is room again',
      async () =>
        (await agent(
          `fd = os.open(sys.argv[1], os.O_RDWR); print(json.dumps(errno_of(lambda: os.pwrite(fd, b'x' * 65536, 0))))`,
          big,
        )) === 0,
    );
    await world.run('timeout', '60', 'rm', big);
  });

  it('after kill -9 who is there gets ENOTCONN, and the next start mounts again; ext4 on it is whole', {
    timeout: TEST_MS_MAX,
  }, async ({ skip }) => {
    const loop = spawnSync('losetup', ['--find'], { encoding: 'utf8' });
    if (loop.status !== 0) skip('there is no loop device');
    const disk = path.join(dir, 'volumes/disk');
    await world.run('timeout', '60', 'truncate', '-s', String(DISK_BYTES), disk);
    const device = (await world.run('losetup', '--find', '--show', disk)).trim();
    loops.push(device);
    await world.run('timeout', '100', 'mkfs.ext4', '-q', device);
    const root = world.file('ext4');
    fs.mkdirSync(root);
    await world.run('mount', device, root);
    const files = world.file('files');
    fs.mkdirSync(files);
    for (let i = 0; i < 20; i++) fs.writeFileSync(path.join(files, `f${i}`), Buffer.alloc(i * 20 * KIB, i));
    await world.run('timeout', '100', 'cp', '-r', files, path.join(root, 'files'));
    await world.run('timeout', '100', 'sync', '-f', root);
    await world.run('timeout', '60', 'touch', path.join(dir, 'snapshots/disk/mounted'));
    await daemon.kill();
    const answer = spawnSync('timeout', ['20', 'stat', dir], { encoding: 'utf8' });
    expect(answer.stderr).toMatch(/not connected/);
    spawnSync('umount', [root]);
    await world.run('losetup', '--detach', device);
    loops.pop();
    await daemon.restart();
    expect(await names(path.join(dir, 'volumes'))).toContain('disk');
    for (const name of ['disk', 'clone']) {
      if (name === 'clone') await daemon.clone('disk@mounted', 'clone');
      const again = (await world.run('losetup', '--find', '--show', path.join(dir, 'volumes', name))).trim();
      loops.push(again);
      // Mounting replays the journal.
      await world.run('timeout', '60', 'mount', again, root);
      await world.run('timeout', '60', 'diff', '-r', files, path.join(root, 'files'));
      await world.run('umount', root);
      expect(await world.run('timeout', '60', 'e2fsck', '-fn', again)).toContain('Pass 5');
      await world.run('losetup', '--detach', again);
      loops.pop();
    }
    await until('the daemon is let go of', async () => {
      return (await daemon.cli<{ openCount: number }>('volume', 'show', 'disk')).openCount === 0;
    });
    await daemon.cli('umount', dir);
    expect(await daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
    await daemon.stop();
    expect(fs.readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(world.dir);
  });
});
