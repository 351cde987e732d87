/** Somebody can administer the cloud: asked in the transaction that takes it from somebody, so that two cannot take it from each other. */
import { type Kysely, sql } from 'kysely';
import { CatalogError, type CatalogTables } from './types.ts';

/**
 * Who is enabled and has the role `admin`, or one that implies it, on the system or in the operators' project, directly or by a group.
 * What is inherited does not count: who has it so had better have it directly too.
 * @throws {CatalogError} LAST_ADMIN when there is nobody
 */
export async function keepAdmin(db: Kysely<CatalogTables>): Promise<void> {
  const { rows } = await sql`
    WITH RECURSIVE admins (id) AS (
      SELECT id FROM role WHERE name = 'admin'
      UNION SELECT prior_role_id FROM implied_role JOIN admins ON implied_role.implied_role_id = admins.id
    ), places (id) AS (
      SELECT project.id FROM setting JOIN project ON project.id = setting.value JOIN domain ON domain.id = project.domain_id
      WHERE setting.key = 'admin_project' AND project.enabled = 1 AND domain.enabled = 1
    ), held (user_id, group_id) AS (
      SELECT user_id, group_id FROM assignment
      WHERE role_id IN (SELECT id FROM admins) AND inherited = 0 AND domain_id IS NULL
        AND (project_id IS NULL OR project_id IN (SELECT id FROM places))
    ), holders (user_id) AS (
      SELECT user_id FROM held WHERE user_id IS NOT NULL
      UNION ALL SELECT membership.user_id FROM held JOIN membership ON membership.group_id = held.group_id
    )
    SELECT 1 AS found FROM holders JOIN "user" ON "user".id = holders.user_id JOIN domain ON domain.id = "user".domain_id
    WHERE "user".enabled = 1 AND domain.enabled = 1 LIMIT 1`.execute(db);
  if (rows.length === 0) throw new CatalogError('LAST_ADMIN', 'nobody would be left who can administer the cloud');
}
