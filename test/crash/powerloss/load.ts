/**
 * What is done to a daemon on a logged disk: writers on two volumes and on clones, snapshots, clones and deletes all the
 * while, a kill -9 in the middle and a clean stop at the end; all of it written down.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlError, Daemon } from '../../../bench/daemon.ts';
import { NbdClosed, NbdError } from '../../../bench/nbd.ts';
import { MIB } from '../../../bench/size.ts';
import { SECTOR_BYTES } from '../../e2e/lib/model.ts';
import { Writer } from '../../e2e/lib/writer.ts';
import type { LoggedDisk, Stand } from './device.ts';
import type { History, RecordedDisk } from './history.ts';

const VOLUMES = [
  { name: 'a', bytes: 8 * MIB },
  { name: 'b', bytes: 3 * MIB },
];
const CONNECTIONS = 2;
/** Snapshots and clones that are kept; older ones are deleted under load. */
const SNAPSHOTS_MAX = 3;
const CLONES_MAX = 2;
/** From one change of what there is to the next. */
const PAUSE_MS_MAX = 60;
const POLL_MS = 5;
/** A machine that is slow makes a life long; one that hangs must not make it endless. */
const LIFE_MS_MAX = 120_000;

export interface LoadOptions {
  /** flushes that are answered before the daemon is killed; and again before it stops */
  flushes: number;
  /** 0..1 */
  random: () => number;
  args?: readonly string[];
  env?: NodeJS.ProcessEnv;
  /** of the first life; what ends it by itself. Without: it is killed after `flushes` */
  deadlyEnv?: NodeJS.ProcessEnv;
}

export interface LoadReport {
  writes: number;
  flushes: number;
  snapshots: number;
  clones: number;
  deletes: number;
}

interface Named {
  name: string;
  disk: RecordedDisk;
}

/** One daemon's home on the disk, and all that happens to it. */
export class Load {
  readonly report: LoadReport = { writes: 0, flushes: 0, snapshots: 0, clones: 0, deletes: 0 };
  private daemon!: Daemon;
  private readonly volumes: (Named & { writer: Writer })[] = [];
  private snapshots: Named[] = [];
  private count = 0;
  private over = false;
  private problem: Error | null = null;
  /** this life may end at any moment */
  private deadly = false;

  constructor(
    private readonly stand: Stand,
    private readonly disk: LoggedDisk,
    private readonly history: History,
    private readonly options: LoadOptions,
  ) {}

  async run(): Promise<LoadReport> {
    const { env, deadlyEnv } = this.options;
    await this.start(deadlyEnv ?? env);
    for (const { name, bytes } of VOLUMES) {
      const disk = this.history.disk(bytes / SECTOR_BYTES);
      await this.history.create(name, disk, () => this.daemon.createVolume(name, bytes));
      this.volumes.push({ name, disk, writer: new Writer(disk, this.options.random) });
    }
    await this.live(() => this.kill(), deadlyEnv !== undefined);
    await this.start(env);
    await this.live(() => this.stop(), false);
    return this.report;
  }

  private async start(env?: NodeJS.ProcessEnv): Promise<void> {
    const { args = [] } = this.options;
    this.daemon = await Daemon.start(this.stand.children, { home: this.disk.mount, args, ...(env ? { env } : {}) });
    this.stand.uses(this.daemon.pid);
  }

  /** Writers write and things come and go until there were enough flushes, or the daemon dies of itself; then `end`. */
  private async live(end: () => Promise<void>, deadly: boolean): Promise<void> {
    const before = this.flushes();
    const deadline = Date.now() + LIFE_MS_MAX;
    this.over = false;
    this.deadly = deadly;
    for (const volume of this.volumes) await this.begin(volume);
    const changing = this.change();
    const enough = (): boolean => (deadly ? !this.daemon.running : this.flushes() - before >= this.options.flushes);
    while (!enough() && Date.now() < deadline) {
      await sleep(POLL_MS);
      this.checkAlive();
    }
    if (deadly && this.daemon.running) throw new Error('the daemon did not die');
    await end();
    await changing;
    this.checkAlive();
  }

