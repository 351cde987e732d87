import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { runCli } from '../../src/control/program.ts';
import { fitScreen, rate, topLines } from '../../src/control/top/draw.ts';
import { difference, quantile, timesOf } from '../../src/control/top/times.ts';
import { type TopView, viewOf } from '../../src/control/top/view.ts';
import type { Screen } from '../../src/control/world.ts';
import type { Activity } from '../../src/xseg/activity.ts';
import { activity, distribution, reactor } from './activity.ts';
import { FakeEngine } from './fake-engine.ts';
import { type ServedApi, serveApi } from './served-api.ts';

const engine = new FakeEngine();
beforeEach(() => engine.reset());

const opened = (name: string, reads: number) => ({
  ...{ name, openCount: 1, reads, writes: 0, readBytes: reads * 4096, writeBytes: 0, faults: 0 },
});

async function view(before: Partial<Activity>, after: Partial<Activity>): Promise<TopView> {
  const status = await engine.status();
  return viewOf(
    { status, activity: activity({ uptimeSeconds: 10, ...before }) },
    { status, activity: activity(after) },
  );
}

describe('times', () => {
  it('are within the buckets that they come from', () => {
    expect(quantile(distribution(), 0.5)).toBeNull();
    expect(quantile(distribution(100), 0.5)).toBeGreaterThan(64);
    expect(quantile(distribution(100), 0.99)).toBeLessThanOrEqual(128);
    expect(quantile(distribution(1, 1, 1, 1000), 0.5)).toBeLessThanOrEqual(1);
    expect(quantile(distribution(1, 1, 1, 1000), 0.99)).toBeGreaterThan(512);
    // beyond the last bound nothing is known but that
    expect(quantile(distribution(1e12), 0.5)).toBe(2 ** 24);
  });

  it('are of what came in between', () => {
    const between = difference(distribution(3, 5000), distribution(3, 5000, 100, 100));
    expect(between.sum).toBe(200);
    const times = timesOf(between, 4);
    expect(times.perSecond).toBe(0.5);
    expect(times.p50Ms).toBeGreaterThan(0.064);
    expect(times.p99Ms).toBeLessThanOrEqual(0.128);
    expect(timesOf(distribution(), 1)).toEqual({ perSecond: 0, p50Ms: null, p99Ms: null });
  });
});

describe('the view', () => {
  it('has rates over the time between the looks, by the daemon’s own clock', async () => {
    const seen = await view(
      { reactors: [reactor({ inline: 100, waited: 10, reads: 50, readBytes: 4096 }), reactor()] },
      {
        uptimeSeconds: 12,
        reactors: [
          reactor({ inline: 300, waited: 10, reads: 150, readBytes: 4096 + 8192, errors: 4 }),
          reactor({ waited: 200, waits: { ...reactor().waits, flush: distribution(3000, 3000) } }),
        ],
        nbd: { connections: 3, inFlight: 2, bytesHeld: 5 },
        faults: { ...activity().faults, load: distribution(40) },
        faultErrors: { ...activity().faultErrors, EIO: 1, ENOSPC: 1 },
        mapper: { turns: 5, busySeconds: 0.5, batches: distribution(2, 4) },
        queues: { ...activity().queues, slots: 2, releases: 9 },
      },
    );
    expect(seen.intervalSeconds).toBe(2);
    expect(seen.requests).toMatchObject({
      perSecond: 200,
      errorsPerSecond: 2,
      readsPerSecond: 50,
      readBytesPerSecond: 4096,
    });
    expect(seen.requests).toMatchObject({ inlineShare: 0.5, connections: 3, inFlight: 2 });
    expect(seen.waits.flush.perSecond).toBe(1);
    expect(seen.waits.read.p50Ms).toBeNull();
    expect(seen.faults.load.perSecond).toBe(0.5);
    expect(seen.faultErrorsPerSecond).toBe(1);
    expect(seen.mapper).toEqual({ busyShare: 0.25, batchMean: 3 });
    expect(seen.queues.slots).toBe(2);
    expect(seen.freeing.releases).toBe(9);
  });

  it('of a daemon that did nothing has no shares, no times and no NaN', async () => {
    const seen = await view({}, { uptimeSeconds: 11 });
    expect(seen.requests.inlineShare).toBeNull();
    expect(seen.mapper.batchMean).toBeNull();
    expect(JSON.stringify(seen)).not.toMatch(/NaN|Infinity/);
    // what JSON makes of NaN
    expect(Object.values(seen.requests).filter((value) => value === null)).toHaveLength(1);
  });

  it('has what is open, the busiest first; what was opened in between began at nothing', async () => {
    const seen = await view(
      { open: [opened('idle', 1000), opened('again', 5000), opened('busy', 0)] },
      { uptimeSeconds: 11, open: [opened('idle', 1000), opened('again', 20), opened('new', 10), opened('busy', 500)] },
    );
    expect(seen.open.map(({ name, readsPerSecond }) => [name, readsPerSecond])).toEqual([
      ['busy', 500],
      ['again', 20],
      ['new', 10],
      ['idle', 0],
    ]);
  });
});

