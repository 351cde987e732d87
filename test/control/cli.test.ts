/** The commands, in this process, against the API on an engine that only keeps names. */
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { ERRORS, EXIT } from '../../src/control/errors.ts';
import { duration } from '../../src/control/output.ts';
import { buildProgram, runCli } from '../../src/control/program.ts';
import type { World } from '../../src/control/world.ts';
import { EngineError, type EngineErrorCode } from '../../src/xseg/types.ts';
import { FakeEngine } from './fake-engine.ts';
import { type ServedApi, serveApi } from './served-api.ts';

let folder: string;
let served: ServedApi;
const engine = new FakeEngine();

beforeAll(async () => {
  served = await serveApi(engine, { nbd: ['unix:/fake/nbd.sock'] });
  folder = served.folder;
});
beforeEach(() => engine.reset());
afterAll(() => served.end());

interface Ran {
  exit: number;
  out: string;
  err: string;
}

async function atoll(...argv: string[]): Promise<Ran> {
  return atollIn({ ATOLL_HOME: folder }, argv);
}

async function atollIn(env: NodeJS.ProcessEnv, argv: string[], terminal = false): Promise<Ran> {
  const ran = { exit: 0, out: '', err: '' };
  ran.exit = await runCli(argv, {
    out: (text) => {
      ran.out += text;
    },
    err: (text) => {
      ran.err += text;
    },
    terminal,
    env,
    signal: new AbortController().signal,
  });
  return ran;
}

async function json(...argv: string[]): Promise<unknown> {
  const { out, err, exit } = await atoll(...argv, '--json');
  expect([exit, err]).toEqual([0, '']);
  // One document, one line: what programs read.
  expect(out.trimEnd().split('\n')).toHaveLength(1);
  return JSON.parse(out);
}

