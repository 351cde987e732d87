/** Which parts of an export may hold something else than zeroes. */
import { ordered } from '../ordered.ts';
import { type NbdClient, STATUS_BYTES_MAX } from './client.ts';
import { STATE_ZERO } from './protocol.ts';

export interface Run {
  offset: number;
  length: number;
}

/** status requests at once: an empty petabyte is a quarter of a million of them */
const STATUS_DEPTH = 16;

/**
 * Ascending, not adjacent. A server that does not tell has everything allocated.
 * @param window bytes of one request, and of what is kept of its answer: a server whose extents may be as small as sectors wants
 * less than all that a request can ask for
 */
export async function* allocated(client: NbdClient, window = STATUS_BYTES_MAX): AsyncGenerator<Run> {
  if (!client.hasStatus) {
    if (client.size > 0) yield { offset: 0, length: client.size };
    return;
  }
  let current: Run | null = null;
  for await (const runs of ordered(windows(client.size, window), STATUS_DEPTH, (one) => runsOf(client, one))) {
    for (const run of runs) {
      if (current && current.offset + current.length === run.offset) {
        current.length += run.length;
      } else {
        if (current) yield current;
        current = { ...run };
      }
    }
  }
  if (current) yield current;
}

function* windows(size: number, most: number): Generator<Run> {
  for (let offset = 0; offset < size; offset += most) {
    yield { offset, length: Math.min(most, size - offset) };
  }
}

/** An answer may cover less than was asked for: asks again until the window is done. */
async function runsOf(client: NbdClient, window: Run): Promise<Run[]> {
  const runs: Run[] = [];
  let offset = window.offset;
  const end = window.offset + window.length;
  while (offset < end) {
    for (const { length, flags } of await client.blockStatus(offset, end - offset)) {
      if ((flags & STATE_ZERO) === 0) runs.push({ offset, length });
      offset += length;
    }
  }
  return runs;
}
