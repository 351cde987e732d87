/** The policy as it is written down, and each of its rules. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type Caller, enforce, may, POLICY } from '../../../src/frontends/http/identity/policy.ts';

const caller = (roles: string[], scope: Caller['scope'], operator = scope.kind === 'system'): Caller => ({
  userId: 'me',
  roles: new Set(roles),
  scope,
  domain: scope.kind === 'domain' ? { id: scope.id! } : null,
  operator,
});
const all = ['admin', 'manager', 'member', 'reader'];
const system = { kind: 'system' } as const;
const domain = { kind: 'domain', id: 'd' } as const;
const project = { kind: 'project', id: 'p' } as const;

describe('the table', () => {
  it('docs/identity.md has every action with its rules, and no other', () => {
    const text = readFileSync(new URL('../../../docs/identity.md', import.meta.url), 'utf8');
    const documented = [...text.matchAll(/^\| `([a-z_]+)` \| (.+) \|$/gm)].map(([, action, rules]) => [
      action,
      rules!.split(', '),
    ]);
    expect(Object.fromEntries(documented)).toEqual(POLICY);
  });
});

describe('rules', () => {
  it.each([
    ['an admin on the system', caller(all, system), true],
    ['an admin in the operators’ project', caller(all, project, true), true],
    ['an admin in any other', caller(all, project), false],
    ['an admin of a domain', caller(all, domain), false],
    ['a manager on the system', caller(['manager', 'member', 'reader'], system), false],
    ['an admin with no scope', caller(all, { kind: 'unscoped' }), false],
  ])('admin: %s', (_who, who, holds) => {
    expect(may('create_domain', who)).toBe(holds);
  });

  it.each([
    ['a reader on the system', caller(['reader'], system), true],
    ['an admin in the operators’ project', caller(all, project, true), true],
    ['a reader in the operators’ project', caller(['reader'], project, true), false],
    ['nobody in particular on the system', caller([], system), false],
  ])('reader: %s', (_who, who, holds) => {
    expect(may('list_domains', who)).toBe(holds);
  });

  it.each([
    ['in its own domain', caller(['manager'], domain), { domainId: 'd' }, true],
    ['in another', caller(['manager'], domain), { domainId: 'e' }, false],
    ['about what is in none', caller(['manager'], domain), {}, false],
    ['about what is in no domain at all', caller(['manager'], domain), { domainId: null }, false],
    ['with a token for a project of it', caller(['manager'], project), { domainId: 'd' }, false],
    ['as a member', caller(['member', 'reader'], domain), { domainId: 'd' }, false],
  ])('domain manager: %s', (_who, who, target, holds) => {
    expect(may('create_user', who, target)).toBe(holds);
  });

  it('self, project, anyone', () => {
    const member = caller(['member', 'reader'], project);
    expect(may('get_user', member, { userId: 'me' })).toBe(true);
    expect(may('get_user', member, { userId: 'you' })).toBe(false);
    expect(may('get_user', member, {})).toBe(false);
    expect(may('get_project', member, { projectId: 'p' })).toBe(true);
    expect(may('get_project', member, { projectId: 'q' })).toBe(false);
    expect(may('get_project', caller([], { kind: 'unscoped' }), {})).toBe(false);
    expect(may('get_domain', { ...member, domain: { id: 'd' } }, { domainId: 'd' })).toBe(true);
    expect(may('get_domain', { ...member, domain: { id: 'd' } }, { domainId: 'e' })).toBe(false);
    expect(may('get_domain', member, { domainId: 'd' })).toBe(false);
    expect(may('list_regions', caller([], { kind: 'unscoped' }))).toBe(true);
  });

  it('what is not allowed names the action', () => {
    expect(() => enforce('create_user', caller([], project))).toThrow(/requested action: identity:create_user/);
  });
});
