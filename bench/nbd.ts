/**
 * A small pipelining NBD client (fixed newstyle, GO, simple replies), for what fio cannot do: writes at chosen places,
 * a log of what was acknowledged, many idle connections. The end-to-end tests use it too.
 *
 * Protocol: doc/proto.md of NetworkBlockDevice/nbd.
 */
import net from 'node:net';

const NBDMAGIC = 0x4e42444d41474943n;
const IHAVEOPT = 0x49484156454f5054n;
const REPLY_MAGIC_OPTION = 0x3e889045565a9n;
const REQUEST_MAGIC = 0x25609513;
const REPLY_MAGIC_SIMPLE = 0x67446698;

const FLAG_FIXED_NEWSTYLE = 1;
const FLAG_NO_ZEROES = 2;
const OPT_GO = 7;
const REP_ACK = 1;
const REP_INFO = 3;
const INFO_EXPORT = 0;

export const CMD = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, cache: 5, writeZeroes: 6 } as const;
export const CMD_FLAG = { fua: 1, noHole: 2, fastZero: 16 } as const;

const REQUEST_BYTES = 28;
const REPLY_BYTES = 16;
/** No option reply that we ask for is longer. */
const OPTION_REPLY_BYTES_MAX = 65_536;

/** The server answered with an error. */
export class NbdError extends Error {
  constructor(
    readonly errno: number,
    what: string,
  ) {
    super(`${what}: NBD error ${errno}`);
    this.name = 'NbdError';
  }
}

/** The connection ended while something was on its way; whether that was done is not known. */
export class NbdClosed extends Error {
  constructor(cause: string) {
    super(`NBD connection closed: ${cause}`);
    this.name = 'NbdClosed';
  }
}

interface Pending {
  /** where the bytes of a read go */
  into: Buffer | null;
  what: string;
  resolve: () => void;
  reject: (error: Error) => void;
}

export class NbdClient {
  size = 0;
  flags = 0;
  private readonly pending = new Map<number, Pending>();
  private cookie = 0;
  private failure: Error | null = null;
  private readonly received: Buffer[] = [];
  private receivedBytes = 0;
  private wanted: { bytes: number; resolve: (buffer: Buffer) => void; reject: (error: Error) => void } | null = null;
  private transmission = false;

  private constructor(private readonly socket: net.Socket) {
    socket.on('data', (chunk: Buffer) => this.onData(chunk));
    socket.on('error', (error) => this.fail(error.message));
    socket.on('close', () => this.fail('the server hung up'));
  }

  /** Connects to an export on a unix socket. */
  static async connect(path: string, name: string): Promise<NbdClient> {
    const socket = net.connect(path);
    const client = new NbdClient(socket);
    try {
      await client.negotiate(name);
    } catch (error) {
      socket.destroy();
      throw error;
    }
    return client;
  }

  /** Requests that were sent and not answered. */
  get inFlight(): number {
    return this.pending.size;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const into = Buffer.allocUnsafe(length);
    await this.request(CMD.read, 0, offset, length, null, into);
    return into;
  }

  write(offset: number, data: Buffer, flags = 0): Promise<void> {
    return this.request(CMD.write, flags, offset, data.length, data, null);
  }

  flush(): Promise<void> {
    return this.request(CMD.flush, 0, 0, 0, null, null);
  }

  trim(offset: number, length: number, flags = 0): Promise<void> {
    return this.request(CMD.trim, flags, offset, length, null, null);
  }

  writeZeroes(offset: number, length: number, flags = 0): Promise<void> {
    return this.request(CMD.writeZeroes, flags, offset, length, null, null);
  }

  /** Says good-bye and closes; requests on their way should have been waited for. */
  async close(): Promise<void> {
    if (this.failure) return;
    const closed = new Promise<void>((resolve) => this.socket.once('close', () => resolve()));
    this.socket.end(this.header(CMD.disconnect, 0, 0, 0));
    await closed;
  }

  /** Cuts the connection. */
  destroy(): void {
    this.socket.destroy();
  }

  private header(command: number, flags: number, offset: number, length: number): Buffer {
    const header = Buffer.allocUnsafe(REQUEST_BYTES);
    this.cookie = (this.cookie + 1) >>> 0;
    header.writeUInt32BE(REQUEST_MAGIC, 0);
    header.writeUInt16BE(flags, 4);
    header.writeUInt16BE(command, 6);
    header.writeUInt32BE(0, 8);
    header.writeUInt32BE(this.cookie, 12);
    header.writeBigUInt64BE(BigInt(offset), 16);
    header.writeUInt32BE(length, 24);
    return header;
  }

