/**
 * The daemon's life: home, engine, listeners, ready, and the way back. The order matters: the engine's lock on the home
 * comes before anything in the home is touched, and clients come last and go first.
 */
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine, EngineOptions } from '../../xseg/types.ts';
import type { Api } from '../api/context.ts';
import { ControlError, describeError } from '../errors.ts';
import { type HomePaths, homePaths, prepareHome, writeDaemonFile } from '../home.ts';
import { Ingests } from '../ingests.ts';
import { type Log, LogCounts } from '../log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { Mounts } from '../mounts.ts';
import { Transfers } from '../transfers.ts';
import { formatNbdAddress, type NbdAddress, type TcpAddress } from './addresses.ts';
import type { FrontDoor } from './front-door.ts';
import type { MetricsListener } from './metrics-listener.ts';
import { clearSocketPath, groupId, MODE_GROUP, MODE_PRIVATE, openToGroup, prepareSocketFolder } from './sockets.ts';

export interface DaemonOptions {
  home: string;
  socketDir?: string | undefined;
  socketGroup?: string | undefined;
  /** besides the unix socket in the home */
  nbd: NbdAddress[];
  /** where metrics are served besides the control socket; none by default */
  metrics?: TcpAddress | undefined;
  /** where users are served over HTTP; none by default */
  http?: TcpAddress | null | undefined;
  /** it is the default, and any other port does where that one is taken */
  httpAnyPort?: boolean;
  publicUrl?: string | undefined;
  /** of the PostgreSQL database that has the catalog; default: a file in the home */
  catalogUrl?: string | undefined;
  tls?: { cert: string; key: string } | undefined;
  engine: Omit<EngineOptions, 'home' | 'log' | 'onFatal'>;
  log: Log;
  logCounts?: LogCounts | undefined;
  onFatal: (reason: string) => void;
  openEngine: (options: EngineOptions) => Promise<Engine>;
}

/** requests under way at a stop have this long to end; the engine itself takes what it needs */
const API_CLOSE_MS_MAX = 5_000;

export class Daemon {
  private constructor(
    readonly paths: HomePaths,
    readonly engine: Engine,
    private readonly api: Api,
    private readonly transfers: Transfers,
    private readonly mounts: Mounts,
    private readonly metricsListener: MetricsListener | null,
    private readonly frontDoor: FrontDoor | null,
    readonly nbdAddresses: string[],
  ) {}

  /** what users reach HTTP by */
  get httpUrl(): string | null {
    return this.frontDoor?.publicUrl ?? null;
  }

  /** where metrics are served over TCP, as a URL */
  get metricsUrl(): string | null {
    return this.metricsListener?.url ?? null;
  }