describe('every command', () => {
  it('volume', async () => {
    expect(await json('volume', 'create', 'v', '--size', '10G')).toMatchObject({ name: 'v', size: 10 * 2 ** 30 });
    const shown = await json('volume', 'show', 'v');
    for (const member of ['id', 'name', 'size', 'blockSize', 'pool', 'mappedBytes', 'createdAt']) {
      expect(shown).toHaveProperty(member);
    }
    expect(await json('volume', 'list')).toMatchObject({ volumes: [{ name: 'v' }] });
    expect(await json('volume', 'resize', 'v', '--size', '20G')).toMatchObject({ size: 20 * 2 ** 30 });
    expect(await json('volume', 'rename', 'v', 'w')).toMatchObject({ name: 'w' });
    expect(await json('volume', 'protect', 'w')).toMatchObject({ protected: true });
    expect(await json('volume', 'protect', 'w', '--off')).toMatchObject({ protected: false });
    const attached = await json('volume', 'attach', 'w', '--to', 'node 1');
    expect(attached).toMatchObject({ attached: { to: 'node 1', export: 'w/an-id' } });
    expect(await json('volume', 'detach', 'w')).toMatchObject({ attached: null });
    expect(engine.calls).toContain('detachVolume("w", {"force":false})');
    expect(await json('volume', 'delete', 'w', '--force', '--with-snapshots')).toEqual({ deleted: 'w' });
    expect(engine.calls).toContain('deleteVolume("w", {"force":true,"withSnapshots":true})');
  });

  it('snapshot, clone, rollback, diff', async () => {
    await engine.createVolume({ name: 'v', size: 1024 });
    expect(await json('snapshot', 'create', 'v', 's')).toMatchObject({ name: 'v@s' });
    expect(await json('snapshot', 'list')).toMatchObject({ snapshots: [{ name: 'v@s' }] });
    expect(await json('snapshot', 'list', 'other')).toEqual({ snapshots: [] });
    expect(await json('snapshot', 'show', 'v@s')).toMatchObject({ snapshot: 's' });
    expect(await json('snapshot', 'protect', 'v@s')).toMatchObject({ protected: true });
    expect(await json('snapshot', 'protect', 'v@s', '--off')).toMatchObject({ protected: false });
    expect(await json('clone', 'v@s', 'c')).toMatchObject({ name: 'c', clonedFrom: 'v@s' });
    expect(await json('volume', 'create', 'd', '--from', 'v@s')).toMatchObject({ name: 'd', clonedFrom: 'v@s' });
    expect(await json('rollback', 'v@s')).toMatchObject({ name: 'v' });
    engine.diffExtents = Array.from({ length: 2500 }, (_, i) => ({ offset: i * 512, length: 512, data: i % 2 === 0 }));
    const diff = (await json('diff', 'v@s', 'v')) as { extents: unknown[]; changedBytes: number };
    // three pages of the fake engine
    expect(diff.extents).toEqual(engine.diffExtents);
    expect(diff.changedBytes).toBe(2500 * 512);
    expect(await json('snapshot', 'delete', 'v@s')).toEqual({ deleted: 'v@s' });
  });

  it('pool', async () => {
    const made = await json(
      'pool',
      'create',
      'p',
      '--path',
      'relative',
      '--size',
      '1T',
      '--block-size',
      '4K',
      '--direct',
    );
    expect(made).toMatchObject({ name: 'p', path: path.resolve('relative'), blockSize: 4096, direct: true });
    // A slash at the end says that a folder is meant: it has to arrive.
    expect(await json('pool', 'create', 'q', '--path', '/srv/new/')).toMatchObject({ path: '/srv/new/' });
    engine.pools.delete('q');
    expect(await json('pool', 'list')).toMatchObject({ pools: [{ name: 'local' }, { name: 'p' }] });
    expect(await json('pool', 'show', 'p')).toMatchObject({ capacityBytes: 2 ** 40 });
    expect(await json('pool', 'grow', 'p', '--size', '2T')).toMatchObject({ capacityBytes: 2 ** 41 });
    expect(await json('pool', 'grow', 'p')).toMatchObject({ name: 'p' });
  });

  it('status and check', async () => {
    const { pools } = (await json('status')) as { pools: Record<string, unknown>[] };
    for (const member of ['name', 'driver', 'capacityBytes', 'usedBytes', 'freeBytes'])
      expect(pools[0]).toHaveProperty(member);
    expect(await json('check')).toMatchObject({ ok: true, problemCount: 0 });
  });

  it('backup', async () => {
    const at = path.join(folder, 'backups');
    mkdirSync(at);
    const relative = path.relative('.', path.join(at, 'one'));
    expect(await json('backup', relative)).toMatchObject({
      path: path.join(at, 'one'),
      bytes: 65536,
      catalogBytes: null,
    });
    expect(readdirSync(path.join(at, 'one'))).toEqual(['store.db']);
    expect(statSync(path.join(at, 'one')).mode & 0o777).toBe(0o700);
    // A slash at the end says that a folder is meant, which has to be there.
    const refused = async (exit: number, name: string, text: RegExp) =>
      expect(await atoll('backup', path.join(at, name))).toMatchObject({ exit, err: expect.stringMatching(text) });
    await refused(3, 'two/', /there is no folder/);
    await refused(3, 'no/two', /there is no such file or directory/);
    await refused(4, 'one/store.db', /store.db exists; choose another name/);
    expect(((await json('backup', at)) as { path: string }).path).toMatch(/\/backups\/atoll-\d{4}-[^/]*Z$/);
    engine.failures.set('backup', new EngineError('NO_SPACE', 'the disk is full'));
    await refused(5, 'three', /the disk is full/);
    expect(readdirSync(at).filter((name) => !name.startsWith('atoll-'))).toEqual(['one']);
  });
});

describe('recover', () => {
  it('asks no daemon, and says what is wrong', async () => {
    const home = path.join(folder, 'new');
    const recover = (...argv: string[]) => atollIn({}, ['recover', ...argv, '--home', home]);
    expect(await recover('/nowhere')).toMatchObject({ exit: 3, err: 'atoll: there is no pool at /nowhere\n' });
    expect((await recover(folder)).exit).toBe(4);
    expect((await recover()).exit).toBe(2);
    expect(await recover('--from', folder)).toMatchObject({ exit: 3, err: expect.stringMatching(/has no catalog/) });
    expect(await recover('/nowhere', '--force')).toMatchObject({ exit: 2, err: 'atoll: --force goes with --from\n' });
    expect((await recover('/nowhere', '--socket', '/x')).exit).toBe(2);
  });
});

