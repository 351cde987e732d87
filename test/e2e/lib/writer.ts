/**
 * A load that knows what it did: random writes, zeroes, discards and flushes over several connections to one volume,
 * each entered in a model when it is sent and when it is answered.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { CMD_FLAG, NbdClient } from '../../../bench/nbd.ts';
import { type Change, DiskModel, fillSector, SECTOR_BYTES, type Sequence } from './model.ts';

/** Longest write: more than a block of 64 KiB, so that some cover whole blocks. */
const SECTORS_MAX = 160;
const LANES_PER_CONNECTION = 8;
const VERIFY_BYTES = 1 << 20;
const POLL_MS = 10;
/** A server that is not that far by then does not answer any more. */
const WAIT_MS_MAX = 60_000;

export interface Counts {
  writes: number;
  zeroes: number;
  flushes: number;
}

export class Writer {
  readonly counts: Counts = { writes: 0, zeroes: 0, flushes: 0 };
  /** snapshots that were asked for and not answered: they may hold what is issued meanwhile */
  private readonly open = new Set<DiskModel>();
  private readonly busy = new Set<number>();
  private clients: NbdClient[] = [];
  private stopping = false;
  private dying = false;
  private lanes: Promise<unknown> = Promise.resolve();
  /** an error that a server that is not being killed must not give */
  failure: Error | null = null;

  /**
   * @param random 0..1
   * @param style durable: nothing counts on a later flush or on what a trim leaves
   */
  constructor(
    readonly model: DiskModel,
    private readonly random: () => number,
    private readonly style: 'mixed' | 'durable' = 'mixed',
  ) {}

  static async model(socket: string, name: string, sequence: Sequence): Promise<DiskModel> {
    const client = await NbdClient.connect(socket, name);
    await client.close();
    return new DiskModel(client.size / SECTOR_BYTES, sequence);
  }

  /** Begins; `stop` ends it, or the server's death. */
  async start(socket: string, name: string, connections: number): Promise<void> {
    this.stopping = false;
    this.dying = false;
    this.busy.clear();
    this.clients = await Promise.all(Array.from({ length: connections }, () => NbdClient.connect(socket, name)));
    const lanes = this.clients.flatMap((client) =>
      Array.from({ length: LANES_PER_CONNECTION }, () => this.lane(client)),
    );
    this.lanes = Promise.allSettled(lanes);
  }

  /** Waits until that much was answered since the writer was made, however busy the machine is. @throws after a minute */
  async until(least: Partial<Counts>): Promise<void> {
    const deadline = Date.now() + WAIT_MS_MAX;
    const wanted = Object.entries(least) as [keyof Counts, number][];
    while (wanted.some(([what, count]) => this.counts[what] < count)) {
      if (this.failure !== null) throw this.failure;
      if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS_MAX} ms; answered: ${JSON.stringify(this.counts)}`);
      await sleep(POLL_MS);
    }
  }

  /** Ends in order: what was sent is answered. */
  async stop(): Promise<void> {
    this.stopping = true;
    await this.lanes;
    for (const client of this.clients) await client.close();
  }

  /** The server is about to be killed: writing goes on, and errors are no surprise. */
  expectDeath(): void {
    this.dying = true;
  }

  /** The server was killed: waits until every request has failed. */
  async died(): Promise<void> {
    await this.lanes;
    this.open.clear();
  }

  /** Takes a snapshot by `take` while writing goes on. @returns the model of what it holds, which `take` has before */
  async snapshot(take: (model: DiskModel) => Promise<unknown>): Promise<DiskModel> {
    const model = this.model.snapshot();
    this.open.add(model);
    try {
      await take(model);
    } finally {
      this.open.delete(model);
    }
    return model;
  }

  private async lane(client: NbdClient): Promise<void> {
    while (!this.stopping) {
      try {
        const dice = this.random();
        if (dice < 0.03) await this.flush(client);
        else await this.change(client, dice);
      } catch (error) {
        if (!this.dying && this.failure === null) this.failure = error as Error;
        return;
      }
    }
  }

  private async flush(client: NbdClient): Promise<void> {
    const covered = this.model.beginFlush();
    try {
      await client.flush();
    } catch (error) {
      this.model.unflushed(covered);
      throw error;
    }
    this.model.flushed(covered);
    this.counts.flushes += 1;
  }

  private async change(client: NbdClient, dice: number): Promise<void> {
    const { model } = this;
    const count = 1 + Math.floor(this.random() ** 3 * SECTORS_MAX);
    const sector = Math.floor(this.random() * (model.sectors - count));
    // Requests that overlap one on its way are left out: their order would not be known.
    for (let at = sector; at < sector + count; at++) if (this.busy.has(at)) return;
    for (let at = sector; at < sector + count; at++) this.busy.add(at);
    const zero = dice < 0.12;
    const durable = this.style === 'durable';
    const fua = durable || dice > 0.97;
    const change = model.issue(sector, count, zero);
    for (const snapshot of this.open) snapshot.mayHold(change);
    const flags = fua ? CMD_FLAG.fua : 0;
    if (zero && dice < 0.06 && !durable) await client.trim(sector * SECTOR_BYTES, count * SECTOR_BYTES, flags);
    else if (zero) await client.writeZeroes(sector * SECTOR_BYTES, count * SECTOR_BYTES, flags);
    else await client.write(sector * SECTOR_BYTES, contents(change), flags);
    for (let at = sector; at < sector + count; at++) this.busy.delete(at);
    if (fua) model.harden([change]);
    else model.acknowledge(change);
    if (zero) this.counts.zeroes += 1;
    else this.counts.writes += 1;
  }
}

function contents(change: Change): Buffer {
  const data = Buffer.allocUnsafe(change.count * SECTOR_BYTES);
  for (let i = 0; i < change.count; i++) fillSector(data, i * SECTOR_BYTES, change.seq, change.sector + i);
  return data;
}

/** Reads all of an export and compares. @returns what is wrong with it, nothing when all is well */
export async function verifyDisk(socket: string, name: string, model: DiskModel): Promise<string[]> {
  const client = await NbdClient.connect(socket, name);
  const faults: string[] = [];
  for (let at = 0; at < client.size; at += VERIFY_BYTES) {
    const data = await client.read(at, Math.min(VERIFY_BYTES, client.size - at));
    for (const { sector, message } of model.verify(at / SECTOR_BYTES, data))
      faults.push(`${name} sector ${sector} ${message}`);
  }
  await client.close();
  model.settle();
  return faults;
}
