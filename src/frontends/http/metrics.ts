/** GET /metrics for whoever may read them: docs/http.md, "Metrics". On the daemon's own listener for them there is no question. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { MetricsPage } from './context.ts';
import { HttpError, unauthorized } from './errors.ts';
import { type Guarded, mayAsk } from './gate.ts';
import type { Session } from './identity/authentication.ts';
import type { IdentityContext } from './identity/identity-context.ts';
import { enforce } from './identity/policy.ts';

const SERVICE: Guarded = { type: 'metrics', mount: '', open: new Set() };

export async function metricsPlugin(
  app: FastifyInstance,
  { identity, metrics }: { identity: IdentityContext; metrics: MetricsPage },
): Promise<void> {
  app.get('/metrics', async (request, reply) => {
    reply.header('vary', 'X-Auth-Token, Authorization');
    const session = await sessionFor(request, identity).catch((error) => {
      if (error instanceof HttpError && error.status === 401) return null;
      throw error;
    });
    if (session === null || !mayAsk(session, request, SERVICE)) {
      reply.header('www-authenticate', 'Basic realm="metrics", charset="UTF-8"');
      throw unauthorized();
    }
    enforce('get_metrics', session);
    return reply.type(metrics.contentType).send(await metrics.page());
  });
}

/** By a token, or by the name and password of a user of the domain `default`, which is what Prometheus can send. */
async function sessionFor({ headers }: FastifyRequest, { authentication }: IdentityContext): Promise<Session | null> {
  const token = headers['x-auth-token'];
  if (typeof token === 'string') return authentication.session(token);
  const [, encoded] = /^Basic ([A-Za-z0-9+/=]+)$/i.exec(headers.authorization ?? '') ?? [];
  const [, name, password] = /^([^:]+):(.+)$/s.exec(Buffer.from(encoded ?? '', 'base64').toString('utf8')) ?? [];
  if (name === undefined || password === undefined) return null;
  const user = { name, domain: { id: 'default' }, password };
  const identity = { methods: ['password'], password: { user } };
  const { session } = await authentication.login({ auth: { identity, scope: { system: { all: true } } } });
  return session;
}
