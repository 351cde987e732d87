/** Sealing, scrubbing, verifying and rot: pools are set one way and the other, and media forget. */
import type { ControlReply } from '../../../src/xseg/mapper/mapper.ts';
import { blockHash } from '../../../src/xseg/seal/tree-hash.ts';
import type { PoolSettings } from '../../../src/xseg/types.ts';
import { SECTOR } from '../disk.ts';
import { blocksOf } from '../expected-hash.ts';
import { SCRUB_RATE_FAST } from '../profiles.ts';
import type { Flow, Wait, World } from '../world.ts';
import type { Audit } from './audit.ts';
import type { Guests } from './guests.ts';
import type { Ledger } from './ledger.ts';
import type { Volume } from './volume.ts';

/** Blocks that rot at once, and orders that a pool gets at once. */
const ROTS = [1, 1, 4, 12];
const ORDERS_MAX = 3;

/** What a pool was told to do. */
interface Orders {
  settings: Required<PoolSettings>;
  /** not answered */
  waiting: number;
}

export class Custody {
  readonly world: World;
  /** false: snapshots are sealed at the end only, all at once */
  readonly #sealsEarly: boolean;
  /** media forget */
  readonly rots: boolean;
  /** reads are verified, mostly */
  readonly #verifies: boolean;
  readonly #orders = new Map<number, Orders>();

  constructor(
    readonly ledger: Ledger,
    readonly audit: Audit,
    readonly guests: Guests,
  ) {
    this.world = ledger.world;
    const { sealing } = this.world.profile;
    const early = this.world.rng.chance(sealing.early);
    this.rots = this.world.rng.chance(sealing.rots);
    this.#sealsEarly = early || this.rots;
    this.#verifies = this.world.rng.chance(this.rots ? 0.6 : 0.2);
  }

  /** The daemon is up: settings that were answered are as they were. */
  begin(): void {
    const { world } = this;
    for (const { row } of world.disks) {
      const settings = this.#stored(row.id);
      const orders = this.#orders.get(row.id);
      const [is, was] = [JSON.stringify(settings), JSON.stringify(orders?.settings ?? settings)];
      if (orders?.waiting === 0 && is !== was) world.fail(`pool ${row.name} was set to ${was} and is ${is}`);
      this.#orders.set(row.id, { settings, waiting: 0 });
      if (!settings.verifyOnRead) world.verifiedSince.delete(row.id);
      else if (!world.verifiedSince.has(row.id)) world.verifiedSince.set(row.id, world.steps);
    }
  }

  #stored(pool: number): Required<PoolSettings> {
    const { seal, paused, rate, scrub_rate, verify } = this.world.store.reader.seal.pool(pool);
    return {
      seal: seal !== 0,
      sealPaused: paused !== 0,
      sealRate: rate,
      scrubRate: scrub_rate,
      verifyOnRead: verify !== 0,
    };
  }

  /** Sealing, scrubbing and verifying of a pool: on and off, fast and slow. */
  setPools(): void {
    const { rng, disks, profile } = this.world;
    const pool = 1 + rng.int(disks.length);
    if (!profile.sealing.piecemeal) {
      this.world.spawn(this.#set(pool, this.#settings()));
      return;
    }
    for (let left = 1 + rng.int(ORDERS_MAX); left > 0; left--) {
      const wanted = Object.entries(this.#settings()).filter(() => rng.chance(0.4));
      this.world.spawn(this.#set(pool, Object.fromEntries(wanted)));
    }
  }

  #settings(): Required<PoolSettings> {
    const { rng, profile } = this.world;
    const { on, paused, rates, scrubRates, verifies } = profile.sealing;
    return {
      seal: this.#sealsEarly && rng.chance(on),
      sealPaused: rng.chance(paused),
      sealRate: rng.pick(rates),
      scrubRate: rng.pick(scrubRates),
      verifyOnRead: rng.chance(verifies ?? (this.#verifies ? 0.95 : 0.05)),
    };
  }

  *#set(pool: number, settings: PoolSettings): Generator<Wait, void, never> {
    const { world } = this;
    const orders = this.#orders.get(pool) as Orders;
    Object.assign(orders.settings, settings);
    orders.waiting++;
    if (!orders.settings.verifyOnRead) world.verifiedSince.delete(pool);
    const reply = (yield world.call('setPool', pool, settings)) as ControlReply;
    if (!this.ledger.expect(reply)) return;
    if (--orders.waiting > 0 || !orders.settings.verifyOnRead || world.verifiedSince.has(pool)) return;
    world.verifiedSince.set(pool, world.steps);
  }

  /** Everything is to be sealed, at once. */
  sealAll(): void {
    const { world } = this;
    for (const { row } of world.disks) world.spawn(this.#set(row.id, { seal: true, sealPaused: false, sealRate: 0 }));
  }

  /** Sealed blocks rot, of a snapshot or any. Mostly somebody scrubs soon, or reads it, and writes over a part of one. */
  *rot(): Flow {
    const { world } = this;
    const { rng } = world;
    const volume = rng.pick(this.ledger.volumes);
    const { id, block_shift } = world.disks[volume.pool].row;
    const { verifies } = world.profile.sealing;
    const verifyOnRead = verifies === null ? this.#verifies : rng.chance(verifies);
    yield* this.#set(id, { seal: true, sealPaused: false, sealRate: 0, verifyOnRead });
    yield* this.#readSealed(volume);
    const sealed = [...volume.snaps.values()].filter((snap) => snap.hash !== null && snap.frozen.known);
    const blocks = sealed.length === 0 ? [] : [...blocksOf(rng.pick(sealed).frozen.values, block_shift)];
    let rotten = -1;
    for (let left = rng.pick(ROTS); left > 0; left--) {
      const [block, bytes] = blocks.length > 0 ? rng.pick(blocks) : [0, null];
      if (world.rot(id, bytes === null ? null : blockHash(bytes))) rotten = block;
    }
    if (rotten < 0 || rng.chance(0.2)) return;
    if (rng.chance(0.3)) {
      yield* this.#set(id, { scrubRate: SCRUB_RATE_FAST });
      return;
    }
    const sectors = 2 ** block_shift / SECTOR;
    const from = rotten * sectors + rng.int(sectors);
    // any block that rotted may be one of another volume's
    if (volume.windows.some((window) => window.from <= from && from < window.to))
      this.guests.change(volume, 'write', { from, to: from + 1 });
    yield* this.#readSealed(volume);
  }

  /** Its snapshots that nobody has in hand. */
  *#readSealed(volume: Volume): Generator<Wait, void, never> {
    for (const snap of [...volume.snaps.values()])
      if (!snap.busy && !volume.busy && volume.snaps.has(snap.name)) yield* this.audit.look(volume, snap);
  }
}
