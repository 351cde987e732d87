/** /v1/volumes */
import { isHiddenName } from '../../xseg/names.ts';
import { ControlError } from '../errors.ts';
import { checkNewName, checkSnapshotPath, checkVolumeName, checkVolumeSize, howToShow } from './checks.ts';
import type { Api, ApiContext } from './context.ts';
import * as schemas from './schemas.ts';

const params = schemas.VolumeParams;

export function volumeRoutes(app: Api, { engine }: ApiContext): void {
  app.get('/v1/volumes', { schema: { querystring: schemas.ListQuery } }, async (request) => {
    const volumes = await engine.listVolumes();
    return { volumes: request.query.hidden === 'true' ? volumes : volumes.filter(({ name }) => !isHiddenName(name)) };
  });

  app.post('/v1/volumes', { schema: { body: schemas.VolumeCreate } }, async (request, reply) => {
    const { name, size, from } = request.body;
    checkNewName('volume', name);
    if (size !== undefined) checkVolumeSize(size);
    if (from !== undefined) checkSnapshotPath(from);
    else if (size === undefined)
      throw new ControlError('INVALID', 'a new volume needs a size, or a snapshot to come from');
    reply.code(201);
    return engine.createVolume(request.body);
  });

  app.get('/v1/volumes/:volume', { schema: { params, querystring: schemas.ShowQuery } }, async (request) =>
    engine.showVolume(checkVolumeName(request.params.volume), howToShow(request.query)),
  );

  app.delete(
    '/v1/volumes/:volume',
    { schema: { params, querystring: schemas.VolumeDeleteQuery } },
    async (request, reply) => {
      await engine.deleteVolume(checkVolumeName(request.params.volume), {
        force: request.query.force === 'true',
        withSnapshots: request.query.withSnapshots === 'true',
      });
      return reply.code(204).send();
    },
  );

  app.post('/v1/volumes/:volume/resize', { schema: { params, body: schemas.Resize } }, async (request) =>
    engine.resizeVolume(checkVolumeName(request.params.volume), checkVolumeSize(request.body.size)),
  );

  app.post('/v1/volumes/:volume/rename', { schema: { params, body: schemas.NewName } }, async (request) => {
    checkNewName('volume', request.body.name);
    return engine.renameVolume(checkVolumeName(request.params.volume), request.body.name);
  });

  app.post('/v1/volumes/:volume/protect', { schema: { params, body: schemas.Protect } }, async (request) => {
    const name = checkVolumeName(request.params.volume);
    await engine.protect(name, request.body.on);
    return engine.showVolume(name);
  });

  app.post('/v1/volumes/:volume/attach', { schema: { params, body: schemas.Attach } }, async (request) =>
    engine.attachVolume(checkVolumeName(request.params.volume), request.body),
  );

  app.post('/v1/volumes/:volume/detach', { schema: { params, body: schemas.Detach } }, async (request) =>
    engine.detachVolume(checkVolumeName(request.params.volume), request.body),
  );
}
