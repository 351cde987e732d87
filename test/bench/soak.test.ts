import { describe, expect, it } from 'vitest';
import { machineTime } from '../../bench/proc.ts';
import { ends, judge, percentile, type Sample, slope, takeFacts } from '../../bench/soak/samples.ts';

const STILL: Sample = {
  ...{ seconds: 0, descriptors: 100, sockets: 64, poolFiles: 8, threads: 9, rssMiB: 300 },
  ...{ anonMiB: 100, sharedMiB: 200 },
  ...{ besideReadP99Us: null, besideWriteP99Us: null, stolenShare: 0 },
  ...{ readP50Us: 50, readP99Us: 100, writeP99Us: 200, snapshotP99Ms: 5, requestsPerSecond: 1, snapshotsPerSecond: 1 },
  ...{ snapshots: 1, connections: 64, dropQueue: 0, usedMiB: 1, physicalMiB: 1, storeMiB: 1 },
};

const DESCRIPTORS = 'descriptors stay equal';

/** An hour and ten minutes, a sample a minute, as `at` makes each. */
function run(at: (minute: number) => Partial<Sample>): Record<string, boolean> {
  const samples = Array.from({ length: 71 }, (_, i) => ({ ...STILL, seconds: i * 60, ...at(i) }));
  return Object.fromEntries(judge(samples, 600).map(({ text, pass }) => [text, pass]));
}

describe('the verdict of a soak', () => {
  it('is well when nothing rises after the warm-up', () => {
    const well = run((minute) => ({ descriptors: minute < 10 ? minute : 100, rssMiB: minute < 10 ? 100 : 300 }));
    expect(Object.values(well)).toEqual([true, true, true, true, true]);
  });

  it('misses one descriptor more at the end, and one less', () => {
    expect(run((minute) => ({ descriptors: minute > 40 ? 101 : 100 }))[DESCRIPTORS]).toBe(false);
    expect(run((minute) => ({ descriptors: minute > 40 ? 99 : 100 }))[DESCRIPTORS]).toBe(false);
    expect(run((minute) => ({ descriptors: minute === 40 ? 101 : 100 }))[DESCRIPTORS]).toBe(true);
    expect(run((minute) => ({ descriptors: 100 + minute, poolFiles: 8 + minute }))[DESCRIPTORS]).toBe(false);
  });

  it('takes a thread that comes and goes with its descriptors, and not two more', () => {
    const with_ = (threads: number, from: number) => (m: number) =>
      m % 3 === 0 || m < from ? {} : { threads, descriptors: 105 };
    expect(run(with_(10, 30))).toMatchObject({ [DESCRIPTORS]: true, 'threads rise': true });
    expect(run(with_(11, 30))['threads rise']).toBe(false);
  });

  it('takes 0.9 % of memory an hour and not 1.1 %', () => {
    const rising = (percent: number) => run((m) => ({ rssMiB: 300 * (1 + (percent / 100) * ((m - 40) / 60)) }));
    expect(rising(0.9)['resident memory rises']).toBe(true);
    expect(rising(1.1)['resident memory rises']).toBe(false);
  });

  it('takes a p99 that rises by 20 % and no more, of reads and of writes', () => {
    expect(run((m) => ({ readP99Us: m > 50 ? 120 : 100 }))['p99 of reads rises']).toBe(true);
    expect(run((m) => ({ readP99Us: m > 50 ? 121 : 100 }))['p99 of reads rises']).toBe(false);
    expect(run((m) => ({ writeP99Us: m > 50 ? 250 : 200 }))['p99 of writes rises']).toBe(false);
    expect(run(() => ({ readP99Us: null }))).not.toHaveProperty('p99 of reads rises');
  });

  it('takes latencies of another server beside it for the machine: what both feel is no rise', () => {
    const slower = (from: number, by: number) => (m: number) => (m > from ? by : 1);
    const text = 'p99 of reads in that of nbdkit beside rises';
    const both = run((m) => ({ readP99Us: 100 * slower(40, 2)(m), besideReadP99Us: 80 * slower(40, 2)(m) }));
    expect(both).toMatchObject({ [text]: true, 'p99 of reads rises': false });
    expect(run((m) => ({ readP99Us: 100 * slower(40, 1.25)(m), besideReadP99Us: 80 }))[text]).toBe(false);
    expect(run((m) => ({ readP99Us: 100, besideReadP99Us: 80 * slower(40, 0.5)(m) }))[text]).toBe(false);
    expect(run(() => ({ readP99Us: 100 }))).not.toHaveProperty(text);
  });

  it('needs two samples after the warm-up', () => {
    expect(() => judge([STILL, { ...STILL, seconds: 600 }], 600)).toThrow(RangeError);
  });
});

describe('what it is made of', () => {
  it('a slope, the ends of a curve, a percentile', () => {
    expect(slope([1, 2, 3].map((x) => [x, 5 - 2 * x] as const))).toBeCloseTo(-2);
    expect(() => slope([[1, 1]])).toThrow(RangeError);
    expect(ends([1, 1, 9, 9, 9, 9, 9, 9, 5, 5])).toEqual({ first: 1, last: 5 });
    expect(ends([7])).toEqual({ first: 7, last: 7 });
    expect(percentile([], 0.5)).toBeNull();
    expect(percentile([3, 1, 2], 1)).toBe(3);
  });

  it('what the kernel says of the machine', () => {
    const { total, stolen } = machineTime();
    expect(total).toBeGreaterThan(1);
    expect(stolen).toBeGreaterThanOrEqual(0);
    expect(stolen).toBeLessThan(total);
  });

  it('what the kernel says of a process', () => {
    const facts = takeFacts(process.pid);
    expect(facts.descriptors).toBeGreaterThan(2);
    expect(facts.sockets).toBeLessThanOrEqual(facts.descriptors);
    expect(facts.threads).toBeGreaterThan(1);
    expect(facts.rssMiB).toBeGreaterThan(10);
  });
});
