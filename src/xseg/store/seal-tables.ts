/** Tables of sealing (docs/format.md, "Sealing"); part of the store since format 2. */
export const SEAL_TABLES = `
CREATE TABLE sealed (
  pool INTEGER NOT NULL, slot INTEGER NOT NULL, hash BLOB NOT NULL, bad INTEGER, PRIMARY KEY (pool, slot)) WITHOUT ROWID;
CREATE INDEX sealed_hash ON sealed (pool, substr(hash, 1, 8)) WHERE bad IS NULL;
CREATE INDEX sealed_bad ON sealed (pool, slot) WHERE bad IS NOT NULL;
CREATE TABLE page_hash (id INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE resource_hash (id INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE seal_pool (
  pool INTEGER PRIMARY KEY, seal INTEGER NOT NULL DEFAULT 0, paused INTEGER NOT NULL DEFAULT 0, rate INTEGER NOT NULL DEFAULT 0,
  scrub_rate INTEGER NOT NULL DEFAULT 0, entries INTEGER NOT NULL DEFAULT 0, hashed INTEGER NOT NULL DEFAULT 0,
  folded INTEGER NOT NULL DEFAULT 0, scrub_at INTEGER NOT NULL DEFAULT 0, scrubbed_at INTEGER NOT NULL DEFAULT 0);
`;
