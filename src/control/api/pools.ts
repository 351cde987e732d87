/** /v1/pools */
import fs from 'node:fs';
import path from 'node:path';
import { checkName } from '../../xseg/names.ts';
import { ControlError } from '../errors.ts';
import { checkNewName, howToShow } from './checks.ts';
import type { Api, ApiContext } from './context.ts';
import * as schemas from './schemas.ts';

export function poolRoutes(app: Api, { engine, mounts }: ApiContext): void {
  app.get('/v1/pools', { schema: { querystring: schemas.NoQuery } }, async () => ({ pools: await engine.listPools() }));

  app.post('/v1/pools', { schema: { body: schemas.PoolCreate } }, async (request, reply) => {
    checkNewName('pool', request.body.name);
    // The daemon's working directory is nobody's business: a relative path would mean another place to each.
    if (!path.isAbsolute(request.body.path)) throw new ControlError('INVALID', 'the path of a pool has to be absolute');
    // before anything looks at it: on this thread that would wait for itself
    await mounts.refuseInside(request.body.path);
    refuseMissingDevice(request.body.path);
    reply.code(201);
    return engine.createPool(request.body);
  });

  app.get(
    '/v1/pools/:pool',
    { schema: { params: schemas.PoolParams, querystring: schemas.ShowQuery } },
    async (request) => {
      checkName('pool', request.params.pool);
      return engine.showPool(request.params.pool, howToShow(request.query));
    },
  );

  app.post(
    '/v1/pools/:pool/grow',
    { schema: { params: schemas.PoolParams, body: schemas.PoolGrow } },
    async (request) => {
      checkName('pool', request.params.pool);
      return engine.growPool(request.params.pool, request.body.size);
    },
  );

  app.post(
    '/v1/pools/:pool/set',
    { schema: { params: schemas.PoolParams, body: schemas.PoolSet } },
    async (request) => {
      checkName('pool', request.params.pool);
      return engine.setPool(request.params.pool, request.body);
    },
  );
}

/** A device's name with a typo in it must not become a file in /dev, which is memory. */
function refuseMissingDevice(given: string): void {
  const normal = path.normalize(given);
  if (!normal.startsWith('/dev/') || normal.startsWith('/dev/shm/') || fs.existsSync(normal)) return;
  throw new ControlError('NOT_FOUND', `there is no device ${given}`);
}