  private request(
    command: number,
    flags: number,
    offset: number,
    length: number,
    payload: Buffer | null,
    into: Buffer | null,
  ): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    const header = this.header(command, flags, offset, length);
    const what = `command ${command} at ${offset}, ${length} bytes`;
    return new Promise((resolve, reject) => {
      this.pending.set(this.cookie, { into, what, resolve, reject });
      if (payload) {
        this.socket.cork();
        this.socket.write(header);
        this.socket.write(payload);
        this.socket.uncork();
      } else {
        this.socket.write(header);
      }
    });
  }

  private async negotiate(name: string): Promise<void> {
    const greeting = await this.take(18);
    if (greeting.readBigUInt64BE(0) !== NBDMAGIC || greeting.readBigUInt64BE(8) !== IHAVEOPT) {
      throw new Error('not a newstyle NBD server');
    }
    const offered = greeting.readUInt16BE(16);
    if ((offered & FLAG_FIXED_NEWSTYLE) === 0) throw new Error('the server is not fixed newstyle');
    const hello = Buffer.alloc(4);
    hello.writeUInt32BE(FLAG_FIXED_NEWSTYLE | (offered & FLAG_NO_ZEROES), 0);

    const bytes = Buffer.from(name, 'utf8');
    const option = Buffer.alloc(16 + 4 + bytes.length + 2);
    option.writeBigUInt64BE(IHAVEOPT, 0);
    option.writeUInt32BE(OPT_GO, 8);
    option.writeUInt32BE(4 + bytes.length + 2, 12);
    option.writeUInt32BE(bytes.length, 16);
    bytes.copy(option, 20);
    this.socket.write(Buffer.concat([hello, option]));

    for (;;) {
      const head = await this.take(20);
      if (head.readBigUInt64BE(0) !== REPLY_MAGIC_OPTION) throw new Error('bad magic in an option reply');
      const type = head.readUInt32BE(12);
      const length = head.readUInt32BE(16);
      if (length > OPTION_REPLY_BYTES_MAX) throw new Error(`option reply of ${length} bytes`);
      const payload = length > 0 ? await this.take(length) : Buffer.alloc(0);
      if (type === REP_INFO && payload.readUInt16BE(0) === INFO_EXPORT) {
        this.size = Number(payload.readBigUInt64BE(2));
        this.flags = payload.readUInt16BE(10);
      } else if (type === REP_ACK) {
        break;
      } else if (type >= 0x80000000) {
        throw new NbdError(type - 0x80000000, `export ${name} refused: ${payload.toString('utf8')}`);
      }
    }
    this.transmission = true;
    this.drain();
  }

  /** The next `bytes` bytes of the negotiation. */
  private take(bytes: number): Promise<Buffer> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      this.wanted = { bytes, resolve, reject };
      this.drain();
    });
  }

  private onData(chunk: Buffer): void {
    this.received.push(chunk);
    this.receivedBytes += chunk.length;
    this.drain();
  }

  private drain(): void {
    if (!this.transmission) {
      if (this.wanted && this.receivedBytes >= this.wanted.bytes) {
        const { bytes, resolve } = this.wanted;
        this.wanted = null;
        resolve(this.consume(bytes));
      }
      return;
    }
    while (this.receivedBytes >= REPLY_BYTES) {
      const head = this.peek(REPLY_BYTES);
      if (head.readUInt32BE(0) !== REPLY_MAGIC_SIMPLE) {
        this.fail(`bad reply magic ${head.readUInt32BE(0).toString(16)}`);
        return;
      }
      const cookie = head.readUInt32BE(12);
      const pending = this.pending.get(cookie);
      if (!pending) {
        this.fail(`reply to ${cookie}, which was not asked`);
        return;
      }
      const error = head.readUInt32BE(4);
      const payload = error === 0 && pending.into ? pending.into.length : 0;
      if (this.receivedBytes < REPLY_BYTES + payload) return;
      this.consume(REPLY_BYTES);
      if (payload > 0) this.consume(payload).copy(pending.into!);
      this.pending.delete(cookie);
      if (error === 0) pending.resolve();
      else pending.reject(new NbdError(error, pending.what));
    }
  }

  private peek(bytes: number): Buffer {
    const first = this.received[0]!;
    if (first.length >= bytes) return first.subarray(0, bytes);
    const whole = Buffer.concat(this.received);
    this.received.length = 0;
    this.received.push(whole);
    return whole.subarray(0, bytes);
  }

  private consume(bytes: number): Buffer {
    if (bytes === 0) return Buffer.alloc(0);
    this.peek(bytes);
    const first = this.received[0]!;
    if (first.length === bytes) this.received.shift();
    else this.received[0] = first.subarray(bytes);
    this.receivedBytes -= bytes;
    return first.subarray(0, bytes);
  }

  private fail(cause: string): void {
    if (this.failure) return;
    const failure = new NbdClosed(cause);
    this.failure = failure;
    this.wanted?.reject(failure);
    this.wanted = null;
    for (const pending of this.pending.values()) pending.reject(failure);
    this.pending.clear();
    this.socket.destroy();
  }
}
