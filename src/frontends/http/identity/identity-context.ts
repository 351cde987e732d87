/** What the identity routes get, and every other service that asks who somebody is. */
import type { Http, HttpContext } from '../context.ts';
import { Accounts } from './accounts.ts';
import { Authentication, TOKEN_LIFE_MS } from './authentication.ts';
import { TokenKeys } from './token-keys.ts';

export interface IdentityContext extends HttpContext {
  accounts: Accounts;
  keys: TokenKeys;
  authentication: Authentication;
  /** what services do when a project is deleted with what it holds: all that they have for it is gone when they are done */
  emptying: ((projectId: string) => Promise<void>)[];
  /** an absolute URL below /identity/v3 */
  link: (path: string) => string;
}

export function identityOf(context: HttpContext): IdentityContext {
  const accounts = new Accounts(context.catalog);
  const keys = new TokenKeys(context.catalog.folder, TOKEN_LIFE_MS);
  const authentication = new Authentication(accounts, keys);
  return {
    ...context,
    accounts,
    keys,
    authentication,
    emptying: [],
    link: (path) => `${context.publicUrl()}/identity/v3${path}`,
  };
}

export type IdentityRoutes = (app: Http, context: IdentityContext) => void;
