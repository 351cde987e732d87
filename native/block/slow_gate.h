// Says whether buffered writes into a file may run inline. A write that hits clean or dirty page cache takes a
// microsecond; one that must read a page first, wait for the journal, or is throttled because too much is dirty takes
// milliseconds, and would hold up every connection of the reactor. Nothing tells them apart beforehand but the recent
// past: after a slow one writes go to threads for a while, then one is tried again; while that keeps being slow, the
// while grows.
#pragma once
#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace atoll_native {

inline uint64_t monotonic_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

class SlowGate {
 public:
  /// Longer than any write that only copies, shorter than what a client would notice.
  static constexpr uint64_t kSlowWriteNs = 1'000'000;
  /// Copying itself takes time: a write may take this much longer per byte (0.5 GB/s, a cold page cache).
  static constexpr uint64_t kSlowNsPerByte = 2;
  /// One slow write may be chance (the thread lost its processor); a second one in a row is not.
  static constexpr uint32_t kOffloadNsMin = 5'000'000;
  static constexpr uint32_t kOffloadNsMax = 100'000'000;

  bool open(uint64_t now_ns) const { return now_ns >= closed_until_.load(std::memory_order_relaxed); }
  /// Tells how long an inline write took. Relaxed throughout: a lost update costs one slow write.
  void report(uint64_t start_ns, uint64_t end_ns, uint64_t bytes) {
    if (end_ns - start_ns <= kSlowWriteNs + bytes * kSlowNsPerByte) {
      if (offload_ns_.load(std::memory_order_relaxed) != 0) offload_ns_.store(0, std::memory_order_relaxed);
      return;
    }
    const uint32_t before = offload_ns_.load(std::memory_order_relaxed);
    const uint32_t offload = std::clamp(before * 2, kOffloadNsMin, kOffloadNsMax);
    offload_ns_.store(offload, std::memory_order_relaxed);
    closed_until_.store(end_ns + offload, std::memory_order_relaxed);
  }

 private:
  std::atomic<uint64_t> closed_until_{0};
  std::atomic<uint32_t> offload_ns_{0};
};

}  // namespace atoll_native
