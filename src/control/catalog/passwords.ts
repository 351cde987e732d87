/**
 * Hashing of passwords: argon2id on libuv's threads, so many at a time, since each takes 19 MiB and a processor for some 30 ms.
 */
import { randomBytes } from 'node:crypto';
import { CatalogError } from './types.ts';

/** OWASP's first choice for argon2id with little memory */
const MEMORY_KIB = 19_456;
const PASSES = 2;
/** each a thread of libuv's four, which files need too; and 19 MiB */
export const HASHES_MAX = 2;
/** who comes when so many wait is told to come again */
export const HASHES_WAITING_MAX = 64;
/** bytes of UTF-8 (CVE-2012-1572) */
export const PASSWORD_BYTES_MAX = 4096;

/** Passwords that nobody chose: 24 letters and digits, some 142 bits. */
export function randomPassword(): string {
  let text = '';
  while (text.length < 24)
    text += randomBytes(32)
      .toString('base64')
      .replace(/[^A-Za-z0-9]/g, '');
  return text.slice(0, 24);
}

export class Passwords {
  #running = 0;
  #waiting: (() => void)[] = [];
  #none: Promise<string> | null = null;

  hash(password: string): Promise<string> {
    return this.#bounded(async () => {
      const { hash } = await import('@node-rs/argon2');
      return hash(password, { memoryCost: MEMORY_KIB, timeCost: PASSES, parallelism: 1 });
    });
  }

  /**
   * @param against a hash, or null for a user that is not there or has none: it takes as long
   * @throws {CatalogError} TOO_MANY
   */
  async verify(password: string, against: string | null): Promise<boolean> {
    if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) return false;
    const stored = against ?? (await this.#nobodys());
    const same = await this.#bounded(async () => {
      const { verify } = await import('@node-rs/argon2');
      return verify(stored, password);
    });
    return same && against !== null;
  }

  /** What nobody's password is compared with. */
  #nobodys(): Promise<string> {
    this.#none ??= this.hash(randomPassword()).catch((error: Error) => {
      this.#none = null;
      throw error;
    });
    return this.#none;
  }

  /** Makes the first login cost what every other does. */
  async warm(): Promise<void> {
    await this.#nobodys();
  }

  async #bounded<T>(run: () => Promise<T>): Promise<T> {
    if (this.#running >= HASHES_MAX) {
      if (this.#waiting.length >= HASHES_WAITING_MAX) throw new CatalogError('TOO_MANY', 'too many logins at once');
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    } else this.#running++;
    try {
      return await run();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running--;
    }
  }
}
