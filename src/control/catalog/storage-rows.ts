/**
 * Rows of what services keep: objects, images, volumes (docs/catalog.md, "What services keep"). Loads nothing.
 *
 * Ids are UUIDs. `root` is a name in the engine, null where there are no bytes. Who made a thing (`user_id`) may be gone.
 */

export interface AccountRow {
  project_id: string;
  /** of users, JSON: names to values */
  metadata: string;
  /** what the API says of it besides: access lists, keys; JSON */
  policy: string;
  /** soft: looked at before an upload, so that several at once may go beyond it; null: none */
  quota_bytes: number | null;
  container_count: number;
  /** of current versions */
  object_count: number;
  bytes: number;
  created_us: number;
  modified_us: number;
}
export interface ContainerRow {
  id: string;
  project_id: string;
  /** unique in its account */
  name: string;
  read_acl: string;
  write_acl: string;
  metadata: string;
  policy: string;
  /** what becomes of an object that is overwritten or deleted; null: it goes */
  versioning: 'enabled' | 'suspended' | 'stack' | 'history' | 'auto' | null;
  /** where `stack` and `history` put it: a container's name */
  versions_container: string | null;
  /** soft, as the account's */
  quota_bytes: number | null;
  quota_objects: number | null;
  /** of current versions */
  object_count: number;
  bytes: number;
  /** of the others */
  history_count: number;
  history_bytes: number;
  created_us: number;
  modified_us: number;
}
/** A path. It stays, with its id, while its versions come and go. */
export interface ObjectRow {
  id: string;
  container_id: string;
  /** unique in its container */
  name: string;
  /** the current one; null: only history is left, or an upload is under way */
  version_id: string | null;
}
export interface ObjectVersionRow {
  id: string;
  object_id: string;
  status: 'uploading' | 'active';
  /** `marker`: says that the object was deleted then */
  kind: 'data' | 'slo' | 'dlo' | 'symlink' | 'marker';
  size: number;
  /** MD5, hexadecimal */
  etag: string | null;
  /** of the sealed bytes, BLAKE3, hexadecimal */
  hash: string | null;
  content_type: string;
  /** other headers that are answered as they came, JSON */
  headers: string;
  metadata: string;
  /** of a large object or a link, JSON */
  manifest: string | null;
  user_id: string | null;
  created_us: number;
  /** when another took its place, or it was deleted; null: it is current */
  superseded_us: number | null;
  /** milliseconds */
  delete_at: number | null;
  root: string | null;
}

export interface ImageRow {
  id: string;
  project_id: string;
  user_id: string | null;
  /** may repeat */
  name: string | null;
  status: string;
  visibility: 'public' | 'private' | 'shared' | 'community';
  disk_format: string | null;
  container_format: string | null;
  /** GiB, MiB: as users say them */
  min_disk: number;
  min_ram: number;
  protected: number;
  hidden: number;
  /** null: no data yet */
  size: number | null;
  virtual_size: number | null;
  /** MD5, hexadecimal */
  checksum: string | null;
  hash_algorithm: string | null;
  hash_value: string | null;
  source_kind: SourceKind | null;
  source_id: string | null;
  created_at: number;
  updated_at: number;
  root: string | null;
  /** what was staged to be imported */
  staged_root: string | null;
}
/** what it was made from; informative, and may be gone */
export type SourceKind = 'volume' | 'snapshot' | 'image' | 'object';

export interface ImagePropertyRow {
  image_id: string;
  name: string;
  value: string;
}
export interface ImageTagRow {
  image_id: string;
  tag: string;
}
export interface ImageMemberRow {
  image_id: string;
  /** a project's id; nobody asks whether it is there */
  member_id: string;
  status: 'pending' | 'accepted' | 'rejected';
  created_at: number;
  updated_at: number;
}

export interface VolumeTypeRow {
  id: string;
  name: string;
  description: string | null;
  is_public: number;
  created_at: number;
  updated_at: number;
}
export interface VolumeTypeSpecRow {
  volume_type_id: string;
  name: string;
  value: string;
}
/** a project that may use a type that is not public */
export interface VolumeTypeAccessRow {
  volume_type_id: string;
  project_id: string;
}

/** `engine`: made there by hand, so that its name and size follow the engine's */
export type Origin = 'service' | 'engine';

export interface VolumeRow {
  id: string;
  project_id: string;
  user_id: string | null;
  /** may repeat, be empty, contain anything */
  name: string;
  description: string | null;
  status: string;
  /** what it was before, where the API goes back to it */
  previous_status: string | null;
  /** bytes */
  size: number;
  volume_type_id: string | null;
  availability_zone: string;
  bootable: number;
  read_only: number;
  multiattach: number;
  source_kind: SourceKind | null;
  source_id: string | null;
  origin: Origin;
  created_at: number;
  updated_at: number;
  root: string | null;
}
export interface VolumeMetadataRow {
  volume_id: string;
  /** whose it is; `image`: of the image that it was made from */
  kind: 'user' | 'admin' | 'image';
  name: string;
  value: string;
}
export interface SnapshotRow {
  id: string;
  project_id: string;
  volume_id: string;
  user_id: string | null;
  name: string;
  description: string | null;
  status: string;
  /** of the volume then, bytes */
  size: number;
  origin: Origin;
  created_at: number;
  updated_at: number;
  /** its own name in the engine, behind the `@` of its volume's: that one may change */
  root: string | null;
}
export interface SnapshotMetadataRow {
  snapshot_id: string;
  name: string;
  value: string;
}
export interface AttachmentRow {
  id: string;
  volume_id: string;
  /** whose server it is */
  project_id: string;
  instance_id: string | null;
  host: string | null;
  mountpoint: string | null;
  mode: 'rw' | 'ro';
  status: string;
  /** what the client said of its end, and what it was told, JSON */
  connector: string | null;
  connection: string | null;
  created_at: number;
  updated_at: number;
  attached_at: number | null;
  detached_at: number | null;
}

export interface StorageTables {
  account: AccountRow;
  container: ContainerRow;
  object: ObjectRow;
  object_version: ObjectVersionRow;
  image: ImageRow;
  image_property: ImagePropertyRow;
  image_tag: ImageTagRow;
  image_member: ImageMemberRow;
  volume_type: VolumeTypeRow;
  volume_type_spec: VolumeTypeSpecRow;
  volume_type_access: VolumeTypeAccessRow;
  volume: VolumeRow;
  volume_metadata: VolumeMetadataRow;
  snapshot: SnapshotRow;
  snapshot_metadata: SnapshotMetadataRow;
  attachment: AttachmentRow;
}
