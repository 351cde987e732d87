/** Which request of the control API is being served, for the log, however deep below it something is logged. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';

/** the response header that has it */
export const REQUEST_ID_HEADER = 'x-request-id';

export const requestIds = new AsyncLocalStorage<string>();

/** @returns a source of ids: a random word for this run of the daemon, and a number that counts up */
export function requestIdSource(): () => string {
  const run = randomBytes(4).toString('hex');
  let last = 0;
  return () => `${run}-${++last}`;
}
