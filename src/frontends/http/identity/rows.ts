/** Reading rows of the catalog: some of a table, and never more than a list shows. */
import type { SelectQueryBuilder } from 'kysely';
import type { CatalogReader } from '../../../control/catalog/catalog.ts';
import type { CatalogTables, Columns, TableName } from '../../../control/catalog/types.ts';

/** rows of one list; more are cut off, and the answer says so, as Keystone's list_limit does */
export const LIST_MAX = 1000;

/** Rows whose columns have these values; a column whose value is undefined does not matter. */
export function matching<T extends TableName>(
  db: CatalogReader,
  table: T,
  values: { [C in keyof Columns<T>]?: Columns<T>[C] | undefined },
): SelectQueryBuilder<CatalogTables, T, CatalogTables[T]> {
  let query = db.selectFrom(table as TableName).selectAll();
  for (const [column, value] of Object.entries(values))
    if (value !== undefined) query = query.where(column as never, value === null ? 'is' : '=', value as never);
  return query as unknown as SelectQueryBuilder<CatalogTables, T, CatalogTables[T]>;
}

/** @returns the rows of one list, and one more where there are more */
export function rowsOf<T extends TableName, Row>(query: SelectQueryBuilder<CatalogTables, T, Row>): Promise<Row[]> {
  return query.limit(LIST_MAX + 1).execute() as Promise<Row[]>;
}
