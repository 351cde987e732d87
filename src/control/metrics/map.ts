/** Metrics of the mapper: faults, queues, the page cache. */
import { counter, countersBy, counts, type Definition, durationsBy, gauge, gaugesBy } from './definition.ts';
import { sumOf } from './sum.ts';

export const MAP: readonly Definition[] = [
  counter('atoll_fault_records_total', 'Records that reactors sent to the mapper', ({ activity }) =>
    sumOf(activity.reactors, 'faults'),
  ),
  durationsBy(
    'kind',
    'atoll_fault_seconds',
    'Map faults, from being taken by the mapper to their answer',
    ({ activity }) => activity.faults,
  ),
  countersBy('error', 'atoll_fault_errors_total', 'Map faults that failed', ({ activity }) => activity.faultErrors),
  counter(
    'atoll_mapper_busy_seconds_total',
    'Time that the mapper did not wait for work',
    ({ activity }) => activity.mapper.busySeconds,
  ),
  counter('atoll_mapper_turns_total', 'Turns of the mapper', ({ activity }) => activity.mapper.turns),
  counts(
    'atoll_mapper_batch_records',
    'Records that the mapper took at once',
    ({ activity }) => activity.mapper.batches,
  ),
  gaugesBy('queue', 'atoll_queue_length', 'What waits inside the mapper', ({ activity }) => activity.queues),
  gauge('atoll_map_cache_pages', 'Map pages that fit into the cache', ({ status }) => status.map.cacheBytes / 4096),
  gaugesBy('state', 'atoll_map_pages', 'Map pages in the cache: all, and those not durable yet', ({ status }) => ({
    resident: status.map.residentPages,
    dirty: status.map.dirtyPages,
  })),
  counter('atoll_map_loads_total', 'Map pages read from the store', ({ status }) => status.map.loads),
  counter('atoll_map_evictions_total', 'Map pages pushed out of the cache', ({ status }) => status.map.evictions),
];
