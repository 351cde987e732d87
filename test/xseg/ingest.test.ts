/** Ingest: streams that become sealed snapshots, through the engine's face; and what is left of those that do not. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { accountErrors, storeRows } from '../../src/xseg/accounts.ts';
import { INGESTS_MAX, PIECES_ALL_MAX, PIECES_MAX, pieceBytes } from '../../src/xseg/ingest/job.ts';
import { loadNative } from '../../src/xseg/native.ts';
import type { Engine, Ingest, SnapshotInfo } from '../../src/xseg/types.ts';
import { closed, Home } from './engine.ts';
import { expectedHash } from './expected-hash.ts';
import { random } from './model.ts';

const MIB = 1024 * 1024;
const BLOCK = 4096;
const PIECE_BYTES = pieceBytes(BLOCK);

describe('ingest', () => {
  let home: Home;
  let e: Engine;
  beforeEach(async () => {
    home = new Home();
    e = await home.open();
    await pool('p');
  });
  afterEach(async () => {
    await home.end();
    expect(home.errors).toEqual([]);
  });

  const pool = async (name: string, blockSize = BLOCK) =>
    e.createPool({ name, path: path.join(home.dir, `${name}/`), blockSize });
  const until = async (what: string, holds: () => Promise<boolean>) => {
    for (let i = 0; i < 3000; i++) {
      if (await holds()) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`${what} does not come: ${JSON.stringify(await e.status())}`);
  };
  const used = async (blocks: number, name = 'p') =>
    until(`${blocks} used blocks`, async () => (await e.showPool(name)).usedBytes === blocks * BLOCK);
  /** Nothing is under way: the checker, and the accounts the long way. */
  const clean = async () => {
    expect((await e.check()).problems).toEqual([]);
    const db = new Database(path.join(home.home, 'store.db'), { readonly: true });
    try {
      expect(accountErrors(storeRows(db), loadNative().decodePageTo)).toEqual([]);
    } finally {
      db.close();
    }
  };
  const readAll = async (name: string): Promise<Buffer> => {
    const client = await home.connect(name);
    const parts: Buffer[] = [];
    for (let at = 0; at < client.size; at += MIB) parts.push(await client.read(at, Math.min(MIB, client.size - at)));
    await client.close();
    await closed(e, name);
    return Buffer.concat(parts);
  };
  /** bytes of blocks that are zero, of one of few patterns, or of their own */
  const content = (bytes: number, seed: number): Buffer => {
    const next = random(seed);
    const out = Buffer.alloc(bytes);
    for (let at = 0; at < bytes; at += BLOCK) {
      const kind = next();
      if (kind < 0.25) continue;
      const text = kind < 0.5 ? `kind ${Math.floor(kind * 40)}` : `own ${seed} ${at}`;
      out.fill(`${text}.`, at, Math.min(bytes, at + BLOCK));
    }
    return out;
  };
  const feed = async (stream: Ingest, bytes: Buffer, seed: number): Promise<void> => {
    const next = random(seed);
    for (let at = 0; at < bytes.length; ) {
      const count = Math.min(bytes.length - at, 1 + Math.floor(next() * MIB));
      await stream.write(bytes.subarray(at, at + count));
      at += count;
    }
  };
  const ingest = async (name: string, bytes: Buffer, where = 'p'): Promise<SnapshotInfo> => {
    const stream = await e.ingest({ volume: name, snapshot: 's', pool: where });
    await feed(stream, bytes, bytes.length);
    return stream.finish();
  };
  /** blocks that are neither zero nor equal to one before them */
  const distinct = (...parts: Buffer[]): number => {
    const found = new Set<string>();
    for (const bytes of parts)
      for (let at = 0; at < bytes.length; at += BLOCK) {
        const block = Buffer.alloc(BLOCK);
        bytes.copy(block, 0, at, at + BLOCK);
        if (block.some((byte) => byte !== 0)) found.add(block.toString('latin1'));
      }
    return found.size;
  };

  it('makes a sealed snapshot of a new volume, with the bytes, the hash, and nothing stored twice', async () => {
    const bytes = content(23 * MIB + 1000, 1);
    const whole = Buffer.concat([bytes, Buffer.alloc(24)]);
    const made = await ingest('v', bytes);
    expect(made).toMatchObject({ name: 'v@s', size: whole.length, hash: expectedHash(whole, BLOCK), pool: 'p' });
    await used(distinct(bytes));
    expect((await readAll('v@s')).equals(whole)).toBe(true);
    expect((await readAll('v')).equals(whole)).toBe(true);
    await clean();
    const { seal } = await e.showPool('p');
    expect(seal).toMatchObject({ on: false, entries: distinct(bytes), backlogSnapshots: 0 });
    // the volume is one like any: what is written to it goes elsewhere
    const client = await home.connect('v');
    await client.write(0, Buffer.alloc(3 * BLOCK, 7));
    await client.flush();
    await client.close();
    expect((await readAll('v@s')).equals(whole)).toBe(true);
    expect((await readAll('v')).subarray(0, 3 * BLOCK).equals(Buffer.alloc(3 * BLOCK, 7))).toBe(true);
    await clean();
    await home.close();
    e = await home.open();
    expect((await readAll('v@s')).equals(whole)).toBe(true);
    expect((await e.showSnapshot('v@s')).hash).toBe(made.hash);
    await e.deleteVolume('v', { withSnapshots: true });
    await used(0);
    await clean();
  });

  it('stores what the pool has not, and the same again takes nothing', async () => {
    const a = content(9 * MIB, 2);
    const b = Buffer.concat([content(3 * MIB, 3), a.subarray(MIB, 5 * MIB), Buffer.alloc(2 * MIB)]);
    const first = await ingest('a', a);
    const { seal: before } = await e.showPool('p');
    expect((await ingest('again', a)).hash).toBe(first.hash);
    await used(distinct(a));
    const { seal: after } = await e.showPool('p');
    expect(after!.entries).toBe(before!.entries);
    expect(after!.foldedBytes - before!.foldedBytes).toBe(after!.hashedBytes - before!.hashedBytes);
    await ingest('b', b);
    await used(distinct(a, b));
    expect((await readAll('b@s')).equals(b)).toBe(true);
    await clean();
    await e.deleteVolume('a', { withSnapshots: true });
    expect((await readAll('again@s')).equals(a)).toBe(true);
    await e.deleteVolume('again', { withSnapshots: true });
    await used(distinct(b));
    expect((await readAll('b@s')).equals(b)).toBe(true);
    await clean();
  });

  it('has the hash that sealing in the background gives the same bytes, and they share slots', async () => {
    const bytes = content(7 * MIB, 4);
    await e.setPool('p', { seal: true });
    const made = await ingest('v', bytes);
    await e.createVolume({ name: 'w', size: bytes.length, pool: 'p' });
    const client = await home.connect('w');
    for (let at = 0; at < bytes.length; at += MIB) await client.write(at, bytes.subarray(at, at + MIB));
    await client.flush();
    await client.close();
    await e.createSnapshot('w', 's');
    await until('the hash', async () => (await e.showSnapshot('w@s')).hash !== null);
    expect((await e.showSnapshot('w@s')).hash).toBe(made.hash);
    await used(distinct(bytes));
    await clean();
  });

  it.each([
    ['one byte', 1],
    ['one block', BLOCK],
    ['a page of blocks', 512 * BLOCK],
    ['a page and a block', 513 * BLOCK],
    ['a piece', PIECE_BYTES],
    ['more pieces than are in memory', (PIECES_MAX + 3) * PIECE_BYTES + 5 * BLOCK],
  ])('ingests %s', async (_what, length) => {
    const bytes = content(length, 5);
    bytes[0] = 1;
    const whole = Buffer.concat([bytes, Buffer.alloc((512 - (length % 512)) % 512)]);
    expect((await ingest('v', bytes)).hash).toBe(expectedHash(whole, BLOCK));
    expect((await readAll('v@s')).equals(whole)).toBe(true);
    await clean();
  });

  it('takes holes, of any size and at any place', async () => {
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    const parts: Buffer[] = [];
    const put = async (bytes: Buffer) => {
      parts.push(bytes);
      await stream.write(bytes);
    };
    const hole = async (length: number) => {
      parts.push(Buffer.alloc(length));
      await stream.skip(length);
    };
    await hole(BLOCK * 3);
    await put(Buffer.alloc(BLOCK + 100, 1));
    await hole(50);
    await hole(BLOCK * 700);
    await put(Buffer.alloc(10, 2));
    await hole(8 * MIB + 5);
    await put(Buffer.alloc(5 * MIB, 3));
    await hole(1);
    await hole(512 * BLOCK * 2 + 511);
    const whole = Buffer.concat(parts);
    const size = Math.ceil(whole.length / 512) * 512;
    const made = await stream.finish();
    const padded = Buffer.concat([whole, Buffer.alloc(size - whole.length)]);
    expect(made).toMatchObject({ size, hash: expectedHash(padded, BLOCK) });
    expect((await readAll('v@s')).equals(padded)).toBe(true);
    await clean();
  });

  it('reads open files, from any byte to any byte, between bytes and holes', async () => {
    const bytes = content(3 * PIECE_BYTES + 12_345, 21);
    const at = path.join(home.dir, 'file');
    fs.writeFileSync(at, bytes);
    const file = fs.openSync(at, 'r');
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    const parts: Buffer[] = [];
    const read = async (from: number, to: number) => {
      parts.push(bytes.subarray(from, to));
      await stream.read(file, from, to - from);
    };
    const put = async (count: number) => {
      parts.push(Buffer.alloc(count, 9));
      await stream.write(Buffer.alloc(count, 9));
    };
    const hole = async (count: number) => {
      parts.push(Buffer.alloc(count));
      await stream.skip(count);
    };
    await read(0, 100);
    await put(700);
    await read(100, BLOCK * 3 + 1);
    await hole(BLOCK * 9);
    await read(BLOCK * 3 + 1, bytes.length);
    await read(0, 0);
    await put(1);
    await hole(5);
    await read(7, BLOCK * 200);
    const whole = Buffer.concat(parts);
    const padded = Buffer.concat([whole, Buffer.alloc((512 - (whole.length % 512)) % 512)]);
    expect(stream.position).toBe(whole.length);
    expect((await stream.finish()).hash).toBe(expectedHash(padded, BLOCK));
    fs.closeSync(file);
    expect((await readAll('v@s')).equals(padded)).toBe(true);
    await clean();
  });

  it.each([
    ['ends before its end', (at: string) => fs.truncateSync(at, PIECE_BYTES - 1)],
    ['is empty by now', (at: string) => fs.truncateSync(at, 0)],
  ])('fails when a file that it reads %s, and leaves nothing', async (_what, spoil) => {
    const at = path.join(home.dir, 'file');
    fs.writeFileSync(at, content(2 * PIECE_BYTES, 22));
    const file = fs.openSync(at, 'r');
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    await stream.read(file, 0, PIECE_BYTES);
    await stream.write(Buffer.alloc(1, 1));
    spoil(at);
    await stream.read(file, PIECE_BYTES - 1, PIECE_BYTES);
    await expect(stream.finish()).rejects.toMatchObject({ code: 'IO', message: expect.stringMatching(/it ended at/) });
    await stream.abort();
    fs.closeSync(file);
    await used(0);
    expect(await e.listVolumes()).toEqual([]);
    await clean();
  });

  it('a hole of a petabyte takes no time, and a byte behind it is found', async () => {
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    await stream.write(Buffer.alloc(BLOCK, 1));
    await stream.skip(2 ** 50 - 2 * BLOCK);
    await stream.write(Buffer.alloc(BLOCK, 2));
    await expect(stream.write(Buffer.alloc(1))).rejects.toMatchObject({ code: 'TOO_LARGE' });
    expect(await stream.finish()).toMatchObject({ size: 2 ** 50, mappedBytes: 2 * BLOCK });
    const client = await home.connect('v@s');
    expect((await client.read(2 ** 50 - BLOCK, BLOCK)).equals(Buffer.alloc(BLOCK, 2))).toBe(true);
    await client.close();
    await clean();
  });

  it('of zeroes alone has no slot', async () => {
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    await stream.write(Buffer.alloc(5 * MIB));
    await stream.skip(4 * 512 * BLOCK);
    const made = await stream.finish();
    expect(made.mappedBytes).toBe(0);
    expect(made.hash).toBe(expectedHash(Buffer.alloc(made.size), BLOCK));
    await used(0);
    await clean();
  });

  it('that is given up leaves no resource and no slot', async () => {
    const bytes = content(60 * MIB, 6);
    await ingest('other', bytes.subarray(0, 8 * MIB));
    const before = (await e.showPool('p')).usedBytes;
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    await feed(stream, bytes, 7);
    await stream.abort();
    await stream.abort();
    await expect(stream.write(Buffer.alloc(1))).rejects.toMatchObject({ code: 'SHUTTING_DOWN' });
    await used(before / BLOCK);
    expect((await e.listVolumes()).map(({ name }) => name)).toEqual(['other']);
    await clean();
    expect((await readAll('other@s')).equals(bytes.subarray(0, 8 * MIB))).toBe(true);
  });

  it('that a stop of the daemon ends leaves nothing', async () => {
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    await feed(stream, content(60 * MIB, 8), 8);
    await home.close();
    e = await home.open();
    await used(0);
    expect(await e.listVolumes()).toEqual([]);
    await clean();
  });

  it('that a crash ends leaves nothing', async () => {
    const kept = content(5 * MIB, 13);
    await ingest('kept', kept);
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    // half of it is what the pool has: references that the crash takes back
    await feed(stream, Buffer.concat([kept, content(40 * MIB, 14), kept]), 14);
    const rows = () => {
      const db = new Database(path.join(home.home, 'store.db'), { readonly: true });
      const count = db.prepare('SELECT count(*) FROM resource WHERE kind = 3').pluck().get();
      db.close();
      return count as number;
    };
    await until('a batch', async () => rows() === 1);
    // what a crash at this moment leaves: everything that was written
    const before = `${home.dir}-before`;
    fs.cpSync(home.dir, before, { recursive: true, filter: (name) => !fs.lstatSync(name).isSocket() });
    await home.close();
    for (const name of fs.readdirSync(home.dir)) fs.rmSync(path.join(home.dir, name), { recursive: true });
    fs.cpSync(before, home.dir, { recursive: true });
    fs.rmSync(before, { recursive: true });
    expect(rows()).toBe(1);
    e = await home.open();
    await used(distinct(kept));
    expect(rows()).toBe(0);
    expect((await e.listVolumes()).map(({ name }) => name)).toEqual(['kept']);
    expect((await readAll('kept@s')).equals(kept)).toBe(true);
    await clean();
  });

  it('refuses a name that is there, or comes to be there, and leaves nothing then', async () => {
    await e.createVolume({ name: 'there', size: MIB, pool: 'p' });
    await expect(e.ingest({ volume: 'there', snapshot: 's', pool: 'p' })).rejects.toMatchObject({ code: 'EXISTS' });
    await expect(e.ingest({ volume: 'a@b', snapshot: 's' })).rejects.toMatchObject({ code: 'INVALID' });
    await expect(e.ingest({ volume: 'a', snapshot: 's', pool: 'none' })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    await stream.write(content(20 * MIB, 9));
    await e.createVolume({ name: 'v', size: MIB, pool: 'p' });
    await expect(stream.finish()).rejects.toMatchObject({ code: 'EXISTS' });
    await used(0);
    const nothing = await e.ingest({ volume: 'n', snapshot: 's', pool: 'p' });
    await expect(nothing.finish()).rejects.toMatchObject({ code: 'INVALID' });
    await clean();
  });

  it('takes so many at once and no more', async () => {
    const streams: Ingest[] = [];
    for (let i = 0; i < INGESTS_MAX; i++) streams.push(await e.ingest({ volume: `v${i}`, snapshot: 's', pool: 'p' }));
    await expect(e.ingest({ volume: 'w', snapshot: 's', pool: 'p' })).rejects.toMatchObject({ code: 'BUSY' });
    const bytes = content(12 * MIB, 10);
    const hashes = await Promise.all(
      streams.map(async (stream, i) => {
        await feed(stream, bytes, i);
        return (await stream.finish()).hash;
      }),
    );
    expect(new Set(hashes).size).toBe(1);
    for (let i = 0; i < INGESTS_MAX; i++) expect((await readAll(`v${i}@s`)).equals(bytes)).toBe(true);
    await clean();
    await (await e.ingest({ volume: 'w', snapshot: 's', pool: 'p' })).abort();
  });

  it('goes on while others hold memory that their senders do not fill', async () => {
    const idle: Ingest[] = [];
    for (let i = 1; i < INGESTS_MAX; i++) {
      const stream = await e.ingest({ volume: `idle${i}`, snapshot: 's', pool: 'p' });
      await stream.write(Buffer.alloc(1, 1));
      idle.push(stream);
    }
    const bytes = content(PIECES_ALL_MAX * PIECE_BYTES, 12);
    expect((await ingest('v', bytes)).hash).toBe(expectedHash(bytes, BLOCK));
    for (const [i, stream] of idle.entries()) {
      if (i % 2 === 0) await stream.abort();
      else await stream.finish();
    }
    expect((await ingest('w', bytes)).hash).toBe(expectedHash(bytes, BLOCK));
    await clean();
  });

  it('names slots that are being freed only when they are not', async () => {
    const bytes = content(6 * MIB, 11);
    for (let round = 0; round < 12; round++) {
      await ingest('a', bytes);
      // its slots are freed while the same bytes come again
      const stream = await e.ingest({ volume: 'b', snapshot: 's', pool: 'p' });
      const gone = e.deleteVolume('a', { withSnapshots: true });
      await feed(stream, bytes, round);
      await gone;
      await stream.finish();
      expect((await readAll('b@s')).equals(bytes)).toBe(true);
      await until('freeing', async () => (await e.showPool('p')).releasingBytes === 0);
      await clean();
      await e.deleteVolume('b', { withSnapshots: true });
    }
    await used(0);
    await clean();
  });

  it('lets go within seconds of what it keeps from being freed, however slowly its stream comes', async () => {
    const bytes = content(PIECE_BYTES, 5);
    await ingest('v', bytes);
    const stream = await e.ingest({ volume: 'w', snapshot: 's', pool: 'p' });
    await stream.write(bytes);
    await e.deleteVolume('v', { withSnapshots: true });
    // The stream says nothing more meanwhile.
    await until('the end of freeing', async () => (await e.showPool('p')).releasingBytes === 0);
    await stream.write(bytes);
    await stream.finish();
    await used(distinct(bytes));
    expect((await readAll('w@s')).equals(Buffer.concat([bytes, bytes]))).toBe(true);
    await clean();
  });

  it('of one block in each leaf goes in batches of few pages', async () => {
    const leaf = 512 * BLOCK;
    const leaves = 700;
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'p' });
    for (let at = 0; at < leaves; at++) {
      await stream.write(Buffer.alloc(BLOCK, `own ${at}.`));
      await stream.skip(leaf - BLOCK);
    }
    expect(await stream.finish()).toMatchObject({ size: leaves * leaf, mappedBytes: leaves * BLOCK });
    await used(leaves);
    const client = await home.connect('v@s');
    for (const at of [0, 1, 255, 256, 257, leaves - 1]) {
      expect((await client.read(at * leaf, BLOCK)).equals(Buffer.alloc(BLOCK, `own ${at}.`))).toBe(true);
      expect((await client.read(at * leaf + BLOCK, BLOCK)).equals(Buffer.alloc(BLOCK))).toBe(true);
    }
    await client.close();
    await clean();
  });

  it('a pool that is full says so, and is as it was', async () => {
    const file = path.join(home.dir, 'small');
    await e.createPool({ name: 'small', path: file, size: 64 * MIB, blockSize: BLOCK });
    const stream = await e.ingest({ volume: 'v', snapshot: 's', pool: 'small' });
    const feedAll = async () => {
      for (let at = 0; at < 80 * MIB; at += MIB) await stream.write(randomBytes(MIB));
    };
    await expect(feedAll().then(() => stream.finish())).rejects.toMatchObject({ code: 'NO_SPACE' });
    await stream.abort();
    await used(0, 'small');
    await clean();
  });
});
