/** A client that is a socket: it says what it is told to, when it is told to, and reads when it is told to. */
import net from 'node:net';
import tls from 'node:tls';

const POLL_MS = 10;
/** far beyond what anything takes */
const WAIT_MS_MAX = 60_000;

export class Wire {
  readonly #socket: net.Socket;
  #received: Buffer[] = [];
  closed = false;

  private constructor(port: number, isTls: boolean) {
    const at = { port, host: '127.0.0.1' };
    this.#socket = isTls ? tls.connect({ ...at, rejectUnauthorized: false }) : net.connect(at);
    this.#socket
      .on('data', (chunk) => this.#received.push(chunk))
      .on('error', () => undefined)
      .on('close', () => {
        this.closed = true;
      });
  }

  static async to(port: number, { isTls = false } = {}): Promise<Wire> {
    const wire = new Wire(port, isTls);
    await until('connected or closed', () => wire.closed || !wire.#socket.connecting);
    return wire;
  }

  /** A request's head. */
  head(method: string, path: string, headers: Record<string, string | number | undefined> = {}): this {
    const lines = Object.entries(headers).flatMap(([name, value]) =>
      value === undefined ? [] : `${name}: ${value}\r\n`,
    );
    return this.say(`${method} ${path} HTTP/1.1\r\nhost: x\r\n${lines.join('')}\r\n`);
  }

  say(text: string | Buffer): this {
    this.#socket.write(text);
    return this;
  }

  /** bytes that the kernel has not taken */
  get unsent(): number {
    return this.#socket.writableLength;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#received);
  }

  get text(): string {
    return this.bytes.toString('latin1');
  }

  /** the statuses of all answers so far */
  get statuses(): number[] {
    return [...this.text.matchAll(/HTTP\/1\.1 (\d+) /g)].map(([, status]) => Number(status));
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  end(): void {
    this.#socket.destroy();
  }

  answers(count: number): Promise<void> {
    return until(`${count} answers`, () => this.statuses.length >= count);
  }

  gone(): Promise<void> {
    return until('the connection closed', () => this.closed);
  }
}

/** Those of a test, which end with it. */
export class Wires {
  readonly #open: Wire[] = [];

  async to(port: number): Promise<Wire> {
    const wire = await Wire.to(port);
    this.#open.push(wire);
    return wire;
  }

  end(): void {
    for (const wire of this.#open.splice(0)) wire.end();
  }
}

export async function until(what: string, isSo: () => boolean | Promise<boolean>): Promise<void> {
  for (
    const end = Date.now() + WAIT_MS_MAX;
    Date.now() < end;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  )
    if (await isSo()) return;
  throw new Error(`waited in vain: ${what}`);
}
