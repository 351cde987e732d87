/**
 * What clients did and were told while a device's writes were logged, each event with how long the log was at that
 * moment; and from it, for any cut of the log, what a disk that lost its power there must and may hold.
 *
 * An event at position P happened before any entry that begins at P or later: so an answer is due at every cut whose
 * position is P or more, and a write that was sent later cannot be on the disk.
 */
import { type Change, DiskModel, Sequence } from '../../e2e/lib/model.ts';
import type { Cut } from './replay.ts';

/** A volume or snapshot at a cut. */
export interface Due {
  disk: DiskModel;
  /** false: its creation or its deletion is not answered, so it may be there or not */
  must: boolean;
}

/** What clients know at a cut. */
export class Expected {
  readonly disks = new Map<number, DiskModel>();
  readonly flushes = new Map<number, readonly Change[]>();
  /** by name: VOL or VOL@SNAP */
  private readonly named = new Map<string, { disk: number; must: boolean }>();

  disk(id: number): DiskModel {
    const disk = this.disks.get(id);
    if (!disk) throw new Error(`disk ${id} is not known yet`);
    return disk;
  }

  name(name: string, disk: number, must: boolean): void {
    this.named.set(name, { disk, must });
  }

  settle(name: string, must: boolean): void {
    const found = this.named.get(name);
    if (found) found.must = must;
  }

  forget(name: string): void {
    this.named.delete(name);
  }

  /** What may be there; the models are copies, which a look at the disk may change. */
  resources(): Map<string, Due> {
    return new Map([...this.named].map(([name, { disk, must }]) => [name, { disk: this.disk(disk).fork(), must }]));
  }
}

interface Event {
  position: number;
  apply: (expected: Expected) => void;
}

export class History {
  readonly sequence = new Sequence();
  private readonly events: Event[] = [];
  private disks = 0;
  private flushes = 0;

  /** @param position how long the log is now */
  constructor(private readonly position: () => number) {}

  get length(): number {
    return this.events.length;
  }

  note(apply: (expected: Expected) => void): void {
    this.events.push({ position: this.position(), apply });
  }

  /** A disk of zeroes. */
  disk(sectors: number): RecordedDisk {
    const disk = new RecordedDisk(this, this.nextDisk(), sectors);
    this.note((expected) => expected.disks.set(disk.id, new DiskModel(sectors, this.sequence)));
    return disk;
  }

  nextDisk(): number {
    this.disks += 1;
    return this.disks;
  }

  nextFlush(): number {
    this.flushes += 1;
    return this.flushes;
  }

  /** Makes a volume or snapshot by `work`, that holds `disk`. */
  async create<T>(name: string, disk: RecordedDisk, work: () => Promise<T>): Promise<T> {
    this.note((expected) => expected.name(name, disk.id, false));
    const result = await work();
    this.note((expected) => expected.settle(name, true));
    return result;
  }

  /** Deletes it by `work`. */
  async remove(name: string, work: () => Promise<unknown>): Promise<void> {
    this.note((expected) => expected.settle(name, false));
    await work();
    this.note((expected) => expected.forget(name));
  }

  /** A walk through the cuts of a log, which come in its order. */
  walk(): (cut: Cut) => Expected {
    const expected = new Expected();
    let next = 0;
    return (cut) => {
      for (; next < this.events.length && this.events[next]!.position <= cut.position; next++)
        this.events[next]!.apply(expected);
      return expected;
    };
  }
}

/** What happens to it is written down; what it holds is known only at a cut. */
export class RecordedDisk extends DiskModel {
  private readonly tokens = new Map<readonly Change[], number>();

  constructor(
    private readonly history: History,
    readonly id: number,
    sectors: number,
  ) {
    super(sectors, history.sequence);
  }

  private note(apply: (disk: DiskModel, expected: Expected) => void): void {
    this.history.note((expected) => apply(expected.disk(this.id), expected));
  }

  private copy(make: (disk: DiskModel) => DiskModel): RecordedDisk {
    const copy = new RecordedDisk(this.history, this.history.nextDisk(), this.sectors);
    this.note((disk, expected) => expected.disks.set(copy.id, make(disk)));
    return copy;
  }

  override fork(): RecordedDisk {
    return this.copy((disk) => disk.fork());
  }

  override snapshot(): RecordedDisk {
    return this.copy((disk) => disk.snapshot());
  }

  override issue(sector: number, count: number, zero: boolean): Change {
    const change = { seq: this.history.sequence.next(), sector, count, zero };
    this.mayHold(change);
    return change;
  }

  override mayHold(change: Change): void {
    this.note((disk) => disk.mayHold(change));
  }

  override acknowledge(change: Change): void {
    this.note((disk) => disk.acknowledge(change));
  }

  override beginFlush(): Change[] {
    const token: Change[] = [];
    const flush = this.history.nextFlush();
    this.tokens.set(token, flush);
    this.note((disk, expected) => expected.flushes.set(flush, disk.beginFlush()));
    return token;
  }

  override flushed(token: readonly Change[]): void {
    this.endFlush(token, (disk, covered) => disk.flushed(covered));
  }

  override unflushed(token: readonly Change[]): void {
    this.endFlush(token, (disk, covered) => disk.unflushed(covered));
  }

  private endFlush(token: readonly Change[], end: (disk: DiskModel, covered: readonly Change[]) => void): void {
    const flush = this.tokens.get(token);
    if (flush === undefined) throw new Error('that flush was never begun');
    this.tokens.delete(token);
    this.note((disk, expected) => {
      end(disk, expected.flushes.get(flush)!);
      expected.flushes.delete(flush);
    });
  }

  override harden(changes: readonly Change[]): void {
    this.note((disk) => disk.harden(changes));
  }

  override stopped(): void {
    this.note((disk) => disk.stopped());
  }

  override died(): void {
    this.note((disk) => disk.died());
  }

  override verify(): never {
    throw new Error('a recorded disk is compared at a cut');
  }

  override settle(): never {
    throw new Error('a recorded disk is compared at a cut');
  }
}
