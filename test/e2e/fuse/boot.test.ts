/** `mount -t atoll`, /etc/fstab and systemd units (docs/fuse.md, "At start-up"). */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHECKOUT } from '../../../bench/daemon.ts';
import { Mounted, missing } from '../lib/mounted.ts';

/** where mount(8) looks for what mounts other types */
const HELPER = '/sbin/mount.atoll';
const CONTRIB = path.join(CHECKOUT, 'contrib');
const GENERATOR = '/usr/lib/systemd/system-generators/systemd-fstab-generator';

function helperObstacle(): string | null {
  if (missing !== null) return missing;
  return fs.existsSync(HELPER) ? `${HELPER} is there already` : null;
}

describe.skipIf(helperObstacle() !== null)('mount -t atoll', () => {
  const m = new Mounted();
  const mount = (...argv: string[]) => spawnSync('timeout', ['60', 'mount', ...argv], { encoding: 'utf8' });
  const allowed = async (at: string) =>
    (await m.daemon.cli<{ mounts: { path: string; allowOther: boolean }[] }>('mount')).mounts.find(
      (one) => one.path === at,
    )?.allowOther;

  beforeAll(async () => {
    await m.start();
    fs.symlinkSync(path.join(CONTRIB, 'mount.atoll'), HELPER);
  });
  afterAll(async () => {
    fs.rmSync(HELPER, { force: true });
    await m.end();
  });

  it('mounts the daemon of a home, and of a control socket', async () => {
    for (const from of [m.daemon.home, m.daemon.controlSocket]) {
      const at = m.folder('typed');
      expect(mount('-t', 'atoll', from, at)).toMatchObject({ status: 0, stderr: '' });
      expect(await m.names(at)).toEqual(['snapshots', 'volumes']);
      expect(await allowed(at)).toBe(false);
      await m.run('umount', at);
      await m.until('the daemon knows', async () => (await allowed(at)) === undefined);
    }
  });

  it('takes a line of fstab with its options', async () => {
    const at = m.folder('tabled');
    const table = m.world.file('fstab');
    fs.writeFileSync(table, `${m.daemon.home} ${at} atoll noauto,_netdev,allow_other,noatime 0 0\n`);
    expect(mount('--fstab', table, at)).toMatchObject({ status: 0, stderr: '' });
    expect(await allowed(at)).toBe(true);
    await m.run('umount', at);
  });

  it('says what is wrong', () => {
    const at = m.folder('refused');
    const none = m.world.file('none');
    expect(mount('-t', 'atoll', none, at)).toMatchObject({ stderr: expect.stringContaining(none) });
    expect(mount('-t', 'atoll', '-o', 'ro', m.daemon.home, at).stderr).toMatch(/cannot be read-only/);
    expect(mount('-t', 'atoll', m.daemon.home, m.world.file('nowhere')).status).not.toBe(0);
    expect(spawnSync(HELPER, [m.daemon.home], { encoding: 'utf8' })).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('HOME-OR-SOCKET DIR'),
    });
    expect(spawnSync('mountpoint', ['-q', at]).status).not.toBe(0);
  });
});

describe.skipIf(spawnSync('systemd-analyze', ['--version']).status !== 0)('the units', () => {
  /** A folder of units whose daemon is this checkout. */
  function units(): string {
    const dir = fs.mkdtempSync('/tmp/atoll-units-');
    const service = fs.readFileSync(path.join(CONTRIB, 'atoll.service'), 'utf8');
    fs.writeFileSync(path.join(dir, 'atoll.service'), service.replaceAll('/opt/atoll', CHECKOUT));
    fs.cpSync(path.join(CONTRIB, 'atoll.service.d'), path.join(dir, 'atoll.service.d'), { recursive: true });
    return dir;
  }
  const verify = (from: string, ...of: string[]) =>
    spawnSync('systemd-analyze', ['verify', '--man=no', ...of.map((name) => path.join(from, name))], {
      encoding: 'utf8',
      env: { ...process.env, SYSTEMD_UNIT_PATH: `${from}:` },
    });

  it('are whole, and in no circle', () => {
    const dir = units();
    fs.copyFileSync(path.join(CONTRIB, 'mnt-atoll.mount'), path.join(dir, 'mnt-atoll.mount'));
    expect(verify(dir, 'mnt-atoll.mount', 'atoll.service')).toMatchObject({ status: 0, stderr: '' });
    // without _netdev local file systems would wait for the daemon, which waits for them
    const unit = fs.readFileSync(path.join(dir, 'mnt-atoll.mount'), 'utf8');
    fs.writeFileSync(path.join(dir, 'mnt-atoll.mount'), unit.replace('Options=_netdev', ''));
    expect(verify(dir, 'mnt-atoll.mount', 'atoll.service').stderr).toMatch(/ordering cycle/);
    fs.rmSync(dir, { recursive: true });
  });

  it.skipIf(!fs.existsSync(GENERATOR))('made of the line for fstab are too', () => {
    const dir = units();
    const line = /^\/var\/lib\/atoll +\/mnt\/atoll .*$/m.exec(
      fs.readFileSync(path.join(CHECKOUT, 'docs/fuse.md'), 'utf8'),
    )?.[0];
    const table = path.join(dir, 'fstab');
    fs.writeFileSync(table, `${line}\n`);
    const made = spawnSync(GENERATOR, [dir, dir, dir], { env: { ...process.env, SYSTEMD_FSTAB: table } });
    expect(made.status).toBe(0);
    expect(verify(dir, 'mnt-atoll.automount', 'mnt-atoll.mount')).toMatchObject({ status: 0, stderr: '' });
    fs.rmSync(dir, { recursive: true });
  });
});
