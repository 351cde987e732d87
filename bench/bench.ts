/**
 * What a row has at hand: options, a folder, processes, and one Atoll daemon in its default configuration that all
 * rows share.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Children } from './children.ts';
import { Daemon } from './daemon.ts';
import { type FioJob, type FioResult, fio } from './fio.ts';
import type { Options } from './options.ts';
import { ATOLL, type Export, flush, uriOf } from './peers/server.ts';
import { cpuSeconds } from './proc.ts';
import type { RowResult, Sample } from './result.ts';
import { GIB, MIB } from './size.ts';
import { rotate } from './stats.ts';

const QUIET_MS_MAX = 120_000;
const QUIET_POLL_MS = 50;
/** The largest buffer that Node 20 makes is 4 GiB. */
const WARM_BYTES_MAX = 3 * GIB;
/** Of one read of what is to be in the page cache. */
const READ_BYTES = 4 * MIB;

/** Someone who takes part in a comparison. */
export interface Contender {
  name: string;
  /** makes what this round measures: not timed */
  prepare(round: number): Promise<Export>;
  /** gives it back: not timed */
  release?(target: Export, round: number): Promise<void>;
}

export class Bench {
  readonly children = new Children();
  readonly dir: string;
  private daemonStarted: Daemon | null = null;
  private readonly daemons: Daemon[] = [];
  private names = 0;
  private readonly made = new Map<string, Promise<unknown>>();

  constructor(readonly options: Options) {
    fs.mkdirSync(options.dir, { recursive: true });
    this.dir = fs.mkdtempSync(path.join(options.dir, 'atoll-bench-'));
  }

  say(line: string): void {
    process.stderr.write(`${line}\n`);
  }

  wants(contender: string): boolean {
    return this.options.peers === null || this.options.peers.test(contender);
  }

  /** A name, of a file or volume, that was not used before. */
  fresh(prefix: string): string {
    this.names += 1;
    return `${prefix}-${this.names}`;
  }

  file(name: string): string {
    return path.join(this.dir, name);
  }

  remove(file: string): void {
    fs.rmSync(file, { force: true, recursive: true });
  }

  /** The shared daemon, started when it is first asked for, with nothing but `--home`. */
  async daemon(): Promise<Daemon> {
    if (!this.daemonStarted) {
      this.daemonStarted = await Daemon.start(this.children, { home: this.file('home') });
      this.daemons.push(this.daemonStarted);
    }
    if (!this.daemonStarted.running) await this.daemonStarted.restart();
    return this.daemonStarted;
  }

  /** A daemon with a home of its own, for what would disturb the others. `end` stops it and removes its data. */
  async ownDaemon(args: readonly string[] = []): Promise<{ daemon: Daemon; end: () => Promise<void> }> {
    const daemon = await Daemon.start(this.children, { home: this.file(this.fresh('home')), args });
    this.daemons.push(daemon);
    const end = async (): Promise<void> => {
      await daemon.stop();
      fs.rmSync(daemon.home, { recursive: true, force: true });
    };
    return { daemon, end };
  }

  /** What `make` makes, once for all rows that ask for it. */
  once<T>(key: string, make: () => Promise<T>): Promise<T> {
    let made = this.made.get(key) as Promise<T> | undefined;
    if (!made) {
      made = make();
      this.made.set(key, made);
    }
    return made;
  }

  /** @throws with the reason when a row needs Atoll and --peers leaves it out */
  needsAtoll(): void {
    if (!this.wants(ATOLL)) throw new Skipped('it measures Atoll alone, and --peers leaves that out');
  }

  /** Waits until nothing of what was deleted is still being given back in the background. */
  async quiet(daemon: Daemon, msMax = QUIET_MS_MAX): Promise<void> {
    const deadline = Date.now() + msMax;
    while (Date.now() < deadline) {
      const { background } = await daemon.status();
      if (Object.values(background).every((left) => left === 0)) return;
      await sleep(QUIET_POLL_MS);
    }
    throw new Error(`space of deleted volumes was not given back within ${msMax} ms`);
  }

