/**
 * Work that a client does over NBD and that must be seen whole or not at all: a new volume being filled, new content for
 * a volume, a moment of a live volume being read.
 *
 * What is unfinished lives under hidden names (names.ts). A transfer ends by commit or abort; the API aborts it when its client
 * is gone, and sweep() removes at start what a killed daemon left. So there is never half an import under a name of a user's.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { HIDDEN_PREFIX, joinName, splitName } from '../xseg/names.ts';
import { type Engine, EngineError, type VolumeInfo } from '../xseg/types.ts';
import { ControlError } from './errors.ts';
import type { Log } from './log.ts';
import { shellWord } from './output.ts';

/** at once; each holds a hidden volume or snapshot and one connection */
export const TRANSFERS_MAX = 64;
/** a client that commits has closed its connection; the server needs a moment to see it */
const CLOSE_MS_MAX = 5_000;
const CLOSE_POLL_MS = 10;
/** what cannot be removed since somebody has it open is tried again */
const REMOVE_RETRY_MS = 1000;

export type TransferSpec =
  | { kind: 'create'; name: string; size: number; pool?: string | undefined }
  | { kind: 'onto'; volume: string }
  | { kind: 'read'; volume: string };

export interface TransferInfo {
  id: string;
  kind: TransferSpec['kind'];
  /** the volume that it is about */
  volume: string;
  /** the NBD export to write to, or to read from */
  export: string;
  size: number;
  blockSize: number;
  pool: string;
}

interface Transfer {
  info: TransferInfo;
  /** id of the volume, so that another one with its name is not taken for it */
  volumeId: string | null;
  /** hidden names to remove in the end */
  stagedVolume: string | null;
  snapshot: string | null;
  state: 'open' | 'committing' | 'ended';
  /** its client has gone while it was being committed: if that fails, nobody will end it */
  gone: boolean;
  onEnd: (outcome: 'committed' | 'aborted') => void;
}

export class Transfers {
  private readonly transfers = new Map<string, Transfer>();
  private beginning = 0;
  /** begins the ids of this daemon's transfers: what has another is of one that is gone */
  private readonly runId = randomBytes(4).toString('hex');

  constructor(
    private readonly engine: Engine,
    private readonly log: Log,
  ) {}

  get count(): number {
    return this.transfers.size;
  }

  /**
   * @param onEnd called once, when the transfer is committed or aborted
   * @throws EXISTS (create), NOT_FOUND, BUSY (onto: the volume is open; or too many transfers), PROTECTED
   */
  async begin(spec: TransferSpec, onEnd: Transfer['onEnd']): Promise<TransferInfo> {
    if (this.transfers.size + this.beginning >= TRANSFERS_MAX) {
      throw new ControlError('BUSY', `there are ${TRANSFERS_MAX} transfers under way; wait for one to end`);
    }
    const id = this.runId + randomBytes(4).toString('hex');
    this.beginning++;
    try {
      const transfer = await this.prepare(id, spec, onEnd);
      this.transfers.set(id, transfer);
      return transfer.info;
    } finally {
      this.beginning--;
    }
  }

  /** Gives the staged volume another size. Clients that have it open see it when they connect again. */
  async resize(id: string, size: number): Promise<TransferInfo> {
    const transfer = this.find(id);
    if (!transfer.stagedVolume) throw new ControlError('INVALID', 'only a transfer that writes can be resized');
    const { size: now } = await this.engine.resizeVolume(transfer.stagedVolume, size);
    transfer.info = { ...transfer.info, size: now };
    return transfer.info;
  }

  /**
   * Makes what was written the volume's, atomically.
   * @returns the volume
   * @throws EXISTS (create: the name was taken meanwhile), BUSY, BASE_DIFFERS (onto: opened or changed meanwhile); the transfer stays open
   */
  async commit(id: string): Promise<VolumeInfo> {
    const transfer = this.find(id);
    transfer.state = 'committing';
    try {
      const volume = await this.publish(transfer);
      await this.end(transfer, 'committed');
      return volume;
    } catch (error) {
      if (transfer.state === 'committing') transfer.state = 'open';
      if (transfer.gone) await this.abort(id);
      throw error;
    }
  }

  /** Removes what was staged, when the transfer is being committed only if that fails. Does nothing when it has ended. */
  async abort(id: string): Promise<void> {
    const transfer = this.transfers.get(id);
    if (transfer?.state === 'committing') transfer.gone = true;
    if (transfer?.state === 'open') await this.end(transfer, 'aborted');
  }

  async abortAll(): Promise<void> {
    await Promise.all([...this.transfers.keys()].map((id) => this.abort(id)));
  }

  /** Removes what a daemon that was killed left behind; may run while transfers of this one begin. */
  async sweep(): Promise<void> {
    const own = `${HIDDEN_PREFIX}${this.runId}`;
    for (const name of await this.engine.listHidden())
      if (!name.includes(own)) await this.remove(name.includes('@') ? 'snapshot' : 'volume', name);
  }

  private find(id: string): Transfer {
    const transfer = this.transfers.get(id);
    if (!transfer)
      throw new ControlError('NOT_FOUND', 'there is no such transfer; it ends with the request that began it');
    if (transfer.state !== 'open') throw new ControlError('BUSY', 'the transfer is being committed');
    return transfer;
  }

