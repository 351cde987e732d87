/** The backup stream as bytes: what is written is read back, and nothing that was damaged is taken for sound. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlError } from '../../src/control/errors.ts';
import {
  encodeEnd,
  encodeHeader,
  encodeRecord,
  PROLOGUE_BYTES,
  RECORD_BYTES,
  type StreamHeader,
  WholeHash,
} from '../../src/control/stream/format.ts';
import { type ReadRecord, StreamReader } from '../../src/control/stream/read.ts';
import { type TargetExtent, writeStream } from '../../src/control/stream/write.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'atoll-stream-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MIB = 1 << 20;

function headerOf(size: number, changes: Partial<StreamHeader> = {}): StreamHeader {
  return {
    kind: 'full',
    size,
    blockSize: 65536,
    base: null,
    source: { target: 'v@b', base: null },
    createdAt: '2026-01-01T00:00:00.000Z',
    ...changes,
  };
}

const INCREMENTAL: Partial<StreamHeader> = {
  kind: 'incremental',
  base: { size: 4 * MIB, hash: 'ab'.repeat(32) },
  source: { target: 'v@b', base: 'v@a' },
};

async function* extentsOf(list: TargetExtent[]): AsyncGenerator<TargetExtent> {
  yield* list;
}

/** Writes the extents of `content` as a stream, and returns the file's bytes. */
async function streamOf(
  content: Buffer,
  extents: TargetExtent[],
  changes: Partial<StreamHeader> = {},
): Promise<Buffer> {
  const file = path.join(folder, 'out');
  const out = await open(file, 'w');
  try {
    await writeStream({
      out,
      header: headerOf(content.length, changes),
      extents: extentsOf(extents),
      read: async (offset, length) => Buffer.from(content.subarray(offset, offset + length)),
      onProgress: () => undefined,
    });
  } finally {
    await out.close();
  }
  return readFileSync(file);
}

async function read(bytes: Buffer): Promise<{ header: StreamHeader; records: ReadRecord[] }> {
  const file = path.join(folder, 'in');
  writeFileSync(file, bytes);
  const handle = await open(file);
  try {
    const reader = await StreamReader.open(handle);
    const records: ReadRecord[] = [];
    for await (const record of reader.records()) records.push(record);
    return { header: reader.header, records };
  } finally {
    await handle.close();
  }
}

async function codeOfReading(bytes: Buffer): Promise<string> {
  try {
    await read(bytes);
  } catch (error) {
    if (error instanceof ControlError) return error.code;
    throw error;
  }
  return 'sound';
}

/** Applies records to a copy of the base. */
function applied(base: Buffer, size: number, records: ReadRecord[]): Buffer {
  const result = Buffer.alloc(size);
  base.copy(result, 0, 0, Math.min(base.length, size));
  for (const { offset, length, bytes } of records) {
    if (bytes) bytes.copy(result, offset);
    else result.fill(0, offset, offset + length);
  }
  return result;
}

/** Content in 64 KiB pieces, some zero. */
function contentOf(pieces: readonly number[]): Buffer {
  return Buffer.concat(pieces.map((value) => Buffer.alloc(65536, value)));
}

