/** Whether guests work, as background work asks. */
import { expect, it } from 'vitest';
import { Guests } from '../../src/xseg/mapper/guests.ts';
import type { Native } from '../../src/xseg/native.ts';

it('guests are busy when one of the reactors had requests since the last look; looks are 20 ms apart', () => {
  const requests = [0, 0];
  const native = { reactorStats: () => requests.map((count) => ({ requests: count })) } as unknown as Native;
  const guests = new Guests(native, 0);
  expect(guests.busy(0)).toBe(false);
  requests[1]++;
  expect(guests.busy(19)).toBe(false);
  expect(guests.busy(20)).toBe(true);
  expect(guests.busy(39)).toBe(true);
  expect(guests.busy(40)).toBe(false);
});
