/** Validators of requests that are compiled when the first request needs them: compiling those of all routes takes half a second of a start. */
import AjvCompiler from '@fastify/ajv-compiler';

type BuildValidator = ReturnType<typeof AjvCompiler>;
type Compiler = ReturnType<BuildValidator>;
type Validate = ReturnType<Compiler>;

const build = AjvCompiler();

/** For fastify's `schemaController.compilersFactory.buildValidator`. */
export const buildLazyValidator: BuildValidator = (externalSchemas, options) => {
  let compiler: Compiler | null = null;
  return (route) => {
    let compiled: Validate | null = null;
    const validate = (data: unknown) => {
      compiler ??= build(externalSchemas, options);
      compiled ??= compiler(route);
      const valid = compiled(data);
      validate.errors = compiled.errors ?? null;
      return valid;
    };
    validate.errors = null as Validate['errors'];
    return validate as unknown as Validate;
  };
};
