/**
 * Freed slots that a copy of the store may still name (docs/format.md, "Copies of the store"): neither zeroed nor handed out
 * before no named copy can. One bit a slot and stage, whatever was freed.
 */
import { bitFill, findSetRun } from '../store/bitmap.ts';

/** Slots on one step of their way, by group. */
class Stage {
  count = 0;
  groups = new Map<number, Uint8Array>();
}

export class Holding {
  /** a copy is named or being written: what is freed is held */
  on = false;
  /** freed since the last copy was begun */
  #fresh = new Stage();
  /** freed before the copy that is being written was begun, which does not name them; those before it may */
  #covered = new Stage();
  /** freed before the newest copy was begun; the older generation may name them */
  #older = new Stage();
  /** named by no copy: on their way out */
  #ready = new Stage();

  constructor(readonly groupSlots: number) {}

  /** Slots that a copy may name. */
  get held(): number {
    return this.#fresh.count + this.#covered.count + this.#older.count;
  }

  /** Of these, the ones that only the older generation may name. */
  get heldByOlder(): number {
    return this.#older.count;
  }

  /** Slots that may go. */
  get ready(): number {
    return this.#ready.count;
  }

  /** @param runs [slot, count, …], none across a group's border */
  add(runs: readonly number[]): void {
    for (let i = 0; i < runs.length; i += 2) {
      const grp = Math.floor(runs[i] / this.groupSlots);
      const added = bitFill(this.#bitmap(this.#fresh, grp), runs[i] - grp * this.groupSlots, runs[i + 1], true);
      this.#fresh.count += added;
    }
  }

  /** 1 = held or on its way out, of a group; undefined when none is. */
  pending(grp: number): Uint8Array | undefined {
    let found: Uint8Array | undefined;
    for (const stage of [this.#fresh, this.#covered, this.#older, this.#ready]) {
      const bitmap = stage.groups.get(grp);
      if (bitmap === undefined) continue;
      if (found === undefined) found = Uint8Array.from(bitmap);
      else for (let i = 0; i < found.length; i++) found[i] |= bitmap[i];
    }
    return found;
  }

  /** A copy is about to be begun: it names nothing that is here. */
  begun(): void {
    this.on = true;
    this.#move(this.#fresh, this.#covered);
  }

  /** It did not come to be. */
  failed(): void {
    this.#move(this.#covered, this.#fresh);
  }

  /** It is named. @param only no other copy is */
  completed(only: boolean): void {
    this.#move(this.#older, this.#ready);
    this.#move(this.#covered, only ? this.#ready : this.#older);
  }

  /** The older generation is gone. */
  olderGone(): void {
    this.#move(this.#older, this.#ready);
  }

  /** No copy is named and none is being written. */
  allGone(): void {
    this.on = false;
    for (const stage of [this.#fresh, this.#covered, this.#older]) this.#move(stage, this.#ready);
  }

  /** Takes up to `max` slots that may go: runs [slot, count, …], none across a group's border. */
  take(max: number): number[] {
    const runs: number[] = [];
    let room = max;
    for (const [grp, bitmap] of this.#ready.groups) {
      let from = 0;
      while (room > 0) {
        const [start, count] = findSetRun(bitmap, this.groupSlots, from, room);
        if (count === 0) break;
        runs.push(grp * this.groupSlots + start, count);
        bitFill(bitmap, start, count, false);
        this.#ready.count -= count;
        room -= count;
        from = start + count;
      }
      if (room === 0) break;
      this.#ready.groups.delete(grp);
    }
    return runs;
  }

  #bitmap(stage: Stage, grp: number): Uint8Array {
    let bitmap = stage.groups.get(grp);
    if (bitmap === undefined) {
      bitmap = new Uint8Array(this.groupSlots / 8);
      stage.groups.set(grp, bitmap);
    }
    return bitmap;
  }

  /** A slot is in one stage at a time, so counts add up. */
  #move(from: Stage, to: Stage): void {
    for (const [grp, bitmap] of from.groups) {
      const into = to.groups.get(grp);
      if (into === undefined) to.groups.set(grp, bitmap);
      else for (let i = 0; i < into.length; i++) into[i] |= bitmap[i];
    }
    to.count += from.count;
    from.groups = new Map();
    from.count = 0;
  }
}
