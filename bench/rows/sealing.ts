/**
 * Sealing: a snapshot whose bytes are in the page cache, half of them twice, from the moment it may begin until its hash
 * is durable, with an index that has 16 million entries already. restic and borg keep the same bytes from a file, without compression, borg without encryption.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import type { Bench } from '../bench.ts';
import { writeContent } from '../content.ts';
import type { Daemon } from '../daemon.ts';
import { NbdClient } from '../nbd.ts';
import { ATOLL } from '../peers/server.ts';
import { cpuSeconds, memory } from '../proc.ts';
import { memoryFacts, newRow, type RowResult, ratioGoal, type Sample, valuesOf } from '../result.ts';
import { GIB, KIB, MIB } from '../size.ts';
import { median } from '../stats.ts';
import { KEEPERS, keep } from './keepers.ts';
import type { Row } from './row.ts';

const BYTES = 2 * GIB;
const BYTES_QUICK = 256 * MIB;
const BLOCK = 64 * KIB;
/** Every second piece says again what the one before it said; nothing else is twice there. */
const PIECE = 4 * MIB;
const TIMES = 2;
const GOAL = 1;
const GOAL_PEER = 4;
const POLL_MS = 50;
/** Of the index, before the first block: 1 TiB in blocks of 64 KiB. They are of slots that the pool does not have yet. */
const ENTRIES = 2 ** 24;
const ENTRIES_QUICK = 2 ** 16;
const ENTRIES_SLOT = 2 ** 32;
/** Sealed before the clock starts: threads and connections are there then. */
const WARM_BYTES = 4 * MIB;

export const sealing: Row = {
  ids: ['sealing'],
  async *run(bench): AsyncIterable<RowResult> {
    const bytes = bench.options.quick ? BYTES_QUICK : BYTES;
    const row = newRow('sealing', `hashing and folding ${bytes / GIB} GiB, half of it twice`, 'GB/s');
    bench.say(`${row.id}: ${row.title}`);
    const peers = KEEPERS.filter(({ name }) => bench.wants(name));
    const samples = new Map<string, Sample[]>();
    const perCore: number[] = [];
    const add = (name: string, value: number) => {
      const list = samples.get(name) ?? [];
      list.push({ value, cpuPerMillion: null });
      samples.set(name, list);
    };
    const entries = bench.options.quick ? ENTRIES_QUICK : ENTRIES;
    const own = bench.wants(ATOLL) ? await sealingDaemon(bench, entries) : null;
    for (let round = 0; round < bench.options.rounds; round++) {
      const file = bench.file('content');
      writeContent(file, { bytes, piece: PIECE, times: TIMES });
      if (own !== null) {
        const atoll = await sealOnce(bench, own, file, `v${round}`);
        add(ATOLL, bytes / atoll.seconds / 1e9);
        perCore.push(bytes / atoll.cpu / 1e9);
      }
      for (const peer of peers) {
        bench.intoCache(file);
        const seconds = await keep(bench, peer, file);
        if (seconds !== null) add(peer.name, bytes / seconds / 1e9);
      }
      bench.remove(file);
      bench.say(`  round ${round + 1}/${bench.options.rounds}  ${[...samples].map(last).join('  ')}`);
    }
    for (const [name, list] of samples) row.series.push({ name, samples: list });
    if (perCore.length > 0) {
      const value = median(perCore);
      row.facts['atoll GB/s per core (all threads of the daemon)'] = value;
      row.goals.push({
        text: `≥ ${GOAL} GB/s per core`,
        direction: 'at least',
        bound: GOAL,
        value,
        spread: null,
        unit: 'GB/s',
        pass: value >= GOAL,
      });
    }
    for (const { name } of peers) {
      if (valuesOf(row, name) === null) row.notes.push(`${name} is not installed`);
      else ratioGoal(row, ATOLL, name, GOAL_PEER);
    }
    row.facts['entries of the index before the first block'] = entries;
    // the index has been looked into all over by then, and has grown
    if (own !== null) memoryFacts(row, memory(own.daemon.pid));
    await own?.end();
    yield row;
  },
};

function last([name, list]: [string, Sample[]]): string {
  return `${name} ${list[list.length - 1]!.value.toPrecision(4)}`;
}

