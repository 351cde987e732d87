/**
 * Sealing: a snapshot whose bytes are in the page cache, half of them twice, from the moment it may begin until its hash
 * is durable. restic and borg keep the same bytes from a file, without compression, borg without encryption.
 */
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Bench } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import { NbdClient } from '../nbd.ts';
import { ATOLL } from '../peers/server.ts';
import { cpuSeconds } from '../proc.ts';
import { newRow, type RowResult, ratioGoal, type Sample, valuesOf } from '../result.ts';
import { GIB, KIB, MIB } from '../size.ts';
import { median } from '../stats.ts';
import { KEEPERS, keep } from './keepers.ts';
import type { Row } from './row.ts';

const BYTES = 2 * GIB;
const BYTES_QUICK = 256 * MIB;
const BLOCK = 64 * KIB;
const PIECE = 4 * MIB;
const GOAL = 1;
const GOAL_PEER = 4;
const POLL_MS = 50;
/** Sealed before the clock starts: threads and connections are there then. */
const WARM_BYTES = 4 * MIB;

/** `piece` of the content: every second 4 MiB says again what the one before it said. */
function pieceOf(round: number, piece: number): Buffer {
  const bytes = Buffer.alloc(PIECE);
  let state = (round * 1_000_003 + (piece >> 1)) * 2_654_435_761 + 1;
  for (let at = 0; at < PIECE; at += 8) {
    state = Math.imul(state ^ (state >>> 15), 2_246_822_519) + at;
    bytes.writeInt32LE(state | 0, at);
    bytes.writeInt32LE((state ^ (piece >> 1)) | 0, at + 4);
  }
  return bytes;
}

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
    for (let round = 0; round < bench.options.rounds; round++) {
      if (bench.wants(ATOLL)) {
        const atoll = await sealOnce(bench, bytes, round);
        add(ATOLL, bytes / atoll.seconds / 1e9);
        perCore.push(bytes / atoll.cpu / 1e9);
      }
      const file = bench.file('content');
      const out = fs.openSync(file, 'w');
      for (let piece = 0; piece < bytes / PIECE; piece++) fs.writeSync(out, pieceOf(round, piece));
      fs.fsyncSync(out);
      fs.closeSync(out);
      for (const peer of peers) {
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
    row.notes.push('the index begins empty: 16 million entries before the first block are not measured here');
    yield row;
  },
};

function last([name, list]: [string, Sample[]]): string {
  return `${name} ${list[list.length - 1]!.value.toPrecision(4)}`;
}

/** Until the hash is durable: elapsed, and processor time of the daemon. Both in seconds. */
async function sealOnce(bench: Bench, bytes: number, round: number): Promise<{ seconds: number; cpu: number }> {
  const { daemon, end } = await bench.ownDaemon();
  const pool = bench.file(bench.fresh('pool'));
  try {
    await daemon.cli('pool', 'create', 'sealed', '--path', `${pool}/`, '--block-size', `${BLOCK}`);
    await daemon.cli('volume', 'create', 'v', '--size', String(bytes), '--pool', 'sealed');
    await daemon.cli('volume', 'create', 'warm', '--size', String(WARM_BYTES), '--pool', 'sealed');
    const warm = await NbdClient.connect(daemon.nbdSocket, 'warm');
    await warm.write(0, pieceOf(-1, 0));
    await warm.flush();
    await warm.close();
    await daemon.snapshot('warm', 's');
    await daemon.http('POST', '/v1/pools/sealed/set', { seal: true });
    await hashed(daemon, 'warm');
    await daemon.http('POST', '/v1/pools/sealed/set', { sealPaused: true });
    const client = await NbdClient.connect(daemon.nbdSocket, 'v');
    for (let piece = 0; piece < bytes / PIECE; piece++) await client.write(piece * PIECE, pieceOf(round, piece));
    await client.flush();
    await client.close();
    await daemon.snapshot('v', 's');
    const cpu = cpuSeconds(daemon.pid);
    const began = performance.now();
    await daemon.http('POST', '/v1/pools/sealed/set', { sealPaused: false });
    await hashed(daemon, 'v');
    return { seconds: (performance.now() - began) / 1000, cpu: cpuSeconds(daemon.pid) - cpu };
  } finally {
    await end();
    bench.remove(pool);
  }
}

async function hashed(daemon: Daemon, volume: string): Promise<void> {
  for (;;) {
    const found = await daemon.http<{ hash: string | null }>('GET', `/v1/volumes/${volume}/snapshots/s`);
    if (found.hash !== null) return;
    await sleep(POLL_MS);
  }
}
