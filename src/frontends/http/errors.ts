/** What a request can fail with. Services throw these; each service's plugin writes them in its protocol's own shape. */
import { STATUS_CODES } from 'node:http';
import type { HttpLog } from './context.ts';

export class HttpError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
    this.name = 'HttpError';
  }

  get title(): string {
    return STATUS_CODES[this.status] ?? 'Error';
  }
}

export const badRequest = (message: string) => new HttpError(400, message);
export const unauthorized = (message = 'The request you have made requires authentication.') =>
  new HttpError(401, message);
export const forbidden = (message: string) => new HttpError(403, message);
export const notAllowed = (action: string) =>
  new HttpError(403, `You are not authorized to perform the requested action: ${action}.`);
export const notFound = (what: string, id: string) => new HttpError(404, `Could not find ${what}: ${id}.`);
export const conflict = (message: string) => new HttpError(409, message);

interface Thrown {
  code?: string;
  statusCode?: number;
  validation?: unknown;
  message: string;
}

/** @returns what to answer; null: it is our own fault, and the log has to have it */
function httpErrorOf(error: unknown): HttpError | null {
  if (error instanceof HttpError) return error;
  const { code, statusCode, message } = error as Thrown;
  if (code === 'NOT_FOUND') return new HttpError(404, 'The resource could not be found.');
  if (code === 'EXISTS') return conflict('Conflict occurred: a resource of that name or id exists already.');
  if (code === 'REFERENCE') return conflict('Conflict occurred: it is in use, or names what does not exist.');
  // PostgreSQL's: a zero byte in a text.
  if (code === '22021' || code === 'INVALID') return badRequest('A text has a character that cannot be stored.');
  if (code === 'LAST_ADMIN') return forbidden('That would leave nobody who can administer the cloud.');
  if (code === 'TOO_MANY') return new HttpError(429, 'Too many logins at once.', { 'Retry-After': '1' });
  if (code === 'QUOTA_EXCEEDED') return new HttpError(413, message);
  if (code === 'NO_SPACE') return new HttpError(507, 'The disk of the catalog is full.');
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) return new HttpError(statusCode, message);
  return null;
}

/** What to answer. What was not foreseen is logged, once and here, and told to nobody. */
export function answerOf(error: unknown, requestId: string, log: HttpLog): HttpError {
  const known = httpErrorOf(error);
  if (known !== null) return known;
  const { message, stack } = error as Error;
  log('error', 'http.failed', { request: requestId, message, stack });
  return new HttpError(500, 'An unexpected error prevented the server from fulfilling your request.');
}
