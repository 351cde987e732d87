/**
 * Reading through a clone of a clone of a clone…: the 1000th beside the first. With qcow2 the same is a chain of
 * backing files, and 32 of them are enough to see.
 */
import type { Bench, Contender } from '../bench.ts';
import type { Daemon } from '../daemon.ts';
import { NbdClient } from '../nbd.ts';
import { createImage, createOverlay, qemuNbd } from '../peers/qemu.ts';
import { ATOLL, QEMU_QCOW2 } from '../peers/server.ts';
import { newRow, pairedFact, type RowResult, ratioGoal } from '../result.ts';
import { random } from '../scatter.ts';
import { GIB, KIB, MIB } from '../size.ts';
import type { Row } from './row.ts';

const GOAL = 0.95;
const DEPTH = 1000;
const DEPTH_QUICK = 50;
const QCOW2_DEPTH = 32;
const BYTES = GIB;
const BYTES_QUICK = 128 * MIB;

export const chain: Row = {
  ids: ['read-clone-chain'],
  async *run(bench): AsyncIterable<RowResult> {
    const depth = bench.options.quick ? DEPTH_QUICK : DEPTH;
    const bytes = bench.options.quick ? BYTES_QUICK : BYTES;
    const row = newRow('read-clone-chain', `random read 4K, depth 32, through the ${depth}th clone of a clone`, 'IOPS');
    bench.say(`${row.id}: ${row.title}`);
    const names = {
      first: `${ATOLL} clone 1`,
      last: `${ATOLL} clone ${depth}`,
      qcow2First: `${QEMU_QCOW2} chain of 1`,
      qcow2Last: `${QEMU_QCOW2} chain of ${QCOW2_DEPTH}`,
    };
    const contenders: Contender[] = [];
    let end = async (): Promise<void> => {};
    if (bench.wants(ATOLL)) {
      const own = await bench.ownDaemon();
      end = own.end;
      await atollChain(bench, own.daemon, depth, bytes);
      contenders.push(atollAt(bench, own.daemon, names.first, 1), atollAt(bench, own.daemon, names.last, depth));
    }
    const stops: (() => Promise<void>)[] = [];
    if (bench.wants(QEMU_QCOW2)) {
      const files = await qcow2Chain(bench, bytes);
      for (const [name, at] of [
        [names.qcow2First, 1],
        [names.qcow2Last, QCOW2_DEPTH],
      ] as const) {
        const server = await qemuNbd(bench.children, 'qcow2', files[at]!, { readOnly: true });
        stops.push(() => server.stop());
        contenders.push({ name, prepare: async () => server });
      }
      stops.push(async () => {
        for (const file of files) bench.remove(file);
      });
    }
    // Each has read its map once before it is measured: what is compared is depth, not who came first.
    for (const contender of contenders) {
      const target = await contender.prepare(0);
      await bench.fio(target, { rw: 'read', blockSize: '1m', depth: 4, size: bytes });
    }
    const job = { rw: 'randread', blockSize: '4k', depth: 32, runtimeSeconds: bench.options.runtimeSeconds } as const;
    await bench.compare(row, contenders, (target, round) =>
      bench.sample(target, { ...job, seed: round }, (result) => result.iops),
    );
    ratioGoal(row, names.last, names.first, GOAL);
    pairedFact(row, `qcow2_chain_of_${QCOW2_DEPTH}_to_1_ratio`, names.qcow2Last, names.qcow2First);
    row.notes.push('every clone and overlay has one block of its own');
    for (const stop of stops) await stop();
    await end();
    yield row;
  },
};

function atollAt(bench: Bench, daemon: Daemon, name: string, at: number): Contender {
  return { name, prepare: async () => bench.exportOf(daemon, `c${at}`) };
}

async function atollChain(bench: Bench, daemon: Daemon, depth: number, bytes: number): Promise<void> {
  await daemon.createVolume('c0', bytes);
  await bench.fill(bench.exportOf(daemon, 'c0'), bytes);
  const next = random(3);
  for (let at = 1; at <= depth; at++) {
    await daemon.clone(await daemon.snapshot(`c${at - 1}`, 's'), `c${at}`);
    const client = await NbdClient.connect(daemon.nbdSocket, `c${at}`);
    await client.write(Math.floor((next() * bytes) / (4 * KIB)) * 4 * KIB, Buffer.alloc(4 * KIB, at & 0xff));
    await client.close();
  }
}

/** @returns the files, the base first */
async function qcow2Chain(bench: Bench, bytes: number): Promise<string[]> {
  const files = [bench.file('chain-0.qcow2')];
  await createImage(bench.children, 'qcow2', files[0]!, bytes);
  const base = await qemuNbd(bench.children, 'qcow2', files[0]!);
  await bench.fill(base, bytes);
  await base.stop();
  const next = random(3);
  for (let at = 1; at <= QCOW2_DEPTH; at++) {
    const file = bench.file(`chain-${at}.qcow2`);
    await createOverlay(bench.children, files[at - 1]!, 'qcow2', file);
    const offset = Math.floor((next() * bytes) / (4 * KIB)) * 4;
    await bench.children.run('qemu-io', ['-f', 'qcow2', '-c', `write -P 7 ${offset}k 4k`, file]);
    files.push(file);
  }
  return files;
}
