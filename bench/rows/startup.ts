/** From the start of the process to the ready line: an empty home, and one with 1 TiB of scattered map. */
import type { Bench } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import { NbdClient } from '../nbd.ts';
import { addLatencies, atMost, newRow, type RowResult } from '../result.ts';
import type { Row } from './row.ts';
import { BIG, scatteredDaemon } from './scattered-daemon.ts';

const GOAL_MS = 1000;

export const startup: Row = {
  ids: ['startup'],
  async *run(bench): AsyncIterable<RowResult> {
    const big = await scatteredDaemon(bench);
    const row = newRow('startup', 'from start to the ready line', 'ms', 'lower');
    bench.say(`${row.id}: ${row.title}`);
    const empty = await bench.ownDaemon();
    const clean = await starts(bench, big, () => big.stop());
    const killed = await starts(bench, big, async () => void (await big.kill()));
    const series = {
      'empty home': (await starts(bench, empty.daemon, () => empty.daemon.stop())).ready,
      '1 TiB mapped, after a stop': clean.ready,
      '1 TiB mapped, after kill -9': killed.ready,
    };
    for (const [name, values] of Object.entries(series)) {
      row.series.push({ name, samples: values.map((value) => ({ value, cpuPerMillion: null })) });
      addLatencies(row, name, values, 'ms');
    }
    addLatencies(row, 'first read after ready', clean.firstRead, 'ms');
    atMost(row, 'ready within a second, the slowest start', Math.max(...clean.ready, ...killed.ready), GOAL_MS, 'ms');
    await empty.end();
    yield row;
  },
};

async function starts(
  bench: Bench,
  daemon: Daemon,
  end: () => Promise<void>,
): Promise<{ ready: number[]; firstRead: number[] }> {
  const ready: number[] = [];
  const firstRead: number[] = [];
  for (let i = 0; i < bench.options.rounds; i++) {
    await end();
    await daemon.restart();
    ready.push(daemon.readyMs);
    const { volumes } = await daemon.http<{ volumes: { name: string }[] }>('GET', '/v1/volumes');
    if (!volumes.some((volume) => volume.name === BIG)) continue;
    const began = process.hrtime.bigint();
    const client = await NbdClient.connect(daemon.nbdSocket, BIG);
    await client.read(Math.floor(client.size / 3 / 4096) * 4096, 4096);
    firstRead.push(Number(process.hrtime.bigint() - began) / 1e6);
    await client.close();
  }
  return { ready, firstRead };
}
