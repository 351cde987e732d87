/** All metrics, and every label with its bound: docs/watching.md says what they mean, and a test compares. */
import { FAULT_ERRORS, FAULT_KINDS, QUEUES, WAIT_KINDS } from '../../xseg/activity.ts';
import { COMMITS } from './commits.ts';
import { CONTROL } from './control.ts';
import { DAEMON } from './daemon.ts';
import type { Definition } from './definition.ts';
import { MAP } from './map.ts';
import { REQUESTS } from './requests.ts';
import { SEAL } from './seal.ts';
import { POOL_LEVELS, POOL_STATES, SLOT_EVENTS, SPACE } from './space.ts';

export const CATALOG: readonly Definition[] = [
  ...REQUESTS,
  ...MAP,
  ...COMMITS,
  ...SPACE,
  ...SEAL,
  ...CONTROL,
  ...DAEMON,
];

/**
 * The values a label may have, or how many at most. Nothing that users make without bound is ever a label: volumes, snapshots
 * and clients are in `atoll top`.
 */
export const LABELS: Readonly<Record<string, readonly string[] | number>> = {
  path: ['inline', 'waited'],
  op: WAIT_KINDS,
  direction: ['read', 'write'],
  outcome: ['hit', 'miss'],
  kind: FAULT_KINDS,
  error: FAULT_ERRORS,
  queue: QUEUES,
  state: ['resident', 'dirty', ...POOL_STATES],
  event: SLOT_EVENTS,
  level: ['warn', 'error', ...POOL_LEVELS],
  // native/segment/layout.json: REACTORS_MAX, POOLS_MAX
  reactor: 16,
  pool: 256,
  version: 1,
  node: 1,
  // a route as it is written down, not as it is asked for, and the statuses of docs/errors.md
  route: 64,
  status: 24,
};
