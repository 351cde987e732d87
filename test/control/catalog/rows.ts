/** Rows of what services keep, for tests: whole ones, of which a test says what it is about. */
import { randomUUID } from 'node:crypto';
import type {
  AccountRow,
  AttachmentRow,
  ContainerRow,
  ImageRow,
  ObjectRow,
  ObjectVersionRow,
  SnapshotRow,
  VolumeRow,
  VolumeTypeRow,
} from '../../../src/control/catalog/storage-rows.ts';
import type { CatalogTables, Change, TableName } from '../../../src/control/catalog/types.ts';

const times = { created_at: 1, updated_at: 1 };

export const account = (project_id: string): AccountRow => ({
  ...{ project_id, metadata: '{}', policy: '{}', quota_bytes: null, container_count: 0, object_count: 0, bytes: 0 },
  ...{ created_us: 1, modified_us: 1 },
});

export const container = (project_id: string, more: Partial<ContainerRow> = {}): ContainerRow => ({
  ...{
    id: 'c1',
    project_id,
    name: 'photos',
    read_acl: '',
    write_acl: '',
    metadata: '{}',
    policy: '{}',
    versioning: null,
  },
  ...{ versions_container: null, quota_bytes: 10, quota_objects: null, object_count: 0, bytes: 0, history_count: 0 },
  ...{ history_bytes: 0, created_us: 1, modified_us: 1, ...more },
});

export const objectRow = (name: string, version_id: string | null): ObjectRow => ({
  ...{ id: `o:${name}`, container_id: 'c1', name, version_id },
});

export const version = (name: string, more: Partial<ObjectVersionRow> = {}): ObjectVersionRow => ({
  ...{ id: randomUUID(), object_id: `o:${name}`, status: 'active', kind: 'data', size: 0, etag: null, hash: null },
  ...{ content_type: 'text/plain', headers: '{}', metadata: '{}', manifest: null, user_id: null, created_us: 1 },
  ...{ superseded_us: null, delete_at: null, root: null, ...more },
});

/** What an upload is when it is done. */
export function objectWithVersion(name: string, more: Partial<ObjectVersionRow> = {}): Change[] {
  const row = version(name, more);
  return [
    { do: 'insert', table: 'object', row: objectRow(name, row.id) },
    { do: 'insert', table: 'object_version', row },
  ];
}

export const image = (project_id: string, more: Partial<ImageRow> = {}): ImageRow => ({
  ...{ id: randomUUID(), project_id, user_id: null, name: 'debian', status: 'active', visibility: 'private' },
  ...{ disk_format: 'raw', container_format: 'bare', min_disk: 0, min_ram: 0, protected: 0, hidden: 0, size: 1 },
  ...{ virtual_size: null, checksum: null, hash_algorithm: null, hash_value: null, source_kind: null, source_id: null },
  ...{ ...times, root: null, staged_root: null, ...more },
});

export const volumeType = (): VolumeTypeRow => ({ id: 't1', name: 'fast', description: null, is_public: 1, ...times });

export const volume = (project_id: string, more: Partial<VolumeRow> = {}): VolumeRow => ({
  ...{ id: randomUUID(), project_id, user_id: null, name: 'v', description: null, status: 'available' },
  ...{ previous_status: null, size: 1, volume_type_id: null, availability_zone: 'nova', bootable: 0, read_only: 0 },
  ...{ multiattach: 0, source_kind: null, source_id: null, origin: 'service', ...times, root: null, ...more },
});

export const snapshot = (project_id: string, volume_id: string, more: Partial<SnapshotRow> = {}): SnapshotRow => ({
  ...{ id: randomUUID(), project_id, volume_id, user_id: null, name: 's', description: null, status: 'available' },
  ...{ size: 1, origin: 'service', ...times, root: null, ...more },
});

export const attachment = (project_id: string, volume_id: string): AttachmentRow => ({
  ...{ id: randomUUID(), volume_id, project_id, instance_id: null, host: null, mountpoint: '/dev/vdb', mode: 'rw' },
  ...{ status: 'attached', connector: '{}', connection: null, ...times, attached_at: 1, detached_at: null },
});

/** A row of each table, in an order in which they can be made. */
export function oneOfEach(project_id: string): [TableName, CatalogTables[TableName]][] {
  const disk = volume(project_id, { root: 'r1', volume_type_id: 't1', size: 2 ** 50 });
  const moment = snapshot(project_id, disk.id, { root: 's', origin: 'engine' });
  const picture = image(project_id, { root: 'r2@sealed', staged_root: 'r3', checksum: 'c', size: 5, virtual_size: 6 });
  const current = version('a/b', {
    root: 'r4@sealed',
    size: 9,
    etag: 'e',
    delete_at: 7,
    created_us: 1_700_000_000_000_000,
  });
  return [
    ['account', account(project_id)],
    ['container', container(project_id, { versioning: 'history', versions_container: 'old' })],
    ['object', objectRow('a/b', current.id)],
    ['object_version', current],
    ['image', picture],
    ['image_property', { image_id: picture.id, name: 'os', value: '' }],
    ['image_tag', { image_id: picture.id, tag: 'ä' }],
    ['image_member', { image_id: picture.id, member_id: 'whoever', status: 'pending', ...times }],
    ['volume_type', volumeType()],
    ['volume_type_spec', { volume_type_id: 't1', name: 'pool', value: 'local' }],
    ['volume_type_access', { volume_type_id: 't1', project_id }],
    ['volume', disk],
    ['volume_metadata', { volume_id: disk.id, kind: 'image', name: 'os', value: 'debian' }],
    ['snapshot', moment],
    ['snapshot_metadata', { snapshot_id: moment.id, name: 'k', value: 'v' }],
    ['attachment', attachment(project_id, disk.id)],
  ];
}
