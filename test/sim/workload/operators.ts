/** What operators do: volumes, snapshots and clones are made, changed and deleted. */
import type { ControlReply } from '../../../src/xseg/mapper/mapper.ts';
import { SECTOR } from '../disk.ts';
import { Content, Frozen, type Write } from '../model.ts';
import type { Flow, World } from '../world.ts';
import type { Audit } from './audit.ts';
import type { Ledger } from './ledger.ts';
import type { Opens } from './opens.ts';
import { type Snap, Volume, WHOLE_SECTORS_MAX, windowsOf } from './volume.ts';
import type { Wish } from './wishes.ts';

export class Operators {
  readonly world: World;
  #snapshots = 0;

  constructor(
    readonly ledger: Ledger,
    readonly audit: Audit,
    readonly opens: Opens,
  ) {
    this.world = ledger.world;
  }

  /** There may be one more volume. */
  get room(): boolean {
    return this.ledger.volumes.length < this.world.profile.volumes.most;
  }

  operate(volume: Volume, kind: Wish): void {
    if (volume.busy) return;
    const { world } = this;
    const snaps = [...volume.snaps.values()].filter((s) => !s.busy);
    const snap = snaps.length > 0 ? world.rng.pick(snaps) : undefined;
    if (kind === 'snapshot') {
      if (volume.snaps.size < world.profile.volumes.snapshots) world.spawn(this.#snapshot(volume));
    } else if (kind === 'resize') world.spawn(this.#resize(volume));
    else if (kind === 'rename') world.spawn(this.#rename(volume));
    else if (kind === 'drop') {
      if (this.ledger.volumes.length > 1 && snaps.length === volume.snaps.size) world.spawn(this.drop(volume));
    } else if (snap !== undefined) this.#operateOn(volume, snap, kind);
  }

  #operateOn(volume: Volume, snap: Snap, kind: Wish): void {
    const { world } = this;
    if (kind === 'clone') {
      if (this.room && snap.frozen.known) world.spawn(this.#clone(volume, snap));
    } else if (kind === 'rollback') {
      if (snap.frozen.known) world.spawn(this.#rollback(volume, snap));
    } else if (kind === 'dropSnapshot') world.spawn(this.#dropSnapshot(volume, snap));
    else if (kind === 'verify') world.spawn(this.audit.look(volume, snap));
  }

  *create(): Flow {
    const { rng, disks, profile } = this.world;
    const name = this.ledger.freeName();
    if (name === null) return;
    const pool = rng.int(disks.length);
    const blockBytes = 2 ** disks[pool].row.block_shift;
    const leaf = blockBytes * 512;
    const size = SECTOR * Math.ceil((rng.pick(profile.volumes.leaves) * leaf * (0.5 + rng.next() / 2)) / SECTOR);
    const volume = new Volume(name, pool, new Content(size), windowsOf(size, blockBytes, profile));
    volume.certain = false;
    volume.busy = true;
    this.ledger.volumes.push(volume);
    const reply = (yield this.world.call('createVolume', { name, size, pool: disks[pool].row.name })) as ControlReply;
    if (!this.ledger.expect(reply)) return;
    volume.certain = true;
    volume.busy = false;
  }

  *#snapshot(volume: Volume): Flow {
    const { world } = this;
    const { unfinished } = this.ledger;
    const name = `s${this.#snapshots++}`;
    volume.busy = true;
    const { content } = volume;
    content.observers++;
    const asked = world.steps;
    volume.window = [...volume.writes];
    // after a crash it may be there, with what it may have by then
    const frozen = new Frozen(content.size, new Map(), []);
    const pending: Snap = { name, frozen, certain: false, busy: true, hash: null, sealedAt: Number.POSITIVE_INFINITY };
    volume.snaps.set(name, pending);
    unfinished.set(pending, () => {
      pending.frozen = new Frozen(content.size, content.snapshot(asked), volume.window ?? []);
    });
    const reply = (yield world.call('createSnapshot', volume.name, name)) as ControlReply;
    if (!this.ledger.expect(reply)) return; // a crash decides
    unfinished.delete(pending);
    pending.frozen = new Frozen(content.size, content.snapshot(asked), volume.window ?? []);
    pending.certain = true;
    world.promises++;
    content.observers--;
    volume.window = null;
    const early = world.rng.chance(0.5);
    if (early) volume.busy = false;
    yield* this.audit.verify(volume, pending);
    pending.busy = false;
    if (!early) volume.busy = false;
  }

  *#clone(volume: Volume, snap: Snap): Flow {
    const { rng } = this.world;
    const name = this.ledger.freeName();
    if (name === null) return;
    snap.busy = true;
    const grown = rng.chance(0.2) ? snap.frozen.size + SECTOR * rng.int(5000) : undefined;
    const size = grown ?? snap.frozen.size;
    const clone = new Volume(name, volume.pool, Content.of(size, snap.frozen.values), volume.windows);
    clone.certain = false;
    clone.busy = true;
    this.ledger.volumes.push(clone);
    const from = `${volume.name}@${snap.name}`;
    const reply = (yield this.world.call('createVolume', { name, from, size: grown })) as ControlReply;
    if (!this.ledger.expect(reply)) return;
    clone.certain = true;
    clone.busy = false;
    snap.busy = false;
  }

  *#rollback(volume: Volume, snap: Snap): Flow {
    volume.busy = true;
    snap.busy = true;
    yield* this.opens.closed(volume);
    const before = volume.content;
    const after = Content.of(snap.frozen.size, snap.frozen.values);
    volume.contents = [before, after];
    const reply = (yield this.world.call('rollback', `${volume.name}@${snap.name}`)) as ControlReply;
    if (!this.ledger.expect(reply)) return;
    volume.contents = [after];
    volume.busy = false;
    snap.busy = false;
  }

  *#resize(volume: Volume): Flow {
    const { world } = this;
    const { unfinished } = this.ledger;
    const before = volume.content.size;
    const size = this.#newSize(volume);
    if (size === before) return;
    const small = Math.min(size, before) / SECTOR;
    // what is on its way beyond the end that is to be has no clear outcome when it is let in later
    if (size > before && [...volume.writes].some((w) => w.from + w.count > small)) return;
    volume.busy = true;
    volume.resizes++;
    volume.limit = small;
    const content = volume.content;
    if (size < before) {
      // until it is answered, what goes may be gone or not
      const gone: Write = {
        from: small,
        count: before / SECTOR - small,
        base: 0,
        cycle: 0,
        issued: world.steps,
        answered: Number.POSITIVE_INFINITY,
        failed: true,
      };
      content.issue(gone);
    }
    unfinished.set(volume, () => {
      const other = content.copy();
      other.size = size;
      if (size < before) other.cut(small);
      volume.contents = [content, other];
    });
    const reply = (yield world.call('resizeVolume', volume.name, size)) as ControlReply;
    // what stays of the last block cannot be had from a rotten one
    const allowed = world.rotten && size < before ? ['NO_SPACE', 'CORRUPT'] : ['NO_SPACE'];
    if (!this.ledger.expect(reply, allowed)) {
      if (!world.faulty) {
        unfinished.delete(volume);
        volume.limit = Number.POSITIVE_INFINITY;
        volume.busy = false;
      }
      return;
    }
    unfinished.delete(volume);
    content.size = size;
    if (size < before) content.cut(small);
    volume.limit = Number.POSITIVE_INFINITY;
    volume.busy = false;
  }

  #newSize(volume: Volume): number {
    const before = volume.content.size;
    const least = Math.max(SECTOR, ...[...volume.snaps.values()].map((s) => s.frozen.size));
    const wanted = Math.ceil((before * this.world.rng.pick([0.3, 0.7, 0.95, 1.05, 1.5, 3])) / SECTOR) * SECTOR;
    // one that is read whole stays small enough for that
    const most = volume.windows.length === 1 ? WHOLE_SECTORS_MAX * SECTOR : 2 ** 44;
    return Math.max(Math.min(wanted, most), least);
  }

