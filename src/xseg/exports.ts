/** NBD exports: tells the NBD server (native) what there is, opens and releases it for connections. */
import { takeApart } from './names.ts';
import type { Native, NbdEvents } from './native.ts';
import { type Engine, EngineError, type EngineErrorCode, type EngineOptions } from './types.ts';

export const CONNECTIONS_MAX = 1024;
/** A client that does not finish negotiating in this time is dropped. */
export const NEGOTIATION_MS_MAX = 10_000;
/** Payload memory one connection may hold. */
export const CONNECTION_BYTES_MAX = 72 * 1024 * 1024;
export const CHANGED_SINCE = 'atoll:changed-since:';
const BASE_ALLOCATION = 0xffffffff;

const ERRNO: Partial<Record<EngineErrorCode, number>> = {
  NOT_FOUND: 2,
  IO: 5,
  CORRUPT: 5,
  BUSY: 16,
  INVALID: 22,
  NO_SPACE: 28,
  READ_ONLY: 30,
  SHUTTING_DOWN: 108,
};

function errnoOf(error: unknown): { error: number; message: string } {
  if (error instanceof EngineError) return { error: ERRNO[error.code] ?? 5, message: error.message };
  return { error: 5, message: (error as Error).message };
}

export class Exports {
  #started = false;
  #listeners: number[] = [];

  constructor(
    readonly native: Native,
    readonly core: number,
    readonly engine: Engine,
    readonly log: EngineOptions['log'],
  ) {}

  #events(): NbdEvents {
    return {
      open: (token, name) => void this.#open(token, name),
      list: (token) => void this.#list(token),
      contexts: (token, name, queries, listing) => void this.#contexts(token, name, queries, listing),
      closed: (_connection, handle, readOnly) => void this.engine.release(handle, readOnly).catch(() => undefined),
    };
  }

  async #open(token: number, name: string): Promise<void> {
    try {
      // of a volume that another one has attached, its clients may read
      const open = await this.engine.open(name, 'any');
      this.native.nbdAnswerOpen(this.core, token, {
        ...open,
        error: 0,
        description: open.name.includes('@') ? 'snapshot' : open.readOnly ? 'volume, attached' : 'volume',
      });
    } catch (error) {
      this.native.nbdAnswerOpen(this.core, token, errnoOf(error));
    }
  }

  async #list(token: number): Promise<void> {
    const all: { name: string; description: string }[] = [];
    try {
      for (const v of await this.engine.listVolumes())
        all.push({ name: v.name, description: `volume, ${v.size} bytes` });
      for (const s of await this.engine.listSnapshots())
        all.push({ name: s.name, description: `snapshot, ${s.size} bytes` });
    } catch (error) {
      this.log('error', 'exports could not be listed', { reason: (error as Error).message });
    }
    this.native.nbdAnswerList(this.core, token, all);
  }

  /** base:allocation always; atoll:changed-since:SNAP for snapshots of the export's volume. */
  async #contexts(token: number, exported: string, queries: string[], listing: boolean): Promise<void> {
    const [name] = takeApart(exported);
    const volume = name.split('@')[0];
    const contexts = new Map<string, number>();
    try {
      const info = name.includes('@') ? await this.engine.showSnapshot(name) : await this.engine.showVolume(name);
      const wanted = queries.length === 0 && listing ? ['base:', 'atoll:'] : queries;
      for (const query of wanted) {
        if (query === 'base:allocation' || (listing && query === 'base:'))
          contexts.set('base:allocation', BASE_ALLOCATION);
        if (listing && (query === 'atoll:' || query === CHANGED_SINCE)) {
          for (const s of await this.engine.listSnapshots(volume))
            if (s.name !== info.name) contexts.set(CHANGED_SINCE + s.snapshot, 0);
        } else if (query.startsWith(CHANGED_SINCE) && query.length > CHANGED_SINCE.length) {
          await this.#changedSince(`${volume}@${query.slice(CHANGED_SINCE.length)}`, query, listing, contexts);
        }
      }
      this.native.nbdAnswerContexts(this.core, token, {
        error: 0,
        contexts: [...contexts].map(([n, handle]) => ({ name: n, handle })),
      });
    } catch (error) {
      if (!listing) this.#releaseAll(contexts);
      this.native.nbdAnswerContexts(this.core, token, { error: errnoOf(error).error, contexts: [] });
    }
  }

  /** What was opened for an answer that no connection got. */
  #releaseAll(contexts: Map<string, number>): void {
    for (const handle of contexts.values())
      if (handle !== BASE_ALLOCATION) void this.engine.release(handle, true).catch(() => undefined);
  }

  async #changedSince(snapshot: string, query: string, listing: boolean, contexts: Map<string, number>): Promise<void> {
    try {
      if (listing) {
        await this.engine.showSnapshot(snapshot);
        contexts.set(query, 0);
      } else {
        contexts.set(query, (await this.engine.open(snapshot, 'read')).handle);
      }
    } catch (error) {
      // a context that does not exist is left out of the answer, as the protocol wants
      if (!(error instanceof EngineError) || error.code !== 'NOT_FOUND') throw error;
    }
  }

  listen(address: string, mode?: number): string {
    if (!this.#started) {
      this.native.nbdStart(this.core, this.#events(), {
        connectionsMax: CONNECTIONS_MAX,
        negotiationMs: NEGOTIATION_MS_MAX,
        connectionBytesMax: CONNECTION_BYTES_MAX,
      });
      this.#started = true;
    }
    const { id, address: bound } = this.native.nbdListen(this.core, address, mode);
    this.#listeners.push(id);
    return bound;
  }

  disconnect(handle: number): void {
    if (this.#started) this.native.nbdDisconnect(this.core, handle);
  }

  /** Ends listeners and connections, after what is on its way was answered. */
  async close(): Promise<void> {
    if (!this.#started) return;
    for (const id of this.#listeners) this.native.nbdClose(this.core, id);
    this.#listeners = [];
    this.native.nbdStop(this.core);
    // what connections held is given back by events that are on their way to this thread
    await new Promise((resolve) => setImmediate(resolve));
  }
}
