/** The client's end of a transfer (../transfers.ts): it lasts as long as the answer to the request that began it is read. */
import { splitName } from '../../xseg/names.ts';
import type { SnapshotInfo, VolumeInfo } from '../../xseg/types.ts';
import { type ControlClient, route } from '../client.ts';
import { ControlError } from '../errors.ts';
import type { TransferInfo, TransferSpec } from '../transfers.ts';

export class RemoteTransfer {
  private constructor(
    private readonly client: ControlClient,
    private readonly lines: AsyncGenerator<Record<string, unknown>>,
    private current: TransferInfo,
  ) {}

  static async begin(client: ControlClient, spec: TransferSpec): Promise<RemoteTransfer> {
    const lines = client.lines(route('transfers'), spec);
    const first = await lines.next();
    if (first.done || !first.value.transfer) throw new ControlError('PROTOCOL', 'the daemon began no transfer');
    return new RemoteTransfer(client, lines, first.value.transfer as TransferInfo);
  }

  get info(): TransferInfo {
    return this.current;
  }

  async resize(size: number): Promise<void> {
    this.current = await this.client.post(route('transfers', this.current.id, 'resize'), { size });
  }

  async commit(): Promise<VolumeInfo> {
    return this.client.post<VolumeInfo>(route('transfers', this.current.id, 'commit'));
  }

  /** After commit, ends quietly; before it, makes the daemon remove what was staged. */
  async end(): Promise<void> {
    await this.lines.return(undefined);
  }
}

/** Begins a transfer, and ends it whatever becomes of `work`. */
export async function withTransfer<T>(
  client: ControlClient,
  spec: TransferSpec,
  work: (transfer: RemoteTransfer) => Promise<T>,
): Promise<T> {
  const transfer = await RemoteTransfer.begin(client, spec);
  try {
    return await work(transfer);
  } finally {
    await transfer.end();
  }
}

/** @returns path of the daemon's NBD socket */
export async function findNbdSocket(client: ControlClient): Promise<string> {
  const { sockets } = await client.get<{ sockets: { nbd: string[] } }>(route('status'));
  const address = sockets.nbd.find((text) => text.startsWith('unix:'));
  if (address === undefined) throw new ControlError('PROTOCOL', 'the daemon serves NBD on no unix socket');
  return address.slice('unix:'.length);
}

/** @param name VOL@SNAP */
export async function showSnapshot(client: ControlClient, name: string): Promise<SnapshotInfo> {
  const { volume, snapshot } = splitName(name);
  return client.get<SnapshotInfo>(route('volumes', volume, 'snapshots', snapshot ?? ''));
}
