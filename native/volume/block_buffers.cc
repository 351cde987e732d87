#include "volume/block_buffers.h"

#include <cstdlib>
#include <new>

namespace atoll_native {

BlockBuffers::~BlockBuffers() {
  for (Idle* head : idle_) {
    while (head != nullptr) {
      Idle* const next = head->next;
      std::free(head);
      head = next;
    }
  }
}

uint8_t* BlockBuffers::take(uint32_t shift) {
  const uint64_t bytes = uint64_t{1} << shift;
  if (in_use_ + bytes > kBytesMax) return nullptr;
  Idle* const idle = idle_[shift];
  void* buffer = idle;
  if (idle != nullptr) {
    idle_[shift] = idle->next;
    idle_bytes_ -= bytes;
  } else {
    buffer = std::aligned_alloc(kAlignment, bytes);
    if (buffer == nullptr) return nullptr;
  }
  in_use_ += bytes;
  return static_cast<uint8_t*>(buffer);
}

void BlockBuffers::give(uint8_t* buffer, uint32_t shift) {
  const uint64_t bytes = uint64_t{1} << shift;
  in_use_ -= bytes;
  if (idle_bytes_ + bytes > kIdleBytesMax) {
    std::free(buffer);
    return;
  }
  idle_[shift] = new (buffer) Idle{idle_[shift]};
  idle_bytes_ += bytes;
}

}  // namespace atoll_native
