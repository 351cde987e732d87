/** The guard against waiting for memory that only the daemon can free (docs/fuse.md, "A machine's own disks"). */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { CHECKOUT } from '../../../bench/daemon.ts';
import { Mounted, missing } from '../lib/mounted.ts';

const CAP_SYS_RESOURCE = 24n;
/** what PR_SET_IO_FLUSHER sets: PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE */
const IO_FLUSHER = 0x0008_0000 | 0x0010_0000;

const capabilities = BigInt(`0x${/^CapEff:\s*(\w+)/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))?.[1]}`);
const permitted = ((capabilities >> CAP_SYS_RESOURCE) & 1n) === 1n;
if (!permitted)
  console.warn('CAP_SYS_RESOURCE is missing: that threads are IO flushers is not tested, only that it is said');

/** Names of a process's threads that may wait for memory that is freed by writing. */
function waiting(pid: number): string[] {
  const found: string[] = [];
  for (const thread of fs.readdirSync(`/proc/${pid}/task`)) {
    const stat = fs.readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8');
    const end = stat.lastIndexOf(')');
    // flags is the 9th field; the name is the 2nd
    const flags = Number(stat.slice(end + 2).split(' ')[6]);
    if ((flags & IO_FLUSHER) !== IO_FLUSHER) found.push(stat.slice(stat.indexOf('(') + 1, end));
  }
  return found;
}

describe.skipIf(missing !== null)('a daemon with a mount', () => {
  const m = new Mounted();
  beforeAll(() => m.start());
  afterAll(() => m.end());

  it.skipIf(!permitted)('has only threads that do not wait for memory', async () => {
    await m.run('dd', 'if=/dev/zero', `of=${m.at('volumes/v')}`, 'bs=1M', 'count=4', 'conv=fsync');
    expect(waiting(m.daemon.pid)).toEqual([]);
    expect(fs.readFileSync(m.daemon.log, 'utf8')).not.toContain('io_flusher');
  });

  it('says once when that is not permitted', async () => {
    // the bounding set is what root has after the next execve
    const without = ['--bounding-set', '-sys_resource', '--inh-caps', '-sys_resource'];
    const home = m.world.file('without');
    const shell = `exec setpriv ${permitted ? without.join(' ') : '--nnp'} "$0" serve --home "$1"`;
    const child = m.world.children.spawn('sh', ['-c', shell, path.join(CHECKOUT, 'bin/atoll'), home], {
      stdio: ['ignore', 'ignore', fs.openSync(`${home}.log`, 'a')],
    });
    const atoll = (...argv: string[]) =>
      spawnSync(path.join(CHECKOUT, 'bin/atoll'), [...argv, '--home', home], { encoding: 'utf8' });
    await m.until('it serves', async () => atoll('status').status === 0);
    for (const name of ['one', 'two']) expect(atoll('mount', m.folder(name)).status).toBe(0);
    const said = fs.readFileSync(`${home}.log`, 'utf8').match(/mount\.io_flusher.*CAP_SYS_RESOURCE is missing/g);
    expect(said).toHaveLength(1);
    expect(waiting(child.pid).length).toBeGreaterThan(0);
    await child.stop();
  });
});
