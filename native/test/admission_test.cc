// The admission of in-place writes against the mapper's advance and drain: no write of an old generation is seen
// running after the drain.
#include "volume/admission.h"

#include <thread>
#include <vector>

#include "map/generation.h"
#include "test/check.h"

namespace atoll_native {
namespace {

std::unique_ptr<Segment> make_segment(uint32_t reactors) {
  int error = 0;
  std::unique_ptr<Segment> segment = Segment::create({.reactors = reactors, .frames = 4}, &error);
  REQUIRE(segment != nullptr);
  return segment;
}

void test_counts_in_and_out() {
  const auto segment = make_segment(2);
  Admission admission(*segment, 1);
  const uint32_t g = admission.enter(7);
  CHECK_EQ(g, load_relaxed(segment->volume(7).generation));
  CHECK(writers_drained(*segment, 7));  // nobody of an older generation
  CHECK_EQ(advance_generation(*segment, 7), g + 1);
  CHECK(!writers_drained(*segment, 7));
  const uint32_t newer = admission.enter(7);
  CHECK_EQ(newer, g + 1);
  admission.leave(7, newer);
  CHECK(!writers_drained(*segment, 7));
  admission.hold(7, g);
  admission.leave(7, g);
  CHECK(!writers_drained(*segment, 7));
  admission.leave(7, g);
  CHECK(writers_drained(*segment, 7));
  // Other volumes have their own counters.
  const uint32_t other = admission.enter(8);
  advance_generation(*segment, 7);
  CHECK(writers_drained(*segment, 7));
  admission.leave(8, other);
}

/// Writers note the generation they are admitted under and write it to a word that they own; the mapper advances,
/// drains, and from then on must find no word being written under an older generation.
void test_nobody_slips_through() {
  constexpr uint32_t kWriters = 3;
  constexpr uint32_t kAdvances = 3000;
  const auto segment = make_segment(kWriters);
  struct alignas(64) Writing {
    std::atomic<uint64_t> generation{0};  // generation + 1 while writing, else 0
  };
  std::vector<Writing> writing(kWriters);
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> writes{0};
  std::vector<std::thread> threads;
  for (uint32_t w = 0; w < kWriters; w++) {
    threads.emplace_back([&, w] {
      Admission admission(*segment, w);
      while (!stop.load(std::memory_order_relaxed)) {
        const uint32_t g = admission.enter(5);
        writing[w].generation.store(uint64_t{g} + 1, std::memory_order_relaxed);
        writes.fetch_add(1, std::memory_order_relaxed);
        writing[w].generation.store(0, std::memory_order_relaxed);
        admission.leave(5, g);
      }
    });
  }
  while (writes < 1000) std::this_thread::yield();
  uint32_t stale = 0;
  for (uint32_t i = 0; i < kAdvances; i++) {
    const uint32_t now = advance_generation(*segment, 5);
    while (!writers_drained(*segment, 5)) std::this_thread::yield();
    for (int look = 0; look < 20; look++) {
      for (const Writing& one : writing) {
        const uint64_t seen = one.generation.load(std::memory_order_relaxed);
        if (seen != 0 && seen - 1 != now) stale++;
      }
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(stale, 0u);
  CHECK(writes.load() > kAdvances);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  test_counts_in_and_out();
  test_nobody_slips_through();
  return check_summary();
}
