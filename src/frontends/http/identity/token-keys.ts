/** The keys that tokens are signed with: in a file (0600), newest first, changed from time to time. */
import { createHmac, randomBytes, randomInt, timingSafeEqual } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

/** a key signs for so long */
export const KEY_AGE_MS_MAX = 30 * 24 * 3600_000;
const FILE = 'token-keys.json';
const KEY_BYTES = 32;

interface StoredKey {
  id: number;
  created_at: number;
  secret: string;
}

export class TokenKeys {
  #keys: StoredKey[];

  /** @param lifeMs how long tokens live: an old key verifies as long after its successor came */
  constructor(
    private readonly folder: string,
    private readonly lifeMs: number,
  ) {
    this.#keys = load(path.join(folder, FILE));
    this.rotate(Date.now());
  }

  /** Makes a new key when the newest is old, and forgets those whose last token has expired. */
  rotate(now: number): void {
    const newest = this.#keys[0];
    let keys = this.#keys;
    if (!newest || now - newest.created_at > KEY_AGE_MS_MAX) {
      keys = [
        { id: randomInt(1, 2 ** 32), created_at: now, secret: randomBytes(KEY_BYTES).toString('base64url') },
        ...keys,
      ];
    }
    keys = keys.filter((_key, index) => index === 0 || now - keys[index - 1]!.created_at <= this.lifeMs);
    if (keys.length === this.#keys.length && keys[0] === this.#keys[0]) return;
    save(path.join(this.folder, FILE), keys);
    this.#keys = keys;
  }

  get current(): number {
    return this.#keys[0]!.id;
  }

  sign(keyId: number, payload: Uint8Array): Buffer {
    const key = this.#keys.find(({ id }) => id === keyId);
    if (!key) throw new Error('no such key');
    return createHmac('sha256', Buffer.from(key.secret, 'base64url')).update(payload).digest();
  }

  verify(keyId: number, payload: Uint8Array, mac: Uint8Array): boolean {
    if (!this.#keys.some(({ id }) => id === keyId)) return false;
    const own = this.sign(keyId, payload);
    return own.length === mac.length && timingSafeEqual(own, mac);
  }
}

function load(file: string): StoredKey[] {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8')) as StoredKey[];
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return [];
    throw error;
  }
}

function save(file: string, keys: readonly StoredKey[]): void {
  const fd = fs.openSync(`${file}.new`, 'w', 0o600);
  try {
    fs.writeSync(fd, `${JSON.stringify(keys)}\n`);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  fs.renameSync(`${file}.new`, file);
}
