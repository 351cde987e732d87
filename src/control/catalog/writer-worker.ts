/**
 * The catalog's writing thread: takes lists of changes, commits what has queued up as one transaction, answers. SQLite through
 * Kysely, so that what applies changes knows no database. An error of the disk ends it (docs/catalog.md, "Writing").
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Kysely, SqliteDialect } from 'kysely';
import { applyGroups } from './apply.ts';
import { beginCopy } from './copying.ts';
import { openCatalogWriter } from './open.ts';
import { KeptStatements } from './statements.ts';
import { type CatalogError, type CatalogTables, QuotaExceeded } from './types.ts';
import type { SentError, WriterAnswer, WriterRequest } from './writer.ts';

/** lists of changes in one transaction, at most */
const GROUP_MAX = 256;

const port = parentPort!;
const { file } = workerData as { file: string };
const database = new KeptStatements(openCatalogWriter(file));
const db = new Kysely<CatalogTables>({ dialect: new SqliteDialect({ database }) });
let closing = false;
/** one group at a time; what comes meanwhile is the next one */
let busy = false;
const queue: Extract<WriterRequest, { changes: unknown }>[] = [];
/** requests of a hold that wait for the end of a group */
const holding: number[] = [];
/** nothing is written meanwhile */
let held = false;
let copies = 0;

function answer(message: WriterAnswer): void {
  port.postMessage(message);
}

function sent(error: CatalogError): SentError {
  const { code, message } = error;
  return error instanceof QuotaExceeded ? { code, message, exceeded: error.exceeded } : { code, message };
}

function take(message: WriterRequest): void {
  if ('close' in message) closing = true;
  else if ('changes' in message) queue.push(message);
  else if ('hold' in message) holding.push(message.id);
  else if ('copy' in message) void copy(message.id, message.copy);
  else held = false;
}

/** Fixes the moment, and lets writes go on; copies a little in each turn. */
async function copy(id: number, to: string): Promise<void> {
  copies++;
  try {
    const begun = beginCopy(file);
    held = false;
    await begun.to(to);
    answer({ id });
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    const full = code === 'SQLITE_FULL' || code === 'ENOSPC';
    answer({ id, error: { code: full ? 'NO_SPACE' : 'IO', message: `${to}: ${message}` } });
  }
  held = false;
  copies--;
  await work();
}

async function work(): Promise<void> {
  if (busy || held) return;
  busy = true;
  for (;;) {
    for (let more = receiveMessageOnPort(port); more !== undefined; more = receiveMessageOnPort(port))
      take(more.message);
    const hold = holding.shift();
    if (hold !== undefined) {
      held = true;
      answer({ id: hold });
      break;
    }
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
  if (closing && !held && copies === 0) {
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