describe('serve', () => {
  it('takes times between copies from a second to a day, and 0', async () => {
    for (const [time, exit] of [
      ['999ms', 2],
      ['25h', 2],
      ['5', 2],
      ['-1s', 2],
    ] as const)
      expect((await atollIn({}, ['serve', '--home', '/proc/nothing', '--copy-every', time])).exit, time).toBe(exit);
  });
});

describe('for people', () => {
  it('tables are aligned, sizes readable', async () => {
    await engine.createVolume({ name: 'a', size: 2 ** 30 });
    await engine.createVolume({ name: 'a-longer-näme', size: 1.5 * 2 ** 40 });
    const { out } = await atoll('volume', 'list');
    expect(out).toBe(
      [
        'NAME              SIZE  MAPPED  POOL   SNAPSHOTS  OPEN  CREATED',
        'a                1 GiB     0 B  local          0     0  2026-01-31 12:00:00',
        'a-longer-näme  1.5 TiB     0 B  local          0     0  2026-01-31 12:00:00',
        '',
      ].join('\n'),
    );
  });

  it('status names the daemon, its sockets and its pools, and why one is not well', async () => {
    Object.assign(engine.pools.get('local')!, { state: 'failed', reason: 'fsync failed' });
    const { out } = await atoll('status');
    expect(out).toMatch(/^daemon .*process 1, up 1h 1m$/m);
    expect(out).toMatch(/^nbd +unix:\/fake\/nbd.sock$/m);
    expect(out).toMatch(/^pool local: fsync failed$/m);
  });

  it('check draws a bar on a terminal and nothing elsewhere', async () => {
    expect((await atollIn({ ATOLL_HOME: folder }, ['check'], true)).err).toContain('check [');
    expect((await atollIn({ ATOLL_HOME: folder }, ['check'], false)).err).toBe('');
    expect((await atollIn({ ATOLL_HOME: folder }, ['check', '--json'], true)).err).toBe('');
  });

  it('a check that finds something says what, and ends with 7', async () => {
    const problems = [{ code: 'SLOT_FREE', message: 'slot 5 is used and free', resource: 'v' }];
    const found = { ok: false, pages: 1, slots: 2, resources: 1, problems, problemCount: 3, seconds: 1 };
    const check = engine.check.bind(engine);
    engine.check = async () => found;
    const { exit, out } = await atoll('check');
    engine.check = check;
    expect(exit).toBe(EXIT.damage);
    expect(out).toContain('SLOT_FREE v: slot 5 is used and free\nand 2 more\n3 problems: ');
  });

  it.each([
    [0, '0s'],
    [59.9, '59s'],
    [3600, '1h'],
    [3 * 86400 + 4 * 3600 + 5, '3d 4h'],
  ])('%d seconds are %s', (seconds, text) => {
    expect(duration(seconds)).toBe(text);
  });
});

