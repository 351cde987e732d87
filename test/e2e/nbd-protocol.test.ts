/**
 * What the NBD frontend promises about the engine behind it. The protocol alone, right and wrong, is tested in
 * native/test/nbd_*_test.cc; other people's clients in clients.test.ts.
 */
import fs from 'node:fs';
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Daemon } from '../../bench/daemon.ts';
import { CMD_FLAG, NbdClient, NbdClosed, NbdError } from '../../bench/nbd.ts';
import { KIB, MIB } from '../../bench/size.ts';
import { World } from './lib/daemon.ts';

const BLOCK = 64 * KIB;
const SIZE = 16 * MIB;
const SOON_MS_MAX = 20_000;

const EPERM = 1;
const EINVAL = 22;
const ENOSPC = 28;

const FLAG = { readOnly: 2, flush: 4, fua: 8, trim: 32, zeroes: 64, multi: 256, cache: 1024, fastZero: 2048 } as const;

interface MapExtent {
  offset: number;
  length: number;
  type: number;
}

async function errno(work: Promise<unknown>): Promise<number> {
  try {
    await work;
    return 0;
  } catch (error) {
    if (error instanceof NbdError) return error.errno;
    throw error;
  }
}

describe('NBD and the engine', () => {
  const world = new World();
  let daemon: Daemon;
  beforeAll(async () => {
    daemon = await world.start();
  });
  afterAll(async () => {
    await daemon?.stop();
    await world.end();
  });

  async function soon(holds: () => Promise<boolean>): Promise<void> {
    const end = Date.now() + SOON_MS_MAX;
    while (!(await holds())) {
      if (Date.now() > end) throw new Error('did not come true');
      await sleep(20);
    }
  }
  const openCount = async (name: string): Promise<number> =>
    (await daemon.cli<{ openCount: number }>('volume', 'show', name)).openCount;

  it('a flush on one connection covers what was acknowledged on all, also by kill -9', async () => {
    await daemon.createVolume('multi', SIZE);
    const clients = await Promise.all(Array.from({ length: 4 }, () => NbdClient.connect(daemon.nbdSocket, 'multi')));
    const flusher = await NbdClient.connect(daemon.nbdSocket, 'multi');
    expect(flusher.flags & FLAG.multi).toBe(FLAG.multi);
    for (let round = 1; round <= 5; round++) {
      await Promise.all(
        clients.map((client, i) => client.write((i * 40 + round) * 4 * KIB, Buffer.alloc(4 * KIB, round * 8 + i))),
      );
      await flusher.flush();
    }
    // FUA is as good as a flush, for its own bytes.
    await clients[0]?.write(8 * MIB, Buffer.alloc(3 * BLOCK + 512, 0x5a), CMD_FLAG.fua);
    await daemon.kill();
    await daemon.restart();
    const reader = await NbdClient.connect(daemon.nbdSocket, 'multi');
    for (let round = 1; round <= 5; round++) {
      for (let i = 0; i < 4; i++) {
        const data = await reader.read((i * 40 + round) * 4 * KIB, 4 * KIB);
        expect(data.equals(Buffer.alloc(4 * KIB, round * 8 + i)), `round ${round}, connection ${i}`).toBe(true);
      }
    }
    expect((await reader.read(8 * MIB, 3 * BLOCK + 512)).equals(Buffer.alloc(3 * BLOCK + 512, 0x5a))).toBe(true);
    await reader.close();
  });

  it('what one connection writes all others read at once', async () => {
    await daemon.createVolume('shared', SIZE);
    const [a, b, c] = await Promise.all([1, 2, 3].map(() => NbdClient.connect(daemon.nbdSocket, 'shared')));
    if (!a || !b || !c) throw new Error('no clients');
    for (let i = 0; i < 50; i++) {
      const at = (i * 37 * KIB) % (SIZE - BLOCK);
      await a.write(at, Buffer.alloc(5000, i + 1));
      expect((await b.read(at, 5000)).equals(Buffer.alloc(5000, i + 1))).toBe(true);
      expect((await c.read(at + 4999, 1))[0]).toBe(i + 1);
    }
    await Promise.all([a.close(), b.close(), c.close()]);
  });

  it('flags tell the truth about volumes and snapshots', async () => {
    await daemon.createVolume('flags', SIZE);
    const volume = await NbdClient.connect(daemon.nbdSocket, 'flags');
    const writable = FLAG.flush | FLAG.fua | FLAG.trim | FLAG.zeroes | FLAG.fastZero;
    expect(volume.flags & (writable | FLAG.multi | FLAG.cache | FLAG.readOnly)).toBe(
      writable | FLAG.multi | FLAG.cache,
    );
    await volume.write(0, Buffer.alloc(BLOCK, 1));
    await daemon.snapshot('flags', 's');
    const snapshot = await NbdClient.connect(daemon.nbdSocket, 'flags@s');
    expect(snapshot.flags & (writable | FLAG.readOnly)).toBe(FLAG.readOnly);
    expect(await errno(snapshot.write(0, Buffer.alloc(512)))).toBe(EPERM);
    expect(await errno(snapshot.trim(0, BLOCK))).toBe(EPERM);
    expect(await errno(snapshot.writeZeroes(0, BLOCK))).toBe(EPERM);
    await volume.write(0, Buffer.alloc(BLOCK, 2));
    expect((await snapshot.read(0, BLOCK)).equals(Buffer.alloc(BLOCK, 1))).toBe(true);
    // Range checks know the real size, to the byte.
    expect(await errno(volume.write(SIZE - 511, Buffer.alloc(512)))).toBe(ENOSPC);
    expect(await errno(volume.read(SIZE - 511, 512))).toBe(EINVAL);
    expect(await errno(volume.write(SIZE - 512, Buffer.alloc(512)))).toBe(0);
    await Promise.all([volume.close(), snapshot.close()]);
  });

  it('a connection holds its volume open, and lets it go however it ends', async () => {
    await daemon.createVolume('held', SIZE);
    const polite = await NbdClient.connect(daemon.nbdSocket, 'held');
    const rude = await NbdClient.connect(daemon.nbdSocket, 'held');
    await polite.write(0, Buffer.alloc(512, 1));
    expect(await openCount('held')).toBe(2);
    await expect(daemon.cli('volume', 'delete', 'held')).rejects.toThrow('open');
    await polite.close();
    await soon(async () => (await openCount('held')) === 1);
    void rude.write(0, Buffer.alloc(MIB, 2)).catch(() => undefined);
    rude.destroy();
    await soon(async () => (await openCount('held')) === 0);
    await daemon.deleteVolume('held');
    await expect(NbdClient.connect(daemon.nbdSocket, 'held')).rejects.toThrow();
  });

  it('a forced delete ends the connections of the volume, and of no other', async () => {
    await daemon.createVolume('doomed', SIZE);
    await daemon.createVolume('beside', SIZE);
    const doomed = await NbdClient.connect(daemon.nbdSocket, 'doomed');
    const beside = await NbdClient.connect(daemon.nbdSocket, 'beside');
    await doomed.write(0, Buffer.alloc(512, 1));
    await daemon.cli('volume', 'delete', 'doomed', '--force');
    await expect(
      (async () => {
        for (;;) await doomed.read(0, 512);
      })(),
    ).rejects.toThrow(NbdClosed);
    await beside.write(0, Buffer.alloc(512, 1));
    expect((await beside.read(0, 512)).equals(Buffer.alloc(512, 1))).toBe(true);
    await beside.close();
  });

  it('a forced delete prevails over clients that come back at once', async () => {
    for (let i = 0; i < 5; i++) {
      const name = `hunted${i}`;
      await daemon.createVolume(name, SIZE);
      let opened = 0;
      let gone = false;
      const come = async (): Promise<void> => {
        for (;;) {
          const client = await NbdClient.connect(daemon.nbdSocket, name).catch(() => null);
          if (client === null && gone) return;
          if (client === null) continue;
          opened++;
          await client.close().catch(() => undefined);
        }
      };
      const clients = Array.from({ length: 8 }, come);
      await soon(async () => opened > 8);
      await daemon.deleteVolume(name);
      gone = true;
      await Promise.all(clients);
      await expect(daemon.http('GET', `/v1/volumes/${name}`)).rejects.toThrow();
    }
  });

  it('a client sees a new size when it connects again', async () => {
    await daemon.createVolume('grown', SIZE);
    const before = await NbdClient.connect(daemon.nbdSocket, 'grown');
    await daemon.cli('volume', 'resize', 'grown', '--size', '32M');
    expect(await errno(before.write(SIZE, Buffer.alloc(512)))).toBe(ENOSPC);
    await before.close();
    const after = await NbdClient.connect(daemon.nbdSocket, 'grown');
    expect(after.size).toBe(2 * SIZE);
    expect(await errno(after.write(SIZE, Buffer.alloc(512)))).toBe(0);
    await after.close();
  });

  it('contexts of several snapshots are listed and answered, each for itself', async () => {
    await daemon.createVolume('contexts', SIZE);
    const write = async (block: number): Promise<void> => {
      const client = await NbdClient.connect(daemon.nbdSocket, 'contexts');
      await client.write(block * BLOCK, Buffer.alloc(BLOCK, 7));
      await client.close();
    };
    await write(1);
    await daemon.snapshot('contexts', 'one');
    await write(2);
    await daemon.snapshot('contexts', 'two');
    await write(3);
    const facts = JSON.parse(await world.run('nbdinfo', '--json', daemon.uri('contexts'))) as {
      exports: { contexts: string[] }[];
    };
    expect(facts.exports[0]?.contexts.sort()).toEqual(
      ['atoll:changed-since:one', 'atoll:changed-since:two', 'base:allocation'].sort(),
    );
    const changed = async (snapshot: string, name = 'contexts'): Promise<number[]> => {
      const text = await world.run('nbdinfo', `--map=atoll:changed-since:${snapshot}`, '--json', daemon.uri(name));
      const blocks: number[] = [];
      for (const { offset, length, type } of JSON.parse(text) as MapExtent[]) {
        if ((type & 1) === 0) continue;
        for (let at = offset; at < offset + length; at += BLOCK) blocks.push(at / BLOCK);
      }
      return blocks;
    };
    expect(await changed('one')).toEqual([2, 3]);
    expect(await changed('two')).toEqual([3]);
    expect(await changed('one', 'contexts@two')).toEqual([2]);
    await expect(changed('three')).rejects.toThrow();
    // A context holds its snapshot open only as long as the connection lives.
    await soon(async () =>
      (await daemon.cli<{ snapshots: { openCount: number }[] }>('snapshot', 'list')).snapshots.every(
        (one) => one.openCount === 0,
      ),
    );
    await daemon.cli('snapshot', 'delete', 'contexts@one');
    await expect(changed('one')).rejects.toThrow();
  });

  it('trims and zeroes of 4 GiB take no longer than small ones, whole and odd', async () => {
    const huge = 8 * 1024 * MIB;
    await daemon.createVolume('huge', huge);
    const client = await NbdClient.connect(daemon.nbdSocket, 'huge');
    for (const at of [0, 1024 * MIB, 4096 * MIB - BLOCK, huge - BLOCK]) await client.write(at, Buffer.alloc(BLOCK, 9));
    const most = 0xffffffff;
    await client.trim(huge - most, most);
    await client.writeZeroes(512, most);
    for (const at of [1024 * MIB, 4096 * MIB - BLOCK, huge - BLOCK]) {
      expect((await client.read(at, BLOCK)).equals(Buffer.alloc(BLOCK)), `at ${at}`).toBe(true);
    }
    const first = await client.read(0, BLOCK);
    expect(first.equals(Buffer.concat([Buffer.alloc(512, 9), Buffer.alloc(BLOCK - 512)]))).toBe(true);
    await client.close();
    expect((await daemon.cli<{ mappedBytes: number }>('volume', 'show', 'huge')).mappedBytes).toBeLessThanOrEqual(
      2 * BLOCK,
    );
  });

  it('clients that vanish, stall or send rubbish leave nothing behind', async () => {
    await daemon.createVolume('target', SIZE);
    const good = await NbdClient.connect(daemon.nbdSocket, 'target');
    const sockets: net.Socket[] = [];
    for (let i = 0; i < 40; i++) {
      const socket = net.connect(daemon.nbdSocket);
      socket.on('error', () => undefined);
      sockets.push(socket);
      if (i % 3 === 0) socket.write(Buffer.from('\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff', 'latin1'));
      if (i % 3 === 1) socket.write(Buffer.alloc(5000, i));
    }
    for (let i = 0; i < 20; i++) await good.write(i * BLOCK, Buffer.alloc(BLOCK, i + 1));
    for (const socket of sockets) socket.destroy();
    expect((await good.read(19 * BLOCK, BLOCK)).equals(Buffer.alloc(BLOCK, 20))).toBe(true);
    await good.close();
    await soon(async () => (await openCount('target')) === 0);
    expect(daemon.running).toBe(true);
  });

  it('stops while clients are connected, and keeps what it acknowledged', async () => {
    await daemon.createVolume('stopping', SIZE);
    const client = await NbdClient.connect(daemon.nbdSocket, 'stopping');
    const idle = net.connect(daemon.nbdSocket);
    idle.on('error', () => undefined);
    let acknowledged = 0;
    const load = (async () => {
      for (let i = 1; ; i++) {
        await client.write(((i * 7) % 200) * BLOCK, Buffer.alloc(4 * KIB, i % 251));
        acknowledged = i;
      }
    })().catch((error: unknown) => error);
    await soon(async () => acknowledged > 20);
    await daemon.stop();
    const end = await load;
    expect(end instanceof NbdClosed || end instanceof NbdError).toBe(true);
    expect(fs.existsSync(daemon.nbdSocket)).toBe(false);
    await daemon.restart();
    const reader = await NbdClient.connect(daemon.nbdSocket, 'stopping');
    for (let i = Math.max(1, acknowledged - 100); i <= acknowledged; i++) {
      const data = await reader.read(((i * 7) % 200) * BLOCK, 4 * KIB);
      // One more may have been done without the client hearing of it, on another block.
      expect(data[0], `write ${i}`).toBe(i % 251);
    }
    await reader.close();
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
  });
});
