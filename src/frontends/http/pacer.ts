/**
 * Cuts off who is slow (limits.ts, Pace): who sends a body below a rate, and who does not take its answer. Time counts only while the
 * client is waited for: a request that is slow because of us is not the client's fault.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { HttpError } from './errors.ts';
import type { HttpLimits, Pace } from './limits.ts';
import type { RequestBody } from './request-body.ts';

/** @param what `sending` or `taking` */
export type OnSlow = (what: 'sending' | 'taking') => void;

/** What one has in hand of a pace. */
export class Credit {
  #bytes: number;
  #moved: number;

  constructor(
    private readonly pace: Pace,
    moved: number,
  ) {
    this.#bytes = pace.creditBytes;
    this.#moved = moved;
  }

  /**
   * @param seconds since the last time
   * @param moved bytes in all
   * @param isAwaited more could have moved
   * @returns whether it is used up
   */
  use(seconds: number, moved: number, isAwaited: boolean): boolean {
    const cost = isAwaited ? seconds * this.pace.bytesPerSecond : 0;
    this.#bytes = Math.min(this.#bytes - cost + moved - this.#moved, this.pace.creditBytes);
    this.#moved = moved;
    return this.#bytes < 0;
  }

  refill(): void {
    this.#bytes = this.pace.creditBytes;
  }
}

class Watched {
  /** as they were when it was looked at the last time; most requests are over before they are looked at */
  #seen: { sending: Credit; taking: Credit; at: number } | null = null;
  body: RequestBody | null = null;
  /** the answer is gone, or nobody is there to take it */
  #isAnswered = false;
  /** where what came after the answer begins */
  #unreadFrom = 0;

  constructor(
    readonly request: IncomingMessage,
    private readonly response: ServerResponse,
    private readonly limits: HttpLimits,
    private readonly onSlow: OnSlow,
  ) {}

  get isOver(): boolean {
    return this.#isAnswered && (this.request.complete || this.request.socket.destroyed);
  }

  /** What still comes of a body that nobody wants is thrown away, up to a bound: the next request is behind it. */
  answered(): void {
    this.#isAnswered = true;
    if (this.isOver) return;
    this.#unreadFrom = this.request.socket.bytesRead;
    this.request.resume();
  }

  look(now: number): void {
    const { request, body } = this;
    const { socket } = request;
    const { sending, taking } = this.limits;
    this.#seen ??= {
      sending: new Credit(sending, socket.bytesRead),
      taking: new Credit(taking, taken(socket)),
      at: now,
    };
    const seen = this.#seen;
    // When we stood still ourselves, nobody knows what would have come.
    const seconds = Math.min(now - seen.at, 2 * this.limits.paceMs) / 1000;
    seen.at = now;
    if (this.#isAnswered && socket.bytesRead - this.#unreadFrom > this.limits.unreadBytes) return void socket.destroy();
    const isSending = this.#isAnswered ? !request.complete : (body?.awaited ?? false);
    if (seen.sending.use(seconds, socket.bytesRead, isSending)) return this.#tooSlow();
    // Of requests that were sent without waiting for answers, only the first has the connection.
    const isTaking = this.response.socket !== null && socket.writableLength > 0;
    if (!isTaking) seen.taking.refill();
    if (!seen.taking.use(seconds, taken(socket), isTaking)) return;
    this.onSlow('taking');
    socket.destroy();
  }

  #tooSlow(): void {
    this.onSlow('sending');
    if (this.#isAnswered || this.response.headersSent) return void this.request.socket.destroy();
    this.body?.destroy(new HttpError(408, 'The body came too slowly.', { Connection: 'close' }));
  }
}

/** Bytes that the kernel has taken. */
function taken(socket: Socket): number {
  return socket.bytesWritten - socket.writableLength;
}

export class Pacer {
  readonly #watched = new Map<IncomingMessage, Watched>();
  #timer: NodeJS.Timeout | null = null;

  constructor(private readonly limits: HttpLimits) {}

  /** Looks at a request until it is answered and all of it has come. */
  watch(request: IncomingMessage, response: ServerResponse, onSlow: OnSlow): void {
    const watched = new Watched(request, response, this.limits, onSlow);
    this.#watched.set(request, watched);
    this.#timer ??= setInterval(() => this.#look(), this.limits.paceMs).unref();
    response.once('close', () => {
      watched.answered();
      if (watched.isOver) this.#watched.delete(request);
    });
  }

  /** The body is what its reader waits for. */
  paces(request: IncomingMessage, body: RequestBody): void {
    const watched = this.#watched.get(request);
    if (watched) watched.body = body;
  }

  #look(): void {
    const now = performance.now();
    for (const [request, watched] of this.#watched) {
      if (watched.isOver) this.#watched.delete(request);
      else watched.look(now);
    }
    if (this.#watched.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}
