/** Pieces of what bodies may hold. What is not named is let pass and kept with the resource, as Keystone does. */
import { type TProperties, Type } from '@sinclair/typebox';

/** something that can be read: not empty, not only spaces */
export const name = (maxLength: number) => Type.String({ minLength: 1, maxLength, pattern: '\\S' });
export const Description = Type.Union([Type.String({ maxLength: 4096 }), Type.Null()]);
export const Id = Type.String({ minLength: 1, maxLength: 64, pattern: '^[a-zA-Z0-9-]+$' });
export const RegionId = Type.String({ minLength: 1, maxLength: 255, pattern: '^[^/\\s]+$' });
export const maybe = Type.Optional;
export const orNull = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Union([schema, Type.Null()]);

/** `{ "user": { … } }` */
export function wrapped<K extends string, P extends TProperties>(key: K, properties: P) {
  return Type.Object({ [key]: Type.Object(properties, { additionalProperties: true }) } as Record<
    K,
    ReturnType<typeof Type.Object<P>>
  >);
}
