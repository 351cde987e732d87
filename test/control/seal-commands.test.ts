/** `atoll seal …` and `atoll pool set`: what arrives at the engine, and what is said of it. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { EXIT } from '../../src/control/errors.ts';
import { FakeEngine } from './fake-engine.ts';
import { inProcess } from './in-process.ts';
import { type ServedApi, serveApi } from './served-api.ts';

const MIB = 1024 * 1024;

const engine = new FakeEngine();
let served: ServedApi;

beforeAll(async () => {
  served = await serveApi(engine);
});
beforeEach(async () => {
  engine.reset();
  await engine.createPool({ name: 'other', path: '/other' });
  await engine.createPool({ name: 'missing', path: '/missing' });
  engine.pools.get('missing')!.seal = null;
  for (const name of ['local', 'other']) engine.pools.get(name)!.seal!.on = true;
  engine.calls.length = 0;
});
afterAll(() => served.end());

const atoll = (...argv: string[]) => inProcess({ home: served.folder }, argv);
const set = () => engine.calls.filter((call) => call.startsWith('setPool'));
const paused = (name: string) => engine.pools.get(name)!.seal!.paused;

describe('seal pause and resume', () => {
  it('are of the pool that is named', async () => {
    expect(await atoll('seal', 'pause', 'other')).toMatchObject({
      ...{ exit: 0, err: '', out: expect.stringMatching(/^pool other: paused; [^\n]*\n$/) },
    });
    expect([paused('local'), paused('other')]).toEqual([false, true]);
    expect(await atoll('seal', 'resume', 'other')).toMatchObject({
      ...{ exit: 0, err: '', out: expect.stringMatching(/^pool other: on; [^\n]*\n$/) },
    });
    expect(set()).toEqual(['setPool("other", {"sealPaused":true})', 'setPool("other", {"sealPaused":false})']);
  });

  it('are of all pools that are open where none is named', async () => {
    const { exit, out } = await atoll('seal', 'pause');
    expect([exit, out.match(/^pool \w+: paused/gm)]).toEqual([0, ['pool local: paused', 'pool other: paused']]);
    const { out: document } = await atoll('seal', 'resume', '--json');
    expect(JSON.parse(document)).toMatchObject({
      pools: [
        { name: 'local', seal: { on: true, paused: false } },
        { name: 'other', seal: { on: true, paused: false } },
      ],
    });
    expect(set()).toEqual([
      'setPool("local", {"sealPaused":true})',
      'setPool("other", {"sealPaused":true})',
      'setPool("local", {"sealPaused":false})',
      'setPool("other", {"sealPaused":false})',
    ]);
  });

  it('of a pool that is not there, or not open, end with 3', async () => {
    for (const name of ['nowhere', 'missing']) expect((await atoll('seal', 'pause', name)).exit).toBe(EXIT.notFound);
    expect([paused('local'), paused('other')]).toEqual([false, false]);
  });
});

describe('pool set', () => {
  it.each([
    [['--seal', 'on'], { seal: true }],
    [['--seal', 'off'], { seal: false }],
    [['--seal-rate', '20M'], { sealRate: 20 * MIB }],
    [['--seal-rate', 'max'], { sealRate: 0 }],
    [['--scrub-rate', '1M'], { scrubRate: MIB }],
    [['--scrub-rate', 'off'], { scrubRate: 0 }],
    [['--verify-on-read', 'on'], { verifyOnRead: true }],
    [['--verify-on-read', 'off'], { verifyOnRead: false }],
    [['--seal', 'on', '--seal-rate', 'max', '--scrub-rate', '2M'], { seal: true, sealRate: 0, scrubRate: 2 * MIB }],
  ])('%j sets that and nothing else', async (options, settings) => {
    expect(await atoll('pool', 'set', 'local', ...options)).toMatchObject({ exit: 0, err: '' });
    expect(set()).toEqual([`setPool("local", ${JSON.stringify(settings)})`]);
  });

  it('says what holds now', async () => {
    const { out } = await atoll('pool', 'set', 'local', '--seal-rate', '20M');
    expect(out).toMatch(/^pool local: on at 20 MiB\/s; /);
    expect((await atoll('pool', 'set', 'local', '--seal-rate', 'max')).out).toMatch(/^pool local: on; /);
    const { out: document } = await atoll('pool', 'set', 'local', '--scrub-rate', '3M', '--json');
    expect(JSON.parse(document)).toMatchObject({ name: 'local', seal: { on: true, rate: 0, scrubRate: 3 * MIB } });
  });

  it.each([
    [[], /--seal-rate, --scrub-rate/],
    [['--seal', 'yes'], /on or off/],
    [['--seal-rate', 'off'], /not a size/],
    [['--scrub-rate', 'max'], /not a size/],
    [['--verify-on-read', '1'], /on or off/],
  ])('%j is wrong usage', async (options, hint) => {
    const { exit, out, err } = await atoll('pool', 'set', 'local', ...options);
    expect([exit, out, set()]).toEqual([EXIT.usage, '', []]);
    expect(err).toMatch(hint);
  });
});
