/** Copying a snapshot into `volumes/` (docs/fuse.md, "Clones"). */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../../bench/size.ts';
import { MOUNTED_MS_MAX, Mounted, missing } from '../lib/mounted.ts';

/** Others that copy files, where they are there. */
function copiers(): string[][] {
  return spawnSync('rsync', ['--version']).status === 0
    ? [
        ['rsync', '-a'],
        ['rsync', '-a', '--sparse'],
      ]
    : [];
}

describe.skipIf(missing !== null)('copying a snapshot of a mount', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  it('clones a snapshot that is copied, and what was not copied reads as zeroes', {
    timeout: MOUNTED_MS_MAX,
  }, async () => {
    // data, a hole, data, a hole, and data that ends within a block
    const made = await m.agent(
      `import random
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR); r = random.Random(5)
for place, n in ((0, 1 << 20), (2 << 20, 1 << 20), (5 << 20, 512)): os.pwrite(fd, r.randbytes(n), place)
os.fsync(fd); print(json.dumps(os.fstat(fd).st_size))`,
      m.at('volumes/origin'),
    );
    expect(made).toBe(5 * MIB + 512);
    await m.run('touch', m.at('snapshots/origin/s'));
    await m.run('cp', m.at('snapshots/origin/s'), m.world.file('shadow-s'));
    await m.run('cp', '--preserve=timestamps', m.at('snapshots/origin/s'), m.at('volumes/clone'));
    expect(await m.show('clone')).toMatchObject({ clonedFrom: 'origin@s', size: made });
    await m.run('cmp', m.world.file('shadow-s'), m.at('volumes/clone'));
    await m.world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', m.world.file('shadow-s'), m.daemon.uri('clone'));
    // it is a volume like others: written, and the snapshot keeps what it has
    await m.world.run('sh', '-c', 'printf changed | dd of="$1" conv=notrunc,fsync', 'sh', m.at('volumes/clone'));
    expect(await m.world.run('head', '-c', '7', m.at('volumes/clone'))).toBe('changed');
    await m.run('cmp', m.world.file('shadow-s'), m.at('snapshots/origin/s'));

    // again, over a volume that is there, and with other options of `cp`
    for (const how of [[], ['-p'], ['-a'], ['--reflink=auto'], ['--sparse=never'], ['--sparse=auto'], ['-f']]) {
      await m.run('cp', ...how, m.at('snapshots/origin/s'), m.at('volumes/clone'));
      expect([how, await m.show('clone')]).toMatchObject([how, { clonedFrom: 'origin@s', size: made }]);
      await m.run('cmp', m.world.file('shadow-s'), m.at('volumes/clone'));
    }
    // as bytes, or as `cp` and the others see fit
    const given = [m.at('snapshots/origin/s'), m.at('volumes/holes')];
    for (const how of [['cp', '--sparse=always'], ['sh', '-c', 'cat <"$0" >"$1"'], ...copiers()]) {
      await m.run(how[0], ...how.slice(1), ...given);
      expect([how, await m.show('holes')]).toMatchObject([how, { size: made }]);
      await m.run('cmp', m.world.file('shadow-s'), m.at('volumes/holes'));
      await m.run('rm', m.at('volumes/holes'));
    }
    await m.run('cp', '--reflink=never', m.at('snapshots/origin/s'), m.at('volumes/bytes'));
    await m.run('cmp', m.world.file('shadow-s'), m.at('volumes/bytes'));
    expect(await m.show('bytes')).toMatchObject({ clonedFrom: null });
    await m.run('dd', `if=${m.at('snapshots/origin/s')}`, `of=${m.at('volumes/dd')}`, 'bs=64k', 'count=20');
    await m.world.run('cmp', '-n', String(20 * 64 * KIB), m.world.file('shadow-s'), m.at('volumes/dd'));
    expect(await m.show('dd')).toMatchObject({ size: 20 * 64 * KIB, clonedFrom: null });

    // in pieces: the second MiB of data without the first, odd ones, others before it is closed
    const pieces = await m.agent(
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
      m.at('volumes'),
      m.at('snapshots/origin/s'),
      m.world.file('shadow-s'),
    );
    expect(pieces).toEqual(Array(14).fill(true));
    expect(await m.show('second')).toMatchObject({ clonedFrom: 'origin@s', mappedBytes: MIB });
    // a snapshot taken while it is being copied has what was copied
    const during = await m.agent(
      `volumes, snapshots, shadow = sys.argv[1:]
s = os.open(snapshots + '/origin/s', os.O_RDONLY); fd = os.open(volumes + '/during', os.O_CREAT | os.O_RDWR)
os.copy_file_range(s, fd, 1 << 20, 0, 0)
os.close(os.open(snapshots + '/during/t', os.O_CREAT | os.O_WRONLY))
print(json.dumps(open(snapshots + '/during/t', 'rb').read() == open(shadow, 'rb').read(1 << 20)))`,
      m.at('volumes'),
      m.at('snapshots'),
      m.world.file('shadow-s'),
    );
    expect(during).toBe(true);
    // somebody else gives it bytes: whoever copied is told, once
    const raced = await m.agent(
      `import subprocess
volumes, snapshot, atoll, home = sys.argv[1:]
# started first: a process that begins closes what it inherits, which settles the copy
other = subprocess.Popen(['sh', '-c', 'read go; exec "$@" >/dev/null', 'sh', atoll, 'volume', 'resize', 'raced', '--size', '2M', '--home', home], stdin=subprocess.PIPE)
s = os.open(snapshot, os.O_RDONLY); fd = os.open(volumes + '/raced', os.O_CREAT | os.O_RDWR)
os.copy_file_range(s, fd, 1 << 20, 0, 0)
other.communicate(b'go\\n'); assert other.returncode == 0
print(json.dumps([errno_of(lambda: os.fsync(fd)), errno_of(lambda: os.fsync(fd)), errno_of(lambda: os.close(fd)),
  any(open(volumes + '/raced', 'rb').read())]))`,
      m.at('volumes'),
      m.at('snapshots/origin/s'),
      path.resolve('bin/atoll'),
      m.daemon.home,
    );
    expect(raced).toEqual([16, 0, 0, false]); // EBUSY
    expect(await m.daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
    await m.run('sh', '-c', 'rm "$1"/snapshots/*/* && rm "$1"/volumes/*', 'sh', m.dir);
    expect(await m.daemon.cli('status')).toMatchObject({ volumes: 0 });
  });

  it('has nothing of a sealed snapshot behind its end, blocks that are zero neither', {
    timeout: MOUNTED_MS_MAX,
  }, async () => {
    await m.daemon.cli('pool', 'set', 'local', '--seal', 'on');
    await m.agent(
      `fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.pwrite(fd, os.urandom(1 << 20) + bytes(2 << 20), 0); os.fsync(fd); print(0)`,
      m.at('volumes/origin'),
    );
    await m.run('touch', m.at('snapshots/origin/s'));
    const listed = () => m.daemon.cli<{ snapshots: { hash: string | null }[] }>('snapshot', 'list', 'origin');
    await m.until('sealed', async () => (await listed()).snapshots[0].hash !== null);
    for (const [name, bytes, mapped] of [
      ['first', MIB, MIB],
      ['more', MIB + 4 * KIB, MIB + 64 * KIB],
    ] as const) {
      const left = await m.agent(
        `s = os.open(sys.argv[1], os.O_RDONLY); fd = os.open(sys.argv[2], os.O_CREAT | os.O_EXCL | os.O_RDWR)
at = 0; end = int(sys.argv[3])
while at < end: at += os.copy_file_range(s, fd, end - at, at, at)
os.close(fd); print(json.dumps(open(sys.argv[2], 'rb').read() == open(sys.argv[1], 'rb').read(end)))`,
        m.at('snapshots/origin/s'),
        m.at(`volumes/${name}`),
        String(bytes),
      );
      expect([name, left, await m.show(name)]).toMatchObject([name, true, { size: bytes, mappedBytes: mapped }]);
    }
    expect(await m.daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
  });
});
