/** What a new catalog has in it (docs/catalog.md, "First start"). */
import { newId } from './ids.ts';
import { RESOURCES } from './resources.ts';
import type { Change } from './types.ts';

export const DEFAULT_DOMAIN = 'default';
export const REGION = 'RegionOne';
/** each implies the next */
export const ROLES = ['admin', 'manager', 'member', 'reader'] as const;

export interface BootstrapUser {
  passwordHash: string;
  /** of the project too */
  name: 'admin' | 'demo';
  role: (typeof ROLES)[number];
  /** the role is had on the system too */
  system: boolean;
}

export function assignmentId(parts: {
  user_id: string | null;
  group_id: string | null;
  project_id: string | null;
  domain_id: string | null;
  role_id: string;
  inherited?: number;
}): string {
  const who = parts.user_id === null ? `g:${parts.group_id}` : `u:${parts.user_id}`;
  const where = parts.project_id ? `p:${parts.project_id}` : parts.domain_id ? `d:${parts.domain_id}` : 's';
  return `${who} ${where} r:${parts.role_id}${parts.inherited ? ' i' : ''}`;
}

/** One list of changes, so that a crash leaves all of it or nothing. */
export function bootstrapChanges(users: readonly BootstrapUser[], now: number): Change[] {
  const roles = new Map(ROLES.map((name) => [name, newId()]));
  const changes: Change[] = [
    { do: 'insert', table: 'region', row: { id: REGION, description: '', parent_region_id: null, extra: '{}' } },
    {
      do: 'insert',
      table: 'domain',
      row: {
        id: DEFAULT_DOMAIN,
        name: 'Default',
        description: 'The default domain',
        enabled: 1,
        epoch: 0,
        extra: '{}',
      },
    },
  ];
  for (const [name, id] of roles)
    changes.push({ do: 'insert', table: 'role', row: { id, name, domain_id: null, description: null, extra: '{}' } });
  for (let i = 1; i < ROLES.length; i++) {
    const row = { prior_role_id: roles.get(ROLES[i - 1]!)!, implied_role_id: roles.get(ROLES[i]!)! };
    changes.push({ do: 'insert', table: 'implied_role', row });
  }
  for (const user of users) changes.push(...userChanges(user, roles.get(user.role)!, now));
  const service = { id: newId(), type: 'identity', name: 'keystone', description: null, enabled: 1, extra: '{}' };
  changes.push({ do: 'insert', table: 'service', row: service });
  for (const face of ['public', 'internal', 'admin'] as const) {
    const at = { service_id: service.id, region_id: REGION, interface: face, url: null, path: '/identity' };
    changes.push({ do: 'insert', table: 'endpoint', row: { id: newId(), ...at, enabled: 1, extra: '{}' } });
  }
  for (const [resource, { limit }] of Object.entries(RESOURCES))
    changes.push({ do: 'insert', table: 'quota_default', row: { resource, hard_limit: limit, description: null } });
  return changes;
}

function userChanges(user: BootstrapUser, roleId: string, now: number): Change[] {
  const projectId = newId();
  const userId = newId();
  const changes: Change[] = [
    {
      do: 'insert',
      table: 'project',
      row: {
        id: projectId,
        name: user.name,
        domain_id: DEFAULT_DOMAIN,
        parent_id: null,
        description: '',
        enabled: 1,
        epoch: 0,
        extra: '{}',
      },
    },
    {
      do: 'insert',
      table: 'user',
      row: {
        id: userId,
        name: user.name,
        domain_id: DEFAULT_DOMAIN,
        default_project_id: null,
        enabled: 1,
        description: null,
        password_hash: user.passwordHash,
        password_changed_at: now,
        epoch: 0,
        extra: '{}',
      },
    },
  ];
  if (user.system) changes.push({ do: 'insert', table: 'setting', row: { key: 'admin_project', value: projectId } });
  for (const project_id of user.system ? [projectId, null] : [projectId]) {
    const parts = { user_id: userId, group_id: null, project_id, domain_id: null, role_id: roleId, inherited: 0 };
    changes.push({ do: 'insert', table: 'assignment', row: { id: assignmentId(parts), ...parts } });
  }
  return changes;
}
