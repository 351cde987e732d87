/**
 * A home from its pools alone (docs/backup-and-recovery.md): takes the newest copy of the store that each pool carries and is
 * whole, keeps what that pool needs of it, and makes one store of them. Offline; changes nothing in the pools.
 */
import {
  chmodSync,
  closeSync,
  copyFileSync,
  existsSync,
  fsyncSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { checkStore } from '../check.ts';
import { openHome } from '../home.ts';
import { loadNative, type Native } from '../native.ts';
import { dataOffsetOf, decodeSuperblock, readSuperblockBytes, type Superblock } from '../pool-superblock.ts';
import { crcOf, placeOf, poolSpec } from '../pools.ts';
import { GROUP_ACTIVE, KIND_SNAPSHOT, KIND_VOLUME, type PoolRow } from '../store/batch.ts';
import { openReader, openWriter, type StoreDatabase } from '../store/schema.ts';
import { FORMAT_VERSION } from '../store/upgrade.ts';
import { type CheckReport, EngineError } from '../types.ts';
import { type CopyFile, findCopies, isServing, lineOf, openCopy, readAt, syncFolder } from './files.ts';
import { COPY_CHUNK_BYTES, type CopyFooter, tableBytes } from './footer.ts';
import { beginLine, mayServe, readLine } from './lines.ts';
import { keepPool, mergeStore } from './parts.ts';
import { type CopyPlace, labelOf } from './place.ts';

/** Frames of the core that holds the pools meanwhile; nothing is mapped. */
const FRAMES = 4096;

export interface RecoverOptions {
  /** folders, files and devices of pools, of one home */
  pools: string[];
  /** folder of the new home, without a store */
  home: string;
  /** a backup to take instead of the copies that the pools carry */
  from?: string;
  /** take the backup although a pool cannot prove that it has not used slots again since */
  force?: boolean;
  onProgress?: (done: number, total: number) => void;
}

export interface RecoveredPool {
  name: string;
  path: string;
  /** the copy or backup that was taken */
  source: string;
  /** of the copy; null for a backup */
  sequence: number | null;
  /** ISO 8601, UTC: the moment that came back; null for a backup, whose file says when it was made */
  takenAt: string | null;
  ageSeconds: number | null;
  /** made by a clean stop that nothing came after: nothing is lost */
  complete: boolean;
  /** copies that could not be taken */
  damaged: { file: string; reason: string }[];
}

export interface RecoverReport {
  home: string;
  pools: RecoveredPool[];
  volumes: number;
  snapshots: number;
  /** volumes that had the name of one of another pool */
  renamed: { from: string; to: string }[];
  /** pools of the old home that were not given: what was in them is not in the new one */
  missingPools: { name: string; path: string }[];
  check: CheckReport;
}

interface Source {
  /** or the file or device */
  folder: string;
  superblock: Superblock;
  /** null: it carries no copies */
  place: CopyPlace | null;
}

/** @throws {EngineError} INVALID, EXISTS, NOT_FOUND, NOT_OURS, HELD, UNSUPPORTED, CORRUPT, FORMAT_NEWER, STALE, NO_SPACE, IO */
export function recoverHome(options: RecoverOptions): RecoverReport {
  const native = loadNative();
  const sources = findSources(options, native);
  const home = openHome(resolve(options.home));
  let core = -1;
  const work = join(home.path, 'store.db.recovering');
  try {
    refuseStore(home.storePath);
    core = native.createCore({ reactors: 1, frames: FRAMES, spinUs: 0, ioThreads: 1, ioUring: false });
    for (const source of sources) holdPool(source, native, core);
    const report = build(sources, options, work, native);
    nameStore(work, home.storePath, home.path);
    return { home: home.path, ...report };
  } catch (error) {
    throw error instanceof EngineError ? error : diskError(error);
  } finally {
    removeStore(work);
    removeStore(`${work}.part`);
    if (core >= 0) native.destroyCore(core);
    home.unlock();
  }
}

function diskError(error: unknown): EngineError {
  const { code = '', message } = error as { code?: string; message: string };
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'SQLITE_FULL') return new EngineError('NO_SPACE', message);
  return new EngineError('IO', message);
}

function findSources(options: RecoverOptions, native: Native): Source[] {
  const { pools: paths, from } = options;
  if (paths.length === 0) throw new EngineError('INVALID', 'say which pool: the folder that has its superblock');
  const sources: Source[] = [];
  for (const path of paths) {
    const source = findSource(resolve(path), from !== undefined, native);
    const first = sources[0] ?? source;
    if (source.superblock.homeUuid !== first.superblock.homeUuid)
      throw new EngineError('NOT_OURS', `${source.folder} and ${first.folder} are pools of different homes`);
    if (sources.some((s) => s.superblock.poolUuid === source.superblock.poolUuid))
      throw new EngineError('INVALID', `${source.folder} is given twice`);
    sources.push(source);
  }
  return sources;
}

