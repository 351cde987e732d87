/** The reader of write logs and the replay of them, on logs made by hand. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cutsOf, type Loss, Replay } from './powerloss/replay.ts';
import { FLAG, readWriteLog } from './powerloss/write-log.ts';

const SECTOR = 512;

interface Entry {
  sector: number;
  /** one letter for each sector of its data */
  data?: string;
  flags?: number;
  /** sectors of a discard */
  discard?: number;
}

function superBlock(entries: number): Buffer {
  const block = Buffer.alloc(SECTOR);
  block.writeBigUInt64LE(0x6a736677736872n, 0);
  block.writeBigUInt64LE(1n, 8);
  block.writeBigUInt64LE(BigInt(entries), 16);
  block.writeUInt32LE(SECTOR, 24);
  return block;
}

const sectors = (letters: string): Buffer => Buffer.concat([...letters].map((letter) => Buffer.alloc(SECTOR, letter)));

function logOf(entries: readonly Entry[]): Buffer {
  const parts = [superBlock(entries.length)];
  for (const { sector, data = '', flags = 0, discard } of entries) {
    const header = Buffer.alloc(SECTOR);
    header.writeBigUInt64LE(BigInt(sector), 0);
    header.writeBigUInt64LE(BigInt(discard ?? data.length), 8);
    header.writeBigUInt64LE(BigInt(flags), 16);
    parts.push(header, sectors(data));
  }
  return Buffer.concat(parts);
}

