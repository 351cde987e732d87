/** What `atoll serve` does. In a file of its own: only the daemon needs what this imports. */
import type { Engine, EngineOptions } from '../../xseg/types.ts';
import { catalogUrl } from '../catalog/place.ts';
import { ControlError, describeError, EXIT } from '../errors.ts';
import { resolveHome } from '../home.ts';
import { type Log, LogCounts, type LogLevel, openLog } from '../log.ts';
import { nbdUri } from '../nbd/uri.ts';
import { shellWord } from '../output.ts';
import { packageVersion } from '../version.ts';
import type { CommonOptions, World } from '../world.ts';
import { HTTP_DEFAULT, type NbdAddress, parseHttpAddress, type TcpAddress } from './addresses.ts';
import { Daemon } from './daemon.ts';
import { ServiceManager } from './notify.ts';

/** docs/format.md and the engine: below it, one fault would evict what the next needs */
const CACHE_BYTES_MIN = 16 << 20;
/** the engine's, in ms: copies more often would do nothing but copy, and later than a day they are none */
const COPY_EVERY_MIN = 1000;
const COPY_EVERY_MAX = 24 * 3600_000;

export interface ServeOptions extends CommonOptions {
  nbd?: NbdAddress[];
  socketDir?: string;
  socketGroup?: string;
  cache?: number;
  reactors?: number;
  spinUs?: number;
  poolWarn?: number;
  poolCritical?: number;
  ioUring: boolean;
  metrics?: TcpAddress;
  /** null: none */
  http?: TcpAddress | null;
  publicUrl?: string;
  catalog?: string;
  tlsCert?: string;
  tlsKey?: string;
  /** ms */
  copyEvery?: number;
  logJson?: boolean;
  logLevel?: LogLevel;
}

export async function serve(options: ServeOptions, world: World): Promise<void> {
  // from here on a signal means a clean stop, as soon as there is something to stop
  const { signal } = world;
  const logCounts = new LogCounts();
  const level = options.logLevel ?? 'info';
  const log = openLog({ json: options.logJson ?? false, level, counts: logCounts, write: world.err });
  const onFatal = (reason: string) => {
    log('error', 'fatal', { reason });
    process.exit(EXIT.fatal);
  };
  process.on('uncaughtException', (error) => onFatal(error.stack ?? error.message));
  process.on('unhandledRejection', (error) =>
    onFatal(error instanceof Error ? (error.stack ?? error.message) : String(error)),
  );
  if (options.socket !== undefined) throw new ControlError('USAGE', 'serve takes --socket-dir, not --socket');
  if (options.cache !== undefined && options.cache < CACHE_BYTES_MIN) {
    throw new ControlError('USAGE', 'the map cache needs at least 16M');
  }
  const { copyEvery = COPY_EVERY_MAX } = options;
  if (copyEvery !== 0 && (copyEvery < COPY_EVERY_MIN || copyEvery > COPY_EVERY_MAX)) {
    throw new ControlError('USAGE', '--copy-every takes 1s to 24h, or 0 for no copies');
  }
  const daemon = await Daemon.start({
    home: resolveHome(options.home, world.env),
    socketDir: options.socketDir,
    socketGroup: options.socketGroup,
    nbd: options.nbd ?? [],
    metrics: options.metrics,
    http: options.http === undefined ? parseHttpAddress(world.env.ATOLL_HTTP || HTTP_DEFAULT) : options.http,
    httpAnyPort: options.http === undefined && !world.env.ATOLL_HTTP,
    publicUrl: options.publicUrl,
    catalogUrl: catalogUrl(options.catalog, world.env),
    tls: tlsFiles(options),
    engine: engineOptions(options),
    log,
    logCounts,
    onFatal,
    openEngine: await loadEngine(),
  });
  const manager = new ServiceManager(world.env, log);
  world.out(await readyLine(daemon, options, world));
  manager.ready(`serving ${daemon.paths.nbd}`);
  const metrics = daemon.metricsUrl === null ? {} : { metrics: daemon.metricsUrl };
  const http = daemon.httpUrl === null ? {} : { http: daemon.httpUrl };
  log('info', 'ready', { home: daemon.paths.home, nbd: daemon.nbdAddresses, ...metrics, ...http, pid: process.pid });
  await untilAborted(signal);
  manager.stopping();
  await stop(daemon, log, world);
}

function tlsFiles({ tlsCert: cert, tlsKey: key }: ServeOptions): { cert: string; key: string } | undefined {
  if (cert === undefined && key === undefined) return undefined;
  if (cert === undefined || key === undefined)
    throw new ControlError('USAGE', 'TLS takes both --tls-cert and --tls-key');
  return { cert, key };
}

function engineOptions(options: ServeOptions): Omit<EngineOptions, 'home' | 'log' | 'onFatal'> {
  return {
    version: packageVersion(),
    ...(options.reactors === undefined ? {} : { reactors: options.reactors }),
    ...(options.cache === undefined ? {} : { cacheBytes: options.cache }),
    ...(options.spinUs === undefined ? {} : { spinUs: options.spinUs }),
    ...(options.poolWarn === undefined ? {} : { poolWarnPercent: options.poolWarn }),
    ...(options.poolCritical === undefined ? {} : { poolCriticalPercent: options.poolCritical }),
    ...(options.ioUring ? {} : { ioUring: false }),
    ...(options.copyEvery === undefined ? {} : { copyIntervalMs: options.copyEvery }),
  };
}

/** Only the daemon loads the engine and its addon: the other commands start faster and run without them. */
async function loadEngine(): Promise<(options: EngineOptions) => Promise<Engine>> {
  const { openEngine } = await import('../../xseg/engine.ts');
  return openEngine;
}

/** One line, with something to try that works as it stands. */
async function readyLine(daemon: Daemon, options: ServeOptions, world: World): Promise<string> {
  const { paths, engine } = daemon;
  if (options.json) {
    const nbd = daemon.nbdAddresses;
    const at = { home: paths.home, control: paths.control, nbd, metrics: daemon.metricsUrl, http: daemon.httpUrl };
    return `${JSON.stringify({ ready: true, pid: process.pid, ...at })}\n`;
  }
  const { volumes } = await engine.status();
  const home = options.home || world.env.ATOLL_HOME ? ` --home ${shellWord(paths.home)}` : '';
  const first = `bin/atoll volume create demo --size 10G${home} && nbdinfo ${shellWord(nbdUri(paths.nbd, 'demo'))}`;
  const again = `nbdinfo --list ${shellWord(nbdUri(paths.nbd, ''))}`;
  return `ready: ${volumes} volumes in ${paths.home}; try: ${volumes === 0 ? first : again}\n`;
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** A second signal means that somebody would rather not wait; what was flushed is safe either way. */
async function stop(daemon: Daemon, log: Log, world: World): Promise<void> {
  log('info', 'stopping', {});
  const hurry = () => {
    log('warn', 'stopped.unfinished', { reason: 'a second signal' });
    process.exit(EXIT.interrupted);
  };
  process.once('SIGTERM', hurry);
  process.once('SIGINT', hurry);
  try {
    await daemon.stop();
    log('info', 'stopped', {});
  } catch (error) {
    const described = describeError(error);
    log('error', 'stop.failed', described);
    world.setExitCode(EXIT.failed);
  }
}
