/** Catalogs in temporary folders, for tests. Compiled, since the catalog's thread is. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';

export const CATALOG_MODULE = new URL('../../../dist/src/control/catalog/catalog.js', import.meta.url).href;
const { LocalCatalog: Local } = (await import(
  CATALOG_MODULE
)) as typeof import('../../../src/control/catalog/catalog.ts');

/** One folder, and the catalogs that are opened in it one after another. */
export class CatalogFolder {
  readonly dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-catalog-'));
  readonly folder = path.join(this.dir, 'cloud');
  readonly deaths: string[] = [];
  readonly #open: LocalCatalog[] = [];

  open(): LocalCatalog {
    const catalog = Local.open(this.folder, (reason) => void this.deaths.push(reason));
    this.#open.push(catalog);
    return catalog;
  }

  async end(): Promise<void> {
    for (const catalog of this.#open.splice(0)) await catalog.close();
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /**
   * Runs a script in a process of its own, with `catalog` open in this folder, kills it when it calls `now()`.
   * @param script the body of an async function of `catalog`, `now` and `project` (demo's id)
   */
  async killed(script: string): Promise<void> {
    const source = `
      const { LocalCatalog } = await import(${JSON.stringify(CATALOG_MODULE)});
      const catalog = LocalCatalog.open(${JSON.stringify(this.folder)}, (reason) => { throw new Error(reason); });
      const db = await catalog.reader();
      const { id: project } = await db.selectFrom('project').select('id').where('name', '=', 'demo').executeTakeFirstOrThrow();
      const now = () => new Promise(() => { console.log('now'); setInterval(() => undefined, 1000); });
      ${script}
      throw new Error('nobody killed it');`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', source], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(child, 'exit');
    for await (const line of readline.createInterface({ input: child.stdout })) if (line === 'now') child.kill('SIGKILL');
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
