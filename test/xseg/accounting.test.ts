/** How long a count of what is exclusive holds. */
import { describe, expect, it } from 'vitest';
import { Accounting, type AccountingTicket, FAMILIES_MAX } from '../../src/xseg/mapper/accounting.ts';

const A = { id: 1, pool: 1, grp: 10, root: 5 };
const B = { id: 2, pool: 1, grp: 20, root: 6 };

function accounting(): { known: Accounting; begin: (row: typeof A) => AccountingTicket } {
  const known = new Accounting({ resources: () => [], commitSoon: () => undefined, nextTurn: (run) => run() });
  const begin = (row: typeof A): AccountingTicket => {
    let found: AccountingTicket | null = null;
    known.begin(row, (ticket) => {
      found = ticket;
    });
    expect(found).not.toBeNull();
    return found as unknown as AccountingTicket;
  };
  return { known, begin };
}

describe('a count', () => {
  it('holds until a map of the family changes', () => {
    const { known, begin } = accounting();
    known.end(begin(A), [[A.id, 7]], false);
    known.changed(B);
    expect(known.exclusiveBlocks(A)).toBe(7);
    known.changed(A);
    expect(known.exclusiveBlocks(A)).toBeNull();
  });

  it('of a family that shares slots with others holds until references on shared slots are gone', () => {
    const { known, begin } = accounting();
    known.end(begin(A), [[A.id, 7]], true);
    known.end(begin(B), [[B.id, 3]], false);
    known.slotsDropped();
    expect(known.exclusiveBlocks(A)).toBeNull();
    expect(known.exclusiveBlocks(B)).toBe(3);
  });

  it('that references went during is none, where slots are shared with others', () => {
    const { known, begin } = accounting();
    const [a, b] = [begin(A), begin(B)];
    known.slotsDropped();
    known.end(a, [[A.id, 7]], true);
    known.end(b, [[B.id, 3]], false);
    expect(known.exclusiveBlocks(A)).toBeNull();
    expect(known.exclusiveBlocks(B)).toBe(3);
  });

  it('ends with any folding', () => {
    const { known, begin } = accounting();
    const ticket = begin(B);
    known.end(begin(A), [[A.id, 7]], false);
    known.allChanged();
    known.end(ticket, [[B.id, 3]], false);
    expect(known.exclusiveBlocks(A)).toBeNull();
    expect(known.exclusiveBlocks(B)).toBeNull();
  });

  it.each([
    ['holds after', FAMILIES_MAX, 7],
    ['is forgotten after', FAMILIES_MAX + 1, null],
  ])('%s %i changes of other families while it was made', (_, others, blocks) => {
    const { known, begin } = accounting();
    const ticket = begin(A);
    for (let grp = 100; grp < 100 + others; grp++) known.changed({ pool: 1, grp });
    known.end(ticket, [[A.id, 7]], false);
    expect(known.exclusiveBlocks(A)).toBe(blocks);
    known.end(begin(A), [[A.id, 9]], false);
    expect(known.exclusiveBlocks(A)).toBe(9);
  });

  it('is none when its family changed first, and more families since than are remembered', () => {
    const { known, begin } = accounting();
    const ticket = begin(A);
    known.changed(A);
    for (let grp = 100; grp < 100 + FAMILIES_MAX; grp++) known.changed({ pool: 1, grp });
    known.end(ticket, [[A.id, 7]], false);
    expect(known.exclusiveBlocks(A)).toBeNull();
  });
});
