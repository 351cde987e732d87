/**
 * What a disk may hold after a crash, sector by sector.
 *
 * Every write has a sequence number, and every sector carries the number of the write that it came from, so that a
 * sector read later says which write it is of. After a crash a sector may hold the last write that was flushed, or any
 * issued after that; anything else is lost or foreign data. Two requests that overlap are never in flight together (the
 * writer sees to that), so the order of issue is the order of effect.
 */

export const SECTOR_BYTES = 512;
const ZERO_SECTOR = Buffer.alloc(SECTOR_BYTES);
const MAGIC = 0x41544f4c;

/** Zeroes have no number of their own on the disk. */
const ZEROES = 0;

export interface Fault {
  sector: number;
  message: string;
}

/** Numbers of writes, over all disks of a run: a sector from another disk is never mistaken for one of this. */
export class Sequence {
  private last = 0;

  next(): number {
    this.last += 1;
    return this.last;
  }
}

/** The bytes of write `seq` at `sector`. */
export function fillSector(into: Buffer, at: number, seq: number, sector: number): void {
  into.fill((seq * 31 + sector * 7 + 1) & 0xff, at, at + SECTOR_BYTES);
  into.writeUInt32LE(MAGIC, at);
  into.writeUInt32LE(seq, at + 4);
  into.writeUInt32LE(sector, at + 8);
}

/** Something that changes sectors [sector, sector + count). */
export interface Change {
  seq: number;
  sector: number;
  count: number;
  zero: boolean;
}

export class DiskModel {
  /** the write that each sector holds for certain, ZEROES for none */
  private readonly durable: Uint32Array;
  /** writes that were issued after the durable one and may be there or not, in the order of issue */
  private readonly since = new Map<number, Change[]>();
  private acknowledged: Change[] = [];
  /** acknowledged, and in a flush that is not answered yet */
  private readonly flushing = new Set<readonly Change[]>();

  constructor(
    readonly sectors: number,
    private readonly sequence: Sequence,
  ) {
    this.durable = new Uint32Array(sectors);
  }

  /** The same disk under another name: what a clone of it begins as. */
  fork(): DiskModel {
    const copy = new DiskModel(this.sectors, this.sequence);
    copy.durable.set(this.durable);
    for (const [sector, changes] of this.since) copy.since.set(sector, [...changes]);
    return copy;
  }

  /**
   * The same disk at a snapshot that was asked for now: what was acknowledged is in. What is on its way may be in or
   * not, and so may be what is issued before the answer: `issue` it into both.
   */
  snapshot(): DiskModel {
    const copy = this.fork();
    for (const covered of this.flushing) copy.harden(covered);
    copy.harden(this.acknowledged);
    return copy;
  }

  /** A change is about to be sent. */
  issue(sector: number, count: number, zero: boolean): Change {
    const change = { seq: this.sequence.next(), sector, count, zero };
    this.mayHold(change);
    return change;
  }

  /** A change of the original that may have made it into this snapshot. */
  mayHold(change: Change): void {
    for (let at = change.sector; at < change.sector + change.count; at++) {
      const changes = this.since.get(at);
      if (changes) changes.push(change);
      else this.since.set(at, [change]);
    }
  }

  /** The server answered it. */
  acknowledge(change: Change): void {
    this.acknowledged.push(change);
  }

  /** A flush is about to be sent; `flushed` with the result when it is answered. */
  beginFlush(): Change[] {
    const covered = this.acknowledged;
    this.acknowledged = [];
    this.flushing.add(covered);
    return covered;
  }

  flushed(covered: readonly Change[]): void {
    this.flushing.delete(covered);
    this.harden(covered);
  }

  /** A flush failed, and says nothing. */
  unflushed(covered: readonly Change[]): void {
    this.flushing.delete(covered);
    this.acknowledged = [...covered, ...this.acknowledged];
  }

  /** It was acknowledged and is durable: FUA, or a clean stop. */
  harden(changes: readonly Change[]): void {
    for (const change of changes) {
      for (let at = change.sector; at < change.sector + change.count; at++) {
        // The order of issue is the order of effect: what was issued before it is overwritten.
        const waiting = this.since.get(at);
        const index = waiting?.findIndex((one) => one.seq === change.seq) ?? -1;
        // Not there: a later change of this sector is durable already.
        if (!waiting || index < 0) continue;
        this.durable[at] = change.zero ? ZEROES : change.seq;
        if (index + 1 === waiting.length) this.since.delete(at);
        else waiting.splice(0, index + 1);
      }
    }
  }

  /** A clean stop: everything acknowledged is durable. */
  stopped(): void {
    this.flushed(this.beginFlush());
  }

  /** The server died: what it answered and did not flush may be lost, and no flush of the next one is about that. */
  died(): void {
    this.acknowledged = [];
    this.flushing.clear();
  }

  /**
   * Compares what the disk holds, and takes it as what it holds from now on.
   *
   * @param data from `sector` on, whole sectors
   * @returns at most `faultsMax` sectors that hold what they must not
   */
  verify(sector: number, data: Buffer, faultsMax = 10): Fault[] {
    const faults: Fault[] = [];
    const expected = Buffer.alloc(SECTOR_BYTES);
    for (let at = 0; at < data.length; at += SECTOR_BYTES) {
      const number = sector + at / SECTOR_BYTES;
      const bytes = data.subarray(at, at + SECTOR_BYTES);
      const found = bytes.equals(ZERO_SECTOR) ? ZEROES : bytes.readUInt32LE(4);
      if (found === ZEROES) expected.fill(0);
      else fillSector(expected, 0, found, number);
      let message = '';
      if (!bytes.equals(expected))
        message = `holds bytes that no write put there: ${bytes.subarray(0, 16).toString('hex')}`;
      else if (!this.mayBe(number, found)) message = this.explain(number, found);
      if (message !== '' && faults.length < faultsMax) faults.push({ sector: number, message });
      this.durable[number] = found;
    }
    return faults;
  }

  /** What was read is what there is; nothing is on its way any more. Call after all of the disk was verified. */
  settle(): void {
    this.since.clear();
    this.flushing.clear();
    this.acknowledged = [];
  }

  private mayBe(sector: number, found: number): boolean {
    if (this.durable[sector] === found) return true;
    const waiting = this.since.get(sector) ?? [];
    return waiting.some((change) => (change.zero ? found === ZEROES : change.seq === found));
  }

  private explain(sector: number, found: number): string {
    const waiting = (this.since.get(sector) ?? []).map((change) => (change.zero ? `zeroes ${change.seq}` : change.seq));
    const later = waiting.length > 0 ? ` or ${waiting.join(', ')}` : '';
    return `holds write ${found}, but write ${this.durable[sector]} was durable${later}`;
  }
}
