/**
 * How long a snapshot and a clone take, of 1 GiB and of 1 TiB of scattered map: by one kept connection to the control
 * socket, and by the CLI beside `qemu-img create -b`. Warm is a daemon that has run for a while; with a cold cache it was
 * started anew, so that no page of the map is in memory, has taken one snapshot of another volume, and then the page cache was
 * dropped. That one, the first of all, is told by itself: it runs code that has not run before.
 *
 * Beside them, what the disk takes for the least that either has to do: one write that makes a file longer, synced.
 *
 * Nothing else runs, but before every snapshot one block is written and flushed, so that it is not the snapshot of
 * what has not changed since the last one.
 */
import fs from 'node:fs';
import type { Bench } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import { NbdClient } from '../nbd.ts';
import { createImage, createOverlay, qemuNbd } from '../peers/qemu.ts';
import { dropCaches } from '../proc.ts';
import { addLatencies, atMost, newRow, type RowResult } from '../result.ts';
import { random, SCATTER_BYTES, scatter } from '../scatter.ts';
import { GIB, KIB, MIB } from '../size.ts';
import { median, nearestRank } from '../stats.ts';
import type { Row } from './row.ts';
import { BIG, SMALL, scatteredDaemon } from './scattered-daemon.ts';

const GOAL_P99_MS = 5;
/** "equal": a median of 1 TiB that is no more than this above that of 1 GiB */
const GOAL_EQUAL = 1.25;

const WARM = 'atoll, control socket';
const COLD = 'atoll, control socket, cold cache';
const FIRST = 'atoll, control socket, first of all after a start';
const CLI = 'atoll, CLI';
const QEMU_IMG = 'qemu-img create -b';
const DISK = 'one write of 12 KiB and fdatasync';
/** what a snapshot appends to the store's log, about */
const DISK_BYTES = 12 * KIB;

/** whose snapshot is the first of all after a start */
const OTHER = 'other';

const COUNT = 100;
const COUNT_QUICK = 10;
const COLD_COUNT_QUICK = 3;

type Op = 'snapshot' | 'clone';
type Times = Record<Op, number[]>;

/** Milliseconds by volume. */
type ByVolume = Record<typeof SMALL | typeof BIG, Times>;

function noTimes(): ByVolume {
  return { [SMALL]: { snapshot: [], clone: [] }, [BIG]: { snapshot: [], clone: [] } };
}

export const cloneTimes: Row = {
  ids: ['snapshot-1g', 'snapshot-1t', 'clone-1g', 'clone-1t'],
  async *run(bench, wanted): AsyncIterable<RowResult> {
    const daemon = await scatteredDaemon(bench);
    bench.say('snapshot and clone: times');
    const count = bench.options.quick ? COUNT_QUICK : COUNT;
    const warm = noTimes();
    const disk: number[] = [];
    const log = await fs.promises.open(bench.file('times-disk'), 'w');
    for (let i = 0; i < count; i++) {
      await once(bench, daemon, warm, i);
      await timed(disk, async () => {
        await log.write(Buffer.alloc(DISK_BYTES, i));
        await log.datasync();
      });
    }
    await log.close();
    fs.rmSync(bench.file('times-disk'));
    const cli = noTimes();
    const qemu = await qemuImages(bench);
    for (let i = 0; i < count; i++) {
      await onceByCli(bench, daemon, cli);
      await qemu.once();
    }
    qemu.end();
    const cold = noTimes();
    const first: Times = { snapshot: [], clone: [] };
    await daemon.createVolume(OTHER, 64 * MIB);
    let dropped = true;
    for (let i = 0; i < (bench.options.quick ? COLD_COUNT_QUICK : count); i++) {
      await daemon.stop();
      dropped = dropCaches() && dropped;
      await daemon.restart();
      // Sets the kept connection up, as it was for the warm ones.
      await daemon.status();
      await touch(daemon, OTHER);
      await snapshotAndClone(bench, daemon, OTHER, first);
      dropped = dropCaches() && dropped;
      await once(bench, daemon, cold, i);
    }
    for (const op of ['snapshot', 'clone'] as const) {
      for (const [volume, size] of [
        [SMALL, '1g'],
        [BIG, '1t'],
      ] as const) {
        const id = `${op}-${size}`;
        if (!wanted(id)) continue;
        const what = size === '1g' ? '1 GiB' : '1 TiB of scattered map';
        const row = newRow(id, `${op} of ${what}`, 'ms', 'lower');
        const add = (name: string, values: number[]): void => {
          row.series.push({ name, samples: values.map((value) => ({ value, cpuPerMillion: null })) });
          addLatencies(row, name, values, 'ms');
        };
        add(WARM, warm[volume][op]);
        add(COLD, cold[volume][op]);
        add(FIRST, first[op]);
        add(CLI, cli[volume][op]);
        add(QEMU_IMG, qemu.times[volume]);
        add(DISK, disk);
        atMost(row, `p99 ≤ ${GOAL_P99_MS} ms, warm`, nearestRank(warm[volume][op], 0.99), GOAL_P99_MS, 'ms');
        atMost(row, `p99 ≤ ${GOAL_P99_MS} ms, cold cache`, nearestRank(cold[volume][op], 0.99), GOAL_P99_MS, 'ms');
        if (volume === BIG) {
          const equal = (times: ByVolume): number => median(times[BIG][op]) / median(times[SMALL][op]);
          atMost(row, 'takes what 1 GiB takes, warm', equal(warm), GOAL_EQUAL, '×');
          atMost(row, 'takes what 1 GiB takes, cold cache', equal(cold), GOAL_EQUAL, '×');
        }
        if (!dropped) row.notes.push('the page cache was not dropped no permission');
        row.notes.push('the CLI is a new Node process each time; qemu-img too is a new process');
        yield row;
      }
    }
  },
};

