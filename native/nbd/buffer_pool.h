// Buffers that requests and replies of one reactor's connections live in. All have one size, so that none is ever too
// small or wasted; payloads larger than a piece pass through several. One pool per reactor, used by its thread only: no
// lock.
#pragma once
#include <cstddef>
#include <cstdint>

#include "io/idle_stack.h"

namespace atoll_native::nbd {

// The piece in which large requests are served: two of them and their replies stay in a core's second-level cache.
inline constexpr uint32_t kPieceBytes = 256u << 10;
// A buffer holds a piece with its header, plus what a socket gives at once (208 KiB by default on a unix socket).
inline constexpr uint32_t kBufferBytes = 512u << 10;
// Buffers of one reactor that may be taken beyond the two that each connection has a right to (256 MiB).
inline constexpr uint32_t kBuffersSharedMax = 512;
// Free buffers that keep their memory; others give it back to the system.
inline constexpr uint32_t kBuffersWarmMax = 64;
// So do those that were free all the time for so long.
inline constexpr uint64_t kBufferIdleNs = 10'000'000'000;

/// A piece of memory with a bump pointer. Users that outlive the moment count in `references`; the owner resets it when
/// none is left.
struct Buffer {
  uint8_t* data = nullptr;  // kBufferBytes, page aligned
  uint32_t begin = 0;       // input: first byte not parsed
  uint32_t end = 0;         // first free byte
  uint32_t references = 0;  // requests on their way and replies not yet sent
  bool shared = false;      // counts against kBuffersSharedMax
  Buffer* next = nullptr;
};

class BufferPool {
 public:
  BufferPool() = default;
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// One of the two that a connection has a right to (their number is bounded by the limit on connections). nullptr:
  /// out of memory.
  Buffer* take_own();
  /// One more; nullptr when kBuffersSharedMax are taken: go on with what you have.
  Buffer* take_shared();
  void give(Buffer* buffer);
  /// Called now and then with the time: every kBufferIdleNs, buffers that were not needed since the last time go.
  void age(uint64_t now_ns) {
    if (now_ns < look_ns_) return;
    look_ns_ = now_ns + kBufferIdleNs;
    free_.release_unneeded(release);
  }

  uint32_t taken() const { return taken_; }
  uint32_t warm() const { return free_.count(); }

 private:
  Buffer* take(bool shared);
  static void release(Buffer* buffer);

  IdleStack<Buffer> free_;
  uint64_t look_ns_ = 0;
  uint32_t shared_taken_ = 0;
  uint32_t taken_ = 0;
};

/// What one connection holds of its reactor's pool, within its own limit.
class BufferAccount {
 public:
  BufferAccount(BufferPool& pool, uint64_t bytes_max) : pool_(pool), held_max_(bytes_max / kBufferBytes) {}

  /// One of the two that are the connection's right: the caller has none of this kind.
  Buffer* take_own() { return count(pool_.take_own()); }
  /// One more; nullptr at this connection's or the pool's limit.
  Buffer* take_shared() { return held_ < held_max_ ? count(pool_.take_shared()) : nullptr; }
  void give(Buffer* buffer) {
    held_--;
    pool_.give(buffer);
  }
  uint64_t held_bytes() const { return uint64_t{held_} * kBufferBytes; }

 private:
  Buffer* count(Buffer* buffer) {
    if (buffer != nullptr) held_++;
    return buffer;
  }

  BufferPool& pool_;
  uint64_t held_max_;
  uint32_t held_ = 0;
};

}  // namespace atoll_native::nbd
