/** Reading rows of the catalog: some of a table, and never more than a list shows. */
import type { SelectQueryBuilder } from 'kysely';
import type { CatalogReader } from '../../../control/catalog/catalog.ts';
import type { CatalogTables, Columns, TableName } from '../../../control/catalog/types.ts';

/** rows of one list, whatever was asked for; the answer says when there are more */
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

/** Some rows of a list: those after the one whose id is the marker. */
export interface Page {
  rows: number;
  marker?: string | undefined;
}

/**
 * The rows of one page in the order of their ids, which is what a marker goes by, and which needs no more rows to be read.
 * @returns one row more than the page has, where there are more
 */
export function rowsOf<T extends TableName, Row>(
  query: SelectQueryBuilder<CatalogTables, T, Row>,
  { rows, marker }: Page,
  id = 'id',
): Promise<Row[]> {
  const column = id as never;
  const after = marker === undefined ? query : query.where(column, '>', marker as never);
  return after
    .orderBy(column)
    .limit(rows + 1)
    .execute() as Promise<Row[]>;
}
