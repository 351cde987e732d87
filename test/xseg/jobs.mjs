/** What `jobs.test.ts` has run: jobs that count their tries, and end with their thread or by an error of their own. */
import fs from 'node:fs';

/** @returns which try it is */
const count = (tries) => Atomics.add(tries, 0, 1) + 1;

/** Its thread ends in the middle of the first `deaths` tries. */
export function dies({ tries, deaths }) {
  const now = count(tries);
  if (now <= deaths) process.exit(1);
  return now;
}

/** The first `failures` tries throw. */
export function throws({ tries, failures }) {
  const now = count(tries);
  if (now <= failures) throw new Error(`try ${now} failed`);
  return now;
}

/** Never ends. */
export function stays({ tries }) {
  count(tries);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
}

/**
 * The first threads that load this end, so many as the file named by JOBS_TEST_STARTS has bytes: by themselves at an `x`, of
 * an error at a `t`.
 */
const starts = process.env.JOBS_TEST_STARTS;
const left = starts === undefined ? '' : fs.readFileSync(starts, 'latin1');
if (left !== '') {
  fs.truncateSync(starts, left.length - 1);
  if (left.endsWith('x')) process.exit(1);
  // not one of loading it, which is tried in two ways
  queueMicrotask(() => {
    throw new Error('it cannot begin');
  });
  await new Promise(() => undefined);
}
