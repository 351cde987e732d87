/**
 * A small NBD client: what backups need and no more. Fixed newstyle, structured replies, block status, and any number of requests
 * on their way at once. Trusts no length that the server sends; a server that breaks the protocol ends the connection.
 */
import net from 'node:net';
import { ControlError, type ErrorCode } from '../errors.ts';
import { negotiate } from './negotiate.ts';
import * as proto from './protocol.ts';
import { SocketReader } from './socket-reader.ts';

/** a connection that is not made and negotiated by then is given up */
const CONNECT_MS_MAX = 30_000;
/** block status asks for at most this much at once: lengths are 32 bits wide, and we keep them whole sectors */
export const STATUS_BYTES_MAX = 2 ** 32 - 65536;
/** zeroes are written in pieces of at most this */
export const ZERO_BYTES_MAX = 1 << 30;
/** extents that one block status answer may have */
const STATUS_EXTENTS_MAX = 1 << 20;
/** longest error text that we repeat */
const ERROR_TEXT_MAX = 512;

export interface StatusExtent {
  length: number;
  /** flags of base:allocation, or of the context that was asked for */
  flags: number;
}

export interface NbdAddress {
  /** path of a unix socket */
  socket: string;
  exportName: string;
  /** metadata context for blockStatus(); default base:allocation */
  context?: string;
}

interface Pending {
  command: number;
  offset: number;
  length: number;
  /** read: filled; bytes that arrived are counted in `covered` */
  buffer: Buffer | null;
  covered: number;
  extents: StatusExtent[] | null;
  failure: ControlError | null;
  resolve: () => void;
  reject: (error: Error) => void;
}

export class NbdClient {
  readonly size: number;
  readonly readOnly: boolean;
  readonly payloadMax: number;
  /** false: the server has no such context, and blockStatus() may not be called */
  readonly hasStatus: boolean;
  private readonly pending = new Map<number, Pending>();
  private nextCookie = 1;
  private closing = false;
  private failure: ControlError | null = null;

  private constructor(
    private readonly socket: net.Socket,
    private readonly input: SocketReader,
    private readonly exportName: string,
    private readonly facts: Awaited<ReturnType<typeof negotiate>>,
  ) {
    this.size = facts.size;
    this.readOnly = (facts.flags & proto.EXPORT_FLAG.readOnly) !== 0;
    this.payloadMax = facts.payloadMax;
    this.hasStatus = facts.contextId !== null;
    void this.receive();
  }

