/** What `jobs.test.ts` has run: jobs that count their tries, and end with their thread or by an error of their own. */

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
