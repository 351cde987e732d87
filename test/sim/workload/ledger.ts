/** What those who use the daemon know together: which volumes there are, and what replies mean. */
import { EIO } from '../../../src/xseg/mapper/errors.ts';
import type { ControlReply } from '../../../src/xseg/mapper/mapper.ts';
import type { ClientRequest } from '../reactor/request.ts';
import type { Flow, Wait, World } from '../world.ts';
import { Values } from './values.ts';
import type { Volume } from './volume.ts';

const NAMES = ['ant', 'bee', 'cat', 'dog', 'elk', 'fox', 'gnu', 'hen'];

export class Ledger {
  readonly volumes: Volume[] = [];
  readonly values: Values;
  /** what has to be written down when a crash comes before an answer */
  readonly unfinished = new Map<object, () => void>();

  constructor(readonly world: World) {
    this.values = new Values(world.rng, world.profile.patterns);
  }

  /** A name that nobody has; null: all are taken. */
  freeName(): string | null {
    const taken = (name: string) => this.volumes.some((v) => v.name === name || v.otherName === name);
    const free = NAMES.filter((name) => !taken(name));
    return free.length === 0 ? null : this.world.rng.pick(free);
  }

  get anyBusy(): boolean {
    return this.volumes.some((volume) => volume.anyBusy);
  }

  /** Errors are failures, but in a life that was broken on purpose. True: there was none. */
  expect(reply: ControlReply, allowed: string[] = []): boolean {
    if (reply.error === undefined) return true;
    if (!this.world.faulty && !allowed.includes(reply.error.code))
      this.world.fail(`${reply.error.code}: ${reply.error.message}`);
    return false;
  }

  value<T>(reply: ControlReply): T {
    if (reply.error !== undefined) this.world.fail(`${reply.error.code}: ${reply.error.message}`);
    return reply.value as T;
  }

  expectErrno(request: ClientRequest, what: string): void {
    if (request.error === EIO && this.world.rotten) return;
    if (!this.world.faulty) this.world.fail(`${what} at ${request.offset}+${request.length}: errno ${request.error}`);
  }

  /** Waits for the answer of a client's request. */
  answered(reactor: number, request: ClientRequest): Wait {
    return (resume) => {
      request.done = resume as unknown as ClientRequest['done'];
      this.world.submit(reactor, request);
    };
  }

  /** A later event: any control request that changes nothing. */
  later(): Wait {
    return this.world.call('handleOf', 'nobody');
  }

  /** One wait, and nothing after it. */
  *one(wait: Wait): Flow {
    yield wait;
  }
}
