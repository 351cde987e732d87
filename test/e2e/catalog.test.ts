/** Catalog and engine of a real daemon: what a killed one left between them, quotas, and both in a backup and back. */
import fs from 'node:fs';
import path from 'node:path';
import Database from 'better-sqlite3';
import { afterAll, expect, it } from 'vitest';
import { ATOLL, type Daemon } from '../../bench/daemon.ts';
import { World } from './lib/daemon.ts';

const MIB = 1024 * 1024;
const world = new World();
afterAll(() => world.end());

const serve = (home?: string) => world.start(['--http', '127.0.0.1:0', '--copy-every', '1s'], home);
interface Answers {
  resources: { resource: string; limit: number; from: string }[];
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
