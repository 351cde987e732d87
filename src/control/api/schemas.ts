/** What requests on the control socket may hold. Ajv neither coerces nor strips: what is not said here is refused. */
import { Type } from '@sinclair/typebox';

/** Only a bound against nonsense: names.ts says what a name may be, with better words. */
const Name = Type.String({ maxLength: 1024 });
/** bytes; sizes.ts and the engine say which sizes will do */
const Bytes = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
/** query strings are text, and are not coerced */
const Flag = Type.Union([Type.Literal('true'), Type.Literal('false')]);
const Digits = Type.String({ pattern: '^[0-9]{1,15}$' });
/** bytes, at most 1 PiB, which has 16 digits */
const Offset = Type.String({ pattern: '^[0-9]{1,16}$' });
const strict = { additionalProperties: false };

/** characters of the name of who has a volume attached */
export const ATTACHED_TO_MAX = 255;
/** extents of one page of a diff */
export const DIFF_PAGE_MAX = 65536;

export const PoolParams = Type.Object({ pool: Name }, strict);
export const VolumeParams = Type.Object({ volume: Name }, strict);
export const SnapshotParams = Type.Object({ volume: Name, snapshot: Name }, strict);
export const TransferParams = Type.Object({ transfer: Type.String({ pattern: '^[0-9a-f]{16}$' }) }, strict);

export const IngestParams = Type.Object({ ingest: Type.String({ pattern: '^[0-9a-f]{16}$' }) }, strict);

export const Nothing = Type.Union([Type.Null(), Type.Object({}, strict)]);
export const NoQuery = Type.Object({}, strict);

export const PoolCreate = Type.Object(
  {
    name: Name,
    path: Type.String({ minLength: 1, maxLength: 4096 }),
    size: Type.Optional(Bytes),
    blockSize: Type.Optional(Bytes),
    direct: Type.Optional(Type.Boolean()),
    preallocate: Type.Optional(Type.Boolean()),
  },
  strict,
);
export const PoolSet = Type.Object(
  {
    seal: Type.Optional(Type.Boolean()),
    sealRate: Type.Optional(Bytes),
    sealPaused: Type.Optional(Type.Boolean()),
    scrubRate: Type.Optional(Bytes),
    verifyOnRead: Type.Optional(Type.Boolean()),
  },
  strict,
);
export const PoolGrow = Type.Object({ size: Type.Optional(Bytes) }, strict);

export const ShowQuery = Type.Object({ account: Type.Optional(Flag) }, strict);
export const ListQuery = Type.Object({ hidden: Type.Optional(Flag) }, strict);
export const VolumeCreate = Type.Object(
  { name: Name, size: Type.Optional(Bytes), pool: Type.Optional(Name), from: Type.Optional(Name) },
  strict,
);
export const VolumeDeleteQuery = Type.Object(
  { force: Type.Optional(Flag), withSnapshots: Type.Optional(Flag) },
  strict,
);
export const Resize = Type.Object({ size: Bytes }, strict);
export const NewName = Type.Object({ name: Name }, strict);
export const Attach = Type.Object(
  {
    to: Type.String({ minLength: 1, maxLength: ATTACHED_TO_MAX, pattern: '^[^\\p{Cc}\\p{Surrogate}]*$' }),
    id: Type.Optional(Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' })),
  },
  strict,
);
export const Detach = Type.Object({ force: Type.Optional(Type.Boolean()) }, strict);
export const Protect = Type.Object({ on: Type.Boolean() }, strict);

export const SnapshotListQuery = Type.Object({ volume: Type.Optional(Name), hidden: Type.Optional(Flag) }, strict);
export const SnapshotDeleteQuery = Type.Object({ force: Type.Optional(Flag) }, strict);

const Path = Type.String({ minLength: 1, maxLength: 4096 });
export const MountCreate = Type.Object({ path: Path, allowOther: Type.Optional(Type.Boolean()) }, strict);
export const MountDeleteQuery = Type.Object({ path: Path, lazy: Type.Optional(Flag) }, strict);

export const PasswordSet = Type.Object(
  {
    user: Name,
    domain: Type.Optional(Name),
    password: Type.Optional(Type.String({ maxLength: 4096 })),
  },
  strict,
);

/** null: none */
const Limit = Type.Union([Bytes, Type.Null()]);
/** Which resources there are is said with better words by the route. */
const ResourceWord = Type.String({ maxLength: 64 });
const Who = { user: Type.Optional(Name), domain: Type.Optional(Name) };
export const ProjectParams = Type.Object({ project: Name }, strict);
export const QuotaQuery = Type.Object(Who, strict);
export const QuotaDefaults = Type.Object({ limits: Type.Record(ResourceWord, Limit) }, strict);
export const QuotaSet = Type.Object(
  { limits: Type.Record(ResourceWord, Type.Union([Limit, Type.Literal('default')])), ...Who },
  strict,
);

export const Backup = Type.Object({ path: Type.String({ minLength: 1, maxLength: 4096 }) }, strict);

export const DiffQuery = Type.Object(
  { from: Name, to: Name, offset: Type.Optional(Offset), max: Type.Optional(Digits) },
  strict,
);

export const TransferBegin = Type.Union([
  Type.Object({ kind: Type.Literal('create'), name: Name, size: Bytes, pool: Type.Optional(Name) }, strict),
  Type.Object({ kind: Type.Literal('onto'), volume: Name }, strict),
  Type.Object({ kind: Type.Literal('read'), volume: Name }, strict),
]);

/** a number of 64 bits */
const Number64 = Type.String({ pattern: '^[0-9]{1,20}$' });
const NamedFile = Type.Object(
  { path: Type.String({ pattern: '^/', maxLength: 4096 }), dev: Number64, ino: Number64 },
  strict,
);
export const IngestBegin = Type.Object(
  { volume: Name, snapshot: Name, pool: Type.Optional(Name), file: Type.Optional(NamedFile) },
  strict,
);
export const IngestRead = Type.Object({ offset: Bytes, length: Bytes }, strict);
export const IngestBytesQuery = Type.Object({ offset: Offset }, strict);
export const IngestCommit = Type.Union([Type.Null(), Type.Object({ size: Type.Optional(Bytes) }, strict)]);
