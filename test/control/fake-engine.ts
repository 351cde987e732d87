/**
 * An engine that keeps names and no data: what the API, the transfers and the CLI need to be tested without a daemon.
 * Everything that was asked of it is in `calls`.
 */
import { writeFileSync } from 'node:fs';
import { LogCounts } from '../../src/control/log.ts';
import { Metrics } from '../../src/control/metrics/metrics.ts';
import type { Activity } from '../../src/xseg/activity.ts';
import { isHiddenName } from '../../src/xseg/names.ts';
import {
  type AttachSpec,
  type BackupReport,
  type CheckReport,
  type Engine,
  EngineError,
  type EngineStatus,
  type ExtentInfo,
  type Ingest,
  type IngestSpec,
  type OpenHandle,
  type PoolInfo,
  type PoolSettings,
  type PoolSpecInput,
  type SnapshotInfo,
  type VolumeInfo,
} from '../../src/xseg/types.ts';
import { activity } from './activity.ts';

const NOTHING_LEFT: EngineStatus['background'] = { dropQueue: 0, freeQueueBytes: 0, zeroQueueBytes: 0 };

export class FakeEngine implements Engine {
  readonly volumes = new Map<string, VolumeInfo>();
  readonly snapshots = new Map<string, SnapshotInfo>();
  readonly pools = new Map<string, PoolInfo>();
  readonly calls: string[] = [];
  /** thrown by the next call of the method of that name */
  readonly failures = new Map<string, Error>();
  diffExtents: ExtentInfo[] = [];
  /** what status() says is left to do */
  background = NOTHING_LEFT;
  /** what activity() says */
  acted = activity();
  closed = false;
  private ids = 0;

  constructor() {
    this.reset();
  }

  reset(): void {
    for (const map of [this.volumes, this.snapshots, this.pools, this.failures]) map.clear();
    this.calls.length = 0;
    this.diffExtents = [];
    this.acted = activity();
    this.background = NOTHING_LEFT;
    this.pools.set('local', poolOf({ name: 'local', path: '/fake/local' }));
  }

  private call(name: string, ...args: unknown[]): void {
    this.calls.push(`${name}(${args.map((arg) => JSON.stringify(arg)).join(', ')})`);
    const failure = this.failures.get(name);
    this.failures.delete(name);
    if (failure) throw failure;
  }

  async status(): Promise<EngineStatus> {
    this.call('status');
    return {
      version: '0.0.0',
      home: '/fake',
      pid: 1,
      uptimeSeconds: 3700,
      pools: [...this.pools.values()],
      volumes: this.volumes.size,
      snapshots: this.snapshots.size,
      map: {
        ...{ cacheBytes: 2 ** 28, residentPages: 1, dirtyPages: 0, faults: 2 },
        ...{ faultP50Us: 10, faultP99Us: 20, loads: 0, evictions: 0 },
      },
      commits: { count: 1, pages: 1, p50Ms: 1, p99Ms: 2, logBytes: 0 },
      background: { ...this.background },
    };
  }

  async activity(): Promise<Activity> {
    this.call('activity');
    return structuredClone(this.acted);
  }

  async check(onProgress?: (done: number, total: number) => void): Promise<CheckReport> {
    this.call('check');
    for (let done = 0; done <= 4; done++) onProgress?.(done, 4);
    return { ok: true, pages: 4, slots: 8, resources: 1, problems: [], problemCount: 0, seconds: 0.1 };
  }

  async createPool(spec: PoolSpecInput): Promise<PoolInfo> {
    this.call('createPool', spec);
    if (this.pools.has(spec.name)) throw new EngineError('EXISTS', `a pool named ${spec.name} exists`);
    const pool = poolOf(spec);
    this.pools.set(spec.name, pool);
    return pool;
  }

  async listPools(): Promise<PoolInfo[]> {
    this.call('listPools');
    return [...this.pools.values()];
  }

