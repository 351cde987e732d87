/** What a request waits for, and what its operations need of the reactor that they run on (native/volume/work.h). */
import type { Bugs } from '../bugs.ts';
import type { RequestRecord, SimNative } from '../native.ts';
import type { Rng } from '../rng.ts';
import type { ClientRequest } from './request.ts';
import type { Spans, Target } from './spans.ts';

/** as in volume_peer.h */
export const RETRIES_MAX = 1000;

export type Step =
  | 'read'
  | 'in place'
  | 'load'
  | 'map write'
  | 'copy read'
  | 'move'
  | 'answered'
  | 'unmap'
  | 'flush'
  | 'status'
  | 'sync'
  | 'hash'
  | 'check load'
  | 'check read'
  | 'rotten';

/** One thing that a request waits for. */
export interface Work {
  ticket: number;
  request: ClientRequest;
  volume: number;
  step: Step;
  generation: number;
  retries: number;
  cursor: number;
  end: number;
  pieceEnd: number;
  grant: number;
  slotNew: number;
  slotOld: number;
  granted: number;
  /** when, on the clock */
  grantedAt: number;
  moved: number;
  /** bytes of the block I/O that is on its way */
  moving: number;
  buffer: Uint32Array | null;
  scratch: number;
  // ---- of a check (checks.ts)
  /** what is checked is what a granted block is copied from; else a part of a read */
  copying: boolean;
  /** of slot `slotOld`; null: it is not in the index */
  hash: Buffer | null;
  mismatches: number;
}

export function newWork(ticket: number, request: ClientRequest, step: Step): Work {
  return {
    ticket,
    request,
    volume: request.volume,
    step,
    generation: 0,
    retries: 0,
    cursor: 0,
    end: 0,
    pieceEnd: 0,
    grant: 0,
    slotNew: 0,
    slotOld: 0,
    granted: 0,
    grantedAt: 0,
    moved: 0,
    moving: 0,
    buffer: null,
    scratch: 0,
    copying: false,
    hash: null,
    mismatches: 0,
  };
}

export type Progress = 'finished' | 'waiting';

/** The reactor, as operations see it. */
export interface Turn {
  readonly id: number;
  readonly native: SimNative;
  readonly rng: Rng;
  readonly bugs: Bugs;
  readonly spans: Spans;
  /** connections, for what is only done when there is one */
  readonly connections: number;
  takeWork(request: ClientRequest, step: Step): Work;
  releaseWork(work: Work): void;
  /** to the mapper; its reply comes back to the work's step */
  send(work: Work, step: Step, record: Omit<RequestRecord, 'ticket'>): void;
  /** `run` moves the bytes, some time */
  startIo(work: Work, step: Step, address: number, length: number, run: () => number): void;
  /** Asks for the leaves of [cursor, end), at most so many at once. */
  sendLoad(work: Work, step: Step, target: Target, cursor: number, end: number): void;
  /** until the leaf at `cursor` is there */
  loadAndPark(request: ClientRequest, target: Target, cursor: number, end: number): Progress;
  putOff(request: ClientRequest): Progress;
}
