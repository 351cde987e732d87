/**
 * What things may be called. One rule for volumes, snapshots and pools, in one place: the engine checks with it,
 * the control plane says the same before it asks, and no frontend has a rule of its own.
 *
 * A name is 1..NAME_BYTES_MAX bytes of UTF-8 without `@` (it joins volume and snapshot), `/` (it separates paths in
 * mounts and URLs), control characters, a leading `-` (it would read as an option), and is not `.` or `..`.
 * Names are compared byte by byte; no Unicode normalisation.
 */
import { EngineError } from './types.ts';

/** bytes of UTF-8; what a file name may have, so that every name can be one */
export const NAME_BYTES_MAX = 255;

/** Names that begin so are the daemon's own (unfinished imports, exports under way); lists leave them out. */
export const HIDDEN_PREFIX = '.atoll-';

export type NameKind = 'volume' | 'snapshot' | 'pool';

/** @returns what is wrong with the name, to be read after "the name …"; null when nothing is */
export function nameProblem(name: string): string | null {
  if (name.length === 0) return 'is empty';
  if (/\p{Surrogate}/u.test(name)) return 'is not valid UTF-8';
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) return `is longer than ${NAME_BYTES_MAX} bytes`;
  if (/\p{Cc}/u.test(name)) return 'has a control character';
  if (name.includes('@')) return "has '@', which joins a volume and its snapshot";
  if (name.includes('/')) return "has '/'";
  if (name === '.' || name === '..') return 'is reserved by file systems';
  if (name.startsWith('-')) return "begins with '-', which reads as an option";
  return null;
}

/** @throws {EngineError} INVALID */
export function checkName(kind: NameKind, name: string): void {
  const problem = nameProblem(name);
  if (problem !== null) throw new EngineError('INVALID', `the ${kind} name ${quoteName(name)} ${problem}`);
}

export function isHiddenName(name: string): boolean {
  return name.startsWith(HIDDEN_PREFIX) || name.includes(`@${HIDDEN_PREFIX}`);
}

/**
 * Takes `VOL` or `VOL@SNAP` apart and checks both parts.
 * @throws {EngineError} INVALID
 */
export function splitName(name: string): { volume: string; snapshot: string | null } {
  const at = name.indexOf('@');
  if (at < 0) {
    checkName('volume', name);
    return { volume: name, snapshot: null };
  }
  const volume = name.slice(0, at);
  const snapshot = name.slice(at + 1);
  checkName('volume', volume);
  checkName('snapshot', snapshot);
  return { volume, snapshot };
}

export function joinName(volume: string, snapshot: string): string {
  return `${volume}@${snapshot}`;
}

/** @returns the name of a volume or snapshot, and the attachment that it is to be opened by: `VOLUME/ATTACHMENT` */
export function takeApart(exported: string): [name: string, attachment: string | null] {
  const at = exported.indexOf('/');
  return at < 0 ? [exported, null] : [exported.slice(0, at), exported.slice(at + 1)];
}

/** longest piece of a name that an error repeats: errors are one line, whatever was sent */
const QUOTED_CHARACTERS_MAX = 80;

/** The name as errors show it: quoted, escaped and bounded, since it may be anything a stranger sent. */
export function quoteName(name: string): string {
  const shown = name.length > QUOTED_CHARACTERS_MAX ? `${name.slice(0, QUOTED_CHARACTERS_MAX)}…` : name;
  return JSON.stringify(shown).replace(
    /[\u007f-\u009f\u2028\u2029\ud800-\udfff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
}