describe('a log of writes', () => {
  let dir = '';
  beforeAll(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-log-'));
  });
  afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

  function write(name: string, bytes: Buffer): string {
    const file = path.join(dir, name);
    fs.writeFileSync(file, bytes);
    return file;
  }

  it('is read with the places of its entries', () => {
    const log = write(
      'log',
      logOf([
        { sector: 2, data: 'ab' },
        { sector: 0, flags: FLAG.flush },
        { sector: 1, discard: 3, flags: FLAG.discard },
      ]),
    );
    expect(readWriteLog(log)).toEqual([
      { at: 512, offset: 1024, length: 1024, flags: 0, data: 1024 },
      { at: 2048, offset: 0, length: 0, flags: FLAG.flush, data: -1 },
      { at: 2560, offset: 512, length: 1536, flags: FLAG.discard, data: -1 },
    ]);
  });

  it('is refused when it is none, newer, cut short, or makes no sense', () => {
    const good = logOf([{ sector: 0, data: 'a' }]);
    const changed = (change: (bytes: Buffer) => void): Buffer => {
      const bytes = Buffer.from(good);
      change(bytes);
      return bytes;
    };
    const cases: [Buffer, RegExp][] = [
      [Buffer.alloc(0), /ends at 0/],
      [changed((b) => b.writeUInt8(0, 0)), /wrong magic/],
      [changed((b) => b.writeUInt8(2, 8)), /version 2/],
      [changed((b) => b.writeUInt32LE(256, 24)), /sectors of 256/],
      [changed((b) => b.writeUInt32LE(8192, 24)), /sectors of 8192/],
      [changed((b) => b.writeUInt32LE(1536, 24)), /sectors of 1536/],
      [changed((b) => b.writeUInt8(2, 16)), /within what begins/],
      [changed((b) => b.writeUInt8(64, 512 + 16)), /flags 0x40/],
      [changed((b) => b.writeUInt8(FLAG.mark, 512 + 16)), /mark/],
      [changed((b) => b.writeBigUInt64LE(2n ** 60n, 512)), /beyond any device/],
      [good.subarray(0, good.length - 1), /cut short/],
    ];
    for (const [bytes, message] of cases) expect(() => readWriteLog(write('bad', bytes))).toThrow(message);
  });

  /** What a disk of four sectors of zeroes holds, `.` for a zero. @param draws what random() gives, then 0.5 */
  function replayed(entries: readonly Entry[], cutIndex: number, loss: Loss, draws: number[] = []): string {
    const log = write('log', logOf(entries));
    const base = write('base', Buffer.alloc(4 * SECTOR));
    const read = readWriteLog(log);
    const replay = new Replay(log, read, base);
    const unflushed = replay.advance(cutsOf(read)[cutIndex]!);
    const image = path.join(dir, 'image');
    fs.copyFileSync(base, image);
    replay.keep(image, unflushed, loss, () => draws.shift() ?? 0.5);
    replay.close();
    const bytes = fs.readFileSync(image);
    return [0, 1, 2, 3].map((i) => (bytes[i * SECTOR] === 0 ? '.' : String.fromCharCode(bytes[i * SECTOR]!))).join('');
  }

  const history: Entry[] = [
    { sector: 0, data: 'ab' },
    { sector: 0, flags: FLAG.flush },
    { sector: 1, data: 'cd' },
    { sector: 3, data: 'e' },
    { sector: 0, flags: FLAG.flush },
    { sector: 0, data: 'f' },
  ];

  it('has a cut before each flush and one at its end', () => {
    const entries = readWriteLog(write('log', logOf(history)));
    expect(cutsOf(entries)).toEqual([
      { end: 1, position: entries[1]!.at },
      { end: 4, position: entries[4]!.at },
      { end: 6, position: Number.POSITIVE_INFINITY },
    ]);
  });

  it('keeps what was flushed and loses what it is told to lose', () => {
    expect(replayed(history, 0, 'all')).toBe('....');
    expect(replayed(history, 0, 'none')).toBe('ab..');
    expect(replayed(history, 1, 'all')).toBe('ab..');
    expect(replayed(history, 1, 'none')).toBe('acde');
    expect(replayed(history, 2, 'all')).toBe('acde');
    expect(replayed(history, 2, 'none')).toBe('fcde');
  });

  it('loses some: each by chance, whole or its end', () => {
    // The chance, the tail's end, then for each write: kept?, torn?, how much.
    expect(replayed(history, 1, 'some', [0.5, 0, 0.9, 0.1, 0.9, 0.9])).toBe('ab.e');
    expect(replayed(history, 1, 'some', [0.5, 0, 0.1, 0.05, 0.3, 0.9])).toBe('ac..');
  });

  it('loses a tail: all after a write, and the end of that', () => {
    expect(replayed(history, 1, 'tail', [0, 0.4, 0.4])).toBe('ac..');
    expect(replayed(history, 1, 'tail', [0, 0.9, 0.4])).toBe('acde');
  });

  it('tears anything but the superblock of ext4', () => {
    const entries: Entry[] = [
      { sector: 1, data: 'abc' },
      { sector: 0, flags: FLAG.flush },
    ];
    const torn = (share: number) => replayed(entries, 0, 'some', [0.5, 0, 0.1, 0.05, share]);
    expect([0.2, 0.5, 0.9].map(torn)).toEqual(['.a..', '.abc', '.abc']);
  });

  it('never loses what was written with FUA, which flushes nothing else', () => {
    const forced: Entry[] = [
      { sector: 0, data: 'a' },
      { sector: 2, data: 'b', flags: FLAG.fua },
      { sector: 3, data: 'c' },
    ];
    expect(cutsOf(readWriteLog(write('log', logOf(forced)))).map(({ end }) => end)).toEqual([1, 3]);
    expect(replayed(forced, 1, 'all')).toBe('..b.');
  });

  it('takes a flush with data as a flush and then a write', () => {
    const both: Entry[] = [
      { sector: 0, data: 'a' },
      { sector: 1, data: 'b', flags: FLAG.flush },
      { sector: 2, data: 'c' },
    ];
    expect(replayed(both, 1, 'all')).toBe('a...');
    expect(replayed(both, 1, 'none')).toBe('abc.');
  });

  it('leaves what was discarded', () => {
    const gone: Entry[] = [
      { sector: 0, data: 'ab' },
      { sector: 0, discard: 2, flags: FLAG.discard },
    ];
    expect(replayed(gone, 0, 'none')).toBe('ab..');
  });
});
