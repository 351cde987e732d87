/** /v1/ingests: see ingests.ts in the folder above. An ingest lives as long as the answer that began it. */
import type { Readable } from 'node:stream';
import { ControlError } from '../errors.ts';
import { checkNewName } from './checks.ts';
import type { Api, ApiContext } from './context.ts';
import { NdjsonReply } from './ndjson.ts';
import * as schemas from './schemas.ts';

/** of one request: what does not arrive within its time is given up */
export const INGEST_BODY_BYTES_MAX = 16 * 1024 * 1024;

const params = schemas.IngestParams;

export function ingestRoutes(app: Api, { ingests, mounts, log }: ApiContext, bodyMax: number): void {
  app.post('/v1/ingests', { schema: { body: schemas.IngestBegin } }, async (request, reply) => {
    checkNewName('volume', request.body.volume);
    checkNewName('snapshot', request.body.snapshot);
    let lines: NdjsonReply | null = null;
    const { file, ...spec } = request.body;
    // a file of one of our own mounts is sent: who reads it would wait for himself
    const ours = file !== undefined && (await mounts.isInside(file.path));
    const ingest = await ingests.begin(spec, ours ? undefined : file, (outcome) => lines?.end({ ended: outcome }));
    const open = new NdjsonReply(reply);
    lines = open;
    open.send({ ingest });
    open.onClose(() => {
      ingests.abort(ingest.id).catch((error: Error) => {
        log('error', 'ingest.abort', { id: ingest.id, message: error.message });
      });
    });
  });

  void app.register(async (scope) => {
    scope.removeAllContentTypeParsers();
    scope.addContentTypeParser('application/octet-stream', (_request, payload, done) => done(null, payload));
    scope.post(
      '/v1/ingests/:ingest/bytes',
      { schema: { params: schemas.IngestParams, querystring: schemas.IngestBytesQuery } },
      async (request) => {
        const { ingest } = request.params as { ingest: string };
        const { offset } = request.query as { offset: string };
        return ingests.put(ingest, Number(offset), bounded(request.body as Readable | null, bodyMax));
      },
    );
  });

  app.post('/v1/ingests/:ingest/file', { schema: { params, body: schemas.IngestRead } }, async (request) =>
    ingests.read(request.params.ingest, request.body.offset, request.body.length),
  );

  app.post('/v1/ingests/:ingest/commit', { schema: { params, body: schemas.IngestCommit } }, async (request) =>
    ingests.commit(request.params.ingest, request.body?.size),
  );
}

/** @throws when it ends before it is whole, or is too long */
async function* bounded(body: Readable | null, bodyMax: number): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  let length = 0;
  for await (const piece of body as AsyncIterable<Uint8Array>) {
    length += piece.length;
    if (length > bodyMax) throw new ControlError('BODY_TOO_LARGE', `one request brings at most ${bodyMax} bytes`);
    yield piece;
  }
}