  async showPool(name: string): Promise<PoolInfo> {
    this.call('showPool', name);
    return found(this.pools, name, 'pool');
  }

  async growPool(name: string, size?: number): Promise<PoolInfo> {
    this.call('growPool', name, size);
    const pool = found(this.pools, name, 'pool');
    if (size !== undefined) pool.capacityBytes = size;
    return pool;
  }

  async setPool(name: string, settings: PoolSettings): Promise<PoolInfo> {
    this.call('setPool', name, settings);
    const pool = found(this.pools, name, 'pool');
    const { seal, sealRate, sealPaused, scrubRate, verifyOnRead } = settings;
    if (pool.seal === null) throw new EngineError('NOT_FOUND', 'the pool is not open');
    pool.seal.on = seal ?? pool.seal.on;
    pool.seal.rate = sealRate ?? pool.seal.rate;
    pool.seal.paused = sealPaused ?? pool.seal.paused;
    pool.seal.scrubRate = scrubRate ?? pool.seal.scrubRate;
    pool.seal.verifyOnRead = verifyOnRead ?? pool.seal.verifyOnRead;
    return pool;
  }

  async createVolume(spec: { name: string; size?: number; pool?: string; from?: string }): Promise<VolumeInfo> {
    this.call('createVolume', spec);
    if (this.volumes.has(spec.name)) throw new EngineError('EXISTS', `a volume named ${spec.name} exists`);
    found(this.pools, spec.pool ?? 'local', 'pool');
    const from = spec.from === undefined ? null : found(this.snapshots, spec.from, 'snapshot');
    const volume: VolumeInfo = {
      ...{ id: `id-${++this.ids}`, name: spec.name, kind: 'volume' as const, size: spec.size ?? from?.size ?? 0 },
      ...{ blockSize: 65536, pool: spec.pool ?? 'local', mappedBytes: 0, createdAt: '2026-01-31T12:00:00.000Z' },
      ...{
        exclusiveBytes: 0,
        sharedBytes: 0,
        snapshots: 0,
        protected: false,
        openCount: 0,
        attached: null,
        clonedFrom: spec.from ?? null,
      },
    };
    this.volumes.set(spec.name, volume);
    return { ...volume };
  }

  async listVolumes(): Promise<VolumeInfo[]> {
    this.call('listVolumes');
    return [...this.volumes.values()];
  }

  async listHidden(): Promise<string[]> {
    this.call('listHidden');
    return [...this.snapshots.keys(), ...this.volumes.keys()].filter(isHiddenName);
  }

  async showVolume(name: string): Promise<VolumeInfo> {
    this.call('showVolume', name);
    return { ...found(this.volumes, name, 'volume') };
  }

  async resizeVolume(name: string, size: number): Promise<VolumeInfo> {
    this.call('resizeVolume', name, size);
    const volume = found(this.volumes, name, 'volume');
    volume.size = size;
    return { ...volume };
  }

  async renameVolume(name: string, to: string): Promise<VolumeInfo> {
    this.call('renameVolume', name, to);
    const volume = found(this.volumes, name, 'volume');
    if (this.volumes.has(to)) throw new EngineError('EXISTS', `a volume named ${to} exists`);
    this.volumes.delete(name);
    volume.name = to;
    this.volumes.set(to, volume);
    for (const [full, snapshot] of [...this.snapshots]) {
      if (snapshot.volume !== name) continue;
      this.snapshots.delete(full);
      const renamed = full.replace(/^[^@]*/, to);
      this.snapshots.set(renamed, { ...snapshot, name: renamed, volume: to });
    }
    return { ...volume };
  }

