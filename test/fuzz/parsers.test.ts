/**
 * Everything in TypeScript that parses bytes or text from outside, fed with what is nearly right: each either takes it or
 * says by its own error what is wrong. Never another exception, never without an end. (What parses in C++ has fuzz targets in
 * native/fuzz.) A failure prints a seed, which ATOLL_SEED gives again.
 */
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildApi } from '../../src/control/api/server.ts';
import { parseCatalogUrl } from '../../src/control/catalog/place.ts';
import { parseLimits } from '../../src/control/commands/quota.ts';
import { parseDuration } from '../../src/control/durations.ts';
import { ControlError } from '../../src/control/errors.ts';
import { Ingests } from '../../src/control/ingests.ts';
import { Mounts } from '../../src/control/mounts.ts';
import { NbdClient } from '../../src/control/nbd/client.ts';
import { NBD_MAGIC, OPTION_MAGIC } from '../../src/control/nbd/protocol.ts';
import {
  formatNbdAddress,
  isLoopback,
  parseHttpAddress,
  parseMetricsAddress,
  parseNbdAddress,
  parsePublicUrl,
} from '../../src/control/serve/addresses.ts';
import { parseSize, parseVolumeSize } from '../../src/control/sizes.ts';
import { encodeHeader, encodeRecord } from '../../src/control/stream/format.ts';
import { StreamReader } from '../../src/control/stream/read.ts';
import { writeStream } from '../../src/control/stream/write.ts';
import { inspectQcow2, QCOW2_MAGIC } from '../../src/control/transfer/qcow2.ts';
import { Transfers } from '../../src/control/transfers.ts';
import { findCopies } from '../../src/xseg/copies/files.ts';
import { type CopyFooter, decodeFooter, encodeFooter, FOOTER_BYTES } from '../../src/xseg/copies/footer.ts';
import { AREA_BYTES_MIN, areaAt, COPY_NAMES } from '../../src/xseg/copies/place.ts';
import { checkName, joinName, splitName, takeApart } from '../../src/xseg/names.ts';
import { loadNative } from '../../src/xseg/native.ts';
import { decodeSuperblock, encodeSuperblock, SUPERBLOCK_BYTES } from '../../src/xseg/pool-superblock.ts';
import { crcOf } from '../../src/xseg/pools.ts';
import { EngineError } from '../../src/xseg/types.ts';
import { FakeEngine, metricsOf } from '../control/fake-engine.ts';
import { LONG } from '../e2e/lib/long.ts';

const RUNS = LONG ? 50_000 : 500;
/** of those that go through sockets and files */
const SLOW_RUNS = LONG ? 5000 : 100;
const TIMEOUT = 1_800_000;
const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);
const crc = crcOf(loadNative());
const HOME = '01234567-89ab-cdef-0123-456789abcdef';
const POOL = 'fedcba98-7654-3210-fedc-ba9876543210';

let folder: string;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-fuzz-'));
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

/** Changes of bytes that were right: some overwritten, with values that like to be borders, and perhaps cut off. */
const changes = fc.record({
  bytes: fc.array(
    fc.record({
      at: fc.nat(),
      value: fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.integer({ min: 0, max: 255 })),
      times: fc.constantFrom(1, 1, 2, 4, 8),
    }),
    { maxLength: 4 },
  ),
  cut: fc.option(fc.nat(), { freq: 6 }),
});
type Changes = typeof changes extends fc.Arbitrary<infer T> ? T : never;

function changed(good: Buffer, { bytes, cut }: Changes, among = good.length): Buffer {
  const result = Buffer.from(good);
  for (const { at, value, times } of bytes) result.fill(value, at % among, Math.min(among, (at % among) + times));
  return cut === null ? result : result.subarray(0, cut % (result.length + 1));
}

function check<T>(property: fc.IProperty<T>, numRuns = RUNS): void {
  fc.assert(property, { seed, numRuns });
}
function checkAsync<T>(property: fc.IAsyncProperty<T>, numRuns = SLOW_RUNS): Promise<void> {
  return fc.assert(property, { seed, numRuns });
}
/** Lone surrogates cannot be in a URL. */
const inUrl = (text: string) => encodeURIComponent(Buffer.from(text).toString());

