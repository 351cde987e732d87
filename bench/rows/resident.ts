/** What a daemon takes that has nothing to do, and what it takes with as much map as there can be in memory. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import { NbdClient } from '../nbd.ts';
import { cpuSeconds, memory } from '../proc.ts';
import { atMost, memoryFacts, newRow, type RowResult } from '../result.ts';
import { SCATTER_BYTES } from '../scatter.ts';
import { GIB, KIB, MIB } from '../size.ts';
import type { Row } from './row.ts';
import { BIG, scatteredDaemon } from './scattered-daemon.ts';

const VOLUMES = 200;
const CONNECTIONS = 64;
const IDLE_SECONDS = 15;
const IDLE_SECONDS_QUICK = 3;
/** What comes with a start, such as compiling and the first garbage collection, is over by then. */
const SETTLE_MS = 3000;

const GOAL_IDLE_CPU_PERCENT = 1;
/** 256 MiB, and the map cache at its default of 256 MiB. */
const GOAL_RSS_MIB = 512;

const LEAF_BYTES = 32 * MIB;
const READS_AT_ONCE = 64;

export const resident: Row = {
  ids: ['idle', 'resident'],
  async *run(bench, wanted): AsyncIterable<RowResult> {
    bench.needsAtoll();
    if (wanted('idle')) yield await idle(bench);
    if (wanted('resident')) yield await residentMemory(bench);
  },
};

async function idle(bench: Bench): Promise<RowResult> {
  const row = newRow('idle', `idle daemon with ${CONNECTIONS} connections and ${VOLUMES} volumes`, '%', 'lower');
  bench.say(`${row.id}: ${row.title}`);
  const { daemon, end } = await bench.ownDaemon();
  const names = await makeVolumes(daemon);
  const clients = await Promise.all(
    names.slice(0, CONNECTIONS).map((name) => NbdClient.connect(daemon.nbdSocket, name)),
  );
  for (const client of clients) await client.write(0, Buffer.alloc(4 * KIB, 1));
  await sleep(SETTLE_MS);
  const seconds = bench.options.quick ? IDLE_SECONDS_QUICK : IDLE_SECONDS;
  const before = cpuSeconds(daemon.pid);
  await sleep(seconds * 1000);
  const percent = ((cpuSeconds(daemon.pid) - before) / seconds) * 100;
  memoryFacts(row, memory(daemon.pid));
  row.facts.seconds = seconds;
  atMost(row, `< ${GOAL_IDLE_CPU_PERCENT} % of a core`, percent, GOAL_IDLE_CPU_PERCENT, '%');
  for (const client of clients) await client.close();
  await end();
  return row;
}

async function residentMemory(bench: Bench): Promise<RowResult> {
  const row = newRow('resident', `memory with 1 TiB of scattered map read and ${VOLUMES} open volumes`, 'MiB', 'lower');
  const daemon = await scatteredDaemon(bench);
  bench.say(`${row.id}: ${row.title}`);
  const names = await makeVolumes(daemon);
  const clients: NbdClient[] = [];
  for (const name of names) {
    const client = await NbdClient.connect(daemon.nbdSocket, name);
    await client.write(0, Buffer.alloc(4 * KIB, 1));
    clients.push(client);
  }
  await readEveryLeaf(daemon);
  memoryFacts(row, memory(daemon.pid));
  const { map } = await daemon.http<{ map: { residentPages: number; cacheBytes: number } }>('GET', '/v1/status');
  row.facts.map_pages_resident = map.residentPages;
  row.facts.map_cache_MiB = map.cacheBytes / MIB;
  atMost(row, `resident ≤ ${GOAL_RSS_MIB} MiB`, memory(daemon.pid).rssBytes / MIB, GOAL_RSS_MIB, 'MiB');
  for (const client of clients) await client.close();
  for (const name of names) await daemon.deleteVolume(name);
  return row;
}

async function makeVolumes(daemon: Daemon): Promise<string[]> {
  const names = Array.from({ length: VOLUMES }, (_, i) => `v${i}`);
  for (const name of names) await daemon.createVolume(name, 10 * GIB);
  return names;
}

async function readEveryLeaf(daemon: Daemon): Promise<void> {
  const client = await NbdClient.connect(daemon.nbdSocket, BIG);
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < SCATTER_BYTES) {
      const at = next;
      next += LEAF_BYTES;
      await client.read(at, 4 * KIB);
    }
  };
  await Promise.all(Array.from({ length: READS_AT_ONCE }, worker));
  await client.close();
}
