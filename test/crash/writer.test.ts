/**
 * The load and its model, against servers whose behaviour is known: a file keeps what was written when its server is
 * killed, memory does not.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { nbdkitFile, nbdkitMemory } from '../../bench/peers/nbdkit.ts';
import { random } from '../../bench/scatter.ts';
import { MIB } from '../../bench/size.ts';
import { World } from '../e2e/lib/daemon.ts';
import { Sequence } from '../e2e/lib/model.ts';
import { verifyDisk, Writer } from '../e2e/lib/writer.ts';

const SIZE = 4 * MIB;
const LOAD_MS = 300;

describe('the load of the crash tests', () => {
  const world = new World();
  afterAll(() => world.end());

  it('finds nothing wrong with a file whose server was killed', async () => {
    const file = world.file('disk');
    fs.writeFileSync(file, Buffer.alloc(SIZE));
    const server = await nbdkitFile(world.children, file);
    const writer = new Writer(await Writer.model(server.socket, '', new Sequence()), random(1));
    await writer.start(server.socket, '', 2);
    await sleep(LOAD_MS);
    await writer.until({ writes: 11, flushes: 1 });
    writer.expectDeath();
    process.kill(server.pid, 'SIGKILL');
    await writer.died();
    expect(writer.failure).toBeNull();
    fs.rmSync(server.socket);
    const again = await nbdkitFile(world.children, file);
    expect(await verifyDisk(again.socket, '', writer.model)).toEqual([]);
    // And what it found is what it wants to find from then on.
    expect(await verifyDisk(again.socket, '', writer.model)).toEqual([]);
    await again.stop();
  });

  it('misses what was flushed to a server that forgets', async () => {
    const server = await nbdkitMemory(world.children, world.dir, SIZE);
    const writer = new Writer(await Writer.model(server.socket, '', new Sequence()), random(2));
    await writer.start(server.socket, '', 2);
    await sleep(LOAD_MS);
    await writer.until({ writes: 1, flushes: 1 });
    await writer.stop();
    expect(writer.failure).toBeNull();
    await server.stop();
    const again = await nbdkitMemory(world.children, world.dir, SIZE);
    expect(await verifyDisk(again.socket, '', writer.model)).not.toEqual([]);
    await again.stop();
  });

  it('reports an error that nobody expected', async () => {
    const server = await nbdkitMemory(world.children, world.dir, SIZE);
    const writer = new Writer(await Writer.model(server.socket, '', new Sequence()), random(3));
    await writer.start(server.socket, '', 1);
    process.kill(server.pid, 'SIGKILL');
    await writer.died();
    expect(writer.failure?.message).toContain('closed');
  });
});