  /**
   * Touches free memory and gives it back. On a virtual machine that reports its free pages to the host, the first touch
   * of a page that was free for a while takes microseconds, whoever touches it: what fills the page cache would measure
   * that and not the server.
   */
  async warmMemory(bytes: number): Promise<void> {
    const script = 'const bytes = Number(process.argv[1]); Buffer.alloc(bytes, 1)';
    await this.children.run(process.execPath, ['-e', script, String(Math.min(bytes, WARM_BYTES_MAX))]);
  }

  /**
   * Reads a file, or all files of a folder: a row about data in the page cache has to see to it. A machine may drop what
   * nobody has used for seconds, with memory to spare.
   */
  intoCache(place: string): void {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    const files = fs.statSync(place).isDirectory()
      ? fs.readdirSync(place, { recursive: true, withFileTypes: true }).flatMap((entry) => {
          return entry.isFile() ? [path.join(entry.parentPath, entry.name)] : [];
        })
      : [place];
    for (const file of files) {
      const from = fs.openSync(file, 'r');
      while (fs.readSync(from, buffer) > 0);
      fs.closeSync(from);
    }
  }

  exportOf(daemon: Daemon, name: string): Export {
    return { socket: daemon.nbdSocket, exportName: name, pid: daemon.pid };
  }

  fio(target: Export, job: FioJob): Promise<FioResult> {
    return fio(this.children, this.dir, uriOf(target), job);
  }

  /** Maps `bytes` from the start with data, and makes them durable. */
  async fill(target: Export, bytes: number, blockSize = '1m'): Promise<void> {
    await this.fio(target, { rw: 'write', blockSize, depth: 4, size: bytes, endFsync: true, refill: true });
  }

  /** One fio run and the CPU time that the server took for it. */
  async sample(target: Export, job: FioJob, read: (result: FioResult) => number): Promise<Sample> {
    const before = cpuSeconds(target.pid);
    const result = await this.fio(target, job);
    const cpu = cpuSeconds(target.pid) - before;
    return { value: read(result), cpuPerMillion: (cpu / result.requests) * 1e6, clientCores: result.clientCores };
  }

  /**
   * Measures every contender once per round, in an order that rotates, and adds their series to the row. After each
   * measurement the server is flushed, so that nobody pays for another's dirty pages.
   */
  async compare(
    row: RowResult,
    contenders: readonly Contender[],
    measure: (target: Export, round: number, name: string) => Promise<Sample>,
  ): Promise<void> {
    const wanted = contenders.filter((contender) => this.wants(contender.name));
    const series = new Map(wanted.map((contender) => [contender.name, [] as Sample[]]));
    for (let round = 0; round < this.options.rounds; round++) {
      const told: string[] = [];
      for (const contender of rotate(wanted, round)) {
        const target = await contender.prepare(round);
        const sample = await measure(target, round, contender.name);
        series.get(contender.name)!.push(sample);
        await flush(target);
        await contender.release?.(target, round);
        told.push(`${contender.name} ${sample.value.toPrecision(4)}`);
      }
      this.say(`  round ${round + 1}/${this.options.rounds}  ${told.sort().join('  ')}`);
    }
    for (const contender of wanted) row.series.push({ name: contender.name, samples: series.get(contender.name)! });
  }

  /** What daemons that should be there said before they ended. */
  postMortem(): string[] {
    return this.daemons.flatMap((daemon) =>
      daemon.crashed ? [`the daemon of ${path.basename(daemon.home)} ended: ${daemon.crashed}`] : [],
    );
  }

  async end(): Promise<void> {
    await this.children.stopAll();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /** The way out when there is no time to wait. */
  abandon(): void {
    this.children.killAll();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

/** A row that cannot be measured here; the report says why. */
export class Skipped extends Error {}
