/** Errors of the engine as a file system says them. Numbers are Linux's. */
import { EngineError, type EngineErrorCode } from '../../xseg/types.ts';

export const EPERM = 1;
export const ENOENT = 2;
export const EIO = 5;
export const EBUSY = 16;
export const EEXIST = 17;
export const EISDIR = 21;
export const EINVAL = 22;
export const EFBIG = 27;
export const ENOSPC = 28;
export const EROFS = 30;
export const ENAMETOOLONG = 36;
export const ENOTCONN = 107;
export const EOPNOTSUPP = 95;

const OF_CODE: Partial<Record<EngineErrorCode, number>> = {
  NOT_FOUND: ENOENT,
  EXISTS: EEXIST,
  INVALID: EINVAL,
  TOO_LARGE: EFBIG,
  BUSY: EBUSY,
  HAS_SNAPSHOTS: EBUSY,
  PROTECTED: EPERM,
  NO_SPACE: ENOSPC,
  READ_ONLY: EROFS,
  UNSUPPORTED: EOPNOTSUPP,
  SHUTTING_DOWN: ENOTCONN,
};

/** What a request is answered with, instead of what it asked for. */
export class Refusal extends Error {
  constructor(readonly errno: number) {
    super(`errno ${errno}`);
  }
}

export function errnoOf(error: unknown): number {
  if (error instanceof Refusal) return error.errno;
  return error instanceof EngineError ? (OF_CODE[error.code] ?? EIO) : EIO;
}
