// Buffers of one block each, for copying the part of a block that a first write does not cover. One per reactor.
#pragma once
#include <array>
#include <cstdint>

namespace atoll_native {

class BlockBuffers {
 public:
  static constexpr uint32_t kShiftMin = 12;  // 4 KiB
  static constexpr uint32_t kShiftMax = 22;  // 4 MiB
  /// Bytes of buffers in use at once; who finds none waits for one to come back. Four of the largest blocks.
  static constexpr uint64_t kBytesMax = 16u << 20;
  /// Bytes kept for the next ones.
  static constexpr uint64_t kIdleBytesMax = 4u << 20;
  /// For pools with O_DIRECT.
  static constexpr uint32_t kAlignment = 4096;

  BlockBuffers() = default;
  ~BlockBuffers();
  BlockBuffers(const BlockBuffers&) = delete;
  BlockBuffers& operator=(const BlockBuffers&) = delete;

  /// 2^shift bytes, not cleared; null when kBytesMax are in use or there is no memory.
  uint8_t* take(uint32_t shift);
  void give(uint8_t* buffer, uint32_t shift);
  uint64_t bytes_in_use() const { return in_use_; }

 private:
  struct Idle {
    Idle* next;
  };
  std::array<Idle*, kShiftMax + 1> idle_ = {};
  uint64_t in_use_ = 0;
  uint64_t idle_bytes_ = 0;
};

}  // namespace atoll_native
