/**
 * What is known of how much of each resource nobody else has. Counting is done elsewhere, per family and on what is durable
 * (exclusive.ts); here is whether a count still holds: it does until a map of the family changes.
 */
import type { Resource } from './resource.ts';

/** Members' changes are made durable so often before a family is left for later: it changes all the time. */
const SETTLE_TRIES = 3;
/** Families of which the last change is known: of those that were longest without one it is forgotten. */
export const FAMILIES_MAX = 1024;

export interface AccountingHost {
  /** in memory: others are as the store has them */
  resources(): Iterable<Resource>;
  commitSoon(resource: Resource): void;
  nextTurn(run: () => void): void;
}

export interface AccountingTicket {
  pool: number;
  /** value of `resource.grp` */
  family: number;
  /** changes of all families until then */
  version: number;
  epoch: number;
  drops: number;
}

export class Accounting {
  #epoch = 0;
  #changes = 0;
  /** value of `#changes` at a family's last change; oldest first */
  #changedAt = new Map<string, number>();
  /** at which those that are not in it may have changed last */
  #forgottenAt = 0;
  #known = new Map<string, Map<number, number>>();
  /** families that share slots with others: what these give back changes their counts too */
  #foreign = new Set<string>();
  #drops = 0;

  constructor(readonly host: AccountingHost) {}

  #key(row: { pool: number; grp: number }): string {
    return `${row.pool}/${row.grp}`;
  }

  /** The resource's map, or who shares it, changed. */
  changed(row: { pool: number; grp: number }): void {
    const key = this.#key(row);
    this.#known.delete(key);
    this.#changedAt.delete(key);
    this.#changedAt.set(key, ++this.#changes);
    if (this.#changedAt.size <= FAMILIES_MAX) return;
    const [oldest] = this.#changedAt;
    [, this.#forgottenAt] = oldest;
    this.#changedAt.delete(oldest[0]);
  }

  /** Slots were folded together, or apart: that crosses families. */
  allChanged(): void {
    this.#epoch++;
    this.#known.clear();
    this.#foreign.clear();
  }

  /** References on shared slots are gone, durably: whose they were is not known, nor who is the last now. */
  slotsDropped(): void {
    this.#drops++;
    for (const key of this.#foreign) this.#known.delete(key);
    this.#foreign.clear();
  }

  /** Blocks that only this resource has; null: not known now. */
  exclusiveBlocks(row: { id: number; pool: number; grp: number; root: number }): number | null {
    if (row.root === 0) return 0;
    return this.#known.get(this.#key(row))?.get(row.id) ?? null;
  }

  /** Makes the family durable, so that it can be counted; `done(null)` when it fails or changes all the time. */
  begin(row: { pool: number; grp: number }, done: (ticket: AccountingTicket | null) => void): void {
    const key = this.#key(row);
    let tries = 0;
    const settle = () => {
      const open: Resource[] = [];
      for (const r of this.host.resources()) if (this.#key(r.row) === key && !r.clean) open.push(r);
      if (open.length === 0) {
        done({ pool: row.pool, family: row.grp, version: this.#changes, epoch: this.#epoch, drops: this.#drops });
        return;
      }
      if (tries++ >= SETTLE_TRIES || open.some((r) => r.failed !== 0)) {
        done(null);
        return;
      }
      let left = open.length;
      for (const r of open) {
        r.changes.waiters.push(() => {
          if (--left === 0) this.host.nextTurn(settle);
        });
        this.host.commitSoon(r);
      }
    };
    settle();
  }

  /**
   * The count of a family; forgotten when something changed since `begin`.
   * @param foreign it has slots that others than its members have too
   */
  end(ticket: AccountingTicket, blocks: [number, number][], foreign: boolean): void {
    const key = `${ticket.pool}/${ticket.family}`;
    const changedAt = this.#changedAt.get(key) ?? this.#forgottenAt;
    if (ticket.epoch !== this.#epoch || ticket.version < changedAt) return;
    if (foreign) {
      if (ticket.drops !== this.#drops) return;
      this.#foreign.add(key);
    }
    this.#known.set(key, new Map(blocks));
  }
}
