/** Catalogs in temporary folders, for tests. Compiled, since the catalog's thread is. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import Database from 'better-sqlite3';
import { afterAll, beforeAll } from 'vitest';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import type { EngineSide } from '../../../src/control/catalog/roots.ts';
import { Cluster, queryPostgres, WITHOUT_POSTGRES } from './postgres.ts';

export const CATALOG_MODULE = new URL('../../../dist/src/control/catalog/catalog.js', import.meta.url).href;
const { LocalCatalog: Local } = (await import(
  CATALOG_MODULE
)) as typeof import('../../../src/control/catalog/catalog.ts');

/** One folder, and the catalogs that are opened in it one after another. */
export class CatalogFolder {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-catalog-'));
  readonly folder: string;
  readonly deaths: string[] = [];
  readonly #open: LocalCatalog[] = [];

  /**
   * @param below name of a folder above it, in `dir`
   * @param url of a PostgreSQL database, in the place of a file
   */
  constructor(
    below = '.',
    readonly url?: string,
  ) {
    this.folder = path.join(this.dir, below, 'cloud');
  }

  open(engine?: EngineSide): LocalCatalog {
    const catalog = Local.open(this.folder, (reason) => void this.deaths.push(reason), {
      ...(engine ? { engine } : {}),
      url: this.url,
    });
    this.#open.push(catalog);
    return catalog;
  }

  /** What another connection sees. */
  async select(text: string): Promise<Record<string, unknown>[]> {
    if (this.url !== undefined) return queryPostgres(this.url, text);
    const db = new Database(path.join(this.folder, 'catalog.db'), { readonly: true });
    const rows = db.prepare(text).all() as Record<string, unknown>[];
    db.close();
    return rows;
  }

  /** @param meanwhile when the catalogs are closed, before the folder goes */
  async end(meanwhile: () => Promise<void> = async () => undefined): Promise<void> {
    for (const catalog of this.#open.splice(0)) await catalog.close();
    await meanwhile();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /**
   * Runs a script in a process of its own, with `catalog` open in this folder, and kills it when it calls `now()`.
   * @param script the body of an async function; has `catalog`, `now` and `project` (demo's id)
   * @param first what comes before the catalog is made (and sets `engine` perhaps), and before it is opened
   */
  async killed(script: string, first: { made?: string; opened?: string } = {}): Promise<void> {
    const source = `
      const { LocalCatalog } = await import(${JSON.stringify(CATALOG_MODULE)});
      const now = () => new Promise(() => { console.log('now'); setInterval(() => undefined, 1000); });
      let side;
      ${first.made ?? ''}
      const catalog = LocalCatalog.open(${JSON.stringify(this.folder)}, (reason) => { throw new Error(reason); }, { engine: side, url: ${JSON.stringify(this.url)} });
      ${first.opened ?? ''}
      const db = await catalog.reader();
      const { id: project } = await db.selectFrom('project').select('id').where('name', '=', 'demo').executeTakeFirstOrThrow();
      ${script}
      throw new Error('nobody killed it');`;
    // A file: threads would inherit the options that a script on the command line needs, and refuse them.
    const file = path.join(this.dir, 'killed.mjs');
    fs.writeFileSync(file, source);
    const child = spawn(process.execPath, [file], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(child, 'exit');
    for await (const line of readline.createInterface({ input: child.stdout }))
      if (line === 'now') child.kill('SIGKILL');
    const [, signal] = await ended;
    if (signal !== 'SIGKILL') throw new Error('the script ended by itself');
  }
}

export async function demoProject(catalog: LocalCatalog): Promise<{ projectId: string; userId: string }> {
  const db = await catalog.reader();
  const project = await db.selectFrom('project').select('id').where('name', '=', 'demo').executeTakeFirstOrThrow();
  const user = await db.selectFrom('user').select('id').where('name', '=', 'demo').executeTakeFirstOrThrow();
  return { projectId: project.id, userId: user.id };
}

export type Backend = 'SQLite' | 'PostgreSQL';
/** Where tests of the catalog run, each. */
export const BACKENDS: readonly Backend[] = WITHOUT_POSTGRES === null ? ['SQLite', 'PostgreSQL'] : ['SQLite'];

/** In a describe(): makes folders whose catalogs are there. */
export function foldersIn(backend: Backend): (below?: string) => Promise<CatalogFolder> {
  const cluster = backend === 'PostgreSQL' ? new Cluster() : null;
  beforeAll(() => cluster?.start(), 120_000);
  afterAll(() => cluster?.stop());
  return async (below) => new CatalogFolder(below, await cluster?.database());
}