  private begin({ name, writer }: Named & { writer: Writer }): Promise<void> {
    return writer.start(this.daemon.nbdSocket, name, CONNECTIONS);
  }

  /** Errors that a daemon that is alive must not give. */
  private checkAlive(): void {
    if (this.problem) throw this.problem;
    for (const { name, writer } of this.volumes) {
      if (this.deadly && writer.failure instanceof NbdClosed) writer.failure = null;
      if (writer.failure) throw new Error(`writer of ${name}: ${writer.failure.message}`);
    }
  }

  private flushes(): number {
    let flushes = this.report.flushes;
    for (const { writer } of this.volumes) flushes += writer.counts.flushes;
    return flushes;
  }

  private async kill(): Promise<void> {
    this.over = true;
    for (const { writer } of this.volumes) writer.expectDeath();
    await this.daemon.kill();
    for (const { writer, disk } of this.volumes) {
      await writer.died();
      disk.died();
    }
  }

  private async stop(): Promise<void> {
    this.over = true;
    for (const { writer } of this.volumes) await writer.stop();
    await this.daemon.stop();
    for (const { writer, disk } of this.volumes) {
      disk.stopped();
      this.report.writes += writer.counts.writes;
    }
    this.report.flushes = this.flushes();
  }

  /** Snapshots, clones and deletes until the life is over. What is not answered when it ends may have been done. */
  private async change(): Promise<void> {
    try {
      while (!this.over) {
        await sleep(this.options.random() * PAUSE_MS_MAX);
        if (this.over) return;
        await this.step();
      }
    } catch (error) {
      const refused = error instanceof ControlError || error instanceof NbdError;
      if (!this.over && (refused || !this.deadly)) this.problem = error as Error;
    }
  }

  private async step(): Promise<void> {
    const { random } = this.options;
    const clones = this.volumes.slice(VOLUMES.length);
    if (clones.length > CLONES_MAX) await this.dropClone();
    else if (this.snapshots.length > SNAPSHOTS_MAX) await this.dropSnapshot();
    else if (random() < 0.3 && this.snapshots.length > 0) await this.takeClone();
    else await this.takeSnapshot();
  }

  private async takeSnapshot(): Promise<void> {
    const volume = this.volumes[Math.floor(this.options.random() * this.volumes.length)]!;
    const short = `s${this.count++}`;
    const name = `${volume.name}@${short}`;
    const model = await volume.writer.snapshot((disk) =>
      this.history.create(name, disk as RecordedDisk, () => this.daemon.snapshot(volume.name, short)),
    );
    this.snapshots.push({ name, disk: model as RecordedDisk });
    this.report.snapshots += 1;
  }

  private async takeClone(): Promise<void> {
    const from = this.snapshots[Math.floor(this.options.random() * this.snapshots.length)]!;
    const name = `c${this.count++}`;
    const disk = from.disk.fork();
    await this.history.create(name, disk, () => this.daemon.clone(from.name, name));
    const volume = { name, disk, writer: new Writer(disk, this.options.random) };
    this.volumes.push(volume);
    this.report.clones += 1;
    await this.begin(volume);
  }

  private async dropSnapshot(): Promise<void> {
    const { name } = this.snapshots.shift()!;
    await this.history.remove(name, () => this.daemon.deleteSnapshot(name));
    this.report.deletes += 1;
  }

  /** The oldest clone goes while it is written to, with its snapshots. */
  private async dropClone(): Promise<void> {
    const [clone] = this.volumes.splice(VOLUMES.length, 1);
    const { name, writer } = clone!;
    const its = this.snapshots.filter((snapshot) => snapshot.name.startsWith(`${name}@`));
    this.snapshots = this.snapshots.filter((snapshot) => !its.includes(snapshot));
    writer.expectDeath();
    const remove = its.reduceRight(
      (work, snapshot) => () => this.history.remove(snapshot.name, work),
      (): Promise<void> => this.daemon.deleteVolume(name),
    );
    await this.history.remove(name, remove);
    await writer.died();
    this.report.deletes += 1;
    this.report.writes += writer.counts.writes;
    this.report.flushes += writer.counts.flushes;
  }
}
