/** The command line and the daemon's life, as a user meets them: real processes, real exit codes. */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import { NbdClient } from '../../src/control/nbd/client.ts';
import { inProcess } from '../control/in-process.ts';
import { World } from './lib/daemon.ts';

const world = new World();
let daemon: Daemon;
beforeAll(async () => {
  daemon = await world.start();
});
afterAll(() => world.end());

interface Ran {
  exit: number | null;
  out: string;
  err: string;
}

function atoll(...argv: string[]): Ran {
  const { status, stdout, stderr } = spawnSync(ATOLL, argv, {
    env: { ...process.env, ATOLL_HOME: daemon.home },
    encoding: 'utf8',
  });
  return { exit: status, out: stdout, err: stderr };
}

function json<T = Record<string, unknown>>(...argv: string[]): T {
  const { exit, out, err } = atoll(...argv, '--json');
  expect([exit, err], argv.join(' ')).toEqual([0, '']);
  return JSON.parse(out) as T;
}

/** exit code, and the one line of a refusal */
function refusal(...argv: string[]): Ran {
  const ran = atoll(...argv);
  expect(ran.out, argv.join(' ')).toBe('');
  expect(ran.err, argv.join(' ')).toMatch(/^atoll: [^\n]+\n$/);
  return ran;
}

function connect(at: Daemon, exportName: string): Promise<NbdClient> {
  return NbdClient.connect({ socket: at.nbdSocket, exportName });
}

async function withDisk(name: string, work: (nbd: NbdClient) => Promise<void>): Promise<void> {
  const nbd = await connect(daemon, name);
  await work(nbd);
  await nbd.close();
}

describe('serve', () => {
  it('prints one ready line whose example works as it stands', () => {
    const lines = daemon.readyLine.split('\n');
    expect(lines).toHaveLength(1);
    const example = /try: (.*)$/.exec(lines[0]!)?.[1] ?? '';
    expect(example).toContain(daemon.nbdSocket);
    const { status, stdout } = spawnSync('sh', ['-c', example], {
      cwd: path.dirname(path.dirname(ATOLL)),
      encoding: 'utf8',
    });
    expect(status).toBe(0);
    expect(stdout).toMatch(/export-size: 10737418240/);
    json('volume', 'delete', 'demo');
  });

  it('keeps home and sockets private', () => {
    const mode = (file: string) => fs.statSync(file).mode & 0o777;
    expect(mode(daemon.home)).toBe(0o700);
    expect(mode(daemon.nbdSocket)).toBe(0o600);
    expect(mode(daemon.controlSocket)).toBe(0o600);
  });

  it('is one per home: a second one says who holds it', () => {
    const { exit, err } = refusal('serve', '--home', daemon.home);
    expect(exit).toBe(4);
    expect(err).toContain(`pid ${daemon.pid}`);
    // and the first goes on
    expect(atoll('status').exit).toBe(0);
  });

  it('refuses a folder of somebody else’s, a file, and a home that cannot be made', () => {
    fs.mkdirSync(world.file('photos'));
    fs.writeFileSync(world.file('photos/cat.jpg'), 'cat');
    expect(refusal('serve', '--home', world.file('photos')).exit).toBe(4);
    expect(fs.readdirSync(world.file('photos'))).toEqual(['cat.jpg']);
    expect(refusal('serve', '--home', world.file('photos/cat.jpg')).exit).not.toBe(0);
    expect(refusal('serve', '--home', '/proc/atoll').exit).not.toBe(0);
    expect(refusal('serve', '--home', `/tmp/${'x'.repeat(120)}`).err).toMatch(/107 bytes/);
  });

  it('ends cleanly by SIGTERM and leaves no socket', async () => {
    const other = await world.start(['--nbd', 'tcp:127.0.0.1:0', '--nbd', `unix:${world.file('extra.sock')}`]);
    const { sockets } = await other.http<{ sockets: { nbd: string[] } }>('GET', '/v1/status');
    expect(sockets.nbd).toHaveLength(3);
    const tcp = /^tcp:127\.0\.0\.1:(\d+)$/.exec(sockets.nbd[1]!);
    expect(Number(tcp?.[1])).toBeGreaterThan(0);
    await other.createVolume('v', 1 << 20);
    for (const uri of [`nbd://127.0.0.1:${tcp?.[1]}/v`, `nbd+unix:///v?socket=${world.file('extra.sock')}`]) {
      expect(await world.run('nbdinfo', '--size', uri)).toBe('1048576\n');
    }
    await other.stop();
    for (const file of ['nbd.sock', 'control.sock', 'daemon.json'])
      expect(fs.existsSync(path.join(other.home, file)), file).toBe(false);
    expect(fs.existsSync(world.file('extra.sock'))).toBe(false);
    // and comes back with what it had, and something else to try
    await other.restart();
    const example = /try: (.*)$/.exec(other.readyLine)?.[1] ?? '';
    expect(await world.run('sh', '-c', example)).toContain('export="v"');
    expect(await other.http('GET', '/v1/volumes/v')).toMatchObject({ size: 1 << 20 });
    await other.stop();
  });

  it('a stop ends requests and NBD connections that are open', async () => {
    const other = await world.start();
    await other.createVolume('v', 1 << 20);
    const client = await connect(other, 'v');
    const transfer = http.request({
      socketPath: other.controlSocket,
      method: 'POST',
      path: '/v1/transfers',
      headers: { 'content-type': 'application/json' },
    });
    transfer.on('error', () => undefined);
    transfer.end(JSON.stringify({ kind: 'create', name: 'w', size: 1 << 20 }));
    await new Promise((resolve) => transfer.once('response', (response) => resolve(response.resume())));
    const started = Date.now();
    await other.stop();
    expect(Date.now() - started).toBeLessThan(15_000);
    await client.close();
    await other.restart();
    expect(await other.http('GET', '/v1/volumes?hidden=true')).toMatchObject({ volumes: [{ name: 'v' }] });
    await other.stop();
  });

  it('starts over the sockets of a daemon that was killed', async () => {
    const other = await world.start();
    await other.kill();
    expect(fs.existsSync(other.nbdSocket)).toBe(true);
    await other.restart();
    expect(await other.cli('status')).toMatchObject({ home: other.home });
    await other.stop();
  });

  it('puts its sockets elsewhere, and commands find them by the home', async () => {
    const dir = world.file('run');
    const home = world.file('h-elsewhere');
    // Not through World: it looks for the sockets in the home.
    const child = spawn(
      ATOLL,
      ['serve', '--home', home, '--socket-dir', dir, '--socket-group', String(process.getgid!()), '--json'],
      {
        stdio: ['ignore', 'pipe', 'ignore'],
      },
    );
    const ready = await new Promise<string>((resolve) => child.stdout.setEncoding('utf8').once('data', resolve));
    expect(JSON.parse(ready)).toMatchObject({ ready: true, control: path.join(dir, 'control.sock'), pid: child.pid });
    expect(fs.statSync(path.join(dir, 'nbd.sock')).mode & 0o777).toBe(0o660);
    expect(atoll('status', '--home', home).exit).toBe(0);
    expect(atoll('status', '--socket', path.join(dir, 'control.sock')).exit).toBe(0);
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGINT');
    expect(await gone).toBe(0);
    expect(fs.readdirSync(dir)).toEqual([]);
  });
});

