// Snapshots under writes that know their order.
#pragma once
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "test/check.h"
#include "test/volume_fixture.h"

namespace atoll_native {

/// Snapshots while four chains of writes run. A chain writes 1, 2, 3 … to successive places, each after the one before
/// was acknowledged, from one reactor after the other; so a snapshot holds a prefix of each chain (invariant 5), at
/// least as long as was acknowledged when it was asked for, and never changes.
struct Chain {
  static constexpr uint32_t kPlaces = 512;
  static constexpr uint64_t kUnit = 4096;  // 16 places of one chain in a block
  Bench* bench;
  uint64_t start;
  uint64_t number = 0;
  std::atomic<uint64_t> acknowledged{0};
  std::atomic<bool> stop{false};
  std::atomic<bool> stopped{false};
  Request request;
  std::array<uint64_t, kUnit / 8> buffer;

  void next() {
    if (stop) {
      stopped = true;
      return;
    }
    number++;
    buffer.fill(number);
    request = Request{.op = Op::kWrite, .volume = 1, .offset = start + number % kPlaces * kUnit, .length = kUnit};
    request.buffer = reinterpret_cast<uint8_t*>(buffer.data());
    request.owner = this;
    request.done = [](Request* r) {
      Chain* const chain = static_cast<Chain*>(r->owner);
      if (r->error != 0) std::abort();
      chain->acknowledged = chain->number;
      chain->bench->reactor(chain->number % 2).post([chain] { chain->next(); });
    };
    bench->reactor((number + 1) % 2).volumes().submit(&request);
  }
  /// The highest number in the snapshot's bytes; false when one before it is missing.
  static bool prefix(const std::vector<uint8_t>& bytes, uint64_t* highest) {
    std::array<uint64_t, kPlaces> found;
    *highest = 0;
    for (uint32_t place = 0; place < kPlaces; place++) {
      uint64_t words[kUnit / 8];
      std::memcpy(words, bytes.data() + place * kUnit, kUnit);
      for (const uint64_t word : words) {
        if (word != words[0]) return false;  // inside a block a write is in or out as a whole
      }
      found[place] = words[0];
      *highest = std::max(*highest, words[0]);
    }
    for (uint64_t n = *highest; n > 0 && n + kPlaces > *highest; n--) {
      if (found[n % kPlaces] != n) return false;
    }
    return true;
  }
};

inline void run_snapshots(uint32_t pool_delay_ms, uint32_t snapshots) {
  Bench bench(2, 256, 0);
  std::vector<FaultSpec> faults;
  if (pool_delay_ms != 0) faults.push_back(delay_of(false, true, pool_delay_ms));
  bench.mapper->open_volume(1, 64 << 20, 16, bench.memory_pool(faults));
  std::vector<std::unique_ptr<Chain>> chains;
  for (uint32_t i = 0; i < 4; i++) {
    chains.push_back(std::make_unique<Chain>());
    Chain* const chain = chains.back().get();
    chain->bench = &bench;
    chain->start = i * Chain::kPlaces * Chain::kUnit;
    bench.reactor(0).post([chain] { chain->next(); });
  }
  const uint64_t bytes = 4 * Chain::kPlaces * Chain::kUnit;
  std::vector<std::vector<uint8_t>> contents;
  uint64_t advanced = 0;
  for (uint32_t s = 0; s < snapshots; s++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    std::array<uint64_t, 4> before;
    for (uint32_t i = 0; i < 4; i++) before[i] = chains[i]->acknowledged;
    bench.mapper->snapshot(1, 100 + s);
    contents.push_back(bench.read(100 + s, 0, bytes, s % 2));
    for (uint32_t i = 0; i < 4; i++) {
      const auto from = contents.back().begin() + static_cast<ptrdiff_t>(i * Chain::kPlaces * Chain::kUnit);
      uint64_t highest = 0;
      CHECK(Chain::prefix({from, from + Chain::kPlaces * Chain::kUnit}, &highest));
      CHECK(highest >= before[i]);
      advanced += highest;
    }
  }
  for (auto& chain : chains) chain->stop = true;
  for (auto& chain : chains) {
    while (!chain->stopped) std::this_thread::yield();
  }
  for (uint32_t s = 0; s < snapshots; s++) CHECK(bench.read(100 + s, 0, bytes) == contents[s]);
  CHECK(advanced > snapshots);
  CHECK(bench.mapper->copies > 0);
  CHECK_EQ(bench.mapper->grants_open(), 0u);
}

}  // namespace atoll_native
