/** What the first start of a home makes, and what every start marks in its store. */
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { readLine, type StoreLine } from './copies/lines.ts';
import { type Home, makeFolder } from './home.ts';
import type { Native } from './native.ts';
import { formatPool, planPool } from './pools.ts';
import type { PoolRow } from './store/batch.ts';
import { openWriter } from './store/schema.ts';

/** What the store says of itself. */
export interface StoreIdentity {
  uuid: string;
  line: StoreLine;
}

interface Prepared extends StoreIdentity {
  pools: PoolRow[];
  clean: boolean;
}

/** Makes what the first start of a home makes: identity and the pool `local`. */
export function prepareStore(home: Home, native: Native): Prepared {
  const db = openWriter(home.storePath);
  try {
    let uuid = db.prepare("SELECT value FROM meta WHERE key = 'home_uuid'").pluck().get() as string | undefined;
    if (uuid === undefined) {
      uuid = randomUUID();
      const path = join(home.path, 'pools', 'local');
      makeFolder(join(home.path, 'pools'));
      makeFolder(path);
      const plan = planPool({ name: 'local', path: `${path}/` }, 1);
      // a first start that was killed here left a superblock of a home that never was: the store decides
      formatPool(plan, uuid, native, true);
      db.transaction(() => {
        const put = db.prepare('INSERT INTO meta (key, value) VALUES (?, ?)');
        put.run('home_uuid', uuid);
        put.run('created_at', Date.now());
        db.prepare(`INSERT INTO pool (id, uuid, name, driver, kind, path, block_shift, group_slots, size, direct, preallocate, created_at)
          VALUES (@id, @uuid, @name, @driver, @kind, @path, @block_shift, @group_slots, @size, @direct, @preallocate, @created_at)`).run(
          plan.row,
        );
      })();
    }
    const clean = db.prepare("SELECT value FROM meta WHERE key = 'clean'").pluck().get() === 1;
    db.prepare("INSERT OR REPLACE INTO meta (key, value) VALUES ('clean', 0)").run();
    const pools = db.prepare('SELECT * FROM pool ORDER BY id').all() as PoolRow[];
    return { uuid, line: readLine(db), pools, clean };
  } finally {
    db.close();
  }
}
