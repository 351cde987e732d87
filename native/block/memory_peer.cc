#include "block/memory_peer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "io/async_io.h"

namespace atoll_native {

std::shared_ptr<BlockPeer> MemoryPeer::open(const PoolSpec& spec, std::string* message, int* error_number) {
  if (spec.capacity_bytes == 0) {
    *message = "a memory pool needs a declared size";
    *error_number = EINVAL;
    return nullptr;
  }
  // NORESERVE: the capacity may be far beyond what the machine has; pages come when they are written.
  void* base =
      mmap(nullptr, spec.capacity_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    *error_number = errno;
    *message = std::string("no address space for a memory pool of this size: ") + strerror(errno);
    return nullptr;
  }
  return std::shared_ptr<BlockPeer>(new MemoryPeer(static_cast<uint8_t*>(base), spec.file_span, spec.capacity_bytes));
}

MemoryPeer::~MemoryPeer() { munmap(base_, capacity_); }

int MemoryPeer::read_now(uint64_t address, uint8_t* buffer, uint32_t length) {
  if (!inside(address, length)) return -EINVAL;
  memcpy(buffer, base_ + address, length);
  return 0;
}

int MemoryPeer::write_now(uint64_t address, const uint8_t* buffer, uint32_t length) {
  if (!inside(address, length)) return -EINVAL;
  memcpy(base_ + address, buffer, length);
  return 0;
}

int MemoryPeer::zero_now(uint64_t address, uint64_t length) {
  if (!inside(address, length)) return -EINVAL;
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t end = address + length;
  const uint64_t first = std::min((address + page - 1) / page * page, end);  // whole pages: [first, last)
  const uint64_t last = std::max(end / page * page, first);
  memset(base_ + address, 0, first - address);
  if (last > first && madvise(base_ + first, last - first, MADV_DONTNEED) != 0) return -errno;
  memset(base_ + last, 0, end - last);
  return 0;
}

void MemoryPeer::submit(BlockIo* io, AsyncIo& async) {
  int result = 0;
  switch (io->op) {
    case BlockOp::kRead:
      result = read_now(io->address, io->buffer, static_cast<uint32_t>(io->length));
      break;
    case BlockOp::kWrite:
    case BlockOp::kWriteDurable:
      result = write_now(io->address, io->buffer, static_cast<uint32_t>(io->length));
      break;
    case BlockOp::kCopy:
      if (!inside(io->address, io->length) || !inside(io->source, io->length)) {
        result = -EINVAL;
      } else {
        memmove(base_ + io->address, base_ + io->source, io->length);
      }
      break;
    case BlockOp::kZero:
      result = zero_now(io->address, io->length);
      break;
    case BlockOp::kSync:
      break;
  }
  async.complete(io, -result);
}

BlockUsage MemoryPeer::usage() {
  constexpr uint64_t kPagesPerCall = 65536;
  std::lock_guard lock(usage_mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (now - usage_at_ >= kUsageAgeMax) {
    const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    std::array<unsigned char, kPagesPerCall> resident;
    uint64_t pages = 0;
    for (uint64_t at = 0; at < capacity_; at += kPagesPerCall * page) {
      const uint64_t bytes = std::min(kPagesPerCall * page, capacity_ - at);
      if (mincore(base_ + at, bytes, resident.data()) != 0) break;
      const auto count = static_cast<ptrdiff_t>((bytes + page - 1) / page);
      pages += static_cast<uint64_t>(std::count_if(resident.begin(), resident.begin() + count,
                                                   [](unsigned char bits) { return (bits & 1) != 0; }));
    }
    resident_ = pages * page;
    usage_at_ = now;
  }
  return {capacity_, resident_};
}

}  // namespace atoll_native
