/** Who has a volume open: handles are taken and given back beside everything else. */
import type { ControlReply } from '../../../src/xseg/mapper/mapper.ts';
import type { Flow, Wait, World } from '../world.ts';
import type { Ledger } from './ledger.ts';
import type { Volume } from './volume.ts';

const OPENS_MAX = 3;

export class Opens {
  readonly world: World;

  constructor(readonly ledger: Ledger) {
    this.world = ledger.world;
  }

  open(volume: Volume): void {
    if (volume.opens >= OPENS_MAX || volume.closing || volume.busy) return;
    this.world.spawn(this.#opening(volume));
  }

  *#opening(volume: Volume): Flow {
    volume.busy = true;
    const reply = (yield this.world.call('open', volume.name)) as ControlReply;
    volume.busy = false;
    if (!this.ledger.expect(reply)) return;
    volume.handle = (reply.value as { handle: number }).handle;
    volume.opens++;
  }

  close(volume: Volume): void {
    if (volume.busy || volume.opens === 0 || volume.closing) return;
    if (volume.opens > 1) {
      volume.opens--;
      this.world.spawn(this.ledger.one(this.world.call('release', volume.handle)));
      return;
    }
    volume.busy = true;
    this.world.spawn(this.#closing(volume));
  }

  *#closing(volume: Volume): Flow {
    yield* this.closed(volume);
    volume.busy = false;
  }

  /** Waits until nothing is on its way, then closes. */
  *closed(volume: Volume): Generator<Wait, void, never> {
    volume.closing = true;
    while (volume.requests > 0) yield this.ledger.later();
    while (volume.opens > 0) {
      volume.opens--;
      yield this.world.call('release', volume.handle);
    }
    volume.handle = -1;
    volume.closing = false;
  }
}
