/** The page of metrics: its format, its documentation, its labels, and what moves it. */
import { readFileSync } from 'node:fs';
import { beforeEach, describe, expect, it } from 'vitest';
import { LogCounts, openLog } from '../../src/control/log.ts';
import { CATALOG, LABELS } from '../../src/control/metrics/catalog.ts';
import { Metrics } from '../../src/control/metrics/metrics.ts';
import { addDistributions } from '../../src/control/metrics/sum.ts';
import { activity, distribution, reactor } from './activity.ts';
import { FakeEngine } from './fake-engine.ts';
import { parsePage, sampleValue } from './metrics-page.ts';

let engine: FakeEngine;
let log: LogCounts;
let metrics: Metrics;
let asked: number;

beforeEach(() => {
  engine = new FakeEngine();
  log = new LogCounts();
  asked = 0;
  metrics = new Metrics(async () => {
    asked++;
    return { status: await engine.status(), activity: await engine.activity(), transfers: 3, log };
  });
});

const page = async () => parsePage(await metrics.page());

describe('the page', () => {
  it('is what a scraper takes', async () => {
    metrics.controlRequest('GET /v1/status', 200, 0.002);
    const families = await page();
    expect(families.size).toBe(CATALOG.length);
    for (const family of families.values()) {
      expect(family.samples.length, family.name).toBeGreaterThan(0);
      expect(family.name.endsWith('_total'), family.name).toBe(family.type === 'counter');
      if (family.type === 'histogram' && !/_(records|pages|batches)$/.test(family.name))
        expect(family.name).toMatch(/_seconds$/);
    }
    expect(metrics.contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
  });

  it('docs/watching.md has every metric with its labels, and no other', async () => {
    metrics.controlRequest('GET /v1/status', 200, 0.002);
    const text = readFileSync(new URL('../../docs/watching.md', import.meta.url), 'utf8');
    const documented = new Map<string, string[]>();
    for (const [, names, labels] of text.matchAll(/^\| ((?:`(?:atoll|process)_[a-z_]+`(?:, )?)+) \|([^|]*)\|/gm)) {
      for (const [, name] of names!.matchAll(/`([a-z_]+)`/g)) {
        const bare = labels!.trim().replace(/: `[^;]*?(?=, `[a-z]+`:|$)/g, '');
        documented.set(name!, [...bare.matchAll(/`([a-z]+)`/g)].map(([, label]) => label!).sort());
      }
    }
    const served = new Map<string, string[]>();
    for (const { name, samples } of (await page()).values()) {
      const labels = Object.keys(samples[0]!.labels).filter((label) => label !== 'le');
      served.set(name, labels.sort());
    }
    expect(Object.fromEntries([...documented].sort())).toEqual(Object.fromEntries([...served].sort()));
  });

  it('is made once for all who ask at the same time', async () => {
    const [a, b] = await Promise.all([metrics.page(), metrics.page()]);
    expect(a).toBe(b);
    expect(asked).toBe(1);
    await metrics.page();
    expect(asked).toBe(2);
  });

  it('that could not be made does not stand in the way of the next', async () => {
    engine.failures.set('status', new Error('away'));
    await expect(metrics.page()).rejects.toThrow('away');
    await page();
  });
});

describe('numbers', () => {
  it('of reactors are added up', async () => {
    engine.acted = activity({
      reactors: [
        reactor({ inline: 5, waited: 2, requests: 7, waits: { ...reactor().waits, read: distribution(3, 100) } }),
        reactor({ inline: 1, waited: 1, requests: 2, waits: { ...reactor().waits, read: distribution(3) } }),
      ],
    });
    const now = await page();
    expect(sampleValue(now, 'atoll_requests_total', { path: 'inline' })).toBe(6);
    expect(sampleValue(now, 'atoll_requests_total', { path: 'waited' })).toBe(3);
    expect(sampleValue(now, 'atoll_reactor_requests_total', { reactor: '1' })).toBe(2);
    const read = (le: string) => sampleValue(now, 'atoll_request_wait_seconds_bucket', { op: 'read', le });
    // in seconds, and the bounds include themselves
    expect([read('0.000002'), read('0.000004'), read('0.000128'), read('+Inf')]).toEqual([0, 2, 3, 3]);
    expect(sampleValue(now, 'atoll_request_wait_seconds_sum', { op: 'read' })).toBeCloseTo(106e-6, 12);
    expect(sampleValue(now, 'atoll_request_wait_seconds_count', { op: 'flush' })).toBe(0);
  });

  it('go down again when gauges do, and go away with what they were about', async () => {
    await engine.createPool({ name: 'p "\\\n', path: '/p' });
    engine.acted = activity({ queues: { ...activity().queues, slots: 4 } });
    let now = await page();
    expect(sampleValue(now, 'atoll_queue_length', { queue: 'slots' })).toBe(4);
    expect(sampleValue(now, 'atoll_pool_state', { pool: 'p "\\\n', state: 'ok' })).toBe(1);
    engine.acted = activity();
    engine.pools.delete('p "\\\n');
    now = await page();
    expect(sampleValue(now, 'atoll_queue_length', { queue: 'slots' })).toBe(0);
    expect(() => sampleValue(now, 'atoll_pool_state', { pool: 'p "\\\n', state: 'ok' })).toThrow();
  });

  it('say which state a pool is in', async () => {
    engine.pools.get('local')!.state = 'failed';
    const now = await page();
    expect(sampleValue(now, 'atoll_pool_state', { pool: 'local', state: 'ok' })).toBe(0);
    expect(sampleValue(now, 'atoll_pool_state', { pool: 'local', state: 'failed' })).toBe(1);
  });

  it('say how full a pool is, whatever another is', async () => {
    await engine.createPool({ name: 'empty', path: '/empty' });
    const levels = async (pool: string) => {
      const now = await page();
      return ['ok', 'warning', 'critical'].map((level) => sampleValue(now, 'atoll_pool_level', { pool, level }));
    };
    expect(await levels('local')).toEqual([1, 0, 0]);
    engine.pools.get('local')!.level = 'warning';
    expect(await levels('local')).toEqual([0, 1, 0]);
    engine.pools.get('local')!.level = 'critical';
    expect(await levels('local')).toEqual([0, 0, 1]);
    expect(await levels('empty')).toEqual([1, 0, 0]);
  });

  it('of sealing, dedup and scrub are each its own, and none where a pool is not open', async () => {
    await engine.createPool({ name: 'missing', path: '/missing' });
    engine.pools.get('missing')!.seal = null;
    const seal = engine.pools.get('local')!.seal!;
    const values = async () => {
      const ours = [...(await page()).values()].filter(({ name }) => /^atoll_(seal|dedup|scrub)_/.test(name));
      return Object.fromEntries(
        ours.map(({ name, samples }) => [name, samples.map(({ labels, value }) => [labels.pool, value])]),
      );
    };
    Object.assign(seal, { on: true, backlogSnapshots: 2, backlogBytes: 3, hashedBytes: 7, foldedBytes: 5 });
    Object.assign(seal, { entries: 11, indexBytes: 13, quarantined: 17, scrubbedAt: '2026-01-31T12:00:00.500Z' });
    expect(await values()).toEqual({
      atoll_seal_on: [['local', 1]],
      atoll_seal_backlog_snapshots: [['local', 2]],
      atoll_seal_backlog_bytes: [['local', 3]],
      atoll_seal_hashed_bytes_total: [['local', 7]],
      atoll_dedup_folded_bytes_total: [['local', 5]],
      atoll_dedup_index_entries: [['local', 11]],
      atoll_dedup_index_bytes: [['local', 13]],
      atoll_scrub_quarantined_blocks: [['local', 17]],
      atoll_scrub_passed_time_seconds: [['local', 1769860800.5]],
    });
    Object.assign(seal, { paused: true, scrubbedAt: null });
    expect(await values()).toMatchObject({
      atoll_seal_on: [['local', 0]],
      atoll_scrub_passed_time_seconds: [['local', 0]],
    });
    Object.assign(seal, { paused: false, on: false });
    expect(await values()).toMatchObject({ atoll_seal_on: [['local', 0]] });
  });

  it('count what the log says', async () => {
    const write = openLog({ json: true, counts: log, level: 'error', write: () => undefined });
    write('warn', 'a', {});
    write('error', 'b', {});
    write('error', 'c', {});
    write('info', 'd', {});
    const now = await page();
    // also what the level leaves out: somebody should know
    expect(sampleValue(now, 'atoll_log_lines_total', { level: 'warn' })).toBe(1);
    expect(sampleValue(now, 'atoll_log_lines_total', { level: 'error' })).toBe(2);
  });

  it('of the process are of this process', async () => {
    const now = await page();
    expect(sampleValue(now, 'process_resident_memory_bytes')).toBeGreaterThan(1 << 20);
    expect(sampleValue(now, 'process_open_fds')).toBeGreaterThan(2);
    const age = Date.now() / 1000 - sampleValue(now, 'process_start_time_seconds');
    expect(Math.abs(age - process.uptime())).toBeLessThan(5);
  });
});

describe('labels', () => {
  it('are bounded: each has its values, or a number of them, and no user makes one', async () => {
    for (const name of ['v', 'w', 'x']) {
      await engine.createVolume({ name, size: 512 });
      await engine.createSnapshot(name, 's');
    }
    const before = await page();
    for (let i = 0; i < 50; i++) {
      await engine.createVolume({ name: `secret-${i}`, size: 512 });
      await engine.createSnapshot(`secret-${i}`, 's');
    }
    const open = { name: 'secret-1', openCount: 1, reads: 1, writes: 1, readBytes: 1, writeBytes: 1, faults: 1 };
    engine.acted = activity({ open: [open] });
    const text = await metrics.page();
    expect(text).not.toContain('secret');
    const after = parsePage(text);
    const series = (families: typeof after) =>
      [...families.values()].reduce((sum, { samples }) => sum + samples.length, 0);
    expect(series(after)).toBe(series(before));
    const seen = new Map<string, Set<string>>();
    for (const { samples } of after.values()) {
      for (const { labels } of samples) {
        for (const [label, value] of Object.entries(labels)) {
          if (label === 'le') continue;
          expect(LABELS).toHaveProperty(label);
          seen.set(label, (seen.get(label) ?? new Set()).add(value));
        }
      }
    }
    for (const [label, values] of seen) {
      const allowed = LABELS[label]!;
      if (typeof allowed === 'number') expect(values.size, label).toBeLessThanOrEqual(allowed);
      else for (const value of values) expect(allowed, label).toContain(value);
    }
  });

  it('are declared by the metrics that have them', () => {
    for (const { name, labels } of CATALOG) for (const label of labels) expect(LABELS, name).toHaveProperty(label);
  });
});

it('distributions of different lengths add up', () => {
  expect(
    addDistributions([
      { counts: [1, 2], sum: 3 },
      { counts: [1], sum: 1 },
    ]),
  ).toEqual({ counts: [2, 2], sum: 4 });
  expect(addDistributions([])).toEqual({ counts: [], sum: 0 });
});