describe('exit codes and errors', () => {
  it.each(Object.entries(ERRORS))('%s ends with the exit code of its row', async (code, { exit }) => {
    engine.failures.set('listVolumes', new EngineError(code as EngineErrorCode, 'the reason'));
    expect(await atoll('volume', 'list')).toEqual({ exit, out: '', err: 'atoll: the reason\n' });
    engine.failures.set('listVolumes', new EngineError(code as EngineErrorCode, 'the reason'));
    const err = `${JSON.stringify({ error: { code, message: 'the reason' } })}\n`;
    expect(await atoll('volume', 'list', '--json')).toEqual({ exit, out: '', err });
  });

  it.each([
    [['volume', 'create', 'v', '--size', '10X'], /not a size/],
    [['volume', 'create', 'v', '--size', '-5'], /negative/],
    [['volume', 'create', 'v', '--size', '0'], /zero/],
    [['volume', 'create', 'v', '--size', '2P'], /more than 1P/],
    [['volume', 'create', 'v', '--size', '513'], /1024 would do/],
    [['volume', 'create', 'v', '--size', '1.0001K'], /whole number/],
    [['volume', 'create', 'v'], /--size/],
    [['volume', 'create'], /name/],
    [['volume', 'create', 'v', 'w', '--size', '1G'], /too many arguments/],
    [['volume', 'create', 'v', '--sise', '1G'], /--size/],
    [['volume', 'create', 'a/b', '--size', '1G'], /'\/'/],
    [['volume', 'create', 'a@b', '--size', '1G'], /'@'/],
    [['volume', 'creat', 'v'], /create/],
    [['vollume'], /volume/],
    [['volume', 'resize', 'v'], /--size/],
    [['clone', 'v', 'w'], /VOLUME@SNAPSHOT/],
    [['rollback', 'v'], /VOLUME@SNAPSHOT/],
    [['snapshot', 'delete', 'v'], /VOLUME@SNAPSHOT/],
    [['diff', 'v', 'w'], /VOLUME@SNAPSHOT/],
    [['pool', 'create', 'p'], /--path/],
    [['pool', 'create', 'p', '--path', '/x', '--block-size', 'big'], /not a size/],
    [['import', 'file'], /NAME, or --onto/],
    [['import', 'file', 'v', '--onto', 'w'], /NAME, or --onto/],
    [['import', 'file', '--onto', 'w', '--pool', 'p'], /--pool/],
    [['import', 'file', 'v', '--format', 'vmdk'], /raw, qcow2/],
    [['export', 'v', 'file', '--format', 'stream'], /@SNAPSHOT/],
    [['export', 'v', 'file', '--since', 'a'], /@SNAPSHOT/],
    [['export', 'v@b', 'file', '--since', 'w@a'], /snapshot of v/],
    [['export', 'v@b', 'file', '--since', 'a', '--format', 'raw'], /leave out/],
    [['serve', '--nbd', 'tcp:0.0.0.0:10809'], /loopback/],
    [['serve', '--nbd', 'tcp:127.0.0.1'], /tcp:127.0.0.1:10809/],
    [['serve', '--nbd', 'unix:relative'], /absolute/],
    [['serve', '--reactors', '0'], /1 to 16/],
    [['serve', '--reactors', '17'], /1 to 16/],
    [['--colour'], /unknown option/],
    [['--home', '/x', 'volume', 'list'], /after the command/],
    [['volume', '--home=/x', 'list'], /after the command/],
    [['serve', '--socket', '/x'], /--socket-dir/],
  ])('%j is wrong usage: exit 2, one line, that helps', async (argv, hint) => {
    const { exit, out, err } = await atoll(...argv);
    expect([exit, out]).toEqual([EXIT.usage, '']);
    expect(err).toMatch(/^atoll: [^\n]+\n$/);
    expect(err).toMatch(hint);
    expect(engine.calls).toEqual([]);
  });

  it('no daemon: 6, and how to start one', async () => {
    const nowhere = path.join(folder, 'nowhere');
    const { exit, err } = await atollIn({ ATOLL_HOME: nowhere }, ['status']);
    expect(exit).toBe(EXIT.noDaemon);
    expect(err).toBe(`atoll: no daemon at ${nowhere}/control.sock; start one with \`atoll serve --home ${nowhere}\`\n`);
    const other = await atollIn({}, ['status', '--home', nowhere, '--json']);
    expect(JSON.parse(other.err)).toMatchObject({ error: { code: 'NO_DAEMON' } });
  });

  it('a home whose sockets would have too long a path is told so', async () => {
    const { exit, err } = await atollIn({ ATOLL_HOME: `/${'x'.repeat(120)}` }, ['status']);
    expect(exit).toBe(EXIT.usage);
    expect(err).toMatch(/107 bytes/);
  });

  it('--home wins over $ATOLL_HOME, --socket over both', async () => {
    expect((await atollIn({ ATOLL_HOME: '/nowhere' }, ['status', '--home', folder])).exit).toBe(0);
    const socket = path.join(folder, 'control.sock');
    expect((await atollIn({ ATOLL_HOME: '/nowhere' }, ['status', '--socket', socket])).exit).toBe(0);
  });

  it('$ATOLL_SOCKET wins over $ATOLL_HOME, and not over a home that was typed', async () => {
    const socket = path.join(folder, 'control.sock');
    const run = (env: NodeJS.ProcessEnv, ...argv: string[]) => atollIn(env, ['status', ...argv]);
    expect((await run({ ATOLL_SOCKET: socket, ATOLL_HOME: '/nowhere' })).exit).toBe(0);
    expect((await run({ ATOLL_SOCKET: '/nowhere.sock' }, '--home', folder)).exit).toBe(0);
    expect((await run({ ATOLL_SOCKET: '/nowhere.sock' }, '--socket', socket)).exit).toBe(0);
    expect((await run({ ATOLL_SOCKET: '/nowhere.sock', ATOLL_HOME: folder })).exit).toBe(EXIT.noDaemon);
  });

  it('a size that cannot be keeps its code', async () => {
    const codes = ['10X', '0', '2P'].map(async (size) => {
      const { exit, err } = await atoll('volume', 'create', 'v', '--size', size, '--json');
      return [exit, JSON.parse(err).error.code];
    });
    expect(await Promise.all(codes)).toEqual([
      [2, 'INVALID'],
      [2, 'INVALID'],
      [2, 'TOO_LARGE'],
    ]);
  });

  it('an export of a snapshot that is not there is not found', async () => {
    await engine.createVolume({ name: 'v', size: 1024 });
    for (const format of ['raw', 'qcow2', 'stream']) {
      const { exit, err } = await atoll('export', 'v@nope', path.join(folder, 'image'), '--format', format);
      expect([exit, err]).toEqual([EXIT.notFound, expect.stringMatching(/^atoll: [^\n]*v@nope[^\n]*\n$/)]);
    }
  });

  it('never a stack trace, even for a bug', async () => {
    engine.failures.set('listVolumes', new TypeError('x is undefined'));
    const { exit, err } = await atoll('volume', 'list');
    expect(exit).toBe(EXIT.failed);
    expect(err).toBe('atoll: x is undefined\n');
  });
});