describe('drawing', () => {
  it('names what somebody has to look at', async () => {
    const pool = engine.pools.get('local')!;
    Object.assign(pool, { state: 'failed', reason: 'a data sync failed' });
    const lines = topLines(await view({}, { uptimeSeconds: 11, volumesFailed: 2, open: [opened('disk', 5)] }));
    expect(lines).toContain('! pool local: a data sync failed');
    expect(lines).toContain('! 2 volumes refuse writes; the log says why');
    expect(lines.find((line) => line.startsWith('disk'))).toMatch(/^disk +1 +5\.0 +20 KiB +0 +0 B +0$/);
    expect(lines.find((line) => line.startsWith('waiting'))).toBe('waiting    nothing');
  });

  it('names pools that run full, and those alone', async () => {
    await engine.createPool({ name: 'full', path: '/full' });
    Object.assign(engine.pools.get('full')!, { fullPercent: 96.5, level: 'critical', freeBytes: 3 * 2 ** 30 });
    const warned = async () => topLines(await view({}, { uptimeSeconds: 11 })).filter((line) => line.startsWith('!'));
    expect(await warned()).toEqual(['! pool full: 96.5 % full (critical), 3 GiB left']);
    Object.assign(engine.pools.get('full')!, { fullPercent: 80, level: 'warning' });
    expect(await warned()).toEqual(['! pool full: 80 % full (warning), 3 GiB left']);
    engine.pools.get('full')!.level = 'ok';
    expect(await warned()).toEqual([]);
  });

  it('fits: no line too many, none too long, characters whole', () => {
    expect(fitScreen(['äöü€😀x', 'b', 'c'], 5, 2)).toEqual(['äöü€😀', 'b']);
    expect(fitScreen(['a'], 80, 0)).toEqual([]);
  });

  it.each([
    [0, '0'],
    [0.25, '0.3'],
    [9.94, '9.9'],
    [10, '10'],
    [9999, '9999'],
    [10000, '10.0k'],
    [61234, '61.2k'],
    [1.25e6, '1.3M'],
  ])('%d a second is %s', (value, text) => {
    expect(rate(value)).toBe(text);
  });
});

