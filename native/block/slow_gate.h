// Says whether buffered writes into a file may run inline. A write that hits the page cache takes a microsecond; one
// that must read a page first, wait for the journal, or is throttled because too much is dirty takes milliseconds, and
// would hold up every connection of the reactor. Nothing tells them apart beforehand but the recent past: after slow
// ones, writes go to threads for a while, then one is tried again; while that keeps being slow, the while grows.
//
// One slow write alone says little: on a busy machine the thread may just have lost its processor inside it (measured:
// with three runnable threads per core, that closed the gate 99 % of the time). Lost processors come once in thousands
// of writes; throttling comes again within tens of pages. So it takes two slow ones close together, or one too long for
// a scheduler.
//
// A running sync of the file is no reason to close it: on ext4, 4 KiB writes into a file while its 1 GiB of dirty pages
// was synced had p99 59 us, and 41 us into another file.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "io/clock.h"

namespace atoll_native {

class SlowGate {
 public:
  /// Longer than any write that only copies, shorter than what a client would notice.
  static constexpr uint64_t kSlowWriteNs = 1'000'000;
  /// Copying itself takes time: a write may take this much longer per byte (0.5 GB/s, a cold page cache).
  static constexpr uint64_t kSlowNsPerByte = 2;
  /// Slow for certain: no scheduler lets a thread wait this long for a processor.
  static constexpr uint64_t kStalledWriteNs = 30'000'000;
  /// Good writes in a row after which a slow one is forgotten. The kernel throttles every 32 pages, or more often.
  static constexpr uint32_t kSuspectWrites = 64;
  static constexpr uint32_t kOffloadNsMin = 5'000'000;
  static constexpr uint32_t kOffloadNsMax = 100'000'000;

  bool open(uint64_t now_ns) const { return now_ns >= closed_until_.load(std::memory_order_relaxed); }
  /// Tells how long an inline write took. Relaxed throughout: a lost update costs one slow write.
  void report(uint64_t start_ns, uint64_t end_ns, uint64_t bytes) {
    const uint64_t took = end_ns - start_ns;
    const uint32_t suspect = suspect_.load(std::memory_order_relaxed);
    if (took <= kSlowWriteNs + bytes * kSlowNsPerByte) {
      if (suspect == 0) return;  // the usual case stores nothing
      suspect_.store(suspect - 1, std::memory_order_relaxed);
      if (suspect == 1) offload_ns_.store(0, std::memory_order_relaxed);
      return;
    }
    suspect_.store(kSuspectWrites, std::memory_order_relaxed);
    if (suspect == 0 && took < kStalledWriteNs) return;
    const uint32_t before = offload_ns_.load(std::memory_order_relaxed);
    const uint32_t offload = std::clamp(before * 2, kOffloadNsMin, kOffloadNsMax);
    offload_ns_.store(offload, std::memory_order_relaxed);
    closed_until_.store(end_ns + offload, std::memory_order_relaxed);
  }

 private:
  std::atomic<uint64_t> closed_until_{0};
  std::atomic<uint32_t> offload_ns_{0};
  std::atomic<uint32_t> suspect_{0};  // good writes still to come until the last slow one is forgotten
};

}  // namespace atoll_native
