/**
 * What the kernel says about a process: CPU time and memory, from /proc.
 */
import fs from 'node:fs';

/** USER_HZ, which is 100 on every Linux that Node runs on (it is part of the ABI of /proc). */
const TICKS_PER_SECOND = 100;

/** Seconds of user and system time of all threads of `pid`, ended threads included. */
export function cpuSeconds(pid: number): number {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The command's name is in parentheses and may hold spaces: fields are counted from behind it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const utime = Number(fields[11]);
  const stime = Number(fields[12]);
  return (utime + stime) / TICKS_PER_SECOND;
}

export interface Memory {
  /** all resident pages, shared memory included */
  rssBytes: number;
  /** the part that is anonymous memory: heaps and stacks */
  anonBytes: number;
  /** the part that is shared memory: the segment with the map cache */
  sharedBytes: number;
}

export function memory(pid: number): Memory {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1024;
  return { rssBytes: field('VmRSS'), anonBytes: field('RssAnon'), sharedBytes: field('RssShmem') };
}

/** Memory of a process, of what it shares its share: those of several add up. */
export function proportionalBytes(pid: number): number {
  const text = fs.readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1] ?? 0) * 1024;
}

export interface MachineTime {
  /** seconds of all processors since the start, idle ones included */
  total: number;
  /** of them: those in which the host ran something else though this machine had work (proc(5), `steal`) */
  stolen: number;
}

export function machineTime(): MachineTime {
  const [, ...fields] = fs.readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!.split(/ +/);
  // user nice system idle iowait irq softirq steal; guest time is part of user's
  const ticks = fields.slice(0, 8).map(Number);
  return { total: ticks.reduce((sum, n) => sum + n, 0) / TICKS_PER_SECOND, stolen: ticks[7]! / TICKS_PER_SECOND };
}

/** Facts about the machine that a reader of the report needs. */
export function machine(dir: string): Record<string, string> {
  const cpuinfo = fs.readFileSync('/proc/cpuinfo', 'utf8');
  const meminfo = fs.readFileSync('/proc/meminfo', 'utf8');
  const kib = Number(/^MemTotal:\s+(\d+)/m.exec(meminfo)?.[1] ?? 0);
  return {
    cpu: /^model name\s*:\s*(.*)$/m.exec(cpuinfo)?.[1] ?? 'unknown',
    cpus: String((cpuinfo.match(/^processor\s*:/gm) ?? []).length),
    memory: `${(kib / 2 ** 20).toFixed(1)} GiB`,
    kernel: fs.readFileSync('/proc/sys/kernel/osrelease', 'utf8').trim(),
    node: process.version,
    fileSystem: fileSystemOf(dir),
  };
}

/** Type of the file system that `dir` lies on, such as ext4. */
export function fileSystemOf(dir: string): string {
  const real = fs.realpathSync(dir);
  let best = { at: '', type: 'unknown' };
  for (const line of fs.readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
    const [, at, type] = line.split(' ');
    if (!at || !type) continue;
    const below = at === '/' || real === at || real.startsWith(`${at}/`);
    // Later mounts hide earlier ones on the same place.
    if (below && at.length >= best.at.length) best = { at, type };
  }
  return best.type;
}

/** Drops clean pages, dentries and inodes; false where that is not allowed. Write dirty pages back first. */
export function dropCaches(): boolean {
  try {
    fs.writeFileSync('/proc/sys/vm/drop_caches', '3\n');
    return true;
  } catch {
    return false;
  }
}