interface Sealing {
  daemon: Daemon;
  /** folder of the pool `sealed` */
  pool: string;
  end(): Promise<void>;
}

/** A daemon whose pool `sealed` has an index of so many entries, and threads that have sealed something. */
async function sealingDaemon(bench: Bench, entries: number): Promise<Sealing> {
  const { daemon, end } = await bench.ownDaemon();
  const pool = bench.file(bench.fresh('pool'));
  await daemon.cli('pool', 'create', 'sealed', '--path', `${pool}/`, '--block-size', `${BLOCK}`);
  await daemon.cli('volume', 'create', 'warm', '--size', String(WARM_BYTES), '--pool', 'sealed');
  await daemon.stop();
  bench.say(`  an index of ${entries} entries`);
  fillIndex(path.join(daemon.home, 'store.db'), entries);
  await daemon.restart();
  const file = bench.file('warm');
  writeContent(file, { bytes: WARM_BYTES, piece: PIECE, times: TIMES });
  await writeVolume(daemon, 'warm', file);
  bench.remove(file);
  await daemon.snapshot('warm', 's');
  await daemon.http('POST', '/v1/pools/sealed/set', { seal: true });
  await hashed(daemon, 'warm');
  return {
    daemon,
    pool,
    end: async () => {
      await end();
      bench.remove(pool);
    },
  };
}

/** Rows of hashes that nothing has, as sealing 1 TiB would have left them: the order of hashes is no order of slots. */
function fillIndex(store: string, entries: number): void {
  const db = new Database(store);
  const pool = db.prepare("SELECT id FROM pool WHERE name = 'sealed'").pluck().get() as number;
  const index = db.prepare("SELECT sql FROM sqlite_master WHERE name = 'sealed_hash'").pluck().get() as string;
  db.exec('DROP INDEX sealed_hash');
  db.prepare(
    `WITH RECURSIVE slots (slot) AS (SELECT ? UNION ALL SELECT slot + 1 FROM slots LIMIT ?)
     INSERT INTO sealed (pool, slot, hash) SELECT ?, slot, randomblob(32) FROM slots`,
  ).run(ENTRIES_SLOT, entries, pool);
  db.exec(index);
  db.prepare(
    'INSERT INTO seal_pool (pool, entries) VALUES (?, ?) ON CONFLICT (pool) DO UPDATE SET entries = excluded.entries',
  ).run(pool, entries);
  db.pragma('wal_checkpoint(TRUNCATE)');
  db.close();
}

/** Until the hash is durable: elapsed, and processor time of the daemon. Both in seconds. */
async function sealOnce(
  bench: Bench,
  { daemon, pool }: Sealing,
  file: string,
  volume: string,
): Promise<{ seconds: number; cpu: number }> {
  await daemon.http('POST', '/v1/pools/sealed/set', { sealPaused: true });
  await daemon.cli('volume', 'create', volume, '--size', String(fs.statSync(file).size), '--pool', 'sealed');
  await writeVolume(daemon, volume, file);
  await daemon.snapshot(volume, 's');
  bench.intoCache(path.join(daemon.home, 'store.db'));
  bench.intoCache(pool);
  const cpu = cpuSeconds(daemon.pid);
  const began = performance.now();
  await daemon.http('POST', '/v1/pools/sealed/set', { sealPaused: false });
  await hashed(daemon, volume);
  return { seconds: (performance.now() - began) / 1000, cpu: cpuSeconds(daemon.pid) - cpu };
}

async function writeVolume(daemon: Daemon, volume: string, file: string): Promise<void> {
  const client = await NbdClient.connect(daemon.nbdSocket, volume);
  const piece = Buffer.allocUnsafe(PIECE);
  const from = fs.openSync(file, 'r');
  const bytes = fs.fstatSync(from).size;
  for (let at = 0; at < bytes; ) {
    const got = fs.readSync(from, piece);
    await client.write(at, piece.subarray(0, got));
    at += got;
  }
  fs.closeSync(from);
  await client.flush();
  await client.close();
}

async function hashed(daemon: Daemon, volume: string): Promise<void> {
  for (;;) {
    const found = await daemon.http<{ hash: string | null }>('GET', `/v1/volumes/${volume}/snapshots/s`);
    if (found.hash !== null) return;
    await sleep(POLL_MS);
  }
}
