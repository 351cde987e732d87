import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LIST_PAGE } from '../../src/xseg/mapper/requests.ts';
import type { Native } from '../../src/xseg/native.ts';
import { FORMAT_VERSION } from '../../src/xseg/store/upgrade.ts';
import { closed, Home } from './engine.ts';

const MIB = 1024 * 1024;
const PIB = 2 ** 50;
/** transmission flag of an NBD export */
const READ_ONLY = 2;
const NBD_FIXED_NEWSTYLE = 1;
const NBD_OPT_INFO = 6;

/** An option of an NBD client that is about an export, and asks for nothing besides. */
function nbdOption(option: number, name: string): Buffer {
  const bytes = Buffer.alloc(16 + 4 + name.length + 2);
  bytes.write('IHAVEOPT', 'latin1');
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(4 + name.length + 2, 12);
  bytes.writeUInt32BE(name.length, 16);
  bytes.write(name, 20, 'latin1');
  return bytes;
}

let home: Home;
beforeEach(() => {
  home = new Home();
});
afterEach(() => home.end());

const code = (wanted: string) => expect.objectContaining({ code: wanted });

describe('a home', () => {
  it('is held by one daemon, and the second hears by whom', async () => {
    await home.open();
    const second = new Home();
    await expect(second.open({ home: home.home })).rejects.toThrow(code('HELD'));
    await expect(second.open({ home: home.home })).rejects.toThrow(`pid ${process.pid}`);
    await second.end();
  });

  it('of a newer format is refused, untouched', async () => {
    await home.open();
    await home.close();
    const file = path.join(home.home, 'store.db');
    const db = new Database(file);
    db.pragma(`user_version = ${FORMAT_VERSION + 1}`);
    db.close();
    const before = fs.readFileSync(file);
    await expect(home.open()).rejects.toThrow(code('FORMAT_NEWER'));
    expect(fs.readFileSync(file).equals(before)).toBe(true);
  });

  it('whose store is not one, or is a plain file, is refused', async () => {
    fs.mkdirSync(home.home, { mode: 0o700 });
    fs.writeFileSync(path.join(home.home, 'store.db'), 'x'.repeat(8192));
    await expect(home.open()).rejects.toThrow(code('IO'));
    fs.rmSync(home.home, { recursive: true });
    fs.writeFileSync(home.home, 'x');
    await expect(home.open()).rejects.toThrow(code('NOT_OURS'));
  });

  it('is private', async () => {
    await home.open();
    expect(fs.statSync(home.home).mode & 0o777).toBe(0o700);
  });
});

