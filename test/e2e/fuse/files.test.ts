/** Volumes as files: what everybody's tools do with them. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { random } from '../../../bench/scatter.ts';
import { MIB } from '../../../bench/size.ts';
import { MOUNTED_MS_MAX, Mounted, missing } from '../lib/mounted.ts';

const rsync = spawnSync('rsync', ['--version']).status === 0 ? 'rsync' : null;
if (rsync === null) console.warn('rsync is missing, and what it does with mounts is not tested');

describe.skipIf(missing !== null)('a mount', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  it('is copied into, compared, and has the bytes that NBD has', { timeout: MOUNTED_MS_MAX }, async () => {
    const source = m.world.file('source');
    const next = random(3);
    fs.writeFileSync(source, Buffer.from(Array.from({ length: 3 * MIB }, () => Math.floor(next() * 256))));
    fs.truncateSync(source, 8 * MIB);
    const file = m.at('volumes/copied');
    await m.run('cp', source, file);
    await m.run('cmp', source, file);
    const raw = m.world.file('raw');
    await m.world.run('qemu-img', 'convert', '-O', 'raw', m.daemon.uri('copied'), raw);
    await m.world.run('cmp', source, raw);
    await m.run('tar', '-C', m.at('volumes'), '-cf', m.world.file('t.tar'), 'copied');
    fs.mkdirSync(m.world.file('untar'));
    await m.world.run('tar', '-C', m.world.file('untar'), '-xf', m.world.file('t.tar'));
    await m.world.run('cmp', source, m.world.file('untar/copied'));
    // What NBD writes is read, although it was in the page cache.
    await m.run('sh', '-c', 'exec 9<"$1"; cat <&9 >/dev/null', 'sh', file);
    await m.world.run('qemu-io', '-f', 'raw', m.daemon.uri('copied'), '-c', 'write -P 0x5a 1M 1M');
    const first = async () => (await m.world.run('od', '-An', '-tx1', '-j1048576', '-N1', file)).trim() === '5a';
    await m.until('what NBD wrote is read', first);
    await m.run('dd', `if=${source}`, `of=${file}`, 'bs=1M', 'conv=notrunc,fsync', 'oflag=direct');
    await m.world.run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', source, m.daemon.uri('copied'));
    await m.run('rm', file);
    expect(await m.names('volumes')).not.toContain('copied');
  });

  it.skipIf(rsync === null)('is synchronised by rsync, both ways', { timeout: MOUNTED_MS_MAX }, async () => {
    const from = m.world.file('disks');
    fs.mkdirSync(from);
    await m.world.run('dd', 'if=/dev/urandom', `of=${from}/one`, 'bs=64k', 'count=20');
    await m.world.run('dd', 'if=/dev/urandom', `of=${from}/two`, 'bs=512', 'count=3');
    fs.truncateSync(path.join(from, 'one'), 4 * MIB);
    await m.run('rsync', '-a', `${from}/`, m.at('volumes/'));
    const same = async () => {
      for (const name of ['one', 'two']) await m.run('cmp', path.join(from, name), m.at(`volumes/${name}`));
    };
    await same();
    // what has changed, in place; a new file would take the place of a disk, which is refused
    await m.world.run('dd', 'if=/dev/urandom', `of=${from}/one`, 'bs=64k', 'count=2', 'seek=5', 'conv=notrunc');
    await m.run('rsync', '-a', '--inplace', '--no-whole-file', '--checksum', `${from}/`, m.at('volumes/'));
    await same();
    await m.run('touch', m.at('snapshots/one/s'));
    await m.run('rsync', '-a', m.at('snapshots/one/'), `${m.world.file('back')}/`);
    await m.run('cmp', path.join(from, 'one'), m.world.file('back/s'));
    await m.run('rm', m.at('snapshots/one/s'), m.at('volumes/one'), m.at('volumes/two'));
  });

  it('is unpacked into by tar, and copied with cp -a', { timeout: MOUNTED_MS_MAX }, async () => {
    const from = m.world.file('packed');
    fs.mkdirSync(from);
    await m.world.run('dd', 'if=/dev/urandom', `of=${from}/disk`, 'bs=64k', 'count=20');
    fs.chmodSync(path.join(from, 'disk'), 0o640);
    fs.chownSync(path.join(from, 'disk'), 1234, 1234);
    await m.world.run('tar', '-C', from, '-cf', m.world.file('disks.tar'), 'disk');
    await m.run('tar', '-C', m.at('volumes'), '-xpf', m.world.file('disks.tar'));
    await m.run('cmp', path.join(from, 'disk'), m.at('volumes/disk'));
    await m.run('cp', '-a', path.join(from, 'disk'), m.at('volumes/disk2'));
    await m.run('cmp', path.join(from, 'disk'), m.at('volumes/disk2'));
    const seconds = String(Math.floor(fs.statSync(path.join(from, 'disk')).mtimeMs / 1000));
    // times are kept until it changes; modes and owners are not
    for (const name of ['disk', 'disk2'])
      expect((await m.run('stat', '-c', '%Y %a %u', m.at(`volumes/${name}`))).trim()).toBe(`${seconds} 600 0`);
    await m.run('rm', m.at('volumes/disk'), m.at('volumes/disk2'));
  });

  it('takes snapshots by touch, drops them by rm, and keeps what they hold', async () => {
    const volume = m.at('volumes/v');
    await m.run('dd', 'if=/dev/urandom', `of=${volume}`, 'bs=64k', 'count=16');
    await m.world.run('cp', volume, m.world.file('before'));
    await m.run('touch', m.at('snapshots/v/s'));
    await m.run('dd', 'if=/dev/zero', `of=${volume}`, 'bs=64k', 'count=8', 'conv=notrunc');
    await m.run('cmp', m.world.file('before'), m.at('snapshots/v/s'));
    expect(await m.names('snapshots')).toEqual(['v']);
    expect((await m.daemon.cli<{ snapshots: { name: string }[] }>('snapshot', 'list', 'v')).snapshots).toMatchObject([
      { name: 'v@s' },
    ]);
    const errors = await m.agent(
      `s, v = sys.argv[1:]
print(json.dumps([errno_of(lambda: os.open(s, os.O_WRONLY)), errno_of(lambda: os.utime(s)),
  errno_of(lambda: os.unlink(v)), errno_of(lambda: os.truncate(s, 0))]))`,
      m.at('snapshots/v/s'),
      volume,
    );
    expect(errors).toEqual([30, 30, 16, 30]); // EROFS, EROFS, EBUSY (it has a snapshot), EROFS
    await m.run('rm', m.at('snapshots/v/s'));
    expect((await m.daemon.cli<{ snapshots: unknown[] }>('snapshot', 'list', 'v')).snapshots).toEqual([]);
    await m.run('rm', volume);
  });

  it('is verified by fio, buffered and direct, several jobs at once', { timeout: MOUNTED_MS_MAX }, async () => {
    for (const direct of [0, 1]) {
      const job = ['--ioengine=libaio', '--iodepth=8', '--bs=4k', '--rw=randwrite', '--size=8M', '--numjobs=2'];
      const check = ['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--group_reporting', `--direct=${direct}`];
      const where = ['--name=v', `--directory=${m.at('volumes')}`, `--filename_format=fio${direct}.$jobnum`];
      await m.run('fio', ...job, ...check, ...where);
    }
    await m.run('sh', '-c', 'rm "$1"/volumes/fio*', 'sh', m.dir);
  });
});
