/** What the NBD server asks of the engine, and what it gives back: the server itself is faked. */
import { describe, expect, it } from 'vitest';
import { CHANGED_SINCE, Exports } from '../../src/xseg/exports.ts';
import type { Native, NbdEvents } from '../../src/xseg/native.ts';
import { type Engine, EngineError, type OpenHandle, type VolumeInfo } from '../../src/xseg/types.ts';

interface Answer {
  error: number;
  contexts: { name: string; handle: number }[];
}

/** An engine with volume `v`, whose snapshots are what `open` knows. */
function serve(open: (name: string) => number) {
  const released: number[] = [];
  const engine: Partial<Engine> = {
    showVolume: async (name) => ({ name }) as VolumeInfo,
    open: async (name) => ({ handle: open(name) }) as OpenHandle,
    release: async (handle) => void released.push(handle),
  };
  let events: NbdEvents | undefined;
  const answers: Answer[] = [];
  const native: Partial<Native> = {
    nbdStart: (_core, given) => {
      events = given;
    },
    nbdListen: (_core, address) => ({ id: 1, address }),
    nbdAnswerContexts: (_core, _token, answer) => void answers.push(answer),
  };
  new Exports(native as Native, 0, engine as Engine, () => undefined).listen('unix:/nowhere');
  const ask = async (...queries: string[]) => {
    (events as NbdEvents).contexts(1, 'v', queries, false);
    await new Promise((resolve) => setImmediate(resolve));
    return answers[0];
  };
  return { ask, released };
}

describe('metadata contexts that a connection chooses', () => {
  it('are all given back when one of them cannot be opened', async () => {
    const { ask, released } = serve((name) => {
      if (name === 'v@busy') throw new EngineError('BUSY', 'no handle is free');
      return name === 'v@a' ? 7 : 8;
    });
    const answer = await ask('base:allocation', `${CHANGED_SINCE}a`, `${CHANGED_SINCE}b`, `${CHANGED_SINCE}busy`);
    expect(answer).toEqual({ error: 16, contexts: [] });
    expect(released).toEqual([7, 8]);
  });
});
