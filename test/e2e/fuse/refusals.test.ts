/** What a mount refuses, and with which errno. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MIB } from '../../../bench/size.ts';
import { MOUNTED_MS_MAX, Mounted, missing } from '../lib/mounted.ts';

describe.skipIf(missing !== null)('a mount', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  it('says what is wrong with names, and takes odd ones', async () => {
    const found = await m.agent(
      `os.chdir(sys.argv[1])
make = lambda name: errno_of(lambda: os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR)))
print(json.dumps([make(b'a' * 255), make(b'a' * 256), make(b'x@y'), make(b'\\xff'), make(b'-x'), make(b'.atoll-x'),
  make('ü ñ\\u2028%'.encode()), make('ü ñ\\u2028%'.encode()), errno_of(lambda: os.mkdir('d')), errno_of(lambda: os.stat(b'\\xff')),
  errno_of(lambda: os.link('a' * 255, 'l')), errno_of(lambda: os.symlink('a', 'l')), errno_of(lambda: os.stat('a' * 256)),
  errno_of(lambda: os.rename('a' * 255, 'renamed')), errno_of(lambda: os.chmod('renamed', 0o777))]))`,
      m.at('volumes'),
    );
    expect(found).toEqual([0, 36, 22, 22, 22, 22, 0, 17, 1, 2, 1, 1, 36, 0, 0]);
    const { volumes } = await m.daemon.cli<{ volumes: { name: string; size: number }[] }>('volume', 'list');
    expect(volumes.map(({ name }) => name).sort()).toEqual(['renamed', 'ü ñ\u2028%']);
    expect(volumes[0].size).toBe(0);
    await m.run('sh', '-c', 'rm "$1"/volumes/*', 'sh', m.dir);
    expect(await m.names('volumes')).toEqual([]);
  });

  it('keeps what is in use, has snapshots, or is protected', { timeout: MOUNTED_MS_MAX }, async () => {
    await m.run('truncate', '-s', '2M', m.at('volumes/kept'));
    await m.run('touch', m.at('volumes/other'), m.at('snapshots/kept/s'));
    await m.daemon.cli('volume', 'create', 'guarded', '--size', '1M');
    await m.daemon.cli('volume', 'protect', 'guarded');
    const found = await m.agent(
      `os.chdir(sys.argv[1])
kept = os.open('volumes/kept', os.O_RDWR); other = os.open('volumes/other', os.O_RDONLY)
print(json.dumps([errno_of(lambda: os.unlink('volumes/kept')), errno_of(lambda: os.unlink('volumes/other')),
  errno_of(lambda: os.unlink('volumes/guarded')), errno_of(lambda: os.ftruncate(kept, 1 << 20)),
  errno_of(lambda: os.open('volumes/kept', os.O_WRONLY | os.O_TRUNC)), errno_of(lambda: os.rename('volumes/other', 'volumes/kept')),
  errno_of(lambda: os.rename('volumes/other', 'snapshots/kept/other')), errno_of(lambda: os.rename('snapshots/kept/s', 'snapshots/kept/t')),
  errno_of(lambda: os.mkdir('d')), errno_of(lambda: os.open('d', os.O_CREAT | os.O_WRONLY)), errno_of(lambda: os.unlink('snapshots/kept')),
  errno_of(lambda: os.rmdir('snapshots/kept')), errno_of(lambda: os.open('snapshots/other/s', os.O_CREAT | os.O_WRONLY)),
  errno_of(lambda: os.open('snapshots/kept/s', os.O_RDWR)), errno_of(lambda: os.chmod('snapshots/kept/s', 0o600)),
  errno_of(lambda: fallocate(kept, 0, 4 << 20, 512)), errno_of(lambda: os.ftruncate(kept, (1 << 50) + 512)), errno_of(lambda: os.ftruncate(kept, 1 << 60)), errno_of(lambda: os.stat('volumes/none'))]))`,
      m.dir,
    );
    // EBUSY, EBUSY, EPERM; EBUSY, EBUSY, EEXIST; EPERM, EPERM; EPERM, EPERM, EISDIR; EPERM, EINVAL; EROFS, EROFS; EOPNOTSUPP, EFBIG, EFBIG, ENOENT
    expect(found).toEqual([16, 16, 1, 16, 16, 17, 1, 1, 1, 1, 21, 1, 22, 30, 30, 95, 27, 27, 2]);
    await m.daemon.cli('volume', 'protect', 'guarded', '--off');
    await m.run('rm', m.at('snapshots/kept/s'), m.at('volumes/kept'), m.at('volumes/other'), m.at('volumes/guarded'));
  });

  it('lets others in when that is asked for, as far as modes go', async () => {
    await m.run('truncate', '-s', '1M', m.at('volumes/seen'));
    const open = await m.mount('open', '--allow-other');
    fs.chmodSync(m.world.dir, 0o755);
    const found = await m.agent(
      `shut, open_ = sys.argv[1:]
def with_group(group, work):
    r, w = os.pipe()
    if os.fork() == 0:
        os.setgroups([]); os.setgid(group); os.setuid(65534)
        os.write(w, bytes([errno_of(work)])); os._exit(0)
    os.wait(); return os.read(r, 1)[0]
def as_nobody(work): return with_group(65534, work)
def as_group(work): return with_group(os.getgid(), work)
print(json.dumps([as_nobody(lambda: os.stat(shut)), as_group(lambda: os.stat(shut)), as_nobody(lambda: os.stat(open_)),
  as_nobody(lambda: os.listdir(open_)), as_group(lambda: os.open(open_ + '/volumes/seen', os.O_RDWR)),
  errno_of(lambda: os.chmod(open_ + '/volumes/seen', 0o666)), errno_of(lambda: os.chown(open_ + '/volumes/seen', 65534, -1)),
  errno_of(lambda: os.chmod(open_ + '/volumes/seen', 0o660))]))`,
      m.dir,
      open,
    );
    expect(found).toEqual([13, 13, 0, 13, 0, 1, 1, 0]); // EACCES, EACCES, -, EACCES, -, EPERM, EPERM, -
    // copying keeps what it can
    await m.run('touch', path.join(open, 'snapshots/seen/s'));
    await m.run('cp', '-p', path.join(open, 'snapshots/seen/s'), path.join(open, 'volumes/copied'));
    expect(await m.show('copied')).toMatchObject({ clonedFrom: 'seen@s' });
    await m.daemon.cli('umount', open);
    await m.run('rm', m.at('snapshots/seen/s'), m.at('volumes/seen'), m.at('volumes/copied'));
  });

  it('does not have the daemon read what it serves: who imports a file of it sends its bytes', async () => {
    await m.run('truncate', '-s', '1M', m.at('volumes/source'));
    await m.run('sh', '-c', 'printf bytes | dd of="$1" conv=notrunc,fsync', 'sh', m.at('volumes/source'));
    const outside = m.world.file('outside');
    fs.writeFileSync(outside, Buffer.alloc(4096, 1));
    const reads = async (file: string) => {
      const [dev, ino] = (await m.run('stat', '-c', '%d %i', file)).trim().split(' ');
      const body = JSON.stringify({ volume: 'never', snapshot: 's', file: { path: file, dev, ino } });
      const args = ['-sN', '--unix-socket', m.daemon.controlSocket, '-H', 'content-type: application/json', '-d', body];
      // the answer goes on for as long as the ingest; who leaves gives it up
      const text = await m.run('sh', '-c', 'curl -m 1 "$@" http://localhost/v1/ingests || true', 'sh', ...args);
      return (JSON.parse(text.split('\n')[0]!) as { ingest: { reads: boolean } }).ingest.reads;
    };
    expect([await reads(outside), await reads(m.at('volumes/source'))]).toEqual([true, false]);
    await m.daemon.cli('import', m.at('volumes/source'), 'imported@s');
    await m.run('cmp', m.at('volumes/source'), m.at('snapshots/imported/s'));
    await m.run('rm', m.at('snapshots/imported/s'), m.at('volumes/imported'), m.at('volumes/source'));
  });

  it('tells how much room there is: of a file, in its pool', async () => {
    const room = async (of: string) => {
      const text = await m.run('stat', '-f', '-c', '%S %b %f %a', of);
      const [unit, size, free, available] = text.split(' ').map(Number);
      expect(available).toBe(free);
      return { size: size * unit, free: free * unit };
    };
    await m.daemon.cli('pool', 'create', 'measured', '--path', `${m.world.file('measured')}/`, '--size', '256M');
    await m.daemon.createVolume('inside', 64 * MIB, 'measured');
    const inside = m.at('volumes/inside');
    const { pools } = await m.daemon.http<{ pools: { name: string; capacityBytes: number }[] }>('GET', '/v1/status');
    const before = await room(inside);
    expect(before.size).toBe(pools.find(({ name }) => name === 'measured')?.capacityBytes);
    await m.run('dd', 'if=/dev/urandom', `of=${inside}`, 'bs=1M', 'count=16', 'conv=notrunc,fsync');
    const { free } = await room(inside);
    expect(before.free - free).toBeGreaterThanOrEqual(16 * MIB);
    expect(before.free - free).toBeLessThan(32 * MIB);
    // elsewhere: all pools
    expect((await room(m.dir)).size).toBeGreaterThan(before.size);
    await m.run('rm', inside);
  });

  it('says when the pool is full, and goes on when it is not', { timeout: MOUNTED_MS_MAX }, async () => {
    await m.daemon.cli('pool', 'create', 'small', '--path', `${m.world.file('small')}/`, '--size', '64M');
    await m.daemon.cli('volume', 'create', 'big', '--size', '256M', '--pool', 'small');
    const big = m.at('volumes/big');
    await m.until('it is there', async () => (await m.names('volumes')).includes('big'));
    const error = await m.agent(
      `fd = os.open(sys.argv[1], os.O_RDWR)
def fill():
    for i in range(256): os.pwrite(fd, bytes([i % 255 + 1]) * (1 << 20), i << 20)
error = errno_of(fill); first = os.pread(fd, 4096, 0) == b'\\x01' * 4096
free = os.fstatvfs(fd).f_bavail; print(json.dumps([error, first, free < 1024]))`,
      big,
    );
    expect(error).toEqual([28, true, true]); // ENOSPC
    await m.run('fallocate', '--punch-hole', '--offset', '0', '--length', '16M', big);
    await m.until(
      'there is room again',
      async () =>
        (await m.agent(
          `fd = os.open(sys.argv[1], os.O_RDWR); print(json.dumps(errno_of(lambda: os.pwrite(fd, b'x' * 65536, 0))))`,
          big,
        )) === 0,
    );
    await m.run('rm', big);
  });
});
