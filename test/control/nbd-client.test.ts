/** The NBD client against other people's servers, and against a server that breaks the rules. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ControlError } from '../../src/control/errors.ts';
import { allocated } from '../../src/control/nbd/allocated.ts';
import { NbdClient } from '../../src/control/nbd/client.ts';
import * as proto from '../../src/control/nbd/protocol.ts';
import { untilListening } from './listening.ts';

const MIB = 1 << 20;

let folder: string;
const children: ChildProcess[] = [];
let sockets = 0;

beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'atoll-nbd-'));
});
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGTERM');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const has = (tool: string) => spawnSync(tool, ['--version']).error === undefined;

/** Starts a server in the foreground and waits until it accepts. */
async function serve(command: string, args: (socket: string) => string[]): Promise<string> {
  const socket = path.join(folder, `s${sockets++}`);
  const child = spawn(command, args(socket), { stdio: 'ignore' });
  children.push(child);
  await untilListening(socket);
  return socket;
}

const nbdkit = (...plugin: string[]) => serve('nbdkit', (socket) => ['-f', '-U', socket, ...plugin]);

function code(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'none',
    (error) => (error instanceof ControlError ? error.code : `not a ControlError: ${error}`),
  );
}

async function runsOf(nbd: NbdClient): Promise<[number, number][]> {
  const runs: [number, number][] = [];
  for await (const { offset, length } of allocated(nbd)) runs.push([offset, length]);
  return runs;
}

describe.skipIf(!has('nbdkit'))('against nbdkit', () => {
  it('writes, reads, zeroes, flushes, many at once', async () => {
    const nbd = await NbdClient.connect({ socket: await nbdkit('memory', '64M'), exportName: '' });
    expect(nbd.size).toBe(64 * MIB);
    expect(nbd.readOnly).toBe(false);
    const offsets = Array.from({ length: 64 }, (_, index) => index * MIB);
    await Promise.all(offsets.map((offset, index) => nbd.write(offset, Buffer.alloc(MIB, index + 1))));
    await nbd.zero(8 * MIB, 3 * MIB);
    await nbd.flush();
    const read = await Promise.all(offsets.map((offset) => nbd.read(offset, MIB)));
    read.forEach((bytes, index) => {
      const value = index >= 8 && index < 11 ? 0 : index + 1;
      expect(bytes.equals(Buffer.alloc(MIB, value)), `piece ${index}`).toBe(true);
    });
    // A read that begins and ends within pieces.
    const across = await nbd.read(7 * MIB + 512, 2 * MIB);
    expect(across.subarray(0, MIB - 512).every((b) => b === 8)).toBe(true);
    expect(across.subarray(MIB - 512).every((b) => b === 0)).toBe(true);
    await nbd.close();
  });

  it('tells what is allocated, joined, and in one piece at the end', async () => {
    const nbd = await NbdClient.connect({ socket: await nbdkit('memory', '64M'), exportName: '' });
    expect(await runsOf(nbd)).toEqual([]);
    await nbd.write(MIB, Buffer.alloc(2 * MIB, 1));
    await nbd.write(64 * MIB - 32768, Buffer.alloc(32768, 1));
    expect(await runsOf(nbd)).toEqual([
      [MIB, 2 * MIB],
      [64 * MIB - 32768, 32768],
    ]);
    await nbd.close();
  });

  it('asks for what is allocated beyond 4 GiB, where lengths do not fit 32 bits', async () => {
    const nbd = await NbdClient.connect({ socket: await nbdkit('memory', '1T'), exportName: '' });
    const at = 5 * 2 ** 30;
    await nbd.write(at, Buffer.alloc(32768, 1));
    await nbd.write(2 ** 40 - 32768, Buffer.alloc(32768, 2));
    expect(await runsOf(nbd)).toEqual([
      [at, 32768],
      [2 ** 40 - 32768, 32768],
    ]);
    await nbd.zero(0, 2 ** 40);
    expect(await runsOf(nbd)).toEqual([]);
    await nbd.close();
  });

  it.each([
    ['EIO', 'IO'],
    ['ENOSPC', 'NO_SPACE'],
    ['EPERM', 'READ_ONLY'],
    ['EINVAL', 'INVALID'],
    ['ESHUTDOWN', 'SHUTTING_DOWN'],
  ])('an error of the server keeps its cause: %s', async (errno, expected) => {
    const socket = await nbdkit('--filter=error', 'memory', '1M', `error-pwrite=${errno}`, 'error-pwrite-rate=100%');
    const nbd = await NbdClient.connect({ socket, exportName: '' });
    expect(await code(nbd.write(0, Buffer.alloc(512)))).toBe(expected);
    // and the connection goes on
    expect((await nbd.read(0, 512)).equals(Buffer.alloc(512))).toBe(true);
    await nbd.close();
  });

  it('knows a read-only export, and one without block status', async () => {
    const nbd = await NbdClient.connect({
      socket: await nbdkit('-r', '--filter=noextents', 'memory', '1M'),
      exportName: '',
    });
    expect(nbd.readOnly).toBe(true);
    // nbdkit still has base:allocation and calls all of it data.
    expect(await runsOf(nbd)).toEqual([[0, MIB]]);
    await nbd.close();
  });

  it('reads without structured replies too', async () => {
    const socket = await nbdkit('--no-sr', 'pattern', '1M');
    const nbd = await NbdClient.connect({ socket, exportName: '' });
    expect(nbd.hasStatus).toBe(false);
    expect((await nbd.read(4096, 8)).readBigUInt64BE(0)).toBe(4096n);
    expect(await runsOf(nbd)).toEqual([[0, MIB]]);
    await nbd.close();
  });

  it('requests that are on their way when the server dies fail, and later ones too', async () => {
    const socket = await nbdkit('--filter=delay', 'memory', '1M', 'rdelay=30');
    const nbd = await NbdClient.connect({ socket, exportName: '' });
    const read = code(nbd.read(0, 512));
    await sleep(100);
    children.at(-1)!.kill('SIGKILL');
    expect(await read).toBe('PROTOCOL');
    expect(await code(nbd.read(0, 512))).toBe('PROTOCOL');
  });
});

