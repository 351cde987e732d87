/**
 * The catalog's writing thread: takes lists of changes, commits what has queued up as one transaction, answers. SQLite through
 * Kysely, so that what applies changes knows no database. An error of the disk ends it (docs/catalog.md, "Writing").
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Kysely, SqliteDialect } from 'kysely';
import { applyGroups } from './apply.ts';
import { openCatalogWriter } from './open.ts';
import { KeptStatements } from './statements.ts';
import { type CatalogError, type CatalogTables, QuotaExceeded } from './types.ts';
import type { SentError, WriterAnswer, WriterRequest } from './writer.ts';

/** lists of changes in one transaction, at most */
const GROUP_MAX = 256;

const port = parentPort!;
const database = new KeptStatements(openCatalogWriter((workerData as { file: string }).file));
const db = new Kysely<CatalogTables>({ dialect: new SqliteDialect({ database }) });
let closing = false;
/** one group at a time; what comes meanwhile is the next one */
let busy = false;
const queue: Extract<WriterRequest, { changes: unknown }>[] = [];

function answer(message: WriterAnswer): void {
  port.postMessage(message);
}

function sent(error: CatalogError): SentError {
  const { code, message } = error;
  return error instanceof QuotaExceeded ? { code, message, exceeded: error.exceeded } : { code, message };
}

function take(message: WriterRequest): void {
  if ('close' in message) closing = true;
  else queue.push(message);
}

async function work(): Promise<void> {
  if (busy) return;
  busy = true;
  for (;;) {
    for (let more = receiveMessageOnPort(port); more !== undefined; more = receiveMessageOnPort(port))
      take(more.message);
    if (queue.length === 0) break;
    const group = queue.splice(0, GROUP_MAX);
    try {
      const results = await applyGroups(
        db,
        group.map(({ changes }) => changes),
      );
      for (const [index, { id }] of group.entries()) {
        const result = results[index]!;
        answer(result.ok ? { id } : { id, error: sent(result.error) });
      }
    } catch (error) {
      // Anything but a full disk may mean that what was acknowledged is lost: the thread dies of it, and the daemon with it.
      if ((error as { code?: string }).code !== 'SQLITE_FULL') throw error;
      for (const { id } of group) answer({ id, error: { code: 'NO_SPACE', message: 'the disk is full' } });
    }
  }
  busy = false;
  if (closing) {
    await db.destroy();
    port.close();
  }
}

port.on('message', (message: WriterRequest) => {
  take(message);
  work().catch((error: Error) => {
    // Out of the promise, so that the thread ends by it.
    setImmediate(() => {
      throw error;
    });
  });
});
answer({ opened: true });
