/**
 * kill -9 under load, again and again in one home: what was flushed is there, what is there was written, snapshots
 * keep what they had, the store needs no repair, the daemon is back within a second.
 *
 * The seed of a run is printed and taken from ATOLL_SEED. It fixes what is written and when the kills are meant to come,
 * not how threads interleave.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { ControlError, type Daemon } from '../../bench/daemon.ts';
import { NbdClient } from '../../bench/nbd.ts';
import { random } from '../../bench/scatter.ts';
import { MIB } from '../../bench/size.ts';
import { median } from '../../bench/stats.ts';
import { World } from '../e2e/lib/daemon.ts';
import { LONG } from '../e2e/lib/long.ts';
import { type DiskModel, Sequence } from '../e2e/lib/model.ts';
import { verifyDisk, Writer } from '../e2e/lib/writer.ts';

const ROUNDS = Number(process.env.ATOLL_ROUNDS ?? (LONG ? 300 : 10));
/** A round takes a few seconds; on a machine that has four times the work it can do, twenty. */
const ROUND_MS_MAX = 90_000;
const SIZE = 32 * MIB;
const CONNECTIONS = 2;
/** From when the load runs to the kill. */
const LIFE_MS = 600;
/** Snapshots and clones that are kept; older ones are deleted under load. */
const KEPT = 3;
/** A volume that is filled, copied and deleted again and again, so that kills meet freeing too. */
const CHURN_BYTES = 4 * MIB;
/** In a file; every other volume of that kind is there. */
const OTHER_POOL = 'file';
/** A slow machine gets that far now and then. */
const CHURN_MS_MAX = 10_000;
const POLL_MS = 5;
const READY_MS = 1000;
/**
 * On a machine that has other work, being ready may take as many times an empty Node process as it may take on one that
 * has not, where such a process takes 50 ms.
 */
const READY_TO_EMPTY_NODE = READY_MS / 50;

const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);
const next = random(seed);

interface CheckReport {
  ok: boolean;
  problemCount: number;
  problems: unknown[];
}

describe('kill -9', () => {
  const world = new World();
  afterAll(() => world.end());

  it(`loses nothing that was flushed, ${ROUNDS} times (seed ${seed})`, { timeout: ROUNDS * ROUND_MS_MAX }, async () => {
    console.log(`seed ${seed}`);
    // copies of the store are made, sealing and scrubbing are under way all the time
    const daemon = await world.start(['--copy-every', '1s']);
    await daemon.cli('pool', 'create', OTHER_POOL, '--path', world.file('pool'), '--size', '256M');
    for (const pool of ['local', OTHER_POOL])
      await daemon.cli('pool', 'set', pool, '--seal', 'on', '--scrub-rate', '1G');
    const sequence = new Sequence();
    await daemon.createVolume('disk', SIZE);
    const disk = new Writer(await Writer.model(daemon.nbdSocket, 'disk', sequence), next);
    const still = new Map<string, DiskModel>();
    let clone: { name: string; writer: Writer } | null = null;
    const ready: number[] = [];
    const empty: number[] = [];
    let kills = 0;
    let deletes = 0;

    for (let round = 0; round < ROUNDS; round++) {
      await disk.start(daemon.nbdSocket, 'disk', CONNECTIONS);
      if (clone) await clone.writer.start(daemon.nbdSocket, clone.name, 1);
      const snapshots = takeSnapshots(daemon, disk, still, round);
      const churned = { deleted: 0 };
      const churning = churn(daemon, round, churned);
      await sleep(next() * LIFE_MS);
      // Every other kill comes while what was deleted is being freed.
      for (let waited = 0; round % 2 === 0 && churned.deleted === 0 && waited < CHURN_MS_MAX; waited += POLL_MS)
        await sleep(POLL_MS);
      disk.expectDeath();
      clone?.writer.expectDeath();
      await daemon.kill();
      kills += 1;
      await disk.died();
      await clone?.writer.died();
      const { unanswered } = await snapshots;
      await churning;
      deletes += churned.deleted;

      empty.push(await emptyNodeMs(world));
      await daemon.restart();
      ready.push(daemon.readyMs);
      const faults = await verifyDisk(daemon.nbdSocket, 'disk', disk.model);
      if (clone) faults.push(...(await verifyDisk(daemon.nbdSocket, clone.name, clone.writer.model)));
      await settleChurn(daemon);
      await settleSnapshot(daemon, still, unanswered);
      for (const [name, model] of still) faults.push(...(await verifyDisk(daemon.nbdSocket, name, model)));
      expect(faults, `round ${round}, seed ${seed}`).toEqual([]);
      const report = await daemon.cli<CheckReport>('check');
      expect(report, `round ${round}, seed ${seed}`).toMatchObject({ ok: true, problemCount: 0 });
      expect(disk.failure ?? clone?.writer.failure ?? null).toBeNull();
      clone = await renewClone(daemon, still, clone, round);
    }
    console.log(
      `${kills} kills, ${deletes} volumes deleted, ${JSON.stringify(disk.counts)}, ready after ${ready.map((ms) => Math.round(ms)).join(' ')} ms, an empty node ${median(empty)} ms`,
    );
    expect(disk.counts.writes).toBeGreaterThan(ROUNDS);
    expect(disk.counts.flushes).toBeGreaterThan(0);
    expect(deletes).toBeGreaterThan(0);
    expect(median(ready)).toBeLessThanOrEqual(Math.max(READY_MS, median(empty) * READY_TO_EMPTY_NODE));

    // A clean stop keeps everything that was acknowledged, flushed or not.
    await disk.start(daemon.nbdSocket, 'disk', CONNECTIONS);
    await sleep(LIFE_MS);
    await disk.stop();
    await daemon.stop();
    disk.model.stopped();
    await daemon.restart();
    expect(await verifyDisk(daemon.nbdSocket, 'disk', disk.model)).toEqual([]);
    await daemon.stop();
  });
});

