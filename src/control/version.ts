/** The version of the package, for --version and status. */
import { readFileSync } from 'node:fs';

const root = import.meta.url.includes('/dist/') ? '../../../' : '../../';

export function packageVersion(): string {
  const text = readFileSync(new URL(`${root}package.json`, import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
