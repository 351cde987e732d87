/** /v1/status, /v1/check, /v1/backup, /v1/diff */
import path from 'node:path';
import { backupHome } from '../backup.ts';
import { cloudFolder } from '../catalog/operator-files.ts';
import { ControlError, describeError } from '../errors.ts';
import { checkResourceName } from './checks.ts';
import type { Api, ApiContext } from './context.ts';
import { NdjsonReply } from './ndjson.ts';
import { requestFailed } from './request-log.ts';
import * as schemas from './schemas.ts';

/** progress lines of a check: at most one in this time */
const PROGRESS_MS = 200;

export function daemonRoutes(app: Api, context: ApiContext): void {
  const { engine, transfers, mounts, sockets } = context;
  app.get('/v1/status', { schema: { querystring: schemas.NoQuery } }, async () => ({
    ...(await engine.status()),
    sockets: sockets(),
    transfers: transfers.count,
  }));

  app.get('/v1/diff', { schema: { querystring: schemas.DiffQuery } }, async ({ query: { from, to, offset, max } }) =>
    engine.diff(checkResourceName(from), checkResourceName(to), {
      offset: Number(offset ?? 0),
      max: Math.min(Math.max(1, Number(max ?? schemas.DIFF_PAGE_MAX)), schemas.DIFF_PAGE_MAX),
    }),
  );

  app.post('/v1/backup', { schema: { body: schemas.Backup } }, async (request, reply) => {
    if (!path.isAbsolute(request.body.path))
      throw new ControlError('INVALID', 'the path of a backup has to be absolute');
    await mounts.refuseInside(request.body.path);
    reply.code(201);
    const { home } = await engine.status();
    return backupHome(engine, context.catalog?.() ?? null, cloudFolder(home), request.body.path);
  });

  app.post('/v1/check', { schema: { body: schemas.Nothing } }, async (request, reply) => {
    const lines = new NdjsonReply(reply);
    const gone = new AbortController();
    lines.onClose(() => gone.abort());
    let last = 0;
    try {
      const report = await engine.check((done, total) => {
        const now = Date.now();
        if (now - last < PROGRESS_MS && done < total) return;
        last = now;
        lines.send({ progress: { done, total } });
      }, gone.signal);
      lines.end({ report });
    } catch (error) {
      requestFailed(request, error);
      lines.end({ error: describeError(error) });
    }
  });
}
