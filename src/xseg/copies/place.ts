/**
 * Where a pool's copies of the store lie (docs/format.md, "Copies of the store"): files in its folder, or two areas between the
 * superblock and the slots of a file or device. Plain data, crosses threads.
 */
import { join } from 'node:path';
import { POOL_DATA_OFFSET } from '../pool-superblock.ts';

/** Two generations, by turns. */
export const COPY_NAMES: readonly string[] = ['store-copy.0', 'store-copy.1'];
const MIB = 2 ** 20;
/** One generation's area is this part of the slot space… */
const AREA_PART = 256;
/** …in these bounds. */
export const AREA_BYTES_MIN = 8 * MIB;
export const AREA_BYTES_MAX = 64 * 1024 * MIB;
/** Of a thin file, whose end is not known: address space, taken when a copy is written. */
export const AREA_BYTES_THIN = 1024 * MIB;
/** The mark that a daemon may have changed the pool since its newest copy: a block of its own behind the superblock. */
export const SERVING_AT = 4096;

export interface CopyPlace {
  /** the folder, file or device */
  path: string;
  /** bytes of each generation's area; 0: `path` is a folder */
  area: number;
}

/** Bytes of each generation's area in a new file or device pool. @param bytes of slots; 0: a thin file */
export function areaFor(bytes: number): number {
  if (bytes === 0) return AREA_BYTES_THIN;
  const wanted = Math.ceil(bytes / AREA_PART / MIB) * MIB;
  return Math.min(AREA_BYTES_MAX, Math.max(AREA_BYTES_MIN, wanted));
}

/** First byte of a generation's area. */
export function areaAt(place: CopyPlace, name: string): number {
  return POOL_DATA_OFFSET + COPY_NAMES.indexOf(name) * place.area;
}

/** What a generation is called in messages and reports. */
export function labelOf(place: CopyPlace, name: string): string {
  return place.area === 0 ? join(place.path, name) : `${name} of ${place.path}`;
}
