/** What the options of `atoll serve` come to at the engine. It refuses to open, so nothing is served. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, expect, it, vi } from 'vitest';
import { EXIT } from '../../src/control/errors.ts';
import { EngineError, type EngineOptions } from '../../src/xseg/types.ts';
import { inProcess } from './in-process.ts';

const opened: EngineOptions[] = [];

vi.mock('../../src/xseg/engine.ts', () => ({
  openEngine: async (options: EngineOptions) => {
    opened.push(options);
    throw new EngineError('HELD', 'somebody has it');
  },
}));

const home = mkdtempSync(path.join(tmpdir(), 'atoll-serve-options-'));
afterAll(() => rmSync(home, { recursive: true, force: true }));

async function engineOptions(...options: string[]): Promise<EngineOptions> {
  const { exit, err } = await inProcess({ home }, ['serve', '--http', 'none', ...options]);
  expect([exit, err]).toEqual([EXIT.refused, 'atoll: somebody has it\n']);
  return opened.pop()!;
}

it.each([
  [[], {}],
  [['--pool-warn', '70'], { poolWarnPercent: 70 }],
  [['--pool-critical', '90'], { poolCriticalPercent: 90 }],
  [['--pool-warn', '1', '--pool-critical', '100'], { poolWarnPercent: 1, poolCriticalPercent: 100 }],
  [['--cache', '16M', '--reactors', '3'], { cacheBytes: 16 * 2 ** 20, reactors: 3 }],
  [['--spin-us', '0', '--no-io-uring', '--copy-every', '90s'], { spinUs: 0, ioUring: false, copyIntervalMs: 90_000 }],
])('%j is what the engine is told, and else it has its own defaults', async (options, told) => {
  const { version: _, home: at, log: _log, onFatal: _fatal, ...rest } = await engineOptions(...options);
  expect(at).toBe(home);
  expect(rest).toEqual(told);
});

it.each([['--pool-warn'], ['--pool-critical']])('%s takes 1 to 100', async (option) => {
  for (const percent of ['0', '101', '80.5', '-1', 'x', '80%']) {
    const { exit, err } = await inProcess({ home }, ['serve', '--http', 'none', option, percent]);
    expect([percent, exit]).toEqual([percent, EXIT.usage]);
    expect(err).toMatch(/1 to 100/);
  }
  expect(opened).toEqual([]);
});
