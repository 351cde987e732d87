/** A catalog and an engine in one folder, as a daemon has them, opened one after another; and processes that are killed with both. */
import path from 'node:path';
import type { LocalCatalog } from '../../../src/control/catalog/catalog.ts';
import type { EngineSide } from '../../../src/control/catalog/roots.ts';
import { engineSide } from '../../../src/control/serve/engine-side.ts';
import type { Engine } from '../../../src/xseg/types.ts';
import { openEngine } from '../../xseg/engine.ts';
import { CATALOG_MODULE, type CatalogFolder } from './folder.ts';

const ENGINE_MODULE = CATALOG_MODULE.replace('control/catalog/catalog.js', 'xseg/engine.js');
const SIDE_MODULE = CATALOG_MODULE.replace('catalog/catalog.js', 'serve/engine-side.js');
const OPTIONS = { version: 'test', cacheBytes: 16 << 20 };

export class EngineFolder {
  engine: Engine | null = null;
  catalog!: LocalCatalog;
  readonly logged: string[] = [];

  constructor(readonly at: CatalogFolder) {}

  get home(): string {
    return path.join(this.at.dir, 'h');
  }

  async openEngine(): Promise<Engine> {
    this.engine = await openEngine({
      ...{ ...OPTIONS, home: this.home, log: () => undefined },
      onFatal: (reason: string) => void this.logged.push(`fatal ${reason}`),
    });
    return this.engine;
  }

  /** @param first what is done to the catalog, or to how it sees the engine, before it opens */
  async open(first: (catalog: LocalCatalog) => void = () => undefined, side: Partial<EngineSide> = {}): Promise<void> {
    const engine = await this.openEngine();
    const log = (_level: string, event: string, fields: object) =>
      void this.logged.push(`${event} ${JSON.stringify(fields)}`);
    this.catalog = this.at.open({ ...engineSide(engine, log), ...side });
    first(this.catalog);
    await this.catalog.start();
  }

  async closeEngine(): Promise<void> {
    await this.engine?.close();
    this.engine = null;
  }

  async close(): Promise<void> {
    await this.catalog.close();
    await this.closeEngine();
  }

  async reopen(): Promise<void> {
    await this.close();
    await this.open();
  }

  async end(): Promise<void> {
    await this.at.end(async () => this.closeEngine());
  }

  async volumes(): Promise<string[]> {
    return (await this.engine!.listVolumes()).map(({ name }) => name).sort();
  }
  async snapshots(): Promise<string[]> {
    return (await this.engine!.listSnapshots()).map(({ name }) => name).sort();
  }
  async pins(): Promise<string[]> {
    const db = await this.catalog.reader();
    return (await db.selectFrom('pin').select('name').execute()).map(({ name }) => name);
  }

  /** What a project holds and has reserved, of what is not nothing. */
  async held(projectId: string): Promise<Record<string, [number, number]>> {
    const rows = await this.catalog.quotas.show({ projectId, userId: null });
    const some = rows.filter(({ used, reserved }) => used + reserved > 0);
    return Object.fromEntries(some.map(({ resource, used, reserved }) => [resource, [used, reserved]]));
  }

  /** As CatalogFolder.killed, with `engine` open, and `side`, by which the catalog has it. */
  async killed(script: string, { made = '', opened = '' } = {}): Promise<void> {
    const open = `
      const { openEngine } = await import(${JSON.stringify(ENGINE_MODULE)});
      const { engineSide } = await import(${JSON.stringify(SIDE_MODULE)});
      const engine = await openEngine({ ...${JSON.stringify(OPTIONS)}, home: ${JSON.stringify(this.home)},
        log: () => undefined, onFatal: (reason) => { throw new Error(reason); } });
      side = engineSide(engine, () => undefined);
      ${made}`;
    await this.at.killed(script, { made: open, opened });
  }
}
