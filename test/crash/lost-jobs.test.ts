/**
 * A thread that hashes or writes for the daemon dies in the middle of a job, under load: the job is run again. The daemon
 * goes on, what is sealed or imported has the hash of its bytes, and nobody is told.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { Daemon } from '../../bench/daemon.ts';
import { NbdClient } from '../../bench/nbd.ts';
import { random } from '../../bench/scatter.ts';
import { MIB } from '../../bench/size.ts';
import { World } from '../e2e/lib/daemon.ts';
import { LONG } from '../e2e/lib/long.ts';
import { Sequence } from '../e2e/lib/model.ts';
import { verifyDisk, Writer } from '../e2e/lib/writer.ts';
import { expectedHash } from '../xseg/expected-hash.ts';

/** of a volume, and of an image: one hashing job, and two pieces of an ingest */
const BYTES = 32 * MIB;
const BLOCK = 64 * 1024;
/** Threads that end, one after the other. */
const LOSSES = LONG ? 20 : 2;
/** Volumes, or images, until that many ended in a job of one; every second one does. */
const TRIES_MAX = LOSSES * 10;
/** They take a second or two each. */
const TEST_MS_MAX = TRIES_MAX * 10_000;
const POLL_MS = 5;
/** Less than a snapshot is put off whose job could not be run. */
const WAIT_MS_MAX = 40_000;
const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);

const preload = new URL('lib/end-worker.mjs', import.meta.url).href;

describe(`a daemon that loses a thread in the middle of a job (seed ${seed})`, { timeout: TEST_MS_MAX }, () => {
  const world = new World();
  afterAll(() => world.end());
  const next = random(seed);

  async function start(home: string, worker: string, args: string[] = []): Promise<{ daemon: Daemon; writer: Writer }> {
    const env = { NODE_OPTIONS: `--import ${preload}`, ATOLL_END_WORKER: worker };
    const daemon = await Daemon.start(world.children, { home: world.file(home), env, args });
    await daemon.createVolume('disk', BYTES);
    const writer = new Writer(await Writer.model(daemon.nbdSocket, 'disk', new Sequence()), next);
    await writer.start(daemon.nbdSocket, 'disk', 1);
    return { daemon, writer };
  }

  /** Bytes of which no others have a block, but for one in four that is zero, and one in four that they have twice. */
  function content(): Buffer {
    const bytes = Buffer.from(Uint32Array.from({ length: BYTES / 4 }, () => next() * 2 ** 32).buffer);
    for (let at = 4 * BLOCK; at < BYTES; at += 4 * BLOCK) {
      bytes.fill(0, at, at + BLOCK);
      bytes.copy(bytes, at + BLOCK, at - BLOCK, at);
    }
    return bytes;
  }

  const lost = (daemon: Daemon): number => fs.readFileSync(daemon.log, 'utf8').split('lost a job of').length - 1;

  /** Threads end, one after the other, each while `work` is under way. */
  async function loseJobs(daemon: Daemon, work: (name: string) => Promise<void>): Promise<void> {
    for (let losses = 0, tries = 0; losses < LOSSES; losses++) {
      process.kill(daemon.pid, 'SIGUSR2');
      for (; lost(daemon) === losses; tries++) {
        expect(tries, 'no thread ended in a job').toBeLessThan(TRIES_MAX);
        await work(`v${tries}`);
        await daemon.deleteVolume(`v${tries}`);
      }
    }
  }

  async function expectBytes(daemon: Daemon, name: string, bytes: Buffer): Promise<void> {
    const client = await NbdClient.connect(daemon.nbdSocket, name);
    for (let at = 0; at < bytes.length; at += MIB)
      expect((await client.read(at, MIB)).equals(bytes.subarray(at, at + MIB)), `${name} at ${at}`).toBe(true);
    await client.close();
  }

  /** It goes on as if nothing had been, and says nothing of it. */
  async function expectWell(daemon: Daemon, writer: Writer): Promise<void> {
    await writer.stop();
    expect(writer.failure).toBeNull();
    expect(daemon.running).toBe(true);
    expect(fs.readFileSync(daemon.log, 'utf8')).not.toMatch(/hashing failed|Z error /);
    expect(await verifyDisk(daemon.nbdSocket, 'disk', writer.model)).toEqual([]);
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
    await daemon.stop();
  }

  it('seals what it was sealing: hashes are those of the bytes, which are all there', async () => {
    const { daemon, writer } = await start('sealing', 'seal/hash-worker');
    await daemon.cli('pool', 'set', 'local', '--seal', 'on');
    await loseJobs(daemon, async (name) => {
      const bytes = content();
      await daemon.createVolume(name, BYTES);
      const client = await NbdClient.connect(daemon.nbdSocket, name);
      for (let at = 0; at < BYTES; at += MIB) await client.write(at, bytes.subarray(at, at + MIB));
      await client.close();
      await daemon.snapshot(name, 's');
      const route = `/v1/volumes/${name}/snapshots/s`;
      const deadline = Date.now() + WAIT_MS_MAX;
      let hash: string | null = null;
      while (hash === null && Date.now() < deadline) {
        await sleep(POLL_MS);
        hash = (await daemon.http<{ hash: string | null }>('GET', route)).hash;
      }
      expect(hash).toBe(expectedHash(bytes, BLOCK));
      await expectBytes(daemon, `${name}@s`, bytes);
    });
    await expectWell(daemon, writer);
  });

  const ways: [string, string[]][] = [
    ['reads', []],
    // whose clients it reads no files for
    ['is sent', ['--socket-group', String(process.getgid!())]],
  ];
  it.each(ways)('ends an import whose image it %s, with the hash and the bytes of the image', async (way, args) => {
    const { daemon, writer } = await start(way.replace(' ', '-'), 'ingest/ingest-worker', args);
    const image = world.file('image.raw');
    await loseJobs(daemon, async (name) => {
      const bytes = content();
      fs.writeFileSync(image, bytes);
      const { snapshot } = await daemon.cli<{ snapshot: { hash: string } }>('import', image, `${name}@s`);
      expect(snapshot.hash).toBe(expectedHash(bytes, BLOCK));
      await expectBytes(daemon, `${name}@s`, bytes);
    });
    await expectWell(daemon, writer);
  });
});
