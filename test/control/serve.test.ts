/** The daemon's life around an engine: home, sockets, addresses, log, systemd. */
import { type ChildProcess, spawn } from 'node:child_process';
import fs, {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ControlError } from '../../src/control/errors.ts';
import {
  findControlSocket,
  homePaths,
  prepareHome,
  resolveHome,
  SOCKET_PATH_BYTES_MAX,
} from '../../src/control/home.ts';
import { openLog } from '../../src/control/log.ts';
import { nbdUri } from '../../src/control/nbd/uri.ts';
import { formatNbdAddress, parseNbdAddress } from '../../src/control/serve/addresses.ts';
import { Daemon, type DaemonOptions } from '../../src/control/serve/daemon.ts';
import { ServiceManager } from '../../src/control/serve/notify.ts';
import { clearSocketPath, groupId } from '../../src/control/serve/sockets.ts';
import { EngineError } from '../../src/xseg/types.ts';
import { FakeEngine } from './fake-engine.ts';
import { untilListening } from './listening.ts';

let folder: string;
const started: Daemon[] = [];
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'atoll-serve-'));
});
afterEach(async () => {
  for (const daemon of started.splice(0)) await daemon.stop();
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const at = (name: string) => path.join(folder, name);
const codeOf = (error: unknown) =>
  error instanceof ControlError || error instanceof EngineError ? error.code : String(error);

async function code(run: () => unknown): Promise<string> {
  try {
    await run();
  } catch (error) {
    return codeOf(error);
  }
  return 'none';
}

/** An engine that really listens where it is told, so that its sockets are there. */
class ListeningEngine extends FakeEngine {
  private readonly servers: net.Server[] = [];

  override async listenNbd(address: string): Promise<string> {
    this.calls.push(`listenNbd ${address}`);
    if (!address.startsWith('unix:')) return address;
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(address.slice(5), resolve));
    this.servers.push(server);
    return address;
  }

  override async close(): Promise<void> {
    await super.close();
    for (const server of this.servers) server.close();
  }
}

async function start(changes: Partial<DaemonOptions> = {}): Promise<{ daemon: Daemon; engine: ListeningEngine }> {
  const engine = new ListeningEngine();
  const daemon = await Daemon.start({
    home: at('home'),
    nbd: [],
    engine: { version: '0' },
    log: () => undefined,
    onFatal: () => undefined,
    openEngine: async () => engine,
    ...changes,
  });
  started.push(daemon);
  return { daemon, engine };
}

const modeOf = (file: string) => statSync(file).mode & 0o777;

describe('Daemon', () => {
  it('makes a private home, private sockets, and says where they are', async () => {
    const { daemon } = await start();
    expect(modeOf(at('home'))).toBe(0o700);
    expect(modeOf(at('home/control.sock'))).toBe(0o600);
    expect(modeOf(at('home/nbd.sock'))).toBe(0o600);
    expect(modeOf(at('home/daemon.json'))).toBe(0o600);
    expect(daemon.nbdAddresses).toEqual([`unix:${at('home/nbd.sock')}`]);
    expect(findControlSocket(at('home'))).toBe(at('home/control.sock'));
  });

  it('stops: no socket stays, the engine is closed', async () => {
    const { daemon, engine } = await start({ nbd: [{ kind: 'unix', path: at('more.sock') }] });
    expect(existsSync(at('more.sock'))).toBe(true);
    await daemon.stop();
    started.pop();
    expect(engine.closed).toBe(true);
    expect(readdirSync(at('home'))).toEqual([]);
    expect(existsSync(at('more.sock'))).toBe(false);
  });

  it('puts sockets elsewhere, for a group, and is still found by its home', async () => {
    const gid = process.getgid!();
    await start({ socketDir: at('run'), socketGroup: String(gid) });
    expect(modeOf(at('run/control.sock'))).toBe(0o660);
    expect(modeOf(at('run/nbd.sock'))).toBe(0o660);
    expect(statSync(at('run/nbd.sock')).gid).toBe(gid);
    // Made for it, so the group gets into the folder, too.
    expect(modeOf(at('run'))).toBe(0o750);
    expect(findControlSocket(at('home'))).toBe(at('run/control.sock'));
  });

  it('leaves a socket folder that is there as it is', async () => {
    mkdirSync(at('run'));
    chmodSync(at('run'), 0o755);
    await start({ socketDir: at('run'), socketGroup: String(process.getgid!()) });
    expect(modeOf(at('run'))).toBe(0o755);
  });

  it('refuses a group that is not there before it opens anything', async () => {
    expect(await code(() => start({ socketGroup: 'no-such-group-here' }))).toBe('NOT_FOUND');
    expect(existsSync(at('home'))).toBe(false);
  });

  it('removes sockets of a daemon that was killed, and not those of one that lives', async () => {
    const script = `require('net').createServer().listen(process.argv[1])`;
    for (const socket of ['home/control.sock', 'home/nbd.sock']) {
      mkdirSync(at('home'), { recursive: true });
      const child = spawn(process.execPath, ['-e', script, at(socket)]);
      children.push(child);
      await untilListening(at(socket));
      expect(await code(() => start()), socket).toBe('HELD');
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
      expect(existsSync(at(socket))).toBe(true);
    }
    await start();
  });

  it('a failure on the way closes the engine, so that its lock goes', async () => {
    const engine = new ListeningEngine();
    writeFileSync(at('more.sock'), 'mine');
    const nbd = [{ kind: 'unix' as const, path: at('more.sock') }];
    expect(await code(() => start({ nbd, openEngine: async () => engine }))).toBe('NOT_OURS');
    expect(engine.closed).toBe(true);
    expect(readFileSync(at('more.sock'), 'utf8')).toBe('mine');
  });

  it('says which address it cannot listen on', async () => {
    const engine = new ListeningEngine();
    const listen = engine.listenNbd.bind(engine);
    engine.listenNbd = async (address) => {
      if (address.startsWith('unix:')) return listen(address);
      throw Object.assign(new Error('listen'), { code: 'EADDRINUSE' });
    };
    const nbd = [{ kind: 'tcp' as const, host: '127.0.0.1', port: 10809 }];
    const failed = await start({ nbd, openEngine: async () => engine }).catch((error: Error) => error);
    expect(failed).toMatchObject({ code: 'HELD', message: 'tcp:127.0.0.1:10809: the address is in use' });
    expect(engine.closed).toBe(true);
  });

  it('sweeps what an earlier daemon left unfinished', async () => {
    const engine = new ListeningEngine();
    await engine.createVolume({ name: '.atoll-0123456789abcdef', size: 512 });
    await start({ openEngine: async () => engine });
    for (let tries = 0; tries < 3000 && engine.volumes.size > 0; tries++) await sleep(10);
    expect(engine.volumes.size).toBe(0);
  });
});

describe('home', () => {
  it('comes from the option, the environment, or the working directory', () => {
    expect(resolveHome('/a', { ATOLL_HOME: '/b' })).toBe('/a');
    expect(resolveHome(undefined, { ATOLL_HOME: '/b' })).toBe('/b');
    expect(resolveHome(undefined, { ATOLL_HOME: '' })).toBe(path.resolve('var/atoll'));
    expect(resolveHome('rel', {})).toBe(path.resolve('rel'));
  });

  it('is new, empty, or ours; anything else is refused and left alone', async () => {
    prepareHome(at('new/deep'));
    prepareHome(at('new/deep'));
    writeFileSync(at('new/deep/store.db'), '');
    writeFileSync(at('new/deep/anything'), '');
    prepareHome(at('new/deep'));
    mkdirSync(at('photos'), { mode: 0o755 });
    chmodSync(at('photos'), 0o755);
    writeFileSync(at('photos/cat.jpg'), '');
    expect(await code(() => prepareHome(at('photos')))).toBe('NOT_OURS');
    expect(modeOf(at('photos'))).toBe(0o755);
    // left by a daemon that was killed before its store was made
    for (const name of ['lock', 'holder', 'control.sock', 'nbd.sock', 'pools']) fs.writeFileSync(at(`new/${name}`), '');
    rmSync(at('new/deep'), { recursive: true });
    prepareHome(at('new'));
  });

  it('that cannot be made is an error and no endless loop (Node’s own recursive mkdir never returns from this)', async () => {
    expect(await code(() => prepareHome('/proc/atoll/deep'))).toBe('NOT_FOUND');
    writeFileSync(at('file'), '');
    expect(await code(() => prepareHome(at('file')))).toBe('NOT_OURS');
    expect(await code(() => prepareHome(at('file/below')))).toBe('NOT_FOUND');
  });

  it('its sockets fit, or it says so', () => {
    const room = SOCKET_PATH_BYTES_MAX - '/control.sock'.length;
    expect(() => homePaths(`/${'x'.repeat(room - 1)}`, undefined)).not.toThrow();
    expect(() => homePaths(`/${'x'.repeat(room)}`, undefined)).toThrow(/107 bytes/);
    expect(() => homePaths(`/${'x'.repeat(200)}`, '/run/atoll')).not.toThrow();
    expect(() => homePaths(`/${'ü'.repeat(room / 2)}`, undefined)).toThrow(/107 bytes/);
  });

  it('a daemon.json that is nonsense is as none', () => {
    mkdirSync(at('h'));
    for (const content of ['', '{', 'null', '[]', '{"control":5}']) {
      writeFileSync(at('h/daemon.json'), content);
      expect(findControlSocket(at('h'))).toBe(at('h/control.sock'));
    }
  });
});

describe('sockets', () => {
  it('a folder, a file or a link in the way is not removed', async () => {
    mkdirSync(at('d'));
    writeFileSync(at('f'), 'x');
    fs.symlinkSync('/nowhere', at('l'));
    for (const name of ['d', 'f', 'l']) expect(await code(() => clearSocketPath(at(name))), name).toBe('NOT_OURS');
    expect(readdirSync(folder).sort()).toEqual(['d', 'f', 'l']);
  });

  it('a group is found by name or number', async () => {
    expect(groupId('0')).toBe(0);
    expect(groupId('root')).toBe(0);
    for (const bad of ['nobody-has-this', '-x', 'a:b', '', 'roo'])
      expect(await code(() => groupId(bad)), bad).toBe('NOT_FOUND');
  });
});

describe('NBD addresses', () => {
  it.each([
    ['unix:/run/x.sock', 'unix:/run/x.sock'],
    ['tcp:127.0.0.1:10809', 'tcp:127.0.0.1:10809'],
    ['tcp:127.1.2.3:1', 'tcp:127.1.2.3:1'],
    ['tcp:localhost:0', 'tcp:127.0.0.1:0'],
    ['tcp:[::1]:65535', 'tcp:[::1]:65535'],
  ])('%s', (text, back) => {
    expect(formatNbdAddress(parseNbdAddress(text))).toBe(back);
  });

  it.each([
    '',
    'x',
    'tcp:',
    'tcp:127.0.0.1',
    'tcp:127.0.0.1:65536',
    'tcp:127.0.0.1:-1',
    'tcp:0.0.0.0:1',
    'tcp:[::]:1',
    'tcp:10.0.0.1:1',
    'tcp:127.evil.example:1',
    'tcp:::1:1',
    'unix:',
    'unix:rel',
    `unix:/${'x'.repeat(107)}`,
    'vsock:1:2',
  ])('%j is refused', async (text) => {
    expect(await code(() => parseNbdAddress(text))).toBe('INVALID');
  });

  it('URIs are encoded for every name and path', () => {
    expect(nbdUri('/run/a b/nbd.sock', 'x?y&z#ü/%')).toBe(
      'nbd+unix:///x%3Fy%26z%23%C3%BC%2F%25?socket=/run/a%20b/nbd.sock',
    );
  });
});

describe('log', () => {
  it('is JSON, or a line that people can read; one line per event either way', () => {
    const lines: string[] = [];
    const write = (line: string) => lines.push(line);
    openLog({ json: true, write })('warn', 'pool.full', { pool: 'a b', used: 5 });
    openLog({ json: false, write })('error', 'pool.full', { pool: 'a\nb', used: 5, list: [1], path: '/x' });
    expect(JSON.parse(lines[0]!)).toMatchObject({ level: 40, msg: 'pool.full', pool: 'a b', used: 5 });
    expect(lines[1]).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z error pool\.full pool="a\\nb" used=5 list=\[1\] path=\/x\n$/);
  });
});