describe('pools', () => {
  it('are refused where something else is, and where another home has one', async () => {
    const e = await home.open();
    const file = path.join(home.dir, 'theirs');
    fs.writeFileSync(file, 'precious'.repeat(2000));
    await expect(e.createPool({ name: 'p', path: file })).rejects.toThrow(code('INVALID'));
    fs.writeFileSync(file, Buffer.alloc(128 * MIB, 'precious'));
    await expect(e.createPool({ name: 'p', path: file })).rejects.toThrow(code('NOT_OURS'));
    expect(fs.readFileSync(file).subarray(0, 8).toString()).toBe('precious');
    const full = path.join(home.dir, 'full');
    fs.mkdirSync(full);
    fs.writeFileSync(path.join(full, 'letter'), 'x');
    await expect(e.createPool({ name: 'p', path: full })).rejects.toThrow(code('NOT_OURS'));
    const other = new Home();
    const o = await other.open();
    await o.createPool({ name: 'q', path: path.join(home.dir, 'pool/') });
    await other.close();
    await expect(e.createPool({ name: 'p', path: path.join(home.dir, 'pool') })).rejects.toThrow(code('NOT_OURS'));
    await other.end();
  });

  it('that are missing take nothing with them: the others serve, and all but data can be changed', async () => {
    let e = await home.open();
    const dir = path.join(home.dir, 'away');
    await e.createPool({ name: 'away', path: `${dir}/`, blockSize: 4096 });
    await e.createVolume({ name: 'v', size: MIB, pool: 'away' });
    await e.createVolume({ name: 'w', size: MIB, pool: 'local' });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(4096, 1));
    await c.close();
    await closed(e, 'v');
    await e.createSnapshot('v', 's');
    await home.close();

    fs.renameSync(dir, `${dir}-gone`);
    e = await home.open();
    expect(home.errors.splice(0)).toHaveLength(1);
    expect(await e.showPool('away')).toMatchObject({ state: 'missing' });
    expect((await e.listVolumes()).map((v) => [v.name, v.pool, v.blockSize, v.mappedBytes])).toEqual([
      ['v', 'away', 4096, 4096],
      ['w', 'local', 65536, 0],
    ]);
    expect(await e.listSnapshots()).toMatchObject([{ name: 'v@s', pool: 'away', blockSize: 4096 }]);
    await expect(e.open('v')).rejects.toThrow(code('IO'));
    await e.renameVolume('v', 'v2');
    await e.createSnapshot('v2', 't');
    await e.clone('v2@t', 'c');
    await e.rollback('v2@s');
    await e.resizeVolume('v2', 2 * MIB);
    await expect(e.resizeVolume('c', MIB / 2)).rejects.toThrow(code('IO'));
    c = await home.connect('w');
    await c.write(0, Buffer.alloc(4096, 2));
    await c.close();
    await home.close();

    fs.renameSync(`${dir}-gone`, dir);
    e = await home.open();
    for (const name of ['v2', 'v2@t', 'c']) {
      c = await home.connect(name);
      expect((await c.read(0, 8192)).equals(Buffer.alloc(8192).fill(1, 0, 4096))).toBe(true);
      await c.close();
    }
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('made and grown at the same time are what they would be one after another', async () => {
    let e = await home.open();
    const spec = (name: string) => ({ name, path: path.join(home.dir, `${name}/`), size: 64 * MIB });
    const made = await Promise.allSettled([spec('a'), spec('b'), spec('b'), spec('c')].map((s) => e.createPool(s)));
    expect(made.map((r) => r.status)).toEqual(['fulfilled', 'fulfilled', 'rejected', 'fulfilled']);
    const grown = await Promise.allSettled([256, 128].map((size) => e.growPool('a', size * MIB)));
    expect(grown.map((r) => r.status)).toEqual(['fulfilled', 'rejected']);
    for (const name of ['a', 'b', 'c']) await e.createVolume({ name, size: MIB, pool: name });
    await home.close();
    e = await home.open();
    expect((await e.listVolumes()).map((v) => v.pool)).toEqual(['a', 'b', 'c']);
    expect((await e.listPools()).map((p) => [p.name, p.capacityBytes])).toEqual([
      ['a', 256 * MIB],
      ['b', 64 * MIB],
      ['c', 64 * MIB],
      ['local', expect.any(Number)],
    ]);
  });

  it('on a file that was there before show nothing of what it held', async () => {
    const e = await home.open();
    const file = path.join(home.dir, 'old');
    fs.writeFileSync(file, Buffer.alloc(80 * MIB, 0xaa).fill(0, 0, 4096));
    await e.createPool({ name: 'p', path: file });
    await e.createVolume({ name: 'v', size: 32 * MIB, pool: 'p' });
    const c = await home.connect('v');
    for (let at = 0; at < 32 * MIB; at += MIB) await c.write(at + 8192, Buffer.alloc(4096, 1));
    for (let at = 0; at < 32 * MIB; at += MIB) {
      const block = await c.read(at, 65536);
      expect(block.equals(Buffer.alloc(65536).fill(1, 8192, 12288))).toBe(true);
    }
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('have bounds: block sizes 4K to 4M, sizes 64M to 1P', async () => {
    const e = await home.open();
    const dir = () => path.join(home.dir, `p${Math.random()}/`);
    for (const blockSize of [2048, 8 * MIB, 5000]) {
      await expect(e.createPool({ name: 'p', path: dir(), blockSize })).rejects.toThrow(code('INVALID'));
    }
    for (const size of [64 * MIB - 1, PIB + 1])
      await expect(e.createPool({ name: 'p', path: dir(), size })).rejects.toThrow(code('INVALID'));
    expect((await e.createPool({ name: 'small', path: dir(), blockSize: 4096, size: 64 * MIB })).blockSize).toBe(4096);
    expect((await e.createPool({ name: 'large', path: dir(), blockSize: 4 * MIB })).blockSize).toBe(4 * MIB);
  });

  it('that are preallocated in a file have what they grow by at once', async () => {
    const file = path.join(home.dir, 'pool');
    const allocated = () => fs.statSync(file).blocks * 512;
    let e = await home.open();
    await e.createPool({ name: 'f', path: file, size: 64 * MIB, preallocate: true });
    await e.createVolume({ name: 'v', size: MIB, pool: 'f' });
    const c = await home.connect('v');
    await c.write(0, Buffer.alloc(MIB, 1));
    expect((await e.growPool('f', 128 * MIB)).capacityBytes).toBe(128 * MIB);
    expect(allocated()).toBeGreaterThanOrEqual(128 * MIB);
    expect(await c.read(0, MIB)).toEqual(Buffer.alloc(MIB, 1));
    await c.close();
    await expect(e.growPool('f', 2 ** 49)).rejects.toThrow(code('NO_SPACE'));
    expect(allocated()).toBeLessThan(192 * MIB);
    await home.close();
    e = await home.open();
    expect(await e.showPool('f')).toMatchObject({ capacityBytes: 128 * MIB });
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('answer ENOSPC when full; readers go on; growing and deleting let writers go on', async () => {
    const e = await home.open();
    await e.createPool({ name: 'p', path: path.join(home.dir, 'pool/'), size: 64 * MIB });
    await e.createVolume({ name: 'v', size: 256 * MIB, pool: 'p' });
    await e.createVolume({ name: 'w', size: 256 * MIB, pool: 'p' });
    const c = await home.connect('v');
    const block = Buffer.alloc(MIB, 1);
    for (let i = 0; i < 64; i++) await c.write(i * MIB, block);
    await expect(c.write(64 * MIB, block)).rejects.toThrow(expect.objectContaining({ errno: 28 }));
    expect((await c.read(63 * MIB, MIB)).equals(block)).toBe(true);
    await c.write(0, Buffer.alloc(4096, 2));
    expect(await e.showPool('p')).toMatchObject({ usedBytes: 64 * MIB, freeBytes: 0 });
    const other = await home.connect('w');
    await expect(other.write(0, block)).rejects.toThrow(expect.objectContaining({ errno: 28 }));
    await c.trim(0, 8 * MIB);
    await other.write(0, block);
    await e.growPool('p', 128 * MIB);
    for (let i = 64; i < 100; i++) await c.write(i * MIB, block);
    await c.flush();
    expect((await other.read(0, MIB)).equals(block)).toBe(true);
    await c.close();
    await other.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });
});

describe('volumes', () => {
  it('have bounds: 512 bytes to 1 PiB, whole sectors', async () => {
    const e = await home.open();
    for (const size of [0, -512, 511, 513, 1.5, Number.NaN])
      await expect(e.createVolume({ name: 'v', size })).rejects.toThrow(code('INVALID'));
    await expect(e.createVolume({ name: 'v', size: PIB + 512 })).rejects.toThrow(code('TOO_LARGE'));
    expect((await e.createVolume({ name: 'least', size: 512 })).size).toBe(512);
    expect((await e.createVolume({ name: 'most', size: PIB })).size).toBe(PIB);
    const c = await home.connect('most');
    await c.write(PIB - 4096, Buffer.alloc(4096, 9));
    expect((await c.read(PIB - 8192, 8192)).equals(Buffer.concat([Buffer.alloc(4096), Buffer.alloc(4096, 9)]))).toBe(
      true,
    );
    await c.close();
  });

  it('are not deleted while open, protected or with snapshots, unless told', async () => {
    const e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    await e.createSnapshot('v', 's');
    await e.clone('v@s', 'c');
    await expect(e.deleteVolume('v', {})).rejects.toThrow(code('HAS_SNAPSHOTS'));
    await e.protect('v', true);
    await expect(e.deleteVolume('v', { withSnapshots: true })).rejects.toThrow(code('PROTECTED'));
    await e.protect('v', false);
    const c = await home.connect('v');
    await expect(e.deleteVolume('v', { withSnapshots: true })).rejects.toThrow(code('BUSY'));
    await e.deleteVolume('v', { withSnapshots: true, force: true });
    await expect(c.read(0, 512)).rejects.toThrow();
    expect((await e.listVolumes()).map((v) => v.name)).toEqual(['c']);
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('become what another holds only while they are as they were, when that is asked', async () => {
    const e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    await e.createSnapshot('v', 's');
    await e.clone('v@s', 'w');
    const writeTo = async (name: string, value: number) => {
      const c = await home.connect(name);
      await c.write(0, Buffer.alloc(512, value));
      await c.flush();
      await c.close();
      await closed(e, name);
    };
    await writeTo('w', 2);
    await e.protect('v', true);
    await expect(e.replaceWith('v', 'w', 'v@s')).rejects.toThrow(code('PROTECTED'));
    await e.protect('v', false);
    await e.resizeVolume('v', 2 * MIB);
    await expect(e.replaceWith('v', 'w', 'v@s')).rejects.toThrow(code('BASE_DIFFERS'));
    await e.resizeVolume('v', MIB);
    await writeTo('v', 1);
    await expect(e.replaceWith('v', 'w', 'v@s')).rejects.toThrow(code('BASE_DIFFERS'));
    await e.rollback('v@s');
    await expect(e.replaceWith('v', 'w', 'w@s')).rejects.toThrow(code('BASE_DIFFERS'));
    await e.replaceWith('v', 'w', 'v@s');
    expect((await e.listVolumes()).map(({ name }) => name)).toEqual(['v']);
    const c = await home.connect('v');
    expect(await c.read(0, 512)).toEqual(Buffer.alloc(512, 2));
    await c.close();
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('are written by their attachment alone, until it is taken back', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    await e.createSnapshot('v', 's');
    await e.createVolume({ name: 'w', size: MIB });
    const before = await home.connect('v');
    await expect(e.attachVolume('v', { to: 'node1' })).rejects.toThrow(code('BUSY'));
    await before.close();
    await closed(e, 'v');
    const reader = await e.open('v', 'read');
    const attached = (await e.attachVolume('v', { to: 'node1' })).attached;
    if (attached === null) throw new Error('it is not attached');
    expect(attached).toMatchObject({ to: 'node1', export: `v/${attached.id}` });
    await e.release(reader.handle, reader.readOnly);
    await expect(e.attachVolume('v', { to: 'node2' })).rejects.toThrow(code('BUSY'));
    expect((await e.attachVolume('v', { to: 'node1', id: attached.id })).attached).toEqual(attached);
    for (const refused of [
      e.open('v', 'write'),
      e.rollback('v@s'),
      e.replaceWith('v', 'w'),
      e.replaceWith('w', 'v'),
      e.deleteVolume('v', { withSnapshots: true }),
    ])
      await expect(refused).rejects.toThrow(code('BUSY'));
    await expect(e.open(`v/${attached.id.replace(/.$/, 'x')}`)).rejects.toThrow(code('NOT_FOUND'));
    await expect(e.open(`w/${attached.id}`)).rejects.toThrow(code('NOT_FOUND'));
    expect((await e.resizeVolume('v', 2 * MIB)).attached).toEqual(attached);

    const holder = await home.connect(attached.export);
    await holder.write(0, Buffer.alloc(512, 1));
    const other = await home.connect('v');
    expect([holder.flags & READ_ONLY, other.flags & READ_ONLY]).toEqual([0, READ_ONLY]);
    await expect(other.write(0, Buffer.alloc(512, 2))).rejects.toMatchObject({ errno: 1 }); // EPERM
    expect(await other.read(0, 512)).toEqual(Buffer.alloc(512, 1));
    await expect(e.detachVolume('v')).rejects.toThrow(code('BUSY'));
    await holder.flush();

    // as it was after a restart; its name is the new one
    await e.renameVolume('v', 'x');
    await home.close();
    e = await home.open();
    const moved = { ...attached, export: `x/${attached.id}` };
    expect((await e.showVolume('x')).attached).toEqual(moved);
    const back = await home.connect(moved.export);
    expect((await back.read(0, 512)).equals(Buffer.alloc(512, 1))).toBe(true);
    // who comes back at once, again and again, does not keep it
    let coming = true;
    const again = (async () => {
      while (coming)
        await home.connect(moved.export).then(
          (c) => c.destroy(),
          () => undefined,
        );
    })();
    expect((await e.detachVolume('x', { force: true })).attached).toBeNull();
    coming = false;
    await again;
    await expect(back.write(0, Buffer.alloc(512, 3))).rejects.toThrow();
    await expect(home.connect(moved.export)).rejects.toThrow();
    await expect(e.detachVolume('x')).rejects.toThrow(code('NOT_FOUND'));
    const anybody = await home.connect('x');
    await anybody.write(0, Buffer.alloc(512, 4));
    await anybody.close();
    await closed(e, 'x');
    await e.attachVolume('x', { to: 'node2' });
    await e.deleteVolume('x', { withSnapshots: true, force: true });
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('are taken back by force also from who has only asked about them', async () => {
    const e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    const name = (await e.attachVolume('v', { to: 'node1' })).attached?.export as string;
    const asking = net.connect(home.socket);
    const ended = new Promise((resolve) => asking.once('close', resolve));
    asking.resume();
    asking.write(Buffer.concat([Buffer.from([0, 0, 0, NBD_FIXED_NEWSTYLE]), nbdOption(NBD_OPT_INFO, name)]));
    await expect.poll(async () => (await e.showVolume('v')).openCount).toBe(1);
    expect((await e.detachVolume('v', { force: true })).attached).toBeNull();
    await ended;
    expect((await e.showVolume('v')).openCount).toBe(0);
  });

  it('are listed whole and by name, however many pages that takes', async () => {
    const e = await home.open();
    const names: string[] = [];
    const more = async (count: number) => {
      const fresh = Array.from({ length: count }, (_, i) => `v${(i * 7919 + names.length) % 100_003}`);
      await Promise.all(fresh.map((name) => e.createVolume({ name, size: MIB })));
      await Promise.all(fresh.map((name) => e.createSnapshot(name, 's')));
      names.push(...fresh);
    };
    for (const count of [LIST_PAGE - 1, 1, 1, LIST_PAGE]) {
      await more(count);
      expect((await e.listVolumes()).map(({ name }) => name)).toEqual([...names].sort());
      expect((await e.listSnapshots()).map(({ name }) => name)).toEqual(names.map((name) => `${name}@s`).sort());
    }
    for (const name of names.splice(0, LIST_PAGE)) await e.deleteVolume(name, { withSnapshots: true });
    expect((await e.listVolumes()).map(({ name }) => name)).toEqual([...names].sort());
  });

  it('have unique names, free again after a delete', async () => {
    const e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    await expect(e.createVolume({ name: 'v', size: MIB })).rejects.toThrow(code('EXISTS'));
    const same = await Promise.allSettled([1, 2, 3].map(() => e.createVolume({ name: 'race', size: MIB })));
    expect(same.filter((r) => r.status === 'fulfilled')).toHaveLength(1);
    await e.createSnapshot('v', 's');
    await e.deleteSnapshot('v@s');
    await e.createSnapshot('v', 's');
    await e.deleteVolume('v', { withSnapshots: true });
    await e.createVolume({ name: 'v', size: MIB });
    await e.createSnapshot('v', 's');
    await e.renameVolume('v', 'w');
    expect((await e.showSnapshot('w@s')).name).toBe('w@s');
    await expect(e.showVolume('v')).rejects.toThrow(code('NOT_FOUND'));
  });

  it('wait for a name that another gives up, however long that takes', async () => {
    const slow = { poolFaults: { local: [{ kind: 'delay' as const, sync: true, delayMs: 500 }] } };
    const e = await home.open(slow);
    for (const name of ['a', 'b', 'c', 'd', 'e']) await e.createVolume({ name, size: MIB });
    await e.createSnapshot('d', 's');
    // their last batch waits behind a data sync; that of a new volume does not
    for (const name of ['a', 'b', 'c']) {
      const c = await home.connect(name);
      await c.write(0, Buffer.alloc(4096, 1));
      await c.close();
      await closed(e, name);
    }
    const order: string[] = [];
    const note = (what: string) => () => void order.push(what);
    await Promise.all([
      e.deleteVolume('a', {}).then(note('deleted')),
      e.createVolume({ name: 'a', size: 2 * MIB }).then(note('made')),
      e.renameVolume('b', 'b2').then(note('renamed')),
      e.clone('d@s', 'b').then(note('cloned')),
      e.deleteVolume('c', {}).then(note('deleted')),
      e.renameVolume('e', 'c').then(note('taken')),
    ]);
    expect(order.indexOf('made')).toBeGreaterThan(order.indexOf('deleted'));
    expect(order.indexOf('cloned')).toBeGreaterThan(order.indexOf('renamed'));
    expect((await e.listVolumes()).map((v) => [v.name, v.size])).toEqual([
      ['a', 2 * MIB],
      ['b', MIB],
      ['b2', MIB],
      ['c', MIB],
      ['d', MIB],
    ]);
    expect(await e.check()).toMatchObject({ ok: true });
  });

  it('do not shrink below a snapshot; shrunk and grown again they read zeroes', async () => {
    const e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    await e.createSnapshot('v', 's');
    await expect(e.resizeVolume('v', MIB / 2)).rejects.toThrow(code('HAS_SNAPSHOTS'));
    await e.deleteSnapshot('v@s');
    const c = await home.connect('v');
    await c.write(0, Buffer.alloc(MIB, 7));
    await c.flush();
    await e.resizeVolume('v', 100 * 512);
    await c.close();
    await closed(e, 'v');
    await e.resizeVolume('v', 2 * MIB);
    const again = await home.connect('v');
    expect(again.size).toBe(2 * MIB);
    const bytes = await again.read(0, 2 * MIB);
    expect(bytes.subarray(0, 51200).every((b) => b === 7)).toBe(true);
    expect(bytes.subarray(51200).every((b) => b === 0)).toBe(true);
    await again.close();
  });

  it('are rolled back only when closed', async () => {
    const e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    const c = await home.connect('v');
    await c.write(0, Buffer.alloc(4096, 1));
    await e.createSnapshot('v', 's');
    await c.write(0, Buffer.alloc(4096, 2));
    await expect(e.rollback('v@s')).rejects.toThrow(code('BUSY'));
    await c.close();
    await closed(e, 'v');
    await e.rollback('v@s');
    const again = await home.connect('v');
    expect((await again.read(0, 4096)).every((b) => b === 1)).toBe(true);
    await again.close();
  });
});

describe('a damaged map page', () => {
  it('answers EIO for what it covers, serves the rest, and check names it', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 256 * MIB });
    let c = await home.connect('v');
    await c.write(0, Buffer.alloc(4096, 1));
    await c.write(64 * MIB, Buffer.alloc(4096, 2));
    await c.flush();
    await c.close();
    await home.close();
    const db = new Database(path.join(home.home, 'store.db'));
    // the first leaf was made first; its root has level 1 in byte 3
    const pages = db.prepare('SELECT id, data FROM page ORDER BY id').all() as { id: number; data: Buffer }[];
    const leaf = pages.find((p) => p.data[3] === 0) as { id: number; data: Buffer };
    leaf.data[20] ^= 0x10;
    db.prepare('UPDATE page SET data = ? WHERE id = ?').run(leaf.data, leaf.id);
    db.close();
    e = await home.open();
    c = await home.connect('v');
    await expect(c.read(0, 4096)).rejects.toThrow(expect.objectContaining({ errno: 5 }));
    await expect(c.write(0, Buffer.alloc(512))).rejects.toThrow(expect.objectContaining({ errno: 5 }));
    expect((await c.read(64 * MIB, 4096)).every((b) => b === 2)).toBe(true);
    await c.write(64 * MIB, Buffer.alloc(512, 3));
    await c.flush();
    const report = await e.check();
    expect(report.ok).toBe(false);
    expect(report.problems).toContainEqual(expect.objectContaining({ code: 'DAMAGED', resource: 'v' }));
    await c.close();
  });

  it('at the root ends growing and cloning with an error, and nothing is left of the clone', async () => {
    let e = await home.open();
    await e.createVolume({ name: 'v', size: 32 * MIB });
    const c = await home.connect('v');
    await c.write(0, Buffer.alloc(4096, 1));
    await c.close();
    await closed(e, 'v');
    await e.createSnapshot('v', 's');
    expect(await e.createVolume({ name: 'c', from: 'v@s', size: 64 * MIB })).toMatchObject({ size: 64 * MIB });
    const clone = await home.connect('c');
    expect((await clone.read(0, 8192)).equals(Buffer.alloc(8192).fill(1, 0, 4096))).toBe(true);
    await clone.close();
    await e.deleteVolume('c', { force: true });
    await home.close();

    const db = new Database(path.join(home.home, 'store.db'));
    const { root } = db.prepare("SELECT root FROM resource WHERE name = 's'").get() as { root: number };
    const { data } = db.prepare('SELECT data FROM page WHERE id = ?').get(root) as { data: Buffer };
    data[20] ^= 0x10;
    db.prepare('UPDATE page SET data = ? WHERE id = ?').run(data, root);
    db.close();
    e = await home.open();
    await expect(e.createVolume({ name: 'c', from: 'v@s', size: 64 * MIB })).rejects.toThrow(code('CORRUPT'));
    expect((await e.listVolumes()).map((v) => v.name)).toEqual(['v']);
    await e.createVolume({ name: 'c', size: MIB });
    await expect(e.resizeVolume('v', 64 * MIB)).rejects.toThrow(code('CORRUPT'));
    expect(await e.resizeVolume('v', 24 * MIB).catch((error) => error.code)).toBe('HAS_SNAPSHOTS');
  });
});

describe('a pool that could not be opened when it was made', () => {
  it.each([
    ['folder/', null],
    ['file', null],
    ['file', 0],
    ['file', 200 * MIB],
  ] as const)('leaves nothing where it was to be: %s of %s bytes', async (name, bytes) => {
    const e = await home.open();
    const pools = (e as unknown as { pools: { native: Native } }).pools;
    const { native } = pools;
    const openPool = () => {
      throw Object.assign(new Error('too many open pools'), { code: 'EMFILE' });
    };
    pools.native = { ...native, openPool };
    const there = path.join(home.dir, name);
    if (bytes !== null) {
      fs.writeFileSync(there, '');
      fs.truncateSync(there, bytes);
    }
    await expect(e.createPool({ name: 'p', path: there, size: 128 * MIB })).rejects.toThrow('too many open pools');
    if (name === 'file') expect(fs.statSync(there, { throwIfNoEntry: false })?.size ?? null).toBe(bytes);
    else expect(fs.readdirSync(there)).toEqual([]);
    pools.native = native;
    expect(await e.createPool({ name: 'q', path: there, size: 128 * MIB })).toMatchObject({ name: 'q', state: 'ok' });
  });
});

describe('a check', () => {
  it('is one of two at most, and ends when it is told to, or with the engine', async () => {
    const e = await home.open();
    await e.createVolume({ name: 'v', size: MIB });
    const stop = new AbortController();
    const first = e.check(undefined, stop.signal);
    const second = e.check();
    await expect(e.check()).rejects.toThrow(code('BUSY'));
    stop.abort();
    await expect(first).rejects.toThrow(code('IO'));
    expect(await second).toMatchObject({ ok: true });
    const third = e.check();
    const ended = expect(third).rejects.toThrow(code('IO'));
    await home.close();
    await ended;
  });
});
