// For how long a pool has had a sync under way: a long one fills the disk's queue, and others can wait for it.
#pragma once
#include <atomic>
#include <cstdint>

namespace atoll_native {

/// Since when there was always a sync under way. Any thread.
class SyncClock {
 public:
  void began(uint64_t now_ns) {
    // Two that begin at once may leave the later one's time: a microsecond more or less does not matter.
    if (running_.fetch_add(1, std::memory_order_relaxed) == 0) since_ns_.store(now_ns, std::memory_order_relaxed);
  }
  void ended() { running_.fetch_sub(1, std::memory_order_relaxed); }
  /// Nanoseconds; 0 when there is none.
  uint64_t running_ns(uint64_t now_ns) const {
    if (running_.load(std::memory_order_relaxed) == 0) return 0;
    const uint64_t since = since_ns_.load(std::memory_order_relaxed);
    return now_ns > since ? now_ns - since : 0;
  }

 private:
  std::atomic<uint32_t> running_{0};
  std::atomic<uint64_t> since_ns_{0};
};

}  // namespace atoll_native
