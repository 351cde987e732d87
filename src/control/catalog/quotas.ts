/** Quota by two-phase commissions, as services use it, and limits, as operators do (docs/catalog.md, "Quota"). */
import { Again } from './again.ts';
import { newId } from './ids.ts';
import { type Amounts, RESOURCE_NAMES, type ResourceName, UNLIMITED } from './resources.ts';
import type { CatalogSide, Change, ReserveChange } from './types.ts';

/** whose limits are asked; the user is who makes it */
export interface Holder {
  projectId: string;
  userId: string | null;
}

export interface Commission {
  readonly id: string;
  /** for the list that has the row of what was made */
  readonly confirm: Change;
}

export interface Holding {
  resource: ResourceName;
  /** null: none */
  limit: number | null;
  /** who set it; null: nobody */
  from: 'default' | 'project' | 'user' | null;
  used: number;
  reserved: number;
}

/** null: none; 'default': the one that all have */
export type Limits = Partial<Record<ResourceName, number | null | 'default'>>;

const AGAIN_MS = 1000;

export class Quotas {
  readonly #releases = new Again(AGAIN_MS, (id) => this.catalog.write([{ do: 'release', commission: id }]));

  /** @param run of this daemon: what others did not confirm is released when the catalog opens */
  constructor(
    private readonly catalog: CatalogSide,
    readonly run: string,
  ) {}

  /**
   * Reserves, works, and confirms in one with what the work wants to be written; or releases, whatever went wrong.
   * @param work its changes are written together with the confirmation
   * @throws {QuotaExceeded} before any work; what the work or the writing threw
   */
  async within<T>(
    holder: Holder,
    amounts: Amounts,
    work: (commission: Commission) => Promise<{ result: T; changes: readonly Change[] }>,
  ): Promise<T> {
    const commission = await this.reserve(holder, amounts);
    try {
      const { result, changes } = await work(commission);
      await this.catalog.write([...changes, commission.confirm]);
      return result;
    } catch (error) {
      await this.release(commission);
      throw error;
    }
  }

  /**
   * For work that outlives a function: the caller confirms or releases. `within` does both.
   * @param also written with it, such as a row in a passing state
   * @throws {QuotaExceeded}; nothing is reserved then
   */
  async reserve(holder: Holder, amounts: Amounts, also: readonly Change[] = []): Promise<Commission> {
    const { change, commission } = this.commission(holder, amounts);
    await this.catalog.write([change, ...also]);
    return commission;
  }

  /** A commission that is made by writing its change. */
  commission({ projectId, userId }: Holder, amounts: Amounts): { change: ReserveChange; commission: Commission } {
    const id = newId();
    const row = { id, run: this.run, project_id: projectId, user_id: userId, created_at: Date.now() };
    return {
      change: { do: 'reserve', commission: row, amounts },
      commission: { id, confirm: { do: 'confirm', commission: id } },
    };
  }

  /** Never fails: what cannot be written now is tried again, and what never could is done at the next start. */
  release({ id }: Pick<Commission, 'id'>): Promise<void> {
    return this.#releases.add(id);
  }

  /** reservations that are to be released and could not be */
  get unreleased(): number {
    return this.#releases.count;
  }

  close(): void {
    this.#releases.close();
  }

  /** Every resource, of a project, or of a user in it. */
  async show({ projectId, userId }: Holder): Promise<Holding[]> {
    const db = await this.catalog.reader();
    const held = await db
      .selectFrom('holding')
      .selectAll()
      .where('project_id', '=', projectId)
      .where('user_id', userId === null ? 'is' : '=', userId)
      .execute();
    const own =
      userId === null
        ? await db.selectFrom('quota').selectAll().where('project_id', '=', projectId).execute()
        : await db
            .selectFrom('user_quota')
            .selectAll()
            .where('project_id', '=', projectId)
            .where('user_id', '=', userId)
            .execute();
    const all = userId === null ? await db.selectFrom('quota_default').selectAll().execute() : [];
    return RESOURCE_NAMES.map((resource) => {
      const mine = own.find((row) => row.resource === resource);
      const limit = mine ?? all.find((row) => row.resource === resource);
      const { used, reserved } = held.find((row) => row.resource === resource) ?? { used: 0, reserved: 0 };
      const from = mine ? (userId === null ? 'project' : 'user') : limit ? 'default' : null;
      return { resource, limit: shown(limit?.hard_limit), from, used, reserved };
    });
  }

  async defaults(): Promise<Record<ResourceName, number | null>> {
    const db = await this.catalog.reader();
    const rows = await db.selectFrom('quota_default').selectAll().execute();
    const limits = RESOURCE_NAMES.map((resource) => [
      resource,
      shown(rows.find((row) => row.resource === resource)?.hard_limit),
    ]);
    return Object.fromEntries(limits) as Record<ResourceName, number | null>;
  }

  /** All or none. @throws {CatalogError} REFERENCE when the project or user is gone */
  async set({ projectId, userId }: Holder, limits: Limits): Promise<void> {
    const changes = Object.entries(limits).flatMap(([resource, limit]): Change[] => {
      const hard_limit = stored(limit);
      if (userId === null) {
        const where = { project_id: projectId, resource };
        const gone: Change = { do: 'delete', table: 'quota', where, orNone: true };
        if (limit === 'default') return [gone];
        // What is said about it stays.
        const row = { ...where, hard_limit, description: null };
        return [
          { do: 'insert', table: 'quota', row, orKeep: true },
          { do: 'update', table: 'quota', where, set: { hard_limit } },
        ];
      }
      const where = { project_id: projectId, user_id: userId, resource };
      const gone: Change = { do: 'delete', table: 'user_quota', where, orNone: true };
      const row = { ...where, hard_limit };
      return limit === 'default' ? [gone] : [gone, { do: 'insert', table: 'user_quota', row }];
    });
    await this.catalog.write(changes);
  }

  async setDefaults(limits: Partial<Record<ResourceName, number | null>>): Promise<void> {
    const changes = Object.entries(limits).flatMap(([resource, limit]): Change[] => [
      {
        do: 'insert',
        table: 'quota_default',
        row: { resource, hard_limit: stored(limit), description: null },
        orKeep: true,
      },
      { do: 'update', table: 'quota_default', where: { resource }, set: { hard_limit: stored(limit) } },
    ]);
    await this.catalog.write(changes);
  }
}

function shown(limit: number | undefined): number | null {
  return limit === undefined || limit === UNLIMITED ? null : limit;
}

function stored(limit: number | null | 'default'): number {
  return typeof limit === 'number' ? limit : UNLIMITED;
}
