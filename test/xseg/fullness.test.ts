/** When a pool is called full, and how often that is said. */
import fs from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Fullness, fullPercent, HYSTERESIS_POINTS } from '../../src/xseg/mapper/fullness.ts';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;

describe('a level', () => {
  it('is entered at its threshold and left clearly below it, each told once', () => {
    const f = new Fullness(80, 95);
    const told: string[] = [];
    for (const percent of [79.9, 80, 79, 81, 80 - HYSTERESIS_POINTS, 94.9, 95, 99, 93, 94, 92.9, 77.9, 50, 80, 78]) {
      const before = f.look(percent);
      if (before !== null) told.push(`${percent}: ${before} → ${f.level}`);
    }
    expect(told).toEqual([
      '80: ok → warning',
      '95: warning → critical',
      '92.9: critical → warning',
      '77.9: warning → ok',
      '80: ok → warning',
    ]);
  });

  it('may be skipped, up and down', () => {
    const f = new Fullness(80, 95);
    expect([f.look(100), f.level]).toEqual(['ok', 'critical']);
    expect([f.look(0), f.level]).toEqual(['critical', 'ok']);
  });

  it('is critical when nothing fits at all', () => {
    expect(fullPercent(0, 0)).toBe(100);
    expect(fullPercent(1, 4)).toBe(25);
  });
});

describe('a pool that runs full', () => {
  let home: Home;
  beforeEach(() => {
    home = new Home();
  });
  afterEach(() => home.end());

  it('says so once in the log, and in its numbers, and again when it has room', async () => {
    const logged: string[] = [];
    const e = await home.open({
      poolWarnPercent: 50,
      poolCriticalPercent: 75,
      log: (level, event, fields) => {
        if (event.includes('room') || event.includes('full')) logged.push(`${level} ${fields.pool} ${fields.level}`);
      },
    });
    await e.createPool({ name: 'p', path: path.join(home.dir, 'p/'), size: 64 * MIB });
    await e.createVolume({ name: 'v', size: 64 * MIB, pool: 'p' });
    expect(await e.showPool('p')).toMatchObject({ fullPercent: 0, level: 'ok' });
    const c = await home.connect('v');
    await c.write(0, Buffer.alloc(16 * MIB, 1));
    await c.write(16 * MIB, Buffer.alloc(16 * MIB, 1));
    expect(await e.showPool('p')).toMatchObject({ fullPercent: 50, level: 'warning' });
    await e.showPool('p');
    await c.write(32 * MIB, Buffer.alloc(16 * MIB, 1));
    expect(await e.showPool('p')).toMatchObject({ fullPercent: 75, level: 'critical' });
    expect((await e.status()).pools.find((p) => p.name === 'p')).toMatchObject({ level: 'critical' });
    await c.trim(0, 48 * MIB);
    await c.flush();
    while ((await e.showPool('p')).level !== 'ok') await new Promise((resolve) => setTimeout(resolve, 10));
    expect(logged).toEqual(['warn p warning', 'warn p critical', 'info p ok']);
    await c.close();
    await closed(e, 'v');
  });

  it('has thresholds from 1 to 100, the one to warn not above the other', async () => {
    const refused = expect.objectContaining({ code: 'INVALID' });
    for (const [poolWarnPercent, poolCriticalPercent] of [
      [0, 95],
      [80, 101],
      [96, 95],
    ])
      await expect(home.open({ poolWarnPercent, poolCriticalPercent })).rejects.toThrow(refused);
    await home.open({ poolWarnPercent: 1, poolCriticalPercent: 1 });
    await home.close();
    await home.open({ poolWarnPercent: 100, poolCriticalPercent: 100 });
    expect(fs.existsSync(home.home)).toBe(true);
  });
});
