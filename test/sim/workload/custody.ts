/** Sealing, scrubbing and rot: pools are set one way and the other, and media forget. */
import type { ControlReply } from '../../../src/xseg/mapper/mapper.ts';
import type { Flow, World } from '../world.ts';
import type { Ledger } from './ledger.ts';

/** Bytes a second: faster than anything here needs. */
const SCRUB_RATE_FAST = 2 ** 26;

export class Custody {
  readonly world: World;
  /** false: snapshots are sealed at the end only, all at once */
  readonly #sealsEarly: boolean;

  constructor(readonly ledger: Ledger) {
    this.world = ledger.world;
    this.#sealsEarly = this.world.rng.chance(0.6);
  }

  /** Sealing and scrubbing of a pool: on and off, fast and slow. */
  *setPool(): Flow {
    const { rng, disks } = this.world;
    const reply = (yield this.world.call('setPool', 1 + rng.int(disks.length), {
      seal: this.#sealsEarly && rng.chance(0.9),
      sealPaused: rng.chance(0.15),
      sealRate: rng.pick([0, 0, 0, 2 ** 22]),
      scrubRate: rng.pick([0, 0, 2 ** 20, SCRUB_RATE_FAST]),
    })) as ControlReply;
    this.ledger.expect(reply);
  }

  /** Everything is to be sealed, at once. */
  sealAll(): void {
    const { world, ledger } = this;
    for (const { row } of world.disks)
      world.spawn(ledger.one(world.call('setPool', row.id, { seal: true, sealPaused: false, sealRate: 0 })));
  }

  /** A sealed block rots, and mostly somebody scrubs soon. */
  rot(): void {
    const { world, ledger } = this;
    if (!world.rot() || world.rng.chance(0.2)) return;
    const { pool } = world.rots[world.rots.length - 1];
    world.spawn(ledger.one(world.call('setPool', pool, { scrubRate: SCRUB_RATE_FAST })));
  }
}
