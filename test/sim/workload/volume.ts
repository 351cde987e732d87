/** A volume with its snapshots, as those who use it know it. */
import { SECTOR } from '../disk.ts';
import type { Content, Frozen, Write } from '../model.ts';
import type { Profile } from '../profiles.ts';

/** Volumes of so many sectors are used everywhere, larger ones in a few windows. */
export const WHOLE_SECTORS_MAX = 16384;

/** Sectors [from, to). */
export interface Range {
  from: number;
  to: number;
}

export interface Snap {
  name: string;
  frozen: Frozen;
  /** false: a crash decides whether it exists */
  certain: boolean;
  busy: boolean;
  /** of the whole, once it is sealed; and the step at which that was seen */
  hash: string | null;
  sealedAt: number;
}

export class Volume {
  /** what it may hold: one content but after a crash that came between two */
  contents: Content[];
  readonly snaps = new Map<string, Snap>();
  readonly writes = new Set<Write>();
  /** asked and not answered, writes and others */
  requests = 0;
  handle = -1;
  opens = 0;
  /** a control operation, or the reading after a crash, has it for itself */
  busy = false;
  /** no new requests: it is to be closed */
  closing = false;
  /** false: a crash decides whether it exists */
  certain = true;
  /** a rename that was not answered: the name it may have by now */
  otherName: string | null = null;
  /** where requests may go while its size changes, sectors */
  limit = Number.POSITIVE_INFINITY;
  /** sizes it was given: what was on its way across one of these has no clear outcome */
  resizes = 0;
  /** writes since a snapshot was asked for, while one is being made */
  window: Write[] | null = null;
  /** step at which a flush was answered with EIO: no later one of this life may succeed (invariant 1) */
  flushFailed = Number.POSITIVE_INFINITY;

  constructor(
    public name: string,
    readonly pool: number,
    content: Content,
    public windows: Range[],
  ) {
    this.contents = [content];
  }

  get content(): Content {
    return this.contents[0];
  }

  get sectors(): number {
    return this.content.size / SECTOR;
  }

  /** Requests may be sent. */
  get usable(): boolean {
    return this.opens > 0 && !this.closing;
  }

  /** The daemon was started again: nobody has it open, and it is read before anything else. */
  reborn(): void {
    this.handle = -1;
    this.opens = 0;
    this.requests = 0;
    this.writes.clear();
    this.window = null;
    this.flushFailed = Number.POSITIVE_INFINITY;
    this.closing = false;
    this.limit = Number.POSITIVE_INFINITY;
    this.busy = true;
  }

  /** It, or one of its snapshots, is in somebody's hands. */
  get anyBusy(): boolean {
    return this.busy || [...this.snaps.values()].some((snap) => snap.busy);
  }
}

/** Where requests to a volume go: everywhere, or in a few places of a large one. */
export function windowsOf(size: number, blockBytes: number, { volumes }: Profile): Range[] {
  const sectors = size / SECTOR;
  if (sectors <= WHOLE_SECTORS_MAX) return [{ from: 0, to: 2 ** 45 }];
  const windows: Range[] = [];
  for (let i = 0; i < volumes.windows; i++) {
    const block = blockBytes / SECTOR;
    const at = Math.floor((sectors * i) / volumes.windows / block) * block;
    windows.push({ from: at, to: at + volumes.windowBlocks * block });
  }
  return windows;
}