async function timed(into: number[], work: () => Promise<unknown>): Promise<void> {
  const started = process.hrtime.bigint();
  await work();
  into.push(Number(process.hrtime.bigint() - started) / 1e6);
}

const next = random(7);

/** Changes one block, so that there is something to keep. */
async function touch(daemon: Daemon, volume: string): Promise<void> {
  const client = await NbdClient.connect(daemon.nbdSocket, volume);
  const offset = Math.floor((next() * client.size) / (4 * KIB)) * 4 * KIB;
  await client.write(offset, Buffer.alloc(4 * KIB, 0x5a));
  await client.flush();
  await client.close();
}

/** A snapshot and a clone of both; which of them comes first changes, since the first pays for what is not warm yet. */
async function once(bench: Bench, daemon: Daemon, times: ByVolume, turn: number): Promise<void> {
  const volumes = turn % 2 === 0 ? ([SMALL, BIG] as const) : ([BIG, SMALL] as const);
  for (const volume of volumes) await touch(daemon, volume);
  for (const volume of volumes) await snapshotAndClone(bench, daemon, volume, times[volume]);
}

async function snapshotAndClone(bench: Bench, daemon: Daemon, volume: string, times: Times): Promise<void> {
  const name = bench.fresh('s');
  const copy = bench.fresh('c');
  await timed(times.snapshot, () => daemon.snapshot(volume, name));
  await timed(times.clone, () => daemon.clone(`${volume}@${name}`, copy));
}

async function onceByCli(bench: Bench, daemon: Daemon, times: ByVolume): Promise<void> {
  for (const volume of [SMALL, BIG] as const) {
    await touch(daemon, volume);
    const name = bench.fresh('s');
    const copy = bench.fresh('c');
    await timed(times[volume].snapshot, () => daemon.cli('snapshot', 'create', volume, name));
    await timed(times[volume].clone, () => daemon.cli('clone', `${volume}@${name}`, copy));
  }
}

/** qcow2 images like `small` and `big`; with them, a snapshot is a clone is a new overlay. */
async function qemuImages(bench: Bench) {
  const images = { [SMALL]: bench.file('times-small.qcow2'), [BIG]: bench.file('times-big.qcow2') };
  const times: Record<typeof SMALL | typeof BIG, number[]> = { [SMALL]: [], [BIG]: [] };
  for (const volume of [SMALL, BIG] as const) {
    const bytes = volume === SMALL ? GIB : SCATTER_BYTES;
    await createImage(bench.children, 'qcow2', images[volume], bytes);
    const server = await qemuNbd(bench.children, 'qcow2', images[volume]);
    // One block per L2 table and leaf is enough: an overlay's making reads the header of its base.
    if (volume === SMALL) await bench.fill(server, bytes);
    else await scatter(server, bytes, 1);
    await server.stop();
  }
  return {
    times,
    once: async (): Promise<void> => {
      for (const volume of [SMALL, BIG] as const) {
        const overlay = bench.file('times-overlay.qcow2');
        await timed(times[volume], () => createOverlay(bench.children, images[volume], 'qcow2', overlay));
        fs.rmSync(overlay);
      }
    },
    end: (): void => {
      for (const file of Object.values(images)) fs.rmSync(file);
    },
  };
}
