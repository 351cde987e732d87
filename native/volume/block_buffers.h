// Buffers of one block each, for copying the part of a block that a first write does not cover. One per reactor, used
// by its thread only.
#pragma once
#include <array>
#include <cstdint>

#include "io/idle_stack.h"

namespace atoll_native {

class BlockBuffers {
 public:
  static constexpr uint32_t kShiftMin = 12;  // 4 KiB
  static constexpr uint32_t kShiftMax = 22;  // 4 MiB
  /// Bytes of buffers in use at once; who finds none waits for one to come back. Four of the largest blocks.
  static constexpr uint64_t kBytesMax = 16u << 20;
  /// Bytes kept for the next ones.
  static constexpr uint64_t kIdleBytesMax = 4u << 20;
  /// Of these, who was free all the time for so long gives its memory back.
  static constexpr uint64_t kIdleNs = 10'000'000'000;

  BlockBuffers() = default;
  ~BlockBuffers();
  BlockBuffers(const BlockBuffers&) = delete;
  BlockBuffers& operator=(const BlockBuffers&) = delete;

  /// 2^shift bytes in pages of their own (as O_DIRECT asks for), not cleared; null when kBytesMax are in use or there
  /// is no memory.
  uint8_t* take(uint32_t shift);
  void give(uint8_t* buffer, uint32_t shift);
  /// Called now and then with the time: every kIdleNs, buffers that were not needed since the last time go.
  void age(uint64_t now_ns) {
    if (now_ns < look_ns_) return;
    look_ns_ = now_ns + kIdleNs;
    release_unneeded();
  }
  uint64_t bytes_in_use() const { return in_use_; }
  uint64_t bytes_idle() const { return idle_bytes_; }

 private:
  struct Idle {
    Idle* next;
  };
  void release_unneeded();

  std::array<IdleStack<Idle>, kShiftMax + 1> idle_;
  uint64_t in_use_ = 0;
  uint64_t idle_bytes_ = 0;
  uint64_t look_ns_ = 0;
};

}  // namespace atoll_native
