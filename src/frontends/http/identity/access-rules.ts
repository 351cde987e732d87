/**
 * Access rules: the only requests that the token of an application credential is good for, when the credential has any
 * (docs/identity.md, "Access rules"). The patterns are those of keystonemiddleware.
 */
import type { AccessRuleRow } from '../../../control/catalog/types.ts';

/** what a request says of itself, as rules ask: the path as it was sent, without its query */
export interface Asked {
  service: string;
  method: string;
  path: string;
}

type Part = { kind: 'literal'; char: string } | { kind: 'one' | 'some' | 'any' };

/** @param mount where the service is below the public URL; a rule may name paths with it or without */
export function permitted(rules: readonly AccessRuleRow[], asked: Asked, mount: string): boolean {
  // Whoever has a token may ask what it is.
  if (asked.service === 'identity' && asked.method === 'GET' && asked.path === `${mount}/v3/auth/tokens`) return true;
  const below = asked.path.startsWith(`${mount}/`) ? asked.path.slice(mount.length) : asked.path;
  return rules.some(
    ({ service, method, path }) =>
      service === asked.service && method === asked.method && (matches(path, asked.path) || matches(path, below)),
  );
}

/**
 * @param pattern `*` is what has no slash in it, `**` is anything, `{name}` is one or more characters without a slash
 * @returns in time that grows with the product of both lengths, whatever the pattern
 */
export function matches(pattern: string, path: string): boolean {
  const parts = partsOf(pattern);
  // The parts that may come next, as one walks along the path.
  let next = reach(parts, new Set([0]));
  for (const char of path) {
    const after = new Set<number>();
    for (const at of next) {
      const part = parts[at];
      if (part === undefined) continue;
      if (part.kind === 'literal') {
        if (part.char === char) after.add(at + 1);
      } else if (part.kind === 'any') after.add(at);
      else if (char !== '/') after.add(part.kind === 'one' ? at + 1 : at);
    }
    if (after.size === 0) return false;
    next = reach(parts, after);
  }
  return next.has(parts.length);
}

function partsOf(pattern: string): Part[] {
  const parts: Part[] = [];
  for (const [token] of pattern.matchAll(/\{[^}]*\}|\*\*|\*|./gsu)) {
    if (token === '*') parts.push({ kind: 'some' });
    else if (token === '**') parts.push({ kind: 'any' });
    else if (token.length > 1 && token.startsWith('{')) parts.push({ kind: 'one' }, { kind: 'some' });
    else parts.push({ kind: 'literal', char: token });
  }
  return parts;
}

/** With what can be left out: `*` and `**` may be nothing. */
function reach(parts: readonly Part[], from: Set<number>): Set<number> {
  for (const at of from) {
    const kind = parts[at]?.kind;
    if (kind === 'some' || kind === 'any') from.add(at + 1);
  }
  return from;
}
