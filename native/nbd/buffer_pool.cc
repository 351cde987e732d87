#include "nbd/buffer_pool.h"

#include <sys/mman.h>

#include <new>

namespace atoll_native::nbd {

BufferPool::~BufferPool() {
  while (Buffer* buffer = free_.pop()) release(buffer);
}

void BufferPool::release(Buffer* buffer) {
  munmap(buffer->data, kBufferBytes);
  delete buffer;
}

Buffer* BufferPool::take(bool shared) {
  Buffer* buffer = free_.pop();
  if (buffer == nullptr) {
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
  if (free_.count() >= kBuffersWarmMax) {
    release(buffer);
  } else {
    free_.push(buffer);
  }
}

}  // namespace atoll_native::nbd
