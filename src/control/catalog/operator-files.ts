/**
 * What the operator of this machine may read and nobody else (0600, in a folder of 0700): the passwords that the first start made up,
 * for `atoll openrc`, and a key that proves to the daemon that a command could read this folder.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { ControlError } from '../errors.ts';

export type OpenrcName = 'admin' | 'demo';

interface OpenrcFile {
  url: string | null;
  users: Partial<Record<OpenrcName, { project: string; password: string }>>;
}

/** what `atoll openrc` prints, and what other clients read */
export type Openrc = Record<string, string>;

export const CATALOG_FILE = 'catalog.db';
export const OPENRC_FILE = 'openrc.json';
const KEY_FILE = 'operator.key';

export function cloudFolder(home: string): string {
  return path.join(home, 'cloud');
}

export function hasCatalog(cloud: string): boolean {
  const info = fs.statSync(path.join(cloud, CATALOG_FILE), { throwIfNoEntry: false });
  return info !== undefined && info.size > 0;
}

/** @throws {ControlError} EXISTS */
export function refuseCatalog(cloud: string): void {
  if (hasCatalog(cloud))
    throw new ControlError('EXISTS', `there is a catalog: ${path.join(cloud, CATALOG_FILE)}; move ${cloud} away`);
}

/** @throws {ControlError} NOT_FOUND when there is nothing to print that would work */
export function readOpenrc(home: string, name: OpenrcName): Openrc {
  const file = load(cloudFolder(home));
  const user = file?.users[name];
  if (!file || file.url === null) {
    throw new ControlError('NOT_FOUND', `no daemon has served HTTP from ${home} yet; start one with \`atoll serve\``);
  }
  if (!user) {
    const why = `the password of ${name} was changed elsewhere, and only its hash is kept`;
    throw new ControlError('NOT_FOUND', `${why}; \`atoll passwd ${name}\` makes a new one`);
  }
  return {
    OS_AUTH_URL: `${file.url}/identity/v3`,
    OS_IDENTITY_API_VERSION: '3',
    OS_USERNAME: name,
    OS_PASSWORD: user.password,
    OS_USER_DOMAIN_ID: 'default',
    OS_PROJECT_NAME: user.project,
    OS_PROJECT_DOMAIN_ID: 'default',
    OS_REGION_NAME: 'RegionOne',
  };
}

/** @throws {ControlError} NOT_FOUND where no daemon made one */
export function readOperatorKey(home: string): string {
  try {
    return fs.readFileSync(path.join(cloudFolder(home), KEY_FILE), 'utf8').trim();
  } catch (error) {
    if ((error as { code?: string }).code !== 'ENOENT') throw error;
    throw new ControlError('NOT_FOUND', `no daemon has served HTTP from ${home} yet; start one with \`atoll serve\``);
  }
}

export class OperatorFiles {
  readonly #key = randomBytes(32).toString('hex');
  #file: OpenrcFile;

  constructor(readonly folder: string) {
    this.#file = load(folder) ?? { url: null, users: {} };
    // Good for this run only: not worth a sync.
    write(path.join(folder, KEY_FILE), `${this.#key}\n`, false);
  }

  isKey(text: unknown): boolean {
    if (typeof text !== 'string' || text.length !== this.#key.length) return false;
    const [given, own] = [Buffer.from(text), Buffer.from(this.#key)];
    return given.length === own.length && timingSafeEqual(given, own);
  }

  setUrl(url: string): void {
    if (this.#file.url === url) return;
    this.#file.url = url;
    this.#save();
  }

  /** @param passwords null: it is no longer known */
  setPasswords(passwords: Partial<Record<OpenrcName, string | null>>): void {
    for (const [name, password] of Object.entries(passwords) as [OpenrcName, string | null][]) {
      if (password === null) delete this.#file.users[name];
      else this.#file.users[name] = { project: name, password };
    }
    this.#save();
  }

  #save(): void {
    write(path.join(this.folder, OPENRC_FILE), `${JSON.stringify(this.#file, null, 2)}\n`, true);
  }
}

function load(folder: string): OpenrcFile | null {
  try {
    return JSON.parse(fs.readFileSync(path.join(folder, OPENRC_FILE), 'utf8')) as OpenrcFile;
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return null;
    throw error;
  }
}

/** Whole or not at all; and durable, when what is in it is nowhere else. */
function write(file: string, text: string, durable: boolean): void {
  const fd = fs.openSync(`${file}.new`, 'w', 0o600);
  try {
    fs.writeSync(fd, text);
    if (durable) fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(`${file}.new`, file);
  if (!durable) return;
  const folder = fs.openSync(path.dirname(file), 'r');
  try {
    fs.fsyncSync(folder);
  } finally {
    fs.closeSync(folder);
  }
}
