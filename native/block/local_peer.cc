#include "block/local_peer.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/async_io.h"
#include "io/full_io.h"

namespace atoll_native {

namespace {

/// What is written where no system call zeroes; never changed (not const, so that it takes no room in the binary).
/// Aligned, for direct pools.
const uint8_t* zeroes() {
  alignas(AlignedBuffer::kAlignment) static uint8_t zero_bytes[LocalPeer::kPieceBytes];
  return zero_bytes;
}

/// Where the file system or device does not know an operation, as opposed to failing it.
bool unknown_operation(int result) { return result == -EOPNOTSUPP || result == -ENOSYS || result == -EINVAL; }

/// 1 when all of [offset, offset+length) is in the page cache, 0 when not, -errno where the kernel does not say (Linux
/// before 6.5).
int is_cached(int fd, uint64_t offset, uint64_t length) {
  // linux/mman.h has these only from 6.5 on.
  constexpr long kCachestat = 451;  // on all architectures
  struct {
    uint64_t offset, length;
  } const asked = {offset, length};
  struct {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
  } pages = {};
  static const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (syscall(kCachestat, fd, &asked, &pages, 0) != 0) return -errno;
  return pages.cached == (offset + length - 1) / page - offset / page + 1 ? 1 : 0;
}

int allocate(int fd, int mode, uint64_t offset, uint64_t length) {
  while (fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
    if (errno != EINTR) return -errno;
  }
  return 0;
}

}  // namespace

std::shared_ptr<BlockPeer> LocalPeer::open(const PoolSpec& spec, std::string* message, int* error_number) {
  std::unique_ptr<PoolFiles> files = PoolFiles::open(spec, message, error_number);
  if (files == nullptr) return nullptr;
  return std::shared_ptr<BlockPeer>(new LocalPeer(std::move(files)));
}

LocalPeer::LocalPeer(std::unique_ptr<PoolFiles> files)
    : files_(std::move(files)), lends_(files_->holes_replace_pages()) {
  if (files_->direct()) {
    direct_ = std::make_unique<DirectIo>(this, files_->offset_alignment(), files_->memory_alignment(), latch_);
  }
}

BlockCapabilities LocalPeer::capabilities() const {
  return {
      .persistent = true,
      .zero_is_hole = files_->kind() != PoolSpec::Kind::kDevice && !files_->preallocated(),
      .direct = files_->direct(),
      .alignment = std::max(files_->offset_alignment(), files_->memory_alignment()),
  };
}

// ---------------------------------------------------------------- inline

int LocalPeer::read_now(uint64_t address, uint8_t* buffer, uint32_t length) {
  if (!files_->inside_a_file(address, length)) return -EINVAL;
  if (direct_ != nullptr || !nowait_works_.load(std::memory_order_relaxed)) return -EAGAIN;
  const int fd = files_->descriptor_now(files_->file_of(address));
  if (fd < 0) return fd;
  uint64_t offset = files_->offset_of(address);
  while (length > 0) {
    const iovec vec = {buffer, length};
    const ssize_t got = preadv2(fd, &vec, 1, static_cast<off_t>(offset), RWF_NOWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EOPNOTSUPP) return -errno;
      nowait_works_.store(false, std::memory_order_relaxed);
      return -EAGAIN;
    }
    // The end of the file, or (Linux 5.9 and 5.10) nothing that can be had without waiting.
    if (got == 0) return -EAGAIN;
    buffer += got;
    offset += static_cast<uint64_t>(got);
    length -= static_cast<uint32_t>(got);
  }
  return 0;
}

bool LocalPeer::lend(uint64_t address, uint64_t length, FileRange* range) {
  if (!lends_.load(std::memory_order_relaxed) || !files_->inside_a_file(address, length)) return false;
  const int fd = files_->descriptor_now(files_->file_of(address));
  if (fd < 0) return false;
  *range = {fd, files_->offset_of(address)};
  const int cached = is_cached(fd, range->offset, length);
  if (cached < 0) lends_.store(false, std::memory_order_relaxed);
  return cached > 0;
}

int LocalPeer::write_now(uint64_t address, const uint8_t* buffer, uint32_t length) {
  if (!files_->inside_a_file(address, length)) return -EINVAL;
  if (latch_.failed()) return -EIO;
  if (direct_ != nullptr) return -EAGAIN;
  const uint32_t file = files_->file_of(address);
  const int fd = files_->descriptor_now(file);
  if (fd < 0) return fd;
  SlowGate& gate = files_->gate(file);
  const uint64_t start = monotonic_ns();
  if (!gate.open(start)) return -EAGAIN;
  const int result = write_cached(fd, buffer, length, files_->offset_of(address));
  gate.report(start, monotonic_ns(), length);
  return latch_.after_write(result);
}

// ---------------------------------------------------------------- asynchronous

