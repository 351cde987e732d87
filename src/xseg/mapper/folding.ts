/**
 * Folding (docs/format.md, "Sealing"): entries of sealed leaves go over to slots with equal bytes. Pages that borrow an entry
 * get it before the page that they borrow it from, each for itself. A step is one batch; what it decides from is durable,
 * since it takes turns with freeing.
 */
import { PAGE_ENTRIES } from '../layout.gen.ts';
import type { Native } from '../native.ts';
import { ZEROES } from '../page-table.ts';
import { RELEASE_SLOT } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import { emptySeal, HASH_BYTES, type SealChanges } from '../store/seal-batch.ts';
import type { Commits } from './commits.ts';
import { type Frames, OWNED, VALUE_HI_MASK } from './frames.ts';
import { Changes, type Resource } from './resource.ts';
import { BROKEN, type Tree, WAIT } from './tree.ts';

/** Pages changed in one batch, and entries, unless one page has more. */
const BATCH_PAGES_MAX = 64;
const BATCH_ENTRIES_MAX = 1024;
/** Children of a page looked at in one step. */
const CHILDREN_PER_STEP = 64;
/** A leaf that cannot be folded for so long (pages always dirty, new clones all the time) stays as it is. */
const GIVE_UP_MS = 10_000;

/** Where blocks of zeroes go. */
export const TO_ZEROES = -1;

/** One entry's way. */
export interface Move {
  from: number;
  /** the slot with the same bytes; TO_ZEROES: they are zeroes and need none */
  to: number;
  /** of the bytes of both */
  hash: Buffer;
}

/** A sealed leaf and which of its entries go elsewhere. */
export interface Fold {
  page: number;
  /** entry → move */
  moves: Map<number, Move>;
  /** node of the leaf, stored with it */
  hash: Buffer;
}

export interface FoldingHost {
  ownerOf(resourceId: number, generation: number): Resource | undefined;
  hasNewChildren(page: number): boolean;
  /** the slot is in quarantine, durably or not yet */
  isBad(pool: number, slot: number): boolean;
  nextRelease(pool: number, blocks: number): number;
  changed(resource: Resource): void;
  commitSoon(resource: Resource): void;
  commitAll(): void;
  poke(): void;
  /** a row more of the index is on its way: from now on its slot must not become writable in place */
  listed(pool: number): void;
}

interface Visit {
  page: number;
  /** children up to this page id do not borrow any more */
  cursor: number;
}

/** What became of one look at a page; 'never': a volume has failed or a page is damaged, and the leaf stays as it is. */
type Outcome = 'next' | 'wait' | 'alone' | 'pause' | 'never';

export class Folding {
  /** a batch is on its way */
  locked = false;
  /** one landed: freeing has the next turn */
  #rest = false;
  #todo: Fold[] = [];
  #stack: Visit[] = [];
  #pool = 0;
  #since = 0;
  /** the batch of a volume failed */
  #failed = false;
  #folded = new Set<number>();
  /** slots that stayed as they were, and are in the index since the start */
  readonly kept = new Set<number>();
  #looked = 0;
  /** slots that may be named, as of this step */
  #good = new Map<number, boolean>();
  #judged: Fold | null = null;
  /** slots that were found to be something else by now: for these leaves they stay so, whatever they become */
  readonly #gone = new Set<number>();
  #words = new Uint32Array(PAGE_ENTRIES * 2);
  #header = new Float64Array(8);

  constructor(
    readonly frames: Frames,
    readonly tree: Tree,
    readonly reader: StoreReader,
    readonly commits: Commits,
    readonly native: Native,
    readonly host: FoldingHost,
  ) {}

  get done(): boolean {
    return this.#todo.length === 0 && !this.locked;
  }

  start(pool: number, folds: Fold[], now: number): void {
    this.#pool = pool;
    this.#todo = folds;
    this.#stack = [];
    this.#since = now;
    this.#folded.clear();
    this.#gone.clear();
    this.kept.clear();
  }

