/** Backups of store and catalog: of one moment whatever goes on, private, and the way back. */
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { backupHome } from '../../../src/control/backup.ts';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import type { Change } from '../../../src/control/catalog/types.ts';
import { engineSide } from '../../../src/control/serve/engine-side.ts';
import { type Engine, EngineError } from '../../../src/xseg/types.ts';
import { openEngine } from '../../xseg/engine.ts';
import { inProcess } from '../in-process.ts';
import { BACKENDS, CatalogFolder, foldersIn } from './folder.ts';

let at: CatalogFolder;
let home: string;
let engine: Engine | null;
let catalog: LocalCatalog;
beforeEach(async () => {
  at = new CatalogFolder('h');
  home = path.dirname(at.folder);
  engine = null;
  await open();
});
afterEach(() => at.end(async () => engine?.close()));

async function open(): Promise<void> {
  engine = await openEngine({
    ...{ home, version: 'test', cacheBytes: 16 << 20, log: () => undefined },
    onFatal: (reason) => void at.deaths.push(reason),
  });
  catalog = at.open(engineSide(engine, () => undefined));
  await catalog.start();
}
async function close(): Promise<void> {
  await catalog.close();
  await engine?.close();
  engine = null;
}

const row = (id: string): Change => ({
  ...{ do: 'insert', table: 'region', row: { id, description: '', parent_region_id: null, extra: '{}' } },
});
const gone = (id: string): Change => ({ do: 'delete', table: 'region', where: { id } });
const make = (name: string) =>
  catalog.pins.make({ kind: 'test', name }, async () => {
    await engine!.createVolume({ name, size: 2 ** 20 });
    return { result: 0, changes: [row(name)] };
  });
const backup = (name: string) => backupHome(engine!, catalog, at.folder, path.join(at.dir, name));
const select = (file: string, text: string): string[] => {
  const db = new Database(file, { readonly: true });
  const values = db.prepare(text).pluck().all() as string[];
  db.close();
  return values;
};
/** What rows name, what pins name, what the engine has. */
const parts = (folder: string) => ({
  rows: select(path.join(folder, 'cloud', 'catalog.db'), "SELECT id FROM region WHERE id <> 'RegionOne'"),
  pins: select(path.join(folder, 'cloud', 'catalog.db'), 'SELECT name FROM pin'),
  volumes: select(path.join(folder, 'store.db'), 'SELECT name FROM resource WHERE kind = 1'),
});

describe.each(BACKENDS)('a backup of a catalog in %s', (backend) => {
  const newFolder = foldersIn(backend);
  beforeEach(async () => {
    await at.end(async () => engine?.close());
    at = await newFolder('h');
    home = path.dirname(at.folder);
    await open();
  });

  it('is of one moment of both while services make and delete', { timeout: 120_000 }, async () => {
    let stop = false;
    let made = 0;
    const worker = async (own: string) => {
      for (let n = 0; !stop; n++) {
        await make(`${own}-${n}`);
        made++;
        if (n % 2) await catalog.pins.drop(`${own}-${n - 1}`, [gone(`${own}-${n - 1}`)]);
      }
    };
    const workers = ['a', 'b', 'c'].map(worker);
    // Its moment is known late, as on a busy machine: what is written meanwhile would be in one of the two.
    const late = Object.create(engine) as Engine;
    late.backup = (to, fixed) => engine!.backup(to, () => setTimeout(() => fixed?.(), 200));
    const seen: string[] = [];
    for (let n = 0; n < 8; n++) {
      // Something goes on all the time.
      const before = made;
      await expect.poll(() => made).toBeGreaterThan(before);
      const copy = await backupHome(late, catalog, at.folder, path.join(at.dir, `b${n}`));
      const { rows, pins, volumes } = parts(copy.path);
      seen.push(rows.sort().join());
      const missing = rows.filter((name) => !volumes.includes(name));
      const unclaimed = volumes.filter((name) => !rows.includes(name) && !pins.includes(name));
      expect([n, missing, unclaimed]).toEqual([n, [], []]);
    }
    stop = true;
    await Promise.all(workers);
    expect(new Set(seen).size).toBe(8);
  });
});

