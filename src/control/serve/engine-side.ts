/** The engine as the catalog needs it: which roots are there, and that they go (docs/catalog.md, "Catalog and engine"). */
import { isHiddenName, joinName } from '../../xseg/names.ts';
import type { Engine, Files } from '../../xseg/types.ts';
import type { Changed, EngineSide, EngineWatch, Root } from '../catalog/roots.ts';
import { volumeOfSealed } from '../catalog/roots.ts';
import { describeError } from '../errors.ts';
import type { Log } from '../log.ts';

export function engineSide(engine: Engine, log: Log): EngineSide {
  const remove = async (name: string): Promise<void> => {
    // Snapshots of it that are not known here are somebody's: it stays then.
    await (isSnapshot(name)
      ? engine.deleteSnapshot(name, { force: true })
      : engine.deleteVolume(name, { force: true })
    ).catch(unlessMissing);
    const volume = volumeOfSealed(name);
    if (volume !== null) await engine.deleteVolume(volume, { force: true }).catch(unlessMissing);
  };
  return {
    find: (name) => find(engine, name),
    remove,
    failed: (name, error) => log('warn', 'catalog.pin', { name, ...describeError(error) }),
    watch: engine.files && watch(engine.files),
  };
}

function isSnapshot(name: string): boolean {
  return name.includes('@');
}

function unlessMissing(error: unknown): null {
  if (describeError(error).code !== 'NOT_FOUND') throw error;
  return null;
}

async function find(engine: Engine, name: string): Promise<Root | null> {
  const found = await (isSnapshot(name) ? engine.showSnapshot(name) : engine.showVolume(name)).catch(unlessMissing);
  return found && { id: found.id, name: found.name, size: found.size, createdMs: Date.parse(found.createdAt) };
}

function watch(files: Files): EngineWatch {
  return {
    list: () => list(files),
    names: (changed) => names(files, changed),
    onChange: (hear) =>
      files.onChange(({ id, name }) => {
        // Of a handle only: no resource has changed.
        if (id !== 0 && !(name && isHiddenName(name.name))) hear(name ? { id, name } : { id });
      }),
  };
}

async function* list(files: Files): AsyncGenerator<Root[]> {
  for (const kind of ['volume', 'snapshot'] as const) {
    for (let after: number | null = 0; after !== null; ) {
      const page: Awaited<ReturnType<Files['roots']>> = await files.roots(kind, after);
      yield page.roots.map(({ uuid, name, size, createdMs }) => ({ id: uuid, name, size, createdMs }));
      after = page.last;
    }
  }
}

async function names(files: Files, changed: readonly Changed[]): Promise<Set<string>> {
  const found = new Set<string>();
  const nameOf = async (id: number): Promise<string | null> =>
    (await files.node(id).catch(unlessMissing))?.fullName ?? null;
  for (const { id, name } of changed) {
    const now = await nameOf(id);
    if (now !== null) found.add(now);
    if (!name) continue;
    // Of a volume that is gone, the snapshots are found by it.
    const owner = name.volume === 0 ? null : await nameOf(name.volume);
    if (name.volume === 0) found.add(name.name);
    else if (owner !== null) found.add(joinName(owner, name.name));
  }
  for (const name of found) if (isHiddenName(name)) found.delete(name);
  return found;
}
