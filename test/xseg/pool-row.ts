/** A pool as the store has it, for tests that need none on disk: blocks of 64 KiB, 64 to a group. */
import type { PoolRow } from '../../src/xseg/store/batch.ts';

export const POOL_ROW: PoolRow = {
  id: 1,
  uuid: 'u',
  name: 'p',
  driver: 'local',
  kind: 'directory',
  path: '/nowhere',
  block_shift: 16,
  group_slots: 64,
  size: 0,
  direct: 0,
  preallocate: 0,
  created_at: 0,
};
