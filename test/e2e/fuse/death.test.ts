/** A daemon that is killed while its tree is in use. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { KIB, MIB } from '../../../bench/size.ts';
import { MOUNTED_MS_MAX, Mounted, missing } from '../lib/mounted.ts';

const DISK_BYTES = 64 * MIB;

describe.skipIf(missing !== null)('a mount', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  it('who has a file open then hears of it, and is not left waiting', async () => {
    await m.run('truncate', '-s', '1M', m.at('volumes/held'));
    const holder = m.world.children.spawn(
      'timeout',
      [
        '60',
        'python3',
        '-c',
        `import os, sys, mmap
fd = os.open(sys.argv[1], os.O_RDWR); os.pwrite(fd, b'x', 0)
print('open', flush=True); sys.stdin.readline()
def errno_of(work):
    try: work()
    except OSError as e: return e.errno
    return 0
print(errno_of(lambda: os.pread(fd, 1, 8192)), errno_of(lambda: os.pwrite(fd, b'y', 0)), errno_of(lambda: os.fsync(fd)),
  errno_of(lambda: os.stat(sys.argv[1])), errno_of(lambda: os.open(sys.argv[1], os.O_RDONLY)), flush=True)`,
        m.at('volumes/held'),
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    let said = '';
    holder.process.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await m.until('it is open', async () => said.includes('open'));
    await m.daemon.kill();
    holder.process.stdin?.end('go\n');
    await holder.ended;
    expect(said).toBe('open\n107 107 107 107 107\n'); // ENOTCONN
    await m.daemon.restart();
    expect(await m.run('head', '-c', '1', m.at('volumes/held'))).toMatch(/[x\0]/);
    await m.run('rm', m.at('volumes/held'));
  });

  it('after kill -9 who is there gets ENOTCONN, and the next start mounts again; ext4 on it is whole', {
    timeout: MOUNTED_MS_MAX,
  }, async ({ skip }) => {
    const disk = m.at('volumes/disk');
    await m.run('truncate', '-s', String(DISK_BYTES), disk);
    const device = await m.loop(disk);
    if (device === null) return skip('there is no loop device');
    await m.run('mkfs.ext4', '-q', device);
    const root = m.world.file('ext4');
    fs.mkdirSync(root);
    await m.world.run('mount', device, root);
    const files = m.world.file('files');
    fs.mkdirSync(files);
    for (let i = 0; i < 20; i++) fs.writeFileSync(path.join(files, `f${i}`), Buffer.alloc(i * 20 * KIB, i));
    await m.run('cp', '-r', files, path.join(root, 'files'));
    await m.run('sync', '-f', root);
    await m.run('touch', m.at('snapshots/disk/mounted'));
    await m.daemon.kill();
    const answer = spawnSync('timeout', ['20', 'stat', m.dir], { encoding: 'utf8' });
    expect(answer.stderr).toMatch(/not connected/);
    spawnSync('umount', [root]);
    await m.detach(device);
    await m.daemon.restart();
    expect(await m.names('volumes')).toContain('disk');
    for (const name of ['disk', 'clone']) {
      if (name === 'clone') await m.daemon.clone('disk@mounted', 'clone');
      const again = (await m.loop(m.at(`volumes/${name}`))) as string;
      // Mounting replays the journal.
      await m.run('mount', again, root);
      await m.run('diff', '-r', files, path.join(root, 'files'));
      await m.world.run('umount', root);
      expect(await m.run('e2fsck', '-fn', again)).toContain('Pass 5');
      await m.detach(again);
    }
    await m.until('the daemon is let go of', async () => {
      return (await m.daemon.cli<{ openCount: number }>('volume', 'show', 'disk')).openCount === 0;
    });
    await m.daemon.cli('umount', m.dir);
    expect(await m.daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
    await m.daemon.stop();
    expect(fs.readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(m.world.dir);
  });
});