describe('a backup', () => {
  it('is a private folder, whole or not there, and holds nothing up when it fails', async () => {
    const made = await backup('one');
    const files = (fs.readdirSync(made.path, { recursive: true }) as string[]).sort();
    expect(files).toEqual(['cloud', 'cloud/catalog.db', 'cloud/openrc.json', 'store.db']);
    for (const name of ['.', ...files]) {
      const info = fs.statSync(path.join(made.path, name));
      expect([name, info.mode & 0o777]).toEqual([name, info.isDirectory() ? 0o700 : 0o600]);
    }
    expect(made.bytes).toBe(made.catalogBytes! + fs.statSync(path.join(made.path, 'store.db')).size);
    await expect(backup('one/store.db')).rejects.toMatchObject({ code: 'EXISTS' });
    const failing = Object.create(engine) as Engine;
    failing.backup = () => Promise.reject(new EngineError('NO_SPACE', 'full'));
    await expect(backupHome(failing, catalog, at.folder, path.join(at.dir, 'two'))).rejects.toThrow('full');
    const nowhere = path.join(at.dir, 'one', 'store.db', 'cloud');
    await expect(catalog.backup(nowhere, async () => undefined)).rejects.toThrow('ENOTDIR');
    await catalog.write([row('later')]);
    // One after another.
    await Promise.all(['three', 'four'].map(backup));
    expect(parts(path.join(at.dir, 'four')).rows).toEqual(['later']);
    expect(fs.readdirSync(at.dir).sort()).toEqual(['four', 'h', 'one', 'three']);
  });

  it('without an open catalog has the one that lies there, or none', async () => {
    await catalog.write([row('kept')]);
    await catalog.close();
    const made = await backupHome(engine!, null, at.folder, path.join(at.dir, 'one'));
    expect(parts(made.path).rows).toEqual(['kept']);
    fs.rmSync(at.folder, { recursive: true });
    expect(await backupHome(engine!, null, at.folder, path.join(at.dir, 'two'))).toMatchObject({ catalogBytes: null });
    expect(fs.readdirSync(path.join(at.dir, 'two'))).toEqual(['store.db']);
  });
});

