/** A backup of the store (docs/backup-and-recovery.md): one consistent moment as one SQLite file, written while it is served. */
import { randomBytes } from 'node:crypto';
import { existsSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname, isAbsolute } from 'node:path';
import { syncFolder } from './copies/files.ts';
import { beginCopyFile, copyStore } from './store/copying.ts';
import { type BackupReport, EngineError, type EngineErrorCode } from './types.ts';

const CODES: Readonly<Record<string, EngineErrorCode>> = {
  ENOSPC: 'NO_SPACE',
  EDQUOT: 'NO_SPACE',
  SQLITE_FULL: 'NO_SPACE',
  EROFS: 'READ_ONLY',
  EACCES: 'READ_ONLY',
  EPERM: 'READ_ONLY',
  ENOENT: 'NOT_FOUND',
  ENOTDIR: 'NOT_FOUND',
};

/**
 * @param path absolute: a new file
 * @param fixed hears when the moment is fixed that the backup shows
 * @throws {EngineError} INVALID, EXISTS, NOT_FOUND, NO_SPACE, READ_ONLY, IO; nothing is left behind then
 */
export async function backupStore(storePath: string, path: string, fixed: () => void): Promise<BackupReport> {
  if (!isAbsolute(path)) throw new EngineError('INVALID', 'the path of a backup has to be absolute');
  const started = performance.now();
  let unfinished: string | null = null;
  try {
    refuseWhatIsThere(path);
    const begun = `${path}.${randomBytes(4).toString('hex')}.new`;
    beginCopyFile(begun);
    unfinished = begun;
    const takenAt = await copyStore(storePath, begun, { paced: () => true, cancelled: () => false, fixed });
    refuseWhatIsThere(path);
    const bytes = statSync(begun).size;
    renameSync(begun, path);
    unfinished = null;
    syncFolder(dirname(path));
    const seconds = (performance.now() - started) / 1000;
    return { path, takenAt: new Date(takenAt).toISOString(), bytes, seconds };
  } catch (error) {
    if (unfinished !== null) for (const end of ['', '-journal']) rmSync(`${unfinished}${end}`, { force: true });
    if (error instanceof EngineError) throw error;
    const { code = '', message } = error as { code?: string; message: string };
    throw new EngineError(CODES[code] ?? 'IO', `backup ${path}: ${message}`);
  }
}

function refuseWhatIsThere(path: string): void {
  if (existsSync(path)) throw new EngineError('EXISTS', `${path} exists; choose another name`);
}
