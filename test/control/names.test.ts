import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkName, isHiddenName, joinName, nameProblem, quoteName, splitName } from '../../src/xseg/names.ts';
import { EngineError } from '../../src/xseg/types.ts';

describe('nameProblem', () => {
  it.each([
    'a',
    'demo',
    'A b',
    '.hidden',
    '...',
    'a-b',
    '_',
    '0',
    'ünïcödé',
    '磁碟',
    '💾',
    ' ',
    'a:b',
    'a%2Fb',
    "it's",
    'x'.repeat(255),
  ])('takes %j', (name) => {
    expect(nameProblem(name)).toBeNull();
  });

  it.each([
    '',
    '.',
    '..',
    '-',
    '-rf',
    'a/b',
    '/',
    'a@b',
    '@',
    'a\0b',
    'a\nb',
    'a\tb',
    '\x1b[31m',
    'a\x7f',
    'a\x85',
    'x'.repeat(256),
    '\ud800',
    'a\udc00b',
  ])('refuses %j', (name) => {
    expect(nameProblem(name)).not.toBeNull();
  });

  it('counts bytes, not characters', () => {
    expect(nameProblem('ü'.repeat(127))).toBeNull();
    expect(nameProblem('ü'.repeat(128))).toMatch(/255 bytes/);
    expect(nameProblem(`${'💾'.repeat(63)}abc`)).toBeNull();
    expect(nameProblem('💾'.repeat(64))).toMatch(/255 bytes/);
  });

  it('takes only what survives UTF-8, a path, and VOL@SNAP', () => {
    const text = fc.oneof(
      fc.string({ unit: 'grapheme', minLength: 1 }),
      fc.string({ unit: fc.constantFrom(...'abc@/.-\0\n '), minLength: 1, maxLength: 4 }),
    );
    fc.assert(
      fc.property(text, text, (volume, snapshot) => {
        fc.pre(nameProblem(volume) === null && nameProblem(snapshot) === null);
        expect(Buffer.from(volume).toString()).toBe(volume);
        expect(volume.split('/')).toHaveLength(1);
        expect(splitName(joinName(volume, snapshot))).toEqual({ volume, snapshot });
      }),
      { numRuns: 300 },
    );
  });
});

describe('checkName', () => {
  it('throws INVALID, one line, naming the name', () => {
    try {
      checkName('volume', 'a\nb/c');
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(EngineError);
      expect((error as EngineError).code).toBe('INVALID');
      expect((error as EngineError).message).toBe('the volume name "a\\nb/c" has a control character');
    }
  });

  it('quotes bounded and without anything a terminal would obey', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 500 }), (name) => {
        const quoted = quoteName(name);
        expect(quoted).not.toMatch(/\p{Cc}/u);
        expect(quoted.length).toBeLessThan(600);
      }),
    );
  });
});

describe('splitName', () => {
  it('takes a volume, or a volume and a snapshot', () => {
    expect(splitName('a')).toEqual({ volume: 'a', snapshot: null });
    expect(splitName('a@b')).toEqual({ volume: 'a', snapshot: 'b' });
  });

  it.each(['', '@', 'a@', '@b', 'a@b@c', '../x', 'a/b@c'])('refuses %j', (name) => {
    expect(() => splitName(name)).toThrow(EngineError);
  });
});

describe('isHiddenName', () => {
  it('knows the daemon’s own volumes and snapshots', () => {
    expect(isHiddenName('.atoll-0123')).toBe(true);
    expect(isHiddenName('vol@.atoll-0123')).toBe(true);
    expect(isHiddenName('atoll-0123')).toBe(false);
    expect(isHiddenName('vol@x.atoll-')).toBe(false);
  });
});
