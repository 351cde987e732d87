/** The near end of the catalog's writing thread. */
import { Worker } from 'node:worker_threads';
import { moduleUrl } from '../../module-url.ts';
import type { CatalogPlace } from './place.ts';
import { CatalogError, type CatalogErrorCode, type Change, type Exceeded, QuotaExceeded } from './types.ts';

export type WriterRequest =
  | { id: number; changes: readonly Change[] }
  /** nothing is written from the answer on, until `copy` or `resume` */
  | { id: number; hold: true }
  /** the catalog as it is now, into a new file */
  | { id: number; copy: string }
  | { resume: true }
  | { close: true };
/** a CatalogError, as it crosses threads */
export interface SentError {
  code: CatalogErrorCode;
  message: string;
  exceeded?: Exceeded;
}
export type WriterAnswer = { opened: true } | { id: number; error?: SentError };

/** requests that wait for a commit; beyond it a writer is told so */
const WAITING_MAX = 10_000;

export class Writer {
  #thread: Worker;
  #waiting = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();
  #last = 0;
  #ended: Error | null = null;
  #closing = false;
  #wasOpen = false;
  readonly opened: Promise<void>;

  /** @param onDeath hears when the thread ends without being asked to, after it opened the catalog; `opened` is for before */
  constructor(place: CatalogPlace, onDeath: (error: Error) => void) {
    this.#thread = new Worker(moduleUrl(import.meta.url, 'writer-worker'), { workerData: place });
    this.opened = new Promise((resolve, reject) => {
      this.#thread.on('message', (message: WriterAnswer) =>
        'opened' in message ? this.#isOpen(resolve) : this.#answered(message),
      );
      this.#thread.once('error', (error) => this.#end(error, reject, onDeath));
      this.#thread.once('exit', () => this.#end(new Error('the catalog was closed'), reject, onDeath));
    });
    this.opened.catch(() => undefined);
  }

  /** @returns when the changes are durable, all of them. @throws {CatalogError} when none is */
  write(changes: readonly Change[]): Promise<void> {
    if (this.#ended || this.#closing)
      return Promise.reject(new CatalogError('IO', 'the catalog takes no writes any more'));
    if (this.#waiting.size >= WAITING_MAX) return Promise.reject(new CatalogError('IO', 'too many writes are waiting'));
    return this.#ask((id) => ({ id, changes }));
  }

  /** @returns when nothing is being written; what comes waits, until resume() or copy() */
  hold(): Promise<void> {
    return this.#ask((id) => ({ id, hold: true }));
  }

  /** Copies the catalog as it is while it is held, and lets writes go on. @param file a new one. @returns when it is durable */
  copy(file: string): Promise<void> {
    return this.#ask((id) => ({ id, copy: file }));
  }

  resume(): void {
    this.#thread.postMessage({ resume: true } satisfies WriterRequest);
  }

  #ask(request: (id: number) => WriterRequest): Promise<void> {
    if (this.#ended) return Promise.reject(new CatalogError('IO', this.#ended.message));
    const id = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#thread.postMessage(request(id));
    });
  }

  /** What was asked for before is done first. */
  async close(): Promise<void> {
    if (this.#closing || this.#ended) return;
    this.#closing = true;
    const exit = new Promise((resolve) => this.#thread.once('exit', resolve));
    this.#thread.postMessage({ close: true } satisfies WriterRequest);
    await exit;
  }

  #isOpen(resolve: () => void): void {
    this.#wasOpen = true;
    resolve();
  }

  #answered({ id, error }: Extract<WriterAnswer, { id: number }>): void {
    const waiter = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (!error) waiter?.resolve();
    else if (error.exceeded) waiter?.reject(new QuotaExceeded(error.exceeded));
    else waiter?.reject(new CatalogError(error.code, error.message));
  }

  #end(error: Error, reject: (error: Error) => void, onDeath: (error: Error) => void): void {
    const isFirst = this.#ended === null;
    this.#ended ??= error;
    reject(error);
    if (isFirst && !this.#closing && this.#wasOpen) onDeath(error);
    for (const waiter of this.#waiting.values()) waiter.reject(new CatalogError('IO', this.#ended.message));
    this.#waiting.clear();
  }
}