  async deleteVolume(name: string, options: { force?: boolean; withSnapshots?: boolean }): Promise<void> {
    this.call('deleteVolume', name, options);
    const volume = found(this.volumes, name, 'volume');
    if (volume.openCount > 0 && !options.force) throw new EngineError('BUSY', `${name} is open`);
    const own = [...this.snapshots.values()].filter((snapshot) => snapshot.volume === name);
    if (own.length > 0 && !options.withSnapshots) throw new EngineError('HAS_SNAPSHOTS', `${name} has snapshots`);
    for (const snapshot of own) this.snapshots.delete(snapshot.name);
    this.volumes.delete(name);
  }

  async protect(name: string, on: boolean): Promise<void> {
    this.call('protect', name, on);
    const resource = name.includes('@') ? found(this.snapshots, name, 'snapshot') : found(this.volumes, name, 'volume');
    resource.protected = on;
  }

  async attachVolume(name: string, { to, id = 'an-id' }: AttachSpec): Promise<VolumeInfo> {
    this.call('attachVolume', name, { to, id });
    const volume = found(this.volumes, name, 'volume');
    volume.attached = { id, to, since: '2026-01-31T12:00:00.000Z', export: `${name}/${id}` };
    return { ...volume };
  }

  async detachVolume(name: string, options: { force?: boolean } = {}): Promise<VolumeInfo> {
    this.call('detachVolume', name, options);
    const volume = found(this.volumes, name, 'volume');
    if (volume.attached === null) throw new EngineError('NOT_FOUND', `${name} is not attached`);
    volume.attached = null;
    return { ...volume };
  }

  async createSnapshot(volume: string, snapshot: string): Promise<SnapshotInfo> {
    this.call('createSnapshot', volume, snapshot);
    const { size, blockSize, pool, mappedBytes, createdAt } = found(this.volumes, volume, 'volume');
    const name = `${volume}@${snapshot}`;
    if (this.snapshots.has(name)) throw new EngineError('EXISTS', `a snapshot named ${name} exists`);
    const facts = { size, blockSize, pool, mappedBytes, createdAt };
    const made: SnapshotInfo = {
      ...{ id: `id-${++this.ids}`, name, kind: 'snapshot' as const, volume, snapshot },
      ...{ ...facts, exclusiveBytes: 0, sharedBytes: 0, protected: false, openCount: 0, hash: null },
    };
    this.snapshots.set(name, made);
    return made;
  }

  async listSnapshots(volume?: string): Promise<SnapshotInfo[]> {
    this.call('listSnapshots', volume);
    return [...this.snapshots.values()].filter((snapshot) => volume === undefined || snapshot.volume === volume);
  }

  async showSnapshot(name: string): Promise<SnapshotInfo> {
    this.call('showSnapshot', name);
    return found(this.snapshots, name, 'snapshot');
  }

  async deleteSnapshot(name: string, options?: { force?: boolean }): Promise<void> {
    this.call('deleteSnapshot', name, options);
    found(this.snapshots, name, 'snapshot');
    this.snapshots.delete(name);
  }

  async clone(from: string, to: string): Promise<VolumeInfo> {
    this.call('clone', from, to);
    return this.createVolume({ name: to, from });
  }

  async rollback(snapshot: string): Promise<VolumeInfo> {
    this.call('rollback', snapshot);
    return found(this.volumes, found(this.snapshots, snapshot, 'snapshot').volume, 'volume');
  }

  /** Pages of `max` extents; `offset` is the number of the first. */
  async diff(
    a: string,
    b: string,
    options: { offset?: number; max?: number } = {},
  ): Promise<{ extents: ExtentInfo[]; next: number | null }> {
    this.call('diff', a, b, options);
    found(this.snapshots, a, 'snapshot');
    const first = options.offset ?? 0;
    const end = first + Math.min(options.max ?? 1000, 1000);
    return { extents: this.diffExtents.slice(first, end), next: end < this.diffExtents.length ? end : null };
  }

