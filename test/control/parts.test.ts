/** What an ingest is sent: pieces that lie near each other go together. */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { GAP_BYTES, gathered, PART_BYTES, type Part, rawParts } from '../../src/control/transfer/parts.ts';
import { openSource } from '../../src/control/transfer/source.ts';

const MIB = 1 << 20;

/** Pieces [offset, length, value], as they are read, and the parts that come of them; their bytes are looked at when they come. */
async function partsOf(pieces: [number, number, number][]): Promise<[number, number][]> {
  async function* made(): AsyncGenerator<Part> {
    for (const [offset, length, value] of pieces) yield { offset, bytes: Buffer.alloc(length, value) };
  }
  const parts: [number, number][] = [];
  let seen = 0;
  for await (const { offset, bytes } of gathered(made())) {
    const expected = Buffer.alloc(bytes.length);
    for (const [at, length, value] of pieces) {
      if (at < offset || at + length > offset + bytes.length) continue;
      expected.fill(value, at - offset, at - offset + length);
      seen++;
    }
    expect(bytes.equals(expected), `part at ${offset}`).toBe(true);
    parts.push([offset, bytes.length]);
  }
  expect(seen).toBe(pieces.length);
  return parts;
}

describe('gathered', () => {
  it('nothing stays nothing', async () => {
    expect(await partsOf([])).toEqual([]);
  });

  it('what is adjacent is one part, wherever it begins', async () => {
    const pieces: [number, number, number][] = [
      [5 * MIB + 512, MIB, 1],
      [6 * MIB + 512, 512, 2],
      [6 * MIB + 1024, MIB, 3],
    ];
    expect(await partsOf(pieces)).toEqual([[5 * MIB + 512, 2 * MIB + 512]]);
  });

  it('fewer zeroes than GAP_BYTES go with the pieces on their sides; GAP_BYTES do not', async () => {
    const near: [number, number, number][] = [
      [0, 512, 1],
      [GAP_BYTES, 512, 2],
    ];
    expect(await partsOf(near)).toEqual([[0, GAP_BYTES + 512]]);
    const far: [number, number, number][] = [
      [0, 512, 1],
      [GAP_BYTES + 512, 512, 2],
    ];
    expect(await partsOf(far)).toEqual([
      [0, 512],
      [GAP_BYTES + 512, 512],
    ]);
  });

  it('a part has PART_BYTES at most, gaps counted', async () => {
    const full: [number, number, number][] = [
      [0, PART_BYTES - MIB, 1],
      [PART_BYTES - 512, 512, 2],
    ];
    expect(await partsOf(full)).toEqual([[0, PART_BYTES]]);
    const over: [number, number, number][] = [
      [0, PART_BYTES - MIB, 1],
      [PART_BYTES - 512, 1024, 2],
    ];
    expect(await partsOf(over)).toEqual([
      [0, PART_BYTES - MIB],
      [PART_BYTES - 512, 1024],
    ]);
  });

  it('a part stays as it is while the next one is made', async () => {
    async function* made(): AsyncGenerator<Part> {
      for (let at = 0; at < 4; at++) yield { offset: at * 4 * MIB, bytes: Buffer.alloc(512, at + 1) };
    }
    const parts = gathered(made());
    let before: Part | null = null;
    for (let value = 1; value <= 4; value++) {
      const part = (await parts.next()).value as Part;
      expect(part.bytes.equals(Buffer.alloc(512, value))).toBe(true);
      if (before !== null) expect(before.bytes.equals(Buffer.alloc(512, value - 1))).toBe(true);
      before = part;
    }
    expect((await parts.next()).done).toBe(true);
  });
});

describe('rawParts', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'atoll-parts-'));
  const file = path.join(folder, 'raw');

  /** Bytes of the parts of a file that has `now` bytes by the time that it is read. */
  async function read(bytes: number, now: number): Promise<number> {
    writeFileSync(file, Buffer.alloc(bytes, 1));
    const source = await openSource(file, 'raw');
    truncateSync(file, now);
    try {
      let read = 0;
      for await (const part of rawParts(source)) read += part.bytes.length;
      return read;
    } finally {
      await source.file.close();
      rmSync(file);
    }
  }

  afterAll(() => rmSync(folder, { recursive: true }));

  it('are of all that a file has, which may end inside a sector', async () => {
    expect(await read(4096, 4096)).toBe(4096);
    expect(await read(4096 + 1, 4096 + 1)).toBe(4097);
    expect(await read(PART_BYTES + 1, PART_BYTES + 1)).toBe(PART_BYTES + 1);
  });

  it('are none of one that became shorter: what was not read is not zeroes', async () => {
    for (const now of [0, 512, 4096 - 512])
      await expect(read(4096, now)).rejects.toMatchObject({
        code: 'DAMAGED',
        message: expect.stringContaining('became shorter'),
      });
  });
});
