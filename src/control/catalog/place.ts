/** Where the catalog is: a file in the home, or a PostgreSQL database (docs/catalog.md, "PostgreSQL"). */
import { ControlError } from '../errors.ts';

export type CatalogPlace = { kind: 'sqlite'; file: string } | { kind: 'postgres'; url: string };

const HINT = 'write postgres://USER@HOST/DATABASE';

/**
 * Command lines are for everybody on the machine to read, so a password in one is refused.
 * @param isSecret the text came from where only its owner reads: an environment
 * @throws {ControlError} INVALID; its message has nothing of the URL's password
 */
export function parseCatalogUrl(text: string, isSecret: boolean): string {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol) || url.pathname.length < 2)
    throw new ControlError('INVALID', `that is no URL of a PostgreSQL database; ${HINT}`);
  if (!isSecret && (url.password !== '' || url.searchParams.has('password'))) {
    const where = '$ATOLL_CATALOG, $PGPASSWORD or the file $PGPASSFILE';
    throw new ControlError('INVALID', `a command line is no place for a password: put it into ${where}`);
  }
  return text;
}

/** @param given on the command line, parsed. @returns undefined: in a file of the home. @throws {ControlError} INVALID */
export function catalogUrl(given: string | undefined, env: NodeJS.ProcessEnv): string | undefined {
  return given ?? (env.ATOLL_CATALOG ? parseCatalogUrl(env.ATOLL_CATALOG, true) : undefined);
}

/** For messages and logs: no user, no password. */
export function shownPlace(place: CatalogPlace): string {
  if (place.kind === 'sqlite') return place.file;
  const url = new URL(place.url);
  const host = url.host || url.searchParams.get('host') || '';
  return `postgres://${host}${url.pathname}`;
}
