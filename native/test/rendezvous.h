// Two threads meet, so that what each does next happens at the same moment: for tests of memory ordering.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

namespace atoll_native {

class Rendezvous {
 public:
  /// Enough for a missing fence to show on two cores that have nothing else to do.
  static constexpr uint32_t kRounds = 100'000;
  /// On a machine that is busy each meeting costs time slices; then there are fewer.
  static constexpr std::chrono::milliseconds kTimeMax{3'000};

  /// Both threads call it to begin a round, one of them as the leader; false when there were enough.
  bool begin(bool leader) {
    if (leader && (rounds_++ == kRounds || std::chrono::steady_clock::now() > deadline_)) {
      over_.store(true, std::memory_order_relaxed);
    }
    meet();
    return !over_.load(std::memory_order_relaxed);
  }

  /// Returns when both threads are here. At least one after the last look at what the round did, before the next
  /// begin().
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
  const std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::now() + kTimeMax;
  uint32_t rounds_ = 0;  // the leader's
  std::atomic<bool> over_{false};
  alignas(64) std::atomic<uint32_t> arrivals_{0};
};

}  // namespace atoll_native
