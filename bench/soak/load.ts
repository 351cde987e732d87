/**
 * The load of a soak: connections that come and go over many volumes, snapshots and clones that are taken and dropped, all
 * at a set pace, so that what is measured is the daemon and not how full the machine is.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Daemon } from '../daemon.ts';
import { NbdClient } from '../nbd.ts';
import { random } from '../scatter.ts';
import { KIB, MIB } from '../size.ts';

export interface LoadOptions {
  volumes: number;
  connections: number;
  snapshotsPerSecond: number;
  requestsPerSecond: number;
  seed: number;
}

const VOLUME_BYTES = 64 * MIB;
/** Of each volume; bounds what all take on disk. */
const USED_BYTES = 8 * MIB;
const BLOCK = 4 * KIB;
const LARGE_BLOCKS = 16;
/** Of requests: the rest reads. */
const WRITE_SHARE = 0.35;
const LARGE_SHARE = 0.1;
const TRIM_SHARE = 0.03;
const FLUSH_SHARE = 0.02;
/** A connection goes to another volume after so long, on average half of it more. */
const STAY_MS = 4000;
/** Snapshots that there are at one time; the oldest goes for a new one. */
const SNAPSHOTS_KEPT = 100;
const CLONE_EVERY = 10;
const CLONES_KEPT = 5;
const ERRORS_MAX = 20;
/** What writes say: half of them the same, so that there is something to fold. */
const PATTERNS = 16;

export class Load {
  readonly errors: string[] = [];
  /** microseconds, since they were taken last */
  reads: number[] = [];
  writes: number[] = [];
  /** milliseconds, the same */
  snapshotTimes: number[] = [];
  requests = 0;
  snapshotsTaken = 0;
  readonly snapshots: string[] = [];
  connected = 0;
  private readonly clones: string[] = [];
  private readonly next: () => number;
  private readonly patterns: Buffer[];
  private stopping = false;
  private holding = false;
  private numbers = 0;
  private running: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly daemon: Daemon,
    private readonly options: LoadOptions,
  ) {
    this.next = random(options.seed);
    this.patterns = Array.from({ length: PATTERNS }, (_, i) => Buffer.alloc(LARGE_BLOCKS * BLOCK, i + 1));
  }

  async prepare(): Promise<void> {
    for (let i = 0; i < this.options.volumes; i++) await this.daemon.createVolume(this.volume(i), VOLUME_BYTES);
  }

  start(): void {
    const { connections } = this.options;
    const lanes = Array.from({ length: connections }, () => this.guarded(() => this.connection()));
    this.running = Promise.all([...lanes, this.guarded(() => this.snapshotting())]);
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.running;
  }

  /** While `look` runs every connection is there and none is made or ended. */
  async still<T>(look: () => T): Promise<T> {
    this.holding = true;
    const deadline = Date.now() + STAY_MS;
    while (this.connected < this.options.connections && Date.now() < deadline) await sleep(5);
    try {
      return look();
    } finally {
      this.holding = false;
    }
  }

  private volume(i: number): string {
    return `v${i}`;
  }
  private anyVolume(): string {
    return this.volume(Math.floor(this.next() * this.options.volumes));
  }

  private async guarded(run: () => Promise<void>): Promise<void> {
    while (!this.stopping) {
      try {
        await run();
      } catch (error) {
        if (this.errors.length < ERRORS_MAX) this.errors.push((error as Error).message);
        await sleep(1000);
      }
    }
  }

  private async connection(): Promise<void> {
    const client = await NbdClient.connect(this.daemon.nbdSocket, this.anyVolume());
    this.connected++;
    try {
      const until = Date.now() + STAY_MS * (0.5 + this.next());
      const meanMs = (1000 * this.options.connections) / this.options.requestsPerSecond;
      while (!this.stopping && (this.holding || Date.now() < until)) {
        await this.request(client);
        // exponential: as many users who do not know of each other
        await sleep(-Math.log(1 - this.next()) * meanMs);
      }
    } finally {
      this.connected--;
      await client.close();
    }
  }

  private async request(client: NbdClient): Promise<void> {
    const blocks = this.next() < LARGE_SHARE ? LARGE_BLOCKS : 1;
    const at = Math.floor(this.next() * (USED_BYTES / BLOCK - blocks)) * BLOCK;
    const dice = this.next();
    const started = process.hrtime.bigint();
    const took = (): number => Number(process.hrtime.bigint() - started) / 1000;
    this.requests++;
    if (dice < FLUSH_SHARE) return client.flush();
    if (dice < FLUSH_SHARE + TRIM_SHARE) return client.trim(at, blocks * BLOCK);
    if (dice < FLUSH_SHARE + TRIM_SHARE + WRITE_SHARE) {
      await client.write(at, this.patterns[Math.floor(this.next() * PATTERNS)]!.subarray(0, blocks * BLOCK));
      this.writes.push(took());
    } else {
      await client.read(at, blocks * BLOCK);
      this.reads.push(took());
    }
  }

  /** At their pace, not one more for each that was late. */
  private async snapshotting(): Promise<void> {
    const everyMs = 1000 / this.options.snapshotsPerSecond;
    for (let due = Date.now(); !this.stopping; due = Math.max(due + everyMs, Date.now() - everyMs)) {
      await sleep(Math.max(0, due - Date.now()));
      const name = await this.snapshot();
      if (this.numbers % CLONE_EVERY === 0) await this.clone(name);
      while (this.snapshots.length > SNAPSHOTS_KEPT) await this.daemon.deleteSnapshot(this.snapshots.shift()!);
    }
  }

  private async snapshot(): Promise<string> {
    const started = performance.now();
    const name = await this.daemon.snapshot(this.anyVolume(), `s${this.numbers++}`);
    this.snapshotTimes.push(performance.now() - started);
    this.snapshotsTaken++;
    this.snapshots.push(name);
    return name;
  }

  private async clone(from: string): Promise<void> {
    const name = `c${this.numbers}`;
    await this.daemon.clone(from, name);
    this.clones.push(name);
    const client = await NbdClient.connect(this.daemon.nbdSocket, name);
    for (let i = 0; i < LARGE_BLOCKS; i++) await client.write(i * 64 * KIB, this.patterns[i % PATTERNS]!);
    await client.close();
    if (this.clones.length > CLONES_KEPT) await this.daemon.deleteVolume(this.clones.shift()!);
  }
}
