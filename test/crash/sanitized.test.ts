/**
 * The daemon itself with AddressSanitizer and UndefinedBehaviorSanitizer in its addon, the N-API layer too, under a load that
 * goes through all of it: NBD, snapshots, clones, sealing, scrubbing, ingest, reads that are verified, a mount, deletion.
 * (The native tests run the core alone, in these and under ThreadSanitizer.)
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHECKOUT, Daemon } from '../../bench/daemon.ts';
import { random } from '../../bench/scatter.ts';
import { KIB, MIB } from '../../bench/size.ts';
import { World } from '../e2e/lib/daemon.ts';
import { LONG } from '../e2e/lib/long.ts';
import { Sequence } from '../e2e/lib/model.ts';
import { missing } from '../e2e/lib/mounted.ts';
import { verifyDisk, Writer } from '../e2e/lib/writer.ts';

const ADDON = path.join(CHECKOUT, 'build/native/g++-asan/atoll.node');
const BUILD_MS_MAX = 600_000;
const ROUNDS = LONG ? 60 : 6;
const ROUND_MS_MAX = 60_000;
const ROUND_WRITES = 300;
const SIZE = 32 * MIB;
const POLL_MS = 50;
const seed = Number(process.env.ATOLL_SEED ?? Date.now() % 1_000_000);

interface Volume {
  name: string;
  writer: Writer;
}

describe(`a daemon in ASan and UBSan (seed ${seed})`, () => {
  const world = new World();
  const next = random(seed);
  let daemon: Daemon;

  beforeAll(async () => {
    const native = path.join(CHECKOUT, 'native');
    await world.run('make', '-s', `-j${os.availableParallelism()}`, '-C', native, 'addon', 'SAN=asan', 'CXX=g++');
    const runtime = spawnSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).stdout.trim();
    const reports = `log_path=${world.file('report')}`;
    const env = {
      ATOLL_ADDON: ADDON,
      LD_PRELOAD: runtime,
      // Node itself does not free all that it has when it ends.
      ASAN_OPTIONS: `detect_leaks=0:exitcode=99:${reports}`,
      UBSAN_OPTIONS: `print_stacktrace=1:${reports}`,
    };
    daemon = await Daemon.start(world.children, { home: world.file('h'), env });
  }, BUILD_MS_MAX);
  const mounted = world.file('m');
  afterAll(async () => {
    spawnSync('umount', ['--lazy', mounted], { stdio: 'ignore' });
    const reports = reportsFound();
    await world.end();
    // also when a client noticed first that the daemon is gone
    if (reports.length > 0) throw new Error(reports.join('\n'));
  });

  /** ASan's are in files, UBSan's in what the daemon said. */
  function reportsFound(): string[] {
    const files = fs.readdirSync(world.dir).filter((name) => name.startsWith('report'));
    const said = fs.existsSync(world.file('h.log')) ? fs.readFileSync(world.file('h.log'), 'utf8') : '';
    const reports = files.map((name) => fs.readFileSync(world.file(name), 'utf8'));
    return /runtime error:|Sanitizer/.test(said) ? [...reports, said] : reports;
  }

  /** As long as the daemon does not answer so; how long that takes is nothing that is tested here. */
  async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
    for (const deadline = Date.now() + ROUND_MS_MAX; !(await holds()); await sleep(POLL_MS))
      if (Date.now() > deadline) expect.fail(`${what}: not within ${ROUND_MS_MAX} ms`);
  }

  it('has the sanitizers, and that addon alone', () => {
    const maps = fs.readFileSync(`/proc/${daemon.pid}/maps`, 'utf8');
    expect(maps).toContain(ADDON);
    expect(maps).toMatch(/libasan\.so/);
    expect(maps).toMatch(/libubsan\.so/);
    expect(maps).not.toContain('build/Release/atoll.node');
  });

  it('serves all that it is for, rightly and without a report', {
    timeout: BUILD_MS_MAX + ROUNDS * ROUND_MS_MAX,
  }, async () => {
    await daemon.cli('pool', 'set', 'local', '--seal', 'on', '--scrub-rate', '1G', '--verify-on-read', 'on');
    await daemon.createVolume('v0', SIZE);
    const model = await Writer.model(daemon.nbdSocket, 'v0', new Sequence());
    let current: Volume = { name: 'v0', writer: new Writer(model, next) };
    for (let round = 1; round <= ROUNDS; round++) current = await runRound(current, round);
    if (missing === null) await throughMount(current.name);
    await sealedImage();
    expect(await daemon.cli('check')).toMatchObject({ ok: true });
    await daemon.deleteVolume(current.name);
    await daemon.cli('backup', world.file('backup'));
    await daemon.stop();
    expect(reportsFound()).toEqual([]);
  });

  /** Writes, a snapshot and a clone of it meanwhile; all three are as they should; the clone goes on, the others go. */
  async function runRound({ name, writer }: Volume, round: number): Promise<Volume> {
    const before = writer.counts.writes;
    await writer.start(daemon.nbdSocket, name, 3);
    await writer.until({ writes: before + ROUND_WRITES });
    const snapshot = await writer.snapshot(() => daemon.snapshot(name, 's'));
    await writer.until({ writes: before + 2 * ROUND_WRITES });
    await writer.stop();
    expect(writer.failure).toBeNull();
    // Nobody died: what was acknowledged is there, flushed or not.
    writer.model.stopped();
    await until('the snapshot is sealed', async () => {
      const { hash } = await daemon.http<{ hash: string | null }>('GET', `/v1/volumes/${name}/snapshots/s`);
      return hash !== null;
    });
    const clone = `v${round}`;
    await daemon.clone(`${name}@s`, clone);
    expect(await verifyDisk(daemon.nbdSocket, name, writer.model)).toEqual([]);
    expect(await verifyDisk(daemon.nbdSocket, `${name}@s`, snapshot)).toEqual([]);
    const forked = snapshot.fork();
    expect(await verifyDisk(daemon.nbdSocket, clone, forked)).toEqual([]);
    await daemon.deleteSnapshot(`${name}@s`);
    await daemon.deleteVolume(name);
    return { name: clone, writer: new Writer(forked, next) };
  }

  /** Files are touched by other processes only: see Mounted. */
  async function throughMount(name: string): Promise<void> {
    fs.mkdirSync(mounted);
    await daemon.cli('mount', mounted);
    const file = path.join(mounted, 'volumes', name);
    const copy = world.file('copy');
    const run = (...argv: string[]) => world.run('timeout', '60', ...argv);
    await run('cp', file, copy);
    await run('qemu-img', 'compare', '-f', 'raw', '-F', 'raw', copy, daemon.uri(name));
    await run('dd', `if=${copy}`, `of=${file}`, 'bs=1M', 'count=4', 'seek=8', 'conv=notrunc,fsync');
    await run('cmp', '--bytes', String(4 * MIB), '--ignore-initial', `0:${8 * MIB}`, copy, file);
    await daemon.cli('umount', mounted);
  }

  async function sealedImage(): Promise<void> {
    const image = world.file('image.raw');
    const bytes = Buffer.alloc(24 * MIB + 512);
    for (let at = 0; at < bytes.length; at += 4 * KIB) bytes.writeUInt32LE(1 + Math.floor(next() * 1000), at);
    bytes.fill(0, 8 * MIB, 12 * MIB);
    fs.writeFileSync(image, bytes);
    for (const name of ['one', 'again']) {
      await daemon.cli('import', image, `${name}@s`);
      const back = world.file(`${name}.raw`);
      await daemon.cli('export', `${name}@s`, back);
      expect(fs.readFileSync(back).equals(bytes)).toBe(true);
    }
  }
});
