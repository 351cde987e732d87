/** Where NBD is served: `unix:/path` or `tcp:HOST:PORT` on loopback; metrics: `HOST:PORT` on loopback; and HTTP: `HOST:PORT`. */
import net from 'node:net';
import path from 'node:path';
import { ControlError } from '../errors.ts';
import { checkSocketPath } from '../home.ts';

export interface TcpAddress {
  host: string;
  port: number;
}
export type NbdAddress = { kind: 'unix'; path: string } | ({ kind: 'tcp' } & TcpAddress);

const FORMS = 'write tcp:127.0.0.1:10809 or unix:/path/to/socket';
const TCP = /^(?:\[(?<v6>[0-9a-f:.]+)\]|(?<host>[^:[\]]+)):(?<port>\d{1,5})$/i;

/**
 * NBD as we serve it knows no users and no encryption, so TCP is for this machine only.
 * @throws {ControlError} INVALID
 */
export function parseNbdAddress(text: string): NbdAddress {
  if (text.startsWith('unix:')) {
    const socket = text.slice('unix:'.length);
    if (!path.isAbsolute(socket)) throw new ControlError('INVALID', `${text}: the path of a socket has to be absolute`);
    checkSocketPath(socket);
    return { kind: 'unix', path: socket };
  }
  const tcp = text.startsWith('tcp:') ? parseTcp(text.slice('tcp:'.length)) : null;
  if (tcp === null) throw new ControlError('INVALID', `${text} is no NBD address; ${FORMS}`);
  if (!isLoopback(tcp.host)) {
    const why = 'NBD has no users and no encryption here, so TCP is served on loopback only';
    throw new ControlError('INVALID', `${text}: ${why}; use tcp:127.0.0.1:${tcp.port} and a tunnel`);
  }
  return { kind: 'tcp', ...tcp };
}

/**
 * Metrics say what everybody does here, and there are no users either.
 * @throws {ControlError} INVALID
 */
export function parseMetricsAddress(text: string): TcpAddress {
  const tcp = parseTcp(text);
  if (tcp === null)
    throw new ControlError('INVALID', `${text} is no address for metrics; write 127.0.0.1:9187 or [::1]:9187`);
  if (!isLoopback(tcp.host)) {
    const why = 'metrics are served on loopback only, for whoever asks';
    throw new ControlError('INVALID', `${text}: ${why}; use 127.0.0.1:${tcp.port} and a tunnel, or the control socket`);
  }
  return tcp;
}

/** where users are served unless told otherwise */
export const HTTP_DEFAULT = '127.0.0.1:8780';
const NAME_BYTES_MAX = 253;

/**
 * @returns null for `none`
 * @throws {ControlError} INVALID
 */
export function parseHttpAddress(text: string): TcpAddress | null {
  if (text === 'none') return null;
  const tcp = parseTcp(text);
  if (tcp === null || tcp.host.length > NAME_BYTES_MAX)
    throw new ControlError('INVALID', `${text} is no address for HTTP; write ${HTTP_DEFAULT}, [::1]:8780 or none`);
  return tcp;
}

/**
 * What clients from elsewhere reach the daemon by; services are paths below it.
 * @throws {ControlError} INVALID
 */
export function parsePublicUrl(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  // in `href` also a ? or # with nothing behind it, to which a path could not be added
  const isPlain = url && /^https?:[^?#]*$/.test(url.href) && !url.username && !url.password;
  if (!isPlain || text.length > 1024)
    throw new ControlError('INVALID', `${text} is no public URL; write https://cloud.example.org or the like`);
  return url.href.replace(/\/+$/, '');
}

function parseTcp(text: string): TcpAddress | null {
  const match = TCP.exec(text);
  const port = Number(match?.groups?.port);
  if (!match || port > 65535) return null;
  const host = match.groups?.v6 ?? match.groups?.host ?? '';
  return { host: host === 'localhost' ? '127.0.0.1' : host, port };
}

export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true;
  return net.isIPv4(host) && host.startsWith('127.');
}

export function formatNbdAddress(address: NbdAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`;
  return address.host.includes(':') ? `tcp:[${address.host}]:${address.port}` : `tcp:${address.host}:${address.port}`;
}
