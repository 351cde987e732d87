/**
 * The catalog's face: who and what there is above the engine (docs/catalog.md). Frontends reach it through this file only.
 *
 * `types.ts` and `storage-rows.ts` have the rows, `migrations.ts` and `storage-tables.ts` the tables, `apply.ts`, `commissions.ts` and `writer*.ts` the thread that writes,
 * `quotas.ts` what projects may have, `pins.ts` what holds catalog and engine together, `passing.ts` what becomes of
 * rows that a killed daemon left, `adoption.ts` who has what was made by hand, `bootstrap.ts` what a new catalog has in it, `operator-files.ts` what lies beside it for the
 * operator.
 */
import fs from 'node:fs';
import path from 'node:path';
import { makeFolders } from '../folders.ts';
import { Adoption } from './adoption.ts';
import { bootstrapChanges, DEFAULT_DOMAIN } from './bootstrap.ts';
import { copyCloud } from './copying.ts';
import { newId } from './ids.ts';
import { openCatalogReader } from './open.ts';
import { CATALOG_FILE, type OpenrcName, OperatorFiles } from './operator-files.ts';
import { KINDS, settlerOf, sweepPassing } from './passing.ts';
import { Passwords, randomPassword } from './passwords.ts';
import { Pins } from './pins.ts';
import { type CatalogPlace, shownPlace } from './place.ts';
import { Quotas } from './quotas.ts';
import type { EngineSide } from './roots.ts';
import { KeptStatements } from './statements.ts';
import type { CatalogReader, CatalogSide, CatalogTables, Change } from './types.ts';
import { Writer } from './writer.ts';

export interface Catalog extends CatalogSide {
  /** private to the operator; for what else has to lie beside the catalog */
  readonly folder: string;
  readonly passwords: Passwords;
  readonly quotas: Quotas;
  readonly pins: Pins;
  /** Hears of every password that was changed: what was kept of it for the operator is stale. */
  passwordChanged(user: { name: string; domain_id: string }, password: string | null): void;
  readonly operator: OperatorFiles;
  /** @returns when what was made in the engine by hand has its rows, and is charged (docs/catalog.md, "Made by hand") */
  caughtUp(): Promise<void>;
  /**
   * Copies the catalog as one moment into a new folder (docs/backup-and-recovery.md).
   * @param meanwhile runs while nothing is written: the moment is the one when it is done
   */
  backup(folder: string, meanwhile: () => Promise<void>): Promise<void>;
}

export { assignmentId } from './bootstrap.ts';
export { newId } from './ids.ts';
export type { Passwords } from './passwords.ts';
export { PASSWORD_BYTES_MAX } from './passwords.ts';
export { isResource, RESOURCE_NAMES, type ResourceName, UNLIMITED } from './resources.ts';
export type { CatalogReader } from './types.ts';

/** the run of pins that the sweep makes: no daemon's */
const SWEPT = 'swept';

/** passwords that were made up */
interface Fresh {
  admin: string;
  demo: string;
}

