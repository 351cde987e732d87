/** A service for tests, made as every other is: it counts what it is sent, and sends what it is asked for. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { FastifyRequest } from 'fastify';
import type { Http } from '../../../src/frontends/http/context.ts';
import type { IdentityContext } from '../../../src/frontends/http/identity/identity-context.ts';
import type { Service } from '../../../src/frontends/http/service.ts';
import { Microversion, microversionOf, sessionOf, streamed, streamOf } from './cloud.ts';

export const THING_BYTES_MAX = 2 ** 30;
const CHUNK = Buffer.alloc(65_536, 'atoll');

/** What a test sees of the service, and makes it wait with. */
export class Things {
  /** bytes that the connection of the last upload has brought so far */
  arrived: () => number = () => 0;
  /** bytes that the last download was made of so far */
  sent = 0;
  /** how uploads and downloads that failed did */
  readonly failures: string[] = [];
  /** uploads begin to read when this is done */
  before: Promise<void> = Promise.resolve();

  /** as new, for the next test */
  reset(): void {
    this.before = Promise.resolve();
    this.failures.length = 0;
    this.arrived = () => 0;
  }

  readonly service: Service = {
    type: 'thing',
    mount: '/thing',
    open: new Set(['GET /']),
    microversions: { name: 'thing', min: new Microversion(3, 0), max: new Microversion(3, 12) },
    routes: (app, identity) => this.#routes(app, identity),
  };

  #routes(app: Http, { catalog }: IdentityContext): void {
    app.get('/v3/version', async (request) => ({ version: String(microversionOf(request)) }));
    app.get('/v3/new', { config: { from: new Microversion(3, 5) } }, async () => ({}));
    app.get('/v3/old', { config: { upTo: new Microversion(3, 4) } }, async () => ({}));
    app.post('/v3/things', async (request) => ({ got: request.body ?? null }));

    app.get('/v3/things/:bytes', async (request, reply) => {
      let left = Number((request.params as { bytes: string }).bytes);
      this.sent = 0;
      const source = new Readable({
        read: () => {
          const chunk = CHUNK.subarray(0, left);
          left -= chunk.length;
          this.sent += chunk.length;
          source.push(chunk.length === 0 ? null : chunk);
        },
        destroy: (error, done) => {
          if (left > 0) this.failures.push('download');
          done(error);
        },
      });
      return reply.type('application/octet-stream').header('content-length', left).send(source);
    });

    streamed(app, (inner) => {
      inner.put('/v3/things/:id', { bodyLimit: THING_BYTES_MAX }, (request) => this.#upload(request));
      inner.put('/v3/small/:id', { bodyLimit: 1000 }, (request) => this.#upload(request));
      // Counted before anything of it comes.
      inner.put('/v3/counted/:id', { bodyLimit: THING_BYTES_MAX }, async (request) => {
        const { project, userId } = sessionOf(request);
        const holder = { projectId: project!.id, userId };
        const bytes = Number(request.headers['content-length'] ?? 1);
        return catalog.quotas.within(holder, { objects: 1, object_bytes: bytes }, async () => {
          return { result: await this.#upload(request), changes: [] };
        });
      });
    });
  }

  async #upload(request: FastifyRequest): Promise<{ bytes: number; sha256: string }> {
    this.arrived = () => request.raw.socket.bytesRead;
    const hash = createHash('sha256');
    let bytes = 0;
    await this.before;
    try {
      for await (const chunk of streamOf(request) ?? []) {
        hash.update(chunk as Buffer);
        bytes += (chunk as Buffer).length;
      }
    } catch (error) {
      this.failures.push((error as Error).message);
      throw error;
    }
    return { bytes, sha256: hash.digest('hex') };
  }
}

/** What a download of so many bytes is. */
export function contentOf(bytes: number): Buffer {
  return Buffer.alloc(bytes, CHUNK);
}

export function sha256(content: Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
