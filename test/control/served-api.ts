/** The control API as the daemon has it, on a socket in a folder of its own, over an engine that only keeps names. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { Api } from '../../src/control/api/context.ts';
import { buildApi } from '../../src/control/api/server.ts';
import { Ingests } from '../../src/control/ingests.ts';
import type { Log } from '../../src/control/log.ts';
import type { Metrics } from '../../src/control/metrics/metrics.ts';
import { Mounts } from '../../src/control/mounts.ts';
import { Transfers } from '../../src/control/transfers.ts';
import { type FakeEngine, metricsOf } from './fake-engine.ts';

type Parts = Parameters<typeof buildApi>[0];

export interface ServedApi {
  app: Api;
  /** where the socket is: a home, as far as clients can tell */
  folder: string;
  socket: string;
  metrics: Metrics;
  end(): Promise<void>;
}

/** @param options `folder`: one that is there, and stays */
export async function serveApi(
  engine: FakeEngine,
  options: { folder?: string; nbd?: string[]; log?: Log; catalog?: NonNullable<Parts['catalog']> } = {},
): Promise<ServedApi> {
  const { nbd = [], log = () => undefined, catalog } = options;
  const folder = options.folder ?? mkdtempSync(path.join(tmpdir(), 'atoll-api-'));
  const socket = path.join(folder, 'control.sock');
  const metrics = metricsOf(engine);
  const app = buildApi({
    engine,
    transfers: new Transfers(engine, log),
    ingests: new Ingests(engine, true),
    mounts: new Mounts(engine, '/fake', log),
    log,
    metrics,
    sockets: () => ({ control: socket, nbd, metrics: null }),
    ...(catalog === undefined ? {} : { catalog }),
  });
  await app.listen({ path: socket });
  const end = async () => {
    await app.close();
    if (options.folder === undefined) rmSync(folder, { recursive: true, force: true });
  };
  return { app, folder, socket, metrics, end };
}