function findSource(path: string, backup: boolean, native: Native): Source {
  const info = statSync(path, { throwIfNoEntry: false });
  if (info === undefined) throw new EngineError('NOT_FOUND', `there is no pool at ${path}`);
  const at = info.isDirectory() ? join(path, 'superblock') : path;
  if (!existsSync(at)) throw new EngineError('NOT_OURS', `${path} is not a pool: it has no superblock`);
  const superblock = decodeSuperblock(readSuperblockBytes(at), at, crcOf(native));
  if (superblock === null) throw new EngineError('NOT_OURS', `${path} is not a pool: its superblock is empty`);
  const place = placeOf(path, superblock);
  if (place === null && !backup)
    throw new EngineError(
      'UNSUPPORTED',
      `${path} is a pool in a ${superblock.kind} without a place for copies of its store; give a backup with --from`,
    );
  return { folder: path, superblock, place };
}

/** A store in which a first start got no further than its tables is none. */
function refuseStore(storePath: string): void {
  if (!existsSync(storePath) || statSync(storePath).size === 0) return;
  try {
    const db = openReader(storePath);
    try {
      const found = db.prepare("SELECT value FROM meta WHERE key = 'home_uuid'").pluck().get();
      if (found === undefined) return;
    } finally {
      db.close();
    }
  } catch {
    // whatever it is, it is not ours to replace
  }
  throw new EngineError('EXISTS', `there is a store: ${storePath}; move it away, or choose another --home`);
}

/** As a daemon would hold it; so none serves it meanwhile. @throws {EngineError} HELD */
function holdPool({ folder, superblock }: Source, native: Native, core: number): void {
  const row = { driver: 'local', kind: superblock.kind, path: folder, size: 0, direct: 0, preallocate: 0 };
  const geometry = { block_shift: superblock.blockShift, group_slots: superblock.groupSlots };
  try {
    native.openPool(core, poolSpec({ ...row, ...geometry } as PoolRow, dataOffsetOf(superblock)));
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    throw new EngineError(code === 'EBUSY' ? 'HELD' : 'IO', message);
  }
}

function build(sources: Source[], options: RecoverOptions, work: string, native: Native): Omit<RecoverReport, 'home'> {
  const pools: RecoveredPool[] = [];
  const missing = new Map<string, string>();
  const renamed: RecoverReport['renamed'] = [];
  const lines = new Set<string>();
  let store: StoreDatabase | null = null;
  try {
    for (const source of sources) {
      const file: string = store === null ? work : `${work}.part`;
      removeStore(file);
      const { part, taken }: { part: Part; taken: Taken } =
        options.from === undefined ? takeCopy(source, file, native) : takeBackup(source, options, file, native);
      for (const one of part.pools)
        if (!sources.some((s) => s.superblock.poolUuid === one.uuid)) missing.set(one.name, one.path);
      pools.push({ name: part.name, path: source.folder, ...taken });
      const line = source.place === null ? null : lineOf(source.place, copiesOf(source, source.place, native));
      if (line !== null) lines.add(line);
      if (store === null) store = part.db;
      else {
        part.db.close();
        renamed.push(...mergeStore(store, file, part.name));
      }
    }
    const whole = store as StoreDatabase;
    whole.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES ('clean', 0)").run();
    beginLine(whole, lines);
    const count = whole.prepare('SELECT count(*) FROM resource WHERE kind = ?').pluck();
    const volumes = count.get(KIND_VOLUME) as number;
    const snapshots = count.get(KIND_SNAPSHOT) as number;
    emptyLog(whole, work);
    whole.close();
    store = null;
    const check = checkStore(work, native, options.onProgress ?? (() => undefined));
    const missingPools = [...missing].map(([name, path]) => ({ name, path }));
    return { pools, volumes, snapshots, renamed, missingPools, check };
  } finally {
    store?.close();
  }
}

/** All of it into the file: that alone is renamed, and closing does not say when it could not. @throws {EngineError} IO */
function emptyLog(db: StoreDatabase, file: string): void {
  const [{ busy }] = db.pragma('wal_checkpoint(TRUNCATE)') as [{ busy: number }];
  if (busy !== 0 || (statSync(`${file}-wal`, { throwIfNoEntry: false })?.size ?? 0) !== 0)
    throw new EngineError('IO', `${file} could not be written out of its log`);
}

