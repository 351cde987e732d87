/** What the routes get. Routes know these and each other not. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import type { Engine } from '../../xseg/types.ts';
import type { Catalog } from '../catalog/catalog.ts';
import type { Ingests } from '../ingests.ts';
import type { Log } from '../log.ts';
import type { Metrics } from '../metrics/metrics.ts';
import type { Mounts } from '../mounts.ts';
import type { Transfers } from '../transfers.ts';

export interface ApiContext {
  engine: Engine;
  transfers: Transfers;
  ingests: Ingests;
  mounts: Mounts;
  log: Log;
  metrics: Metrics;
  /** where the daemon can be reached */
  sockets: () => { control: string; nbd: string[]; metrics: string | null; http?: string | null };
  /** none: HTTP for users is not served */
  catalog?: () => Catalog | null;
}

/** A fastify that takes its types from TypeBox schemas. */
export type Api = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;
