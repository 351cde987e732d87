/** `Files`: what mounts need of the mapper and of the native core, and nothing that decides (src/frontends/fuse does). */
import { randomUUID } from 'node:crypto';
import { HIDDEN_PREFIX } from './names.ts';
import type { Native } from './native.ts';
import type {
  FileNode,
  Files,
  MountAnswer,
  MountEvents,
  MountSettings,
  NodeChange,
  NodeFolder,
  NodePage,
  RootInfo,
} from './types.ts';

/** The kernel asks again after this; changes it is told of at once (docs/fuse.md, "Caches"). */
export const NAME_SECONDS = 1;
export const ATTRIBUTE_SECONDS = 1;
/** Names and attributes of folders, which change only in ways that it is told of: who walks through many comes back to them late. */
export const FOLDER_SECONDS = 10;

export class FilePort implements Files {
  readonly #hearers = new Set<(change: NodeChange) => void>();
  readonly #mounts = new Set<number>();

  constructor(
    readonly native: Native,
    readonly core: number,
    readonly ioFlusher: boolean,
    readonly call: <T>(op: string, ...args: unknown[]) => Promise<T>,
  ) {}

  lookup(folder: NodeFolder, name: string): Promise<FileNode> {
    return this.call('nodeLookup', folder, name);
  }
  node(id: number): Promise<FileNode> {
    return this.call('node', id);
  }
  list(folder: NodeFolder, after: number, ahead: boolean): Promise<NodePage> {
    return this.call('nodeList', folder, after, ahead);
  }
  roots(kind: 'volume' | 'snapshot', after: number): Promise<{ roots: RootInfo[]; last: number | null }> {
    return this.call('nodeRoots', kind, after);
  }
  create(name: string): Promise<void> {
    return this.call('nodeCreate', name);
  }
  resize(id: number, size: number): Promise<void> {
    return this.call('nodeResize', id, size);
  }
  grow(id: number, size: number): Promise<void> {
    return this.call('nodeGrow', id, size);
  }

  /** What was not copied is cleared in a hidden clone, which the volume becomes then: a crash leaves it empty, or right. */
  async fill(id: number, from: string, size: number, copied: number[]): Promise<void> {
    const besides = await this.call<number[]>('nodeFill', id, from, size, copied);
    if (besides.length === 0) return;
    const hidden = `${HIDDEN_PREFIX}copy-${randomUUID()}`;
    await this.call('createVolume', { name: hidden, from });
    try {
      await this.call('nodeClear', hidden, besides);
      await this.call('resizeVolume', hidden, size);
      await this.call('nodeTake', id, hidden);
    } catch (error) {
      await this.call('deleteVolume', hidden, {}).catch(() => undefined);
      throw error;
    }
  }

  onChange(hear: (change: NodeChange) => void): () => void {
    this.#hearers.add(hear);
    return () => void this.#hearers.delete(hear);
  }
  changed(change: NodeChange): void {
    for (const hear of this.#hearers) hear(change);
  }

  mount(settings: MountSettings, events: MountEvents): number {
    const mount = this.native.fuseMount(this.core, events, {
      ...settings,
      nameSeconds: NAME_SECONDS,
      attributeSeconds: ATTRIBUTE_SECONDS,
      folderSeconds: FOLDER_SECONDS,
    });
    this.#mounts.add(mount);
    return mount;
  }
  unmount(mount: number): void {
    if (this.#mounts.delete(mount)) this.native.fuseUnmount(this.core, mount);
  }
  answer(mount: number, token: number, errno: number, answer?: MountAnswer): void {
    if (this.#mounts.has(mount)) this.native.fuseAnswer(this.core, mount, token, errno, answer);
  }
  tell(mount: number, folder: number, ino: number, name: string): void {
    if (this.#mounts.has(mount)) this.native.fuseTell(this.core, mount, folder, ino, name);
  }
  revoke(mount: number, ino: number): number {
    return this.#mounts.has(mount) ? this.native.fuseRevoke(this.core, mount, ino) : 0;
  }

  close(): void {
    for (const mount of this.#mounts) this.unmount(mount);
  }
}
