/** The content hash of an NBD export, reading only what may be other than zero. */
import { allocated, type Run } from '../nbd/allocated.ts';
import type { NbdClient } from '../nbd/client.ts';
import { ordered } from '../ordered.ts';
import { ContentHash, HASH_LEAF } from './content-hash.ts';

/** bytes of one read: a whole number of leaves */
const READ_BYTES = 16 * HASH_LEAF;
const READ_DEPTH = 8;

/**
 * @param onProgress bytes of the export passed so far
 * @returns 64 hex digits, as docs/stream.md says
 */
export async function hashExport(client: NbdClient, onProgress: (bytes: number) => void): Promise<string> {
  const hash = new ContentHash(client.size);
  const read = async (run: Run) => ({ run, bytes: await client.read(run.offset, run.length) });
  for await (const { run, bytes } of ordered(leafRuns(client), READ_DEPTH, read)) {
    for (let at = 0; at < bytes.length; at += HASH_LEAF) {
      hash.update((run.offset + at) / HASH_LEAF, bytes.subarray(at, at + HASH_LEAF));
    }
    onProgress(run.offset + run.length);
  }
  return hash.digest();
}

/** Runs widened to whole leaves, each leaf once, at most READ_BYTES long. */
async function* leafRuns(client: NbdClient): AsyncGenerator<Run> {
  let done = 0;
  for await (const { offset, length } of allocated(client)) {
    let at = Math.max(done, Math.floor(offset / HASH_LEAF) * HASH_LEAF);
    const end = Math.min(client.size, Math.ceil((offset + length) / HASH_LEAF) * HASH_LEAF);
    while (at < end) {
      const piece = Math.min(READ_BYTES, end - at);
      yield { offset: at, length: piece };
      at += piece;
    }
    done = Math.max(done, end);
  }
}
