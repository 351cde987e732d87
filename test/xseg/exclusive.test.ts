/** What deleting something would free: as told, as worked out the long way, and as it is when it is deleted. */
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { accountErrors, storeRows } from '../../src/xseg/accounts.ts';
import { FamilyWalk, type Member } from '../../src/xseg/exclusive.ts';
import { loadNative } from '../../src/xseg/native.ts';
import type { Engine, VolumeInfo } from '../../src/xseg/types.ts';
import { closed, Home } from './engine.ts';

const native = loadNative();
const MIB = 1024 * 1024;
const B = 4096;

let home: Home;
let e: Engine;
beforeEach(async () => {
  home = new Home();
  e = await home.open();
  await e.createPool({ name: 'p', path: path.join(home.dir, 'p/'), blockSize: B });
});
afterEach(() => home.end());

async function write(name: string, blocks: number, at = 0): Promise<void> {
  const c = await home.connect(name);
  await c.write(at * B, Buffer.alloc(blocks * B, 0x5a));
  await c.close();
  await closed(e, name);
}

async function quiet(): Promise<void> {
  for (;;) {
    const { background } = await e.status();
    if (Object.values(background).every((left) => left === 0)) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** blocks, when they are known */
async function exclusive(name: string): Promise<number> {
  for (;;) {
    const info = name.includes('@')
      ? await e.showSnapshot(name, { account: 'wait' })
      : await e.showVolume(name, { account: 'wait' });
    if (info.exclusiveBytes === null) continue;
    expect(info.exclusiveBytes + (info.sharedBytes as number)).toBe(info.mappedBytes);
    return info.exclusiveBytes / B;
  }
}

async function addsUp(): Promise<void> {
  await quiet();
  const show = { account: 'wait' as const };
  const names = [...(await e.listVolumes()), ...(await e.listSnapshots())].map((one) => one.name);
  for (const name of names) await exclusive(name);
  let pool = await e.showPool('p', show);
  while (pool.exclusiveBytes === null) pool = await e.showPool('p', show);
  const told = {
    pools: [pool],
    volumes: await e.listVolumes(),
    snapshots: await e.listSnapshots(),
  };
  for (const one of [...told.volumes, ...told.snapshots]) expect(one.exclusiveBytes, one.name).not.toBeNull();
  const db = new Database(path.join(home.home, 'store.db'), { readonly: true });
  expect(accountErrors(storeRows(db), native.decodePageTo, told)).toEqual([]);
  db.close();
}

describe('what is exclusive', () => {
  it('is all of a volume alone, and what was written since of one with snapshots', async () => {
    await e.createVolume({ name: 'v', size: 16 * MIB, pool: 'p' });
    expect(await exclusive('v')).toBe(0);
    await write('v', 1000);
    expect(await exclusive('v')).toBe(1000);
    await e.createSnapshot('v', 's');
    expect([await exclusive('v'), await exclusive('v@s')]).toEqual([0, 0]);
    await write('v', 10, 500);
    expect([await exclusive('v'), await exclusive('v@s')]).toEqual([10, 10]);
    await write('v', 5, 3000);
    expect([await exclusive('v'), await exclusive('v@s')]).toEqual([15, 10]);
    await addsUp();
  });

  it('is what becomes free, for any of a family, whatever was deleted before', async () => {
    await e.createVolume({ name: 'v', size: 16 * MIB, pool: 'p' });
    await write('v', 2000);
    await e.createSnapshot('v', 'a');
    await write('v', 100, 0);
    await e.createSnapshot('v', 'b');
    await write('v', 100, 50);
    await e.clone('v@a', 'c');
    await write('c', 30, 10);
    await e.clone('v@b', 'd');
    await write('d', 700, 2000);
    await e.resizeVolume('d', 64 * MIB);
    await write('d', 3, 10_000);
    await addsUp();
    for (const name of ['v@b', 'd', 'v@a', 'c', 'v']) {
      await quiet();
      const before = (await e.showPool('p')).usedBytes;
      const blocks = await exclusive(name);
      if (name.includes('@')) await e.deleteSnapshot(name);
      else await e.deleteVolume(name, {});
      await quiet();
      expect((before - (await e.showPool('p')).usedBytes) / B, name).toBe(blocks);
      await addsUp();
    }
    expect((await e.showPool('p')).usedBytes).toBe(0);
  });

  it('is unknown from a change of a map on until it is counted again; writing in place changes no map', async () => {
    await e.createVolume({ name: 'v', size: 16 * MIB, pool: 'p' });
    await e.createVolume({ name: 'other', size: 16 * MIB, pool: 'p' });
    await write('v', 8);
    await exclusive('v');
    await write('v', 8);
    await write('other', 8);
    expect((await e.showVolume('v')).exclusiveBytes).toBe(8 * B);
    await write('v', 1, 100);
    expect((await e.showVolume('v')).exclusiveBytes).toBeNull();
    expect(await exclusive('v')).toBe(9);
    await e.createSnapshot('v', 's');
    expect((await e.showVolume('v')).exclusiveBytes).toBeNull();
    await e.clone('v@s', 'c');
    expect([await exclusive('v'), await exclusive('c')]).toEqual([0, 0]);
    await e.deleteVolume('c', {});
    expect((await e.showVolume('v')).exclusiveBytes).toBeNull();
  });

  it('is known again after a restart, and after a rollback and a replacement', async () => {
    await e.createVolume({ name: 'v', size: 16 * MIB, pool: 'p' });
    await write('v', 600);
    await e.createSnapshot('v', 's');
    await write('v', 7);
    await home.close();
    e = await home.open();
    expect([await exclusive('v'), await exclusive('v@s')]).toEqual([7, 7]);
    await e.rollback('v@s');
    expect([await exclusive('v'), await exclusive('v@s')]).toEqual([0, 0]);
    await e.createVolume({ name: 'staged', size: 16 * MIB, pool: 'p' });
    await write('staged', 20);
    await e.replaceWith('v', 'staged');
    expect([await exclusive('v'), await exclusive('v@s')]).toEqual([20, 600]);
    await e.rollback('v@s');
    expect([await exclusive('v'), await exclusive('v@s')]).toEqual([0, 0]);
    await addsUp();
  });

  it('is counted in homes whose resources say nothing of their families', async () => {
    await e.createVolume({ name: 'v', size: 16 * MIB, pool: 'p' });
    await write('v', 600);
    await e.createSnapshot('v', 's');
    await write('v', 7);
    await home.close();
    const db = new Database(path.join(home.home, 'store.db'));
    db.exec('UPDATE resource SET grp = -1');
    db.close();
    e = await home.open();
    await e.createVolume({ name: 'new', size: 16 * MIB, pool: 'p' });
    await write('new', 3);
    expect([await exclusive('v'), await exclusive('v@s'), await exclusive('new')]).toEqual([7, 7, 3]);
  });
});

describe('slots that sealing folded', () => {
  const member = (id: number, root: number): Member => ({ id, root, height: 0 });
  /** a block of zeroes that has no slot any more */
  const FOLDED = -1;
  /** leaves by id, each with slots from block 0 on */
  const store = (leaves: Record<number, number[]>, extras: Record<number, number>) => ({
    entries: (page: number, into: Uint32Array) => {
      into.fill(0);
      for (const [i, slot] of (leaves[page] ?? []).entries()) {
        into[i * 2] = slot === FOLDED ? 0xffffffff : slot + 1;
        into[i * 2 + 1] = slot === FOLDED ? 0xffff : 0;
      }
      return page in leaves;
    },
    mapped: (page: number) => leaves[page]?.length ?? -1,
    noExtras: Object.keys(extras).length === 0,
    noZeroes: !Object.values(leaves).flat().includes(FOLDED),
    slotExtras: (first: number, count: number) =>
      Object.entries(extras)
        .map(([slot, extra]) => ({ slot: Number(slot), extra }))
        .filter(({ slot }) => slot >= first && slot < first + count),
  });

  it('are exclusive to who holds all of their references, once', () => {
    const walk = new FamilyWalk(store({ 1: [7, 7, 8], 2: [9] }, { 7: 1 }));
    const result = walk.run([member(1, 1), member(2, 2)]);
    expect([...(result.blocks as Map<number, number>)]).toEqual([
      [1, 2],
      [2, 1],
    ]);
    expect(result.foreign).toBe(false);
  });

  it('are shared when another place has one', () => {
    const elsewhere = new FamilyWalk(store({ 1: [7, 8] }, { 7: 1 })).run([member(1, 1)]);
    expect([...(elsewhere.blocks as Map<number, number>)]).toEqual([[1, 1]]);
    expect(elsewhere.foreign).toBe(true);
    const moved = new FamilyWalk(store({ 1: [7, 8], 2: [9, 7] }, { 7: 1 })).run([member(1, 1), member(2, 2)]);
    expect([...(moved.blocks as Map<number, number>)]).toEqual([
      [1, 1],
      [2, 1],
    ]);
    expect(moved.foreign).toBe(false);
  });

  it('are none where zeroes were', () => {
    for (const extras of [{}, { 100: 1 }] as Record<number, number>[]) {
      const alone = new FamilyWalk(store({ 1: [7, FOLDED, 8, FOLDED] }, extras)).run([member(1, 1)]);
      expect([...(alone.blocks as Map<number, number>)]).toEqual([[1, 2]]);
      const two = new FamilyWalk(store({ 1: [7, FOLDED, 8], 2: [9, 9, FOLDED] }, extras));
      expect([...(two.run([member(1, 1), member(2, 2)]).blocks as Map<number, number>)]).toEqual([
        [1, 2],
        [2, 2],
      ]);
    }
  });

  it('of a page that cannot be read are unknown', () => {
    expect(new FamilyWalk(store({}, {})).run([member(1, 1)]).blocks).toBeNull();
  });
});

it('lists tell what is known', async () => {
  await e.createVolume({ name: 'v', size: MIB, pool: 'p' });
  await write('v', 8);
  const before = await e.listVolumes();
  expect(before.map((v: VolumeInfo) => v.exclusiveBytes)).toEqual([null]);
  await exclusive('v');
  expect((await e.listVolumes()).map((v: VolumeInfo) => v.exclusiveBytes)).toEqual([8 * B]);
});
