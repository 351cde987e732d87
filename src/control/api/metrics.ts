/** /metrics and /v1/activity */
import type { Api, ApiContext } from './context.ts';
import * as schemas from './schemas.ts';

export function metricsRoutes(app: Api, { engine, metrics }: ApiContext): void {
  app.get('/metrics', { schema: { querystring: schemas.NoQuery } }, async (_request, reply) => {
    const page = await metrics.page();
    return reply.type(metrics.contentType).send(page);
  });

  app.get('/v1/activity', { schema: { querystring: schemas.NoQuery } }, async () => engine.activity());
}
