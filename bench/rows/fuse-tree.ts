/** Walking through a mount with 100,000 volumes and snapshots, beside the same files on the file system below. */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Bench, Skipped } from '../bench.ts';
import { makeCrowd, volumeName } from '../crowd.ts';
import type { Daemon } from '../daemon.ts';
import { fuseObstacle } from '../peers/fuse.ts';
import { ATOLL } from '../peers/server.ts';
import { atMost, newRow, type RowResult, type Sample } from '../result.ts';
import { MIB } from '../size.ts';
import { median } from '../stats.ts';
import type { Row } from './row.ts';

const CROWD = { volumes: 10_000, snapshotsEach: 9 };
const FIND_GOAL_S = 2;
const LS_GOAL_S = 0.3;
const PLAIN = 'plain files';
/** the kernel has forgotten attributes and names by then */
const FORGET_MS = 1_500;
const ADOPTION_MS_MAX = 300_000;
const ADOPTION_POLL_MS = 500;
/** `find` counts folders too: the tree's own three, and one for each volume */
const FOUND = CROWD.volumes * (1 + CROWD.snapshotsEach) + CROWD.volumes + 3;

const WALKS = [
  {
    id: 'fuse-find',
    title: 'FUSE: `find` of 100,000 volumes and snapshots',
    script: 'find "$1" | wc -l',
    counts: FOUND,
    goal: FIND_GOAL_S,
  },
  {
    id: 'fuse-ls',
    title: 'FUSE: `ls -l` of a folder of 10,000 volumes',
    script: 'ls -l "$1/volumes" | wc -l',
    // and the line `total`
    counts: CROWD.volumes + 1,
    goal: LS_GOAL_S,
  },
];

export const fuseTree: Row = {
  ids: WALKS.map(({ id }) => id),
  async *run(bench, wanted): AsyncIterable<RowResult> {
    const obstacle = fuseObstacle();
    if (obstacle !== null) throw new Skipped(obstacle);
    bench.needsAtoll();
    const { daemon, end } = await bench.ownDaemon();
    bench.say(`making ${CROWD.volumes} volumes with ${CROWD.snapshotsEach} snapshots each, and as many files`);
    await makeCrowd(daemon, CROWD);
    const mounted = bench.file(bench.fresh('crowd'));
    fs.mkdirSync(mounted);
    await daemon.cli('mount', mounted);
    const plain = plainCrowd(bench);
    let adopted = false;
    try {
      for (const walk of WALKS.filter(({ id }) => wanted(id))) {
        const row = newRow(walk.id, walk.title, 's', 'lower');
        bench.say(`${row.id}: ${row.title}`);
        const samples: Record<string, Sample[]> = { [ATOLL]: [], [PLAIN]: [] };
        if (!adopted) {
          row.facts.seconds_while_adopting = await seconds(bench, walk, mounted);
          row.facts.seconds_to_adopt = await adoption(daemon);
          adopted = true;
        }
        for (let round = 0; round < bench.options.rounds; round++) {
          for (const [name, dir] of [[ATOLL, mounted] as const, [PLAIN, plain] as const])
            samples[name].push({ value: await seconds(bench, walk, dir), cpuPerMillion: null });
          const told = Object.entries(samples).map(([name, of]) => `${name} ${of.at(-1)?.value.toPrecision(3)}`);
          bench.say(`  round ${round + 1}/${bench.options.rounds}  ${told.join('  ')}`);
        }
        for (const [name, of] of Object.entries(samples)) row.series.push({ name, samples: of });
        atMost(row, `≤ ${walk.goal} s`, median(samples[ATOLL].map(({ value }) => value)), walk.goal, 's');
        row.notes.push('attributes and names have been forgotten by the kernel; plain files are in its caches');
        yield row;
      }
    } finally {
      await daemon.cli('umount', '--lazy', mounted);
      await end();
      bench.remove(plain);
    }
  },
};

/** Background work that follows what was made: the catalog gets a row of each. @returns seconds from now */
async function adoption(daemon: Daemon): Promise<number> {
  const wanted = CROWD.volumes * CROWD.snapshotsEach;
  const began = performance.now();
  for (;;) {
    const { resources } = await daemon.cli<{ resources: { resource: string; used: number }[] }>(
      'quota',
      'show',
      'admin',
    );
    if (resources.some(({ resource, used }) => resource === 'snapshots' && used === wanted)) break;
    if (performance.now() - began > ADOPTION_MS_MAX) throw new Error('not everything is adopted');
    await sleep(ADOPTION_POLL_MS);
  }
  return (performance.now() - began) / 1000;
}

async function seconds(bench: Bench, { script, counts }: (typeof WALKS)[number], dir: string): Promise<number> {
  await sleep(FORGET_MS);
  const began = process.hrtime.bigint();
  const lines = Number(await bench.children.run('sh', ['-c', script, 'sh', dir]));
  const took = Number(process.hrtime.bigint() - began) / 1e9;
  if (lines !== counts) throw new Error(`${script} of ${dir} has ${lines} lines and not ${counts}`);
  return took;
}

/** The same tree as files without bytes. */
function plainCrowd(bench: Bench): string {
  const dir = bench.file(bench.fresh('plain-crowd'));
  const file = (at: string): void => fs.closeSync(fs.openSync(at, 'w'));
  fs.mkdirSync(path.join(dir, 'volumes'), { recursive: true });
  for (let i = 0; i < CROWD.volumes; i++) {
    const folder = path.join(dir, 'snapshots', volumeName(i));
    fs.mkdirSync(folder, { recursive: true });
    file(path.join(dir, 'volumes', volumeName(i)));
    fs.truncateSync(path.join(dir, 'volumes', volumeName(i)), MIB);
    for (let s = 0; s < CROWD.snapshotsEach; s++) file(path.join(folder, `s${s}`));
  }
  return dir;
}