function poolOf(db: StoreDatabase, source: Source): PoolRow {
  const row = db.prepare('SELECT * FROM pool WHERE uuid = ?').get(source.superblock.poolUuid) as PoolRow | undefined;
  const home = db.prepare("SELECT value FROM meta WHERE key = 'home_uuid'").pluck().get();
  if (row === undefined || home !== source.superblock.homeUuid)
    throw new EngineError('NOT_OURS', `the store that was found does not know the pool at ${source.folder}`);
  return row;
}

type Taken = Omit<RecoveredPool, 'name' | 'path'>;

/** What one pool needs, of the store that was taken for it. */
interface Part {
  db: StoreDatabase;
  /** the pool's */
  name: string;
  /** of the home */
  pools: Pick<PoolRow, 'name' | 'path' | 'uuid'>[];
}

function openPart(file: string, source: Source, native: Native): Part {
  const db = openWriter(file);
  try {
    const row = poolOf(db, source);
    const pools = db.prepare('SELECT name, path, uuid FROM pool').all() as Part['pools'];
    keepPool(db, row.id, native);
    unsureOfSlots(db, row, source);
    return { db, name: row.name, pools };
  } catch (error) {
    db.close();
    throw error;
  }
}

function copiesOf({ superblock }: Source, place: CopyPlace, native: Native): CopyFile[] {
  return findCopies(place, crcOf(native), superblock);
}

/** The newest copy that is whole, put into `file`; what SQLite finds broken is not. */
function takeCopy(source: Source, file: string, native: Native): { part: Part; taken: Taken } {
  const { folder } = source;
  const place = source.place as CopyPlace;
  const found = copiesOf(source, place, native);
  const damaged: Taken['damaged'] = [];
  for (const copy of found) {
    if (copy.footer === null && copy.error?.code !== 'FORMAT_NEWER') {
      damaged.push({ file: copy.name, reason: copy.error?.message ?? 'it has no footer' });
      continue;
    }
    try {
      const footer = wanted(copy, place);
      extract(place, copy.name, footer, file, native);
      const part = openPart(file, source, native);
      const taken = {
        source: copy.name,
        sequence: footer.sequence,
        takenAt: new Date(footer.takenAt).toISOString(),
        ageSeconds: Math.max(0, (Date.now() - footer.takenAt) / 1000),
        // One whose footer cannot be read comes last in the list, and may be the newest.
        complete:
          footer.clean && damaged.length === 0 && found.every((one) => one.footer !== null) && !isServing(place),
        damaged: [...damaged, ...restOf(found, copy)],
      };
      return { part, taken };
    } catch (error) {
      removeStore(file);
      if (!isDamage(error)) throw error;
      damaged.push({ file: copy.name, reason: error.message });
    }
  }
  const reasons = damaged.map(({ reason }) => reason).join('; ');
  throw new EngineError(
    found.length === 0 ? 'NOT_FOUND' : 'CORRUPT',
    `the pool at ${folder} carries no ${found.length === 0 ? '' : 'whole '}copy of its store${reasons && `: ${reasons}`}`,
  );
}

/** Of what was read; what keeps us from writing it is not. */
function isDamage(error: unknown): error is Error {
  const { code = '', message } = error as { code?: string; message: string };
  if (code === 'CORRUPT' || code === 'NOT_OURS' || code === 'SQLITE_NOTADB' || code.startsWith('SQLITE_CORRUPT'))
    return true;
  // as opening a store says it
  return code === 'IO' && /malformed|not a database/.test(message);
}

/** Those behind the one that was taken, and of no use. */
function restOf(found: readonly CopyFile[], taken: CopyFile): Taken['damaged'] {
  return found
    .slice(found.indexOf(taken) + 1)
    .flatMap(({ name, error }) => (error === null ? [] : [{ file: name, reason: error.message }]));
}

function wanted(copy: CopyFile, place: CopyPlace): CopyFooter {
  if (copy.footer === null) throw copy.error ?? new EngineError('CORRUPT', `${copy.name} has no footer`);
  const { format } = copy.footer;
  if (format > FORMAT_VERSION)
    throw new EngineError(
      'FORMAT_NEWER',
      `${labelOf(place, copy.name)} has format ${format}, this Atoll knows ${FORMAT_VERSION}; use the newer Atoll that wrote it`,
    );
  return copy.footer;
}

