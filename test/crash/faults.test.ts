/**
 * Disks that fail under the real daemon: a sync that fails once, a store on a full disk, a pool on one. Nothing that was
 * acknowledged is lost, and errors reach the client as themselves.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Daemon } from '../../bench/daemon.ts';
import { NbdClient, NbdError } from '../../bench/nbd.ts';
import { random } from '../../bench/scatter.ts';
import { MIB } from '../../bench/size.ts';
import { LONG } from '../e2e/lib/long.ts';
import { fillSector, SECTOR_BYTES, Sequence } from '../e2e/lib/model.ts';
import { verifyDisk, Writer } from '../e2e/lib/writer.ts';
import { SYNC_FAULT_ARGS, syncFaults } from './lib/sync-faults.ts';
import { mountImage, Stand, whyNoDevice } from './powerloss/device.ts';

const SIZE = 32 * MIB;
const BLOCK = 64 * 1024;
const SMALL_DISK_BYTES = 64 * MIB;
/** A thin pool keeps 64 MiB of its file system free. */
const POOL_DISK_BYTES = 224 * MIB;
const LOAD_MS = 300;
const POLL_MS = 20;
const WAIT_MS_MAX = 60_000;
const TEST_MS_MAX = 240_000;
const [EIO, ENOSPC] = [5, 28];

const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);
const why = whyNoDevice();
if (why) console.warn(`tests of failing disks are skipped: ${why}`);

