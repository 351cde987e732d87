/** The end of a life, and of everything: what is on its way ends, all is sealed, all is deleted, all space comes back. */
import type { Flow, World } from '../world.ts';
import type { Audit } from './audit.ts';
import type { Custody } from './custody.ts';
import type { Importers } from './importers.ts';
import type { Ledger } from './ledger.ts';
import type { Operators } from './operators.ts';

/** Steps in which nothing comes back, at most: what waits longest waits a minute of simulated time. */
const STALLED_STEPS_MAX = 60_000;
/** Tables that are empty when everything is deleted. */
const TABLES = ['page', 'page_ref', 'slot_ref', 'release', 'resource', 'sealed', 'page_hash', 'resource_hash'];

export class Ending {
  readonly world: World;

  constructor(
    readonly ledger: Ledger,
    readonly audit: Audit,
    readonly operators: Operators,
    readonly custody: Custody,
    readonly importers: Importers,
  ) {
    this.world = ledger.world;
  }

  /** False: it died meanwhile. */
  #until(done: () => boolean, stepsMax: number, what: () => string): boolean {
    for (let i = 0; !done(); i++) {
      if (i > stepsMax) this.world.fail(what());
      if (this.world.step()) return false;
    }
    return true;
  }

  /** Lets what is on its way come to an end. False: it died meanwhile. */
  quiesce(stepsMax: number): boolean {
    const { world } = this;
    return this.#until(
      () => world.inFlight === 0,
      stepsMax,
      () => 'what was asked does not end',
    );
  }

  /** With nobody at work every snapshot becomes sealed, and new equal blocks end in one slot. False: it died meanwhile. */
  sealAll(stepsMax: number): boolean {
    const { world, ledger } = this;
    const until = (done: () => boolean, what: string): boolean =>
      this.#until(done, stepsMax, () => `${what}, which does not end`);
    if (!until(() => !ledger.anyBusy && world.inFlight === 0, 'what was asked is waited for')) return false;
    world.slowClock();
    if (!until(() => this.#count('release') === 0, 'space is freed')) return false;
    // a fold that waited for guests may give up, and leave two
    if (!until(() => world.mapper.sealer.folding.done, 'what folds is folded')) return false;
    const before = this.#twice();
    this.custody.sealAll();
    if (!until(() => world.inFlight === 0 && this.#unsealed() === 0, 'snapshots are sealed')) return false;
    for (const hash of this.#twice())
      if (!before.has(hash) && !world.rotten) world.fail(`two slots of the index have the hash ${hash}`);
    for (const volume of ledger.volumes)
      for (const snap of volume.snaps.values()) world.spawn(this.audit.look(volume, snap));
    if (!until(() => !ledger.anyBusy, 'sealed snapshots are read')) return false;
    for (const volume of ledger.volumes)
      for (const snap of volume.snaps.values())
        if (snap.hash === null && snap.frozen.known) world.fail(`${volume.name}@${snap.name} has no hash`);
    world.space.walk();
    return world.profile.streams.last ? this.#oneMore(stepsMax) : true;
  }

  /** A stream that comes while nobody else is at work brings nothing that is then there twice. False: it died meanwhile. */
  #oneMore(stepsMax: number): boolean {
    const { world, ledger } = this;
    if (!this.operators.room) return true;
    const before = this.#twice();
    world.spawn(this.importers.import());
    const ended = () => world.inFlight === 0 && !ledger.anyBusy;
    if (!this.#until(ended, stepsMax, () => 'a last stream comes, which does not end')) return false;
    for (const hash of this.#twice())
      if (!before.has(hash) && !world.rotten) world.fail(`a stream made two slots of the index have the hash ${hash}`);
    return true;
  }

  /** Hashes that more than one slot of a pool has in the index. */
  #twice(): Set<string> {
    const sql = `SELECT pool || ':' || hex(hash) FROM sealed WHERE bad IS NULL GROUP BY pool, hash HAVING count(*) > 1`;
    return new Set(this.world.store.db.prepare(sql).pluck().all() as string[]);
  }

  /** Deletes everything, and waits until all space has come back. False: it died meanwhile. */
  drain(stepsMax: number): boolean {
    const { world } = this;
    let done = false;
    world.spawn(
      this.#drained(() => {
        done = true;
      }),
    );
    const died = !this.#until(
      () => done,
      stepsMax,
      () => `space does not come back: ${this.#leftovers()}`,
    );
    if (died) return false;
    const left = this.#leftovers();
    if (left !== '') world.fail(`everything is deleted, and there is left: ${left}`);
    world.check('after everything was deleted');
    return true;
  }

  *#drained(done: () => void): Flow {
    const { ledger } = this;
    while (ledger.anyBusy) yield ledger.later();
    for (const volume of [...ledger.volumes]) yield* this.operators.drop(volume);
    let last = '';
    let since = this.world.steps;
    for (;;) {
      const usage = ledger.value<{ usedBytes: number; reclaimingBytes: number }[]>(yield this.world.call('poolUsage'));
      const leftovers = this.#leftovers();
      if (usage.every((u) => u.usedBytes === 0 && u.reclaimingBytes === 0) && leftovers === '') break;
      const now = `${usage.map((u) => `${u.usedBytes} used, ${u.reclaimingBytes} reclaiming`)}; ${leftovers}`;
      if (now !== last) since = this.world.steps;
      else if (this.world.steps - since > STALLED_STEPS_MAX) this.world.fail(`space does not come back: ${now}`);
      last = now;
    }
    done();
  }

  #unsealed(): number {
    const { store } = this.world;
    const sql = 'SELECT count(*) FROM resource WHERE kind = 2 AND id NOT IN (SELECT id FROM resource_hash)';
    return store.db.prepare(sql).pluck().get() as number;
  }

  #count(table: string): number {
    return (this.world.store.db.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number }).n;
  }

  #leftovers(): string {
    return TABLES.map((table) => [table, this.#count(table)] as const)
      .filter(([, n]) => n > 0)
      .map(([table, n]) => `${n} × ${table}`)
      .join(', ');
  }
}
