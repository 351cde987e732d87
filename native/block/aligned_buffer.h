// Memory that O_DIRECT takes, and a bounded store of it.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

namespace atoll_native {

class AlignedBuffer {
 public:
  /// A page: no device asks for more.
  static constexpr uint64_t kAlignment = 4096;

  explicit AlignedBuffer(uint64_t bytes) : bytes_(static_cast<uint8_t*>(std::aligned_alloc(kAlignment, bytes))) {
    if (bytes_ == nullptr) abort();
  }
  ~AlignedBuffer() { std::free(bytes_); }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  uint8_t* data() const { return bytes_; }

 private:
  uint8_t* const bytes_;
};

/// Bounce buffers of one size, at most kBuffersMax, made when first wanted. Thread safe.
class BouncePool {
 public:
  static constexpr uint64_t kBufferBytes = 256 << 10;
  static constexpr uint32_t kBuffersMax = 64;

  ~BouncePool() {
    for (AlignedBuffer* buffer : free_) delete buffer;
  }
  /// Null when all are out.
  AlignedBuffer* take() {
    std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      AlignedBuffer* buffer = free_.back();
      free_.pop_back();
      return buffer;
    }
    if (made_ == kBuffersMax) return nullptr;
    made_++;
    return new AlignedBuffer(kBufferBytes);
  }
  void give(AlignedBuffer* buffer) {
    std::lock_guard lock(mutex_);
    free_.push_back(buffer);
  }

 private:
  std::mutex mutex_;
  std::vector<AlignedBuffer*> free_;
  uint32_t made_ = 0;
};

}  // namespace atoll_native
