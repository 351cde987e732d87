/**
 * Who ingests: streams come in pieces, which are hashed beside each other, told to the mapper in their order, and written
 * beside each other (src/xseg/ingest/ingest.ts, whose place this takes). Some are given up.
 */
import type {
  Decided,
  IngestBegun,
  PieceHashes,
  PieceJob,
  PieceWrite,
  WriteError,
} from '../../../src/xseg/ingest/job.ts';
import { PIECES_MAX } from '../../../src/xseg/ingest/job.ts';
import type { ControlReply } from '../../../src/xseg/mapper/mapper.ts';
import type { SnapshotInfo } from '../../../src/xseg/types.ts';
import { bytesOf, SECTOR } from '../disk.ts';
import { expectedHash } from '../expected-hash.ts';
import { Content, Frozen } from '../model.ts';
import type { Flow, Wait, World } from '../world.ts';
import type { Audit } from './audit.ts';
import type { Ledger } from './ledger.ts';
import { type Part, Stream } from './stream.ts';
import { type Snap, Volume } from './volume.ts';

export class Importers {
  readonly world: World;
  #snapshots = 0;

  constructor(
    readonly ledger: Ledger,
    readonly audit: Audit,
  ) {
    this.world = ledger.world;
  }

  *import(): Flow {
    const { world, ledger } = this;
    const { rng } = world;
    const name = ledger.freeName();
    if (name === null) return;
    const pool = rng.int(world.disks.length);
    const { row } = world.disks[pool];
    const stream = new Stream(rng, ledger.values, 2 ** row.block_shift / SECTOR, world.profile);
    const volume = new Volume(name, pool, Content.of(stream.size * SECTOR, stream.values), stream.windows);
    volume.certain = false;
    volume.busy = true;
    ledger.volumes.push(volume);
    const spec = { volume: name, snapshot: `i${this.#snapshots++}`, pool: row.name };
    const begun = (yield world.call('ingestBegin', spec)) as ControlReply;
    if (!ledger.expect(begun)) return;
    const ingest = begun.value as IngestBegun;
    yield* this.#send(
      ingest,
      stream,
      rng.chance(world.profile.streams.aborted) ? rng.int(stream.parts.length + 1) : -1,
    );
    if (stream.failed === null) {
      const made = yield* this.#finish(ingest, spec, stream, volume);
      if (made) return;
    }
    const gone = (yield world.call('ingestAbort', ingest.id)) as ControlReply;
    if (!ledger.expect(gone)) return;
    this.#leftNothing(ingest);
    ledger.volumes.splice(ledger.volumes.indexOf(volume), 1);
  }

  /** It has come to its end: nothing hangs on a record of its own any more (6). */
  #leftNothing(ingest: IngestBegun): void {
    if (this.world.store.reader.resource(ingest.id) !== undefined)
      this.world.fail(`the record of ingest ${ingest.id} is in the store, and it has ended`);
  }

  /** All parts, until something fails. @param givenUp part before which it is given up, −1 never */
  *#send(ingest: IngestBegun, stream: Stream, givenUp: number): Generator<Wait, void, never> {
    let begun = 0;
    for (const [i, part] of stream.parts.entries()) {
      while (this.world.rng.chance(0.5)) yield this.ledger.later();
      while (stream.out >= PIECES_MAX) yield stream.change;
      if (i === givenUp) stream.failed ??= 'given up';
      if (stream.failed !== null) break;
      begun++;
      this.world.spawn(part.sectors === null ? this.#skip(ingest, stream, i) : this.#piece(ingest, stream, i));
    }
    while (stream.out > 0 || stream.told < begun) yield stream.change;
  }

  *#skip(ingest: IngestBegun, stream: Stream, at: number): Flow {
    yield* stream.turn(at);
    if (stream.failed === null) {
      const reply = (yield this.world.call('ingestSkip', ingest.id, stream.parts[at].blocks)) as ControlReply;
      this.#judge(stream, reply);
    }
    stream.passed();
  }

  *#piece(ingest: IngestBegun, stream: Stream, at: number): Flow {
    const { world } = this;
    const part = stream.parts[at];
    stream.out++;
    const seen = stream.durable;
    const job = this.#job(ingest, part);
    const hashed = (yield world.threads.run(() =>
      world.pieces.hash(job, (look) => look(world.store.reader.seal)),
    )) as PieceHashes;
    yield* stream.turn(at);
    let decided: (Decided & { piece: number }) | null = null;
    if (stream.failed === null) {
      const { places: _, ...found } = hashed;
      const told = { ...found, ingest: ingest.id, blocks: part.blocks, seen };
      const reply = (yield world.call('ingestDecide', told)) as ControlReply;
      if (this.#judge(stream, reply)) decided = reply.value as Decided & { piece: number };
    }
    if (decided !== null) stream.durable = decided.durable;
    stream.passed();
    if (decided !== null) yield* this.#write(ingest, stream, { job, hashed, slots: decided.slots }, decided.piece);
    stream.out--;
    stream.changed();
  }

  #job(ingest: IngestBegun, { blocks, sectors }: Part): PieceJob {
    const bytes = bytesOf(sectors as Uint32Array);
    const shared = new SharedArrayBuffer(bytes.length);
    new Uint8Array(shared).set(bytes);
    return { ...ingest.target, core: 0, storePath: '', bytes: shared, reads: [], blocks };
  }

  *#write(ingest: IngestBegun, stream: Stream, work: PieceWrite, piece: number): Generator<Wait, void, never> {
    const { world } = this;
    let error: WriteError | null = null;
    if (work.slots.some((slot) => slot >= 0))
      error = (yield world.threads.run(() => {
        try {
          world.pieces.write(work);
          return null;
        } catch (cause) {
          return { code: (cause as { code: string }).code, message: (cause as Error).message };
        }
      })) as WriteError | null;
    const reply = (yield world.call('ingestWritten', ingest.id, piece, error)) as ControlReply;
    if (this.#judge(stream, reply)) stream.durable = reply.value as number;
    if (error === null) return;
    if (!world.faulty) world.fail(`a piece could not be written: ${error.message}`);
    stream.failed ??= error.message;
  }

  /** False: it has failed. Pools run full at any time. */
  #judge(stream: Stream, reply: ControlReply): boolean {
    if (this.ledger.expect(reply, ['NO_SPACE'])) return true;
    stream.failed ??= (reply.error as { message: string }).message;
    return false;
  }

  /** False: it could not be finished. A crash from here on finds the volume with its snapshot, or neither. */
  *#finish(
    ingest: IngestBegun,
    spec: { volume: string; snapshot: string },
    stream: Stream,
    volume: Volume,
  ): Generator<Wait, boolean, never> {
    const { world } = this;
    const size = stream.size * SECTOR;
    const frozen = new Frozen(size, new Map([...stream.values].map(([sector, value]) => [sector, [value]])), []);
    const snap: Snap = {
      name: spec.snapshot,
      frozen,
      certain: true,
      busy: true,
      hash: null,
      sealedAt: Number.POSITIVE_INFINITY,
    };
    volume.snaps.set(snap.name, snap);
    const reply = (yield world.call('ingestFinish', ingest.id, size, spec)) as ControlReply;
    if (!this.ledger.expect(reply, ['NO_SPACE'])) return false;
    this.#leftNothing(ingest);
    const { hash } = reply.value as SnapshotInfo;
    const wanted = expectedHash(stream.values, size, world.disks[volume.pool].row.block_shift);
    if (hash !== wanted) world.fail(`${spec.volume}@${snap.name} was ingested with the hash ${hash}, holds ${wanted}`);
    volume.certain = true;
    world.promises++;
    yield* this.audit.verify(volume, snap);
    snap.busy = false;
    volume.busy = false;
    return true;
  }
}
