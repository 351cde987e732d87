/**
 * Has counted what resources have alone (exclusive.ts), one family at a time, in a thread that is started when somebody
 * asks. The mapper says whether a count still holds.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { moduleUrl } from '../module-url.ts';
import type { FamilyAnswer, FamilyRequest } from './family-count.ts';
import type { AccountingTicket } from './mapper/accounting.ts';
import type { EngineOptions } from './types.ts';

/** Who asks waits so long; what takes longer is there for a later question. */
const WAIT_MS_MAX = 300;
/** Resources that wait to be counted, at most; more have to ask again. */
const QUEUE_MAX = 256;

type Call = <T>(op: string, ...args: unknown[]) => Promise<T>;
type PoolAccount = { exclusiveBytes: number; sharedBytes: number } | { missing: string[] };

export class Accountant {
  #worker: Worker | null = null;
  #waiting = new Map<number, (answer: FamilyAnswer | null) => void>();
  #nextId = 1;
  #queue = new Map<string, Promise<void>>();
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  constructor(
    readonly storePath: string,
    readonly call: Call,
    readonly log: EngineOptions['log'],
  ) {}

  /** Resolves when the resource's family is counted, or after WAIT_MS_MAX. Never rejects. */
  async resource(name: string): Promise<void> {
    await Promise.race([this.#ask(name), sleep(WAIT_MS_MAX, undefined, { ref: false })]);
  }

  /** What is exclusive and shared in a pool; null when that is not known yet. */
  async pool(id: number, how: 'ask' | 'wait'): Promise<{ exclusiveBytes: number; sharedBytes: number } | null> {
    const deadline = performance.now() + (how === 'wait' ? WAIT_MS_MAX : 0);
    for (;;) {
      const account = await this.call<PoolAccount>('poolAccount', id);
      if ('exclusiveBytes' in account) return account;
      const left = deadline - performance.now();
      const all = Promise.all(account.missing.map((name) => this.#ask(name)));
      if (account.missing.length === 0 || left <= 0) return null;
      await Promise.race([all, sleep(left, undefined, { ref: false })]);
    }
  }

  /** One after another. */
  #ask(name: string): Promise<void> {
    const queued = this.#queue.get(name);
    if (queued !== undefined) return queued;
    if (this.#closed || this.#queue.size >= QUEUE_MAX) return Promise.resolve();
    const counted = this.#last
      .then(() => this.#count(name))
      .catch((error: Error) => {
        if (!this.#closed) this.log('warn', 'space could not be accounted', { name, reason: error.message });
      })
      .finally(() => this.#queue.delete(name));
    this.#queue.set(name, counted);
    this.#last = counted;
    return counted;
  }

  async #count(name: string): Promise<void> {
    if (this.#closed) return;
    const ticket = await this.call<AccountingTicket | null>('accountBegin', name);
    if (ticket === null) return;
    const answer = await this.#family(ticket.pool, ticket.family);
    if (answer === null || answer.blocks === null || answer.transient) return;
    await this.call('accountEnd', ticket, answer.blocks, answer.foreign);
  }

  #family(pool: number, family: number): Promise<FamilyAnswer | null> {
    if (this.#closed) return Promise.resolve(null);
    const worker = this.#start();
    const request: FamilyRequest = { id: this.#nextId++, pool, family };
    return new Promise((resolve) => {
      this.#waiting.set(request.id, resolve);
      worker.postMessage(request);
    });
  }

  #start(): Worker {
    if (this.#worker !== null) return this.#worker;
    const worker = new Worker(moduleUrl(import.meta.url, 'exclusive-worker'), {
      workerData: { storePath: this.storePath },
    });
    worker.on('message', (answer: FamilyAnswer) => this.#answer(answer.id, answer));
    worker.on('error', (error) => this.log('warn', 'accounting of space ended', { reason: error.message }));
    worker.on('exit', () => {
      if (this.#worker === worker) this.#worker = null;
      for (const id of [...this.#waiting.keys()]) this.#answer(id, null);
    });
    this.#worker = worker;
    return worker;
  }

  #answer(id: number, answer: FamilyAnswer | null): void {
    const resolve = this.#waiting.get(id);
    this.#waiting.delete(id);
    resolve?.(answer);
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#worker?.terminate();
  }
}
