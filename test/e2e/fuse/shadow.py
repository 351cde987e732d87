"""shadow.py FILE SNAPSHOTS SHADOW STEPS SEED

Does the same to FILE, a volume of a mount, and to SHADOW, a file of another file system, step by step, and compares: reads,
writes, O_DIRECT, truncation, holes, zeroes, mmap, SEEK_DATA and SEEK_HOLE, copies within the file, closing and opening, and
snapshots in the folder SNAPSHOTS, which must hold what the file held. Prints how often it did what, as JSON.
"""
import ctypes, json, mmap, os, random, sys

path, snapshots, shadow, steps, seed = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
KEEP_SIZE, PUNCH, ZERO = 1, 3, 0x10
SECTOR, PAGE, MOST, LENGTH = 512, 4096, 4 << 20, 200_000
ENXIO, EBUSY = 6, 16
r = random.Random(seed)
fd = os.open(path, os.O_CREAT | os.O_RDWR)
direct = os.open(path, os.O_RDWR | os.O_DIRECT)
fs = os.open(shadow, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
done = {}
kept = {}  # snapshots that are there: what they hold


def fallocate(to, mode, at, n):
    if libc.fallocate(to, mode, at, n) != 0:
        raise OSError(ctypes.get_errno(), 'fallocate')


def up(n, to=SECTOR):
    return (n + to - 1) // to * to


def same(at, n, of=fd):
    a, b = os.pread(of, n, at), os.pread(fs, n, at)
    if a != b:
        first = next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), min(len(a), len(b)))
        sys.exit(f'seed {seed}, step {step}: {at}+{n} differs at {at + first}, lengths {len(a)} and {len(b)}')


def check(true, what):
    if not true:
        sys.exit(f'seed {seed}, step {step}: {what}')


def write(at, n, to):
    """Beyond the end the size is rounded up, with zeroes."""
    n = min(n, MOST - at)
    if n <= 0:
        return
    data = r.randbytes(n)
    if to == direct:
        area = mmap.mmap(-1, n)
        area[:] = data
        check(os.pwritev(direct, [area], at) == n, 'a short write')
    else:
        check(os.pwrite(to, data, at) == n, 'a short write')
    os.pwrite(fs, data, at)
    if os.fstat(fs).st_size % SECTOR:
        os.ftruncate(fs, up(os.fstat(fs).st_size))


def step_of(what, at, n, size):
    global fd
    if what == 'write':
        write(at, n, fd)
    elif what == 'append':
        write(size, n, fd)
    elif what == 'direct write':
        write(at // PAGE * PAGE, up(n, PAGE), direct)
    elif what == 'read':
        same(at, n)
    elif what == 'direct read':
        area = mmap.mmap(-1, up(n, PAGE))
        at = at // PAGE * PAGE
        got = os.preadv(direct, [area], at)
        check(area[:got] == os.pread(fs, len(area), at), f'a direct read at {at}')
    elif what == 'truncate':
        to = at // SECTOR * SECTOR
        try:
            os.ftruncate(fd, to)
        except OSError as e:
            check(e.errno == EBUSY and any(len(bytes_) > to for bytes_ in kept.values()), f'truncated to {to}: {e}')
            return
        check(all(len(bytes_) <= to for bytes_ in kept.values()), 'it is shorter than a snapshot of it')
        os.ftruncate(fs, to)
    elif what == 'punch':
        fallocate(fd, PUNCH, at, n)
        fallocate(fs, PUNCH, at, n)
    elif what == 'zero':
        fallocate(fd, ZERO | KEEP_SIZE, at, n)
        fallocate(fs, PUNCH, at, n)
    elif what == 'zero and grow' and at < MOST - n:
        fallocate(fd, ZERO, at, n)
        fallocate(fs, PUNCH, at, n)
        if at + n > size:
            os.ftruncate(fs, up(at + n))
    elif what == 'mmap' and size > 8192:
        with mmap.mmap(fd, size) as m:
            at %= size
            n = min(n, size - at)
            check(m[at:at + n] == os.pread(fs, n, at), f'mmap at {at}+{n}')
            data = r.randbytes(n)
            m[at:at + n] = data
            m.flush()
            os.pwrite(fs, data, at)
    elif what == 'copy' and size > 0:
        at, to = at % size, r.randrange(MOST)
        n = min(n, size - at, MOST - to, abs(to - at))
        if n > 0:
            data = os.pread(fs, n, at)
            check(os.copy_file_range(fd, fd, n, at, to) == n, 'a short copy')
            os.pwrite(fs, data, to)
            os.ftruncate(fs, up(os.fstat(fs).st_size))
    elif what == 'sync':
        os.fsync(fd)
    elif what == 'open':
        os.close(fd)
        fd = os.open(path, os.O_RDWR)
    elif what == 'seek' and at < size:
        try:
            data = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as e:
            check(e.errno == ENXIO, f'SEEK_DATA: {e}')
            data = size
        check(data >= at and not any(os.pread(fs, data - at, at)), f'there is data in front of {data}')
        hole = os.lseek(fd, at, os.SEEK_HOLE)
        check(at <= hole <= size, f'SEEK_HOLE {hole}')
    elif what == 'snapshot' and size > 0:
        if len(kept) < 3:
            name = f'{snapshots}/s{step}'
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            kept[name] = os.pread(fs, MOST, 0)
        else:
            name = r.choice(sorted(kept))
            with open(name, 'rb') as f:
                check(f.read() == kept.pop(name), f'{name} does not hold what was there')
            os.unlink(name)


STEPS = ['write', 'write', 'append', 'direct write', 'read', 'read', 'direct read', 'truncate', 'punch', 'zero',
         'zero and grow', 'mmap', 'copy', 'sync', 'open', 'seek', 'snapshot']
for step in range(steps):
    size = os.fstat(fs).st_size
    check(os.fstat(fd).st_size == size, f'the size is {os.fstat(fd).st_size} and not {size}')
    what = r.choice(STEPS)
    step_of(what, r.randrange(MOST), r.randrange(1, LENGTH), size)
    done[what] = done.get(what, 0) + 1
    if step % 64 == 0:
        same(0, MOST)
os.fsync(fd)
os.close(direct)
os.close(fd)
fd = os.open(path, os.O_RDONLY)
same(0, MOST)
for name, bytes_ in kept.items():
    with open(name, 'rb') as f:
        check(f.read() == bytes_, f'{name} does not hold what was there')
    os.unlink(name)
print(json.dumps(done))
