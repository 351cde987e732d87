/** Whether the store is sound as a file of SQLite's, its indexes included; what its tables mean is for `check` to prove. */
import type { StoreDatabase } from './schema.ts';

interface PartialIndex {
  name: string;
  of: string;
  sql: string;
}

/**
 * What is wrong, in SQLite's words; nothing when it is sound. Takes about twice as long as the rest of a check: an index of a
 * million sealed blocks 1.3 s.
 *
 * @param max problems told, at most
 */
export function fileProblems(db: StoreDatabase, max: number): string[] {
  const rows = db.pragma(`integrity_check(${max})`) as { integrity_check: string }[];
  const found = rows.map((row) => row.integrity_check).filter((told) => told !== 'ok');
  return found.length > 0 ? found : surplusEntries(db).slice(0, max);
}

/**
 * Of an index on a part of a table `integrity_check` looks whether it has all entries that it should have, and not whether
 * there are more. Those would name pages that are no page's children, and slots that are not in quarantine.
 */
function surplusEntries(db: StoreDatabase): string[] {
  const indexes = db
    .prepare(
      `SELECT i.name, t.name AS of, m.sql FROM sqlite_schema t JOIN pragma_index_list(t.name) i
      JOIN sqlite_schema m ON m.type = 'index' AND m.name = i.name WHERE t.type = 'table' AND i.partial`,
    )
    .all() as PartialIndex[];
  const entries = db.prepare('SELECT ncell FROM dbstat WHERE name = ? AND aggregate = TRUE').pluck();
  const found: string[] = [];
  for (const { name, of, sql } of indexes) {
    const where = sql.slice(sql.lastIndexOf(' WHERE ') + 1);
    // as a filter: as a condition it would be answered by the index that is looked at
    const wanted = db.prepare(`SELECT count(*) FILTER (${where}) FROM ${of}`).pluck().get();
    const there = entries.get(name) ?? 0;
    if (there !== wanted) found.push(`${String(there)} entries in index ${name}, which should have ${String(wanted)}`);
  }
  return found;
}
