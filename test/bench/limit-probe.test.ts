/** The limit probe of the benchmarks: not a server to use, but its answers must be right for its numbers to mean anything. */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Children } from '../../bench/children.ts';
import { CMD_FLAG, NbdClient, NbdClosed } from '../../bench/nbd.ts';
import { compileLimitProbe, hasCompiler, limitProbe } from '../../bench/peers/limit-probe.ts';
import { flush, uriOf } from '../../bench/peers/server.ts';
import { MIB } from '../../bench/size.ts';

const SIZE = 8 * MIB;
const missing = !hasCompiler();
if (missing) console.warn('the limit probe is not tested: there is no g++');
const qemuIo = spawnSync('qemu-io', ['--version']).status === 0;

/** Bytes that differ from place to place, so that data of another place is not taken for right. */
function pattern(length: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i + 1, 2_654_435_761) ^ seed;
  return Buffer.from(words.buffer, 0, length);
}

describe.skipIf(missing)('limit probe', () => {
  const children = new Children();
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-probe-'));
  const file = path.join(dir, 'data');
  let program: string;
  beforeAll(async () => {
    program = await compileLimitProbe(children, dir);
  });
  afterAll(async () => {
    await children.stopAll();
    fs.rmSync(dir, { recursive: true });
  });

  it('gives back what was written, many at once, and keeps it in its file', async () => {
    const server = await limitProbe(children, program, dir, SIZE, file);
    const client = await NbdClient.connect(server.socket, server.exportName);
    expect(client.size).toBe(SIZE);
    const blocks = Array.from({ length: 64 }, (_, i) => pattern(4096, i));
    await Promise.all(blocks.map((block, i) => client.write(i * 4096, block, i % 2 ? CMD_FLAG.fua : 0)));
    await client.flush();
    const read = await Promise.all(blocks.map((_, i) => client.read(i * 4096, 4096)));
    for (const [i, data] of read.entries()) expect(data.equals(blocks[i]!)).toBe(true);
    expect(
      fs
        .readFileSync(file)
        .subarray(0, 64 * 4096)
        .equals(Buffer.concat(blocks)),
    ).toBe(true);
    await client.close();
    await server.stop();
  });

  it('answers what is longer than one send or one receive, at odd places', async () => {
    const server = await limitProbe(children, program, dir, SIZE, file);
    const client = await NbdClient.connect(server.socket, server.exportName);
    const data = pattern(3 * MIB + 17, 9);
    await Promise.all([client.write(5, data), client.write(SIZE - data.length, data)]);
    const lengths = [data.length, 65_536, 65_536 - 16, 65_536 - 15, 1, 65_519, 300_001];
    const read = await Promise.all(lengths.map((length) => client.read(5, length)));
    for (const [i, length] of lengths.entries()) expect(read[i]!.equals(data.subarray(0, length))).toBe(true);
    expect((await client.read(SIZE - data.length, data.length)).equals(data)).toBe(true);
    await client.close();
    await server.stop();
  });

  it.skipIf(!qemuIo)('speaks structured replies with a client that wants them', async () => {
    const server = await limitProbe(children, program, dir, SIZE, file);
    const commands = [
      'write -P 7 1000 1M',
      'flush',
      'read -P 7 1000 1M',
      'write -f -P 8 4096 4096',
      'read -P 8 4096 4096',
    ];
    const argv = ['-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uriOf(server)];
    const said = execFileSync('qemu-io', argv, { encoding: 'utf8' });
    expect(said).not.toContain('failed');
    expect(said.match(/^read \d+\/\d+ bytes/gm)).toHaveLength(2);
    await server.stop();
  });

  it('ends the connection of a request that it cannot answer, and no other', async () => {
    const server = await limitProbe(children, program, dir, SIZE, file);
    const kept = await NbdClient.connect(server.socket, server.exportName);
    for (const wrong of [(c: NbdClient) => c.read(SIZE - 1, 2), (c: NbdClient) => c.trim(0, 4096)]) {
      await expect(wrong(await NbdClient.connect(server.socket, ''))).rejects.toThrow(NbdClosed);
    }
    expect(await kept.read(SIZE - 1, 1)).toHaveLength(1);
    await kept.close();
    await server.stop();
  });

  it('stores nothing when it has no file, and answers as if it did', async () => {
    const server = await limitProbe(children, program, dir, 1024 * SIZE, null);
    const client = await NbdClient.connect(server.socket, server.exportName);
    expect(client.size).toBe(1024 * SIZE);
    await client.write(1023 * SIZE, pattern(MIB, 1), CMD_FLAG.fua);
    expect(await client.read(1023 * SIZE, 300_000)).toHaveLength(300_000);
    await client.close();
    await flush(server);
    await server.stop();
    expect(fs.readdirSync(dir).sort()).toEqual(['data', 'limit-probe', 'limit-probe.log']);
  });
});