  async replaceWith(volume: string, staged: string, since?: string | null): Promise<VolumeInfo> {
    this.call('replaceWith', volume, staged);
    const target = found(this.volumes, volume, 'volume');
    if (since && (this.diffExtents.length > 0 || this.snapshots.get(since)?.size !== target.size))
      throw new EngineError('BASE_DIFFERS', `volume ${volume} changed meanwhile`);
    target.size = found(this.volumes, staged, 'volume').size;
    this.volumes.delete(staged);
    return { ...target };
  }

  /** Counts bytes, and keeps a snapshot of so many. */
  async ingest(spec: IngestSpec): Promise<Ingest> {
    this.call('ingest', spec);
    if (this.volumes.has(spec.volume)) throw new EngineError('EXISTS', `a volume named ${spec.volume} exists`);
    const pool = found(this.pools, spec.pool ?? 'local', 'pool').name;
    let position = 0;
    const take = async (what: string, length: number) => {
      this.call(what, length);
      position += length;
    };
    return {
      ...{ blockSize: 65536, pool },
      get position() {
        return position;
      },
      write: (bytes) => take('ingest.write', bytes.length),
      read: (_file, _position, length) => take('ingest.read', length),
      skip: (length) => take('ingest.skip', length),
      finish: async () => {
        this.call('ingest.finish');
        await this.createVolume({ name: spec.volume, size: position });
        return this.createSnapshot(spec.volume, spec.snapshot);
      },
      abort: async () => this.call('ingest.abort'),
    };
  }

  async open(): Promise<OpenHandle> {
    throw new EngineError('UNSUPPORTED', 'the fake engine has no data');
  }

  async release(): Promise<void> {}

  async listenNbd(address: string): Promise<string> {
    this.call('listenNbd', address);
    return address;
  }

  async backup(path: string, fixed?: () => void): Promise<BackupReport> {
    this.call('backup', path);
    writeFileSync(path, Buffer.alloc(65536));
    fixed?.();
    return { path, takenAt: '2026-01-31T12:00:00.000Z', bytes: 65536, seconds: 0.1 };
  }

  async close(): Promise<void> {
    this.call('close');
    this.closed = true;
  }
}

/** Metrics of it and of nothing else. */
export function metricsOf(engine: Engine): Metrics {
  const log = new LogCounts();
  return new Metrics(async () => ({
    status: await engine.status(),
    activity: await engine.activity(),
    transfers: 0,
    log,
  }));
}

function found<T>(map: Map<string, T>, name: string, kind: string): T {
  const value = map.get(name);
  if (value === undefined) throw new EngineError('NOT_FOUND', `there is no ${kind} named ${name}`);
  return value;
}

function poolOf(spec: PoolSpecInput): PoolInfo {
  return {
    ...{ id: `pool-${spec.name}`, name: spec.name, driver: 'local' as const, kind: 'directory' as const },
    ...{ path: spec.path, blockSize: spec.blockSize ?? 65536, direct: spec.direct ?? false },
    ...{ capacityBytes: spec.size ?? 2 ** 40, usedBytes: 0, freeBytes: 2 ** 40, physicalBytes: 0, reclaimingBytes: 0 },
    ...{ releasingBytes: 0, logicalBytes: 0, mappedBytes: 0, exclusiveBytes: null, sharedBytes: null },
    ...{ fullPercent: 0, level: 'ok' as const, state: 'ok' as const, reason: null },
    seal: {
      ...{
        on: false,
        paused: false,
        rate: 0,
        scrubRate: 0,
        verifyOnRead: false,
        entries: 0,
        indexBytes: 0,
        hashedBytes: 0,
        foldedBytes: 0,
      },
      ...{ dedupRatio: 1, backlogSnapshots: 0, backlogBytes: 0, quarantined: 0, scrubbedAt: null },
    },
    copies: {
      ...{ state: 'ok' as const, reason: null, takenAt: '2026-01-31T12:00:00.000Z' },
      ...{ bytes: 65536, generations: 2, heldBytes: 0 },
    },
  };
}
