/**
 * A part of the daemon dies under load: the daemon ends at once, says so by its exit code, and the next one serves what
 * was acknowledged. A client that connects again goes on.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { Daemon } from '../../bench/daemon.ts';
import { random } from '../../bench/scatter.ts';
import { MIB } from '../../bench/size.ts';
import { World } from '../e2e/lib/daemon.ts';
import { Sequence } from '../e2e/lib/model.ts';
import { verifyDisk, Writer } from '../e2e/lib/writer.ts';

const SIZE = 32 * MIB;
const LOAD_MS = 400;
const POLL_MS = 5;
/** In which a thread that waits in native code comes back and the process is gone. */
const DEATH_MS_MAX = 10_000;
const DEATHS = 3;
const RECONNECT_S = 60;
const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);

const preload = new URL('lib/end-worker.mjs', import.meta.url).href;

describe(`a daemon that loses a thread (seed ${seed})`, () => {
  const world = new World();
  afterAll(() => world.end());
  const next = random(seed);

  function start(home: string, worker: string): Promise<Daemon> {
    const env = { NODE_OPTIONS: `--import ${preload}`, ATOLL_END_WORKER: worker };
    return Daemon.start(world.children, { home: world.file(home), env });
  }

  async function endWorker(daemon: Daemon): Promise<void> {
    process.kill(daemon.pid, 'SIGUSR2');
    const deadline = Date.now() + DEATH_MS_MAX;
    while (daemon.running && Date.now() < deadline) await sleep(POLL_MS);
    expect(daemon.running).toBe(false);
  }

  it.each(['mapper', 'committer'])(
    'ends with exit code 70 when it is the %s, and loses nothing flushed',
    async (part) => {
      const daemon = await start(part, `${part}-worker`);
      await daemon.createVolume('disk', SIZE);
      const writer = new Writer(await Writer.model(daemon.nbdSocket, 'disk', new Sequence()), next);
      await writer.start(daemon.nbdSocket, 'disk', 2);
      await sleep(LOAD_MS);
      await writer.until({ flushes: 1 });
      writer.expectDeath();
      await endWorker(daemon);
      await writer.died();
      expect(daemon.crashed).toMatch(new RegExp(`^exit 70; [\\s\\S]*${part} ended`));
      await daemon.restart();
      expect(await verifyDisk(daemon.nbdSocket, 'disk', writer.model)).toEqual([]);
      expect(await daemon.cli('check')).toMatchObject({ ok: true });
      await daemon.stop();
    },
  );

  it('is started again, and QEMU with reconnect-delay goes on', async () => {
    const daemon = await start('reconnect', 'mapper-worker');
    await daemon.createVolume('disk', SIZE);
    const socket = world.file('qemu.sock');
    const image = `driver=nbd,server.type=unix,server.path=${daemon.nbdSocket},export=disk,reconnect-delay=${RECONNECT_S}`;
    const qemu = await world.children.server(
      'qemu-nbd',
      ['--persistent', '--shared=8', `--socket=${socket}`, '--image-opts', image],
      socket,
      world.file('qemu.log'),
    );
    // Each write is durable when it is answered: what was not flushed may be lost with a daemon, and nobody is told.
    const writer = new Writer(await Writer.model(socket, '', new Sequence()), next, 'durable');
    await writer.start(socket, '', 2);
    for (let death = 0; death < DEATHS; death++) {
      await sleep(LOAD_MS);
      await endWorker(daemon);
      expect(daemon.crashed).toMatch(/^exit 70; /);
      await daemon.restart();
      const before = writer.counts.writes;
      const deadline = Date.now() + RECONNECT_S * 1000;
      while (writer.counts.writes <= before && writer.failure === null && Date.now() < deadline) await sleep(POLL_MS);
      expect(writer.failure).toBeNull();
      expect(writer.counts.writes).toBeGreaterThan(before);
    }
    await writer.stop();
    expect(writer.failure).toBeNull();
    await qemu.stop();
    expect(await verifyDisk(daemon.nbdSocket, 'disk', writer.model)).toEqual([]);
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
    await daemon.stop();
  });
});
