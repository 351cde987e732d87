/** Tokens as bytes, and the keys that sign them. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  METHODS,
  readToken,
  type Scope,
  type TokenPayload,
  writeToken,
} from '../../../src/frontends/http/identity/token-format.ts';
import { KEY_AGE_MS_MAX, TokenKeys } from '../../../src/frontends/http/identity/token-keys.ts';

const LIFE_MS = 3600_000;
let dir: string;
let keys: TokenKeys;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-keys-'));
  keys = new TokenKeys(dir, LIFE_MS);
});
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const id = fc.stringMatching(/^[0-9a-f]{31}[1-9a-f]$/);
const scope: fc.Arbitrary<Scope> = fc.oneof(
  fc.constantFrom<Scope>({ kind: 'unscoped' }, { kind: 'system' }, { kind: 'domain', id: 'default' }),
  id.map((one) => ({ kind: 'project' as const, id: one })),
  id.map((one) => ({ kind: 'domain' as const, id: one })),
);
const time = fc.integer({ min: 0, max: 2 ** 48 - 1 });
const count = fc.integer({ min: 0, max: 2 ** 32 - 1 });
const payload: fc.Arbitrary<TokenPayload> = fc.record({
  methods: fc.subarray([...METHODS]),
  userId: id,
  scope,
  issuedAt: time,
  expiresAt: time,
  auditId: id,
  chainId: fc.option(id),
  applicationCredentialId: fc.option(id),
  userEpoch: count,
  scopeEpoch: count,
});
const ONE: TokenPayload = {
  methods: ['password'],
  userId: 'a'.repeat(32),
  scope: { kind: 'system' },
  issuedAt: 1,
  expiresAt: 2,
  auditId: 'b'.repeat(32),
  chainId: null,
  applicationCredentialId: null,
  userEpoch: 0,
  scopeEpoch: 0,
};

describe('the format', () => {
  it('what is written is read, in 186 characters', () => {
    fc.assert(
      fc.property(payload, (token) => {
        const text = writeToken(token, keys);
        expect(text).toMatch(/^[\w-]{186}$/);
        expect(readToken(text, keys)).toEqual(token);
      }),
      { numRuns: 200 },
    );
  });

  it('a bit more or less, and it is none', () => {
    const text = writeToken(ONE, keys);
    const bytes = Buffer.from(text, 'base64url');
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const changed = Buffer.from(bytes);
      changed[bit >> 3]! ^= 1 << (bit & 7);
      expect(readToken(changed.toString('base64url'), keys)).toBeNull();
    }
    for (const other of [
      '',
      text.slice(1),
      `${text}A`,
      text.slice(0, -1),
      ` ${text.slice(1)}`,
      `${text.slice(0, -1)}=`,
    ])
      expect(readToken(other, keys)).toBeNull();
    // Two bits of the last character say nothing; only one way to write them is ours.
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
    const same = [...alphabet].filter((last) => readToken(text.slice(0, -1) + last, keys) !== null);
    expect(same).toEqual([text.at(-1)]);
  });

  it('another daemon’s is none', () => {
    const elsewhere = fs.mkdtempSync(path.join(os.tmpdir(), 'atoll-keys-'));
    try {
      expect(readToken(writeToken(ONE, new TokenKeys(elsewhere, LIFE_MS)), keys)).toBeNull();
    } finally {
      fs.rmSync(elsewhere, { recursive: true });
    }
  });
});

describe('keys', () => {
  const file = () => path.join(dir, 'token-keys.json');

  it('are the owner’s alone, and the same after a restart', () => {
    expect(fs.statSync(file()).mode & 0o777).toBe(0o600);
    expect(readToken(writeToken(ONE, keys), new TokenKeys(dir, LIFE_MS))).toEqual(ONE);
  });

  it('change after their time, and verify for as long as what they signed may live', () => {
    const made = (JSON.parse(fs.readFileSync(file(), 'utf8')) as [{ created_at: number }])[0].created_at;
    const text = writeToken(ONE, keys);
    const first = keys.current;
    keys.rotate(made + KEY_AGE_MS_MAX);
    expect(keys.current).toBe(first);
    const changed = made + KEY_AGE_MS_MAX + 1;
    keys.rotate(changed);
    expect(keys.current).not.toBe(first);
    expect(readToken(text, keys)).toEqual(ONE);
    keys.rotate(changed + LIFE_MS);
    expect(readToken(text, keys)).toEqual(ONE);
    keys.rotate(changed + LIFE_MS + 1);
    expect(readToken(text, keys)).toBeNull();
    expect(JSON.parse(fs.readFileSync(file(), 'utf8'))).toHaveLength(1);
  });
});