export class LocalCatalog implements Catalog {
  readonly passwords = new Passwords();
  /** of this daemon */
  readonly #run = newId();
  readonly quotas = new Quotas(this, this.#run);
  readonly pins: Pins;
  readonly #adoption: Adoption | null;
  #opening: Promise<CatalogReader> | null = null;
  #writer: Writer | null = null;
  #backups: Promise<void> = Promise.resolve();

  private constructor(
    readonly folder: string,
    private readonly place: CatalogPlace,
    readonly operator: OperatorFiles,
    private fresh: Fresh | null,
    private readonly onFatal: (reason: string) => void,
    private readonly engine: EngineSide | undefined,
  ) {
    this.pins = new Pins(this, this.#run, engine);
    this.#adoption = engine?.watch ? new Adoption(this, engine, engine.watch) : null;
    for (const [kind, table] of Object.entries(KINDS)) this.pins.settles(kind, settlerOf(table));
  }

  /**
   * Looks at what is there and writes down the passwords of a new one; the rest, which takes longer, is done by start(); and all of it
   * where the catalog is in PostgreSQL.
   * @param folder private to the operator
   * @param onFatal hears when the thread that writes has died: what it was told may or may not be there
   * @param engine where roots are; without it nothing can be pinned, and pins that are there stay
   * @throws {ControlError} NOT_OURS, FORMAT_NEWER, CORRUPT
   */
  static open(
    folder: string,
    onFatal: (reason: string) => void,
    { engine, url }: { engine?: EngineSide; url?: string | undefined } = {},
  ): LocalCatalog {
    makeFolders(folder);
    fs.chmodSync(folder, 0o700);
    const file = path.join(folder, CATALOG_FILE);
    const place: CatalogPlace = url === undefined ? { kind: 'sqlite', file } : { kind: 'postgres', url };
    const isFresh = place.kind === 'sqlite' && !isBootstrapped(file);
    const operator = new OperatorFiles(folder);
    return new LocalCatalog(folder, place, operator, isFresh ? freshPasswords(operator) : null, onFatal, engine);
  }

  /** Starts the thread that writes, and makes a new catalog's content. Nobody needs to wait for it but reader() and write(). */
  start(): Promise<CatalogReader> {
    if (this.#opening === null) {
      this.#opening = this.#open();
      // Nobody waits for it but who asks.
      this.#opening.then(() => this.#adoption?.start()).catch(() => undefined);
    }
    return this.#opening;
  }

  reader(): Promise<CatalogReader> {
    return this.start();
  }

  async write(changes: readonly Change[]): Promise<void> {
    await this.start();
    await this.#writer!.write(changes);
  }

  passwordChanged(user: { name: string; domain_id: string }, password: string | null): void {
    if (user.domain_id !== DEFAULT_DOMAIN || !['admin', 'demo'].includes(user.name)) return;
    this.operator.setPasswords({ [user.name as OpenrcName]: password });
  }

  async caughtUp(): Promise<void> {
    await this.start();
    await this.#adoption?.caughtUp();
  }

  /** One at a time: the one that is under way is waited for. */
  backup(folder: string, meanwhile: () => Promise<void>): Promise<void> {
    const made = this.#backups.then(() => this.#backup(folder, meanwhile));
    this.#backups = made.catch(() => undefined);
    return made;
  }

  async #backup(folder: string, meanwhile: () => Promise<void>): Promise<void> {
    await this.start();
    const writer = this.#writer!;
    await writer.hold();
    try {
      await meanwhile();
      await copyCloud(this.folder, folder, (file) => writer.copy(file));
    } catch (error) {
      // also when it did not come to the copy
      writer.resume();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#backups;
    const reader = await this.#opening?.catch(() => null);
    await this.#adoption?.close();
    this.quotas.close();
    this.pins.close();
    await this.#writer?.close();
    await reader?.destroy();
  }

  async #open(): Promise<CatalogReader> {
    const { place } = this;
    this.#writer = new Writer(place, (error) =>
      this.onFatal(`the catalog ${shownPlace(place)} cannot be written: ${error.message}`),
    );
    const [{ Kysely, SqliteDialect }] = await Promise.all([import('kysely'), this.#writer.opened]);
    const reader =
      place.kind === 'sqlite'
        ? new Kysely<CatalogTables>({
            dialect: new SqliteDialect({ database: new KeptStatements(openCatalogReader(place.file)) }),
          })
        : await (await import('./postgres.ts')).openPostgresReader(place.url);
    const domain = reader.selectFrom('domain').select('id').where('id', '=', DEFAULT_DOMAIN);
    if (!this.fresh && !(await domain.executeTakeFirst())) this.fresh = freshPasswords(this.operator);
    if (this.fresh) await this.#writer.write(await this.#content(this.fresh));
    await this.#writer.write([{ do: 'purge', table: 'revocation', column: 'expires_at', below: Date.now() }]);
    const side = { reader: async () => reader, write: (changes: readonly Change[]) => this.#writer!.write(changes) };
    // What it pins is settled with the others.
    if (this.engine) await sweepPassing(side, this.engine, SWEPT);
    await this.pins.settleOthers(side);
    // After the pins, whose work may be finished, and its reservation used.
    await this.#writer.write([{ do: 'release-others', run: this.#run }]);
    return reader;
  }

  async #content(fresh: Fresh): Promise<Change[]> {
    const [admin, demo] = await Promise.all([this.passwords.hash(fresh.admin), this.passwords.hash(fresh.demo)]);
    return bootstrapChanges(
      [
        { name: 'admin', passwordHash: admin, role: 'admin', system: true },
        { name: 'demo', passwordHash: demo, role: 'member', system: false },
      ],
      Date.now(),
    );
  }
}

/** Written down before there is anybody who has them. */
function freshPasswords(operator: OperatorFiles): Fresh {
  const fresh = { admin: randomPassword(), demo: randomPassword() };
  operator.setPasswords(fresh);
  return fresh;
}

function isBootstrapped(file: string): boolean {
  if (!fs.existsSync(file) || fs.statSync(file).size === 0) return false;
  const db = openCatalogReader(file);
  try {
    const has = db.prepare("SELECT count(*) FROM sqlite_master WHERE name = 'domain'").pluck().get() === 1;
    return has && db.prepare('SELECT count(*) FROM domain WHERE id = ?').pluck().get(DEFAULT_DOMAIN) === 1;
  } finally {
    db.close();
  }
}
