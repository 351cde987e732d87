/**
 * Where the module of a thread is: beside the one that starts it, compiled or not as that one is.
 * @param base `import.meta.url` of the module that starts the thread
 * @param module relative to it, without its ending
 */
export function moduleUrl(base: string, module: string): URL {
  return new URL(`${module}${base.endsWith('.ts') ? '.ts' : '.js'}`, base);
}