describe.skipIf(!has('qemu-nbd'))('against qemu-nbd', () => {
  it('opens an export by its name, and says when there is none', async () => {
    const image = path.join(folder, 'disk.qcow2');
    spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1G']);
    spawnSync('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 100M 1M', image]);
    const socket = await serve('qemu-nbd', (at) => [
      '-t',
      '-e',
      '4',
      '-f',
      'qcow2',
      '-x',
      'näme with /',
      '-k',
      at,
      image,
    ]);
    const nbd = await NbdClient.connect({ socket, exportName: 'näme with /' });
    expect(await runsOf(nbd)).toEqual([[100 * MIB, MIB]]);
    expect((await nbd.read(100 * MIB - 512, 1024)).subarray(512).every((b) => b === 5)).toBe(true);
    expect(await code(NbdClient.connect({ socket, exportName: 'other' }))).toBe('NOT_FOUND');
    await nbd.close();
  });
});

describe('against nobody', () => {
  it('says that no daemon is there', async () => {
    expect(await code(NbdClient.connect({ socket: path.join(folder, 'none'), exportName: '' }))).toBe('NO_DAEMON');
  });
});

describe('against a server that breaks the rules', () => {
  /** A server that negotiates properly and then answers every request with what `answer` makes of it. */
  async function rogue(answer: (cookie: Buffer, socket: net.Socket) => void): Promise<NbdClient> {
    const at = path.join(folder, `s${sockets++}`);
    const server = net.createServer((socket) => {
      socket.on('error', () => undefined);
      const greeting = Buffer.alloc(18);
      greeting.writeBigUInt64BE(proto.NBD_MAGIC, 0);
      greeting.writeBigUInt64BE(proto.OPTION_MAGIC, 8);
      greeting.writeUInt16BE(3, 16);
      socket.write(greeting);
      let seen = Buffer.alloc(0);
      let flags = false;
      socket.on('data', (chunk) => {
        seen = Buffer.concat([seen, chunk]);
        if (!flags && seen.length >= 4) {
          seen = seen.subarray(4);
          flags = true;
        }
        while (flags && seen.length >= 16 && seen.readBigUInt64BE(0) === proto.OPTION_MAGIC) {
          const length = 16 + seen.readUInt32BE(12);
          if (seen.length < length) return;
          option(socket, seen.readUInt32BE(8));
          seen = seen.subarray(length);
        }
        while (seen.length >= 28 && seen.readUInt32BE(0) === proto.REQUEST_MAGIC) {
          answer(seen.subarray(8, 16), socket);
          seen = seen.subarray(28);
        }
      });
    });
    await new Promise<void>((resolve) => server.listen(at, resolve));
    server.unref();
    return NbdClient.connect({ socket: at, exportName: 'x' });
  }

  function option(socket: net.Socket, number: number): void {
    const reply = (type: number, body: Buffer) => {
      const head = Buffer.alloc(20);
      head.writeBigUInt64BE(proto.OPTION_REPLY_MAGIC, 0);
      head.writeUInt32BE(number, 8);
      head.writeUInt32BE(type, 12);
      head.writeUInt32BE(body.length, 16);
      socket.write(Buffer.concat([head, body]));
    };
    if (number === proto.OPTION.setMetaContext) {
      reply(proto.REPLY.metaContext, Buffer.concat([Buffer.from([0, 0, 0, 9]), Buffer.from('base:allocation')]));
    }
    if (number === proto.OPTION.go) {
      const info = Buffer.alloc(12);
      info.writeBigUInt64BE(BigInt(MIB), 2);
      info.writeUInt16BE(1, 10);
      reply(proto.REPLY.info, info);
    }
    reply(proto.REPLY.ack, Buffer.alloc(0));
  }

  function chunk(cookie: Buffer, type: number, body: Buffer, flags = 1): Buffer {
    const head = Buffer.alloc(20);
    head.writeUInt32BE(proto.STRUCTURED_REPLY_MAGIC, 0);
    head.writeUInt16BE(flags, 4);
    head.writeUInt16BE(type, 6);
    cookie.copy(head, 8);
    head.writeUInt32BE(body.length, 16);
    return Buffer.concat([head, body]);
  }

  function at(offset: number, data: Buffer): Buffer {
    const place = Buffer.alloc(8);
    place.writeBigUInt64BE(BigInt(offset));
    return Buffer.concat([place, data]);
  }

  const u32 = (...values: number[]) => {
    const bytes = Buffer.alloc(values.length * 4);
    for (const [index, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, index * 4);
    return bytes;
  };

  it('the server itself works when it keeps the rules', async () => {
    const nbd = await rogue((cookie, socket) => socket.write(chunk(cookie, 1, at(0, Buffer.alloc(512, 3)))));
    expect((await nbd.read(0, 512)).every((b) => b === 3)).toBe(true);
    await nbd.close();
  });

  it.each<[string, (cookie: Buffer, socket: net.Socket) => void]>([
    ['no reply at all', (_c, s) => s.write(Buffer.alloc(32, 0xff))],
    ['a cookie that was not asked', (_c, s) => s.write(chunk(Buffer.alloc(8, 9), 1, at(0, Buffer.alloc(512))))],
    ['data before what was asked', (c, s) => s.write(chunk(c, 1, at(0, Buffer.alloc(1024))))],
    ['data behind what was asked', (c, s) => s.write(chunk(c, 1, at(1024, Buffer.alloc(512))))],
    ['more data than asked', (c, s) => s.write(chunk(c, 1, at(512, Buffer.alloc(1024))))],
    ['a part left out', (c, s) => s.write(chunk(c, 1, at(512, Buffer.alloc(256))))],
    [
      'a part twice',
      (c, s) => {
        s.write(chunk(c, 1, at(512, Buffer.alloc(512)), 0));
        s.write(chunk(c, 1, at(512, Buffer.alloc(512))));
      },
    ],
    ['nothing but done', (c, s) => s.write(chunk(c, 0, Buffer.alloc(0)))],
    ['a hole of 4 GiB', (c, s) => s.write(chunk(c, 2, Buffer.concat([at(512, Buffer.alloc(0)), u32(0xffffffff)])))],
    ['a malformed hole', (c, s) => s.write(chunk(c, 2, at(512, Buffer.alloc(0))))],
    ['status where data is wanted', (c, s) => s.write(chunk(c, 5, u32(9, 512, 0)))],
    ['an unknown chunk', (c, s) => s.write(chunk(c, 77, Buffer.alloc(0)))],
    ['an error longer than errors are', (c, s) => s.write(chunk(c, 32769, Buffer.alloc(100_000)))],
    [
      'an error whose text is longer than itself',
      (c, s) => s.write(chunk(c, 32769, Buffer.concat([u32(5), Buffer.from([0xff, 0xff])]))),
    ],
    [
      'a simple reply to a read',
      (c, s) => s.write(Buffer.concat([u32(proto.SIMPLE_REPLY_MAGIC, 0), c, Buffer.alloc(512)])),
    ],
    ['the end of the connection', (_c, s) => s.destroy()],
  ])('a read: %s', async (_what, answer) => {
    const nbd = await rogue(answer);
    expect(await code(nbd.read(512, 512))).toBe('PROTOCOL');
    await nbd.close();
  });

  it.each<[string, Buffer]>([
    ['no extents', u32(9)],
    ['half an extent', u32(9, 512)],
    ['an empty extent', u32(9, 0, 0)],
    ['another context', u32(8, 512, 0)],
  ])('block status: %s', async (_what, body) => {
    const nbd = await rogue((cookie, socket) => socket.write(chunk(cookie, 5, body)));
    expect(await code(nbd.blockStatus(0, MIB))).toBe('PROTOCOL');
    await nbd.close();
  });

  it('block status: an extent beyond what was asked for is cut, the protocol allows it', async () => {
    const nbd = await rogue((cookie, socket) => socket.write(chunk(cookie, 5, u32(9, 0xffffffff, 3))));
    expect(await nbd.blockStatus(0, 4096)).toEqual([{ length: 4096, flags: 3 }]);
    await nbd.close();
  });

  it('an error keeps its text, and only a bounded part of it', async () => {
    const text = Buffer.alloc(4096, 'x');
    const nbd = await rogue((c, s) => s.write(chunk(c, 32769, Buffer.concat([u32(28), Buffer.from([0x10, 0]), text]))));
    const error = (await nbd.write(0, Buffer.alloc(0)).catch((e: unknown) => e)) as ControlError;
    expect(error.code).toBe('NO_SPACE');
    expect(error.message.length).toBeLessThan(700);
    await nbd.close();
  });
});