  *#rename(volume: Volume): Flow {
    const name = this.ledger.freeName();
    if (name === null) return;
    if ([...volume.snaps.values()].some((s) => s.busy)) return;
    volume.busy = true;
    volume.otherName = name;
    for (const snap of volume.snaps.values()) snap.busy = true;
    const reply = (yield this.world.call('renameVolume', volume.name, name)) as ControlReply;
    if (!this.ledger.expect(reply)) return;
    volume.name = name;
    volume.otherName = null;
    volume.busy = false;
    for (const snap of volume.snaps.values()) snap.busy = false;
  }

  *#dropSnapshot(volume: Volume, snap: Snap): Flow {
    snap.busy = true;
    snap.certain = false;
    const reply = (yield this.world.call('deleteSnapshot', `${volume.name}@${snap.name}`)) as ControlReply;
    if (!this.ledger.expect(reply)) return;
    volume.snaps.delete(snap.name);
  }

  *drop(volume: Volume): Flow {
    const { volumes } = this.ledger;
    volume.busy = true;
    for (const snap of volume.snaps.values()) snap.busy = true;
    yield* this.opens.closed(volume);
    volume.certain = false;
    const reply = (yield this.world.call('deleteVolume', volume.name, { withSnapshots: true })) as ControlReply;
    if (!this.ledger.expect(reply)) return;
    volumes.splice(volumes.indexOf(volume), 1);
  }

  *flushAll(): Flow {
    const issued = this.world.steps;
    // those that nobody has open may have nothing in the mapper that could be flushed
    const contents = this.ledger.volumes.filter((v) => v.opens > 0).map((v) => v.content);
    const reply = (yield this.world.call('flushAll')) as ControlReply;
    if (this.ledger.expect(reply) && !this.world.faulty) for (const content of contents) content.flushed(issued);
  }
}
