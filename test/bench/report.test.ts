import { describe, expect, it } from 'vitest';
import { ATOLL, CLIENT_LIMIT, LIMIT_PROBE, NBDKIT_MEMORY } from '../../bench/peers/server.ts';
import { markdown, number } from '../../bench/report.ts';
import { atMost, newRow, pairedFact, type Report, ratioGoal } from '../../bench/result.ts';
import { longestGap } from '../../bench/rows/snapshot-load.ts';
import { scatterOffsets } from '../../bench/scatter.ts';
import { MIB } from '../../bench/size.ts';

function samples(...values: number[]) {
  return values.map((value) => ({ value, cpuPerMillion: value / 10 }));
}

function comparison(ours: number[], theirs: number[], factor: number) {
  const row = newRow('read', 'reads', 'IOPS');
  row.series.push({ name: ATOLL, samples: samples(...ours) }, { name: NBDKIT_MEMORY, samples: samples(...theirs) });
  ratioGoal(row, ATOLL, NBDKIT_MEMORY, factor);
  return row;
}

function report(...rows: Report['rows']): Report {
  const failures = [{ id: 'broken', title: 'broken', error: 'no such thing' }];
  return { startedAt: 'now', seconds: 60, rounds: 3, runtimeSeconds: 1, machine: { cpu: 'x' }, rows, failures };
}

describe('bench report', () => {
  it('judges a goal by the median of the paired ratios, on both sides of the bound', () => {
    const [goal] = comparison([20, 30, 100], [10, 20, 10], 1.9).goals;
    expect(goal).toMatchObject({ value: 2, spread: { min: 1.5, max: 10, median: 2 }, pass: true });
    expect(comparison([20, 30, 100], [10, 20, 10], 2).goals[0]?.pass).toBe(true);
    expect(comparison([20, 30, 100], [10, 20, 10], 2.01).goals[0]?.pass).toBe(false);
  });

  it('has no opinion on a peer that did not run', () => {
    const row = comparison([1], [1], 1);
    ratioGoal(row, ATOLL, 'nobody', 3);
    expect(row.goals).toHaveLength(1);
  });

  it('names every miss and everything that was not measured first', () => {
    const late = newRow('late', 'too late', 'ms', 'lower');
    atMost(late, 'p99 ≤ 5 ms', 5.01, 5, 'ms');
    atMost(late, 'p50 ≤ 5 ms', 5, 5, 'ms');
    const text = markdown(report(comparison([20], [10], 1.5), late));
    expect(text).toContain('**2 of 3 goals met.**');
    expect(text).toContain('- MISS `late`: p99 ≤ 5 ms, it is 5.01 ms');
    expect(text).toContain('- NOT MEASURED `broken`: no such thing');
    expect(text).toContain('| reads | ≥ 1.5 × nbdkit memory | 2 × (2–2) | pass |');
    expect(text.match(/\*\*MISS\*\*/g)).toHaveLength(1);
  });

  it('writes CPU time beside each', () => {
    expect(markdown(report(comparison([20], [10], 1)))).toContain('| reads | 2 | 1 |');
  });

  it('shows the limits in the table of the servers, and says that they are no peers', () => {
    const row = comparison([20], [10], 1);
    row.series.push({ name: LIMIT_PROBE, samples: samples(30) }, { name: CLIENT_LIMIT, samples: samples(50) });
    pairedFact(row, 'atoll_to_limit_probe_ratio', ATOLL, LIMIT_PROBE);
    const text = markdown(report(comparison([20], [10], 1), row));
    expect(text).toContain('| work | unit | atoll | nbdkit memory | _limit probe_ | _client limit (no storage)_ |');
    expect(text.match(/\| work \| unit \|/g)).toHaveLength(1);
    expect(text).toContain('no peers and have no goals');
    expect(text).toContain('atoll to limit probe ratio: 0.67');
    expect(markdown(report(comparison([20], [10], 1)))).not.toContain('no peers');
  });

  it('writes three digits', () => {
    expect([0.0123, 1.234, 12.34, 123.4, 1234, 12_345, 123_456].map(number)).toEqual([
      '0.01',
      '1.23',
      '12.3',
      '123',
      '1234',
      '12.3k',
      '123k',
    ]);
  });
});

describe('longest gap', () => {
  const ends = [0, 1, 2, 10, 11, 30];
  it('is the longest that overlaps the window', () => {
    expect(longestGap(ends, { from: 3, to: 5 })).toBe(8);
    expect(longestGap(ends, { from: 0, to: 1 })).toBe(1);
    expect(longestGap(ends, { from: 10, to: 12 })).toBe(19);
    expect(longestGap(ends, { from: 0, to: 100 })).toBe(19);
  });
});

describe('scattered map', () => {
  it('writes as many blocks as told into every leaf, none twice, the same every time', () => {
    const offsets = [...scatterOffsets(96 * MIB, 4, 1)];
    expect(offsets).toEqual([...scatterOffsets(96 * MIB, 4, 1)]);
    expect(new Set(offsets).size).toBe(12);
    for (const leaf of [0, 1, 2]) {
      expect(offsets.filter((offset) => Math.floor(offset / (32 * MIB)) === leaf)).toHaveLength(4);
    }
    expect(offsets.every((offset) => offset % 65_536 === 0)).toBe(true);
  });
});
