/** Sealing, folding and scrubbing through the engine's face and NBD. */
import fs from 'node:fs';
import path from 'node:path';
import { blake3 } from '@napi-rs/blake-hash';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PIECES_MAX, pieceBytes } from '../../src/xseg/ingest/job.ts';
import type { Engine } from '../../src/xseg/types.ts';
import { closed, Home } from './engine.ts';
import { expectedHash } from './expected-hash.ts';
import { random } from './model.ts';

const MIB = 1024 * 1024;
const BLOCK = 4096;
const PIECE_BYTES = pieceBytes(BLOCK);

describe('the vectors of docs/format.md', () => {
  const text = fs.readFileSync(new URL('../../docs/format.md', import.meta.url), 'utf8');
  const contents = [
    [512, Buffer.alloc(512)],
    [MIB, Buffer.concat([Buffer.from([1]), Buffer.alloc(MIB - 1)])],
    [4 * MIB, Buffer.from(Array.from({ length: 4 * MIB }, (_, i) => i % 251))],
  ] as const;
  const vectors = [...text.matchAll(/^\|[^|]+\| 4096 \|[^|]+\| `([0-9a-f]{64})` \|$/gm)].map((m) => m[1]);
  it('are three, and hold', () => {
    expect(contents.map(([, bytes]) => expectedHash(bytes, 4096))).toEqual(vectors);
  });
});

