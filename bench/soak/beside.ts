/**
 * What a latency is on this machine at this moment: one client of `nbdkit memory`, beside the soak's load and at a pace of
 * its own, asked by the same process. What the host takes from the machine, both feel.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Children } from '../children.ts';
import { NbdClient } from '../nbd.ts';
import { nbdkitMemory } from '../peers/nbdkit.ts';
import type { PeerServer } from '../peers/server.ts';
import { random } from '../scatter.ts';
import { KIB, MIB } from '../size.ts';

const BYTES = 64 * MIB;
const BLOCK = 4 * KIB;
const REQUESTS_PER_SECOND = 50;
const WRITE_SHARE = 0.35;

export class Beside {
  /** microseconds, since they were taken last */
  reads: number[] = [];
  writes: number[] = [];
  private stopping = false;
  private running: Promise<void> = Promise.resolve();

  private constructor(
    private readonly server: PeerServer,
    private readonly client: NbdClient,
  ) {}

  /** null where there is no nbdkit. It may end in the middle; the soak goes on without it. @param dir for its socket */
  static async start(children: Children, dir: string): Promise<Beside | null> {
    try {
      const server = await nbdkitMemory(children, dir, BYTES);
      const beside = new Beside(server, await NbdClient.connect(server.socket, ''));
      beside.running = beside.ask().catch(tellOfNone);
      return beside;
    } catch (error) {
      tellOfNone(error);
      return null;
    }
  }

  async stop(): Promise<void> {
    this.stopping = true;
    await this.running;
    await this.client.close();
    await this.server.stop();
  }

  private async ask(): Promise<void> {
    const next = random(2);
    const bytes = Buffer.alloc(BLOCK, 1);
    while (!this.stopping) {
      const at = Math.floor(next() * (BYTES / BLOCK)) * BLOCK;
      const write = next() < WRITE_SHARE;
      const started = process.hrtime.bigint();
      await (write ? this.client.write(at, bytes) : this.client.read(at, BLOCK));
      (write ? this.writes : this.reads).push(Number(process.hrtime.bigint() - started) / 1000);
      await sleep((-Math.log(1 - next()) * 1000) / REQUESTS_PER_SECOND);
    }
  }
}

function tellOfNone(error: unknown): void {
  process.stderr.write(`no nbdkit beside: ${(error as Error).message}\n`);
}
