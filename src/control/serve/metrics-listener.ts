/** GET /metrics over TCP on loopback, for a Prometheus that speaks no unix sockets. Nothing else is served there. */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { ControlError, describeError, ERRORS } from '../errors.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { TcpAddress } from './addresses.ts';

/** whoever scrapes needs one; a slow one is not to take what others need */
export const CONNECTIONS_MAX = 16;
const REQUEST_MS_MAX = 10_000;

export class MetricsListener {
  private constructor(
    private readonly server: http.Server,
    readonly url: string,
  ) {}

  /** @throws HELD when the port is taken */
  static async start(address: TcpAddress, metrics: Metrics, log: Log): Promise<MetricsListener> {
    const server = http.createServer((request, response) => {
      void answer(metrics, log, request, response);
    });
    server.maxConnections = CONNECTIONS_MAX;
    server.requestTimeout = REQUEST_MS_MAX;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => {
        // without the address that Node says, which has no port
        const { code, message } = describeError({
          code: (error as NodeJS.ErrnoException).code,
          message: error.message,
        });
        reject(new ControlError(code, `metrics on ${hostPort(address)}: ${message}`));
      });
      server.listen(address.port, address.host, resolve);
    });
    const { port } = server.address() as AddressInfo;
    return new MetricsListener(server, `http://${hostPort({ host: address.host, port })}/metrics`);
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.server.close(() => resolve());
      this.server.closeAllConnections();
    });
  }
}

function hostPort({ host, port }: TcpAddress): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}

async function answer(
  metrics: Metrics,
  log: Log,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const path = (request.url ?? '').split('?', 1)[0];
  if (path !== '/metrics') return send(response, 404, 'text/plain', 'metrics are at /metrics\n');
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return send(response, 405, 'text/plain', 'metrics are for reading\n');
  try {
    send(response, 200, metrics.contentType, await metrics.page());
  } catch (error) {
    const { code, message } = describeError(error);
    if (code !== 'SHUTTING_DOWN') log('error', 'metrics', { code, message });
    send(response, ERRORS[code].http, 'text/plain', `${message}\n`);
  }
}

function send(response: http.ServerResponse, status: number, type: string, text: string): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) });
  response.end(text);
}
