/** /v1/snapshots and /v1/volumes/VOLUME/snapshots */
import { isHiddenName } from '../../xseg/names.ts';
import { checkNewName, checkSnapshotName, checkVolumeName, howToShow } from './checks.ts';
import type { Api, ApiContext } from './context.ts';
import * as schemas from './schemas.ts';

const params = schemas.SnapshotParams;
const SNAPSHOT = '/v1/volumes/:volume/snapshots/:snapshot';

export function snapshotRoutes(app: Api, { engine }: ApiContext): void {
  app.get('/v1/snapshots', { schema: { querystring: schemas.SnapshotListQuery } }, async (request) => {
    const { volume, hidden } = request.query;
    const snapshots = await engine.listSnapshots(volume === undefined ? undefined : checkVolumeName(volume));
    return { snapshots: hidden === 'true' ? snapshots : snapshots.filter(({ name }) => !isHiddenName(name)) };
  });

  app.post(
    '/v1/volumes/:volume/snapshots',
    { schema: { params: schemas.VolumeParams, body: schemas.NewName } },
    async (request, reply) => {
      checkNewName('snapshot', request.body.name);
      reply.code(201);
      return engine.createSnapshot(checkVolumeName(request.params.volume), request.body.name);
    },
  );

  app.get(SNAPSHOT, { schema: { params, querystring: schemas.ShowQuery } }, async ({ params, query }) =>
    engine.showSnapshot(checkSnapshotName(params.volume, params.snapshot), howToShow(query)),
  );

  app.delete(SNAPSHOT, { schema: { params, querystring: schemas.SnapshotDeleteQuery } }, async (request, reply) => {
    const { volume, snapshot } = request.params;
    await engine.deleteSnapshot(checkSnapshotName(volume, snapshot), { force: request.query.force === 'true' });
    return reply.code(204).send();
  });

  app.post(`${SNAPSHOT}/protect`, { schema: { params, body: schemas.Protect } }, async (request) => {
    const name = checkSnapshotName(request.params.volume, request.params.snapshot);
    await engine.protect(name, request.body.on);
    return engine.showSnapshot(name);
  });

  app.post(`${SNAPSHOT}/clone`, { schema: { params, body: schemas.NewName } }, async (request, reply) => {
    checkNewName('volume', request.body.name);
    reply.code(201);
    return engine.clone(checkSnapshotName(request.params.volume, request.params.snapshot), request.body.name);
  });

  app.post(`${SNAPSHOT}/rollback`, { schema: { params, body: schemas.Nothing } }, async (request) =>
    engine.rollback(checkSnapshotName(request.params.volume, request.params.snapshot)),
  );
}
