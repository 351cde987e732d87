/**
 * What holds catalog and engine together over a crash between them (docs/catalog.md, "Catalog and engine"): a root is pinned before
 * it is made, until the row that names it is written.
 */
import { Again } from './again.ts';
import type { Commission, Holder, Quotas } from './quotas.ts';
import type { Amounts } from './resources.ts';
import type { EngineSide } from './roots.ts';
import { CatalogError, type CatalogSide, type Change, type PinRow } from './types.ts';

/** Work that a crash, or an error, ended. */
export interface Unfinished {
  name: string;
  /** id of the row in a passing state */
  subject: string;
  /** the root is there, whole and durable; false: there is none, or it is being removed */
  made: boolean;
}

export interface Settled {
  /** the root is named by the row from now on; means nothing when it was not made */
  keep: boolean;
  /** what becomes of the row; none when it is gone */
  changes: readonly Change[];
}

export type Settle = (unfinished: Unfinished, catalog: Pick<CatalogSide, 'reader'>) => Promise<Settled>;

export interface Making {
  /** whose settle() is asked; it has to be known when the work has a row in a passing state */
  kind: string;
  /** of the root, in the engine: a UUID */
  name: string;
  /** the row in a passing state, which `begin` makes */
  subject?: string;
  begin?: readonly Change[];
  /** what it takes of whose quota */
  takes?: { holder: Holder; amounts: Amounts };
}

const AGAIN_MS = 10_000;

export class Pins {
  readonly #settlers = new Map<string, Settle>();
  /** roots that could not be settled yet */
  readonly #left: Again;

  constructor(
    private readonly catalog: CatalogSide & { readonly quotas: Quotas },
    private readonly run: string,
    private readonly engine: EngineSide | undefined,
  ) {
    this.#left = new Again(AGAIN_MS, (name) => this.#settleNamed(name, catalog));
  }

  /** A service says, before the catalog opens, what becomes of its unfinished rows. */
  settles(kind: string, settle: Settle): void {
    this.#settlers.set(kind, settle);
  }

  /**
   * Makes a root and the row that names it.
   * @param work makes the root, and is done when that is durable; its changes are the row's
   * @throws {QuotaExceeded} before any work; what the work or the writing threw, and then the root is gone and the row settled
   */
  async make<T>(making: Making, work: () => Promise<{ result: T; changes: readonly Change[] }>): Promise<T> {
    const { kind, name, subject = null, begin = [], takes } = making;
    if (subject !== null && !this.#settlers.has(kind)) throw new Error(`nobody settles ${kind}`);
    const reserved = takes && this.catalog.quotas.commission(takes.holder, takes.amounts);
    const pin = this.#pin({ kind, name, subject, commission_id: reserved?.commission.id ?? null });
    await this.catalog.write([...(reserved ? [reserved.change] : []), ...begin, pin]);
    try {
      const { result, changes } = await work();
      await this.catalog.write([...changes, unpin(name), ...confirm(reserved?.commission)]);
      return result;
    } catch (error) {
      await this.#left.add(name);
      throw error;
    }
  }

  /**
   * Deletes the row that names a root, and the root.
   * @param changes the row gone, what it took given back
   * @returns when the row is gone, and the root too or pinned until it is
   */
  async drop(name: string, changes: readonly Change[]): Promise<void> {
    await this.catalog.write([...changes, this.#pin({ kind: 'dropped', name, subject: null, commission_id: null })]);
    await this.#left.add(name);
  }

  /** roots that are to go, and could not */
  get left(): number {
    return this.#left.count;
  }

  /** What other runs of the daemon left. @param catalog as it is while it opens */
  async settleOthers(catalog: CatalogSide): Promise<void> {
    if (!this.engine) return;
    const db = await catalog.reader();
    const pins = await db.selectFrom('pin').selectAll().where('run', '!=', this.run).execute();
    for (const pin of pins) {
      if (pin.subject !== null && !this.#settlers.has(pin.kind))
        this.engine.failed(pin.name, new Error(`no service knows what ${pin.kind} is; it stays as it is`));
      else await this.#settle(pin, catalog).catch(() => this.#left.later(pin.name));
    }
  }

  close(): void {
    this.#left.close();
  }

  #pin(row: Omit<PinRow, 'run' | 'created_at'>): Change {
    if (!this.engine) throw new CatalogError('INVALID', 'there is no engine to pin anything in');
    return { do: 'insert', table: 'pin', row: { ...row, run: this.run, created_at: Date.now() } };
  }

  async #settleNamed(name: string, catalog: CatalogSide): Promise<void> {
    const db = await catalog.reader();
    const pin = await db.selectFrom('pin').selectAll().where('name', '=', name).executeTakeFirst();
    if (pin) await this.#settle(pin, catalog);
  }

  async #settle(pin: PinRow, catalog: CatalogSide): Promise<void> {
    const { name, subject, kind } = pin;
    const engine = this.engine!;
    try {
      // What failed in this run is not kept, although it may have been made.
      const made = pin.run !== this.run && (await engine.find(name)) !== null;
      const { keep, changes } =
        subject === null
          ? { keep: false, changes: [] }
          : await this.#settlers.get(kind)!({ name, subject, made }, catalog);
      const kept = keep && made;
      if (!kept) await engine.remove(name);
      const end = pin.commission_id === null ? [] : [commissionEnds(pin.commission_id, kept)];
      await catalog.write([...changes, unpin(name), ...end]);
    } catch (error) {
      engine.failed(name, error as Error);
      throw error;
    }
  }
}

function commissionEnds(commission: string, kept: boolean): Change {
  return { do: kept ? 'confirm' : 'release', commission };
}

function confirm(commission: Commission | undefined): Change[] {
  return commission ? [commission.confirm] : [];
}

function unpin(name: string): Change {
  return { do: 'delete', table: 'pin', where: { name } };
}