void LocalPeer::submit(BlockIo* io, AsyncIo& async) {
  const bool changes = io->op != BlockOp::kRead;
  if (changes && latch_.failed()) {
    async.complete(io, EIO);
    return;
  }
  io->peer = this;
  switch (io->op) {
    case BlockOp::kRead:
    case BlockOp::kWrite:
    case BlockOp::kWriteDurable:
      submit_transfer(io, async);
      return;
    case BlockOp::kCopy:
    case BlockOp::kZero:
      submit_changed(io, async);
      return;
    case BlockOp::kSync:
      async.run_blocking(this, IoClass::kSync, io, work);
      return;
  }
}

void LocalPeer::submit_transfer(BlockIo* io, AsyncIo& async) {
  if (!files_->inside_a_file(io->address, io->length) || io->length > kTransferMax) {
    async.complete(io, EINVAL);
    return;
  }
  const uint32_t file = files_->file_of(io->address);
  const bool durable = io->op == BlockOp::kWriteDurable;
  if (durable && direct_ == nullptr) {
    async.run_blocking(this, IoClass::kIo, io, durable_work, write_ended);
    return;
  }
  const int fd = durable ? files_->durable_descriptor_now(file) : files_->descriptor_now(file);
  if (fd == -EAGAIN) {
    async.run_blocking(this, IoClass::kIo, io, open_work, opened);
  } else if (fd < 0) {
    async.complete(io, -fd);
  } else {
    start_transfer(fd, io, async);
  }
}

int LocalPeer::open_work(BlockIo* io) {
  PoolFiles& files = *static_cast<LocalPeer*>(io->peer)->files_;
  const uint32_t file = files.file_of(io->address);
  const int fd = io->op == BlockOp::kWriteDurable ? files.durable_descriptor(file) : files.descriptor(file);
  return std::min(fd, 0);
}

int LocalPeer::durable_work(BlockIo* io) {
  PoolFiles& files = *static_cast<LocalPeer*>(io->peer)->files_;
  const uint32_t file = files.file_of(io->address);
  const int fd = files.take_durable(file);
  if (fd < 0) return fd;
  const int result = write_full(fd, io->buffer, io->length, files.offset_of(io->address), RWF_DSYNC);
  files.give_durable(file, fd);
  return result;
}

void LocalPeer::opened(BlockIo* io, AsyncIo& async) {
  if (io->error != 0) {
    async.finish(io, io->error);
  } else {
    static_cast<LocalPeer*>(io->peer)->submit_transfer(io, async);
  }
}

void LocalPeer::start_transfer(int fd, BlockIo* io, AsyncIo& async) {
  const uint64_t offset = files_->offset_of(io->address);
  const bool read = io->op == BlockOp::kRead;
  if (direct_ != nullptr) {
    if (read) {
      direct_->read(fd, offset, io, async);
    } else {
      direct_->write(fd, offset, io, async);
    }
    return;
  }
  const auto length = static_cast<uint32_t>(io->length);
  if (read) {
    // To io_uring: cold 4 KiB reads at depth 32 are as many as 8 to 16 threads read (30 thousand a second), for 8 us of
    // processor time each instead of 12 to 28.
    async.read(this, fd, offset, io->buffer, length, io);
    return;
  }
  // Not to io_uring: the kernel hands buffered writes to threads of its own, and ours are faster (random 4 KiB at depth
  // 32, medians: 118 thousand a second on 4 threads, 34 thousand through io_uring; 64 KiB: alike) and bounded.
  async.write_on_thread(this, fd, offset, io->buffer, length, io, write_ended);
}

void LocalPeer::write_ended(BlockIo* io, AsyncIo& async) {
  static_cast<LocalPeer*>(io->peer)->latch_.after_write(-io->error);
  async.finish(io, io->error);
}

void LocalPeer::submit_changed(BlockIo* io, AsyncIo& async) {
  const bool copy = io->op == BlockOp::kCopy;
  if (!files_->inside_a_file(io->address, io->length) || (copy && !files_->inside_a_file(io->source, io->length))) {
    async.complete(io, EINVAL);
    return;
  }
  const IoClass io_class = copy ? IoClass::kIo : IoClass::kZero;
  if (direct_ != nullptr) {
    direct_->change(io, async, io_class, work);
  } else {
    async.run_blocking(this, io_class, io, work);
  }
}

int LocalPeer::work(BlockIo* io) {
  auto* peer = static_cast<LocalPeer*>(io->peer);
  switch (io->op) {
    case BlockOp::kSync:
      return peer->sync_now(io->file);
    case BlockOp::kCopy:
      return peer->copy(io->address, io->source, io->length);
    default:
      return peer->zero_locked(io->address, io->length);
  }
}

// ---------------------------------------------------------------- blocking