  private async prepare(id: string, spec: TransferSpec, onEnd: Transfer['onEnd']): Promise<Transfer> {
    const hidden = `${HIDDEN_PREFIX}${id}`;
    const base = { volumeId: null, stagedVolume: null, snapshot: null, state: 'open' as const, gone: false, onEnd };
    if (spec.kind === 'create') {
      await this.refuseExisting(spec.name);
      const staged = await this.engine.createVolume({
        name: hidden,
        size: spec.size,
        ...(spec.pool === undefined ? {} : { pool: spec.pool }),
      });
      return { ...base, info: infoOf(id, spec.kind, spec.name, hidden, staged), stagedVolume: hidden };
    }
    const volume = await this.engine.showVolume(spec.volume);
    if (spec.kind === 'onto') refuseInUse(volume);
    const snapshot = joinName(volume.name, hidden);
    await this.engine.createSnapshot(volume.name, hidden);
    if (spec.kind === 'read') {
      return { ...base, info: infoOf(id, spec.kind, volume.name, snapshot, volume), volumeId: volume.id, snapshot };
    }
    try {
      const staged = await this.engine.clone(snapshot, hidden);
      const info = infoOf(id, spec.kind, volume.name, hidden, staged);
      return { ...base, info, volumeId: volume.id, stagedVolume: hidden, snapshot };
    } catch (error) {
      await this.remove('snapshot', snapshot);
      throw error;
    }
  }

  private async publish(transfer: Transfer): Promise<VolumeInfo> {
    const { info, stagedVolume } = transfer;
    if (info.kind === 'read') throw new ControlError('INVALID', 'a transfer that reads has nothing to commit');
    if (info.kind === 'create') return this.engine.renameVolume(stagedVolume!, info.volume);
    await this.untilClosed(stagedVolume!);
    const volume = await this.engine.showVolume(info.volume);
    if (volume.id !== transfer.volumeId) throw changed(info.volume);
    refuseInUse(volume);
    return this.engine.replaceWith(volume.name, stagedVolume!, transfer.snapshot);
  }

  /** The client has said goodbye; the engine hears of it a moment later. */
  private async untilClosed(name: string): Promise<void> {
    for (const until = Date.now() + CLOSE_MS_MAX; ; ) {
      const { openCount } = await this.engine.showVolume(name);
      if (openCount === 0) return;
      if (Date.now() > until)
        throw new ControlError('BUSY', 'the staged volume is still open; disconnect from it first');
      await sleep(CLOSE_POLL_MS);
    }
  }

  private async end(transfer: Transfer, outcome: 'committed' | 'aborted'): Promise<void> {
    transfer.state = 'ended';
    if (outcome === 'aborted' && transfer.stagedVolume) await this.remove('volume', transfer.stagedVolume);
    if (transfer.snapshot) await this.remove('snapshot', transfer.snapshot);
    this.transfers.delete(transfer.info.id);
    transfer.onEnd(outcome);
  }

  private async refuseExisting(name: string): Promise<void> {
    try {
      await this.engine.showVolume(name);
    } catch (error) {
      if (error instanceof EngineError && error.code === 'NOT_FOUND') return;
      throw error;
    }
    throw new ControlError(
      'EXISTS',
      `there is a volume ${JSON.stringify(name)} already; choose another name or delete it`,
    );
  }

  /** What cannot be removed now is removed later, by the next start's sweep at last: it must not fail what it comes after. */
  private async remove(kind: 'volume' | 'snapshot', name: string, again = false): Promise<void> {
    try {
      if (kind === 'volume') await this.engine.deleteVolume(name, { force: true, withSnapshots: true });
      else await this.engine.deleteSnapshot(name, { force: true });
    } catch (error) {
      const { code, message } = error as { code?: unknown; message?: unknown };
      if (code === 'NOT_FOUND') {
        await this.removeRenamed(kind, name);
        return;
      }
      if (!again) this.log('warn', 'transfer.leftover', { name, code, message });
      if (code === 'BUSY') setTimeout(() => void this.remove(kind, name, true), REMOVE_RETRY_MS).unref();
    }
  }

  /** A volume that was renamed meanwhile has taken its hidden snapshot along. */
  private async removeRenamed(kind: 'volume' | 'snapshot', name: string): Promise<void> {
    if (kind === 'volume') return;
    const { snapshot } = splitName(name);
    const found = (await this.engine.listHidden()).find((other) => other !== name && other.endsWith(`@${snapshot}`));
    if (found !== undefined) await this.remove(kind, found);
  }
}

function infoOf(
  id: string,
  kind: TransferSpec['kind'],
  volume: string,
  exportName: string,
  from: { size: number; blockSize: number; pool: string },
): TransferInfo {
  return { id, kind, volume, export: exportName, size: from.size, blockSize: from.blockSize, pool: from.pool };
}

function refuseInUse(volume: VolumeInfo): void {
  const name = JSON.stringify(volume.name);
  if (volume.protected) {
    const allow = `atoll volume protect ${shellWord(volume.name)} --off`;
    throw new ControlError('PROTECTED', `volume ${name} is protected; \`${allow}\` first`);
  }
  if (volume.attached !== null) {
    const take = `atoll volume detach ${shellWord(volume.name)}`;
    throw new ControlError('BUSY', `volume ${name} is attached to ${volume.attached.to}; \`${take}\` first`);
  }
  if (volume.openCount > 0) {
    const text = `volume ${name} is open (${volume.openCount} connection(s)); disconnect its clients first`;
    throw new ControlError('BUSY', text);
  }
}

function changed(name: string): ControlError {
  return new ControlError(
    'BASE_DIFFERS',
    `volume ${JSON.stringify(name)} changed while the import ran; nothing was applied`,
  );
}
