/** Lists folders in pages. Who walks through the snapshots of one volume after another gets those of the next ones along. */
import { type Files, type MountAnswer, type NodeFolder, type NodePage, PAGE_NUMBERS } from '../../xseg/types.ts';
import { type Attributes, NODE_NUMBERS } from './attributes.ts';
import { ENOENT, Refusal } from './errno.ts';
import { ownerIno, type Place, SNAPSHOTS, VOLUMES } from './numbers.ts';

/** A page that was asked for early is given out no later than that: attributes are true for a second (file-port.ts). */
const EARLY_MS_MAX = 250;

export class Listing {
  /** the page behind the last one: it is made while the kernel reads what it got */
  #early: { folder: NodeFolder; ms: number; page: Promise<NodePage> } | null = null;
  /** the volume whose snapshots are listed next by who walks through all */
  #next = 0;

  constructor(
    readonly files: Files,
    readonly attributes: Attributes,
  ) {}

  /** @param afterIno goes on behind this node; 0: from the beginning */
  async list(place: Place, afterIno: number): Promise<MountAnswer> {
    if (place?.kind === 'root') return this.#root(afterIno);
    const folder = folderOf(place);
    const after = Math.floor(afterIno / 8);
    const walks = folder === this.#next && after === 0;
    // a page may hold nothing but what is hidden
    let page = await this.#page(folder, after, walks);
    while (page.names === '' && !page.end) page = await this.files.list(folder, page.last, walks);
    if (typeof folder === 'number') this.#next = page.next;
    if (walks && page.next !== 0) this.#askEarly(page.next);
    return {
      list: folder === 'owners' ? this.#owners(page) : this.#nodes(page),
      names: page.names,
      end: page.end,
      ahead: Float64Array.from(page.ahead.flatMap(({ volume, count }) => [ownerIno(volume), count])),
    };
  }

  /** Something changed: what was asked for early may not have it. */
  drop(): void {
    this.#early = null;
  }

  #page(folder: NodeFolder, after: number, walks: boolean): Promise<NodePage> {
    const early = this.#early;
    this.#early = null;
    const good = early !== null && early.folder === folder && performance.now() - early.ms < EARLY_MS_MAX;
    return good && walks ? early.page : this.files.list(folder, after, walks);
  }

  #askEarly(folder: number): void {
    const page = this.files.list(folder, 0, true);
    // whoever takes it hears of it
    page.catch(() => undefined);
    this.#early = { folder, ms: performance.now(), page };
  }

  #root(afterIno: number): MountAnswer {
    const all = [
      { name: 'volumes', ino: VOLUMES },
      { name: 'snapshots', ino: SNAPSHOTS },
    ].filter((one) => one.ino > afterIno);
    const list = new Float64Array(all.length * NODE_NUMBERS);
    for (const [i, { ino }] of all.entries()) this.attributes.putFolder(list, i * NODE_NUMBERS, ino);
    return { list, names: all.map(({ name }) => `${name}\0`).join(''), end: true };
  }

  #owners({ numbers }: NodePage): Float64Array {
    const list = new Float64Array((numbers.length / PAGE_NUMBERS) * NODE_NUMBERS);
    for (let at = 0, to = 0; at < numbers.length; at += PAGE_NUMBERS, to += NODE_NUMBERS)
      this.attributes.putFolder(list, to, ownerIno(numbers[at]));
    return list;
  }

  #nodes({ numbers }: NodePage): Float64Array {
    const list = new Float64Array((numbers.length / PAGE_NUMBERS) * NODE_NUMBERS);
    for (let at = 0, to = 0; at < numbers.length; at += PAGE_NUMBERS, to += NODE_NUMBERS)
      this.attributes.putFile(
        list,
        to,
        numbers[at],
        numbers[at + 1] === 1,
        numbers[at + 2],
        numbers[at + 3],
        numbers[at + 4],
        numbers[at + 5],
        numbers[at + 6] !== 0,
      );
    return list;
  }
}

function folderOf(place: Place): NodeFolder {
  if (place?.kind === 'volumes') return 'volumes';
  if (place?.kind === 'snapshots') return 'owners';
  if (place?.kind === 'owner') return place.id;
  throw new Refusal(ENOENT);
}
