/**
 * A worker of the hashing pool: runs jobs. It has no state but open connections, so that a job that was lost with its
 * thread can be run again.
 */
import { loadNative } from '../native.ts';
import { HashRun } from './hash-run.ts';
import { IndexSnapshot } from './index-snapshot.ts';
import type { HashJob, HashResult } from './job.ts';

const native = loadNative();
const indexes = new Map<string, IndexSnapshot>();

/** Piscina's entry. */
export function hashSlots(job: HashJob): HashResult {
  let index = indexes.get(job.storePath);
  if (index === undefined) {
    index = new IndexSnapshot(job.storePath);
    indexes.set(job.storePath, index);
  }
  return index.look((reader) => new HashRun(job, reader, native).run());
}