describe('sealing', () => {
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

  const pool = async (name: string, blockSize = BLOCK, seal = true) => {
    await e.createPool({ name, path: path.join(home.dir, `${name}/`), blockSize });
    if (seal) await e.setPool(name, { seal: true });
  };
  const write = async (name: string, offset: number, bytes: Buffer) => {
    const client = await home.connect(name);
    await client.write(offset, bytes);
    await client.flush();
    await client.close();
  };
  const readAll = async (name: string): Promise<Buffer> => {
    const client = await home.connect(name);
    const parts: Buffer[] = [];
    for (let at = 0; at < client.size; at += MIB) parts.push(await client.read(at, Math.min(MIB, client.size - at)));
    await client.close();
    return Buffer.concat(parts);
  };
  const until = async (what: string, holds: () => Promise<boolean>) => {
    for (let i = 0; i < 3000; i++) {
      if (await holds()) return;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    throw new Error(`${what} does not come: ${JSON.stringify(await e.status())}`);
  };
  const sealed = async (name: string): Promise<string> => {
    await until(`the hash of ${name}`, async () => (await e.showSnapshot(name)).hash !== null);
    return (await e.showSnapshot(name)).hash as string;
  };
  const used = async (blocks: number, name = 'p') =>
    until(`${blocks} used blocks`, async () => (await e.showPool(name)).usedBytes === blocks * BLOCK);
  const clean = async () => {
    const report = await e.check();
    expect(report.problems).toEqual([]);
  };
  /** `count` blocks, each filled from one of `kinds` patterns */
  const blocks = (count: number, kinds: number, seed: number): Buffer => {
    const next = random(seed);
    const out = Buffer.alloc(count * BLOCK);
    for (let b = 0; b < count; b++) {
      const kind = Math.floor(next() * kinds);
      if (kind > 0) out.fill(Buffer.from(`pattern ${seed} ${kind}.`), b * BLOCK, (b + 1) * BLOCK);
    }
    return out;
  };

  it('gives a snapshot the hash of its bytes, and keeps equal blocks once', async () => {
    const bytes = Buffer.alloc(5 * MIB);
    blocks(1200, 9, 1).copy(bytes);
    await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
    await write('v', 0, bytes);
    await e.createSnapshot('v', 's');
    expect(await sealed('v@s')).toBe(expectedHash(bytes, BLOCK));
    // eight patterns, and zeroes have no slot; 5 MiB of written blocks had 1280
    await used(8);
    expect((await readAll('v')).equals(bytes)).toBe(true);
    expect((await readAll('v@s')).equals(bytes)).toBe(true);
    await clean();
    const { seal } = await e.showPool('p');
    expect(seal).toMatchObject({ on: true, entries: 8, hashedBytes: 5 * MIB, foldedBytes: 5 * MIB - 8 * BLOCK });
    expect(seal?.dedupRatio).toBeCloseTo(1280 / 8, 5);
    expect(seal).toMatchObject({ backlogSnapshots: 0, backlogBytes: 0, quarantined: 0 });
    await home.close();
    e = await home.open();
    expect((await readAll('v')).equals(bytes)).toBe(true);
    expect(await sealed('v@s')).toBe(expectedHash(bytes, BLOCK));
    await clean();
    await closed(e, 'v');
    await closed(e, 'v@s');
    await e.deleteVolume('v', { withSnapshots: true });
    await used(0);
    await until('an empty index', async () => (await e.showPool('p')).seal?.entries === 0);
    await clean();
  });

  it('keeps equal blocks once, whatever groups of leaves they are in', async () => {
    const count = 6000;
    const bytes = blocks(count, 701, 11);
    // in every group: neighbours, and what the group before has
    for (let b = 0; b < count; b += 512) bytes.copy(bytes, b * BLOCK, 0, 8 * BLOCK);
    const kinds = new Set(Array.from({ length: count }, (_, b) => bytes.toString('latin1', b * BLOCK, b * BLOCK + 32)));
    await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
    await write('v', 0, bytes);
    await e.createSnapshot('v', 's');
    expect(await sealed('v@s')).toBe(expectedHash(bytes, BLOCK));
    // zeroes are one kind, and have no slot
    expect(kinds.delete('\0'.repeat(32))).toBe(true);
    await used(kinds.size);
    const { seal } = await e.showPool('p');
    expect(seal).toMatchObject({ entries: kinds.size, hashedBytes: bytes.length });
    expect(seal?.foldedBytes).toBe(bytes.length - kinds.size * BLOCK);
    expect((await readAll('v@s')).equals(bytes)).toBe(true);
    await clean();
  });

  it('makes holes of blocks of zeroes, for who writes on too', async () => {
    const bytes = Buffer.alloc(600 * BLOCK);
    for (const b of [0, 3, 4, 520]) bytes.fill(`of block ${b}.`, b * BLOCK, (b + 1) * BLOCK);
    await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
    await e.createSnapshot('v', 'empty');
    await write('v', 0, bytes);
    await e.createSnapshot('v', 's');
    const other = Buffer.from(bytes);
    other.fill('on top', 100 * BLOCK + 100, 101 * BLOCK - 7);
    await write('v', 100 * BLOCK + 100, other.subarray(100 * BLOCK + 100, 101 * BLOCK - 7));
    await sealed('v@s');
    await used(5);
    // zeroes where nothing was are no difference, and what is hashed again has nothing of them
    const { extents } = await e.diff('v@empty', 'v@s');
    expect(extents.map(({ offset, length, data }) => [offset / BLOCK, length / BLOCK, data])).toEqual([
      [0, 1, true],
      [3, 2, true],
      [520, 1, true],
    ]);
    expect((await e.showSnapshot('v@s')).mappedBytes).toBe(bytes.length);
    await e.clone('v@s', 'c');
    for (const name of ['v', 'c']) await write(name, 200 * BLOCK + 512, Buffer.alloc(512, name));
    await write('c', 300 * BLOCK, Buffer.alloc(BLOCK, 'c'));
    const client = await home.connect('c');
    await client.trim(301 * BLOCK, BLOCK);
    await client.close();
    await used(8);
    other.fill('v', 200 * BLOCK + 512, 200 * BLOCK + 1024);
    expect((await readAll('v')).equals(other)).toBe(true);
    await e.createSnapshot('v', 't');
    expect(await sealed('v@t')).toBe(expectedHash(other, BLOCK));
    const copy = Buffer.from(bytes);
    copy.fill('c', 200 * BLOCK + 512, 200 * BLOCK + 1024).fill('c', 300 * BLOCK, 301 * BLOCK);
    expect(await sealed('v@s')).toBe(expectedHash(bytes, BLOCK));
    await clean();
    await home.close();
    e = await home.open();
    for (const [name, wanted] of [
      ['v', other],
      ['v@t', other],
      ['v@s', bytes],
      ['c', copy],
    ] as const)
      expect((await readAll(name)).equals(wanted)).toBe(true);
    for (const name of ['v', 'v@t', 'v@s', 'c']) await closed(e, name);
    await e.deleteVolume('v', { withSnapshots: true });
    await e.deleteVolume('c', {});
    await used(0);
    await clean();
  });

  it('hashes are equal across pools and histories, and differ with size and block size', async () => {
    await pool('q');
    await pool('big', 16384);
    const bytes = Buffer.alloc(3 * MIB + 512);
    blocks(500, 60, 2).copy(bytes, MIB);
    await e.createVolume({ name: 'a', size: bytes.length, pool: 'p' });
    await write('a', 0, bytes);
    // another history: larger once, written in pieces, holes by trim, through a clone
    await e.createVolume({ name: 'b', size: 600 * MIB, pool: 'q' });
    await write('b', 0, blocks(768, 40, 3));
    await write('b', 300 * MIB, blocks(3, 4, 4));
    await e.createSnapshot('b', 'old');
    await sealed('b@old');
    await e.clone('b@old', 'c');
    await e.resizeVolume('c', bytes.length);
    const client = await home.connect('c');
    await client.trim(0, bytes.length);
    for (let at = 0; at < bytes.length; at += 100_000) {
      const piece = bytes.subarray(at, Math.min(bytes.length, at + 100_000));
      if (piece.some((byte) => byte !== 0)) await client.write(at, piece);
    }
    await client.flush();
    await client.close();
    await e.createVolume({ name: 'd', size: bytes.length, pool: 'big' });
    await write('d', 0, bytes);
    await e.createVolume({ name: 'f', size: bytes.length + 512, pool: 'p' });
    await write('f', 0, bytes);
    for (const name of ['a', 'c', 'd', 'f']) await e.createSnapshot(name, 's');
    const wanted = expectedHash(bytes, BLOCK);
    expect(await sealed('a@s')).toBe(wanted);
    expect(await sealed('c@s')).toBe(wanted);
    expect(await sealed('d@s')).toBe(expectedHash(bytes, 16384));
    expect(await sealed('f@s')).toBe(expectedHash(Buffer.concat([bytes, Buffer.alloc(512)]), BLOCK));
    await clean();
  });

  it('folds under clones that borrow, and each stays what it was while it is written', async () => {
    const bytes = blocks(1024, 5, 5);
    await pool('off', BLOCK, false);
    await e.setPool('p', { sealPaused: true });
    await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
    await write('v', 0, bytes);
    await e.createSnapshot('v', 's0');
    const all = new Map<string, Buffer>([['v', Buffer.from(bytes)]]);
    for (let i = 0; i < 6; i++) {
      await e.clone(i < 3 ? 'v@s0' : `c${i - 3}@s`, `c${i}`);
      const mine = Buffer.from(all.get(i < 3 ? 'v' : `c${i - 3}`) as Buffer);
      const patch = blocks(7, 3, 50 + i);
      patch.copy(mine, (i * 37 + 3) * BLOCK);
      await write(`c${i}`, (i * 37 + 3) * BLOCK, patch);
      all.set(`c${i}`, mine);
      if (i < 3) await e.createSnapshot(`c${i}`, 's');
    }
    const clients = await Promise.all([...all.keys()].map((name) => home.connect(name)));
    await e.setPool('p', { sealPaused: false });
    // live writes race with folding, each volume's in its own place
    const next = random(7);
    let go = true;
    const writers = clients.map(async (client, i) => {
      const mine = [...all.values()][i];
      while (go) {
        const at = Math.floor(next() * 1020) * BLOCK + (next() < 0.5 ? 0 : 512);
        const data = blocks(2, 3, Math.floor(next() * 4)).subarray(0, 512 + Math.floor(next() * 7000));
        await client.write(at, data);
        data.copy(mine, at);
        const from = Math.floor(next() * 1000) * BLOCK;
        const got = await client.read(from, 8 * BLOCK);
        expect(got.equals(mine.subarray(from, from + 8 * BLOCK))).toBe(true);
      }
    });
    for (const name of ['v@s0', 'c0@s', 'c1@s', 'c2@s']) await sealed(name);
    go = false;
    await Promise.all(writers);
    for (const client of clients) {
      await client.flush();
      await client.close();
    }
    await clean();
    for (const [name, mine] of all) expect((await readAll(name)).equals(mine), name).toBe(true);
    expect(await sealed('v@s0')).toBe(expectedHash(bytes, BLOCK));
    expect((await readAll('v@s0')).equals(bytes)).toBe(true);
    await home.close();
    e = await home.open();
    for (const [name, mine] of all) expect((await readAll(name)).equals(mine), name).toBe(true);
    await clean();
  });

  it('is not in the way of deleting, and forgets what is gone', async () => {
    for (let round = 0; round < 6; round++) {
      const bytes = blocks(2000, 30, 100 + round);
      await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
      await write('v', 0, bytes);
      await e.createSnapshot('v', 's');
      await e.createSnapshot('v', 't');
      if (round % 2 === 0) await until('work', async () => ((await e.showPool('p')).seal?.entries ?? 0) > 0);
      await closed(e, 'v');
      await e.deleteVolume('v', { withSnapshots: true });
    }
    await used(0);
    await until('an empty index', async () => (await e.showPool('p')).seal?.entries === 0);
    await clean();
  });

  it('a slot that is sealed is not written in place when its last reader takes it over', async () => {
    const bytes = blocks(64, 100_000, 8);
    await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
    await write('v', 0, bytes);
    await e.createSnapshot('v', 's');
    await write('v', 0, blocks(1, 1, 9)); // the volume has a leaf of its own now, and borrows the rest
    bytes.fill(0, 0, BLOCK);
    await sealed('v@s');
    await e.deleteSnapshot('v@s');
    await until('an empty queue', async () => (await e.status()).background.dropQueue === 0);
    await clean();
    const before = (await e.showPool('p')).seal?.entries as number;
    expect(before).toBeGreaterThan(50);
    const patch = Buffer.from('new bytes');
    await write('v', 9 * BLOCK + 5, patch);
    patch.copy(bytes, 9 * BLOCK + 5);
    await until('the old slot out of the index', async () => (await e.showPool('p')).seal?.entries === before - 1);
    expect((await readAll('v')).equals(bytes)).toBe(true);
    await clean();
  });

  it('the second snapshot costs what changed', async () => {
    const bytes = blocks(1024, 100_000, 10);
    await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
    await write('v', 0, bytes);
    await e.createSnapshot('v', 's1');
    await sealed('v@s1');
    const first = (await e.showPool('p')).seal?.hashedBytes as number;
    await write('v', 700 * BLOCK, Buffer.alloc(BLOCK, 77));
    bytes.fill(77, 700 * BLOCK, 701 * BLOCK);
    await e.createSnapshot('v', 's2');
    expect(await sealed('v@s2')).toBe(expectedHash(bytes, BLOCK));
    expect((await e.showPool('p')).seal?.hashedBytes).toBe(first + BLOCK);
  });

  it('reads pools as they are opened: O_DIRECT, one file, blocks of 4 MiB', async () => {
    const kinds = [
      { name: 'direct', path: path.join(home.dir, 'direct/'), blockSize: 4096, direct: true },
      { name: 'file', path: path.join(home.dir, 'file'), blockSize: 65536, size: 128 * MIB },
      { name: 'large', path: path.join(home.dir, 'large/'), blockSize: 4 * MIB, direct: true },
    ];
    for (const spec of kinds) {
      await e.createPool(spec);
      await e.setPool(spec.name, { seal: true });
      const bytes = Buffer.alloc(17 * MIB + 512);
      blocks(4096, 3, 20).copy(bytes, MIB);
      await e.createVolume({ name: spec.name, size: bytes.length, pool: spec.name });
      await write(spec.name, 0, bytes);
      await e.createSnapshot(spec.name, 's');
      expect(await sealed(`${spec.name}@s`)).toBe(expectedHash(bytes, spec.blockSize));
      expect((await readAll(`${spec.name}@s`)).equals(bytes)).toBe(true);
    }
    await clean();
  });

  it('settings live on; off and paused mean nothing is hashed; rates are checked', async () => {
    await e.setPool('p', { sealPaused: true, sealRate: 12 * MIB, scrubRate: 3 * MIB, verifyOnRead: true });
    await e.createVolume({ name: 'v', size: MIB, pool: 'p' });
    await write('v', 0, blocks(256, 9, 11));
    await e.createSnapshot('v', 's');
    await home.close();
    e = await home.open();
    expect((await e.showPool('p')).seal).toMatchObject({
      ...{ on: true, paused: true, rate: 12 * MIB, scrubRate: 3 * MIB, verifyOnRead: true },
    });
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect((await e.showPool('p')).seal).toMatchObject({ hashedBytes: 0, backlogSnapshots: 1, backlogBytes: MIB });
    await e.setPool('p', { seal: false, sealPaused: false });
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect((await e.showSnapshot('v@s')).hash).toBe(null);
    await expect(e.setPool('p', { sealRate: -1 })).rejects.toMatchObject({ code: 'INVALID' });
    await expect(e.setPool('p', { scrubRate: 1.5 })).rejects.toMatchObject({ code: 'INVALID' });
    await expect(e.setPool('nope', { seal: true })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await e.setPool('p', { seal: true });
    await sealed('v@s');
  });

  it('settings that are asked for at once all come to be', async () => {
    await Promise.all([
      e.setPool('p', { sealPaused: true }),
      e.setPool('p', { verifyOnRead: true }),
      e.setPool('p', { scrubRate: 3 * MIB }),
    ]);
    const wanted = { paused: true, verifyOnRead: true, scrubRate: 3 * MIB };
    expect((await e.showPool('p')).seal).toMatchObject(wanted);
    await home.close();
    e = await home.open();
    expect((await e.showPool('p')).seal).toMatchObject(wanted);
  });

  /** Changes one byte of a slot behind the daemon's back. */
  const damage = (slot: number, name = 'p') => {
    const file = path.join(home.dir, name, 's00000000');
    const fd = fs.openSync(file, 'r+');
    const byte = Buffer.alloc(1);
    fs.readSync(fd, byte, 0, 1, slot * BLOCK + 100);
    byte[0] ^= 1;
    fs.writeSync(fd, byte, 0, 1, slot * BLOCK + 100);
    fs.closeSync(fd);
  };
  /** slots of the index, by their bytes */
  const slotOf = (block: Buffer, poolId: number): number => {
    const db = new Database(path.join(home.home, 'store.db'), { readonly: true });
    const slot = db.prepare('SELECT slot FROM sealed WHERE pool = ? AND hash = ?').pluck().get(poolId, blake3(block));
    db.close();
    return slot as number;
  };
  const quarantined = (count: number, name = 'p') =>
    until(`${count} in quarantine`, async () => (await e.showPool(name)).seal?.quarantined === count);

  describe('scrubbing', () => {
    const scrub = async () => {
      await e.setPool('p', { scrubRate: 0 });
      await e.setPool('p', { scrubRate: 1024 * MIB });
    };

    it('what is damaged answers EIO, in whatever has it, and nothing else does', async () => {
      const bytes = blocks(64, 100_000, 12);
      await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
      await write('v', 0, bytes);
      await e.createSnapshot('v', 's');
      await sealed('v@s');
      await e.clone('v@s', 'c');
      const reader = await home.connect('v@s');
      await reader.read(0, bytes.length);
      damage(slotOf(bytes.subarray(20 * BLOCK, 21 * BLOCK), 2));
      await e.setPool('p', { scrubRate: 1024 * MIB });
      await quarantined(1);
      expect(home.errors.splice(0).length).toBe(1);
      // a reader that had the leaf, one that has not, and after a restart
      for (let again = 0; again < 2; again++) {
        for (const name of ['v@s', 'v', 'c']) {
          const client = again === 0 && name === 'v@s' ? reader : await home.connect(name);
          await expect(client.read(20 * BLOCK + 7, 1)).rejects.toThrow();
          await expect(client.read(19 * BLOCK, 4 * BLOCK)).rejects.toThrow();
          expect((await client.read(19 * BLOCK, BLOCK)).equals(bytes.subarray(19 * BLOCK, 20 * BLOCK))).toBe(true);
          expect((await client.read(21 * BLOCK, 9)).equals(bytes.subarray(21 * BLOCK, 21 * BLOCK + 9))).toBe(true);
          await client.close();
        }
        const report = await e.check();
        expect(report.problems.map(({ code }) => code)).toEqual(['BAD_BLOCK']);
        await home.close();
        e = await home.open();
      }
      // a part of the block cannot be written, the whole block can
      const client = await home.connect('c');
      await expect(client.write(20 * BLOCK + 7, Buffer.from('x'))).rejects.toThrow();
      await client.write(20 * BLOCK, Buffer.alloc(BLOCK, 5));
      expect((await client.read(20 * BLOCK, BLOCK)).equals(Buffer.alloc(BLOCK, 5))).toBe(true);
      await client.close();
      // gone with its last reader, and the slot is as good as any
      await closed(e, 'v');
      await closed(e, 'c');
      await e.deleteVolume('c', {});
      await e.deleteVolume('v', { withSnapshots: true });
      await used(0);
      await quarantined(0);
      await clean();
    });

    it('repairs from an equal block of the same pool, in the pass that finds the damage', async () => {
      const bytes = blocks((PIECES_MAX + 2) * (PIECE_BYTES / BLOCK), 100_000, 14);
      // two streams at once: neither finds the other's blocks in the index
      const streams = await Promise.all(['a', 'b'].map((volume) => e.ingest({ volume, snapshot: 's', pool: 'p' })));
      for (const stream of streams) await stream.write(bytes);
      for (const stream of streams) await stream.finish();
      const at = bytes.findIndex((byte) => byte !== 0);
      const block = bytes.subarray(at, at + BLOCK);
      // the least of the two, which is found first
      damage(slotOf(block, 2));
      await scrub();
      await until('one found', async () => home.errors.length === 1);
      const reads = async () => (await readAll('a').catch(() => bytes.subarray(1))).equals(bytes);
      await until('its repair', reads);
      await quarantined(0);
      expect(home.errors.splice(0).length).toBe(1);
      expect((await readAll('b')).equals(bytes)).toBe(true);
      await clean();
    });

    it('repairs from an equal block of another pool, and what is well again is let out', async () => {
      await pool('q');
      const bytes = blocks(64, 100_000, 13);
      for (const name of ['p', 'q']) {
        await e.createVolume({ name, size: bytes.length, pool: name });
        await write(name, 0, bytes);
        await e.createSnapshot(name, 's');
        await sealed(`${name}@s`);
      }
      damage(slotOf(bytes.subarray(5 * BLOCK, 6 * BLOCK), 2));
      damage(slotOf(bytes.subarray(6 * BLOCK, 7 * BLOCK), 2));
      await scrub();
      await until('two found', async () => home.errors.length === 2);
      await quarantined(0);
      expect(home.errors.splice(0).length).toBe(2);
      expect((await readAll('p')).equals(bytes)).toBe(true);
      await clean();
      // without a copy it waits until its bytes are right again
      await closed(e, 'q');
      await closed(e, 'p');
      await e.deleteVolume('q', { withSnapshots: true });
      await until('an empty index', async () => (await e.showPool('q')).seal?.entries === 0);
      const slot = slotOf(bytes.subarray(9 * BLOCK, 10 * BLOCK), 2);
      damage(slot);
      await scrub();
      await quarantined(1);
      expect(home.errors.splice(0).length).toBe(1);
      damage(slot);
      await scrub();
      await quarantined(0);
      expect((await readAll('p')).equals(bytes)).toBe(true);
      await clean();
      expect((await e.showPool('p')).seal?.scrubbedAt).not.toBe(null);
    });
  });

  describe('verify-on-read', () => {
    for (const direct of [false, true])
      it(`finds rot at the read that meets it, ${direct ? 'past' : 'in'} the page cache, and nobody gets the wrong bytes`, async () => {
        await e.createPool({ name: 'r', path: path.join(home.dir, 'r/'), blockSize: BLOCK, direct });
        await e.setPool('r', { seal: true });
        const bytes = blocks(64, 100_000, 30);
        await e.createVolume({ name: 'v', size: bytes.length, pool: 'r' });
        await write('v', 0, bytes);
        await e.createSnapshot('v', 's');
        await sealed('v@s');
        await e.clone('v@s', 'c');
        // open before and after the switch
        const reader = await home.connect('v@s');
        damage(slotOf(bytes.subarray(20 * BLOCK, 21 * BLOCK), 3), 'r');
        damage(slotOf(bytes.subarray(30 * BLOCK, 31 * BLOCK), 3), 'r');
        const wrong = await reader.read(20 * BLOCK, BLOCK);
        expect(wrong.equals(bytes.subarray(20 * BLOCK, 21 * BLOCK))).toBe(false);
        await e.setPool('r', { verifyOnRead: true });
        expect((await e.showPool('r')).seal).toMatchObject({ verifyOnRead: true, quarantined: 0 });
        await expect(reader.read(20 * BLOCK + 7, 1)).rejects.toThrow();
        await quarantined(1, 'r');
        await expect(reader.read(18 * BLOCK, 4 * BLOCK)).rejects.toThrow();
        expect(home.errors.splice(0).length).toBe(1);
        expect((await reader.read(21 * BLOCK, 9 * BLOCK)).equals(bytes.subarray(21 * BLOCK, 30 * BLOCK))).toBe(true);
        expect((await reader.read(0, 20 * BLOCK)).equals(bytes.subarray(0, 20 * BLOCK))).toBe(true);
        await reader.close();
        // a part of a block is not written around what is wrong; and it lives on
        await home.close();
        e = await home.open();
        expect((await e.showPool('r')).seal?.verifyOnRead).toBe(true);
        const client = await home.connect('c');
        await expect(client.write(30 * BLOCK + 7, Buffer.from('x'))).rejects.toThrow();
        await quarantined(2, 'r');
        expect(home.errors.splice(0).length).toBe(1);
        await client.write(30 * BLOCK, bytes.subarray(30 * BLOCK, 31 * BLOCK));
        await client.write(20 * BLOCK, bytes.subarray(20 * BLOCK, 21 * BLOCK));
        await client.write(40 * BLOCK + 1, bytes.subarray(40 * BLOCK + 1, 40 * BLOCK + 9));
        expect((await client.read(0, bytes.length)).equals(bytes)).toBe(true);
        await client.close();
        expect((await e.check()).problems.map(({ code }) => code)).toEqual(['BAD_BLOCK']);
      });

    it('does not copy what is wrong when a volume ends in the middle of it', async () => {
      await e.setPool('p', { verifyOnRead: true });
      const bytes = blocks(8, 100_000, 32);
      await e.createVolume({ name: 'v', size: bytes.length, pool: 'p' });
      await write('v', 0, bytes);
      await e.createSnapshot('v', 's');
      await sealed('v@s');
      damage(slotOf(bytes.subarray(5 * BLOCK, 6 * BLOCK), 2));
      await e.clone('v@s', 'c');
      await expect(e.resizeVolume('c', 5 * BLOCK + 512)).rejects.toMatchObject({ code: 'CORRUPT' });
      await quarantined(1);
      expect(home.errors.splice(0).length).toBe(1);
    });

    it('every byte is right while blocks fold, snapshots go and slots are used again', async () => {
      await e.setPool('p', { verifyOnRead: true });
      const bytes = blocks(512, 40, 31);
      await e.createVolume({ name: 'base', size: bytes.length, pool: 'p' });
      await write('base', 0, bytes);
      const client = await home.connect('base');
      let stop = false;
      const churn = (async () => {
        const next = random(77);
        for (let round = 0; !stop; round++) {
          const block = Math.floor(next() * 500);
          const fresh = blocks(8, 40, 31);
          const writer = await home.connect('base');
          fresh.copy(bytes, block * BLOCK);
          await writer.write(block * BLOCK, fresh);
          await writer.flush();
          await writer.close();
          await e.createSnapshot('base', `s${round}`);
          await sealed(`base@s${round}`);
          expect((await client.read(0, bytes.length)).equals(bytes)).toBe(true);
          if (round > 0) await e.deleteSnapshot(`base@s${round - 1}`);
        }
        return true;
      })();
      const still = await home.connect('base');
      try {
        for (let i = 0; i < 150; i++) {
          // the last blocks are written by nobody
          const from = 508 * BLOCK + (i % 3) * 1000;
          expect((await still.read(from, 8000)).equals(bytes.subarray(from, from + 8000))).toBe(true);
          await still.read((i * 7 * BLOCK) % (bytes.length - 65536), 65536);
        }
      } finally {
        stop = true;
      }
      expect(await churn).toBe(true);
      await still.close();
      await client.close();
      expect((await e.showPool('p')).seal?.foldedBytes).toBeGreaterThan(0);
      expect((await e.showPool('p')).seal?.quarantined).toBe(0);
      await clean();
    });
  });
});
