/** Metrics of sealing, dedup and scrub. A pool that is not open has none. */
import type { SealInfo } from '../../xseg/types.ts';
import type { Definition, NumberMetric } from './definition.ts';

export const SEAL: readonly Definition[] = [
  ofPools('gauge', 'atoll_seal_on', '1 where snapshots are sealed', ({ on, paused }) => (on && !paused ? 1 : 0)),
  ofPools('gauge', 'atoll_seal_backlog_snapshots', 'Snapshots that are to be sealed', (seal) => seal.backlogSnapshots),
  ofPools('gauge', 'atoll_seal_backlog_bytes', 'At most what there is to hash for them', (seal) => seal.backlogBytes),
  ofPools('counter', 'atoll_seal_hashed_bytes_total', 'Bytes hashed, ever', (seal) => seal.hashedBytes),
  ofPools('counter', 'atoll_dedup_folded_bytes_total', 'Of these: found equal and folded', (seal) => seal.foldedBytes),
  ofPools('gauge', 'atoll_dedup_index_entries', 'Blocks in the dedup index', (seal) => seal.entries),
  ofPools('gauge', 'atoll_dedup_index_bytes', 'About what the index takes in the store', (seal) => seal.indexBytes),
  ofPools('gauge', 'atoll_scrub_quarantined_blocks', 'Blocks that are damaged', (seal) => seal.quarantined),
  ofPools('gauge', 'atoll_scrub_passed_time_seconds', 'End of the last whole pass, Unix time; 0 none', (seal) =>
    seal.scrubbedAt === null ? 0 : Date.parse(seal.scrubbedAt) / 1000,
  ),
];

function ofPools(
  kind: NumberMetric['kind'],
  name: string,
  help: string,
  read: (seal: SealInfo) => number,
): NumberMetric {
  return {
    kind,
    name,
    help,
    labels: ['pool'],
    read: ({ status }) =>
      status.pools.flatMap(({ name: pool, seal }) => (seal === null ? [] : [[{ pool }, read(seal)] as const])),
  };
}
