/** The NBD client of the benchmarks and crash tests, against nbdkit. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { Children } from '../../bench/children.ts';
import { CMD_FLAG, NbdClient, NbdClosed, NbdError } from '../../bench/nbd.ts';

const SIZE = 1 << 20;
const EIO = 5;
const missing = spawnSync('nbdkit', ['--version']).status !== 0;
if (missing) console.warn('the NBD client is not tested: there is no nbdkit');

describe.skipIf(missing)('NBD client', () => {
  const children = new Children();
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-nbd-'));
  afterAll(async () => {
    await children.stopAll();
    fs.rmSync(dir, { recursive: true });
  });

  let servers = 0;
  const serve = async (...argv: string[]) => {
    servers += 1;
    const socket = path.join(dir, `s${servers}`);
    const server = await children.server('nbdkit', ['-f', '-U', socket, ...argv], socket, path.join(dir, 'log'));
    return { socket, server };
  };

  it('reads what it wrote, many at once, whatever the order of answers', async () => {
    const { socket } = await serve('memory', String(SIZE));
    const client = await NbdClient.connect(socket, '');
    expect(client.size).toBe(SIZE);
    const block = (i: number) => Buffer.alloc(4096, i + 1);
    await Promise.all(Array.from({ length: 64 }, (_, i) => client.write(i * 4096, block(i), i % 2 ? CMD_FLAG.fua : 0)));
    await client.flush();
    const read = await Promise.all(Array.from({ length: 64 }, (_, i) => client.read(i * 4096, 4096)));
    read.forEach((data, i) => {
      expect(data.equals(block(i))).toBe(true);
    });
    await client.writeZeroes(4096, 4096);
    await client.trim(8192, 4096);
    expect((await client.read(4096, 4096)).every((byte) => byte === 0)).toBe(true);
    expect(await client.read(0, 256 * 1024)).toHaveLength(256 * 1024);
    expect(client.inFlight).toBe(0);
    await client.close();
    await expect(client.read(0, 1)).rejects.toThrow(NbdClosed);
  });

  it('gives the error of one request to that request', async () => {
    const { socket } = await serve(
      '--filter=error',
      'memory',
      String(SIZE),
      'error-pwrite=EIO',
      'error-pwrite-rate=100%',
    );
    const client = await NbdClient.connect(socket, '');
    const failed = client.write(0, Buffer.alloc(512, 1));
    const read = client.read(0, 512);
    await expect(failed).rejects.toMatchObject({ name: 'NbdError', errno: EIO });
    expect(await read).toEqual(Buffer.alloc(512));
    await client.close();
  });

  it('refuses to connect where there is no such export', async () => {
    const files = path.join(dir, 'files');
    fs.mkdirSync(files);
    const { socket } = await serve('file', `dir=${files}`);
    await expect(NbdClient.connect(socket, 'absent')).rejects.toThrow(NbdError);
  });

  it('fails everything on its way when the server dies', async () => {
    const { socket, server } = await serve('--filter=delay', 'memory', String(SIZE), 'rdelay=60');
    const client = await NbdClient.connect(socket, '');
    const reads = [client.read(0, 512), client.read(512, 512)].map((read) => expect(read).rejects.toThrow(NbdClosed));
    await server.stop('SIGKILL');
    await Promise.all(reads);
  });
});
