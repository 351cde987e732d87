import { randomUUID } from 'node:crypto';
import { statfsSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { moduleUrl } from '../module-url.ts';
import { Accountant } from './accountant.ts';
import type { Activity, MapperActivity } from './activity.ts';
import { Exports } from './exports.ts';
import { FilePort } from './file-port.ts';
import { prepareStore, type StoreIdentity } from './first-start.ts';
import { type Home, openHome } from './home.ts';
import { IngestStream } from './ingest/ingest.ts';
import { INGESTS_MAX, type IngestBegun } from './ingest/job.ts';
import { PieceMemory } from './ingest/piece-memory.ts';
import { Jobs } from './jobs.ts';
import { FRAME_BYTES } from './layout.gen.ts';
import { CRITICAL_PERCENT_DEFAULT, WARN_PERCENT_DEFAULT } from './mapper/fullness.ts';
import type { ControlReply } from './mapper/mapper.ts';
import type { ListPage } from './mapper/requests.ts';
import { checkName } from './names.ts';
import { loadNative, type Native } from './native.ts';
import { runCheckThread } from './offline.ts';
import { copyInterval, OpenPools, openAtStart, type PoolOpen } from './open-pools.ts';
import type { HashRequest, HashResult } from './seal/job.ts';
import { KIND_SNAPSHOT, KIND_VOLUME } from './store/batch.ts';
import {
  type Access,
  type AttachSpec,
  type BackupReport,
  type CheckReport,
  type Engine,
  EngineError,
  type EngineErrorCode,
  type EngineOptions,
  type EngineStatus,
  type ExtentInfo,
  type Ingest,
  type IngestSpec,
  type NodeChange,
  type OpenHandle,
  type PoolInfo,
  type PoolSettings,
  type PoolSpecInput,
  type ShowOptions,
  type SnapshotInfo,
  type VolumeInfo,
} from './types.ts';

export { checkStore } from './check.ts';
export { type RecoverOptions, type RecoverReport, recoverHome } from './copies/recover.ts';
export { openHome } from './home.ts';
export { checkHome, repairHome } from './offline.ts';
export * from './types.ts';

export const CACHE_BYTES_DEFAULT = 256 * 1024 * 1024;
export const CACHE_BYTES_MIN = 16 * 1024 * 1024;
export const CACHE_BYTES_MAX = 16 * 1024 ** 3;
/** Longest busy poll of a socket that keeps giving work. */
const SPIN_US_DEFAULT = 50;
/** Threads for blocking work. */
const IO_THREADS = 8;
const REACTORS_DEFAULT_MAX = 4;
export const COPY_INTERVAL_MS_MIN = 1000;
export const COPY_INTERVAL_MS_MAX = 24 * 3600_000;
/** Threads that hash and write what is ingested. */
const INGEST_THREADS = 2;
/** How long a forced delete waits for its connections to end. */
const FORCE_WAIT_MS = 5000;
const FORCE_POLL_MS = 20;
/** Checks at once: each has a thread, and holds the store's log. */
const CHECKS_MAX = 2;
/** How long the end of the committer or the copier may be that of the mapper, which they follow. */
const FOLLOWER_END_MS = 500;
/** Nobody waits for the copier: its thread starts when the daemon has. */
const COPIER_START_MS = 1000;

class EngineImpl implements Engine {
  readonly started = Date.now();
  /** monotonic ms */
  readonly startedAt = performance.now();
  readonly exports: Exports;
  readonly files: FilePort;
  readonly accountant: Accountant;
  readonly pools: OpenPools;
  #calls = new Map<number, { resolve: (value: never) => void; reject: (error: Error) => void }>();
  #nextCall = 1;
  #closing = false;
  #mapper: Worker;
  #committer: Worker;
  #copier: Worker | null = null;
  /** the copier's end of its channel, until it has started; what is sent meanwhile waits in it */
  readonly #copierPort: MessagePort;
  readonly #copierTimer: NodeJS.Timeout;
  #port: MessagePort;
  readonly #hashing: Jobs;
  readonly #ingesting: Jobs;
  #ingests = new Set<IngestStream>();
  /** under way */
  #checks = new Set<AbortController>();
  readonly #pieceMemory = new PieceMemory();
  #ingestsBeginning = 0;

  constructor(
    readonly options: EngineOptions,
    readonly home: Home,
    readonly identity: StoreIdentity,
    readonly native: Native,
    readonly core: number,
    pools: readonly PoolOpen[],
    clean: boolean,
    ioFlusher: boolean,
  ) {
    const toMapper = new MessageChannel();
    const toCommitter = new MessageChannel();
    const toCopier = new MessageChannel();
    this.#port = toMapper.port1;
    this.#port.on('message', (m: MapperMessage) => this.#message(m));
    this.#committer = this.#thread(
      'committer',
      'store/committer-worker',
      { storePath: home.storePath, core, port: toCommitter.port2 },
      [toCommitter.port2],
    );
    const levels = {
      warnPercent: options.poolWarnPercent ?? WARN_PERCENT_DEFAULT,
      criticalPercent: options.poolCriticalPercent ?? CRITICAL_PERCENT_DEFAULT,
    };
    const open = pools
      .filter((p) => p.handle >= 0)
      .map(({ row, handle, place, copies }) => ({ row, handle, place, copies }));
    this.#mapper = this.#thread(
      'mapper',
      'mapper/mapper-worker',
      {
        core,
        storePath: home.storePath,
        clean,
        port: toMapper.port2,
        committer: toCommitter.port1,
        copier: toCopier.port1,
        copyIntervalMs: copyInterval(options),
        home: { uuid: identity.uuid, line: identity.line.own },
        pools: open,
        levels,
      },
      [toMapper.port2, toCommitter.port1, toCopier.port1],
    );
    this.#copierPort = toCopier.port2;
    this.#copierTimer = setTimeout(() => this.#startCopier(), COPIER_START_MS).unref();
    const jobs = (file: string, threads: number, nice: number) =>
      new Jobs(moduleUrl(import.meta.url, file), threads, nice);
    // guests come first
    this.#hashing = jobs('seal/hash-worker', 1, 10);
    this.#ingesting = jobs('ingest/ingest-worker', INGEST_THREADS, 0);
    this.pools = new OpenPools(options, identity, native, core, pools, (op, ...args) => this.call(op, ...args));
    this.exports = new Exports(native, core, this, options.log);
    this.files = new FilePort(native, core, ioFlusher, (op, ...args) => this.call(op, ...args));
    this.accountant = new Accountant(home.storePath, (op, ...args) => this.call(op, ...args), options.log);
  }

  #thread(name: string, file: string, data: object, transfer: MessagePort[]): Worker {
    const thread = new Worker(moduleUrl(import.meta.url, file), { workerData: data, transferList: transfer });
    thread.on('error', (error) => this.#died(`${name} failed: ${error.stack ?? error.message}`));
    thread.on('exit', () => {
      // The others end when the mapper has, whose end is the one to tell of.
      if (name === 'mapper') this.#died(`${name} ended`);
      else setTimeout(() => this.#died(`${name} ended`), FOLLOWER_END_MS);
    });
    return thread;
  }

  #startCopier(): Worker {
    clearTimeout(this.#copierTimer);
    this.#copier ??= this.#thread(
      'copier',
      'copies/copier-worker',
      { storePath: this.home.storePath, core: this.core, port: this.#copierPort },
      [this.#copierPort],
    );
    return this.#copier;
  }

  #died(reason: string): void {
    if (!this.#closing) this.options.onFatal(reason);
  }

  #message(m: MapperMessage): void {
    if ('hash' in m) {
      void this.#hash(m.hash);
    } else if ('change' in m) {
      this.files.changed(m.change);
    } else if ('log' in m) {
      this.options.log(m.log.level, m.log.event, m.log.fields);
    } else if ('fatal' in m) {
      this.options.onFatal(m.fatal);
    } else {
      const call = this.#calls.get(m.id);
      this.#calls.delete(m.id);
      if (m.error !== undefined) call?.reject(new EngineError(m.error.code as EngineErrorCode, m.error.message));
      else call?.resolve(m.value as never);
    }
  }

  /** A job of sealing or scrubbing: on the pool's threads, the answer to the mapper. */
  async #hash({ ticket, job }: HashRequest): Promise<void> {
    let result: HashResult | null = null;
    try {
      const whole = { ...job, core: this.core, storePath: this.home.storePath };
      result = await this.#hashing.run<HashResult>('hashSlots', whole);
    } catch (error) {
      if (!this.#closing) this.options.log('error', 'hashing failed', { reason: (error as Error).message });
    }
    if (!this.#closing) await this.call('hashed', ticket, result).catch(() => undefined);
  }

  call<T>(op: string, ...args: unknown[]): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const id = this.#nextCall++;
      this.#calls.set(id, { resolve: resolve as (value: never) => void, reject });
      this.#port.postMessage({ id, op, args });
      this.native.wake(this.core);
    });
  }

  async status(): Promise<EngineStatus> {
    const inner =
      await this.call<Pick<EngineStatus, 'volumes' | 'snapshots' | 'map' | 'commits' | 'background'>>('status');
    return {
      version: this.options.version,
      home: this.home.path,
      pid: process.pid,
      uptimeSeconds: (Date.now() - this.started) / 1000,
      pools: await this.pools.list(),
      ...inner,
    };
  }

  async activity(): Promise<Activity> {
    const inner = await this.call<MapperActivity>('activity');
    const { connections } = this.native.nbdStatus(this.core);
    const fs = statfsSync(this.home.path);
    return {
      ...inner,
      uptimeSeconds: (performance.now() - this.startedAt) / 1000,
      reactors: this.native.reactorStats(this.core).map(({ async: waited, ...rest }) => ({ ...rest, waited })),
      dataSyncs: this.native.syncStats(this.core),
      nbd: {
        connections: connections.length,
        inFlight: connections.reduce((sum, { inFlight }) => sum + inFlight, 0),
        bytesHeld: connections.reduce((sum, { bytesHeld }) => sum + bytesHeld, 0),
      },
      home: {
        freeBytes: fs.bavail * fs.bsize,
        storeBytes: fileBytes(this.home.storePath) + fileBytes(`${this.home.storePath}-wal`),
      },
    };
  }

  async check(onProgress?: (done: number, total: number) => void, signal?: AbortSignal): Promise<CheckReport> {
    if (this.#checks.size >= CHECKS_MAX)
      throw new EngineError('BUSY', `${this.#checks.size} checks are under way; try again when one has ended`);
    const ended = new AbortController();
    this.#checks.add(ended);
    const end = () => ended.abort();
    signal?.addEventListener('abort', end, { once: true });
    try {
      const { report } = await runCheckThread(this.home.storePath, false, { onProgress, signal: ended.signal });
      return report;
    } finally {
      signal?.removeEventListener('abort', end);
      this.#checks.delete(ended);
    }
  }

  async backup(path: string, fixed?: () => void): Promise<BackupReport> {
    // says which copies it is younger than
    await this.call('commitMeta');
    return new Promise((resolve, reject) => {
      const thread = new Worker(moduleUrl(import.meta.url, 'backup-worker'), {
        workerData: { storePath: this.home.storePath, path },
      });
      type Message = { fixed: true } | { report: BackupReport } | { error: { code: string; message: string } };
      thread.on('message', (m: Message) => {
        if ('fixed' in m) fixed?.();
        else if ('report' in m) resolve(m.report);
        else reject(new EngineError(m.error.code as EngineErrorCode, m.error.message));
      });
      thread.on('error', (error) => reject(new EngineError('IO', error.message)));
      thread.on('exit', () => reject(new EngineError('IO', 'the backup ended without an answer')));
    });
  }

  // ---- pools

  createPool(spec: PoolSpecInput): Promise<PoolInfo> {
    return this.pools.create(spec);
  }
  listPools(): Promise<PoolInfo[]> {
    return this.pools.list();
  }
  async showPool(name: string, options: ShowOptions = {}): Promise<PoolInfo> {
    const { id } = this.pools.row(name);
    const account = options.account ? await this.accountant.pool(id, options.account) : null;
    const found = await this.pools.show(name);
    return account === null ? found : { ...found, ...account };
  }
  growPool(name: string, size?: number): Promise<PoolInfo> {
    return this.pools.grow(name, size);
  }
  setPool(name: string, settings: PoolSettings): Promise<PoolInfo> {
    return this.pools.set(name, settings);
  }

  // ---- resources

  async createVolume(spec: { name: string; size?: number; pool?: string; from?: string }): Promise<VolumeInfo> {
    checkName('volume', spec.name);
    return this.call('createVolume', spec);
  }
  listVolumes(): Promise<VolumeInfo[]> {
    return this.#all<VolumeInfo>(KIND_VOLUME);
  }
  listHidden(): Promise<string[]> {
    return this.call('listHidden');
  }
  showVolume(name: string, options: ShowOptions = {}): Promise<VolumeInfo> {
    return this.#accounted(name, () => this.call<VolumeInfo>('showVolume', name), options);
  }
  resizeVolume(name: string, size: number): Promise<VolumeInfo> {
    return this.call('resizeVolume', name, size);
  }
  async renameVolume(name: string, to: string): Promise<VolumeInfo> {
    checkName('volume', to);
    return this.call('renameVolume', name, to);
  }
  async deleteVolume(name: string, options: { force?: boolean; withSnapshots?: boolean }): Promise<void> {
    const remove = () => this.call<void>('deleteVolume', name, options);
    if (!options.force) return remove();
    const snapshots = options.withSnapshots ? await this.listSnapshots(name) : [];
    return this.#alone([name, ...snapshots.map((s) => s.name)], remove);
  }
  protect(name: string, on: boolean): Promise<void> {
    return this.call('protect', name, on);
  }
  attachVolume(name: string, { to, id = randomUUID() }: AttachSpec): Promise<VolumeInfo> {
    return this.call('attach', name, { to, id });
  }
  async detachVolume(name: string, options: { force?: boolean } = {}): Promise<VolumeInfo> {
    if (!options.force || (await this.showVolume(name)).attached === null) return this.call('detach', name);
    await this.call('bar', name, true);
    try {
      await this.#fence(name);
      return await this.call<VolumeInfo>('detach', name);
    } finally {
      await this.call('bar', name, false).catch(() => undefined);
    }
  }
  async createSnapshot(volume: string, snapshot: string): Promise<SnapshotInfo> {
    checkName('snapshot', snapshot);
    return this.call('createSnapshot', volume, snapshot);
  }
  listSnapshots(volume?: string): Promise<SnapshotInfo[]> {
    return volume === undefined ? this.#all<SnapshotInfo>(KIND_SNAPSHOT) : this.call('listSnapshots', volume);
  }

  /** By name. In pages: guests' faults have their turn between them. */
  async #all<T extends { name: string }>(kind: number): Promise<T[]> {
    const found: T[] = [];
    for (let after: number | null = 0; after !== null; ) {
      const page: ListPage<T> = await this.call('listPage', kind, after);
      found.push(...page.infos);
      after = page.next;
    }
    return found.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  }
  showSnapshot(name: string, options: ShowOptions = {}): Promise<SnapshotInfo> {
    return this.#accounted(name, () => this.call<SnapshotInfo>('showSnapshot', name), options);
  }

  /** What is exclusive is counted when somebody asks; who asks gets it at once when that is quick. */
  async #accounted<T extends { exclusiveBytes: number | null }>(
    name: string,
    show: () => Promise<T>,
    options: ShowOptions,
  ): Promise<T> {
    const info = await show();
    if (options.account === undefined || info.exclusiveBytes !== null) return info;
    const counted = this.accountant.resource(name);
    if (options.account === 'ask') return info;
    await counted;
    return show();
  }
  async deleteSnapshot(name: string, options: { force?: boolean } = {}): Promise<void> {
    const remove = () => this.call<void>('deleteSnapshot', name);
    return options.force ? this.#alone([name], remove) : remove();
  }
  async clone(from: string, to: string): Promise<VolumeInfo> {
    checkName('volume', to);
    return this.call('clone', from, to);
  }
  rollback(snapshot: string): Promise<VolumeInfo> {
    return this.call('rollback', snapshot);
  }
  diff(
    a: string,
    b: string,
    options: { offset?: number; max?: number } = {},
  ): Promise<{ extents: ExtentInfo[]; next: number | null }> {
    return this.call('diff', a, b, options.offset ?? 0, options.max ?? 4096);
  }
  replaceWith(volume: string, staged: string, since: string | null = null): Promise<VolumeInfo> {
    return this.call('replaceWith', volume, staged, since);
  }
  async ingest(spec: IngestSpec): Promise<Ingest> {
    checkName('volume', spec.volume);
    checkName('snapshot', spec.snapshot);
    if (this.#closing) throw new EngineError('SHUTTING_DOWN', 'the daemon is stopping');
    if (this.#ingests.size + this.#ingestsBeginning >= INGESTS_MAX)
      throw new EngineError('BUSY', `${INGESTS_MAX} ingests are under way; wait for one to end`);
    this.#ingestsBeginning++;
    try {
      const begun = await this.call<IngestBegun>('ingestBegin', spec);
      const stream = new IngestStream(begun, spec, {
        core: this.core,
        storePath: this.home.storePath,
        call: (op, ...args) => this.call(op, ...args),
        run: (name, job) => this.#ingesting.run(name, job),
        memory: this.#pieceMemory,
        ended: () => {
          this.#ingests.delete(stream);
          if (this.#ingests.size === 0) this.#pieceMemory.trim();
        },
      });
      this.#ingests.add(stream);
      return stream;
    } finally {
      this.#ingestsBeginning--;
    }
  }

  open(name: string, access?: Access): Promise<OpenHandle> {
    return this.call('open', name, access);
  }
  release(handle: number, readOnly?: boolean): Promise<void> {
    return this.call('release', handle, readOnly);
  }

  /** Ends whatever has resources open and does `work`; ends again who came in between. */
  async #alone(names: string[], work: () => Promise<void>): Promise<void> {
    const until = Date.now() + FORCE_WAIT_MS;
    for (;;) {
      for (const name of names) await this.#disconnect(name);
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof EngineError && error.code === 'BUSY') || Date.now() > until) throw error;
      }
      await sleep(FORCE_POLL_MS);
    }
  }

  /** Ends whatever has a resource open, and waits until it is gone. */
  async #disconnect(name: string): Promise<void> {
    await this.#ended(name, async () => {
      const handle = await this.call<number>('handleOf', name);
      if (handle < 0) return true;
      this.exports.disconnect(handle);
      this.files.changed({ id: 0, handle });
      const info = name.includes('@') ? await this.showSnapshot(name) : await this.showVolume(name);
      return info.openCount === 0;
    });
  }

  /** Ends the NBD connections of a volume, and waits until nothing that one of them wrote is on its way. */
  async #fence(name: string): Promise<void> {
    await this.#ended(name, async () => {
      const handle = await this.call<number>('handleOf', name);
      if (handle < 0) return true;
      this.exports.disconnect(handle);
      return (await this.call<number>('writersOf', name)) === 0;
    });
  }

  async #ended(name: string, gone: () => Promise<boolean>): Promise<void> {
    const until = Date.now() + FORCE_WAIT_MS;
    for (;;) {
      if (await gone()) return;
      if (Date.now() > until)
        throw new EngineError(
          'BUSY',
          `${name} is still open ${FORCE_WAIT_MS / 1000} s after its connections were told to end`,
        );
      await sleep(FORCE_POLL_MS);
    }
  }

  async listenNbd(address: string, mode?: number): Promise<string> {
    return this.exports.listen(address, mode);
  }

  async close(): Promise<void> {
    if (this.#closing) return;
    await this.exports.close();
    for (const check of this.#checks) check.abort();
    await Promise.all([...this.#ingests].map((stream) => stream.abort().catch(() => undefined)));
    this.files.close();
    const copier = this.#startCopier();
    const copierDone = new Promise((resolve) => copier.once('exit', resolve));
    await this.accountant.close();
    const committerDone = new Promise((resolve) => this.#committer.once('exit', resolve));
    const mapperDone = new Promise((resolve) => this.#mapper.once('exit', resolve));
    const closed = this.call('close');
    this.#closing = true;
    await closed;
    await Promise.all([committerDone, mapperDone, copierDone]);
    this.#port.close();
    await Promise.all([this.#hashing.close(), this.#ingesting.close()]);
    this.native.destroyCore(this.core);
    this.home.unlock();
  }
}

function fileBytes(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

interface LogMessage {
  level: 'info' | 'warn' | 'error';
  event: string;
  fields: Record<string, unknown>;
}

/** What the mapper says without being asked, and its answers. */
type MapperMessage =
  | ControlReply
  | { log: LogMessage }
  | { fatal: string }
  | { hash: HashRequest }
  | { change: NodeChange };

/** @throws {EngineError} INVALID */
function checkLevels(warn: number, critical: number): void {
  if (!(warn >= 1 && warn <= critical && critical <= 100))
    throw new EngineError(
      'INVALID',
      'a pool is full to warn from 1 percent on, critically from no less on, at most 100',
    );
}

/**
 * Opens a home and starts serving it. @throws {EngineError} HELD, NOT_OURS, FORMAT_NEWER, INVALID, IO …
 */
export async function openEngine(options: EngineOptions): Promise<Engine> {
  const cacheBytes = options.cacheBytes ?? CACHE_BYTES_DEFAULT;
  if (cacheBytes < CACHE_BYTES_MIN || cacheBytes > CACHE_BYTES_MAX)
    throw new EngineError('INVALID', 'the map cache has from 16M to 16G');
  const interval = copyInterval(options);
  if (interval !== 0 && !(interval >= COPY_INTERVAL_MS_MIN && interval <= COPY_INTERVAL_MS_MAX))
    throw new EngineError('INVALID', 'copies of the store are made every 1 s to 24 h, or never (0)');
  checkLevels(options.poolWarnPercent ?? WARN_PERCENT_DEFAULT, options.poolCriticalPercent ?? CRITICAL_PERCENT_DEFAULT);
  const native = loadNative();
  // before the threads are made, which inherit it: a disk of ours may be this machine's own
  const ioFlusher = native.ioFlusher();
  const home = openHome(options.home);
  let core = -1;
  try {
    const { pools: rows, clean, ...identity } = prepareStore(home, native);
    core = native.createCore({
      reactors: options.reactors ?? Math.min(REACTORS_DEFAULT_MAX, availableParallelism()),
      frames: Math.floor(cacheBytes / FRAME_BYTES),
      spinUs: options.spinUs ?? SPIN_US_DEFAULT,
      ioThreads: IO_THREADS,
      ioUring: options.ioUring ?? true,
    });
    const pools = rows.map((row) => openAtStart(row, identity, native, core, options));
    const engine = new EngineImpl(options, home, identity, native, core, pools, clean, ioFlusher);
    await engine.call('status');
    return engine;
  } catch (error) {
    if (core >= 0) native.destroyCore(core);
    home.unlock();
    throw error;
  }
}
