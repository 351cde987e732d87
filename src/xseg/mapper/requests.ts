/** What the engine's face asks of the mapper, each by its name, and the answers. */

import type { HashResult } from '../seal/job.ts';
import { KIND_VOLUME } from '../store/batch.ts';
import type { StoreReader } from '../store/reader.ts';
import { EngineError, type SnapshotInfo, type VolumeInfo } from '../types.ts';
import type { Accounting, AccountingTicket } from './accounting.ts';
import type { Burials } from './burials.ts';
import type { Channel } from './channel.ts';
import type { Commits } from './commits.ts';
import { diff } from './diff.ts';
import type { Fills } from './fills.ts';
import type { Frames } from './frames.ts';
import type { Handles } from './handles.ts';
import type { Ingests } from './ingests.ts';
import type { Nodes } from './nodes.ts';
import type { Operations } from './operations.ts';
import type { PoolChanges } from './pool-changes.ts';
import type { Registry } from './registry.ts';
import type { Reports } from './reports.ts';
import type { Resource } from './resource.ts';
import type { Steps } from './steps.ts';
import type { Tree } from './tree.ts';

/** Volumes or snapshots that are listed at once: some milliseconds. */
export const LIST_PAGE = 64;

export interface ListPage<T> {
  infos: T[];
  /** what comes behind them has ids above this; null: nothing does */
  next: number | null;
}

export interface ControlRequest {
  id: number;
  op: string;
  args: unknown[];
}

export interface ControlReply {
  id: number;
  error?: { code: string; message: string };
  value?: unknown;
}

/** The parts of the mapper that are asked. */
export interface RequestsHost {
  readonly parts: { face: Channel };
  readonly reader: StoreReader;
  readonly frames: Frames;
  readonly tree: Tree;
  readonly registry: Registry;
  readonly commits: Commits;
  readonly handles: Handles;
  readonly steps: Steps;
  readonly burials: Burials;
  readonly operations: Operations;
  readonly fills: Fills;
  readonly ingests: Ingests;
  readonly nodes: Nodes;
  readonly accounting: Accounting;
  readonly reports: Reports;
  readonly poolChanges: PoolChanges;
  /** it closes: little is answered any more */
  readonly stopping: boolean;
  hashed(ticket: number, result: HashResult | null): void;
  flushAll(done: () => void): void;
  close(done: () => void): void;
}

export class Requests {
  constructor(readonly host: RequestsHost) {}

  /** Answers now or later. */
  serve(request: ControlRequest): void {
    const done = (error: EngineError | null, value?: unknown) => {
      const reply: ControlReply = { id: request.id };
      if (error !== null) reply.error = { code: error.code, message: error.message };
      else reply.value = value;
      this.host.parts.face.send(reply);
    };
    if (this.host.stopping && request.op !== 'close' && request.op !== 'status' && request.op !== 'release') {
      done(new EngineError('SHUTTING_DOWN', 'the daemon is stopping'));
      return;
    }
    try {
      this.#dispatch(request, done);
    } catch (error) {
      done(error instanceof EngineError ? error : new EngineError('IO', (error as Error).message));
    }
  }