describe('the way back', () => {
  const recover = (...argv: string[]) => inProcess({ home }, ['recover', ...argv, '--json']);
  const lose = (...names: string[]) => {
    for (const name of names) fs.rmSync(path.join(home, name), { recursive: true, force: true });
  };
  const STORE = ['store.db', 'store.db-wal', 'store.db-shm'];

  it('of both: users, rows and volumes of that moment; what was begun is cleaned up; tokens have ended', async () => {
    await make('v1');
    // Begun, and not made when the backup is.
    let go: () => void = () => undefined;
    const begun = catalog.pins.make({ kind: 'test', name: 'v2' }, async () => {
      await engine!.createVolume({ name: 'v2', size: 2 ** 20 });
      await new Promise<void>((resolve) => {
        go = resolve;
      });
      return { result: 0, changes: [row('v2')] };
    });
    await expect.poll(async () => (await engine!.listVolumes()).length).toBe(2);
    const made = await backup('one');
    const openrc = fs.readFileSync(path.join(at.folder, 'openrc.json'), 'utf8');
    const users = select(path.join(at.folder, 'catalog.db'), 'SELECT id FROM "user" ORDER BY id');
    go();
    await begun;
    await close();
    const pool = path.join(home, 'pools', 'local');
    fs.writeFileSync(path.join(at.folder, 'token-keys.json'), '{}');
    // Each is refused while it is there.
    expect(await recover(pool, '--from', made.path)).toMatchObject({
      exit: 4,
      err: expect.stringMatching(/there is a catalog/),
    });
    fs.rmSync(path.join(at.folder, 'catalog.db'));
    expect(await recover(pool, '--from', made.path)).toMatchObject({
      exit: 4,
      err: expect.stringMatching(/there is a store/),
    });
    lose(...STORE);
    // The pool has no two whole copies yet, which would prove that it fits.
    const done = await recover(pool, '--from', made.path, '--force');
    expect([done.exit, done.err]).toEqual([0, '']);
    expect(JSON.parse(done.out)).toMatchObject({ volumes: 2, catalog: true, check: { ok: true } });
    expect(fs.readdirSync(at.folder).sort()).toEqual(['catalog.db', 'openrc.json', 'operator.key']);
    expect(fs.readFileSync(path.join(at.folder, 'openrc.json'), 'utf8')).toBe(openrc);
    await open();
    expect((await engine!.listVolumes()).map(({ name }) => name)).toEqual(['v1']);
    const db = await catalog.reader();
    expect(await db.selectFrom('region').select('id').where('id', '!=', 'RegionOne').execute()).toEqual([{ id: 'v1' }]);
    expect((await db.selectFrom('user').select('id').orderBy('id').execute()).map(({ id }) => id)).toEqual(users);
    for (const name of fs.readdirSync(at.folder))
      expect([name, fs.statSync(path.join(at.folder, name)).mode & 0o777]).toEqual([name, 0o600]);
  });

  it('of the catalog alone: over what is left of another, without a daemon, and a daemon serves it', async () => {
    await catalog.write([row('kept')]);
    const made = await backup('one');
    await catalog.write([row('late')]);
    expect((await recover('--from', made.path)).exit).toBe(4);
    await catalog.close();
    const file = path.join(at.folder, 'catalog.db');
    // The log of one that is gone must not be read into the one that is put in its place.
    const other = new Database(file);
    other.pragma('wal_autocheckpoint = 0');
    other.exec("INSERT INTO region VALUES ('of-the-log', '', NULL, '{}')");
    fs.copyFileSync(`${file}-wal`, path.join(at.dir, 'wal'));
    other.close();
    fs.rmSync(file);
    fs.renameSync(path.join(at.dir, 'wal'), `${file}-wal`);
    expect(await recover('--from', made.path)).toMatchObject({ exit: 4, err: expect.stringMatching(/held by/) });
    await engine!.close();
    engine = null;
    expect(JSON.parse((await recover('--from', made.path)).out)).toEqual({ home, catalog: true });
    await open();
    const db = await catalog.reader();
    expect(await db.selectFrom('region').select('id').where('id', '!=', 'RegionOne').execute()).toEqual([
      { id: 'kept' },
    ]);
  });

  it('of the store alone leaves the catalog as it is', async () => {
    const made = await backup('one');
    await catalog.write([row('late')]);
    await close();
    lose(...STORE);
    const done = await recover(
      path.join(home, 'pools', 'local'),
      '--from',
      path.join(made.path, 'store.db'),
      '--force',
    );
    expect([done.exit, done.err]).toEqual([0, '']);
    expect(JSON.parse(done.out)).toMatchObject({ catalog: false });
    expect(select(path.join(at.folder, 'catalog.db'), "SELECT id FROM region WHERE id = 'late'")).toEqual(['late']);
  });

  it('what is no backup is refused, and nothing is put anywhere', async () => {
    const made = await backup('one');
    await close();
    lose('cloud');
    const copied = path.join(made.path, 'cloud', 'catalog.db');
    fs.writeFileSync(copied, 'x'.repeat(4096));
    expect(await recover('--from', made.path)).toMatchObject({
      exit: 4,
      err: expect.stringMatching(/no catalog of Atoll/),
    });
    expect(fs.existsSync(path.join(at.folder, 'catalog.db'))).toBe(false);
    fs.rmSync(copied);
    expect(await recover('--from', made.path)).toMatchObject({ exit: 3 });
    expect((await recover('--from', path.join(at.dir, 'nothing'))).exit).toBe(3);
    expect((await recover()).exit).toBe(2);
  });
});
