/**
 * Microversions, as OpenStack's services negotiate them: a client names a service and a version of its API in `OpenStack-API-Version`,
 * and is answered by that version, or by 406. Who names none gets the least.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Http } from './context.ts';
import { badRequest, HttpError } from './errors.ts';

const HEADER = 'openstack-api-version';

export class Microversion {
  constructor(
    readonly major: number,
    readonly minor: number,
  ) {}

  /** @param text `3.27` @returns null when it is none */
  static parse(text: string): Microversion | null {
    const [, major, minor] = /^([1-9]\d{0,3})\.(0|[1-9]\d{0,3})$/.exec(text) ?? [];
    return major === undefined || minor === undefined ? null : new Microversion(Number(major), Number(minor));
  }

  isBelow(other: Microversion): boolean {
    return this.major === other.major ? this.minor < other.minor : this.major < other.major;
  }

  toString(): string {
    return `${this.major}.${this.minor}`;
  }
}

/** What a service understands; `name` is what the header calls it. */
export interface MicroversionRange {
  name: string;
  min: Microversion;
  max: Microversion;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** the route is there from this microversion on */
    from?: Microversion;
    /** and up to this one */
    upTo?: Microversion;
  }
}

const negotiated = new WeakMap<FastifyRequest, Microversion>();

/** By which version a request is to be answered. Only in a service that has microversions. */
export function microversionOf(request: FastifyRequest): Microversion {
  const version = negotiated.get(request);
  if (!version) throw new Error('a service without microversions was asked for one');
  return version;
}

/** For all routes of a service; a route that its `config` says is not of the version is not there (404). */
export function negotiate(app: Http, range: MicroversionRange): void {
  app.addHook('onRequest', async (request, reply) => {
    vary(reply, 'OpenStack-API-Version');
    const version = wanted(request, range);
    reply.header(HEADER, `${range.name} ${version}`);
    negotiated.set(request, version);
    const { from, upTo } = request.routeOptions.config;
    if ((from && version.isBelow(from)) || upTo?.isBelow(version))
      throw new HttpError(404, 'The resource could not be found.');
  });
}

/** @throws {HttpError} 400, 406 */
function wanted({ headers }: FastifyRequest, { name, min, max }: MicroversionRange): Microversion {
  const text = askedOf(String(headers[HEADER] ?? ''), name);
  if (text === undefined) return min;
  if (text === 'latest') return max;
  const version = Microversion.parse(text);
  if (version === null) throw badRequest('A microversion is MAJOR.MINOR or latest.');
  if (version.isBelow(min) || max.isBelow(version))
    throw new HttpError(
      406,
      `Version ${version} is not supported by the API. Minimum is ${min} and maximum is ${max}.`,
    );
  return version;
}

/** What the header says to a service; of what it says twice the last. */
function askedOf(header: string, name: string): string | undefined {
  const said = header.split(',').map((part) => part.trim().split(/\s+/));
  return said
    .findLast(([service]) => service?.toLowerCase() === name)
    ?.slice(1)
    .join(' ');
}

/** Adds to what an answer depends on. */
export function vary(reply: FastifyReply, name: string): void {
  const before = reply.getHeader('vary');
  reply.header('vary', before === undefined ? name : `${before}, ${name}`);
}