  static async connect(address: NbdAddress): Promise<NbdClient> {
    const socket = net.connect({ path: address.socket });
    const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), CONNECT_MS_MAX);
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('connect', resolve);
        socket.once('error', reject);
      });
      const input = new SocketReader(socket);
      const facts = await negotiate(socket, input, address.exportName, address.context ?? 'base:allocation');
      return new NbdClient(socket, input, address.exportName, facts);
    } catch (error) {
      socket.destroy();
      if (error instanceof ControlError) throw error;
      const code = (error as { code?: string }).code;
      const gone = code === 'ENOENT' || code === 'ECONNREFUSED';
      throw new ControlError(gone ? 'NO_DAEMON' : 'PROTOCOL', `NBD at ${address.socket}: ${(error as Error).message}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** @param length 1..payloadMax */
  async read(offset: number, length: number): Promise<Buffer> {
    const buffer = Buffer.allocUnsafe(length);
    await this.request(proto.COMMAND.read, offset, length, { buffer });
    return buffer;
  }

  /** The data must stay as it is until this is answered. */
  async write(offset: number, data: Buffer): Promise<void> {
    await this.request(proto.COMMAND.write, offset, data.length, { payload: data });
  }

  /** Writes zeroes over any length; the server may unmap. */
  async zero(offset: number, length: number): Promise<void> {
    for (let at = 0; at < length; at += ZERO_BYTES_MAX) {
      await this.request(proto.COMMAND.writeZeroes, offset + at, Math.min(ZERO_BYTES_MAX, length - at), {});
    }
  }

  async flush(): Promise<void> {
    await this.request(proto.COMMAND.flush, 0, 0, {});
  }

  /**
   * @param length 1..STATUS_BYTES_MAX
   * @returns at least one extent, from `offset` on; they may cover less than `length`, and never more
   */
  async blockStatus(offset: number, length: number): Promise<StatusExtent[]> {
    if (!this.hasStatus) throw new ControlError('UNSUPPORTED', 'the NBD server does not tell what is allocated');
    const extents: StatusExtent[] = [];
    await this.request(proto.COMMAND.blockStatus, offset, length, { extents });
    return extents;
  }

  /** Says goodbye; resolves when the connection is gone. */
  async close(): Promise<void> {
    if (this.closing) return;
    this.closing = true;
    if (this.socket.destroyed) return;
    const closed = new Promise<void>((resolve) => this.socket.once('close', () => resolve()));
    this.socket.end(this.header(proto.COMMAND.disconnect, 0, 0, 0));
    this.socket.resume();
    const timer = setTimeout(() => this.socket.destroy(), 2_000);
    await closed;
    clearTimeout(timer);
  }

  private request(
    command: number,
    offset: number,
    length: number,
    parts: { buffer?: Buffer; payload?: Buffer; extents?: StatusExtent[] },
  ): Promise<void> {
    if (this.failure) return Promise.reject(this.failure);
    if (this.closing) return Promise.reject(new ControlError('INTERNAL', 'the NBD connection is closed'));
    const cookie = this.nextCookie;
    this.nextCookie = this.nextCookie === 0xffffffff ? 1 : this.nextCookie + 1;
    return new Promise<void>((resolve, reject) => {
      this.pending.set(cookie, {
        command,
        offset,
        length,
        buffer: parts.buffer ?? null,
        covered: 0,
        extents: parts.extents ?? null,
        failure: null,
        resolve,
        reject,
      });
      const head = this.header(command, cookie, offset, length);
      if (parts.payload) {
        this.socket.cork();
        this.socket.write(head);
        this.socket.write(parts.payload);
        this.socket.uncork();
      } else {
        this.socket.write(head);
      }
    });
  }

  private header(command: number, cookie: number, offset: number, length: number): Buffer {
    const head = Buffer.alloc(28);
    head.writeUInt32BE(proto.REQUEST_MAGIC, 0);
    head.writeUInt16BE(command, 6);
    head.writeUInt32BE(cookie, 12);
    head.writeBigUInt64BE(BigInt(offset), 16);
    head.writeUInt32BE(length, 24);
    return head;
  }

  // --- replies ---------------------------------------------------------------------------------------

  private async receive(): Promise<void> {
    try {
      for (;;) {
        const magic = (await this.input.take(4)).readUInt32BE(0);
        if (magic === proto.STRUCTURED_REPLY_MAGIC) await this.receiveChunk();
        else if (magic === proto.SIMPLE_REPLY_MAGIC) await this.receiveSimple();
        else throw new Error('the server sent what is no reply');
      }
    } catch (error) {
      this.fail(error as Error);
    }
  }

  private fail(error: Error): void {
    const text = `NBD export ${JSON.stringify(this.exportName)}: ${error.message}`;
    this.failure ??= new ControlError('PROTOCOL', text);
    this.socket.destroy();
    for (const pending of this.pending.values()) pending.reject(this.failure);
    this.pending.clear();
  }

  private find(cookieHigh: number, cookie: number): Pending {
    const pending = cookieHigh === 0 ? this.pending.get(cookie) : undefined;
    if (!pending) throw new Error('the server answered a request that was not made');
    return pending;
  }

  /** Throws, with the request still in the table, when the server broke its word: fail() then ends them all. */
  private finish(cookie: number, pending: Pending): void {
    if (pending.failure) {
      this.pending.delete(cookie);
      pending.reject(pending.failure);
      return;
    }
    if (pending.buffer && pending.covered !== pending.length) throw new Error('the server left out a part of a read');
    if (pending.extents?.length === 0) throw new Error('the server answered a block status with nothing');
    this.pending.delete(cookie);
    pending.resolve();
  }

  private async receiveSimple(): Promise<void> {
    const head = await this.input.take(12);
    const cookie = head.readUInt32BE(8);
    const pending = this.find(head.readUInt32BE(4), cookie);
    const errno = head.readUInt32BE(0);
    if (errno !== 0) {
      pending.failure = this.errorOf(errno, pending, '');
    } else if (pending.extents || (pending.buffer && this.facts.structured)) {
      throw new Error('the server sent a simple reply where a structured one is needed');
    } else if (pending.buffer) {
      await this.input.fill(pending.buffer);
      pending.covered = pending.length;
    }
    this.finish(cookie, pending);
  }

  private async receiveChunk(): Promise<void> {
    const head = await this.input.take(16);
    const flags = head.readUInt16BE(0);
    const type = head.readUInt16BE(2);
    const cookie = head.readUInt32BE(8);
    const pending = this.find(head.readUInt32BE(4), cookie);
    const length = head.readUInt32BE(12);
    if (type === proto.CHUNK.offsetData) await this.receiveData(pending, length);
    else if (type === proto.CHUNK.offsetHole) await this.receiveHole(pending, length);
    else if (type === proto.CHUNK.blockStatus) await this.receiveStatus(pending, length);
    else if ((type & proto.CHUNK_ERROR_BIT) !== 0) await this.receiveError(pending, length);
    else if (type !== proto.CHUNK.none || length !== 0) throw new Error(`the server sent a chunk of type ${type}`);
    if ((flags & proto.CHUNK_FLAG_DONE) !== 0) this.finish(cookie, pending);
  }

  /** @returns where in the buffer `length` bytes from the device's `offset` on belong */
  private place(pending: Pending, offset: bigint, length: number): Buffer {
    const at = Number(offset - BigInt(pending.offset));
    if (!pending.buffer || length === 0 || at < 0 || at > pending.length - length) {
      throw new Error('the server sent data that was not asked for');
    }
    pending.covered += length;
    return pending.buffer.subarray(at, at + length);
  }

  private async receiveData(pending: Pending, length: number): Promise<void> {
    if (length < 9) throw new Error('the server sent a data chunk without data');
    const offset = (await this.input.take(8)).readBigUInt64BE(0);
    await this.input.fill(this.place(pending, offset, length - 8));
  }

  private async receiveHole(pending: Pending, length: number): Promise<void> {
    if (length !== 12) throw new Error('the server sent a malformed hole');
    const body = await this.input.take(12);
    this.place(pending, body.readBigUInt64BE(0), body.readUInt32BE(8)).fill(0);
  }

  private async receiveStatus(pending: Pending, length: number): Promise<void> {
    const count = (length - 4) / 8;
    if (!pending.extents || !Number.isInteger(count) || count < 1 || count > STATUS_EXTENTS_MAX) {
      throw new Error('the server sent a malformed block status');
    }
    const body = await this.input.take(length);
    if (body.readUInt32BE(0) !== this.facts.contextId) throw new Error('the server sent the status of another context');
    let left = pending.length;
    for (let at = 4; at < length && left > 0; at += 8) {
      // The last extent may reach beyond what was asked for.
      const extent = Math.min(body.readUInt32BE(at), left);
      if (extent === 0) throw new Error('the server sent an empty extent');
      pending.extents.push({ length: extent, flags: body.readUInt32BE(at + 4) });
      left -= extent;
    }
  }

  private async receiveError(pending: Pending, length: number): Promise<void> {
    if (length < 6 || length > proto.STRING_MAX + 14) throw new Error('the server sent a malformed error');
    const body = await this.input.take(length);
    const textLength = body.readUInt16BE(4);
    if (textLength > length - 6) throw new Error('the server sent a malformed error');
    pending.failure ??= this.errorOf(
      body.readUInt32BE(0),
      pending,
      body.toString('utf8', 6, 6 + Math.min(textLength, ERROR_TEXT_MAX)),
    );
  }

  private errorOf(errno: number, pending: Pending, text: string): ControlError {
    const verb = VERBS[pending.command] ?? 'request';
    const name = proto.ERRNO_NAME[errno] ?? `error ${errno}`;
    const where = `${verb} of ${pending.length} bytes at ${pending.offset} of ${JSON.stringify(this.exportName)}`;
    return new ControlError(CODES[name] ?? 'IO', `${where}: ${text || MESSAGES[name] || name}`);
  }
}

const VERBS: Readonly<Record<number, string>> = {
  [proto.COMMAND.read]: 'read',
  [proto.COMMAND.write]: 'write',
  [proto.COMMAND.flush]: 'flush',
  [proto.COMMAND.writeZeroes]: 'zeroing',
  [proto.COMMAND.blockStatus]: 'block status',
};

const CODES: Readonly<Record<string, ErrorCode>> = {
  EPERM: 'READ_ONLY',
  EIO: 'IO',
  EINVAL: 'INVALID',
  ENOSPC: 'NO_SPACE',
  ENOTSUP: 'UNSUPPORTED',
  ESHUTDOWN: 'SHUTTING_DOWN',
};

const MESSAGES: Readonly<Record<string, string>> = {
  EPERM: 'not permitted (it is read-only)',
  EIO: 'input/output error',
  ENOSPC: 'the pool is full; delete something or grow it',
  ESHUTDOWN: 'the daemon is shutting down',
};
