/** Metrics of resources, pools, and space on its way back. */
import type { PoolInfo } from '../../xseg/types.ts';
import { counter, type Definition, gauge, type NumberMetric, type Source } from './definition.ts';

export const POOL_STATES: readonly PoolInfo['state'][] = ['ok', 'failed', 'missing'];
export const POOL_LEVELS: readonly PoolInfo['level'][] = ['ok', 'warning', 'critical'];
export const SLOT_EVENTS = ['taken', 'freed', 'zeroed'] as const;

export const SPACE: readonly Definition[] = [
  gauge('atoll_volumes', 'Volumes', ({ status }) => status.volumes),
  gauge('atoll_snapshots', 'Snapshots', ({ status }) => status.snapshots),
  gauge('atoll_open_resources', 'Volumes and snapshots that are open', ({ activity }) => activity.open.length),
  gauge(
    'atoll_failed_volumes',
    'Volumes that refuse writes since data could not be made durable',
    ({ activity }) => activity.volumesFailed,
  ),
  gauge('atoll_transfers', 'Imports and exports under way', ({ transfers }) => transfers),
  poolBytes('atoll_pool_capacity_bytes', 'What a pool can hold', (pool) => pool.capacityBytes),
  poolBytes('atoll_pool_used_bytes', 'Slots that hold a block', (pool) => pool.usedBytes),
  poolBytes('atoll_pool_free_bytes', 'What a pool can take', (pool) => pool.freeBytes),
  poolBytes('atoll_pool_physical_bytes', 'What a pool takes on its backend', (pool) => pool.physicalBytes),
  poolBytes('atoll_pool_reclaiming_bytes', 'Freed, not zeroed yet', (pool) => pool.reclaimingBytes),
  poolBytes('atoll_pool_lost_bytes', 'Freed, could not be zeroed, tried again', (pool, { activity }) => {
    const slots = activity.pools.find(({ name }) => name === pool.name)?.slotsLost ?? 0;
    return slots * pool.blockSize;
  }),
  poolOneOf('atoll_pool_state', '1 for the state that a pool is in', 'state', POOL_STATES),
  poolOneOf('atoll_pool_level', '1 for how full a pool is said to be', 'level', POOL_LEVELS),
  {
    kind: 'counter',
    name: 'atoll_pool_slots_total',
    help: 'Slots handed out, freed for good, and zeroed again',
    labels: ['pool', 'event'],
    read: ({ activity }) =>
      activity.pools.flatMap(({ name: pool, slotsTaken, slotsFreed, slotsZeroed }) => [
        [{ pool, event: 'taken' }, slotsTaken] as const,
        [{ pool, event: 'freed' }, slotsFreed] as const,
        [{ pool, event: 'zeroed' }, slotsZeroed] as const,
      ]),
  },
  counter('atoll_freed_pages_total', 'Map pages given back', ({ activity }) => activity.freeing.pages),
];

function poolBytes(name: string, help: string, read: (pool: PoolInfo, source: Source) => number): NumberMetric {
  return {
    kind: 'gauge',
    name,
    help,
    labels: ['pool'],
    read: (source) => source.status.pools.map((pool) => [{ pool: pool.name }, read(pool, source)]),
  };
}

/** A series for each of `values`: 1 for the one that the pool has in its member `label`, else 0. */
function poolOneOf<Label extends 'state' | 'level'>(
  name: string,
  help: string,
  label: Label,
  values: readonly PoolInfo[Label][],
): NumberMetric {
  return {
    kind: 'gauge',
    name,
    help,
    labels: ['pool', label],
    read: ({ status }) =>
      status.pools.flatMap((pool) =>
        values.map((value) => [{ pool: pool.name, [label]: value }, value === pool[label] ? 1 : 0] as const),
      ),
  };
}
