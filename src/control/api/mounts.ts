/** /v1/mounts */
import type { Api, ApiContext } from './context.ts';
import * as schemas from './schemas.ts';

export function mountRoutes(app: Api, { mounts }: ApiContext): void {
  app.get('/v1/mounts', { schema: { querystring: schemas.NoQuery } }, async () => ({ mounts: mounts.list() }));

  app.post('/v1/mounts', { schema: { body: schemas.MountCreate } }, async (request, reply) => {
    const info = await mounts.add({ path: request.body.path, allowOther: request.body.allowOther ?? false });
    reply.code(201);
    return info;
  });

  app.delete('/v1/mounts', { schema: { querystring: schemas.MountDeleteQuery } }, async (request, reply) => {
    await mounts.remove(request.query.path, request.query.lazy === 'true');
    return reply.code(204).send();
  });
}
