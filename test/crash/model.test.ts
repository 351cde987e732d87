import { describe, expect, it } from 'vitest';
import { DiskModel, fillSector, SECTOR_BYTES, Sequence } from '../e2e/lib/model.ts';

const SECTORS = 8;

/** A disk that the test changes by hand. */
class Disk {
  readonly bytes = Buffer.alloc(SECTORS * SECTOR_BYTES);

  write(seq: number, sector: number, count = 1): void {
    for (let i = 0; i < count; i++) fillSector(this.bytes, (sector + i) * SECTOR_BYTES, seq, sector + i);
  }

  zero(sector: number, count = 1): void {
    this.bytes.fill(0, sector * SECTOR_BYTES, (sector + count) * SECTOR_BYTES);
  }
}

function fresh() {
  return { model: new DiskModel(SECTORS, new Sequence()), disk: new Disk() };
}

describe('the model of a disk that crashes', () => {
  it('takes an unflushed write, or its absence, or a part of it', () => {
    for (const sectors of [0, 1, 3]) {
      const { model, disk } = fresh();
      const change = model.issue(2, 3, false);
      model.acknowledge(change);
      disk.write(change.seq, 2, sectors);
      expect(model.verify(0, disk.bytes)).toEqual([]);
    }
  });

  it('misses a flushed write that is gone', () => {
    const { model, disk } = fresh();
    const change = model.issue(2, 3, false);
    model.acknowledge(change);
    model.flushed(model.beginFlush());
    expect(model.verify(0, disk.bytes).map(({ sector }) => sector)).toEqual([2, 3, 4]);
  });

  it('misses an FUA write that is gone, and a flushed one under an unflushed one', () => {
    const { model, disk } = fresh();
    const first = model.issue(1, 1, false);
    model.harden([first]);
    const second = model.issue(1, 1, false);
    disk.write(second.seq, 1);
    expect(model.verify(0, disk.bytes)).toEqual([]);
    const again = fresh();
    again.model.harden([again.model.issue(1, 1, false)]);
    again.model.issue(1, 1, false);
    expect(again.model.verify(0, again.disk.bytes)).toHaveLength(1);
  });

  it('does not count a write that was acknowledged after the flush was sent', () => {
    const { model, disk } = fresh();
    const covered = model.beginFlush();
    model.acknowledge(model.issue(0, 1, false));
    model.flushed(covered);
    expect(model.verify(0, disk.bytes)).toEqual([]);
  });

  it('sees an old write come back after a newer one was flushed', () => {
    const { model, disk } = fresh();
    const old = model.issue(0, 1, false);
    model.acknowledge(old);
    model.acknowledge(model.issue(0, 1, false));
    model.flushed(model.beginFlush());
    disk.write(old.seq, 0);
    expect(model.verify(0, disk.bytes)).toHaveLength(1);
  });

  it('sees data of another sector, of another disk, and torn bytes', () => {
    const { model, disk } = fresh();
    const change = model.issue(0, 2, false);
    model.harden([change]);
    disk.write(change.seq, 0, 2);
    disk.bytes.copy(disk.bytes, SECTOR_BYTES, 0, SECTOR_BYTES);
    expect(model.verify(0, disk.bytes)).toMatchObject([{ sector: 1, message: expect.stringContaining('no write') }]);
    const foreign = fresh();
    foreign.disk.write(99, 3);
    expect(foreign.model.verify(0, foreign.disk.bytes)).toHaveLength(1);
    const torn = fresh();
    torn.model.harden([torn.model.issue(0, 1, false)]);
    torn.disk.write(1, 0);
    torn.disk.bytes[300]! ^= 1;
    expect(torn.model.verify(0, torn.disk.bytes)).toHaveLength(1);
  });

  it('treats zeroes as a write: they stay when flushed, and old bytes do not come back', () => {
    const { model, disk } = fresh();
    const data = model.issue(0, 1, false);
    model.harden([data]);
    model.harden([model.issue(0, 1, true)]);
    disk.write(data.seq, 0);
    expect(model.verify(0, disk.bytes)).toHaveLength(1);
    const other = fresh();
    other.model.harden([other.model.issue(0, 1, false)]);
    other.model.issue(0, 1, true);
    expect(other.model.verify(0, other.disk.bytes)).toEqual([]);
  });

  it('wants acknowledged writes in a snapshot, flushed or not, also while a flush is on its way', () => {
    for (const flushing of [false, true]) {
      const { model, disk } = fresh();
      model.acknowledge(model.issue(0, 1, false));
      if (flushing) model.beginFlush();
      expect(model.snapshot().verify(0, disk.bytes)).toHaveLength(1);
    }
  });

  it('lets a snapshot have what was on its way, and nothing later', () => {
    const { model, disk } = fresh();
    const before = model.issue(0, 1, false);
    const snapshot = model.snapshot();
    const after = model.issue(1, 1, false);
    disk.write(before.seq, 0);
    expect(snapshot.fork().verify(0, disk.bytes)).toEqual([]);
    disk.write(after.seq, 1);
    expect(snapshot.fork().verify(0, disk.bytes)).toHaveLength(1);
  });

  it('wants what it once read to stay, and everything acknowledged after a clean stop', () => {
    const { model, disk } = fresh();
    const change = model.issue(0, 1, false);
    disk.write(change.seq, 0);
    expect(model.verify(0, disk.bytes)).toEqual([]);
    model.settle();
    disk.zero(0);
    expect(model.verify(0, disk.bytes)).toHaveLength(1);
    const stopped = fresh();
    stopped.model.acknowledge(stopped.model.issue(0, 1, false));
    stopped.model.stopped();
    expect(stopped.model.verify(0, stopped.disk.bytes)).toHaveLength(1);
  });
});
