/** Backups of a home's two databases, the store and the catalog, of one moment (docs/backup-and-recovery.md). */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import type { BackupReport, Engine } from '../xseg/types.ts';
import type { Catalog } from './catalog/catalog.ts';
import { copyCloud } from './catalog/copying.ts';
import { CATALOG_FILE, cloudFolder, hasCatalog } from './catalog/operator-files.ts';
import { ControlError } from './errors.ts';
import { syncFile } from './folders.ts';
import { STORE_FILE } from './home.ts';

export interface HomeBackup extends BackupReport {
  /** null: there is no catalog in the home */
  catalogBytes: number | null;
}

/**
 * @param catalog the one that is open; null: nobody writes what is in the home
 * @param wanted absolute: a new folder, or one that is there and gets one named after the time
 * @throws {EngineError | ControlError} EXISTS, NOT_FOUND, NO_SPACE, READ_ONLY, IO; nothing is left behind then
 */
export async function backupHome(
  engine: Engine,
  catalog: Catalog | null,
  cloud: string,
  wanted: string,
): Promise<HomeBackup> {
  const target = place(wanted);
  const begun = `${target}.${randomBytes(4).toString('hex')}.new`;
  const started = performance.now();
  const store: { made: Promise<BackupReport> | null } = { made: null };
  /** the store is being copied, and of which moment is decided */
  const fixed = () =>
    new Promise<void>((resolve, reject) => {
      store.made = engine.backup(path.join(begun, STORE_FILE), resolve);
      store.made.then(() => resolve(), reject);
    });
  fs.mkdirSync(begun, { mode: 0o700 });
  try {
    const copy = cloudFolder(begun);
    if (catalog) await catalog.backup(copy, fixed);
    else {
      await fixed();
      if (hasCatalog(cloud)) await copyCloud(cloud, copy);
    }
    const { takenAt, bytes } = await store.made!;
    const catalogBytes = hasCatalog(copy) ? fs.statSync(path.join(copy, CATALOG_FILE)).size : null;
    syncFile(begun);
    refuseWhatIsThere(target);
    fs.renameSync(begun, target);
    syncFile(path.dirname(target));
    const seconds = (performance.now() - started) / 1000;
    return { path: target, takenAt, bytes: bytes + (catalogBytes ?? 0), seconds, catalogBytes };
  } catch (error) {
    await store.made?.catch(() => undefined);
    fs.rmSync(begun, { recursive: true, force: true });
    throw error;
  }
}

function place(wanted: string): string {
  const info = fs.statSync(wanted, { throwIfNoEntry: false });
  if (info === undefined && wanted.endsWith('/')) throw new ControlError('NOT_FOUND', `there is no folder ${wanted}`);
  if (info === undefined) return wanted;
  if (!info.isDirectory()) refuseWhatIsThere(wanted);
  const target = path.join(wanted, `atoll-${new Date().toISOString().replace(/[:.]/g, '-')}`);
  refuseWhatIsThere(target);
  return target;
}

function refuseWhatIsThere(target: string): void {
  if (fs.existsSync(target)) throw new ControlError('EXISTS', `${target} exists; choose another name`);
}
