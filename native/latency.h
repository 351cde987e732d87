// How long things took, in buckets whose bounds double. Counting is a few instructions; anybody may read at any time.
// src/xseg/histogram.ts has the same buckets.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstdint>

namespace atoll_native {

/// Bucket 0: up to 1 us. Bucket i: above 2^(i-1) up to 2^i us. The last one: all above 2^24 us (17 s).
constexpr uint32_t kLatencyBuckets = 26;

struct LatencyCounts {
  std::array<uint64_t, kLatencyBuckets> counts = {};
  uint64_t sum_us = 0;
};

class Latency {
 public:
  static uint32_t bucket_of(uint64_t us) {
    return us == 0 ? 0 : std::min(static_cast<uint32_t>(std::bit_width(us - 1)), kLatencyBuckets - 1);
  }

  // Relaxed throughout: statistics order nothing.
  /// For one writing thread: plain loads and stores, no locked instruction.
  void count_alone(uint64_t us) {
    std::atomic<uint64_t>& bucket = counts_[bucket_of(us)];
    bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    sum_us_.store(sum_us_.load(std::memory_order_relaxed) + us, std::memory_order_relaxed);
  }
  /// Any thread.
  void count(uint64_t us) {
    counts_[bucket_of(us)].fetch_add(1, std::memory_order_relaxed);
    sum_us_.fetch_add(us, std::memory_order_relaxed);
  }
  LatencyCounts read() const {
    LatencyCounts now;
    for (uint32_t i = 0; i < kLatencyBuckets; i++) now.counts[i] = counts_[i].load(std::memory_order_relaxed);
    now.sum_us = sum_us_.load(std::memory_order_relaxed);
    return now;
  }

 private:
  std::array<std::atomic<uint64_t>, kLatencyBuckets> counts_ = {};
  std::atomic<uint64_t> sum_us_{0};
};

}  // namespace atoll_native
