/** A mount beside others, the command line and NBD. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { random } from '../../../bench/scatter.ts';
import { MIB } from '../../../bench/size.ts';
import { MOUNTED_MS_MAX, Mounted, missing } from '../lib/mounted.ts';

const DISK_BYTES = 64 * MIB;

describe.skipIf(missing !== null)('a mount', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  it('two mounts and the command line see what each other do', async () => {
    const other = await m.mount('m2');
    const both = [m.dir, other];
    await m.daemon.createVolume('shared', DISK_BYTES);
    await m.until('both have it', async () =>
      (await Promise.all(both.map((at) => m.names(path.join(at, 'volumes'))))).every((all) => all.includes('shared')),
    );
    await m.daemon.cli('volume', 'resize', 'shared', '--size', String(2 * DISK_BYTES));
    for (const at of both)
      await m.until('both have its size', async () => {
        const size = await m.world.run('stat', '-c', '%s', path.join(at, 'volumes/shared'));
        return size.trim() === String(2 * DISK_BYTES);
      });
    await m.run('sh', '-c', 'printf other | dd of="$1" conv=notrunc', 'sh', path.join(other, 'volumes/shared'));
    expect(await m.world.run('head', '-c', '5', m.at('volumes/shared'))).toBe('other');
    // In use: refused. Not in use: gone.
    const holder = m.world.children.spawn('sh', [
      '-c',
      'exec sleep 1000 <"$1"',
      'sh',
      path.join(other, 'volumes/shared'),
    ]);
    await m.until(
      'it is open',
      async () => (await m.daemon.cli<{ openCount: number }>('volume', 'show', 'shared')).openCount === 1,
    );
    await expect(m.daemon.cli('umount', other)).rejects.toThrow(/in use/);
    await expect(m.daemon.cli('volume', 'delete', 'shared')).rejects.toThrow(/open/);
    await m.daemon.cli('volume', 'delete', 'shared', '--force');
    await m.until('it is gone', async () => !(await m.names('volumes')).includes('shared'));
    await holder.stop();
    await m.daemon.cli('umount', other);
    expect((await m.daemon.cli<{ mounts: { path: string }[] }>('mount')).mounts).toMatchObject([{ path: m.dir }]);
  });

  it('shows at once what the command line does with names, bytes and sizes, whatever was cached', {
    timeout: MOUNTED_MS_MAX,
  }, async () => {
    const volume = m.at('volumes/told');
    await m.run('sh', '-c', 'printf first | dd of="$1" conv=fsync', 'sh', volume);
    await m.daemon.snapshot('told', 's1');
    await m.daemon.snapshot('told', 's2');
    // listed one after another, the folders behind come along
    await m.daemon.createVolume('beside', MIB);
    for (const name of ['a', 'b']) await m.daemon.snapshot('beside', name);
    const walk = () => m.run('find', m.at('snapshots'));
    await walk();
    expect((await walk()).match(/\/(s1|s2|a|b)$/gm)).toHaveLength(4);
    await m.daemon.deleteSnapshot('beside@a');
    expect((await walk()).match(/\/(s1|s2|a|b)$/gm)).toHaveLength(3);
    await m.run('touch', m.at('snapshots/beside/c'));
    expect((await walk()).match(/\/(s1|s2|b|c)$/gm)).toHaveLength(4);
    await m.daemon.snapshot('beside', 'd');
    expect((await walk()).match(/\/(s1|s2|b|c|d)$/gm)).toHaveLength(5);
    await m.run('rm', m.at('snapshots/beside/b'));
    expect((await walk()).match(/\/(s1|s2|c|d)$/gm)).toHaveLength(4);
    await m.daemon.cli('volume', 'rename', 'beside', 'renamed');
    expect(await walk()).not.toContain('beside');
    // folders are believed for longer than names, and these are asked for by name
    const stat = (name: string) => m.run('stat', '-c', '%F', m.at(`snapshots/${name}`));
    await expect(stat('beside')).rejects.toThrow(/No such file/);
    await m.run('mv', m.at('volumes/renamed'), m.at('volumes/moved'));
    await expect(stat('renamed')).rejects.toThrow(/No such file/);
    expect(await stat('moved')).toContain('directory');
    await m.run('mv', m.at('volumes/moved'), m.at('volumes/renamed'));
    expect(await stat('renamed')).toContain('directory');
    // bytes that are in the page cache, and are not the volume's any more
    await m.run('sh', '-c', 'printf other | dd of="$1" conv=notrunc,fsync', 'sh', volume);
    expect(await m.run('head', '-c', '5', volume)).toBe('other');
    await m.until('it is closed', async () => (await m.show('told')).openCount === 0);
    await m.daemon.cli('rollback', 'told@s1');
    expect(await m.run('head', '-c', '5', volume)).toBe('first');
    await m.daemon.deleteVolume('renamed');
    await expect(stat('renamed')).rejects.toThrow(/No such file/);
    expect(await stat('told')).toContain('directory');
    await m.run('rm', m.at('snapshots/told/s1'), m.at('snapshots/told/s2'), m.at('volumes/told'));
    await expect(stat('told')).rejects.toThrow(/No such file/);
    await m.until('they are gone', async () => (await m.names('volumes')).length === 0);
  });

  it('changed through two mounts and the control socket at once is one tree afterwards', {
    timeout: MOUNTED_MS_MAX,
  }, async () => {
    const other = await m.mount('m3');
    const through = (dir: string, seed: number) =>
      m.agent(
        `import random, time
os.chdir(sys.argv[1]); r = random.Random(int(sys.argv[2])); done = {}; errors = {}
def name(): return 'n%d' % r.randrange(8)
def write(v):
    fd = os.open('volumes/' + v, os.O_RDWR)
    try: os.pwrite(fd, r.randbytes(70000), r.randrange(8) * 65536); os.fsync(fd)
    finally: os.close(fd)
STEPS = {
  'create': lambda v: os.close(os.open('volumes/' + v, os.O_CREAT | os.O_WRONLY)), 'write': write,
  'truncate': lambda v: os.truncate('volumes/' + v, r.randrange(8) * 65536), 'unlink': lambda v: os.unlink('volumes/' + v),
  'rename': lambda v: os.rename('volumes/' + v, 'volumes/' + name()), 'snapshot': lambda v: os.close(os.open('snapshots/%s/s%d' % (v, r.randrange(3)), os.O_CREAT | os.O_WRONLY)),
  'drop': lambda v: os.unlink('snapshots/%s/s%d' % (v, r.randrange(3))), 'list': lambda v: [os.listdir('snapshots/' + one) for one in os.listdir('snapshots')],
  'stat': lambda v: os.stat('volumes/' + v), 'read': lambda v: open('volumes/' + v, 'rb').read() }
until = time.time() + 4; limit = until + 60
while time.time() < until or (min(done.get(what, 0) for what in STEPS) == 0 and time.time() < limit):
    what = r.choice(list(STEPS)); error = errno_of(lambda: STEPS[what](name()))
    done[what] = done.get(what, 0) + (error == 0); errors[error] = 1
print(json.dumps([min(done.get(what, 0) for what in STEPS), sorted(errors)]))`,
        dir,
        String(seed),
      ) as Promise<[number, number[]]>;
    let busy = true;
    const next = random(5);
    const control = (async () => {
      while (busy) {
        const name = `n${Math.floor(next() * 8)}`;
        const [dice, refused] = [next(), () => undefined];
        if (dice < 0.3) await m.daemon.createVolume(name, MIB).catch(refused);
        else if (dice < 0.5) await m.daemon.snapshot(name, 's1').catch(refused);
        else if (dice < 0.7) await m.daemon.deleteSnapshot(`${name}@s1`).catch(refused);
        else if (dice < 0.8) await m.daemon.deleteVolume(name).catch(refused);
        else
          await m.daemon
            .http('POST', `/v1/volumes/${name}/resize`, { size: MIB * (1 + Math.floor(next() * 3)) })
            .catch(refused);
      }
    })();
    const told = await Promise.all([through(m.dir, 1), through(other, 2)]);
    busy = false;
    await control;
    for (const [least, errors] of told) {
      expect(least).toBeGreaterThan(0);
      // nothing, ENOENT, EIO (deleted by force while open), EBUSY, EEXIST, EINVAL (no bytes to take a snapshot of), EROFS (a snapshot that is there), ESTALE (renamed away meanwhile)
      for (const error of errors) expect([0, 2, 5, 16, 17, 22, 30, 116]).toContain(error);
    }
    const all = async (at: string) => (await m.run('find', at, '-printf', '%P %s\\n')).split('\n').sort();
    await m.until('both are the same', async () => (await all(m.dir)).join() === (await all(other)).join());
    const { volumes } = await m.daemon.cli<{ volumes: { name: string }[] }>('volume', 'list');
    expect(await m.names('volumes')).toEqual(volumes.map(({ name }) => name).sort());
    expect(await m.daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
    await m.daemon.cli('umount', other);
    for (const { name } of volumes) await m.daemon.deleteVolume(name);
  });

  it('is not used by its own daemon, through links and loop devices neither', async () => {
    const link = m.world.file('link');
    fs.symlinkSync(m.dir, link);
    for (const at of [m.at('volumes/'), path.join(link, 'volumes/'), path.join(link, 'volumes/none/below/')]) {
      await expect(m.daemon.cli('pool', 'create', 'inside', '--path', at)).rejects.toThrow(/serves itself/);
      await expect(m.daemon.cli('backup', path.join(at, 'b'))).rejects.toThrow(/serves itself/);
    }
    const disk = m.at('volumes/looped');
    await m.run('truncate', '-s', '64M', disk);
    const device = await m.loop(disk);
    if (device === null) return;
    await expect(m.daemon.cli('pool', 'create', 'inside', '--path', device)).rejects.toThrow(/serves itself/);
    await m.detach(device);
  });
});