/** Runs; errors that say what is wrong are fine, and have a code and one line. */
function tolerant(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    told(error);
  }
}
function told(error: unknown): void {
  coded(error);
  expect((error as Error).message).not.toMatch(/\n/);
  expect((error as Error).message.length).toBeLessThan(10_000);
}
function coded(error: unknown): void {
  if (!(error instanceof EngineError || error instanceof ControlError)) throw error;
  expect(error.code).toMatch(/^[A-Z_]+$/);
}
/** What somebody typed: an error may repeat it, and who prints it makes one line of it (errors.test.ts). */
function typed(run: () => unknown): void {
  try {
    run();
  } catch (error) {
    coded(error);
  }
}

/** With the checksum of its last four bytes made right, so that what is behind it is reached. */
function resealed(block: Buffer): Buffer {
  if (block.length >= 4) block.writeUInt32LE(crc(block.subarray(0, block.length - 4)), block.length - 4);
  return block;
}

describe(`parsers (seed ${seed})`, () => {
  it('superblocks', { timeout: TIMEOUT }, () => {
    const good = encodeSuperblock(
      {
        ...{ blockShift: 16, kind: 'file', poolUuid: POOL, homeUuid: HOME, groupSlots: 16384 },
        ...{ size: 2 ** 30, createdAt: 1, copyArea: AREA_BYTES_MIN },
      },
      crc,
    );
    expect(decodeSuperblock(good, 'x', crc)).toMatchObject({ copyArea: AREA_BYTES_MIN, poolUuid: POOL });
    check(
      fc.property(changes, fc.boolean(), (with_, seal) => {
        const block = changed(good, with_, 96);
        tolerant(() => decodeSuperblock(seal ? resealed(block) : block, 'x', crc));
      }),
    );
    expect(good.length).toBe(SUPERBLOCK_BYTES);
  });

  const footer: CopyFooter = {
    ...{ clean: false, sequence: 3, takenAt: 1, homeUuid: HOME, poolUuid: POOL },
    ...{ bytes: 8192, format: 2, tableCrc: 7, line: '0123456789abcdef'.repeat(2) },
  };

  it('footers of copies', { timeout: TIMEOUT }, () => {
    const good = encodeFooter(footer, crc);
    expect(decodeFooter(good, 'x', crc)).toEqual(footer);
    check(
      fc.property(changes, fc.boolean(), (with_, seal) => {
        const block = changed(good, with_, 96);
        tolerant(() => decodeFooter(seal ? resealed(block) : block, 'x', crc));
      }),
    );
  });

  it('areas of copies, and files cut off anywhere', { timeout: TIMEOUT }, () => {
    const file = path.join(folder, 'pool');
    const place = { path: file, area: AREA_BYTES_MIN };
    const good = encodeFooter(footer, crc);
    check(
      fc.property(changes, fc.option(fc.nat(20 * 2 ** 20)), (with_, length) => {
        const fd = fs.openSync(file, 'w');
        const at = areaAt(place, COPY_NAMES[1]) + AREA_BYTES_MIN - FOOTER_BYTES;
        const block = resealed(changed(good, { ...with_, cut: null }, 96));
        fs.writeSync(fd, block, 0, block.length, at);
        if (length !== null) fs.ftruncateSync(fd, length);
        fs.closeSync(fd);
        for (const { footer: found, error } of findCopies(place, crc)) {
          expect((found === null) !== (error === null)).toBe(true);
          if (found !== null) expect(found.bytes).toBeLessThan(AREA_BYTES_MIN);
        }
      }),
      SLOW_RUNS,
    );
  });

  it('qcow2 headers', { timeout: TIMEOUT }, () => {
    const good = Buffer.alloc(1024);
    QCOW2_MAGIC.copy(good);
    good.writeUInt32BE(3, 4);
    good.writeUInt32BE(16, 20);
    good.writeBigUInt64BE(1n << 30n, 24);
    good.writeUInt32BE(2, 36);
    good.writeBigUInt64BE(3n << 16n, 40);
    good.writeBigUInt64BE(1n << 16n, 48);
    good.writeUInt32BE(1, 56);
    good.writeUInt32BE(4, 96);
    good.writeUInt32BE(104, 100);
    expect(inspectQcow2(good).size).toBe(2 ** 30);
    check(
      fc.property(changes, (with_) => {
        const head = changed(good, with_, 160);
        tolerant(() => {
          const { size } = inspectQcow2(head);
          expect(size % 512 === 0 && size > 0 && size <= 2 ** 50).toBe(true);
        });
      }),
    );
  });

  it('streams', { timeout: TIMEOUT }, async () => {
    const size = 1 << 20;
    const header = {
      ...({ kind: 'full', size, blockSize: 65536, base: null } as const),
      ...{ source: { target: 'v@b', base: null }, createdAt: '2026-01-01T00:00:00.000Z' },
    };
    const file = path.join(folder, 'stream');
    const out = await fs.promises.open(file, 'w');
    async function* extents() {
      for (const offset of [0, 131072]) yield { offset, length: 65536, data: true };
      yield { offset: 262144, length: 65536, data: false };
    }
    await writeStream({
      ...{ out, header, extents: extents(), onProgress: () => undefined },
      read: async (_offset, length) => Buffer.alloc(length, 7),
    });
    await out.close();
    const good = fs.readFileSync(file);
    const read = async (bytes: Buffer): Promise<number> => {
      fs.writeFileSync(file, bytes);
      const handle = await fs.promises.open(file);
      try {
        let records = 0;
        const reader = await StreamReader.open(handle);
        for await (const record of reader.records()) records += record.length > 0 ? 1 : 0;
        return records;
      } finally {
        await handle.close();
      }
    };
    expect(await read(good)).toBeGreaterThan(0);
    await checkAsync(
      fc.asyncProperty(changes, fc.constantFrom(256, 1024, good.length), async (with_, among) => {
        const bytes = changed(good, with_, among);
        const same = bytes.equals(good);
        let sound = true;
        await read(bytes).catch((error) => {
          sound = false;
          told(error);
        });
        expect(sound).toBe(same);
      }),
    );
    // headers and records that are sealed rightly and say anything
    await checkAsync(
      fc.asyncProperty(fc.jsonValue(), fc.maxSafeNat(), fc.maxSafeNat(), async (value, offset, length) => {
        const odd = encodeHeader({ ...header, ...(typeof value === 'object' ? value : {}) } as never);
        const record = encodeRecord({ kind: 'hole', offset, length }, null);
        await read(Buffer.concat([odd, record])).then(() => expect.fail('it has no end'), told);
        await read(encodeHeader(value as never)).then(() => expect.fail('it is no header'), told);
      }),
    );
  });

  it('sizes, durations and names', { timeout: TIMEOUT }, () => {
    const texts = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.stringMatching(/^[0-9.eE+-]{0,12}[kKmMgGtTpPiBsmhd]{0,3}$/),
    );
    check(
      fc.property(texts, (text) => {
        for (const parse of [parseSize, parseVolumeSize, parseDuration])
          tolerant(() => expect(Number.isSafeInteger(parse(text)) && parse(text) >= 0).toBe(true));
        tolerant(() => checkName('volume', text));
        tolerant(() => {
          const { volume, snapshot } = splitName(text);
          expect(snapshot === null ? volume : joinName(volume, snapshot)).toBe(text);
        });
        const [name, attachment] = takeApart(text);
        expect(attachment === null ? name : `${name}/${attachment}`).toBe(text);
        expect(name).not.toContain('/');
      }),
    );
  });

  it('addresses, URLs and limits of a command line', { timeout: TIMEOUT }, () => {
    const piece = fc.oneof(
      fc.constantFrom(
        'tcp:',
        'unix:',
        '/',
        '127.0.0.1',
        'localhost',
        '[::1]',
        '0.0.0.0',
        '[::]',
        ':',
        '10809',
        '65536',
      ),
      fc.constantFrom('http://', 'postgres://', 'u:p@', '?password=x', '#', 'none', 'volumes', '=', 'gigabytes'),
      fc.string({ maxLength: 12 }),
      fc.string({ unit: 'binary', maxLength: 4 }),
    );
    const texts = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(''));
    check(
      fc.property(texts, (text) => {
        typed(() => {
          const address = parseNbdAddress(text);
          if (address.kind === 'tcp') expect(isLoopback(address.host) && address.port <= 65535).toBe(true);
          expect(parseNbdAddress(formatNbdAddress(address))).toEqual(address);
        });
        typed(() => expect(isLoopback(parseMetricsAddress(text).host)).toBe(true));
        typed(() => expect(parseHttpAddress(text)?.port ?? 0).toBeLessThanOrEqual(65535));
        typed(() => expect(parsePublicUrl(text)).toMatch(/^https?:\/\/[^@/?#]+(\/[^?#]*)?$/));
        typed(() => expect(new URL(parseCatalogUrl(text, false)).password).toBe(''));
        typed(() => {
          for (const limit of Object.values(parseLimits([text, `volumes=${text}`], true)))
            expect(limit === null || limit === 'default' || Number.isSafeInteger(limit)).toBe(true);
        });
      }),
    );
  });

  it('bodies and paths of the control API: an answer below 500 to each', { timeout: TIMEOUT }, async () => {
    const engine = new FakeEngine();
    const log = () => undefined;
    const routes: { method: string; url: string }[] = [];
    const app = buildApi(
      {
        ...{
          engine,
          transfers: new Transfers(engine, log),
          mounts: new Mounts(engine, '/fake', () => undefined),
          ingests: new Ingests(engine, true),
          log,
          metrics: metricsOf(engine),
        },
        sockets: () => ({ control: 'c', nbd: [], metrics: null }),
      },
      { onRoute: (method: string, url: string) => void routes.push({ method, url }), requestMs: 10_000 },
    );
    await app.ready();
    const fields = ['name', 'size', 'pool', 'path', 'from', 'to', 'blockSize', 'force', 'seal', 'scrubRate', 'target'];
    const bodies = fc.oneof(
      fc.jsonValue(),
      fc.dictionary(fc.constantFrom(...fields), fc.oneof(fc.jsonValue(), fc.string(), fc.double(), fc.boolean())),
    );
    await checkAsync(
      fc.asyncProperty(fc.nat(), bodies, fc.string(), fc.string({ unit: 'binary' }), async (n, body, word, query) => {
        const { method, url } = routes[n % routes.length];
        const at = url.replaceAll(/:\w+/g, () => inUrl(word) || 'x');
        const response = await app.inject({
          ...{ method: method as 'POST', url: `${at}?q=${inUrl(query)}` },
          ...(method === 'GET' || method === 'HEAD' ? {} : { payload: JSON.stringify(body) }),
          headers: { 'content-type': 'application/json' },
        });
        engine.reset();
        expect(response.statusCode === 501 || response.statusCode < 500, `${method} ${at}: ${response.body}`).toBe(
          true,
        );
      }),
      RUNS,
    );
    await app.close();
  });

  it('what an NBD server says to our client', { timeout: TIMEOUT }, async () => {
    const socket = path.join(folder, 'nbd');
    let says = Buffer.alloc(0);
    const server = net.createServer((peer) => {
      peer.on('error', () => undefined);
      peer.on('data', () => undefined);
      peer.end(says);
    });
    await new Promise<void>((resolve) => server.listen(socket, resolve));
    const reply = (option: number, type: number, body: Buffer): Buffer => {
      const head = Buffer.alloc(20);
      head.writeBigUInt64BE(0x3e889045565a9n);
      head.writeUInt32BE(option, 8);
      head.writeUInt32BE(type, 12);
      head.writeUInt32BE(body.length, 16);
      return Buffer.concat([head, body]);
    };
    const greeting = Buffer.alloc(18);
    greeting.writeBigUInt64BE(NBD_MAGIC);
    greeting.writeBigUInt64BE(OPTION_MAGIC, 8);
    greeting.writeUInt16BE(3, 16);
    const context = Buffer.concat([Buffer.from([0, 0, 0, 1]), Buffer.from('base:allocation')]);
    const facts = Buffer.alloc(12);
    facts.writeBigUInt64BE(1n << 20n, 2);
    facts.writeUInt16BE(1, 10);
    const good = Buffer.concat([
      ...[greeting, reply(8, 1, Buffer.alloc(0)), reply(10, 4, context), reply(10, 1, Buffer.alloc(0))],
      ...[reply(7, 3, facts), reply(7, 1, Buffer.alloc(0))],
    ]);
    const talk = async (): Promise<number> => {
      const client = await NbdClient.connect({ socket, exportName: 'x' });
      const { size } = client;
      await client.read(0, 512).catch(told);
      await client.close().catch(told);
      return size;
    };
    says = good;
    expect(await talk()).toBe(1 << 20);
    await checkAsync(
      fc.asyncProperty(changes, fc.uint8Array({ maxLength: 64 }), async (with_, more) => {
        says = Buffer.concat([changed(good, with_), more]);
        await talk().then((size) => expect(Number.isSafeInteger(size)).toBe(true), told);
      }),
    );
    await new Promise((resolve) => server.close(resolve));
  });
});
