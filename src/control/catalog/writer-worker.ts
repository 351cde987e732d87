/**
 * The catalog's writing thread: takes lists of changes, commits what has queued up as one transaction, answers. Through Kysely, so
 * that what applies changes knows no database. An error of the disk ends it (docs/catalog.md, "Writing").
 */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { Kysely, SqliteDialect } from 'kysely';
import { giveBackRegularly } from '../../xseg/giving-back.ts';
import { applyGroups } from './apply.ts';
import { beginCopy } from './copying.ts';
import { openCatalogWriter } from './open.ts';
import type { CatalogPlace } from './place.ts';
import { KeptStatements } from './statements.ts';
import { type CatalogError, type CatalogTables, QuotaExceeded } from './types.ts';
import type { SentError, WriterAnswer, WriterRequest } from './writer.ts';

/** lists of changes in one transaction, at most */
const GROUP_MAX = 256;
/** the disk is full: in SQLite's words, in PostgreSQL's, in the system's */
const FULL = new Set(['SQLITE_FULL', '53100', 'ENOSPC', 'EDQUOT']);

const port = parentPort!;
const place = workerData as CatalogPlace;
/** gives back what the connection keeps */
let shrink: () => void = () => undefined;
const db = await open();
const beginning = place.kind === 'sqlite' ? 'BEGIN IMMEDIATE' : 'BEGIN';
let closing = false;
/** one group at a time; what comes meanwhile is the next one */
let busy = false;
const queue: Extract<WriterRequest, { changes: unknown }>[] = [];
/** requests of a hold that wait for the end of a group */
const holding: number[] = [];
/** nothing is written meanwhile */
let held = false;
let copies = 0;

async function open(): Promise<Kysely<CatalogTables>> {
  if (place.kind === 'sqlite') {
    const database = new KeptStatements(openCatalogWriter(place.file));
    shrink = () => database.shrink();
    return new Kysely<CatalogTables>({ dialect: new SqliteDialect({ database }) });
  }
  const { openPostgresWriter } = await import('./postgres.ts');
  return openPostgresWriter(place.url, die);
}

/** Out of a promise, so that the thread ends by it. */
function die(error: Error): void {
  setImmediate(() => {
    throw error;
  });
}

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
    const begun = await beginCopying();
    held = false;
    await begun.to(to);
    answer({ id });
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    held = false;
    answer({ id, error: { code: FULL.has(code ?? '') ? 'NO_SPACE' : 'IO', message: `${to}: ${message}` } });
  }
  copies--;
  await work();
}

async function beginCopying(): Promise<{ to: (target: string) => Promise<void> }> {
  if (place.kind === 'sqlite') return beginCopy(place.file);
  const { beginPostgresCopy } = await import('./postgres-copy.ts');
  return beginPostgresCopy(place.url);
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
        beginning,
      );
      for (const [index, { id }] of group.entries()) {
        const result = results[index]!;
        answer(result.ok ? { id } : { id, error: sent(result.error) });
      }
    } catch (error) {
      // Anything but a full disk may mean that what was acknowledged is lost: the thread dies of it, and the daemon with it.
      if (!FULL.has((error as { code?: string }).code ?? '')) throw error;
      for (const { id } of group) answer({ id, error: { code: 'NO_SPACE', message: 'the disk is full' } });
    }
  }
  busy = false;
  if (closing && !held && copies === 0) {
    endGivingBack();
    await db.destroy();
    port.close();
  }
}

port.on('message', (message: WriterRequest) => {
  take(message);
  work().catch(die);
});
const endGivingBack = giveBackRegularly(shrink);
answer({ opened: true });
