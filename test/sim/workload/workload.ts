/**
 * What clients and operators do to the simulated daemon: who asks what and when. What they see is compared with the model,
 * and after every crash everything is read. Here: lives, and whose turn it is.
 */
import type { SnapshotInfo, VolumeInfo } from '../../../src/xseg/types.ts';
import type { Flow, World } from '../world.ts';
import { Audit } from './audit.ts';
import { Custody } from './custody.ts';
import { Ending } from './ending.ts';
import { Guests } from './guests.ts';
import { Importers } from './importers.ts';
import { Ledger } from './ledger.ts';
import { Opens } from './opens.ts';
import { Operators } from './operators.ts';
import type { Volume } from './volume.ts';
import { type Wish, Wishes } from './wishes.ts';

/** Requests on their way at once, of all volumes. */
const REQUESTS_MAX = 20;

export class Workload {
  readonly #ledger: Ledger;
  readonly #audit: Audit;
  readonly #opens: Opens;
  readonly #operators: Operators;
  readonly #importers: Importers;
  readonly #guests: Guests;
  readonly #custody: Custody;
  readonly #ending: Ending;
  #wishes!: Wishes;
  /** no new work: everything is being deleted */
  #draining = false;
  /** nobody has said yet what there is */
  #taking = false;

  constructor(readonly world: World) {
    this.#ledger = new Ledger(world);
    this.#audit = new Audit(this.#ledger);
    this.#opens = new Opens(this.#ledger);
    this.#operators = new Operators(this.#ledger, this.#audit, this.#opens);
    this.#importers = new Importers(this.#ledger, this.#audit);
    this.#guests = new Guests(this.#ledger);
    this.#custody = new Custody(this.#ledger, this.#audit, this.#guests);
    this.#ending = new Ending(this.#ledger, this.#audit, this.#operators, this.#custody, this.#importers);
    world.workload = () => this.#something();
  }

  // ---- a life

  /** The daemon is up: sees what there is, reads it all, and begins. */
  begin(): void {
    this.#wishes = new Wishes(this.world.rng, this.world.profile, this.#custody.rots);
    this.#guests.equal = this.#wishes.equal;
    this.#guests.flushed = this.#wishes.flushed;
    this.#custody.begin();
    for (const volume of this.#ledger.volumes) volume.reborn();
    this.#taking = true;
    this.world.spawn(this.#take());
  }

  /** A crash: called before anything else. */
  interrupted(): void {
    for (const run of this.#ledger.unfinished.values()) run();
    this.#ledger.unfinished.clear();
  }

  /** A crash, or a clean stop: what was on its way may or may not have happened. */
  ended(powerCut: boolean, clean: boolean): void {
    this.#audit.powerCut = powerCut;
    for (const volume of this.#ledger.volumes) if (clean) for (const content of volume.contents) content.stopped();
  }

  /** What the store has, against what must be, may be, must not be. */
  *#take(): Flow {
    const { world } = this;
    const { volumes } = this.#ledger;
    const infos = this.#ledger.value<VolumeInfo[]>(yield world.call('listVolumes'));
    const snaps = this.#ledger.value<SnapshotInfo[]>(yield world.call('listSnapshots'));
    for (const volume of [...volumes]) {
      const info = infos.find((v) => v.name === volume.name) ?? infos.find((v) => v.name === volume.otherName);
      if (info === undefined) {
        if (volume.certain) world.fail(`volume ${volume.name} is gone`);
        if (snaps.some((s) => s.volume === volume.name)) world.fail(`${volume.name} is gone, its snapshots are not`);
        volumes.splice(volumes.indexOf(volume), 1);
        continue;
      }
      this.#found(volume, info, snaps);
      world.spawn(this.#audit.compare(volume));
    }
    for (const info of infos)
      if (!volumes.some((v) => v.name === info.name)) world.fail(`volume ${info.name} is there and was deleted`);
    for (const info of snaps)
      if (!volumes.some((v) => v.name === info.volume && v.snaps.has(info.snapshot)))
        world.fail(`snapshot ${info.name} is there and was deleted`);
    this.#taking = false;
    if (world.rng.chance(world.profile.sealing.told)) this.#custody.setPools();
  }

  /** The store has it: which name and size it has by now, and which snapshots. */
  #found(volume: Volume, info: VolumeInfo, snaps: SnapshotInfo[]): void {
    const { world } = this;
    const had = volume.name;
    volume.name = info.name;
    volume.otherName = null;
    volume.certain = true;
    volume.contents = volume.contents.filter((c) => c.size === info.size);
    if (volume.contents.length === 0) world.fail(`${had} has ${info.size} bytes`);
    for (const snap of [...volume.snaps.values()]) {
      const there = snaps.find((s) => s.name === `${volume.name}@${snap.name}`);
      if (there === undefined) {
        if (snap.certain) world.fail(`snapshot ${volume.name}@${snap.name} is gone`);
        volume.snaps.delete(snap.name);
        continue;
      }
      if (there.size !== snap.frozen.size) world.fail(`${there.name} has ${there.size} bytes`);
      snap.certain = true;
      snap.busy = true;
    }
  }

  // ---- work

  #something(): void {
    const { world } = this;
    const { volumes } = this.#ledger;
    if (world.inFlight >= REQUESTS_MAX || this.#draining || this.#taking) return;
    const wish = this.#wishes.pick();
    if (wish === 'create' || volumes.length === 0) {
      if (this.#operators.room && (wish === 'create' || world.inFlight === 0)) world.spawn(this.#operators.create());
    } else if (wish === 'import') {
      if (this.#operators.room) world.spawn(this.#importers.import());
    } else if (wish === 'setPool') this.#custody.setPools();
    else if (wish === 'rot') world.spawn(this.#custody.rot());
    else if (wish === 'flushAll') world.spawn(this.#operators.flushAll());
    else this.#use(world.rng.pick(volumes), wish);
  }

  #use(volume: Volume, wish: Wish): void {
    if (wish === 'write' || wish === 'trim' || wish === 'zeroes') this.#guests.change(volume, wish);
    else if (wish === 'read') this.#guests.read(volume);
    else if (wish === 'flush') this.#guests.flush(volume);
    else if (wish === 'status') this.#guests.status(volume);
    else if (wish === 'open') this.#opens.open(volume);
    else if (wish === 'close') this.#opens.close(volume);
    else this.#operators.operate(volume, wish);
  }

  /** For the rest of this life. */
  flushOften(): void {
    this.#guests.flushed = 0.6;
  }

  // ---- the end

  /** `run` with no new work. */
  #without(run: () => boolean): boolean {
    this.#draining = true;
    try {
      return run();
    } finally {
      this.#draining = false;
    }
  }

  /** Lets what is on its way come to an end. False: it died meanwhile. */
  quiesce(stepsMax: number): boolean {
    return this.#without(() => this.#ending.quiesce(stepsMax));
  }

  /** Seals everything, with nobody at work. False: it died meanwhile. */
  sealAll(stepsMax: number): boolean {
    return this.#without(() => this.#ending.sealAll(stepsMax));
  }

  /** Deletes everything, and waits until all space has come back. False: it died meanwhile. */
  drain(stepsMax: number): boolean {
    return this.#without(() => this.#ending.drain(stepsMax));
  }
}
