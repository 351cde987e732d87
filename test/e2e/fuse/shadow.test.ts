/** A file of a mount beside one of the file system, step by step (shadow.py): short here, long in the long suite. */
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LONG } from '../lib/long.ts';
import { Mounted, missing } from '../lib/mounted.ts';

const STEPS = Number(process.env.ATOLL_SHADOW_STEPS ?? (LONG ? 100_000 : 800));
/** every step of shadow.py */
const KINDS = 15;
const STEP_MS_MAX = 50;

describe.skipIf(missing !== null)('a file of a mount', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  it('does what a file does, and its snapshots keep what it held', {
    timeout: 60_000 + STEPS * STEP_MS_MAX,
  }, async () => {
    const seed = LONG ? Date.now() % 1e6 : 7;
    const done = await m.world.run(
      'timeout',
      String(60 + (STEPS * STEP_MS_MAX) / 1000),
      'python3',
      path.resolve('test/e2e/fuse/shadow.py'),
      m.at('volumes/shadowed'),
      m.at('snapshots/shadowed'),
      m.world.file('shadow'),
      String(STEPS),
      String(seed),
    );
    expect(Object.keys(JSON.parse(done) as object).length).toBe(KINDS);
    await m.world.run(
      'qemu-img',
      'compare',
      '-f',
      'raw',
      '-F',
      'raw',
      m.world.file('shadow'),
      m.daemon.uri('shadowed'),
    );
    expect(await m.daemon.cli('check')).toMatchObject({ ok: true, problemCount: 0 });
    await m.run('rm', m.at('volumes/shadowed'));
  });
});
