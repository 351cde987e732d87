/** A thread of the ingest pool. No state but open connections: a job that was lost with its thread can be run again. */
import { loadNative } from '../native.ts';
import { IndexSnapshot } from '../seal/index-snapshot.ts';
import type { PieceHashes, PieceJob, PieceWrite, WriteError } from './job.ts';
import { Pieces } from './pieces.ts';

const pieces = new Pieces(loadNative());
const indexes = new Map<string, IndexSnapshot>();

/** Piscina's entry. */
export function hashPiece(job: PieceJob): PieceHashes {
  let index = indexes.get(job.storePath);
  if (index === undefined) {
    index = new IndexSnapshot(job.storePath);
    indexes.set(job.storePath, index);
  }
  return pieces.hash(job, index.look);
}

/** Piscina's entry. @returns what went wrong; errors lose their codes between threads */
export function writePiece(work: PieceWrite): WriteError | null {
  try {
    pieces.write(work);
    return null;
  } catch (error) {
    const { code = 'EIO', message } = error as { code?: string; message: string };
    return { code, message };
  }
}