describe('ServiceManager', () => {
  it('says READY, WATCHDOG and STOPPING through systemd-notify', async () => {
    mkdirSync(at('bin'));
    writeFileSync(at('bin/systemd-notify'), `#!/bin/sh\necho "$@" >> ${at('said')}\n`, { mode: 0o755 });
    const env = { PATH: `${at('bin')}:${process.env.PATH}`, NOTIFY_SOCKET: '/x', WATCHDOG_USEC: '200000' };
    const manager = new ServiceManager(env, () => undefined);
    manager.ready('serving');
    const said = () => (existsSync(at('said')) ? readFileSync(at('said'), 'utf8') : '');
    for (let tries = 0; tries < 3000 && !said().includes('WATCHDOG=1'); tries++) await sleep(20);
    manager.stopping();
    for (let tries = 0; tries < 3000 && !said().includes('STOPPING=1'); tries++) await sleep(20);
    expect(said()).toMatch(new RegExp(`^READY=1 STATUS=serving MAINPID=${process.pid}$`, 'm'));
    expect(said()).toMatch(/^WATCHDOG=1$/m);
    expect(said()).toMatch(/^STOPPING=1$/m);
  });

  it('says nothing to nobody, and a missing tool is a warning', async () => {
    const events: string[] = [];
    new ServiceManager({}, (_level, event) => events.push(event)).ready('x');
    const missing = new ServiceManager({ PATH: at('none'), NOTIFY_SOCKET: '/x' }, (_level, event) =>
      events.push(event),
    );
    missing.ready('x');
    for (let tries = 0; tries < 3000 && events.length === 0; tries++) await sleep(10);
    expect(events).toEqual(['notify.failed']);
  });
});
