/** What the engine's face, the ingest threads and the mapper say to each other of an ingest. Plain data only: it crosses threads. */

/**
 * What of a stream is hashed, decided and written at once. Large, since telling threads of a piece costs as much as dozens of
 * its blocks; and of few blocks, since all of them are decided in one turn of the mapper, which guests' faults wait for.
 */
export const PIECE_BYTES_MAX = 16 * 1024 * 1024;
export const PIECE_BLOCKS_MAX = 1024;
/** Pieces of one ingest in memory: some are filled while others are hashed and written. */
export const PIECES_MAX = 4;
/** At once. */
export const INGESTS_MAX = 8;
/** Pieces of all ingests in memory; more than INGESTS_MAX, for each may hold one that its sender does not fill. */
export const PIECES_ALL_MAX = 12;

/**
 * Read, compared or written at once: a fraction of a core's second-level cache, so that what comes after finds the bytes there.
 * Guests' writes into a file of the pool wait for no longer write.
 */
export const STEP_BYTES = 256 * 1024;

/**
 * Looked up in the index and compared together: few enough that comparing finds the bytes in the second-level cache, and enough
 * that a statement of the store is not what it costs.
 */
export const LOOK_BYTES = 512 * 1024;

/** Bytes of a piece: a whole number of blocks. */
export function pieceBytes(blockSize: number): number {
  return Math.min(PIECE_BYTES_MAX, PIECE_BLOCKS_MAX * blockSize);
}

/** What `Native.hashBlocks` says of a block: all zeroes, which stays without a slot; else 1, hashed. */
export const BLOCK_ZERO = 0;

/** What the mapper answers to the beginning. */
export interface IngestBegun {
  id: number;
  blockSize: number;
  poolName: string;
  /** what the threads need to know of the pool */
  target: IngestTarget;
}

export interface IngestTarget {
  /** pool's id in the store */
  pool: number;
  /** pool's native handle */
  handle: number;
  blockSize: number;
  groupSlots: number;
}

/** Bytes of a piece that its thread reads. */
export interface FileRead {
  /** descriptor */
  file: number;
  /** of the first byte in the file, and in the piece */
  position: number;
  at: number;
  /** bytes, at least one */
  length: number;
}

/** A piece, as a thread sees it. */
export interface PieceJob extends IngestTarget {
  core: number;
  storePath: string;
  bytes: SharedArrayBuffer;
  /** what of `bytes` is still to be read, in the order of its places */
  reads: FileRead[];
  /** blocks at the beginning of `bytes` */
  blocks: number;
}

export interface PieceHashes {
  /** BLOCK_ZERO or 1, per block */
  states: Uint8Array;
  /** HASH_BYTES per block */
  hashes: Uint8Array;
  /** a slot of the index that holds the same bytes now; −1 none */
  same: Float64Array;
  /**
   * Where a block's bytes lie, as a block of `bytes`; −1 nowhere: the pool has them, and others were read to their place, which
   * the processor's cache still had. Should they be wanted all the same, the file has them.
   */
  places: Int32Array;
}

/** Blocks of a piece, as the mapper is told of them. */
export interface Piece extends Omit<PieceHashes, 'places'> {
  ingest: number;
  blocks: number;
  /** batches of this ingest that were durable when the piece began to be hashed */
  seen: number;
}

/** What of a piece is to be written. */
export interface PieceWrite {
  job: PieceJob;
  hashed: Pick<PieceHashes, 'hashes' | 'places'>;
  /** per block: the slot to write it to, −1 nothing to write */
  slots: Float64Array;
}

/** `code`: the errno's name */
export interface WriteError {
  code: string;
  message: string;
}

export interface Decided {
  /** per block: the slot to write it to, −1 nothing to write */
  slots: Float64Array;
  /** batches of this ingest that are durable */
  durable: number;
}