describe('the command', () => {
  let served: ServedApi;

  beforeAll(async () => {
    served = await serveApi(engine);
  });
  afterAll(() => served.end());

  /** The fake's clock goes on by a second at each look. */
  beforeEach(() => {
    let looks = 0;
    engine.activity = async () =>
      activity({ uptimeSeconds: 10 + looks++, reactors: [reactor({ inline: looks * 50 })] });
  });

  class FakeScreen implements Screen {
    written = '';
    private hear: ((key: string) => void) | null = null;
    /** called after each write */
    onWrite: (screen: FakeScreen) => void = () => undefined;
    size = () => ({ columns: 40, rows: 10 });
    write = (text: string) => {
      this.written += text;
      this.onWrite(this);
    };
    keys = (hear: (key: string) => void) => {
      this.hear = hear;
      return () => {
        this.hear = null;
      };
    };
    press(key: string): void {
      this.hear?.(key);
    }
    get listening(): boolean {
      return this.hear !== null;
    }
  }

  async function top(argv: string[], screen: Screen | null = null, signal = new AbortController().signal) {
    const ran = { exit: 0, out: '', err: '' };
    ran.exit = await runCli(['top', ...argv], {
      out: (text) => {
        ran.out += text;
      },
      err: (text) => {
        ran.err += text;
      },
      terminal: false,
      screen,
      env: { ATOLL_HOME: served.folder },
      signal,
    });
    return ran;
  }

  it('looks once, for programs and for people', async () => {
    const { out, exit } = await top(['--once', '--json', '--interval', '0.1']);
    expect(exit).toBe(0);
    expect(out.trimEnd().split('\n')).toHaveLength(1);
    const seen = JSON.parse(out) as TopView;
    expect(seen).toMatchObject({ intervalSeconds: 1, requests: { perSecond: 50, inlineShare: 1 } });
    const text = await top(['--once', '--interval', '0.1']);
    expect(text.out).toMatch(/^requests {3}50\/s, 100 % at once; 0 connections/m);
    expect(text.out).not.toContain('\x1b');
  });

  it.each(['0.1', '3600', '1'])('takes an interval of %s seconds', async (interval) => {
    const stopped = new AbortController();
    stopped.abort();
    expect((await top(['--once', '--interval', interval], null, stopped.signal)).exit).toBe(130);
  });

  it.each(['0.09', '3600.1', '0', '-1', 'x', '1e3', ''])('refuses an interval of %j', async (interval) => {
    expect(await top(['--once', `--interval=${interval}`])).toMatchObject({ exit: 2, out: '' });
  });

  it('is live only in a terminal, and not for programs', async () => {
    expect(await top([])).toMatchObject({ exit: 2, out: '', err: expect.stringContaining('--once') });
    expect(await top(['--json'], new FakeScreen())).toMatchObject({ exit: 2, out: '' });
  });

  it.each(['q', 'Q', '\x03'])('draws until %j, within the screen, and leaves the terminal as it was', async (key) => {
    const screen = new FakeScreen();
    let frames = 0;
    screen.onWrite = (self) => {
      frames = self.written.split('\x1b[H').length - 1;
      if (frames === 2) self.press(key);
    };
    expect(await top(['--interval', '0.1'], screen)).toMatchObject({ exit: 0, err: '' });
    expect(frames).toBe(2);
    expect(screen.written.startsWith('\x1b[?1049h\x1b[?25l')).toBe(true);
    expect(screen.written.endsWith('\x1b[?25h\x1b[?1049l')).toBe(true);
    expect(screen.listening).toBe(false);
    const frame = screen.written.split('\x1b[H')[1]!.split('\x1b[J')[0]!.split('\r\n');
    expect(frame.length - 1).toBeLessThanOrEqual(9);
    for (const line of frame) expect([...line.replace('\x1b[K', '')].length).toBeLessThanOrEqual(40);
  });

  it('leaves the terminal as it was when the daemon goes away or a signal comes', async () => {
    const screen = new FakeScreen();
    let looks = 0;
    const before = engine.activity;
    engine.activity = async () => {
      if (++looks > 2) throw new Error('gone');
      return before.call(engine);
    };
    expect((await top(['--interval', '0.1'], screen)).exit).toBe(1);
    expect(screen.written.endsWith('\x1b[?25h\x1b[?1049l')).toBe(true);
    expect(screen.listening).toBe(false);
    engine.activity = before;
    const stop = new AbortController();
    const other = new FakeScreen();
    other.onWrite = () => stop.abort();
    expect((await top([], other, stop.signal)).exit).toBe(0);
    expect(other.written.endsWith('\x1b[?25h\x1b[?1049l')).toBe(true);
  });

  it('begins again when the daemon was started again between two looks', async () => {
    const uptimes = [500, 3, 4];
    engine.activity = async () => activity({ uptimeSeconds: uptimes.shift()! });
    const { out } = await top(['--once', '--json', '--interval', '0.1']);
    expect(JSON.parse(out)).toMatchObject({ intervalSeconds: 1, uptimeSeconds: 4 });
  });
});
