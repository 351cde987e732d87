/** Version documents, where clients look for them, of services that are not built: there is no version of them. */
import type { FastifyReply } from 'fastify';
import type { Http } from './context.ts';

export const UNBUILT = ['/volume', '/image'] as const;

export function unbuiltRoutes(app: Http): void {
  const none = async (_request: unknown, reply: FastifyReply) => reply.code(300).send({ versions: [] });
  for (const mount of UNBUILT) app.get(mount, none);
  app.get('/image/versions', async () => ({ versions: [] }));
}