/** Takes the store out of a copy, each piece of it checked. @throws {EngineError} CORRUPT */
function extract(place: CopyPlace, name: string, footer: CopyFooter, file: string, native: Native): void {
  const path = labelOf(place, name);
  const reader = openCopy(place, name);
  if (reader === null) throw new EngineError('CORRUPT', `${path} is gone`);
  const { fd: from, at: start } = reader;
  const to = openSync(file, 'wx', 0o600);
  try {
    const table = readAt(from, start + footer.bytes, tableBytes(footer.bytes), path);
    if (native.crc32c(table, 0) !== footer.tableCrc)
      throw new EngineError('CORRUPT', `the checksums of ${path} are damaged`);
    for (let at = 0, i = 0; at < footer.bytes; at += COPY_CHUNK_BYTES, i++) {
      const chunk = readAt(from, start + at, Math.min(COPY_CHUNK_BYTES, footer.bytes - at), path);
      if (native.crc32c(chunk, 0) !== table.readUInt32LE(i * 4))
        throw new EngineError('CORRUPT', `${path} is damaged at byte ${at}`);
      for (let done = 0; done < chunk.length; ) done += writeSync(to, chunk, done, chunk.length - done, at + done);
    }
  } finally {
    closeSync(to);
    closeSync(from);
  }
}

/** A backup, if it is not older than what the pool has used again. */
function takeBackup(
  source: Source,
  options: RecoverOptions,
  file: string,
  native: Native,
): { part: Part; taken: Taken } {
  const from = resolve(options.from as string);
  if (!statSync(from, { throwIfNoEntry: false })?.isFile())
    throw new EngineError('NOT_FOUND', `there is no backup ${from}`);
  const fd = openSync(from, 'r');
  try {
    const head = readAt(fd, 0, 16, from).toString('latin1');
    if (head !== 'SQLite format 3\0') throw new EngineError('NOT_OURS', `${from} is not a backup of a store`);
  } finally {
    closeSync(fd);
  }
  copyFileSync(from, file);
  chmodSync(file, 0o600);
  const db = openWriter(file);
  try {
    poolOf(db, source);
  } catch (error) {
    db.close();
    throw error;
  }
  const next = Number(db.prepare("SELECT value FROM meta WHERE key = 'next_copy'").pluck().get() ?? 0);
  const line = readLine(db);
  db.close();
  const copies = source.place === null ? [] : copiesOf(source, source.place, native);
  if (options.force !== true && source.place !== null && !mayServe(line, lineOf(source.place, copies)))
    throw new EngineError(
      'STALE',
      `the pool at ${source.folder} was served by a store that was recovered after ${basename(from)} was made; recover without --from`,
    );
  const oldest = copies.length === 0 || copies.some((c) => c.footer === null) ? null : copies[copies.length - 1].footer;
  if (options.force !== true && (oldest === null || next - 1 < oldest.sequence))
    throw new EngineError(
      'STALE',
      oldest === null
        ? `the pool at ${source.folder} has no whole copies to prove that it used no slot again since the backup; --force takes it, if nothing was written since`
        : `${basename(from)} is older than what the pool at ${source.folder} has used again; recover without --from`,
    );
  const taken = { source: from, sequence: null, takenAt: null, ageSeconds: null, complete: false, damaged: [] };
  return { part: openPart(file, source, native), taken };
}

/**
 * Slots may have been written after the copy: nothing is known of free ones, also in groups that were made after it. (Of those of a file or
 * device without a row nothing is known anyway.)
 */
function unsureOfSlots(db: StoreDatabase, row: PoolRow, source: Source): void {
  const names = source.superblock.kind === 'directory' ? readdirSync(source.folder) : [];
  const files = names.filter((name) => /^s[0-9a-f]{8}$/.test(name));
  const groups = files.map((name) => Number.parseInt(name.slice(1), 16));
  const end = Math.max(-1, ...groups) + 1;
  const span = row.group_slots * 2 ** row.block_shift;
  // grown since
  const size = row.size === 0 || end <= Math.ceil(row.size / span) ? row.size : end * span;
  db.transaction(() => {
    db.prepare('UPDATE pool SET path = ?, size = ? WHERE id = ?').run(source.folder, size, row.id);
    db.prepare('UPDATE slot_group SET state = ?, dirty = NULL WHERE pool = ?').run(GROUP_ACTIVE, row.id);
    const put = db.prepare(
      'INSERT OR IGNORE INTO slot_group (pool, grp, used, state, bitmap, dirty) VALUES (?, ?, 0, ?, ?, NULL)',
    );
    for (const grp of groups) put.run(row.id, grp, GROUP_ACTIVE, Buffer.alloc(row.group_slots / 8));
  })();
}

/** Makes the work the home's store. The log of a store that is gone must not be taken for the new one's. */
function nameStore(work: string, storePath: string, folder: string): void {
  const fd = openSync(work, 'r+');
  fsyncSync(fd);
  closeSync(fd);
  for (const end of ['-wal', '-shm'])
    if (existsSync(`${storePath}${end}`)) renameSync(`${storePath}${end}`, `${storePath}${end}.lost`);
  syncFolder(folder);
  renameSync(work, storePath);
  syncFolder(folder);
}

function removeStore(file: string): void {
  for (const end of ['', '-journal', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
}
