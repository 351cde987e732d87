/** HTTP for users: the catalog, and the listener that serves it. docs/http.md */
import fs from 'node:fs';
import { createSecureContext } from 'node:tls';
import { HttpListener, type Tls } from '../../frontends/http/listener.ts';
import type { Engine } from '../../xseg/types.ts';
import { type Catalog, LocalCatalog } from '../catalog/catalog.ts';
import { cloudFolder } from '../catalog/operator-files.ts';
import { ControlError, describeError, oneLine } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import { isLoopback, type TcpAddress } from './addresses.ts';
import { engineSide } from './engine-side.ts';

/** The catalog is opened so long after the listener, when nobody asks before. */
const CATALOG_START_MS = 500;

/** paths of PEM files */
export interface TlsFiles {
  cert: string;
  key: string;
}

export interface FrontDoorOptions {
  engine: Engine;
  home: string;
  address: TcpAddress;
  /** nobody asked for this port: where it is taken, by another home's daemon perhaps, any other does */
  anyPort: boolean;
  publicUrl: string | undefined;
  /** of a PostgreSQL database; undefined: a file in the home */
  catalogUrl: string | undefined;
  tls: TlsFiles | undefined;
  log: Log;
  metrics: Metrics;
  /** hears when the catalog, which opens after the listener does, cannot be opened */
  onFatal: (reason: string) => void;
}

export class FrontDoor {
  private constructor(
    private readonly local: LocalCatalog,
    private readonly listener: HttpListener,
    private readonly opening: NodeJS.Timeout,
  ) {}

  get catalog(): Catalog {
    return this.local;
  }

  get publicUrl(): string {
    return this.listener.publicUrl;
  }

  /** @throws {ControlError} HELD when the port is taken; what the catalog's folder is in the way with */
  static async start(options: FrontDoorOptions): Promise<FrontDoor> {
    const { home, publicUrl, tls, log, metrics, onFatal } = options;
    const { host } = options.address;
    const pem = tls && readTls(tls);
    const catalog = LocalCatalog.open(cloudFolder(home), onFatal, {
      engine: engineSide(options.engine, log),
      url: options.catalogUrl,
    });
    // What is elsewhere is there at the start, or says why not.
    if (options.catalogUrl !== undefined) await catalog.start();
    const listen = (port: number): Promise<HttpListener> =>
      HttpListener.start({ host, port, publicUrl, tls: pem, catalog, log, metrics }).catch((error) => {
        // without the address that Node says, which has no port
        const { code, message } = describeError({ code: error.code, message: error.message });
        if (code === 'HELD' && options.anyPort && port !== 0) return listen(0);
        const hint = code === 'HELD' ? '; choose another with --http, or --http none' : '';
        throw new ControlError(code, `HTTP on ${host}:${port}: ${message}${hint}`);
      });
    const listener = await listen(options.address.port);
    if (options.anyPort && listener.port !== options.address.port)
      log('warn', 'http.port', { taken: options.address.port, instead: listener.port, hint: 'choose one with --http' });
    catalog.operator.setUrl(listener.publicUrl);
    if (!isLoopback(host) && !listener.publicUrl.startsWith('https:'))
      log('warn', 'http.plain', { url: listener.publicUrl, hint: 'passwords travel in the clear; see --tls-cert' });
    // Being ready does not wait for what only a request needs, nor shares the processor with it. A request that comes earlier
    // starts it.
    const opening = setTimeout(() => {
      catalog.start().then(
        () => catalog.passwords.warm().catch(() => undefined),
        (error: Error) => onFatal(`the catalog in ${catalog.folder} cannot be opened: ${error.message}`),
      );
    }, CATALOG_START_MS).unref();
    return new FrontDoor(catalog, listener, opening);
  }

  async close(): Promise<void> {
    clearTimeout(this.opening);
    await this.listener.close();
    await this.local.close();
  }
}

/** @throws {ControlError} INVALID when the two are no pair; what reading them can throw */
function readTls(files: TlsFiles): Tls {
  const pem = { cert: fs.readFileSync(files.cert), key: fs.readFileSync(files.key) };
  try {
    createSecureContext(pem);
    return pem;
  } catch (error) {
    const why = oneLine((error as Error).message);
    throw new ControlError('INVALID', `${files.cert} and ${files.key} are no certificate and its key: ${why}`);
  }
}
