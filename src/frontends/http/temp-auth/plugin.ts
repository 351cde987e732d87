/**
 * /auth/v1.0: what Swift's TempAuth is to old clients (docs/identity.md, "TempAuth"): a user and a password in headers, a token and the
 * address of the account in headers. It is another way into Keystone's users: `project:user`, both in the domain `default`.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Http } from '../context.ts';
import { answerOf, unauthorized } from '../errors.ts';
import type { AuthBody } from '../identity/auth-schemas.ts';
import type { IdentityContext } from '../identity/identity-context.ts';

const DOMAIN = { id: 'default' };

export async function tempAuthPlugin(
  instance: FastifyInstance,
  { identity }: { identity: IdentityContext },
): Promise<void> {
  const app = instance as unknown as Http;

  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-trans-id', transactionId(request.id, Date.now()));
  });

  app.setErrorHandler((error, request, reply) => {
    const { status, title, headers } = answerOf(error, request.id, identity.log);
    if (status === 401) reply.header('www-authenticate', 'Swift realm="unknown"');
    const text = `<html><h1>${title}</h1></html>`;
    return reply.code(status).headers(headers).type('text/html; charset=UTF-8').send(text);
  });

  app.get('/v1.0', async (request, reply) => {
    const { text, session } = await identity.authentication.login(loginOf(request));
    const seconds = Math.floor((session.token.expiresAt - Date.now()) / 1000);
    reply.headers({
      'x-auth-token': text,
      'x-storage-token': text,
      'x-auth-token-expires': String(seconds),
      'x-storage-url': `${identity.publicUrl()}/v1/AUTH_${session.project!.id}`,
    });
    return reply.type('text/plain; charset=UTF-8').send('');
  });
}

/** @throws {HttpError} 401 when it names nobody */
function loginOf({ headers }: FastifyRequest): AuthBody {
  const named = textOf(headers['x-auth-user'] ?? headers['x-storage-user']);
  const password = textOf(headers['x-auth-key'] ?? headers['x-storage-pass']);
  const [, project, name] = /^([^:]+):(.+)$/s.exec(named) ?? [];
  if (project === undefined || name === undefined || password === '') throw unauthorized();
  const user = { name, domain: DOMAIN, password };
  return {
    auth: {
      identity: { methods: ['password'], password: { user } },
      scope: { project: { name: project, domain: DOMAIN } },
    },
  };
}

/** Node reads headers as Latin-1; what clients mean is UTF-8. */
function textOf(header: string | string[] | undefined): string {
  return typeof header === 'string' ? Buffer.from(header, 'latin1').toString('utf8') : '';
}

/** As Swift writes them: 21 hexadecimal digits, and the time in seconds, ten of them. */
function transactionId(requestId: string, now: number): string {
  const digits = requestId.replace(/[^0-9a-f]/g, '').slice(-21);
  return `tx${digits}-${Math.floor(now / 1000)
    .toString(16)
    .padStart(10, '0')}`;
}
