/**
 * What the rows measure: an NBD export of some server.
 */
import fs from 'node:fs';
import type { Child } from '../children.ts';
import { NbdClient } from '../nbd.ts';

/** The names of the contenders, as they stand in the report. */
export const ATOLL = 'atoll';
export const QEMU_QCOW2 = 'qemu-nbd qcow2';
export const QEMU_RAW = 'qemu-nbd raw';
export const NBDKIT_FILE = 'nbdkit file';
export const NBDKIT_MEMORY = 'nbdkit memory';
/** No peers: no storage servers, and no goals. They show what the socket and fio allow. */
export const LIMIT_PROBE = 'limit probe';
export const CLIENT_LIMIT = 'client limit (no storage)';

/** In the order of the reports. */
export const SERVERS: readonly string[] = [ATOLL, QEMU_QCOW2, QEMU_RAW, NBDKIT_FILE, NBDKIT_MEMORY];
export const LIMITS: readonly string[] = [LIMIT_PROBE, CLIENT_LIMIT];

export interface Export {
  readonly socket: string;
  readonly exportName: string;
  /** of the server's process, whose CPU time is counted */
  readonly pid: number;
}

export function uriOf(target: Export): string {
  return `nbd+unix:///${encodeURIComponent(target.exportName)}?socket=${target.socket}`;
}

/** Writes back what the server holds, so that the next measurement does not pay for this one. */
export async function flush(target: Export): Promise<void> {
  const client = await NbdClient.connect(target.socket, target.exportName);
  await client.flush();
  await client.close();
}

/** A peer's server: one process that serves one image. */
export class PeerServer implements Export {
  readonly exportName = '';

  constructor(
    private readonly child: Child,
    readonly socket: string,
  ) {}

  get pid(): number {
    return this.child.pid;
  }

  async stop(): Promise<void> {
    await this.child.stop();
    // nbdkit leaves it behind.
    fs.rmSync(this.socket, { force: true });
  }
}
