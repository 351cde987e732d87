import { describe, expect, it } from 'vitest';
import { parseFio } from '../../bench/fio.ts';

const direction = (iops: number, ios: number) => ({
  iops,
  bw_bytes: iops * 4096,
  total_ios: ios,
  runtime: 2000,
  clat_ns: { percentile: { '50.000000': 10_000, '99.000000': 55_000 } },
});
const none = { iops: 0, bw_bytes: 0, total_ios: 0, runtime: 0 };
const output = (read: object, write: object, error = 0) =>
  JSON.stringify({ jobs: [{ error, read, write, usr_cpu: 20, sys_cpu: 30 }] });

describe('fio output', () => {
  it('takes the direction that was asked for', () => {
    const result = parseFio(output(direction(500, 1000), none), 'randread');
    expect(result).toEqual({
      iops: 500,
      bytesPerSecond: 500 * 4096,
      requests: 1000,
      seconds: 2,
      p50Us: 10,
      p99Us: 55,
      clientCores: 0.5,
    });
    expect(parseFio(output(none, direction(7, 14)), 'write').requests).toBe(14);
    expect(parseFio(output(none, direction(7, 14)), 'write', 4).clientCores).toBe(2);
  });

  it('adds both directions of a mix', () => {
    const result = parseFio(output(direction(500, 1000), direction(100, 200)), 'randrw');
    expect(result.iops).toBe(600);
    expect(result.requests).toBe(1200);
  });

  it('skips the warnings that fio writes before the JSON', () => {
    expect(parseFio(`fio: a warning\n${output(direction(5, 10), none)}`, 'read').iops).toBe(5);
  });

  it('takes no error and no silence for a measurement', () => {
    expect(() => parseFio(output(direction(5, 10), none, 5), 'read')).toThrow('error 5');
    expect(() => parseFio(output(none, none), 'read')).toThrow('no I/O');
    expect(() => parseFio('{"jobs":[]}', 'read')).toThrow('no job');
  });
});
