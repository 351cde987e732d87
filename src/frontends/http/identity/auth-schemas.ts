/** Bodies of POST /v3/auth/tokens. Unknown fields are let pass, as Keystone does; they are not looked at. */
import { type Static, Type } from '@sinclair/typebox';

/** longer names and ids belong to nobody */
const Text = Type.String({ maxLength: 255 });
/** docs/identity.md: more methods than there are, to no purpose */
const METHODS_MAX = 8;
/** characters; bytes are counted where it is hashed */
const Secret = Type.String({ maxLength: 4096 });

const Domain = Type.Object({ id: Type.Optional(Text), name: Type.Optional(Text) });
const named = { id: Type.Optional(Text), name: Type.Optional(Text), domain: Type.Optional(Domain) };
const Named = Type.Object(named);

const Identity = Type.Object({
  methods: Type.Array(Type.String({ maxLength: 64 }), { minItems: 1, maxItems: METHODS_MAX }),
  password: Type.Optional(Type.Object({ user: Type.Object({ ...named, password: Secret }) })),
  token: Type.Optional(Type.Object({ id: Type.String({ maxLength: 1024 }) })),
  application_credential: Type.Optional(
    Type.Object({ id: Type.Optional(Text), name: Type.Optional(Text), secret: Secret, user: Type.Optional(Named) }),
  ),
});

const Scope = Type.Union([
  Type.Literal('unscoped'),
  Type.Object({
    project: Type.Optional(Named),
    domain: Type.Optional(Domain),
    system: Type.Optional(Type.Object({ all: Type.Literal(true) })),
    unscoped: Type.Optional(Type.Object({})),
  }),
]);

export const AuthRequest = Type.Object({
  auth: Type.Object({ identity: Identity, scope: Type.Optional(Scope) }),
});
export type AuthBody = Static<typeof AuthRequest>;
export type NamedInDomain = Static<typeof Named>;
export type PasswordUser = NamedInDomain & { password: string };
export type DomainName = Static<typeof Domain>;