  /** Leaves nothing running and no socket behind when it fails. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const paths = homePaths(options.home, options.socketDir);
    const gid = options.socketGroup === undefined ? null : groupId(options.socketGroup);
    prepareHome(paths.home);
    // Sockets are the owner's until openToGroup() says otherwise, without a moment in between.
    process.umask(0o077);
    const { home, log, onFatal } = options;
    const opening = options.openEngine({ ...options.engine, home, log, onFatal });
    // The engine's threads start while this one loads the API, which takes about as long.
    await Promise.allSettled([opening, loadApi(), options.http ? loadFrontDoor() : null]);
    const engine = await opening;
    try {
      return await Daemon.listen(options, paths, gid, engine);
    } catch (error) {
      await engine.close().catch((closing: Error) => log('error', 'engine.close', { message: closing.message }));
      throw error;
    }
  }

  private static async listen(
    options: DaemonOptions,
    paths: HomePaths,
    gid: number | null,
    engine: Engine,
  ): Promise<Daemon> {
    const transfers = new Transfers(engine, options.log);
    const mounts = new Mounts(engine, paths.home, options.log);
    const nbdAddresses: string[] = [];
    prepareSocketFolder(path.dirname(paths.control), gid);
    const mode = gid === null ? MODE_PRIVATE : MODE_GROUP;
    for (const address of [{ kind: 'unix', path: paths.nbd } as const, ...options.nbd]) {
      if (address.kind === 'unix') {
        prepareSocketFolder(path.dirname(address.path), gid);
        await clearSocketPath(address.path);
      }
      nbdAddresses.push(await listenNbd(engine, formatNbdAddress(address), mode));
      if (address.kind === 'unix') openToGroup(address.path, gid);
    }
    const [{ buildApi }, { Metrics }, { MetricsListener }] = await loadApi();
    const logCounts = options.logCounts ?? new LogCounts();
    const metrics = new Metrics(async () => {
      const [status, activity] = await Promise.all([engine.status(), engine.activity()]);
      return { status, activity, transfers: transfers.count, log: logCounts };
    });
    const listener = options.metrics ? await MetricsListener.start(options.metrics, metrics, options.log) : null;
    let frontDoor: FrontDoor | null = null;
    const sockets = () => ({
      control: paths.control,
      nbd: nbdAddresses,
      metrics: listener?.url ?? null,
      http: frontDoor?.publicUrl ?? null,
    });
    const catalog = () => frontDoor?.catalog ?? null;
    const api = buildApi({
      engine,
      transfers,
      mounts,
      // a group's members may not read all that the daemon may
      ingests: new Ingests(engine, gid === null),
      log: options.log,
      metrics,
      sockets,
      catalog,
    });
    try {
      if (options.http) frontDoor = await openFrontDoor(options, paths.home, engine, metrics);
      await clearSocketPath(paths.control);
      await api.listen({ path: paths.control });
      openToGroup(paths.control, gid);
    } catch (error) {
      await listener?.close();
      await frontDoor?.close();
      throw error;
    }
    // Not awaited: being ready must not wait for lists as long as the home is large.
    transfers.sweep().catch((error: Error) => options.log('warn', 'transfers.sweep', { message: error.message }));
    writeDaemonFile(paths.daemonFile, { pid: process.pid, control: paths.control, nbd: nbdAddresses });
    await mounts.restore();
    return new Daemon(paths, engine, api, transfers, mounts, listener, frontDoor, nbdAddresses);
  }

  /** Clients first, then what is unfinished, then the engine, which commits everything acknowledged. */
  async stop(): Promise<void> {
    await this.transfers.abortAll();
    await this.mounts.close();
    await this.metricsListener?.close();
    await Promise.race([this.frontDoor?.close(), sleep(API_CLOSE_MS_MAX, undefined, { ref: false })]);
    await Promise.race([this.api.close(), sleep(API_CLOSE_MS_MAX, undefined, { ref: false })]);
    await this.engine.close();
    for (const file of [this.paths.control, this.paths.daemonFile, ...this.unixSockets()])
      fs.rmSync(file, { force: true });
  }

  private unixSockets(): string[] {
    const unix = 'unix:';
    return this.nbdAddresses.filter((address) => address.startsWith(unix)).map((address) => address.slice(unix.length));
  }
}

function loadApi() {
  return Promise.all([import('../api/server.ts'), import('../metrics/metrics.ts'), import('./metrics-listener.ts')]);
}

function loadFrontDoor() {
  return import('./front-door.ts');
}

async function openFrontDoor(
  options: DaemonOptions,
  home: string,
  engine: Engine,
  metrics: Metrics,
): Promise<FrontDoor> {
  const { FrontDoor } = await loadFrontDoor();
  const { log, onFatal, publicUrl, catalogUrl, tls } = options;
  const anyPort = options.httpAnyPort ?? false;
  const where = { home, address: options.http!, anyPort, publicUrl, catalogUrl, tls };
  return FrontDoor.start({ ...where, engine, metrics, log, onFatal });
}

/** An errno alone does not say which of the addresses it is about. */
async function listenNbd(engine: Engine, address: string, mode: number): Promise<string> {
  try {
    return await engine.listenNbd(address, mode);
  } catch (error) {
    const { code, message } = describeError(error);
    throw message.includes(address) ? error : new ControlError(code, `${address}: ${message}`);
  }
}
