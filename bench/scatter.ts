/**
 * Makes a map that is as large as 1 TiB of data makes it, without 1 TiB of data: a few 4 KiB writes in every leaf.
 */
import { NbdClient } from './nbd.ts';
import type { Export } from './peers/server.ts';
import { KIB, MIB, TIB } from './size.ts';

export const SCATTER_BYTES = TIB;

/** A leaf of Atoll's map covers 512 blocks, at the default 64 KiB; qcow2's L2 table covers 512 MiB. */
const LEAF_BYTES = 32 * MIB;
const BLOCK_BYTES = 64 * KIB;
const WRITE_BYTES = 4 * KIB;

/** Writes on their way; more does not go faster. */
const WINDOW = 64;

/** Blocks mapped per leaf; qemu-nbd's qcow2 takes 64 KiB on disk for each, 4 make 8 GiB. */
export const SCATTER_PER_LEAF = 4;
export const SCATTER_PER_LEAF_QUICK = 1;

/** A small fast generator (mulberry32): the same seed gives the same places, for every contender. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Byte offsets of the writes, leaf by leaf, at random blocks of each. */
export function* scatterOffsets(bytes: number, perLeaf: number, seed: number): Generator<number> {
  const next = random(seed);
  const blocks = LEAF_BYTES / BLOCK_BYTES;
  for (let leaf = 0; leaf < bytes; leaf += LEAF_BYTES) {
    // One random block of each of `perLeaf` equal parts: never the same twice.
    const part = blocks / perLeaf;
    for (let i = 0; i < perLeaf; i++) yield leaf + Math.floor((i + next()) * part) * BLOCK_BYTES;
  }
}

export async function scatter(target: Export, bytes: number, perLeaf: number): Promise<void> {
  const client = await NbdClient.connect(target.socket, target.exportName);
  const data = Buffer.alloc(WRITE_BYTES, 0xa7);
  const offsets = scatterOffsets(bytes, perLeaf, 1);
  const worker = async (): Promise<void> => {
    for (const offset of offsets) await client.write(offset, data);
  };
  await Promise.all(Array.from({ length: WINDOW }, worker));
  await client.flush();
  await client.close();
}
