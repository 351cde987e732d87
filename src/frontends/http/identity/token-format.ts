/**
 * A token: 107 bytes that say who and where, and their HMAC-SHA-256, as 186 characters of base64url (docs/identity.md, "Tokens").
 * What it may do is not in it: that is looked up whenever it is used.
 */
import type { TokenKeys } from './token-keys.ts';

const VERSION = 1;
const PAYLOAD_BYTES = 107;
const MAC_BYTES = 32;
const TEXT = /^[A-Za-z0-9_-]{186}$/;

/** offsets in the payload; integers are big-endian */
const AT = {
  version: 0,
  scope: 1,
  methods: 2,
  user: 3,
  scopeId: 19,
  issued: 35,
  expires: 41,
  audit: 47,
  chain: 63,
  credential: 79,
  userEpoch: 95,
  scopeEpoch: 99,
  key: 103,
} as const;

const SCOPES = ['unscoped', 'project', 'domain', 'default-domain', 'system'] as const;
export const METHODS = ['password', 'token', 'application_credential'] as const;
export type Method = (typeof METHODS)[number];

export type Scope =
  | { kind: 'unscoped' }
  | { kind: 'project'; id: string }
  | { kind: 'domain'; id: string }
  | { kind: 'system' };

export interface TokenPayload {
  methods: Method[];
  userId: string;
  scope: Scope;
  /** ms */
  issuedAt: number;
  expiresAt: number;
  /** 32 hexadecimal digits */
  auditId: string;
  /** of the first token of a chain of tokens for tokens */
  chainId: string | null;
  applicationCredentialId: string | null;
  userEpoch: number;
  scopeEpoch: number;
}

const NONE = '0'.repeat(32);
const DEFAULT_DOMAIN = 'default';

export function writeToken(token: TokenPayload, keys: TokenKeys): string {
  const bytes = Buffer.alloc(PAYLOAD_BYTES);
  const { scope } = token;
  const isDefault = scope.kind === 'domain' && scope.id === DEFAULT_DOMAIN;
  bytes[AT.version] = VERSION;
  bytes[AT.scope] = SCOPES.indexOf(isDefault ? 'default-domain' : scope.kind);
  bytes[AT.methods] = token.methods.reduce((bits, method) => bits | (1 << METHODS.indexOf(method)), 0);
  putId(bytes, AT.user, token.userId);
  if ('id' in scope && !isDefault) putId(bytes, AT.scopeId, scope.id);
  bytes.writeUIntBE(token.issuedAt, AT.issued, 6);
  bytes.writeUIntBE(token.expiresAt, AT.expires, 6);
  putId(bytes, AT.audit, token.auditId);
  putId(bytes, AT.chain, token.chainId ?? NONE);
  putId(bytes, AT.credential, token.applicationCredentialId ?? NONE);
  bytes.writeUInt32BE(token.userEpoch, AT.userEpoch);
  bytes.writeUInt32BE(token.scopeEpoch, AT.scopeEpoch);
  bytes.writeUInt32BE(keys.current, AT.key);
  return Buffer.concat([bytes, keys.sign(keys.current, bytes)]).toString('base64url');
}

/** @returns null for what we did not write; whether it is still good is for others to say */
export function readToken(text: string, keys: TokenKeys): TokenPayload | null {
  if (!TEXT.test(text)) return null;
  const whole = Buffer.from(text, 'base64url');
  if (whole.length !== PAYLOAD_BYTES + MAC_BYTES || whole.toString('base64url') !== text) return null;
  const bytes = whole.subarray(0, PAYLOAD_BYTES);
  if (!keys.verify(bytes.readUInt32BE(AT.key), bytes, whole.subarray(PAYLOAD_BYTES))) return null;
  const scope = readScope(bytes);
  if (bytes[AT.version] !== VERSION || scope === null) return null;
  const credential = getId(bytes, AT.credential);
  const chain = getId(bytes, AT.chain);
  return {
    methods: METHODS.filter((_method, index) => (bytes[AT.methods]! & (1 << index)) !== 0),
    userId: getId(bytes, AT.user),
    scope,
    issuedAt: bytes.readUIntBE(AT.issued, 6),
    expiresAt: bytes.readUIntBE(AT.expires, 6),
    auditId: getId(bytes, AT.audit),
    chainId: chain === NONE ? null : chain,
    applicationCredentialId: credential === NONE ? null : credential,
    userEpoch: bytes.readUInt32BE(AT.userEpoch),
    scopeEpoch: bytes.readUInt32BE(AT.scopeEpoch),
  };
}

function readScope(bytes: Buffer): Scope | null {
  const kind = SCOPES[bytes[AT.scope]!];
  if (kind === undefined) return null;
  if (kind === 'default-domain') return { kind: 'domain', id: DEFAULT_DOMAIN };
  if (kind === 'project' || kind === 'domain') return { kind, id: getId(bytes, AT.scopeId) };
  return { kind };
}

function putId(bytes: Buffer, at: number, id: string): void {
  if (!/^[0-9a-f]{32}$/.test(id)) throw new Error('an id that fits no token');
  bytes.write(id, at, 16, 'hex');
}

function getId(bytes: Buffer, at: number): string {
  return bytes.toString('hex', at, at + 16);
}

/** Audit ids as Keystone shows them: 16 bytes in base64url. */
export function shownAuditId(id: string): string {
  return Buffer.from(id, 'hex').toString('base64url');
}
