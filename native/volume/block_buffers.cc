#include "volume/block_buffers.h"

#include <sys/mman.h>

#include <new>

namespace atoll_native {

BlockBuffers::~BlockBuffers() {
  for (uint32_t shift = kShiftMin; shift <= kShiftMax; shift++) {
    while (Idle* const idle = idle_[shift].pop()) munmap(idle, size_t{1} << shift);
  }
}

void BlockBuffers::release_unneeded() {
  for (uint32_t shift = kShiftMin; shift <= kShiftMax; shift++) {
    const size_t bytes = size_t{1} << shift;
    idle_[shift].release_unneeded([&](Idle* idle) {
      munmap(idle, bytes);
      idle_bytes_ -= bytes;
    });
  }
}

uint8_t* BlockBuffers::take(uint32_t shift) {
  const uint64_t bytes = uint64_t{1} << shift;
  if (in_use_ + bytes > kBytesMax) return nullptr;
  void* buffer = idle_[shift].pop();
  if (buffer != nullptr) {
    idle_bytes_ -= bytes;
  } else {
    // Mapped, not allocated: as many as ever were in use at once would stay in the C library's heap, with what is small
    // settled between them.
    buffer = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED) return nullptr;
  }
  in_use_ += bytes;
  return static_cast<uint8_t*>(buffer);
}

void BlockBuffers::give(uint8_t* buffer, uint32_t shift) {
  const uint64_t bytes = uint64_t{1} << shift;
  in_use_ -= bytes;
  if (idle_bytes_ + bytes > kIdleBytesMax) {
    munmap(buffer, bytes);
    return;
  }
  idle_[shift].push(new (buffer) Idle{nullptr});
  idle_bytes_ += bytes;
}

}  // namespace atoll_native