async function emptyNodeMs(world: World): Promise<number> {
  const started = Date.now();
  await world.run(process.execPath, '-e', '0');
  return Date.now() - started;
}

/**
 * Takes snapshots and deletes old ones, until the daemon is gone.
 *
 * @returns the one whose answer never came; it may exist or not
 */
async function takeSnapshots(daemon: Daemon, disk: Writer, still: Map<string, DiskModel>, round: number) {
  for (let i = 0; ; i++) {
    const name = `s${round}-${i}`;
    try {
      await sleep(next() * 100);
      still.set(`disk@${name}`, await disk.snapshot(() => daemon.snapshot('disk', name)));
      if (still.size > KEPT) {
        const oldest = [...still.keys()][0]!;
        still.delete(oldest);
        await daemon.deleteSnapshot(oldest);
      }
    } catch (error) {
      if (error instanceof ControlError) throw error;
      return { unanswered: `disk@${name}` };
    }
  }
}

/** Fills volumes, copies them and deletes it all, until the daemon is gone. */
async function churn(daemon: Daemon, round: number, counts: { deleted: number }): Promise<void> {
  for (let i = 0; ; i++) {
    const name = `churn-${round}-${i}`;
    const copy = `${name}-copy`;
    try {
      await daemon.createVolume(name, CHURN_BYTES, i % 2 === 0 ? 'local' : OTHER_POOL);
      const client = await NbdClient.connect(daemon.nbdSocket, name);
      await client.write(0, Buffer.alloc(CHURN_BYTES, 1 + (i % 255)));
      if (next() < 0.5) await client.flush();
      await daemon.clone(await daemon.snapshot(name, 'copied'), copy);
      // Shared with the copy, and then not.
      await client.write(0, Buffer.alloc(CHURN_BYTES / 2, 2));
      await client.trim(CHURN_BYTES / 2, CHURN_BYTES / 4);
      await client.close();
      for (const one of next() < 0.5 ? [name, copy] : [copy, name]) {
        await daemon.deleteVolume(one);
        counts.deleted += 1;
      }
    } catch (error) {
      if (error instanceof ControlError) throw error;
      return;
    }
  }
}

async function settleChurn(daemon: Daemon): Promise<void> {
  const { volumes } = await daemon.http<{ volumes: { name: string }[] }>('GET', '/v1/volumes');
  for (const { name } of volumes) if (name.startsWith('churn-')) await daemon.deleteVolume(name);
}

/** What a snapshot holds that was never answered is not checked; that it can be deleted is. */
async function settleSnapshot(daemon: Daemon, still: Map<string, DiskModel>, unanswered: string): Promise<void> {
  const { snapshots } = await daemon.http<{ snapshots: { name: string }[] }>('GET', '/v1/snapshots');
  const names = new Set(snapshots.map(({ name }) => name));
  for (const name of names) {
    if (still.has(name)) continue;
    await daemon.deleteSnapshot(name);
  }
  if (names.has(unanswered) && !still.has(unanswered)) console.log(`${unanswered} was made and not answered`);
  expect([...still.keys()].filter((name) => !names.has(name))).toEqual([]);
}

/** Every few rounds a new clone of the newest snapshot takes the old one's place. */
async function renewClone(
  daemon: Daemon,
  still: Map<string, DiskModel>,
  clone: { name: string; writer: Writer } | null,
  round: number,
) {
  const newest = [...still.keys()].at(-1);
  if (round % KEPT !== 0 || newest === undefined) return clone;
  if (clone) await daemon.deleteVolume(clone.name);
  const name = `clone-${round}`;
  await daemon.clone(newest, name);
  const model = still.get(newest)!.fork();
  return { name, writer: new Writer(model, next) };
}
