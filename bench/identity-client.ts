/** Keystone's API as the benchmark asks for it, and a load of it: the same for every server that speaks it. */
import http from 'node:http';

/** Who is measured, and who may administer it. */
export interface IdentityServer {
  /** up to and with `/v3` */
  url: string;
  admin: { name: string; password: string; project: string };
  /** of its processes */
  pids(): number[];
  end(): Promise<void>;
}

export interface Answer {
  status: number;
  token: string | null;
  // biome-ignore lint/suspicious/noExplicitAny: another server's JSON
  body: any;
}

/** What went on in a time. */
export interface Load {
  done: number;
  failed: number;
  seconds: number;
  /** of each, ms */
  latencies: number[];
}

/** Connections that are kept, so many at once. */
export class IdentityClient {
  readonly #agent: http.Agent;

  constructor(
    readonly url: string,
    connections: number,
  ) {
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: connections });
  }

  close(): void {
    this.#agent.destroy();
  }

  ask(method: string, path: string, headers: Record<string, string> = {}, body?: unknown): Promise<Answer> {
    const text = body === undefined ? null : JSON.stringify(body);
    const sent = text === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
    return new Promise((resolve, reject) => {
      const request = http.request(
        `${this.url}${path}`,
        { method, agent: this.#agent, headers: { ...headers, ...sent } },
        (response) => {
          const chunks: Buffer[] = [];
          response.on('data', (chunk: Buffer) => chunks.push(chunk));
          response.once('error', reject);
          response.once('end', () => {
            const answer = Buffer.concat(chunks).toString();
            const token = response.headers['x-subject-token'];
            resolve({
              status: response.statusCode ?? 0,
              token: typeof token === 'string' ? token : null,
              body: answer.startsWith('{') ? JSON.parse(answer) : null,
            });
          });
        },
      );
      request.once('error', reject);
      request.end(text ?? undefined);
    });
  }

  /** @throws when it is answered otherwise */
  async expect(
    status: number,
    method: string,
    path: string,
    headers: Record<string, string> = {},
    body?: unknown,
  ): Promise<Answer> {
    const answer = await this.ask(method, path, headers, body);
    if (answer.status === status) return answer;
    throw new Error(`${method} ${path} was answered ${answer.status}: ${JSON.stringify(answer.body)?.slice(0, 200)}`);
  }

  async login(user: { name: string; password: string; project: string }): Promise<string> {
    return (await this.expect(201, 'POST', '/auth/tokens', {}, byPassword(user))).token ?? '';
  }
}

const DOMAIN = { id: 'default' };

export function byPassword({ name, password, project }: { name: string; password: string; project: string }): object {
  const identity = { methods: ['password'], password: { user: { name, domain: DOMAIN, password } } };
  return { auth: { identity, scope: { project: { name: project, domain: DOMAIN } } } };
}

export function byToken(token: string, project: string): object {
  const scope = { project: { name: project, domain: DOMAIN } };
  return { auth: { identity: { methods: ['token'], token: { id: token } }, scope } };
}

/** Asks again and again, so many at once. @param one @returns whether it went well */
export async function load(
  connections: number,
  seconds: number,
  one: (n: number) => Promise<boolean>,
  until: () => boolean = () => false,
): Promise<Load> {
  const began = performance.now();
  const end = began + seconds * 1000;
  const found: Load = { done: 0, failed: 0, seconds: 0, latencies: [] };
  let next = 0;
  const worker = async (): Promise<void> => {
    while (performance.now() < end && !until()) {
      const start = performance.now();
      if (await one(next++)) found.done++;
      else found.failed++;
      found.latencies.push(performance.now() - start);
    }
  };
  await Promise.all(Array.from({ length: connections }, worker));
  found.seconds = (performance.now() - began) / 1000;
  return found;
}
