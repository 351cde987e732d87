/** Connections to the store: what each keeps in memory at most, and how it commits. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Committer } from '../../src/xseg/store/committer.ts';
import { StoreReader } from '../../src/xseg/store/reader.ts';
import { BUSY_MS_MAX, openReader, openWriter, type StoreDatabase, WAL_BYTES_MAX } from '../../src/xseg/store/schema.ts';

const SOURCES = path.join(import.meta.dirname, '../../src/xseg');
const KIB = 1024;
const PAGE_BYTES = 4096;
/** What a connection keeps of the store: the writing one, and each that reads. However large the index is. */
const WRITER_CACHE_BYTES = 16 * KIB * KIB;
const READER_CACHE_BYTES = 4 * KIB * KIB;

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-schema-'));
const store = path.join(dir, 'store.db');
beforeAll(() => openWriter(store).close());
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** Bytes of pages that it keeps at most; those that are mapped would come on top. */
function cacheBytes(db: StoreDatabase): number {
  expect(db.pragma('mmap_size', { simple: true }) ?? 0).toBe(0);
  const size = db.pragma('cache_size', { simple: true }) as number;
  const pages = db.pragma('page_size', { simple: true }) as number;
  expect(pages).toBe(PAGE_BYTES);
  return size < 0 ? -size * KIB : size * pages;
}

it('one that writes keeps 16 MiB, syncs each commit, and leaves the log to the committer', () => {
  for (const open of [() => openWriter(store), () => new Committer(store).db]) {
    const db = open();
    expect(cacheBytes(db)).toBe(WRITER_CACHE_BYTES);
    const wanted = {
      journal_mode: 'wal',
      synchronous: 2,
      wal_autocheckpoint: 0,
      journal_size_limit: WAL_BYTES_MAX,
      busy_timeout: BUSY_MS_MAX,
      foreign_keys: 0,
    };
    const found = Object.keys(wanted).map((name) => [name, db.pragma(name, { simple: true })]);
    expect(Object.fromEntries(found)).toEqual(wanted);
    db.close();
  }
});

it('one that reads keeps 4 MiB, and cannot write', () => {
  for (const open of [() => openReader(store), () => new StoreReader(store).db]) {
    const db = open();
    expect(cacheBytes(db)).toBe(READER_CACHE_BYTES);
    expect(db.pragma('busy_timeout', { simple: true })).toBe(BUSY_MS_MAX);
    expect(() => db.exec('DELETE FROM meta')).toThrow(/readonly/);
    db.close();
  }
});

it('there is no other way to open a store: besides its own file, only the lock of a home is opened', () => {
  const files = fs.readdirSync(SOURCES, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const opening = files.filter((name) => fs.readFileSync(path.join(SOURCES, name), 'utf8').includes('new Database('));
  expect(opening.sort()).toEqual(['home.ts', 'store/schema.ts']);
});
