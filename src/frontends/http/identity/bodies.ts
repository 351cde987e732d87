/** Pieces of what bodies and queries may hold. What is not named is let pass and kept with the resource, as Keystone does. */
import { type TOptional, type TProperties, type TString, Type } from '@sinclair/typebox';

/** something that can be read: not empty, not only spaces */
export const name = (maxLength: number) => Type.String({ minLength: 1, maxLength, pattern: '\\S' });
export const Description = Type.Union([Type.String({ maxLength: 4096 }), Type.Null()]);
export const Id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[a-zA-Z0-9-]+$' });
export const RegionId = Type.String({ minLength: 1, maxLength: 255, pattern: '^[^/\\s]+$' });
export const maybe = Type.Optional;
export const orNull = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Union([schema, Type.Null()]);

/** at least 1; what is more than a list can have is as much as it can have */
const Limit = Type.String({ pattern: '^[1-9][0-9]{0,8}$' });

/** `{ "user": { … } }` */
export function wrapped<K extends string, P extends TProperties>(key: K, properties: P) {
  return Type.Object({ [key]: Type.Object(properties, { additionalProperties: true }) } as Record<
    K,
    ReturnType<typeof Type.Object<P>>
  >);
}

/** A query that filters, by each name once. What is not named is let pass, and not looked at. */
export function filterQuery<K extends string>(...names: readonly K[]) {
  const some = Object.fromEntries(names.map((one) => [one, maybe(Type.String({ maxLength: 4096 }))]));
  return Type.Object(some as Record<K, TOptional<TString>>);
}

/** The query of a list: what it can be filtered by, and which page of it. */
export function listQuery<K extends string>(...names: readonly K[]) {
  const { properties } = filterQuery(...names);
  return Type.Object({ ...properties, limit: maybe(Limit), marker: maybe(Type.String({ maxLength: 255 })) });
}