int LocalPeer::sync_now(uint32_t file) {
  if (latch_.failed()) return -EIO;
  const int fd = files_->descriptor(file);
  // Not being able to say that a file is durable is a failed sync, whatever the cause.
  if (fd < 0) return latch_.after_sync(fd);
  return syncs_.of(file).run(latch_, [this, fd] {
    sync_clock_.began(monotonic_ns());
    int result = 0;
    while (result == 0 && fdatasync(fd) != 0) {
      if (errno != EINTR) result = -errno;
    }
    sync_clock_.ended();
    return result;
  });
}

int LocalPeer::ensure_file(uint32_t file) {
  if (latch_.failed()) return -EIO;
  // One at a time with the syncs of the file, which may be written to already (file_sync.h).
  return files_->ensure(file, [this, file](int fd) {
    return syncs_.of(file).run_this(latch_, [fd] { return fsync(fd) == 0 ? 0 : -errno; });
  });
}

int LocalPeer::grow(uint64_t bytes) {
  const uint64_t before = files_->declare(bytes);
  if (files_->kind() != PoolSpec::Kind::kFile || !files_->preallocated()) return 0;
  const int result = ensure_file(0);
  if (result < 0) files_->declare(before);
  return result;
}

int LocalPeer::copy(uint64_t target, uint64_t source, uint64_t length) {
  const int from = files_->descriptor(files_->file_of(source));
  const int to = files_->descriptor(files_->file_of(target));
  if (from < 0) return from;
  if (to < 0) return to;
  uint64_t read_at = files_->offset_of(source);
  uint64_t write_at = files_->offset_of(target);
  thread_local AlignedBuffer buffer(kPieceBytes);
  const bool aligned = ((read_at | write_at | length) & (files_->offset_alignment() - 1)) == 0;
  while (length > 0) {
    const uint64_t piece = std::min(length, kPieceBytes);
    int result;
    if (direct_ != nullptr && !aligned) {
      result = direct_->read_blocking(from, read_at, buffer.data(), piece);
      if (result == 0) result = direct_->write_blocking(to, write_at, buffer.data(), piece, 0);
    } else {
      result = read_full(from, buffer.data(), piece, read_at);
      if (result == 0) result = latch_.after_write(write_whole(to, buffer.data(), piece, write_at));
    }
    if (result < 0) return result;
    read_at += piece;
    write_at += piece;
    length -= piece;
  }
  return 0;
}

/// What may be written as it is, whichever way the pool writes.
int LocalPeer::write_whole(int fd, const uint8_t* buffer, uint64_t length, uint64_t offset) const {
  return direct_ == nullptr ? write_cached(fd, buffer, length, offset) : write_full(fd, buffer, length, offset);
}

int LocalPeer::zero_now(uint64_t address, uint64_t length) {
  if (!files_->inside_a_file(address, length)) return -EINVAL;
  if (direct_ == nullptr) return zero_locked(address, length);
  RangeHold hold;
  direct_->hold_blocking(&hold, address, length);
  const int result = zero_locked(address, length);
  direct_->release(&hold);
  return result;
}

int LocalPeer::zero_locked(uint64_t address, uint64_t length) {
  if (latch_.failed()) return -EIO;
  const int fd = files_->descriptor(files_->file_of(address));
  if (fd < 0) return fd;
  if (length == 0) return 0;
  return zero_range(fd, files_->offset_of(address), length);
}

int LocalPeer::zero_range(int fd, uint64_t offset, uint64_t length) {
  constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  constexpr int kZero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  int result = -EOPNOTSUPP;
  // On a block device this one gives space back only where the device promises zeroes for it; it is no discard
  // (FALLOC_FL_NO_HIDE_STALE), whose result nobody promises.
  if (!files_->preallocated()) result = allocate(fd, kPunch, offset, length);
  if (result != 0) lends_.store(false, std::memory_order_relaxed);  // what follows may keep the slot's pages
  if (unknown_operation(result)) result = allocate(fd, kZero, offset, length);
  if (unknown_operation(result)) return write_zeroes(fd, offset, length);
  return latch_.after_write(result);
}

int LocalPeer::write_zeroes(int fd, uint64_t offset, uint64_t length) {
  while (length > 0) {
    // Pieces after the first begin on a piece's border, so that in a direct pool only the edges are part of a sector.
    const uint64_t piece = std::min(length, kPieceBytes - offset % kPieceBytes);
    const bool aligned = ((offset | piece) & (files_->offset_alignment() - 1)) == 0;
    const int result = aligned ? latch_.after_write(write_whole(fd, zeroes(), piece, offset))
                               : direct_->write_blocking(fd, offset, zeroes(), piece, 0);
    if (result < 0) return result;
    offset += piece;
    length -= piece;
  }
  return 0;
}

}  // namespace atoll_native
