// Two threads meet, so that what each does next happens at the same moment: for tests of memory ordering.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>

namespace atoll_native {

class Rendezvous {
 public:
  static constexpr uint32_t kRounds = 100'000;

  /// Returns when both threads are here.
  void meet() {
    const uint32_t arrival = arrivals_.fetch_add(1, std::memory_order_acq_rel);
    const uint32_t complete = (arrival | 1) + 1;
    // Spinning makes the two leave together; yielding lets the other come when there is one core.
    for (uint32_t i = 0; static_cast<int32_t>(arrivals_.load(std::memory_order_acquire) - complete) < 0; i++) {
      if (i % kSpins == kSpins - 1) std::this_thread::yield();
    }
  }

 private:
  static constexpr uint32_t kSpins = 2000;
  alignas(64) std::atomic<uint32_t> arrivals_{0};
};

}  // namespace atoll_native
