/**
 * The body of a request, as whatever reads it sees it. Nothing of it is asked of the client before it is read: who waits for
 * `100 Continue` hears it then, which is after the token, and after whatever a route looks at first, such as a quota.
 */
import type { IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { HttpError } from './errors.ts';

export const tooLarge = (bytesMax: number) => new HttpError(413, `The body may have ${bytesMax} bytes.`);

/** Whether there is a body, or is to be one. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || !['0', undefined].includes(headers['content-length']);
}

export class RequestBody extends Readable {
  #started = false;
  #bytes = 0;

  /**
   * @param bytesMax more than that is 413
   * @param onStart hears when it is read first
   */
  constructor(
    private readonly raw: IncomingMessage,
    private readonly bytesMax: number,
    private readonly onStart: () => void,
  ) {
    super();
  }

  /** It is the client that is waited for, and not whoever reads. */
  get awaited(): boolean {
    const { raw } = this;
    const isFull = (stream: Readable) => stream.readableLength >= stream.readableHighWaterMark;
    return this.#started && !this.destroyed && !raw.complete && !isFull(raw) && !isFull(this);
  }

  override _read(): void {
    if (this.#started) return void this.raw.resume();
    this.#started = true;
    this.onStart();
    this.raw
      .on('data', this.#take)
      .once('end', () => this.push(null))
      .once('error', () => undefined)
      .once('close', () => {
        if (!this.raw.complete) this.destroy(new HttpError(400, 'The body ended early.'));
      });
  }

  readonly #take = (chunk: Buffer): void => {
    this.#bytes += chunk.length;
    if (this.#bytes > this.bytesMax) this.destroy(tooLarge(this.bytesMax));
    else if (!this.push(chunk)) this.raw.pause();
  };

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.raw.off('data', this.#take);
    this.raw.pause();
    done(error);
  }
}
