import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ControlError } from '../../src/control/errors.ts';
import { formatSize, parseSize, parseVolumeSize, roundUpToSector, SIZE_MAX } from '../../src/control/sizes.ts';

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof ControlError) return error.code;
    throw error;
  }
  return 'none';
}

describe('parseSize', () => {
  it.each([
    ['512', 512],
    ['1', 1],
    ['64K', 65536],
    ['64k', 65536],
    ['64KiB', 65536],
    ['10G', 10 * 2 ** 30],
    ['1.5G', 1.5 * 2 ** 30],
    ['0.5K', 512],
    ['1T', 2 ** 40],
    ['1P', SIZE_MAX],
    ['1024T', SIZE_MAX],
    ['1125899906842624', SIZE_MAX],
    ['512B', 512],
    ['007', 7],
  ])('%s is %d', (text, bytes) => {
    expect(parseSize(text)).toBe(bytes);
  });

  it.each([
    '',
    ' ',
    '-5',
    '-1G',
    '+5',
    'G',
    '1 G',
    '1e9',
    '0x10',
    '1,5G',
    '1KB',
    '1.',
    '.5G',
    '1GG',
    '１',
    'NaN',
    'Infinity',
    '1Z',
  ])('%j is refused as INVALID', (text) => {
    expect(codeOf(() => parseSize(text))).toBe('INVALID');
  });

  it.each(['0', '0K', '0.0G', '0.3', '0.0001K', '1.0001K'])('%j is zero or no whole number of bytes', (text) => {
    expect(codeOf(() => parseSize(text))).toBe('INVALID');
  });

  it.each(['1125899906842625', '1.1P', '2P', '1025T', '99999999999999999999'])('%j is more than 1 PiB', (text) => {
    expect(codeOf(() => parseSize(text))).toBe('TOO_LARGE');
  });

  it('reads every number of bytes back, with and without suffixes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 40 }), fc.integer({ min: 0, max: 1 }), (bytes, power) => {
        expect(parseSize(String(bytes))).toBe(bytes);
        if (bytes * 1024 ** power <= SIZE_MAX)
          expect(parseSize(`${bytes}${power ? 'K' : ''}`)).toBe(bytes * 1024 ** power);
      }),
    );
  });

  it('never returns anything but whole bytes in range, whatever is typed, and never throws anything else', () => {
    const typed = fc.oneof(
      fc.string(),
      fc.string({ unit: fc.constantFrom(...'0123456789.-+KMGTPkiB eE'), maxLength: 30 }),
    );
    fc.assert(
      fc.property(typed, (text) => {
        let bytes: number;
        try {
          bytes = parseSize(text);
        } catch (error) {
          expect(error).toBeInstanceOf(ControlError);
          expect((error as Error).message).not.toContain('\n');
          return;
        }
        expect(Number.isSafeInteger(bytes) && bytes >= 1 && bytes <= SIZE_MAX).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });

  it('says what would do', () => {
    expect(() => parseSize('10 apples')).toThrow(/512, 64K, 10G, 1P/);
    expect(() => parseSize('-1')).toThrow(/negative/);
  });
});

describe('parseVolumeSize', () => {
  it('wants whole sectors, and names the next one', () => {
    expect(parseVolumeSize('512')).toBe(512);
    expect(codeOf(() => parseVolumeSize('513'))).toBe('INVALID');
    expect(() => parseVolumeSize('513')).toThrow(/1024 would do/);
    expect(codeOf(() => parseVolumeSize('511'))).toBe('INVALID');
  });

  it('rounds up and never down', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: SIZE_MAX - 512 }), (bytes) => {
        const rounded = roundUpToSector(bytes);
        expect(rounded % 512).toBe(0);
        expect(rounded - bytes).toBeGreaterThanOrEqual(0);
        expect(rounded - bytes).toBeLessThan(512);
      }),
    );
  });
});

describe('formatSize', () => {
  it.each([
    [0, '0 B'],
    [512, '512 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [2 ** 30 * 10, '10 GiB'],
    [2 ** 40 - 1, '1023.9 GiB'],
    [SIZE_MAX, '1 PiB'],
    [2 ** 51, '2 PiB'],
  ])('%d is %s', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });

  it('never claims more than there is, and is not off by more than a tenth', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: SIZE_MAX }), (bytes) => {
        const text = formatSize(bytes).replace(' ', '').replace('iB', '').replace('B', '');
        const units: Record<string, number> = { K: 1024, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40, P: 2 ** 50 };
        const shown = Number.parseFloat(text) * (units[text.at(-1) ?? ''] ?? 1);
        expect(shown).toBeLessThanOrEqual(bytes);
        expect(shown).toBeGreaterThanOrEqual(bytes * 0.9);
      }),
    );
  });
});
