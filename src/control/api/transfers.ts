/** /v1/transfers: see transfers.ts in the folder above. A transfer lives as long as the answer that began it. */
import type { TransferSpec } from '../transfers.ts';
import { checkNewName, checkVolumeName, checkVolumeSize } from './checks.ts';
import type { Api, ApiContext } from './context.ts';
import { NdjsonReply } from './ndjson.ts';
import * as schemas from './schemas.ts';

const params = schemas.TransferParams;

export function transferRoutes(app: Api, { transfers, log }: ApiContext): void {
  app.post('/v1/transfers', { schema: { body: schemas.TransferBegin } }, async (request, reply) => {
    checkSpec(request.body);
    let lines: NdjsonReply | null = null;
    let early: string | null = null;
    const transfer = await transfers.begin(request.body, (outcome) => {
      if (lines) lines.end({ ended: outcome });
      else early = outcome;
    });
    const open = new NdjsonReply(reply);
    lines = open;
    open.send({ transfer });
    if (early !== null) return open.end({ ended: early });
    open.onClose(() => {
      transfers.abort(transfer.id).catch((error: Error) => {
        log('error', 'transfer.abort', { id: transfer.id, message: error.message });
      });
    });
  });

  app.post('/v1/transfers/:transfer/resize', { schema: { params, body: schemas.Resize } }, async (request) =>
    transfers.resize(request.params.transfer, checkVolumeSize(request.body.size)),
  );

  app.post('/v1/transfers/:transfer/commit', { schema: { params, body: schemas.Nothing } }, async (request) =>
    transfers.commit(request.params.transfer),
  );
}

function checkSpec(spec: TransferSpec): void {
  if (spec.kind === 'create') {
    checkNewName('volume', spec.name);
    checkVolumeSize(spec.size);
  } else {
    checkVolumeName(spec.volume);
  }
}
