/** A home folder: private, locked by one daemon, with a store. */
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { EngineError } from './types.ts';

export interface Home {
  path: string;
  storePath: string;
  unlock(): void;
}

/**
 * Makes the folder (0700) if needed and locks it. The lock is a SQLite file held in exclusive mode: the kernel lets it go
 * when the process ends, however it ends.
 * @throws {EngineError} HELD with who holds it; NOT_OURS; IO; READ_ONLY
 */
export function openHome(path: string): Home {
  try {
    makeFolder(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST' || code === 'ENOTDIR')
      throw new EngineError('NOT_OURS', `${path} is not a folder; choose another home`);
    throw new EngineError(
      code === 'EROFS' ? 'READ_ONLY' : code === 'ENOSPC' ? 'NO_SPACE' : 'IO',
      `home ${path}: ${message}`,
    );
  }
  const info = statSync(path);
  if (process.getuid !== undefined && info.uid !== process.getuid() && process.getuid() !== 0) {
    throw new EngineError('NOT_OURS', `${path} belongs to another user`);
  }
  if ((info.mode & 0o077) !== 0) chmodSync(path, 0o700);
  const holderPath = join(path, 'holder');
  const lock = takeLock(join(path, 'lock'), holderPath, path);
  writeFileSync(holderPath, `pid ${process.pid} on ${hostname()}\n`, { mode: 0o600 });
  return { path, storePath: join(path, 'store.db'), unlock: () => lock.close() };
}

/**
 * A private folder, if it is not there; its parent must be. Not `recursive`: where a file system answers ENOENT for a folder
 * whose parent is there (/proc does), Node tries for ever.
 */
export function makeFolder(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) return;
  mkdirSync(path, { mode: 0o700 });
}

function takeLock(lockPath: string, holderPath: string, home: string): Database.Database {
  let lock: Database.Database | undefined;
  try {
    lock = new Database(lockPath, { timeout: 0 });
    lock.pragma('locking_mode = EXCLUSIVE');
    lock.exec('BEGIN EXCLUSIVE; CREATE TABLE IF NOT EXISTS held (at); COMMIT;');
    return lock;
  } catch (error) {
    lock?.close();
    const { code, message } = error as { code?: string; message: string };
    if (code === 'SQLITE_BUSY')
      throw new EngineError(
        'HELD',
        `${home} is held by another daemon (${holder(holderPath)}); stop it, or use another --home`,
      );
    if (code === 'SQLITE_READONLY' || code === 'SQLITE_CANTOPEN')
      throw new EngineError('READ_ONLY', `home ${home} cannot be written: ${message}`);
    if (code === 'SQLITE_FULL') throw new EngineError('NO_SPACE', `home ${home}: the disk is full`);
    throw new EngineError(code === 'SQLITE_NOTADB' ? 'NOT_OURS' : 'IO', `home ${home}: ${message}`);
  }
}

function holder(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return 'unknown process';
  }
}
