/** What clients ask of a reactor (native/volume/request.h). */
import { SECTOR } from '../disk.ts';

export const ENOTSUP = 95;

export type Op = 'read' | 'write' | 'flush' | 'trim' | 'zeroes' | 'status';

export interface ClientRequest {
  op: Op;
  fua: boolean;
  noHole: boolean;
  fastZero: boolean;
  volume: number;
  /** bytes, multiples of SECTOR */
  offset: number;
  length: number;
  /** read: filled; write: source; one number per sector */
  sectors: Uint32Array;
  /** status: extents as [bytes, flags] pairs, and the handle to compare with or −1 */
  extents: number[];
  context: number;
  done(request: ClientRequest): void;
  error: number;
  // ---- the volume peer's own
  cursor: number;
  pending: number;
  retries: number;
  stage: 'data' | 'checked' | 'durable';
  /** 'parked': until one of its works ends */
  wait: 'no' | 'parked' | 'queued';
}

/** A request for sectors [from, from + sectors) of a handle. */
export function newRequest(op: Op, volume: number, from: number, sectors: number): ClientRequest {
  return {
    op,
    fua: false,
    noHole: false,
    fastZero: false,
    volume,
    offset: from * SECTOR,
    length: sectors * SECTOR,
    sectors: new Uint32Array(op === 'read' || op === 'write' ? sectors : 0),
    extents: [],
    context: -1,
    done: () => undefined,
    error: 0,
    cursor: 0,
    pending: 0,
    retries: 0,
    stage: 'data',
    wait: 'no',
  };
}

/** The first error is the one that is answered. */
export function failRequest(request: ClientRequest, error: number): void {
  if (request.error === 0) request.error = error;
}
