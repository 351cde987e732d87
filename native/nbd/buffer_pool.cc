#include "nbd/buffer_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace atoll_native::nbd {
namespace {

void release(Buffer* buffer) {
  munmap(buffer->data, kBufferBytes);
  delete buffer;
}

}  // namespace

BufferPool::~BufferPool() {
  while (Buffer* buffer = pop()) release(buffer);
}

Buffer* BufferPool::pop() {
  Buffer* buffer = free_;
  if (buffer == nullptr) return nullptr;
  free_ = buffer->next;
  free_count_--;
  return buffer;
}

void BufferPool::release_idle(uint64_t now_ns) {
  for (uint32_t i = std::min(idle_, free_count_); i > 0; i--) release(pop());
  idle_ = free_count_;
  look_ns_ = now_ns + kBufferIdleNs;
}

Buffer* BufferPool::take(bool shared) {
  Buffer* buffer = pop();
  if (buffer != nullptr) {
    idle_ = std::min(idle_, free_count_);
  } else {
    // Mapped, not allocated: untouched pages cost nothing, so an idle or small connection never pays for the whole
    // size.
    void* data = mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return nullptr;
    buffer = new (std::nothrow) Buffer;
    if (buffer == nullptr) {
      munmap(data, kBufferBytes);
      return nullptr;
    }
    buffer->data = static_cast<uint8_t*>(data);
  }
  buffer->begin = buffer->end = buffer->references = 0;
  buffer->shared = shared;
  buffer->next = nullptr;
  taken_++;
  return buffer;
}

Buffer* BufferPool::take_own() { return take(false); }

Buffer* BufferPool::take_shared() {
  if (shared_taken_ >= kBuffersSharedMax) return nullptr;
  Buffer* buffer = take(true);
  if (buffer != nullptr) shared_taken_++;
  return buffer;
}

void BufferPool::give(Buffer* buffer) {
  if (buffer->shared) shared_taken_--;
  taken_--;
  if (free_count_ >= kBuffersWarmMax) {
    release(buffer);
    return;
  }
  buffer->next = free_;
  free_ = buffer;
  free_count_++;
}

}  // namespace atoll_native::nbd
