/** What a service's plugin gets, and what it makes of a fastify. */
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify';
import type { Catalog } from '../../control/catalog/catalog.ts';

export type HttpLog = (
  level: 'debug' | 'info' | 'warn' | 'error',
  event: string,
  fields: Record<string, unknown>,
) => void;

export interface MetricsPage {
  readonly contentType: string;
  page(): Promise<string>;
}

export interface HttpContext {
  catalog: Catalog;
  log: HttpLog;
  /** the page at /metrics, where the daemon has one */
  metrics?: MetricsPage | undefined;
  /** without a slash at its end; what links and the service catalog begin with */
  publicUrl: () => string;
}

export type Http = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;