describe('a daemon that does not answer', () => {
  it.each(['SIGINT', 'SIGTERM'] as const)('holds nobody who is told to end: %s', async (signal) => {
    const socket = world.file(`deaf-${signal}.sock`);
    const deaf = http.createServer(() => undefined);
    await new Promise<void>((resolve) => deaf.listen(socket, resolve));
    const asked = new Promise((resolve) => deaf.once('request', resolve));
    const child = spawn(ATOLL, ['status', '--socket', socket], { stdio: 'ignore' });
    const gone = new Promise((resolve) => child.once('exit', (_code, by) => resolve(by)));
    await asked;
    child.kill(signal);
    expect(await gone).toBe(signal);
    deaf.closeAllConnections();
    deaf.close();
  });
});

describe('commands', () => {
  it('a volume’s life', () => {
    const made = json('volume', 'create', 'life', '--size', '10G');
    expect(made).toMatchObject({ name: 'life', size: 10 * 2 ** 30, blockSize: 65536, pool: 'local', mappedBytes: 0 });
    expect(Date.parse(String(made.createdAt))).toBeGreaterThan(Date.now() - 600_000);
    expect(refusal('volume', 'create', 'life', '--size', '1G').exit).toBe(4);
    expect(json('volume', 'resize', 'life', '--size', '20G').size).toBe(20 * 2 ** 30);
    expect(json('snapshot', 'create', 'life', 's').name).toBe('life@s');
    expect(refusal('volume', 'delete', 'life').exit).toBe(4);
    expect(json('clone', 'life@s', 'life2').clonedFrom).toBe('life@s');
    expect(json('volume', 'rename', 'life', 'life3').name).toBe('life3');
    expect(json('snapshot', 'list', 'life3')).toMatchObject({ snapshots: [{ name: 'life3@s' }] });
    json('volume', 'delete', 'life3', '--with-snapshots');
    expect(refusal('volume', 'show', 'life3').exit).toBe(3);
    // a clone stands alone
    expect(json('volume', 'show', 'life2').size).toBe(20 * 2 ** 30);
    json('volume', 'delete', 'life2');
  });

  it('what is open is not deleted, unless forced', async () => {
    json('volume', 'create', 'open', '--size', '1M');
    const client = await connect(daemon, 'open');
    expect(json('volume', 'show', 'open').openCount).toBe(1);
    expect(refusal('volume', 'delete', 'open').exit).toBe(4);
    json('volume', 'delete', 'open', '--force');
    expect(refusal('volume', 'show', 'open').exit).toBe(3);
    await expect(client.read(0, 512)).rejects.toThrow();
    await client.close();
  });

  it('what is protected is not deleted', () => {
    json('volume', 'create', 'kept', '--size', '1M');
    expect(json('volume', 'protect', 'kept').protected).toBe(true);
    expect(refusal('volume', 'delete', 'kept').exit).toBe(4);
    expect(json('volume', 'protect', 'kept', '--off').protected).toBe(false);
    json('volume', 'delete', 'kept');
  });

  it('rollback and diff', async () => {
    json('volume', 'create', 'roll', '--size', '1M');
    await withDisk('roll', async (nbd) => {
      await nbd.write(131072, Buffer.alloc(65536, 'A'));
    });
    json('snapshot', 'create', 'roll', 'a');
    await withDisk('roll', async (nbd) => {
      await nbd.write(131072, Buffer.alloc(4096, 'B'));
      await nbd.zero(0, 65536);
    });
    // The client is gone; the daemon needs a moment to know.
    for (let tries = 0; tries < 1000 && json('volume', 'show', 'roll').openCount !== 0; tries++) await sleep(20);
    const diff = json<{ extents: unknown[]; changedBytes: number }>('diff', 'roll@a', 'roll');
    expect(diff.extents).toEqual([{ offset: 131072, length: 65536, data: true }]);
    json('rollback', 'roll@a');
    expect(json('diff', 'roll@a', 'roll')).toEqual({ extents: [], changedBytes: 0 });
    await withDisk('roll', async (nbd) => {
      expect((await nbd.read(131072, 65536)).equals(Buffer.alloc(65536, 'A'))).toBe(true);
    });
    json('volume', 'delete', 'roll', '--with-snapshots', '--force');
  });

  it.each(['ünïcödé', '磁碟 1', 'a?b#c&d', "it's", '100%', '...', 'x'.repeat(255)])(
    'a volume called %j is the same to the CLI and to NBD',
    async (name) => {
      json('volume', 'create', name, '--size', '1M');
      expect(json('volume', 'show', name).name).toBe(name);
      expect(await world.run('nbdinfo', '--size', daemon.uri(name))).toBe('1048576\n');
      json('volume', 'delete', name);
    },
  );

  it.each([
    [['volume', 'create', 'x', '--size', '0'], 2],
    [['volume', 'create', 'x', '--size', '-1G'], 2],
    [['volume', 'create', 'x', '--size', '1.5'], 2],
    [['volume', 'create', 'x', '--size', '2P'], 2],
    [['volume', 'create', 'a@b', '--size', '1G'], 2],
    [['volume', 'create', 'x'.repeat(256), '--size', '1G'], 2],
    [['volume', 'create', '.atoll-x', '--size', '1G'], 2],
    [['volume', 'create', 'x', '--size', '1G', '--pool', 'none'], 3],
    [['volume', 'create', 'x', '--from', 'none@none'], 3],
    [['volume', 'show', 'none'], 3],
    [['volume', 'resize', 'none', '--size', '1G'], 3],
    [['volume', 'delete', 'none'], 3],
    [['volume', 'rename', 'none', 'other'], 3],
    [['snapshot', 'create', 'none', 's'], 3],
    [['snapshot', 'delete', 'none@s'], 3],
    [['clone', 'none@s', 'x'], 3],
    [['rollback', 'none@s'], 3],
    [['diff', 'none@s', 'none'], 3],
    [['pool', 'show', 'none'], 3],
    [['pool', 'create', 'local', '--path', '/tmp/x/'], 4],
    [['pool', 'create', 'odd', '--path', '/tmp/x/', '--block-size', '5000'], 2],
    [['pool', 'create', 'odd', '--path', '/dev/null'], 2],
  ])('%j ends with %d and one line', async (argv, exit) => {
    const ran = await inProcess(daemon, argv);
    expect(ran.err).toMatch(/^atoll: [^\n]+\n$/);
    expect([ran.exit, ran.out]).toEqual([exit, '']);
  });

  it('a petabyte is made at once', () => {
    expect(json('volume', 'create', 'peta', '--size', '1P').size).toBe(2 ** 50);
    json('volume', 'delete', 'peta');
  });

  it('pools: another one, with other blocks', () => {
    const at = world.file('pool2/');
    expect(json('pool', 'create', 'two', '--path', at, '--block-size', '4K')).toMatchObject({
      name: 'two',
      blockSize: 4096,
    });
    expect(json('volume', 'create', 'small', '--size', '1M', '--pool', 'two')).toMatchObject({
      blockSize: 4096,
      pool: 'two',
    });
    expect(json('pool', 'list')).toMatchObject({ pools: [{ name: 'local' }, { name: 'two' }] });
    json('volume', 'delete', 'small');
    // a folder that holds other things is no pool
    fs.mkdirSync(world.file('music'));
    fs.writeFileSync(world.file('music/song'), 'la');
    expect(refusal('pool', 'create', 'three', '--path', world.file('music/')).exit).toBe(4);
  });

  it('status and check', () => {
    const status = json<{ pools: Record<string, unknown>[] }>('status');
    for (const member of ['name', 'driver', 'capacityBytes', 'usedBytes', 'freeBytes'])
      expect(status.pools[0]).toHaveProperty(member);
    expect(json('check')).toMatchObject({ ok: true, problemCount: 0 });
    expect(atoll('status').out).toContain('daemon');
    expect(atoll('check').out).toMatch(/^ok: /);
  });
});
