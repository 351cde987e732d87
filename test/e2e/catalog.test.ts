/** Catalog and engine of a real daemon: what a killed one left between them, quotas, and both in a backup and back. */
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import * as rows from '../control/catalog/rows.ts';
import { World } from './lib/daemon.ts';

const MIB = 1024 * 1024;
const world = new World();
afterAll(() => world.end());

const serve = (home?: string) => world.start(['--http', '127.0.0.1:0', '--copy-every', '1s'], home);
interface Answers {
  resources: { resource: string; limit: number; from: string; used: number; reserved: number }[];
  path: string;
}
const json = (daemon: Daemon, ...argv: string[]) => daemon.cli<Answers>(...argv);
const volumes = async (daemon: Daemon): Promise<string[]> => {
  const answer = await daemon.cli<{ volumes: { name: string }[] }>('volume', 'list');
  return answer.volumes.map(({ name }) => name).sort();
};
const password = async (daemon: Daemon) => (await daemon.cli<{ OS_PASSWORD: string }>('openrc')).OS_PASSWORD;

it('what a service had begun goes at the next start, and what was made by hand stays', {
  timeout: 120_000,
}, async () => {
  const daemon = await serve();
  for (const name of ['mine', 'begun']) await daemon.createVolume(name, MIB);
  // The catalog opens when it is asked for.
  expect((await json(daemon, 'quota', 'show', 'admin')).resources).toHaveLength(8);
  await daemon.stop();
  const db = new Database(path.join(daemon.home, 'cloud', 'catalog.db'));
  db.exec("INSERT INTO pin VALUES ('begun', 'of-a-run-before', 'test', NULL, NULL, 0)");
  db.close();
  await daemon.restart();
  await json(daemon, 'quota', 'show', 'admin');
  expect(await volumes(daemon)).toEqual(['mine']);
  await daemon.stop();
});

/** What the operators' project is charged for, and what there is. */
async function expectCharged(daemon: Daemon): Promise<void> {
  const { resources } = await json(daemon, 'quota', 'show', 'admin');
  const charged = Object.fromEntries(resources.map(({ resource, used }) => [resource, used]));
  const listed = await daemon.cli<{ volumes: { size: number }[] }>('volume', 'list');
  const { snapshots } = await daemon.cli<{ snapshots: { size: number }[] }>('snapshot', 'list');
  const bytes = [...listed.volumes, ...snapshots].reduce((sum, { size }) => sum + size, 0);
  expect(charged).toMatchObject({ volumes: listed.volumes.length, snapshots: snapshots.length, volume_bytes: bytes });
  expect(resources.filter(({ reserved }) => reserved !== 0)).toEqual([]);
}

it('volumes made by hand belong to the admin project, at any moment of a kill', { timeout: 240_000 }, async () => {
  const daemon = await serve();
  await daemon.createVolume('first', 3 * MIB);
  await daemon.snapshot('first', 's');
  await expectCharged(daemon);
  let made = 0;
  for (let round = 0; round < 2; round++) {
    const one = async () => {
      const name = `v${made++}`;
      await daemon.createVolume(name, MIB);
      await daemon.snapshot(name, 's');
      if (made % 3 === 0) await daemon.deleteVolume(name);
    };
    // What the kill ends is not answered.
    const work = Array.from({ length: 12 }, () => one().catch(() => undefined));
    // Some have their rows by then, perhaps, and some are not begun.
    await work[4 * round - 1];
    await daemon.kill();
    await Promise.all(work);
    await daemon.restart();
    await expectCharged(daemon);
  }
  await daemon.stop();
});

it('rows that a killed daemon left in a passing state are finished, or errors, at its next start', {
  timeout: 120_000,
}, async () => {
  const daemon = await serve();
  await json(daemon, 'quota', 'show', 'admin');
  for (const name of ['made', 'dropped']) await daemon.createVolume(name, MIB);
  await daemon.kill();
  // As services leave them.
  const file = path.join(daemon.home, 'cloud', 'catalog.db');
  const db = new Database(file);
  db.exec('DELETE FROM volume');
  const { id: project } = db.prepare("SELECT id FROM project WHERE name = 'demo'").get() as { id: string };
  const insert = (table: string, row: object) => {
    const columns = Object.keys(row);
    const statement = `INSERT INTO ${table} (${columns}) VALUES (${columns.map((one) => `@${one}`)})`;
    db.prepare(statement).run(row);
  };
  const pin = { run: 'killed', kind: 'volume', commission_id: null, created_at: 0 };
  for (const [id, status] of [
    ['made', 'creating'],
    ['begun', 'creating'],
    ['dropped', 'deleting'],
    ['lost', 'extending'],
  ]) {
    insert('volume', rows.volume(project, { id: id!, status: status!, root: id!, size: MIB }));
    if (status === 'creating') insert('pin', { ...pin, name: id, subject: id });
  }
  const charged = (resource: string, used: number) =>
    insert('holding', {
      id: `p:${project} ${resource}`,
      project_id: project,
      user_id: null,
      resource,
      used,
      reserved: 0,
    });
  charged('volumes', 2);
  charged('volume_bytes', 2 * MIB);
  db.close();
  await daemon.restart();
  await json(daemon, 'quota', 'show', 'demo');
  const after = new Database(file, { readonly: true });
  const left = after.prepare('SELECT id, status, root FROM volume ORDER BY id').all();
  const pins = after.prepare('SELECT name FROM pin').all();
  after.close();
  expect(left).toEqual([
    { id: 'begun', status: 'error', root: null },
    { id: 'lost', status: 'error', root: null },
    { id: 'made', status: 'available', root: 'made' },
  ]);
  expect([pins, await volumes(daemon)]).toEqual([[], ['made']]);
  const { resources } = await json(daemon, 'quota', 'show', 'demo');
  expect(resources.filter(({ used, reserved }) => used + reserved > 0)).toEqual([]);
  await daemon.stop();
});

it('a backup has both, and both come back from it', { timeout: 180_000 }, async () => {
  const daemon = await serve();
  await daemon.createVolume('v', MIB);
  await json(daemon, 'quota', 'set', 'demo', 'volumes=7');
  const made = await json(daemon, 'backup', world.file('backup'));
  expect(made).toMatchObject({ path: world.file('backup'), catalogBytes: expect.any(Number) });
  const again = await world.run(ATOLL, 'backup', world.file('again'), '--home', daemon.home);
  expect(again).toMatch(/: store and catalog as of /);
  const before = await password(daemon);
  await json(daemon, 'quota', 'set', 'demo', 'volumes=8');
  await daemon.stop();
  const home = world.file('new');
  // A pool with fewer than two copies from before the backup cannot prove that it fits.
  const pool = path.join(daemon.home, 'pools', 'local');
  const recovered = await world.run(ATOLL, 'recover', pool, '--home', home, '--from', made.path, '--force');
  expect(recovered).toMatch(/check: ok\ncatalog: put back/);
  const other = await serve(home);
  expect(await volumes(other)).toEqual(['v']);
  const { resources } = await json(other, 'quota', 'show', 'demo');
  expect(resources[0]).toMatchObject({ resource: 'volumes', limit: 7, from: 'project' });
  expect(await password(other)).toBe(before);
  expect(fs.existsSync(path.join(home, 'cloud', 'operator.key'))).toBe(true);
});