  #dispatch(request: ControlRequest, done: (error: EngineError | null, value?: unknown) => void): void {
    const { host } = this;
    const { operations: o, steps, burials, fills, ingests, nodes, poolChanges } = host;
    const a = request.args as never[];
    switch (request.op) {
      case 'status':
        return done(null, host.reports.status());
      case 'activity':
        return done(null, host.reports.activity());
      case 'insertPool':
        return poolChanges.insert(a[0], a[1], a[2], done);
      case 'poolUsage':
        return done(null, host.reports.poolUsage());
      case 'setPool':
        return poolChanges.set(a[0], a[1], done);
      case 'hashed':
        host.hashed(a[0], a[1]);
        return done(null);
      case 'poolAccount':
        return done(null, host.reports.poolAccount(a[0]));
      case 'accountBegin':
        return host.accounting.begin(steps.need(a[0]).row, (ticket) => done(null, ticket));
      case 'accountEnd':
        host.accounting.end(a[0] as AccountingTicket, a[1], a[2]);
        return done(null);
      case 'growPool':
        return poolChanges.grow(a[0], a[1], done);
      case 'createVolume':
        return o.createVolume(a[0], done);
      case 'listPage':
        return done(null, this.#page(a[0], a[1]));
      case 'listVolumes':
        return done(
          null,
          this.#list(1).map((r) => steps.views.volume(r)),
        );
      case 'listHidden':
        return done(null, nodes.hidden());
      case 'showVolume':
        return done(null, steps.views.volume(steps.needVolume(a[0])));
      case 'resizeVolume':
        return o.resize(a[0], a[1], done);
      case 'renameVolume':
        return o.rename(a[0], a[1], done);
      case 'deleteVolume':
        return burials.deleteVolume(a[0], a[1], done);
      case 'protect':
        return o.protect(a[0], a[1], done);
      case 'createSnapshot':
        return o.createSnapshot(a[0], a[1], done);
      case 'listSnapshots':
        return done(
          null,
          (a[0] === undefined ? this.#list(2) : host.registry.snapshotsOf(steps.needVolume(a[0]))).map((r) =>
            steps.views.snapshot(r),
          ),
        );
      case 'showSnapshot':
        return done(null, steps.views.snapshot(steps.needSnapshot(a[0])));
      case 'deleteSnapshot':
        return burials.deleteSnapshot(a[0], done);
      case 'clone':
        return o.clone(a[0], a[1], undefined, done);
      case 'rollback':
        return o.rollback(a[0], done);
      case 'diff':
        return diff(steps, host.tree, host.frames, a[0], a[1], a[2], a[3], done);
      case 'replaceWith':
        return o.replaceWith(a[0], a[1], a[2], done);
      case 'ingestBegin':
        return ingests.begin(a[0], done);
      case 'ingestDecide':
        return ingests.decide(a[0], done);
      case 'ingestWritten':
        return ingests.written(a[0], a[1], a[2], done);
      case 'ingestSkip':
        return ingests.skip(a[0], a[1], done);
      case 'ingestFinish':
        return ingests.finish(a[0], a[1], a[2], done);
      case 'ingestAbort':
        return ingests.abort(a[0], done);
      case 'attach':
        return o.attaching.attach(a[0], a[1], done);
      case 'detach':
        return o.attaching.detach(a[0], done);
      case 'bar':
        return done(null, o.attaching.bar(a[0], a[1]));
      case 'writersOf':
        return done(null, host.registry.byFullName(a[0])?.writers ?? 0);
      case 'open':
        return o.open(a[0], a[1] ?? 'write', done);
      case 'release':
        host.handles.release(a[0], a[1] !== true);
        return done(null);
      case 'nodeLookup':
        return done(null, nodes.lookup(a[0], a[1]));
      case 'node':
        return done(null, nodes.node(a[0]));
      case 'nodeList':
        return done(null, nodes.list(a[0], a[1], a[2]));
      case 'nodeRoots':
        return done(null, nodes.roots(a[0], a[1]));
      case 'nodeCreate':
        return o.createVolume({ name: a[0], size: 0 }, (error) => done(error), 0);
      case 'nodeResize':
        return o.resize(nodes.node(a[0]).fullName, a[1], (error) => done(error), { least: 0, writing: true });
      case 'nodeGrow':
        return o.resize(nodes.node(a[0]).fullName, a[1], (error) => done(error), { lazily: true, writing: true });
      case 'nodeFill':
        return fills.fill(a[0], a[1], a[2], a[3], done);
      case 'nodeClear':
        return fills.clear(a[0], a[1], done);
      case 'nodeTake':
        return fills.take(a[0], a[1], done);
      case 'handleOf': {
        const r = host.registry.byFullName(a[0]);
        return done(null, r === undefined ? -1 : r.handle);
      }
      case 'commitMeta':
        return host.commits.sendLoose(host.commits.newBatch(), (error) =>
          done(error === null ? null : new EngineError('IO', error.message)),
        );
      case 'flushAll':
        return host.flushAll(() => done(null));
      case 'close':
        return host.close(() => done(null));
      default:
        return done(new EngineError('UNSUPPORTED', `unknown operation ${request.op}`));
    }
  }

  /** Volumes or snapshots with ids above `after`; `next`: what the page behind it comes after, null none. */
  #page(kind: number, after: number): ListPage<VolumeInfo | SnapshotInfo> {
    const { reader, registry, steps } = this.host;
    const ids = reader.resourceIdsAfter(kind, after, LIST_PAGE);
    const infos: (VolumeInfo | SnapshotInfo)[] = [];
    for (const id of ids) {
      const r = registry.get(id);
      if (r === undefined || r.dead) continue;
      infos.push(kind === KIND_VOLUME ? steps.views.volume(r) : steps.views.snapshot(r));
    }
    return { infos, next: ids.length < LIST_PAGE ? null : (ids[ids.length - 1] as number) };
  }

  #list(kind: number): Resource[] {
    const found: Resource[] = [];
    for (const id of this.host.reader.resourceIds(kind)) {
      const r = this.host.registry.get(id);
      if (r !== undefined && !r.dead) found.push(r);
    }
    return found;
  }
}
