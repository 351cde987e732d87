/**
 * Resources as the mapper knows them: records loaded on demand from the store, and what has changed since. Names of what
 * is being made or deleted are seen here before the store has them.
 */
import { KIND_INGEST, KIND_SNAPSHOT, KIND_VOLUME, type ResourceRow } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import { Resource } from './resource.ts';

/** Closed, unchanged resources kept in memory. */
export const CACHED_MAX = 8192;

export class Registry {
  #byId = new Map<number, Resource>();
  /** names that the store does not have yet, or (0) still has */
  #names = new Map<string, number>();
  #forgotten = new Map<string, (() => void)[]>();
  #dead = new Set<number>();
  #chains = new Map<number, (() => void)[]>();

  /** told of names that come and go, at once */
  named: (row: ResourceRow, there: boolean) => void = () => undefined;

  constructor(readonly reader: StoreReader) {}

  /** As it is in memory: null when it is gone, undefined when only the store knows of it. */
  known(id: number): Resource | null | undefined {
    return this.#dead.has(id) ? null : this.#byId.get(id);
  }

  /** Names are on their way into the store or out of it. */
  get naming(): boolean {
    return this.#names.size > 0;
  }

  /** Least resource that is named and may not be in the store yet; none when nothing is named. */
  pendingFrom(): number {
    let least = Number.POSITIVE_INFINITY;
    for (const id of this.#names.values()) if (id > 0 && id < least) least = id;
    return least;
  }

  all(): IterableIterator<Resource> {
    return this.#byId.values();
  }

  get(id: number): Resource | undefined {
    if (this.#dead.has(id)) return undefined;
    const known = this.#byId.get(id);
    if (known !== undefined) return known;
    const row = this.reader.resource(id);
    if (row === undefined || row.kind === KIND_INGEST) return undefined;
    const resource = new Resource(row);
    this.#byId.set(id, resource);
    this.#trim();
    return resource;
  }

  find(kind: number, volume: number, name: string): Resource | undefined {
    const fresh = this.#names.get(`${kind}/${volume}/${name}`);
    if (fresh !== undefined) return fresh === 0 ? undefined : this.get(fresh);
    const id = this.reader.resourceByName(kind, volume, name);
    return id === undefined ? undefined : this.get(id);
  }

  volume(name: string): Resource | undefined {
    return this.find(KIND_VOLUME, 0, name);
  }

  snapshot(volume: Resource, name: string): Resource | undefined {
    return this.find(KIND_SNAPSHOT, volume.id, name);
  }

  /** `NAME` or `VOL@SNAP`. */
  byFullName(full: string): Resource | undefined {
    const at = full.indexOf('@');
    if (at < 0) return this.volume(full);
    const volume = this.volume(full.slice(0, at));
    return volume && this.snapshot(volume, full.slice(at + 1));
  }

  fullName(resource: Resource): string {
    if (resource.row.kind === KIND_VOLUME) return resource.row.name;
    return `${this.get(resource.row.volume)?.row.name ?? '?'}@${resource.row.name}`;
  }

  snapshotsOf(volume: Resource): Resource[] {
    const ids = new Set(this.reader.snapshotIds(volume.id));
    for (const r of this.#byId.values()) if (r.row.volume === volume.id && r.row.kind === KIND_SNAPSHOT) ids.add(r.id);
    const found: Resource[] = [];
    for (const id of ids) {
      const r = this.get(id);
      if (r !== undefined && !r.dead) found.push(r);
    }
    return found.sort((a, b) => a.id - b.id);
  }

  add(row: ResourceRow, resource = new Resource(row)): Resource {
    this.#byId.set(row.id, resource);
    this.name(row, row.id);
    return resource;
  }

  name(row: ResourceRow, id: number): void {
    this.named(row, true);
    this.#names.set(`${row.kind}/${row.volume}/${row.name}`, id);
  }

  unname(row: ResourceRow): void {
    this.named(row, false);
    this.#names.set(`${row.kind}/${row.volume}/${row.name}`, 0);
  }

  /** the store agrees now */
  settleName(row: { kind: number; volume: number; name: string }, wanted: number): void {
    const key = `${row.kind}/${row.volume}/${row.name}`;
    if (this.#names.get(key) !== wanted) return;
    this.#names.delete(key);
    const waiting = this.#forgotten.get(key) ?? [];
    this.#forgotten.delete(key);
    for (const run of waiting) run();
  }

  /** Runs `run` when the store has forgotten a volume's name that was given up; false when none was. */
  whenForgotten(name: string, run: () => void): boolean {
    const key = `${KIND_VOLUME}/0/${name}`;
    if (this.#names.get(key) !== 0) return false;
    const waiting = this.#forgotten.get(key);
    if (waiting === undefined) this.#forgotten.set(key, [run]);
    else waiting.push(run);
    return true;
  }

  /** A volume is giving the name up, and the store has not forgotten it. */
  givenUp(name: string): boolean {
    return this.#names.get(`${KIND_VOLUME}/0/${name}`) === 0;
  }

  kill(resource: Resource): void {
    resource.dead = true;
    this.#dead.add(resource.id);
    this.#byId.delete(resource.id);
  }

  /** the store has no such record any more */
  buried(id: number): void {
    this.#dead.delete(id);
  }

  /** Runs `work` alone among those that hold one of these resources; `work` calls its argument when it ends. */
  exclusive(resources: Resource[], work: (release: () => void) => void): void {
    const ids = [...new Set(resources.map((r) => r.id))].sort((a, b) => a - b);
    const held: number[] = [];
    const step = () => {
      for (; held.length < ids.length; held.push(ids[held.length])) {
        const queue = this.#chains.get(ids[held.length]);
        if (queue !== undefined) {
          queue.push(() => {
            held.push(ids[held.length]);
            step();
          });
          return;
        }
        this.#chains.set(ids[held.length], []);
      }
      work(() => {
        for (const id of held) this.#unlock(id);
      });
    };
    step();
  }

  #unlock(id: number): void {
    const queue = this.#chains.get(id) as (() => void)[];
    const next = queue.shift();
    if (next === undefined) this.#chains.delete(id);
    else next();
  }

  #trim(): void {
    if (this.#byId.size <= CACHED_MAX) return;
    for (const [id, r] of this.#byId) {
      if (this.#byId.size <= CACHED_MAX * 0.9) break;
      if (r.handle < 0 && r.openCount === 0 && r.clean && r.failed === 0 && !this.#chains.has(id) && !r.dead)
        this.#byId.delete(id);
    }
  }
}
