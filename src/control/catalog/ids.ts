/** Ids as Keystone has them: 32 hexadecimal digits of a random UUID. */
import { randomUUID } from 'node:crypto';

export function newId(): string {
  return randomUUID().replaceAll('-', '');
}
