/** Copies of the catalog, for backups, and their way back (docs/backup-and-recovery.md). */
import fs from 'node:fs';
import path from 'node:path';
import { ControlError } from '../errors.ts';
import { makeFolders, syncFile } from '../folders.ts';
import { openCatalogReader } from './open.ts';
import { CATALOG_FILE, hasCatalog, OPENRC_FILE, refuseCatalog } from './operator-files.ts';

/** what signs tokens: whoever has been logged in by a catalog that is gone is not by the one put in its place */
const TOKEN_KEYS_FILE = 'token-keys.json';

/** Fixes the moment that is copied. */
export function beginCopy(file: string): { to: (target: string) => Promise<void> } {
  const db = openCatalogReader(file);
  // a read transaction begins with its first read
  db.exec('BEGIN');
  db.prepare('SELECT count(*) FROM domain').get();
  return {
    /** @param target a new file, 0600 */
    to: async (target) => {
      try {
        fs.closeSync(fs.openSync(target, 'wx', 0o600));
        await db.backup(target);
        syncFile(target);
      } finally {
        db.close();
      }
    },
  };
}

/** @param copy makes the file; default: of a catalog that nobody writes */
export async function copyCloud(
  cloud: string,
  to: string,
  copy: (file: string) => Promise<void> = (file) => beginCopy(path.join(cloud, CATALOG_FILE)).to(file),
): Promise<void> {
  makeFolders(to);
  await copy(path.join(to, CATALOG_FILE));
  copyFile(path.join(cloud, OPENRC_FILE), path.join(to, OPENRC_FILE));
  syncFile(to);
}

/**
 * Puts a copy in the place of a catalog that is gone. No daemon may run there. All tokens end.
 * @param url of a PostgreSQL database without a catalog; undefined: it goes into a file
 * @throws {ControlError} EXISTS, NOT_FOUND, NOT_OURS, FORMAT_NEWER, CORRUPT; HELD, IO of PostgreSQL
 */
export async function restoreCloud(from: string, cloud: string, url?: string): Promise<void> {
  if (url === undefined) refuseCatalog(cloud);
  const copied = path.join(from, CATALOG_FILE);
  if (!hasCatalog(from)) throw new ControlError('NOT_FOUND', `there is no catalog in the backup: ${copied}`);
  makeFolders(cloud);
  fs.chmodSync(cloud, 0o700);
  const file = path.join(cloud, CATALOG_FILE);
  const begun = `${file}.new`;
  remove(begun);
  await beginCopy(copied).to(begun);
  if (url !== undefined) {
    const { fillPostgres } = await import('./postgres-copy.ts');
    await fillPostgres(begun, url).finally(() => remove(begun));
  }
  fs.rmSync(path.join(cloud, TOKEN_KEYS_FILE), { force: true });
  copyFile(path.join(from, OPENRC_FILE), path.join(cloud, OPENRC_FILE));
  if (url === undefined) {
    // A log of the one that was there would be read into this one.
    remove(file);
    fs.renameSync(begun, file);
  }
  syncFile(cloud);
}

function remove(file: string): void {
  for (const name of [file, `${file}-wal`, `${file}-shm`]) fs.rmSync(name, { force: true });
}

/** 0600, and durable; one that is not there is fine. */
function copyFile(from: string, to: string): void {
  fs.rmSync(to, { force: true });
  if (!fs.existsSync(from)) return;
  fs.copyFileSync(from, to, fs.constants.COPYFILE_EXCL);
  fs.chmodSync(to, 0o600);
  syncFile(to);
}