describe('help', () => {
  function leaves(command: Command, words: string[] = []): { words: string[]; command: Command }[] {
    if (command.commands.length === 0) return [{ words, command }];
    return command.commands.flatMap((child) => leaves(child, [...words, child.name()]));
  }

  const all = leaves(buildProgram({ env: {} } as World));

  it('is there for every command, and for none', async () => {
    for (const { words } of [...all, { words: [] }, { words: ['volume'] }]) {
      const { exit, out, err } = await atoll(...words, '--help');
      expect([exit, err], words.join(' ')).toEqual([0, '']);
      expect(out).toContain(`Usage: atoll ${words.join(' ')}`.trim());
    }
    expect((await atoll('--version')).out).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  it('a group without a command shows its help and fails', async () => {
    const { exit, out, err } = await atoll('volume');
    expect([exit, out]).toEqual([EXIT.usage, '']);
    expect(err).toContain('Usage: atoll volume');
  });

  it('every command takes --json', () => {
    for (const { words, command } of all) {
      expect(
        command.options.some(({ long }) => long === '--json'),
        words.join(' '),
      ).toBe(true);
    }
  });

  it('docs/cli.md has every command and every option of its own, and no other', () => {
    const text = readFileSync(new URL('../../docs/cli.md', import.meta.url), 'utf8');
    const documented = [...text.matchAll(/^### `atoll ([^`]+)`/gm)].map(([, usage]) => usage!);
    const real = all.map(({ words, command }) => {
      const common = new Set(['--json', '--home', '--socket']);
      const own = command.options.filter(
        ({ long }) => !common.has(long!) || (words[0] === 'serve' && long === '--home'),
      );
      const args = command.registeredArguments.map((arg) => (arg.required ? `<${arg.name()}>` : `[${arg.name()}]`));
      return [...words, ...args, ...own.map(({ flags, mandatory }) => (mandatory ? flags : `[${flags}]`))].join(' ');
    });
    expect(documented.sort()).toEqual(real.sort());
  });
});
