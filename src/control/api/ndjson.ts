/** An answer of several JSON documents, one a line, sent as they come. Errors after the first line are a line of their own. */
import type { FastifyReply } from 'fastify';

export class NdjsonReply {
  constructor(private readonly reply: FastifyReply) {
    for (const [name, value] of Object.entries(reply.getHeaders())) {
      if (value !== undefined) reply.raw.setHeader(name, value);
    }
    reply.hijack();
    reply.raw.writeHead(200, { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' });
    reply.raw.flushHeaders();
  }

  send(value: unknown): void {
    if (this.reply.raw.writable) this.reply.raw.write(`${JSON.stringify(value)}\n`);
  }

  end(value?: unknown): void {
    if (value !== undefined) this.send(value);
    this.reply.raw.end();
  }

  /** `gone` runs when the connection ends, whoever ended it. */
  onClose(gone: () => void): void {
    if (this.reply.raw.destroyed || this.reply.raw.writableEnded) gone();
    else this.reply.raw.once('close', gone);
  }
}
