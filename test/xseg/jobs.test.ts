/** Jobs on threads: one that is lost is run again, a bounded number of times. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Jobs, TRIES_MAX } from '../../src/xseg/jobs.ts';

const FILE = new URL('jobs.mjs', import.meta.url);
const POLL_MS = 2;
let jobs: Jobs;
/** how often the job was begun */
let tries: Int32Array;
beforeEach(() => {
  jobs = new Jobs(FILE, 1, 0);
  tries = new Int32Array(new SharedArrayBuffer(4));
});
afterEach(() => jobs.close());

describe('a job', () => {
  it('that was lost with its thread is run again, and answers', async () => {
    const deaths = TRIES_MAX - 1;
    expect(deaths).toBeGreaterThan(0);
    expect(await jobs.run('dies', { tries, deaths })).toBe(TRIES_MAX);
    expect(tries[0]).toBe(TRIES_MAX);
  });

  it('that is lost with every thread is given up after TRIES_MAX of them; the next is run', async () => {
    await expect(jobs.run('dies', { tries, deaths: Number.POSITIVE_INFINITY })).rejects.toThrow(/exited/);
    expect(tries[0]).toBe(TRIES_MAX);
    tries[0] = 0;
    expect(await jobs.run('dies', { tries, deaths: 0 })).toBe(1);
  });

  it('that waits for the thread that ends is run once', async () => {
    const others = [1, 2, 3].map(() => new Int32Array(new SharedArrayBuffer(4)));
    const all = [jobs.run('dies', { tries, deaths: 1 }), ...others.map((own) => jobs.run('dies', { tries: own }))];
    expect(await Promise.all(all)).toEqual([2, 1, 1, 1]);
    expect(others.map((own) => own[0])).toEqual([1, 1, 1]);
  });

  it('that throws is run again too, as often; its last error is the answer', async () => {
    expect(await jobs.run('throws', { tries, failures: TRIES_MAX - 1 })).toBe(TRIES_MAX);
    tries[0] = 0;
    const failures = Number.POSITIVE_INFINITY;
    await expect(jobs.run('throws', { tries, failures })).rejects.toThrow(`try ${TRIES_MAX} failed`);
    expect(tries[0]).toBe(TRIES_MAX);
  });

  it('that is under way when all is closed fails, and is not run again', async () => {
    const failed = expect(jobs.run('stays', { tries })).rejects.toThrow();
    while (Atomics.load(tries, 0) === 0) await sleep(POLL_MS);
    await jobs.close();
    await failed;
    expect(tries[0]).toBe(1);
    await expect(jobs.run('dies', { tries, deaths: 0 })).rejects.toThrow('closing');
    expect(tries[0]).toBe(1);
  });

  it.each([
    ['end', 'x'],
    ['fail', 't'],
  ])('does not wait for threads that %s before they are ready', async (_, how) => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-jobs-'));
    const starts = path.join(dir, 'starts');
    vi.stubEnv('JOBS_TEST_STARTS', starts);
    try {
      fs.writeFileSync(starts, how.repeat(TRIES_MAX - 1));
      expect(await jobs.run('dies', { tries, deaths: 0 })).toBe(1);
      await jobs.close();
      jobs = new Jobs(FILE, 2, 0);
      // both threads of each try
      fs.writeFileSync(starts, how.repeat(TRIES_MAX * 2));
      const all = [jobs.run('dies', { tries, deaths: 0 }), jobs.run('dies', { tries, deaths: 0 })];
      for (const { status } of await Promise.allSettled(all)) expect(status).toBe('rejected');
      expect(tries[0]).toBe(1);
    } finally {
      vi.unstubAllEnvs();
      fs.rmSync(dir, { recursive: true });
    }
  });
});
