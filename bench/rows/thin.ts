/**
 * First writes: to an empty thin volume, to a clone of a full one, to a clone of 1 TiB of scattered map. Every
 * contender gets the same number of requests at the same offsets, so that the faster one does not get to rewrite
 * blocks while the slower one still maps them.
 */
import fs from 'node:fs';
import type { Bench, Contender } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import type { FioJob } from '../fio.ts';
import { createImage, createOverlay, qemuNbd } from '../peers/qemu.ts';
import { ATOLL, PeerServer, QEMU_QCOW2 } from '../peers/server.ts';
import { newRow, type RowResult, ratioGoal } from '../result.ts';
import { SCATTER_BYTES, SCATTER_PER_LEAF, SCATTER_PER_LEAF_QUICK, scatter } from '../scatter.ts';
import { GIB, MIB } from '../size.ts';
import type { Row } from './row.ts';

const GOAL = 1.5;
/** Large enough that nearly every write is the first one of its block. */
const EMPTY_BYTES = 64 * GIB;
const FULL_BYTES = 2 * GIB;
/** What a first write may bring into the page cache: the block of Atoll's default pool, the cluster of qcow2. */
const BLOCK_BYTES = 64 * 1024;
const FULL_BYTES_QUICK = 256 * MIB;

/** Requests per second of --runtime; about what the slower ones do. */
const EMPTY_PER_SECOND = 15_000;
const CLONE_PER_SECOND = 5_000;
const SCATTERED_PER_SECOND = 2_000;

/** What a row's clones are made of; null: nothing, they are empty volumes. */
interface Base {
  snapshot: string | null;
  image: string | null;
}

export const thin: Row = {
  ids: ['write-empty', 'write-clone', 'write-clone-1t'],
  async *run(bench, wanted): AsyncIterable<RowResult> {
    const daemon = bench.wants(ATOLL) ? await bench.daemon() : null;
    if (wanted('write-empty')) {
      const row = newRow('write-empty', 'random write 4K, depth 32, to an empty thin volume of 64 GiB', 'IOPS');
      yield await firstWrites(bench, daemon, row, { snapshot: null, image: null }, EMPTY_BYTES, EMPTY_PER_SECOND);
    }
    if (wanted('write-clone')) {
      const bytes = bench.options.quick ? FULL_BYTES_QUICK : FULL_BYTES;
      const base = await makeBase(bench, daemon, bytes, 'full');
      const row = newRow(
        'write-clone',
        `random write 4K, depth 32, to a fresh clone of a full ${bytes / GIB} GiB`,
        'IOPS',
      );
      yield await firstWrites(bench, daemon, row, base, bytes, CLONE_PER_SECOND);
      await dropBase(bench, daemon, base);
    }
    if (wanted('write-clone-1t')) {
      const base = await makeBase(bench, daemon, SCATTER_BYTES, 'scattered');
      const row = newRow('write-clone-1t', 'random write 4K, depth 32, to a clone of 1 TiB of scattered map', 'IOPS');
      yield await firstWrites(bench, daemon, row, base, SCATTER_BYTES, SCATTERED_PER_SECOND);
      await dropBase(bench, daemon, base);
    }
  },
};

async function firstWrites(
  bench: Bench,
  daemon: Daemon | null,
  row: RowResult,
  base: Base,
  bytes: number,
  perSecond: number,
): Promise<RowResult> {
  bench.say(`${row.id}: ${row.title}`);
  const requests = perSecond * bench.options.runtimeSeconds;
  const job: FioJob = { rw: 'randwrite', blockSize: '4k', depth: 32, requests };
  const contenders: Contender[] = [];
  if (daemon) contenders.push(atollContender(bench, daemon, base.snapshot, bytes));
  contenders.push(qcow2Contender(bench, base.image, bytes));
  await bench.compare(row, contenders, async (target, round) => {
    await bench.warmMemory(requests * BLOCK_BYTES * 2);
    return bench.sample(target, { ...job, seed: round }, (result) => result.iops);
  });
  ratioGoal(row, ATOLL, QEMU_QCOW2, GOAL);
  row.notes.push(`${requests} requests per measurement, the same offsets for both; free memory is touched before each`);
  if (daemon) {
    const { map } = await daemon.status();
    row.facts.atoll_map_fault_p50_us = map.faultP50Us;
    row.facts.atoll_map_fault_p99_us = map.faultP99Us;
  }
  return row;
}

/** A new volume or clone in every round. */
function atollContender(bench: Bench, daemon: Daemon, snapshot: string | null, bytes: number): Contender {
  return {
    name: ATOLL,
    prepare: async () => {
      const name = bench.fresh('thin');
      if (snapshot) await daemon.clone(snapshot, name);
      else await daemon.createVolume(name, bytes);
      return bench.exportOf(daemon, name);
    },
    release: async (target) => {
      await daemon.deleteVolume(target.exportName);
      await bench.quiet(daemon);
    },
  };
}

/** A new image or overlay, and a server for it, in every round. */
function qcow2Contender(bench: Bench, backing: string | null, bytes: number): Contender {
  return {
    name: QEMU_QCOW2,
    prepare: async () => {
      const file = bench.file(`${bench.fresh('thin')}.qcow2`);
      if (backing) await createOverlay(bench.children, backing, 'qcow2', file);
      else await createImage(bench.children, 'qcow2', file, bytes);
      return qemuNbd(bench.children, 'qcow2', file);
    },
    release: async (target) => {
      if (!(target instanceof PeerServer)) throw new TypeError('not a peer');
      await target.stop();
      fs.rmSync(target.socket.replace(/\.sock$/, ''), { force: true });
    },
  };
}

async function makeBase(bench: Bench, daemon: Daemon | null, bytes: number, kind: 'full' | 'scattered'): Promise<Base> {
  const perLeaf = bench.options.quick ? SCATTER_PER_LEAF_QUICK : SCATTER_PER_LEAF;
  const base: Base = { snapshot: null, image: null };
  if (daemon) {
    const volume = bench.fresh(kind);
    await daemon.createVolume(volume, bytes);
    const target = bench.exportOf(daemon, volume);
    await (kind === 'full' ? bench.fill(target, bytes) : scatter(target, bytes, perLeaf));
    base.snapshot = await daemon.snapshot(volume, 'base');
  }
  if (bench.wants(QEMU_QCOW2)) {
    base.image = bench.file(`${bench.fresh(kind)}.qcow2`);
    await createImage(bench.children, 'qcow2', base.image, bytes);
    const server = await qemuNbd(bench.children, 'qcow2', base.image);
    await (kind === 'full' ? bench.fill(server, bytes) : scatter(server, bytes, perLeaf));
    await server.stop();
  }
  return base;
}

async function dropBase(bench: Bench, daemon: Daemon | null, base: Base): Promise<void> {
  if (base.image) fs.rmSync(base.image, { force: true });
  if (daemon && base.snapshot) {
    await daemon.deleteVolume(base.snapshot.split('@')[0]!);
    await bench.quiet(daemon);
  }
}
