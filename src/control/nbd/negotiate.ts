/** The handshake of an NBD client, up to the first request. */
import type { Socket } from 'node:net';
import { ControlError } from '../errors.ts';
import * as proto from './protocol.ts';
import type { SocketReader } from './socket-reader.ts';

export interface ExportFacts {
  size: number;
  flags: number;
  payloadMax: number;
  structured: boolean;
  /** the server's id of the metadata context; null: it has none */
  contextId: number | null;
}

interface OptionReply {
  type: number;
  body: Buffer;
}

export async function negotiate(
  socket: Socket,
  input: SocketReader,
  exportName: string,
  context: string,
): Promise<ExportFacts> {
  const greeting = await input.take(18);
  if (greeting.readBigUInt64BE(0) !== proto.NBD_MAGIC || greeting.readBigUInt64BE(8) !== proto.OPTION_MAGIC) {
    throw new Error('what answers is no NBD server of the newstyle kind');
  }
  const flags = greeting.readUInt16BE(16);
  if ((flags & proto.FLAG_FIXED_NEWSTYLE) === 0) throw new Error('the NBD server is too old (no fixed newstyle)');
  const own = Buffer.alloc(4);
  own.writeUInt32BE(proto.FLAG_FIXED_NEWSTYLE | (flags & proto.FLAG_NO_ZEROES));
  socket.write(own);

  const structured = await acknowledged(socket, input);
  const contextId = structured ? await setContext(socket, input, exportName, context) : null;
  return { ...(await go(socket, input, exportName)), structured, contextId };
}

async function acknowledged(socket: Socket, input: SocketReader): Promise<boolean> {
  sendOption(socket, proto.OPTION.structuredReply, Buffer.alloc(0));
  const reply = await optionReply(input, proto.OPTION.structuredReply);
  if (reply.type === proto.REPLY.ack) return true;
  if (reply.type >= proto.REPLY_ERROR) return false;
  throw new Error('the NBD server answered out of turn');
}

/** @returns the context's id, or null when the server has no such context */
async function setContext(
  socket: Socket,
  input: SocketReader,
  exportName: string,
  context: string,
): Promise<number | null> {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(1);
  sendOption(socket, proto.OPTION.setMetaContext, Buffer.concat([withLength(exportName), count, withLength(context)]));
  let id: number | null = null;
  for (let replies = 0; replies < proto.OPTION_REPLIES_MAX; replies++) {
    const { type, body } = await optionReply(input, proto.OPTION.setMetaContext);
    if (type === proto.REPLY.ack) return id;
    if (type === proto.REPLY_ERROR_UNKNOWN) throw unknownExport(exportName);
    if (type >= proto.REPLY_ERROR) return null;
    if (type !== proto.REPLY.metaContext || body.length < 4) throw new Error('the NBD server answered out of turn');
    if (body.toString('utf8', 4) === context) id = body.readUInt32BE(0);
  }
  throw new Error('the NBD server does not stop answering');
}

async function go(
  socket: Socket,
  input: SocketReader,
  exportName: string,
): Promise<Pick<ExportFacts, 'size' | 'flags' | 'payloadMax'>> {
  const wanted = Buffer.alloc(4);
  wanted.writeUInt16BE(1, 0);
  wanted.writeUInt16BE(proto.INFO.blockSize, 2);
  sendOption(socket, proto.OPTION.go, Buffer.concat([withLength(exportName), wanted]));
  let facts: { size: number; flags: number } | null = null;
  let payloadMax = proto.PAYLOAD_DEFAULT;
  for (let replies = 0; replies < proto.OPTION_REPLIES_MAX; replies++) {
    const { type, body } = await optionReply(input, proto.OPTION.go);
    if (type === proto.REPLY.ack) {
      if (!facts) throw new Error('the NBD server did not tell the size');
      return { ...facts, payloadMax };
    }
    if (type >= proto.REPLY_ERROR) throw optionError(type, body, exportName);
    if (type !== proto.REPLY.info || body.length < 2) throw new Error('the NBD server answered out of turn');
    const info = body.readUInt16BE(0);
    if (info === proto.INFO.export && body.length === 12) {
      const size = body.readBigUInt64BE(2);
      if (size > BigInt(Number.MAX_SAFE_INTEGER)) throw new Error('the NBD server tells an impossible size');
      facts = { size: Number(size), flags: body.readUInt16BE(10) };
    } else if (info === proto.INFO.blockSize && body.length === 14) {
      payloadMax = Math.min(proto.PAYLOAD_DEFAULT, Math.max(512, body.readUInt32BE(10)));
    }
  }
  throw new Error('the NBD server does not stop answering');
}

function sendOption(socket: Socket, option: number, data: Buffer): void {
  const head = Buffer.alloc(16);
  head.writeBigUInt64BE(proto.OPTION_MAGIC, 0);
  head.writeUInt32BE(option, 8);
  head.writeUInt32BE(data.length, 12);
  socket.write(Buffer.concat([head, data]));
}

async function optionReply(input: SocketReader, option: number): Promise<OptionReply> {
  const head = await input.take(20);
  if (head.readBigUInt64BE(0) !== proto.OPTION_REPLY_MAGIC || head.readUInt32BE(8) !== option) {
    throw new Error('the NBD server answered out of turn');
  }
  const length = head.readUInt32BE(16);
  if (length > proto.OPTION_REPLY_BYTES_MAX) throw new Error('the NBD server sent a reply beyond every bound');
  return { type: head.readUInt32BE(12), body: await input.take(length) };
}

function withLength(text: string): Buffer {
  const bytes = Buffer.from(text);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function unknownExport(exportName: string): ControlError {
  return new ControlError('NOT_FOUND', `there is no export ${JSON.stringify(exportName)}`);
}

function optionError(type: number, body: Buffer, exportName: string): ControlError {
  if (type === proto.REPLY_ERROR_UNKNOWN) return unknownExport(exportName);
  const code = type === proto.REPLY_ERROR_SHUTDOWN ? 'SHUTTING_DOWN' : 'PROTOCOL';
  const said = body.toString('utf8', 0, Math.min(body.length, 512));
  const why = said || proto.REPLY_ERROR_TEXT[type] || `error ${type - proto.REPLY_ERROR}`;
  return new ControlError(code, `cannot open export ${JSON.stringify(exportName)}: ${why}`);
}