  /** One batch at most. Nothing that changes references is on its way. @returns false: nothing could be done now */
  step(now: number): boolean {
    if (this.#rest) {
      this.#rest = false;
      return true;
    }
    const changes = new Changes();
    const seal = emptySeal();
    const hashes: Buffer[] = [];
    const nodes: Buffer[] = [];
    this.#looked = 0;
    this.#good.clear();
    this.#judged = null;
    let outcome: Outcome = 'next';
    while ((outcome === 'next' || outcome === 'never') && this.#todo.length > 0) {
      const entries = Math.max(changes.slotRefs.length / 3, changes.releases.length);
      if (changes.frames.length >= BATCH_PAGES_MAX || entries >= BATCH_ENTRIES_MAX) break;
      const never = outcome === 'never' || this.#failed;
      this.#failed = false;
      if (never || now - this.#since > GIVE_UP_MS) outcome = this.#finishLeaf(this.#todo[0], seal, hashes, nodes);
      else outcome = this.#look(changes, seal, hashes, nodes);
    }
    seal.hashes = Buffer.concat(hashes);
    seal.pageHashes = Buffer.concat(nodes);
    if (this.locked) {
      // a live page went with its volume's batch
      this.#since = now;
      return true;
    }
    if (changes.frames.length === 0 && seal.pages.length === 0) {
      if (outcome === 'pause') this.#since = now;
      return outcome === 'pause';
    }
    this.#since = now;
    this.#send(changes, seal);
    return true;
  }

  #look(changes: Changes, seal: SealChanges, hashes: Buffer[], nodes: Buffer[]): Outcome {
    const fold = this.#todo[0];
    if (this.#stack.length === 0) this.#stack.push({ page: fold.page, cursor: 0 });
    this.#judge(fold);
    const visit = this.#stack[this.#stack.length - 1];
    const frame = this.#load(visit.page);
    if (frame === WAIT) return 'wait';
    if (frame === BROKEN) {
      // Freed meanwhile: nothing to change. A damaged one may have pages that borrow through it.
      if (this.#stack.length > 1 && this.reader.page(visit.page) !== undefined) return 'never';
      this.#stack.pop();
      return this.#stack.length === 0 ? this.#finishLeaf(fold, seal, hashes, nodes) : 'next';
    }
    this.frames.pins[frame]++;
    const below = this.#borrowers(visit, fold, changes);
    this.frames.pins[frame]--;
    if (below !== 'next') return below;
    if (this.#stack[this.#stack.length - 1] !== visit) return 'next';
    const outcome = this.#change(frame, fold, changes, seal);
    if (outcome !== 'next') return outcome;
    this.#stack.pop();
    if (this.locked) return 'alone';
    return this.#stack.length === 0 ? this.#finishLeaf(fold, seal, hashes, nodes) : 'next';
  }

  /** Looks for a page that borrows from this one and has to go first; it is then on the stack. */
  #borrowers(visit: Visit, fold: Fold, changes: Changes): Outcome {
    if (this.host.hasNewChildren(visit.page)) {
      this.host.commitAll();
      return 'wait';
    }
    for (;;) {
      if (this.#looked >= CHILDREN_PER_STEP) return 'pause';
      const children = this.reader.childrenAfter(visit.page, visit.cursor, CHILDREN_PER_STEP - this.#looked);
      if (children.length === 0) return 'next';
      for (const child of children) {
        this.#looked++;
        const frame = this.#load(child);
        if (frame === WAIT) return 'wait';
        if (frame === BROKEN) {
          // whether it borrows, or others through it, cannot be known
          if (this.reader.page(child) !== undefined) return 'never';
        } else if (this.#ownerOf(frame)?.failed) {
          return 'never';
        } else if (this.#borrows(frame, fold)) {
          this.#stack.push({ page: child, cursor: 0 });
          return 'next';
        } else if (this.#borrowsAfterCrash(frame, fold, changes)) {
          const live = this.#ownerOf(frame);
          if (live !== undefined) this.host.commitSoon(live);
          return 'wait';
        }
        visit.cursor = child;
      }
    }
  }

  #borrows(frame: number, fold: Fold): boolean {
    const { frames } = this;
    for (const [index, move] of fold.moves) {
      if (frames.value(frame, index) !== move.from + 1 || (frames.high(frame, index) & OWNED) !== 0) continue;
      // else neither it nor the page that it borrows from will change
      if (this.#isGood(move)) return true;
    }
    return false;
  }

  /**
   * The page borrows in the store, though in memory it does not any more: until its batch is durable a crash, or the failure
   * of its volume, brings back an entry that needs the slot. What goes in this step's own batch is as good as durable.
   */
  #borrowsAfterCrash(frame: number, fold: Fold, changes: Changes): boolean {
    const { frames } = this;
    if ((!frames.dirty[frame] && !frames.flying[frame]) || changes.frames.includes(frame)) return false;
    const page = frames.pageId[frame];
    const blob = this.reader.page(page);
    if (blob === undefined) return false;
    const words = this.#words;
    if (this.native.decodePageTo(blob, page, words, this.#header) !== 0) return true;
    for (const [index, { from }] of fold.moves) {
      const high = words[index * 2 + 1];
      if (words[index * 2] + (high & VALUE_HI_MASK) * 2 ** 32 === from + 1 && (high & OWNED) === 0) return true;
    }
    return false;
  }

  /** Entries of one page go over. Nobody borrows them any more. */
  #change(frame: number, fold: Fold, changes: Changes, seal: SealChanges): Outcome {
    const { frames } = this;
    const live = this.#ownerOf(frame);
    if (live?.failed) return 'never';
    // A grant that is out copies from the slot that the entry names now.
    if (live !== undefined && frames.pins[frame] !== 0) return 'wait';
    if (live === undefined && frames.flying[frame]) return 'wait';
    if (live === undefined && frames.dirty[frame] && !changes.frames.includes(frame)) return 'wait';
    if (live !== undefined && (changes.frames.length > 0 || seal.pages.length > 0)) return 'alone';
    let changed = false;
    const into = live === undefined ? changes : live.changes;
    for (const [index, move] of fold.moves) {
      if (frames.value(frame, index) !== move.from + 1 || !this.#isGood(move)) continue;
      const owned = (frames.high(frame, index) & OWNED) !== 0;
      if (move.to === TO_ZEROES) {
        frames.set(frame, index, ZEROES, 0);
      } else {
        frames.set(frame, index, move.to + 1, OWNED);
        into.slotRefs.push(this.#pool, move.to, 1);
      }
      if (owned)
        into.releases.push({
          seq: this.host.nextRelease(this.#pool, 1),
          kind: RELEASE_SLOT,
          id: move.from,
          pool: this.#pool,
        });
      changed = true;
    }
    if (!changed) return 'next';
    if (live === undefined) {
      if (frames.markDirty(frame)) changes.frames.push(frame);
      return 'next';
    }
    this.tree.touch(live, frame);
    into.row = true;
    this.locked = true;
    into.waiters.push((error) => this.#landed(error !== 0));
    this.host.changed(live);
    this.host.commitSoon(live);
    return 'next';
  }

  /** Finds out which of the slots to go to still are what they were. Once in a step: nothing changes in it. */
  #judge(fold: Fold): void {
    if (this.#judged === fold) return;
    this.#judged = fold;
    const moves = [...fold.moves.values()].filter(({ to }) => to !== TO_ZEROES && !this.#good.has(to));
    const slots = Float64Array.from(moves, ({ to }) => to);
    const held = this.reader.seal.hold(this.#pool, slots, Buffer.concat(moves.map(({ hash }) => hash)));
    for (const [k, { to }] of moves.entries()) {
      const good = held[k] === 1 && !this.host.isBad(this.#pool, to); // not durable yet
      if (!good) this.#gone.add(to);
      this.#good.set(to, good);
    }
  }

  #isGood({ to }: Move): boolean {
    return to === TO_ZEROES || (this.#good.get(to) === true && !this.#gone.has(to));
  }

  /** The leaf is as folded as it will be: its node is stored, and what stayed is in the index. */
  #finishLeaf(fold: Fold, seal: SealChanges, hashes: Buffer[], nodes: Buffer[]): Outcome {
    const frame = this.#load(fold.page);
    if (frame === WAIT) return 'wait';
    this.#todo.shift();
    this.#stack = [];
    let count = 0;
    for (const [index, move] of fold.moves) {
      if (frame === BROKEN) break; // freed meanwhile
      if (this.frames.value(frame, index) !== move.from + 1) {
        if (!this.#folded.has(move.from)) count++;
        this.#folded.add(move.from);
      } else if (!this.#listed(seal, move.from)) {
        seal.sealed.push(this.#pool, move.from);
        this.host.listed(this.#pool);
        this.kept.add(move.from);
        hashes.push(move.hash);
      }
    }
    seal.pages.push(fold.page);
    nodes.push(fold.hash);
    seal.counts.push(this.#pool, 0, count);
    return 'next';
  }

  #listed(seal: SealChanges, slot: number): boolean {
    for (let i = 1; i < seal.sealed.length; i += 2) if (seal.sealed[i] === slot) return true;
    return this.reader.seal.row(this.#pool, slot) !== undefined;
  }

  #send(changes: Changes, seal: SealChanges): void {
    const batch = this.commits.newBatch();
    const flying = this.commits.encodeInto(batch, changes.frames);
    batch.releases = changes.releases;
    batch.slotRefs = changes.slotRefs;
    batch.seal = seal;
    if (seal.hashes.length !== (seal.sealed.length / 2) * HASH_BYTES) throw new Error('sealed rows without hashes');
    this.locked = true;
    this.commits.sendLoose(batch, (error) => {
      if (error === null) for (const frame of flying) this.frames.land(frame);
      this.#landed(error !== null);
    });
  }

  /** The resource that may write the page in place. */
  #ownerOf(frame: number): Resource | undefined {
    return this.host.ownerOf(this.frames.owner[frame], this.frames.generation[frame]);
  }

  #landed(failed: boolean): void {
    this.locked = false;
    this.#failed = failed;
    this.#rest = true;
    this.host.poke();
  }

  /** A leaf, whatever it is a leaf of. */
  #load(page: number): number {
    const resident = this.frames.byPage.get(page);
    if (resident !== undefined) return resident;
    if (this.reader.page(page) === undefined) return BROKEN;
    return this.tree.load(page, 0);
  }
}
