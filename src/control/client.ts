/** HTTP over the control socket, as commands use it. */
import http from 'node:http';
import readline from 'node:readline';
import { ControlError, type ErrorBody, isErrorCode } from './errors.ts';
import { checkSocketPath } from './home.ts';

/** an answer that is one document is at most this long: a list of a hundred thousand volumes is 40 MB */
const ANSWER_BYTES_MAX = 512 << 20;
/** has what is in `cloud/operator.key`: who may use the socket is not by that an administrator of the cloud */
export const OPERATOR_HEADER = 'x-atoll-operator';
const JSON_TYPE = 'application/json';
const BYTES_TYPE = 'application/octet-stream';
/** how a message begins that says that nothing listens at all */
export const NOBODY = 'no daemon at';

export interface ClientOptions {
  socket: string;
  /** how to start the daemon that is missing: said when nothing answers */
  startHint: string;
}

/** Joins a path of names, each percent-encoded. */
export function route(...parts: string[]): string {
  return `/v1/${parts.map(encodeURIComponent).join('/')}`;
}

export function withQuery(target: string, query: Record<string, string | number | boolean | undefined>): string {
  const words: string[] = [];
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined) words.push(`${key}=${encodeURIComponent(String(value))}`);
  }
  return words.length === 0 ? target : `${target}?${words.join('&')}`;
}

export class ControlClient {
  private readonly options: ClientOptions;

  constructor(options: ClientOptions) {
    checkSocketPath(options.socket);
    this.options = options;
  }

  get<T>(target: string): Promise<T> {
    return this.call<T>('GET', target);
  }

  post<T>(target: string, body: unknown = {}, headers: Record<string, string> = {}): Promise<T> {
    return this.call<T>('POST', target, body, headers);
  }

  /** Bytes, as they are. */
  upload<T>(target: string, bytes: Uint8Array): Promise<T> {
    return this.call<T>('POST', target, bytes);
  }

  async delete(target: string): Promise<void> {
    await this.call<null>('DELETE', target);
  }

  /** Answers of several documents, one a line. Leaving the loop ends the connection. */
  async *lines(target: string, body: unknown = {}): AsyncGenerator<Record<string, unknown>> {
    const response = await this.send('POST', target, body);
    if (response.statusCode !== 200) throw errorOf(response.statusCode ?? 0, await collect(response));
    try {
      for await (const line of readline.createInterface({ input: response })) {
        if (line === '') continue;
        const value = parse(line) as Record<string, unknown>;
        if (value.error) throw remoteError(value);
        yield value;
      }
    } catch (error) {
      if (error instanceof ControlError) throw error;
      throw this.lost(error as Error);
    } finally {
      response.destroy();
    }
  }

  private async call<T>(
    method: string,
    target: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<T> {
    const response = await this.send(method, target, body, headers);
    const text = await collect(response).catch((error: Error) => {
      throw error instanceof ControlError ? error : this.lost(error);
    });
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw errorOf(status, text);
    return (text === '' ? null : parse(text)) as T;
  }

  private send(
    method: string,
    target: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<http.IncomingMessage> {
    const raw = body instanceof Uint8Array;
    const payload = body === undefined || raw ? body : JSON.stringify(body);
    return new Promise((resolve, reject) => {
      const request = http.request({
        socketPath: this.options.socket,
        method,
        path: target,
        agent: false,
        headers:
          payload === undefined
            ? headers
            : {
                ...headers,
                'content-type': raw ? BYTES_TYPE : JSON_TYPE,
                'content-length': Buffer.byteLength(payload),
              },
      });
      request.once('response', resolve);
      request.once('error', (error) => reject(this.lost(error)));
      request.end(payload);
    });
  }

  private lost(error: Error): ControlError {
    const { code } = error as { code?: string };
    const { socket, startHint } = this.options;
    if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') {
      return new ControlError('NO_DAEMON', `${NOBODY} ${socket}; start one with \`${startHint}\``);
    }
    if (code === 'EACCES' || code === 'EPERM') {
      return new ControlError(
        'DENIED',
        `${socket}: permission denied; run as the daemon's user, or see --socket-group`,
      );
    }
    return new ControlError('NO_DAEMON', `the daemon at ${socket} went away (${error.message}); its log says why`);
  }
}

async function collect(response: http.IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > ANSWER_BYTES_MAX) throw new ControlError('PROTOCOL', 'the daemon sent an answer beyond every bound');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new ControlError('PROTOCOL', 'what answers on the control socket is no Atoll daemon (its answer is no JSON)');
  }
}

function errorOf(status: number, text: string): ControlError {
  return remoteError(parse(text)) ?? new ControlError('PROTOCOL', `the daemon answered with status ${status}`);
}

function remoteError(value: unknown): ControlError {
  const { error } = (value ?? {}) as Partial<ErrorBody>;
  const message = String(error?.message ?? 'no reason given');
  // A newer daemon may know codes that we do not.
  return new ControlError(isErrorCode(error?.code) ? error.code : 'INTERNAL', message);
}
