/**
 * The tables of what services keep (docs/catalog.md, "What services keep"), a step of `migrations.ts`.
 *
 * Nothing that has a root goes by a cascade, since its root would stay: projects, containers and paths that hold such rows cannot go
 * before them. Rows in a passing state, few at any time, have an index of their own.
 */

/** Sizes and counters. 9007199254740991: what a number can count. */
const count = (column: string) => `${column} BIGINT NOT NULL CHECK (${column} BETWEEN 0 AND 9007199254740991)`;
const quota = (column: string) => `${column} BIGINT CHECK (${column} >= 0)`;

const OBJECTS = [
  `CREATE TABLE account (project_id TEXT PRIMARY KEY REFERENCES project (id) ON DELETE CASCADE, metadata TEXT NOT NULL, policy TEXT NOT NULL,
    ${quota('quota_bytes')}, ${count('container_count')}, ${count('object_count')}, ${count('bytes')}, created_us BIGINT NOT NULL, modified_us BIGINT NOT NULL)`,
  `CREATE TABLE container (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES account (project_id), name TEXT NOT NULL, read_acl TEXT NOT NULL,
    write_acl TEXT NOT NULL, metadata TEXT NOT NULL, policy TEXT NOT NULL, versioning TEXT, versions_container TEXT, ${quota('quota_bytes')},
    ${quota('quota_objects')}, ${count('object_count')}, ${count('bytes')}, ${count('history_count')}, ${count('history_bytes')},
    created_us BIGINT NOT NULL, modified_us BIGINT NOT NULL, UNIQUE (project_id, name))`,
  `CREATE TABLE object (id TEXT PRIMARY KEY, container_id TEXT NOT NULL REFERENCES container (id), name TEXT NOT NULL, version_id TEXT UNIQUE,
    UNIQUE (container_id, name))`,
  // What listings walk: paths without a current version are not in it.
  'CREATE INDEX object_listed ON object (container_id, name, version_id) WHERE version_id IS NOT NULL',
  `CREATE TABLE object_version (id TEXT PRIMARY KEY, object_id TEXT NOT NULL REFERENCES object (id), status TEXT NOT NULL, kind TEXT NOT NULL, ${count('size')},
    etag TEXT, hash TEXT, content_type TEXT NOT NULL, headers TEXT NOT NULL, metadata TEXT NOT NULL, manifest TEXT, user_id TEXT, created_us BIGINT NOT NULL,
    superseded_us BIGINT, delete_at BIGINT, root TEXT UNIQUE)`,
  'CREATE INDEX object_version_object ON object_version (object_id, created_us)',
  'CREATE INDEX object_version_expiry ON object_version (delete_at) WHERE delete_at IS NOT NULL',
  "CREATE INDEX object_version_passing ON object_version (status, id) WHERE status <> 'active'",
];

const IMAGES = [
  `CREATE TABLE image (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project (id), user_id TEXT, name TEXT, status TEXT NOT NULL,
    visibility TEXT NOT NULL, disk_format TEXT, container_format TEXT, ${count('min_disk')}, ${count('min_ram')}, protected INTEGER NOT NULL,
    hidden INTEGER NOT NULL, ${quota('size')}, ${quota('virtual_size')}, checksum TEXT, hash_algorithm TEXT, hash_value TEXT, source_kind TEXT, source_id TEXT,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, root TEXT UNIQUE, staged_root TEXT UNIQUE)`,
  'CREATE INDEX image_project ON image (project_id, created_at, id)',
  'CREATE INDEX image_visibility ON image (visibility, created_at, id)',
  "CREATE INDEX image_passing ON image (status, id) WHERE status <> 'active'",
  `CREATE TABLE image_property (image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (image_id, name))`,
  `CREATE TABLE image_tag (image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE, tag TEXT NOT NULL, PRIMARY KEY (image_id, tag))`,
  'CREATE INDEX image_tag_tag ON image_tag (tag, image_id)',
  `CREATE TABLE image_member (image_id TEXT NOT NULL REFERENCES image (id) ON DELETE CASCADE, member_id TEXT NOT NULL, status TEXT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, PRIMARY KEY (image_id, member_id))`,
  'CREATE INDEX image_member_member ON image_member (member_id, status, image_id)',
];

const VOLUMES = [
  `CREATE TABLE volume_type (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, description TEXT, is_public INTEGER NOT NULL, created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL)`,
  `CREATE TABLE volume_type_spec (volume_type_id TEXT NOT NULL REFERENCES volume_type (id) ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (volume_type_id, name))`,
  `CREATE TABLE volume_type_access (volume_type_id TEXT NOT NULL REFERENCES volume_type (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE, PRIMARY KEY (volume_type_id, project_id))`,
  'CREATE INDEX volume_type_access_project ON volume_type_access (project_id)',
  `CREATE TABLE volume (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project (id), user_id TEXT, name TEXT NOT NULL, description TEXT,
    status TEXT NOT NULL, previous_status TEXT, ${count('size')}, volume_type_id TEXT REFERENCES volume_type (id), availability_zone TEXT NOT NULL,
    bootable INTEGER NOT NULL, read_only INTEGER NOT NULL, multiattach INTEGER NOT NULL, source_kind TEXT, source_id TEXT, origin TEXT NOT NULL,
    created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, root TEXT UNIQUE)`,
  'CREATE INDEX volume_project ON volume (project_id, created_at, id)',
  'CREATE INDEX volume_created ON volume (created_at, id)',
  'CREATE INDEX volume_type_used ON volume (volume_type_id)',
  "CREATE INDEX volume_passing ON volume (status, id) WHERE status NOT IN ('available', 'in-use')",
  `CREATE TABLE volume_metadata (volume_id TEXT NOT NULL REFERENCES volume (id) ON DELETE CASCADE, kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (volume_id, kind, name))`,
  `CREATE TABLE snapshot (id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES project (id), volume_id TEXT NOT NULL REFERENCES volume (id), user_id TEXT,
    name TEXT NOT NULL, description TEXT, status TEXT NOT NULL, ${count('size')}, origin TEXT NOT NULL, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
    root TEXT, UNIQUE (volume_id, root))`,
  // Of those without one there are few.
  'CREATE INDEX snapshot_rootless ON snapshot (id) WHERE root IS NULL',
  'CREATE INDEX snapshot_project ON snapshot (project_id, created_at, id)',
  'CREATE INDEX snapshot_created ON snapshot (created_at, id)',
  "CREATE INDEX snapshot_passing ON snapshot (status, id) WHERE status <> 'available'",
  `CREATE TABLE snapshot_metadata (snapshot_id TEXT NOT NULL REFERENCES snapshot (id) ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (snapshot_id, name))`,
  `CREATE TABLE attachment (id TEXT PRIMARY KEY, volume_id TEXT NOT NULL REFERENCES volume (id), project_id TEXT NOT NULL, instance_id TEXT, host TEXT,
    mountpoint TEXT, mode TEXT NOT NULL, status TEXT NOT NULL, connector TEXT, connection TEXT, created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL,
    attached_at BIGINT, detached_at BIGINT)`,
  'CREATE INDEX attachment_volume ON attachment (volume_id)',
  'CREATE INDEX attachment_instance ON attachment (instance_id)',
  'CREATE INDEX attachment_project ON attachment (project_id, created_at, id)',
];

export const STORAGE_TABLES: readonly string[] = [...OBJECTS, ...IMAGES, ...VOLUMES];
