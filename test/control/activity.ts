/** What an engine says that has done nothing yet. */
import {
  type Activity,
  type Distribution,
  FAULT_ERRORS,
  FAULT_KINDS,
  QUEUES,
  type ReactorActivity,
  WAIT_KINDS,
} from '../../src/xseg/activity.ts';

const BUCKETS = 26;

/** @param values microseconds, or counts */
export function distribution(...values: number[]): Distribution {
  const counts = new Array<number>(BUCKETS).fill(0);
  for (const value of values) counts[Math.min(BUCKETS - 1, Math.max(0, Math.ceil(Math.log2(value))))]!++;
  return { counts, sum: values.reduce((sum, value) => sum + value, 0) };
}

export function reactor(changes: Partial<ReactorActivity> = {}): ReactorActivity {
  return {
    ...{ loops: 0, spins: 0, spinHits: 0, requests: 0, inline: 0, waited: 0, errors: 0, faults: 0 },
    ...{ reads: 0, writes: 0, readBytes: 0, writeBytes: 0 },
    waits: by(WAIT_KINDS, () => distribution()),
    ...changes,
  };
}

export function activity(changes: Partial<Activity> = {}): Activity {
  return {
    uptimeSeconds: 100,
    reactors: [reactor(), reactor()],
    dataSyncs: { times: distribution(), errors: 0 },
    nbd: { connections: 0, inFlight: 0, bytesHeld: 0 },
    home: { freeBytes: 2 ** 40, storeBytes: 4096 },
    mapper: { turns: 0, busySeconds: 0, batches: distribution() },
    faults: by(FAULT_KINDS, () => distribution()),
    faultErrors: by(FAULT_ERRORS, () => 0),
    queues: by(QUEUES, () => 0),
    commits: { times: distribution(), pages: distribution() },
    store: { transactions: distribution(), syncs: distribution(), batches: distribution() },
    freeing: { pages: 0 },
    pools: [{ name: 'local', slotsTaken: 0, slotsFreed: 0, slotsZeroed: 0, slotsReclaiming: 0, slotsLost: 0 }],
    volumesFailed: 0,
    open: [],
    ...changes,
  };
}

function by<Key extends string, Value>(keys: readonly Key[], value: () => Value): Record<Key, Value> {
  return Object.fromEntries(keys.map((key) => [key, value()])) as Record<Key, Value>;
}