async function until(what: string, holds: () => boolean): Promise<void> {
  const deadline = Date.now() + WAIT_MS_MAX;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS_MAX} ms until ${what}`);
    await sleep(POLL_MS);
  }
}

describe.skipIf(why)(`disks that fail (seed ${seed})`, { timeout: TEST_MS_MAX }, () => {
  let stand: Stand;
  let next: () => number;
  beforeEach(() => {
    stand = new Stand();
    next = random(seed);
  });
  afterEach(() => stand.end());

  async function start(home: string, env: NodeJS.ProcessEnv = {}, args: readonly string[] = []): Promise<Daemon> {
    const daemon = await Daemon.start(stand.children, { home, env, args });
    stand.uses(daemon.pid);
    return daemon;
  }

  async function load(daemon: Daemon): Promise<Writer> {
    const writer = new Writer(await Writer.model(daemon.nbdSocket, 'disk', new Sequence()), next);
    await writer.start(daemon.nbdSocket, 'disk', 2);
    await sleep(LOAD_MS);
    return writer;
  }

  async function expectWhole(daemon: Daemon, writer: Writer): Promise<void> {
    expect(await verifyDisk(daemon.nbdSocket, 'disk', writer.model)).toEqual([]);
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
    await daemon.stop();
  }

  async function fileSystem(name: string, bytes: number): Promise<string> {
    const image = stand.file(`${name}.raw`);
    fs.writeFileSync(image, '');
    fs.truncateSync(image, bytes);
    await stand.run('mkfs.ext4', '-q', '-F', '-m', '0', '-O', '^has_journal', image);
    await mountImage(stand, image, stand.file(name));
    return stand.file(name);
  }

  /** Takes what a file system has left. */
  function fill(file: string): void {
    const fd = fs.openSync(file, 'w');
    try {
      for (let piece = MIB; piece >= 512; ) {
        try {
          fs.writeSync(fd, Buffer.alloc(piece, 1));
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
          piece /= 2;
        }
      }
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  }

  it('end the daemon when a sync of the store fails, since nobody knows what is lost', async () => {
    const env = await syncFaults(stand.children, stand.file('sync-faults.so'));
    const home = stand.file('home');
    const daemon = await start(home, env('fail:/store.db-wal:12'), SYNC_FAULT_ARGS);
    await daemon.createVolume('disk', SIZE);
    const writer = new Writer(await Writer.model(daemon.nbdSocket, 'disk', new Sequence()), next);
    writer.start(daemon.nbdSocket, 'disk', 2).catch(() => undefined);
    writer.expectDeath();
    await until('the daemon ends', () => !daemon.running);
    await writer.died();
    expect(daemon.crashed).toMatch(/^exit 70; [\s\S]*store: /);
    await expectWhole(await start(home), writer);
  });

  it('make a pool refuse writes and flushes with EIO when its sync fails, until the daemon is started again', async () => {
    const env = await syncFaults(stand.children, stand.file('sync-faults.so'));
    const home = stand.file('home');
    const daemon = await start(home, env('fail:/pools/local/s0:8'), SYNC_FAULT_ARGS);
    await daemon.createVolume('disk', SIZE);
    const writer = await load(daemon);
    await until('the writers end', () => writer.failure !== null);
    await writer.stop();
    expect(writer.failure).toBeInstanceOf(NbdError);
    expect((writer.failure as NbdError).errno).toBe(EIO);
    const client = await NbdClient.connect(daemon.nbdSocket, 'disk');
    await expect(client.flush()).rejects.toMatchObject({ errno: EIO });
    await expect(client.write(0, Buffer.alloc(512))).rejects.toMatchObject({ errno: EIO });
    expect((await client.read(0, 512)).length).toBe(512);
    await client.close();
    const { pools } = await daemon.http<{ pools: { state: string }[] }>('GET', '/v1/pools');
    expect(pools).toMatchObject([{ state: 'failed' }]);
    await daemon.kill();
    await expectWhole(await start(home), writer);
  });

  it('stop commits while the disk of the store is full, and nothing else; they go on when there is room', async () => {
    const home = await fileSystem('home', SMALL_DISK_BYTES);
    const daemon = await start(home);
    await daemon.cli('pool', 'create', 'roomy', '--path', `${stand.file('pool')}/`);
    await daemon.createVolume('disk', SIZE, 'roomy');
    const writer = await load(daemon);
    const filler = `${home}/filler`;
    fill(filler);
    let seen = -1;
    let since = Date.now();
    await until('flushes wait', () => {
      if (writer.counts.flushes !== seen) since = Date.now();
      seen = writer.counts.flushes;
      return Date.now() - since > 2000;
    });
    expect(writer.failure).toBeNull();
    fs.rmSync(filler);
    await until('flushes go on', () => writer.counts.flushes > seen + 5);
    await writer.stop();
    expect(writer.failure).toBeNull();
    // What was flushed is there after a kill, also what waited.
    await daemon.kill();
    await expectWhole(await start(home), writer);
  });

  it.runIf(LONG)('end the daemon when the disk of the store stays full, with everything acknowledged', async () => {
    const home = await fileSystem('home', SMALL_DISK_BYTES);
    const daemon = await start(home);
    await daemon.cli('pool', 'create', 'roomy', '--path', `${stand.file('pool')}/`);
    await daemon.createVolume('disk', SIZE, 'roomy');
    const writer = await load(daemon);
    fill(`${home}/filler`);
    writer.expectDeath();
    await until('the daemon ends', () => !daemon.running);
    await writer.died();
    expect(daemon.crashed).toMatch(/^exit 70; [\s\S]*full/);
    fs.rmSync(`${home}/filler`);
    await expectWhole(await start(home), writer);
  });

  it('answer ENOSPC when the disk of the pool is full, and keep what they had', async () => {
    const daemon = await start(stand.file('home'));
    const pool = await fileSystem('pool', POOL_DISK_BYTES);
    await daemon.cli('pool', 'create', 'small', '--path', `${pool}/`);
    await daemon.createVolume('disk', SIZE, 'small');
    const model = await Writer.model(daemon.nbdSocket, 'disk', new Sequence());
    const client = await NbdClient.connect(daemon.nbdSocket, 'disk');
    const write = async (block: number): Promise<void> => {
      const change = model.issue((block * BLOCK) / SECTOR_BYTES, BLOCK / SECTOR_BYTES, false);
      const data = Buffer.alloc(BLOCK);
      for (let i = 0; i < change.count; i++) fillSector(data, i * SECTOR_BYTES, change.seq, change.sector + i);
      await client.write(block * BLOCK, data);
      model.acknowledge(change);
    };
    for (let block = 0; block < 20; block++) await write(block);
    const filler = `${pool}/filler`;
    fill(filler);
    // The daemon looks at the file system's room about once a second.
    let failure: unknown = null;
    let block = 20;
    for (; failure === null && block < SIZE / BLOCK; block++) {
      await sleep(POLL_MS);
      failure = await write(block).then(
        () => null,
        (error: unknown) => error,
      );
    }
    expect(failure).toMatchObject({ errno: ENOSPC });
    // Blocks that are there can be written, and flushed.
    for (let again = 0; again < 20; again++) await write(again);
    const covered = model.beginFlush();
    await client.flush();
    model.flushed(covered);
    fs.rmSync(filler);
    let wrote = false;
    const deadline = Date.now() + WAIT_MS_MAX;
    while (!wrote && Date.now() < deadline) {
      await sleep(POLL_MS);
      wrote = await write(block).then(
        () => true,
        () => false,
      );
    }
    expect(wrote).toBe(true);
    await client.close();
    await daemon.stop();
    model.stopped();
    await daemon.restart();
    expect(await verifyDisk(daemon.nbdSocket, 'disk', model)).toEqual([]);
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
    await daemon.stop();
  });
});