describe('round trip', () => {
  it('full streams give the content back, leave zeroes out, and bound their records', async () => {
    const pieces = fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 60 });
    await fc.assert(
      fc.asyncProperty(pieces, async (values) => {
        const content = contentOf(values);
        const { records } = await read(await streamOf(content, [{ offset: 0, length: content.length, data: true }]));
        expect(records.every(({ kind, length }) => kind === 'data' && length <= MIB)).toBe(true);
        expect(records.reduce((sum, { length }) => sum + length, 0)).toBe(values.filter((v) => v > 0).length * 65536);
        expect(applied(Buffer.alloc(0), content.length, records).equals(content)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  it('incremental streams turn the base into the target, also where it became zero, grew or shrank', async () => {
    const pieces = fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(pieces, pieces, fc.boolean(), async (before, after, tellHoles) => {
        const base = contentOf(before);
        const target = contentOf(after);
        const extents: TargetExtent[] = [];
        after.forEach((value, index) => {
          if (value === (before[index] ?? 0)) return;
          extents.push({ offset: index * 65536, length: 65536, data: value !== 0 || !tellHoles });
        });
        const bytes = await streamOf(target, extents, {
          ...INCREMENTAL,
          base: { size: base.length, hash: '0'.repeat(64) },
        });
        const { header, records } = await read(bytes);
        expect(header.base?.size).toBe(base.length);
        expect(applied(base, target.length, records).equals(target)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  it('joins neighbouring holes into one record', async () => {
    const content = Buffer.alloc(4 * MIB);
    const extents = [0, 1, 2, 3].map((index) => ({ offset: index * MIB, length: MIB, data: index === 1 }));
    const { records } = await read(await streamOf(content, extents, INCREMENTAL));
    expect(records.map(({ kind, offset, length }) => [kind, offset, length])).toEqual([['hole', 0, 4 * MIB]]);
  });
});

describe('damage', () => {
  let sound: Buffer;
  let sections: { name: string; from: number; to: number }[];
  beforeAll(async () => {
    const content = contentOf([1, 0, 2, 3, 0, 0, 4, 5]);
    sound = await streamOf(content, [{ offset: 0, length: content.length, data: true }], INCREMENTAL);
    const json = sound.readUInt32LE(12);
    const records = PROLOGUE_BYTES + json + 32;
    sections = [
      { name: 'prologue', from: 0, to: PROLOGUE_BYTES },
      { name: 'header', from: PROLOGUE_BYTES, to: PROLOGUE_BYTES + json },
      { name: 'header digest', from: PROLOGUE_BYTES + json, to: records },
      { name: 'first record', from: records, to: records + RECORD_BYTES },
      { name: 'first data', from: records + RECORD_BYTES, to: records + RECORD_BYTES + 65536 },
      { name: 'later records', from: records + RECORD_BYTES + 65536, to: sound.length - RECORD_BYTES },
      { name: 'end', from: sound.length - RECORD_BYTES, to: sound.length },
    ];
  });

  it('is sound before it is damaged', async () => {
    expect(await codeOfReading(sound)).toBe('sound');
  });

  it('any changed bit in any section is noticed', async () => {
    for (const { name, from, to } of sections) {
      const runs = fc.tuple(fc.integer({ min: from, max: to - 1 }), fc.integer({ min: 0, max: 7 }));
      await fc.assert(
        fc.asyncProperty(runs, async ([at, bit]) => {
          const bytes = Buffer.from(sound);
          bytes[at]! ^= 1 << bit;
          expect(['DAMAGED', 'FORMAT_NEWER'], `${name}, byte ${at}`).toContain(await codeOfReading(bytes));
        }),
        { numRuns: 40 },
      );
    }
  });

  it('every truncation is noticed', async () => {
    const cuts = [0, 1, 7, ...sections.flatMap(({ from, to }) => [from, from + 1, to - 1])];
    for (const cut of cuts) expect(await codeOfReading(sound.subarray(0, cut)), `cut at ${cut}`).toBe('DAMAGED');
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: sound.length - 1 }), async (cut) => {
        expect(await codeOfReading(sound.subarray(0, cut))).toBe('DAMAGED');
      }),
      { numRuns: 50 },
    );
  });

  it('what follows the end is noticed', async () => {
    expect(await codeOfReading(Buffer.concat([sound, Buffer.from([0])]))).toBe('DAMAGED');
    expect(await codeOfReading(Buffer.concat([sound, sound]))).toBe('DAMAGED');
  });

  it('a newer version is told from damage', async () => {
    const bytes = Buffer.from(sound);
    bytes.writeUInt32LE(2, 8);
    expect(await codeOfReading(bytes)).toBe('FORMAT_NEWER');
  });

  it('says at which byte', async () => {
    const bytes = Buffer.from(sound);
    const { from } = sections.find(({ name }) => name === 'first data')!;
    bytes[from]! ^= 1;
    await expect(read(bytes)).rejects.toThrow(`damaged at byte ${from - RECORD_BYTES}`);
  });
});

describe('a stream made with right checksums and wrong content is refused', () => {
  /** Builds a stream whose digests all hold. */
  function forged(
    header: unknown,
    records: { type?: 'data' | 'hole'; offset: number; length: number; bytes?: Buffer }[],
  ): Buffer {
    const whole = new WholeHash();
    const parts = [encodeHeader(header as StreamHeader)];
    let dataBytes = 0;
    for (const { type = 'data', offset, length, bytes } of records) {
      const data = type === 'data' ? (bytes ?? Buffer.alloc(Math.min(length, 8 * MIB), 7)) : null;
      parts.push(encodeRecord({ kind: type, offset, length }, data));
      if (data) parts.push(data);
      dataBytes += data?.length ?? 0;
    }
    for (const part of parts) whole.update(part);
    parts.push(encodeEnd({ records: records.length, dataBytes }, whole));
    return Buffer.concat(parts);
  }

  const SIZE = 16 * MIB;

  it('the forge itself works', async () => {
    expect(
      await codeOfReading(
        forged(headerOf(SIZE), [
          { offset: 0, length: 512 },
          { type: 'hole', offset: 512, length: SIZE - 512 },
        ]),
      ),
    ).toBe('sound');
  });

  it.each([
    [
      'overlap',
      [
        { offset: 0, length: 1024 },
        { offset: 512, length: 512 },
      ],
    ],
    [
      'descending',
      [
        { offset: 4096, length: 512 },
        { offset: 0, length: 512 },
      ],
    ],
    ['beyond the end', [{ offset: SIZE - 512, length: 1024 }]],
    ['offset beyond the end', [{ offset: SIZE, length: 512 }]],
    ['hole beyond the end', [{ type: 'hole' as const, offset: 512, length: SIZE }]],
    ['no whole sector', [{ offset: 0, length: 513 }]],
    ['odd offset', [{ offset: 1, length: 512 }]],
    ['empty', [{ offset: 0, length: 0 }]],
    ['huge', [{ type: 'hole' as const, offset: 0, length: 2 ** 60 }]],
    ['data record beyond its bound', [{ offset: 0, length: 4 * MIB + 512 }]],
  ])('%s', async (_what, records) => {
    expect(await codeOfReading(forged(headerOf(SIZE), records))).toBe('DAMAGED');
  });

  it.each([
    ['size no sector', headerOf(1000)],
    ['size zero', headerOf(0)],
    ['size beyond 1 PiB', headerOf(2 ** 50 + 512)],
    ['full with a base', { ...headerOf(SIZE), base: { size: SIZE, hash: 'ab'.repeat(32) } }],
    ['incremental without a base', { ...headerOf(SIZE), kind: 'incremental' }],
    ['unknown kind', { ...headerOf(SIZE), kind: 'partial' }],
    ['unknown member', { ...headerOf(SIZE), extra: 1 }],
    ['member missing', { ...headerOf(SIZE), source: undefined }],
    ['hash that is none', { ...headerOf(SIZE, INCREMENTAL), base: { size: SIZE, hash: 'AB' } }],
    ['block size no power of two', headerOf(SIZE, { blockSize: 5000 })],
    ['name too long', headerOf(SIZE, { source: { target: 'x'.repeat(1025), base: null } })],
    ['prototype', JSON.parse(`{"__proto__":{"kind":"full"},"size":512}`)],
    ['no object', [1]],
    ['null', null],
  ])('header: %s', async (_what, header) => {
    expect(await codeOfReading(forged(header, []))).toBe('DAMAGED');
  });

  it('a count that does not fit', async () => {
    const whole = new WholeHash();
    const head = encodeHeader(headerOf(SIZE));
    whole.update(head);
    const bytes = Buffer.concat([head, encodeEnd({ records: 1, dataBytes: 0 }, whole)]);
    expect(await codeOfReading(bytes)).toBe('DAMAGED');
  });
});

it('random bytes are never taken for a stream', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
      expect(await codeOfReading(Buffer.from(bytes))).toBe('DAMAGED');
    }),
    { numRuns: 100 },
  );
});
