/**
 * Every error code that a user or a program can meet, mapped once to HTTP and once to an exit code.
 * `docs/errors.md` lists the same codes; a test compares the two.
 */
import { EngineError, type EngineErrorCode } from '../xseg/types.ts';

export type ControlErrorCode =
  | 'USAGE'
  | 'NO_DAEMON'
  | 'NO_ROUTE'
  | 'BODY_TOO_LARGE'
  | 'MEDIA_TYPE'
  | 'DENIED'
  | 'TOOL_MISSING'
  | 'DAMAGED'
  | 'PROTOCOL'
  | 'TIMEOUT'
  | 'INTERRUPTED'
  | 'INTERNAL';

export type ErrorCode = EngineErrorCode | ControlErrorCode;

/** An error with a code, from this side of the control socket or from the other. The message is one line. */
export class ControlError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
  ) {
    super(message);
    this.name = 'ControlError';
  }
}

/** What a shell sees. docs/cli.md explains each. */
export const EXIT = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  noSpace: 5,
  noDaemon: 6,
  damage: 7,
  unsupported: 8,
  fatal: 70,
  interrupted: 130,
} as const;

interface Mapping {
  http: number;
  exit: number;
}

export const ERRORS: Readonly<Record<ErrorCode, Mapping>> = {
  NOT_FOUND: { http: 404, exit: EXIT.notFound },
  EXISTS: { http: 409, exit: EXIT.refused },
  INVALID: { http: 400, exit: EXIT.usage },
  TOO_LARGE: { http: 400, exit: EXIT.usage },
  BUSY: { http: 409, exit: EXIT.refused },
  HAS_SNAPSHOTS: { http: 409, exit: EXIT.refused },
  PROTECTED: { http: 409, exit: EXIT.refused },
  NO_SPACE: { http: 507, exit: EXIT.noSpace },
  READ_ONLY: { http: 409, exit: EXIT.refused },
  CORRUPT: { http: 500, exit: EXIT.damage },
  IO: { http: 500, exit: EXIT.damage },
  POOL_FAILED: { http: 503, exit: EXIT.damage },
  FORMAT_NEWER: { http: 409, exit: EXIT.unsupported },
  NOT_OURS: { http: 409, exit: EXIT.refused },
  HELD: { http: 409, exit: EXIT.refused },
  STALE: { http: 409, exit: EXIT.refused },
  STALE_LEASE: { http: 409, exit: EXIT.refused },
  UNSUPPORTED: { http: 501, exit: EXIT.unsupported },
  SHUTTING_DOWN: { http: 503, exit: EXIT.noDaemon },
  USAGE: { http: 400, exit: EXIT.usage },
  NO_DAEMON: { http: 503, exit: EXIT.noDaemon },
  NO_ROUTE: { http: 404, exit: EXIT.failed },
  BODY_TOO_LARGE: { http: 413, exit: EXIT.usage },
  MEDIA_TYPE: { http: 415, exit: EXIT.usage },
  DENIED: { http: 403, exit: EXIT.failed },
  TOOL_MISSING: { http: 501, exit: EXIT.unsupported },
  DAMAGED: { http: 422, exit: EXIT.damage },
  BASE_DIFFERS: { http: 409, exit: EXIT.refused },
  PROTOCOL: { http: 502, exit: EXIT.failed },
  TIMEOUT: { http: 408, exit: EXIT.failed },
  INTERRUPTED: { http: 499, exit: EXIT.interrupted },
  INTERNAL: { http: 500, exit: EXIT.failed },
};

export function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && Object.hasOwn(ERRORS, code);
}

/** errno names of Node's own errors that mean something to a user */
const ERRNO_CODES: Readonly<Record<string, ErrorCode>> = {
  ENOENT: 'NOT_FOUND',
  ENOTDIR: 'NOT_FOUND',
  EEXIST: 'EXISTS',
  EACCES: 'DENIED',
  EPERM: 'DENIED',
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  EROFS: 'READ_ONLY',
  EIO: 'IO',
  EBUSY: 'BUSY',
  EADDRINUSE: 'HELD',
};

const ERRNO_TEXT: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or directory',
  ENOTDIR: 'a part of the path is not a directory',
  EEXIST: 'it exists already',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  ENOSPC: 'no space left on device',
  EDQUOT: 'disk quota exceeded',
  EROFS: 'the file system is read-only',
  EIO: 'input/output error',
  EBUSY: 'it is busy',
  EADDRINUSE: 'the address is in use',
  EADDRNOTAVAIL: 'the address is not one of this machine',
  EISDIR: 'it is a directory',
  ENAMETOOLONG: 'the name is too long',
};

export interface ErrorBody {
  error: { code: ErrorCode; message: string };
}

/** One line, whatever was thrown. The stack of a bug stays out; the log has it. */
export function describeError(error: unknown): { code: ErrorCode; message: string } {
  if (error instanceof EngineError || error instanceof ControlError) {
    return { code: error.code, message: oneLine(error.message) };
  }
  // An EngineError that crossed a thread is a plain Error with a code.
  const { code, path, address, message } = error as {
    code?: unknown;
    path?: unknown;
    address?: unknown;
    message?: unknown;
  };
  if (isErrorCode(code)) return { code, message: oneLine(String(message)) };
  if (typeof code === 'string' && Object.hasOwn(ERRNO_TEXT, code)) {
    const where = typeof path === 'string' ? path : typeof address === 'string' ? address : null;
    const text = ERRNO_TEXT[code];
    return {
      code: ERRNO_CODES[code] ?? 'INTERNAL',
      message: where === null ? `${text}` : `${oneLine(where)}: ${text}`,
    };
  }
  return { code: 'INTERNAL', message: oneLine(typeof message === 'string' ? message : String(error)) };
}

export function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, ' ').trim();
}
