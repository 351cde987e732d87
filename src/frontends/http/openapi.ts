/** /openapi.json and /docs: what can be asked, as OpenAPI 3.1 and as a page. Made of the schemas that requests are checked by, so it is true. */
import type { Http } from './context.ts';
import type { RouteSchemas, RouteTable } from './routes.ts';

/** the document's own version: it goes up when a path goes away */
const VERSION = '1.0';
/** what answers without a token */
const OPEN = /^\/(healthcheck|openapi\.json|docs|auth\/v1\.0|identity(\/v3)?|volume|image(\/versions)?)$/;

interface ObjectSchema {
  properties?: Record<string, object>;
  required?: string[];
}

export function openApiRoutes(app: Http, routes: RouteTable, publicUrl: () => string): void {
  // Made for the first who asks: nobody waits for it at the start.
  let operations: Operation[] | null = null;
  const all = () => {
    operations ??= operationsOf(routes);
    return operations;
  };
  app.get('/openapi.json', async () => documentOf(all(), publicUrl()));
  app.get('/docs', async (_request, reply) => {
    reply.type('text/html; charset=utf-8').headers(PAGE_HEADERS);
    return pageOf(all());
  });
}

interface Operation {
  method: string;
  /** with `{name}` for what is filled in */
  path: string;
  /** the noun it is about, by which the page is parted */
  tag: string;
  parameters: { name: string; in: 'path' | 'query'; required: boolean; schema: object }[];
  body: object | undefined;
  open: boolean;
}

function operationsOf(routes: RouteTable): Operation[] {
  const found: Operation[] = [];
  for (const { url, methods } of routes) {
    // The versions answer with a slash at the end too.
    if (url.length > 1 && url.endsWith('/')) continue;
    for (const [method, schemas] of methods) if (method !== 'HEAD') found.push(operationOf(method, url, schemas));
  }
  return found.sort((a, b) => compare(a.tag, b.tag) || compare(a.path, b.path) || compare(a.method, b.method));
}

function operationOf(method: string, url: string, schemas: RouteSchemas): Operation {
  const { properties: inPath = {} } = (schemas.params ?? {}) as ObjectSchema;
  const { properties: inQuery = {}, required = [] } = (schemas.querystring ?? {}) as ObjectSchema;
  const names = [...url.matchAll(/:(\w+)/g)].map(([, name]) => name!);
  const filled = names.map((name) => {
    return { name, in: 'path' as const, required: true, schema: inPath[name] ?? { type: 'string' } };
  });
  const asked = Object.entries(inQuery).map(([name, schema]) => {
    return { name, in: 'query' as const, required: required.includes(name), schema };
  });
  return {
    method: method.toLowerCase(),
    path: url.replace(/:(\w+)/g, '{$1}'),
    tag: tagOf(url),
    parameters: [...filled, ...asked],
    body: schemas.body as object | undefined,
    open: OPEN.test(url) || (method === 'POST' && url === '/identity/v3/auth/tokens'),
  };
}

/** `/identity/v3/users/:id` is about `identity: users` */
function tagOf(url: string): string {
  const [, service = '', , noun] = url.split('/');
  return service === 'identity' ? `identity: ${noun ?? 'versions'}` : service;
}

function documentOf(operations: readonly Operation[], url: string): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const { method, path, tag, parameters, body, open } of operations) {
    const content = { 'application/json': { schema: body } };
    paths[path] ??= {};
    paths[path][method] = {
      operationId: `${method} ${path}`.replace(/[^A-Za-z0-9]+/g, '_').replace(/_$/, ''),
      tags: [tag],
      parameters,
      ...(body === undefined ? {} : { requestBody: { required: true, content } }),
      responses: {
        '2XX': { description: 'as the protocol’s reference has it' },
        default: { description: 'what went wrong', content: { 'application/json': { schema: ERROR } } },
      },
      security: open ? [] : [{ token: [] }],
    };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Atoll', version: VERSION },
    servers: [{ url }],
    paths,
    components: { securitySchemes: { token: { type: 'apiKey', in: 'header', name: 'X-Auth-Token' } } },
  };
}

const ERROR = {
  type: 'object',
  properties: {
    error: {
      type: 'object',
      properties: { code: { type: 'integer' }, message: { type: 'string' }, title: { type: 'string' } },
    },
  },
};

/** The page needs nothing but itself, and may ask for nothing. */
const PAGE_HEADERS = {
  'content-security-policy': "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
};

const STYLE = `
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
h2 { border-bottom: 1px solid #8888; margin-top: 2.5rem }
summary { cursor: pointer; padding: .15rem 0 }
summary b { display: inline-block; font-family: monospace; width: 5rem }
code, pre { font-family: monospace; font-size: 13px }
details > div { border-left: 3px solid #8888; margin: .3rem 0 1rem .4rem; padding-left: 1rem }
nav a { margin-right: 1rem; white-space: nowrap }
`;

function pageOf(operations: readonly Operation[]): string {
  const tags = [...new Set(operations.map(({ tag }) => tag))];
  const anchor = (tag: string) => escaped(tag.replace(/[^a-z0-9]+/gi, '-'));
  const links = tags.map((tag) => `<a href="#${anchor(tag)}">${escaped(tag)}</a>`).join(' ');
  const parts = tags.map((tag) => {
    const own = operations.filter((one) => one.tag === tag);
    return `<h2 id="${anchor(tag)}">${escaped(tag)}</h2>${own.map(entryOf).join('')}`;
  });
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>Atoll: HTTP</title><style>${STYLE}</style>
<h1>What can be asked</h1><p>As <a href="openapi.json">OpenAPI</a>, for programs. A request is made with a token in <code>X-Auth-Token</code>, unless it says otherwise.</p>
<nav>${links}</nav>${parts.join('')}</html>`;
}

function entryOf({ method, path, parameters, body, open }: Operation): string {
  const rows = parameters.map(
    ({ name, in: where, schema }) =>
      `<li><code>${escaped(name)}</code> in the ${where} <code>${escaped(JSON.stringify(schema))}</code></li>`,
  );
  const lines = [
    open ? '<p>Needs no token.</p>' : '',
    rows.length > 0 ? `<ul>${rows.join('')}</ul>` : '',
    body === undefined ? '' : `<p>Body:</p><pre>${escaped(JSON.stringify(body, null, 2))}</pre>`,
  ];
  const text = lines.join('') || '<p>Takes nothing else.</p>';
  return `<details><summary><b>${method.toUpperCase()}</b> <code>${escaped(path)}</code></summary><div>${text}</div></details>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);
