/**
 * A worker of the hashing pool: runs jobs. It has no state but open connections, so that a job that was lost with its
 * thread can be run again.
 */
import { loadNative } from '../native.ts';
import { openReader } from '../store/schema.ts';
import { SealReader } from '../store/seal-reader.ts';
import { HashRun } from './hash-run.ts';
import type { HashJob, HashResult } from './job.ts';

const native = loadNative();
const readers = new Map<string, SealReader>();

function readerOf(path: string): SealReader {
  let reader = readers.get(path);
  if (reader === undefined) {
    reader = new SealReader(openReader(path));
    readers.set(path, reader);
  }
  return reader;
}

/** Piscina's entry. */
export function hashSlots(job: HashJob): HashResult {
  return new HashRun(job, readerOf(job.storePath), native).run();
}
