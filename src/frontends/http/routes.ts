/**
 * The routes there are, and which methods each path has: so that a wrong one is told (405, with Allow) from a path that is not there
 * (404), and so that they can be listed (openapi.ts).
 */

interface Route {
  pattern: RegExp;
  methods: Map<string, RouteSchemas>;
}

/** JSON schemas of what a request has, as fastify takes them */
export interface RouteSchemas {
  body?: unknown;
  querystring?: unknown;
  params?: unknown;
}

export class RouteTable {
  readonly #routes = new Map<string, Route>();

  /** @param url as fastify has it: `/users/:id`, and `/*` at the end for all that is below */
  add(url: string, methods: string | readonly string[], schemas: RouteSchemas = {}): void {
    let route = this.#routes.get(url);
    if (!route) {
      route = { pattern: patternOf(url), methods: new Map() };
      this.#routes.set(url, route);
    }
    for (const method of [methods].flat()) route.methods.set(method, schemas);
  }

  /** @returns the methods that a path has, sorted; none: there is no such path */
  methodsOf(path: string): string[] {
    const found = new Set<string>();
    for (const { pattern, methods } of this.#routes.values())
      if (pattern.test(path)) for (const method of methods.keys()) found.add(method);
    return [...found].sort();
  }

  /** All there are, as they were added. */
  *[Symbol.iterator](): IterableIterator<{ url: string; methods: ReadonlyMap<string, RouteSchemas> }> {
    for (const [url, { methods }] of this.#routes) yield { url, methods };
  }
}

/** No repetition is in another, so that no path takes long. */
function patternOf(url: string): RegExp {
  const parts = url.replace(/\/$/, '').split('/');
  const words = parts.map((part) => {
    if (part === '*') return '.*';
    return part.startsWith(':') ? '[^/]+' : part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  });
  return new RegExp(`^${words.join('/')}/?$`);
}
