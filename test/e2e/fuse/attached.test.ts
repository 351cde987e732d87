/** A volume that somebody has attached exclusively, as mounts and NBD show it to others. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MOUNTED_MS_MAX, Mounted, missing } from '../lib/mounted.ts';

/** What the daemon answers about it. */
interface Attached {
  attached: { id: string; export: string };
}

/** Errors of opening to read, to write, and with O_TRUNC, of truncating and deleting; and the mode. */
const TRY = `web = sys.argv[1]
def opened(flags): os.close(os.open(web, flags))
print(json.dumps([errno_of(lambda: opened(os.O_RDONLY)), errno_of(lambda: opened(os.O_RDWR)), errno_of(lambda: opened(os.O_WRONLY | os.O_TRUNC)),
  errno_of(lambda: os.truncate(web, 1 << 20)), errno_of(lambda: os.unlink(web)), os.stat(web).st_mode & 0o777]))`;
const EBUSY = 16;
/** as root opening asks nobody about modes: the daemon says no */
const READ_ONLY = [0, EBUSY, EBUSY, EBUSY, EBUSY, 0o400];

describe.skipIf(missing !== null)('a volume that is attached to somebody', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  const web = () => m.at('volumes/web');
  const attach = async () => (await m.daemon.cli<Attached>('volume', 'attach', 'web', '--to', 'node1')).attached;
  const io = (exported: string, command: string) =>
    m.world.run('qemu-io', '-f', 'raw', '-t', 'writeback', '-c', command, m.daemon.uri(exported));

  it('is written by him alone, whatever else has it, until it is taken back', { timeout: MOUNTED_MS_MAX }, async () => {
    await m.run('truncate', '-s', '4M', web());
    await m.names('volumes');
    const writer = m.world.children.spawn('sh', ['-c', 'exec sleep 1000 1<>"$1"', 'sh', web()]);
    await m.until('it is open', async () => (await m.show('web')).openCount === 1);
    await expect(attach()).rejects.toThrow(/open for writing/);
    await writer.stop();
    await m.until('it is closed', async () => (await m.show('web')).openCount === 0);

    const { export: exported } = await attach();
    expect(await m.agent(TRY, web())).toEqual(READ_ONLY);
    expect(await m.run('ls', '-l', m.at('volumes'))).toMatch(/-r-------- .* web$/m);
    await io(exported, 'write -P 7 0 64k');
    await expect(io('web', 'write -P 8 0 64k')).rejects.toThrow(/read-only|not permitted|denied/i);
    expect(await m.world.run('nbdinfo', m.daemon.uri('web'))).toMatch(/is_read_only: true/);
    expect(await m.world.run('nbdinfo', m.daemon.uri(exported))).toMatch(/is_read_only: false/);
    await m.until('others read what he wrote', async () => (await m.run('head', '-c', '1', web())) === '\x07');

    await m.daemon.kill();
    await m.daemon.restart();
    expect(await m.agent(TRY, web())).toEqual(READ_ONLY);
    await io(exported, 'read -P 7 0 64k');
    // somebody reads through the mount meanwhile: nothing to him
    const reader = m.world.children.spawn('sh', ['-c', 'exec sleep 1000 <"$1"', 'sh', web()]);
    await m.until('it is open', async () => (await m.show('web')).openCount === 1);
    await m.daemon.cli('volume', 'detach', 'web', '--force');
    await expect(io(exported, 'write -P 9 0 64k')).rejects.toThrow();
    expect((await m.show('web')).openCount).toBe(1);
    await reader.stop();
    await m.until('it is closed', async () => (await m.show('web')).openCount === 0);
    await m.run('sh', '-c', 'printf anybody | dd of="$1" conv=notrunc,fsync', 'sh', web());
    await io('web', 'write -P 9 64k 64k');
    expect((await m.run('stat', '-c', '%a', web())).trim()).toBe('600');
    await m.run('rm', web());
  });
});
