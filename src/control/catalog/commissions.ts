/**
 * The writer's side of quota by commissions (docs/catalog.md, "Quota"): what is asked is checked in the transaction that reserves
 * it. Runs in the one writer, so nobody reserves between the check and the reservation.
 */
import type { Kysely } from 'kysely';
import { type Amounts, isResource, type ResourceName, UNLIMITED } from './resources.ts';
import {
  CatalogError,
  type CatalogTables,
  type CommissionRow,
  type QuotaChange,
  QuotaExceeded,
  type ReserveChange,
} from './types.ts';

type Db = Kysely<CatalogTables>;

interface Holder {
  project_id: string;
  /** null: the whole project */
  user_id: string | null;
}

/** @throws {CatalogError} */
export async function applyQuotaChange(db: Db, change: QuotaChange): Promise<void> {
  if (change.do === 'reserve') return reserve(db, change);
  if (change.do === 'charge') {
    const charged = holders(await withoutGone(db, change));
    for (const [resource, amount] of checked(change.amounts, true))
      for (const holder of charged) await add(db, holder, resource, { used: amount, reserved: 0 });
    return;
  }
  if (change.do === 'release-others') {
    const others = await db.selectFrom('commission').selectAll().where('run', '!=', change.run).execute();
    for (const commission of others) await end(db, commission, false);
    return;
  }
  const commission = await db
    .selectFrom('commission')
    .selectAll()
    .where('id', '=', change.commission)
    .executeTakeFirst();
  if (commission) return end(db, commission, change.do === 'confirm');
  if (change.do === 'confirm') throw new CatalogError('NOT_FOUND', 'no such commission');
}

/** What a user had who is gone is the project's alone. */
async function withoutGone(db: Db, { project_id, user_id }: Holder): Promise<Holder> {
  if (user_id === null) return { project_id, user_id };
  const user = await db.selectFrom('user').select('id').where('id', '=', user_id).executeTakeFirst();
  return { project_id, user_id: user?.id ?? null };
}

async function reserve(db: Db, { commission, amounts }: ReserveChange): Promise<void> {
  await db.insertInto('commission').values(commission).execute();
  for (const [resource, amount] of checked(amounts, false)) {
    for (const holder of holders(commission)) {
      await refuseBeyond(db, holder, resource, amount);
      await add(db, holder, resource, { used: 0, reserved: amount });
    }
    await db.insertInto('provision').values({ commission_id: commission.id, resource, amount }).execute();
  }
}

/** @throws {QuotaExceeded} */
async function refuseBeyond(db: Db, holder: Holder, resource: ResourceName, amount: number): Promise<void> {
  const limit = await limitOf(db, holder, resource);
  if (limit === UNLIMITED) return;
  const row = await db
    .selectFrom('holding')
    .select(['used', 'reserved'])
    .where('id', '=', holdingId(holder, resource))
    .executeTakeFirst();
  const { used, reserved } = row ?? { used: 0, reserved: 0 };
  if (used + reserved + amount > limit)
    throw new QuotaExceeded({ ...holder, resource, limit, used, reserved, wanted: amount });
}

async function limitOf(db: Db, { project_id, user_id }: Holder, resource: ResourceName): Promise<number> {
  if (user_id !== null) {
    const own = db.selectFrom('user_quota').select('hard_limit').where('resource', '=', resource);
    const row = await own.where('project_id', '=', project_id).where('user_id', '=', user_id).executeTakeFirst();
    return row?.hard_limit ?? UNLIMITED;
  }
  const own = db.selectFrom('quota').select('hard_limit').where('resource', '=', resource);
  const row =
    (await own.where('project_id', '=', project_id).executeTakeFirst()) ??
    (await db.selectFrom('quota_default').select('hard_limit').where('resource', '=', resource).executeTakeFirst());
  return row?.hard_limit ?? UNLIMITED;
}

/** What it reserved is used from now on, or is not reserved any more. */
async function end(db: Db, commission: CommissionRow, confirmed: boolean): Promise<void> {
  const provisions = await db
    .selectFrom('provision')
    .select(['resource', 'amount'])
    .where('commission_id', '=', commission.id)
    .execute();
  for (const { resource, amount } of provisions)
    for (const holder of holders(commission))
      await add(db, holder, resource as ResourceName, { used: confirmed ? amount : 0, reserved: -amount });
  await db.deleteFrom('commission').where('id', '=', commission.id).execute();
}

/** Less than nothing is refused by the table. */
async function add(db: Db, holder: Holder, resource: ResourceName, more: { used: number; reserved: number }) {
  const row = { id: holdingId(holder, resource), ...holder, resource, used: 0, reserved: 0 };
  await db
    .insertInto('holding')
    .values(row)
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  await db
    .updateTable('holding')
    .set((each) => ({ used: each('used', '+', more.used), reserved: each('reserved', '+', more.reserved) }))
    .where('id', '=', row.id)
    .execute();
}

function holders({ project_id, user_id }: Holder): Holder[] {
  const project = { project_id, user_id: null };
  return user_id === null ? [project] : [project, { project_id, user_id }];
}

function holdingId({ project_id, user_id }: Holder, resource: ResourceName): string {
  return `p:${project_id} ${user_id === null ? '' : `u:${user_id} `}${resource}`;
}

/** In one order, whoever asks. @throws {CatalogError} INVALID */
function checked(amounts: Amounts, signed: boolean): [ResourceName, number][] {
  const entries = Object.entries(amounts).filter(([, amount]) => amount !== 0) as [ResourceName, number][];
  for (const [resource, amount] of entries)
    if (!isResource(resource) || !Number.isSafeInteger(amount) || (!signed && amount < 0))
      throw new CatalogError('INVALID', `${amount} of ${resource} cannot be counted`);
  return entries.sort(([a], [b]) => (a < b ? -1 : 1));
}
