// The fast path with delays between its atomic steps (segment/step.h): in the build for ThreadSanitizer threads meet
// where they seldom do. In the other builds there are no steps, and this is a short repetition of what other tests do.
//
// STEPS_SEED and STEPS_SECONDS (for each test) are taken from the environment; the seed is printed.
#include "segment/step.h"

#include <chrono>
#include <cstdlib>
#include <deque>
#include <thread>

#include "map/generation.h"
#include "map/leaf_hash.h"
#include "ring/doorbell.h"
#include "ring/epoch.h"
#include "ring/ring.h"
#include "test/snapshot_chains.h"
#include "test/volume_fixture.h"
#include "volume/admission.h"
#include "volume/dirty_files.h"

namespace atoll_native {
namespace {

using Clock = std::chrono::steady_clock;

uint64_t seed = 1;
Clock::duration time_each = std::chrono::milliseconds(1500);

uint64_t from_environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void delays(uint32_t one_in) {
#if defined(ATOLL_STEPS)
  step_seed.store(seed, std::memory_order_relaxed);
  step_delays.store(one_in, std::memory_order_relaxed);
#else
  static_cast<void>(one_in);
#endif
}

/// True until the test's time is over and it has got somewhere.
class While {
 public:
  bool going(uint64_t done, uint64_t least) const { return Clock::now() < end_ || done < least; }

 private:
  const Clock::time_point end_ = Clock::now() + time_each;
};

std::unique_ptr<Segment> segment_for(uint32_t reactors) {
  int error = 0;
  std::unique_ptr<Segment> segment = Segment::create({.reactors = reactors, .frames = 16}, &error);
  REQUIRE(segment != nullptr);
  return segment;
}

/// Writers say under which generation they write, in plain memory that the mapper reads after the drain: a write of an
/// old generation that is not over is a wrong number, and a race.
void test_admission() {
  constexpr uint32_t kWriters = 2, kVolume = 5;
  const auto segment = segment_for(kWriters);
  struct alignas(64) Place {
    uint64_t of_parity[2] = {0, 0};
  };
  std::vector<Place> places(kWriters);
  std::vector<std::atomic<uint32_t>> newest(kWriters);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint32_t w = 0; w < kWriters; w++) {
    threads.emplace_back([&, w] {
      Admission admission(*segment, w);
      while (!stop.load(std::memory_order_relaxed)) {
        const uint32_t generation = admission.enter(kVolume);
        places[w].of_parity[generation & 1]++;
        ATOLL_STEP();
        places[w].of_parity[generation & 1]++;
        admission.leave(kVolume, generation);
        newest[w].store(generation, std::memory_order_relaxed);
      }
    });
  }
  uint32_t odd = 0, advances = 0;
  for (const While time; time.going(advances, 10); advances++) {
    const uint32_t old_parity = (advance_generation(*segment, kVolume) + 1) & 1;
    while (!writers_drained(*segment, kVolume)) std::this_thread::yield();
    for (const Place& place : places) odd += place.of_parity[old_parity] % 2;
    // Somebody writes under this generation before the next one comes.
    while (newest[advances % kWriters].load(std::memory_order_relaxed) + 1 <
           load_relaxed(segment->volume(kVolume).generation)) {
      std::this_thread::yield();
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(odd, 0u);
}

/// What was unpublished is written over, in plain memory, as soon as the epochs say that nobody holds it.
void test_epochs() {
  constexpr uint32_t kReaders = 2;
  constexpr uint64_t kCells = 8;
  const auto segment = segment_for(kReaders);
  struct alignas(64) Cell {
    uint64_t value = 0;
  };
  std::vector<Cell> cells(kCells);
  std::atomic<uint64_t> published{0};
  std::atomic<uint32_t> wrong{0};
  std::atomic<bool> stop{false};
  for (uint64_t c = 0; c < kCells; c++) cells[c].value = c;
  std::vector<std::thread> threads;
  for (uint32_t r = 0; r < kReaders; r++) {
    threads.emplace_back([&, r] {
      Epochs epochs(*segment);
      for (uint32_t turn = 0; !stop.load(std::memory_order_relaxed); turn++) {
        if (turn % 3 == 0) {
          epochs.leave(r, Epochs::kIdle);
          ATOLL_STEP();
          epochs.enter(r, Epochs::kIdle);
        } else {
          epochs.publish(r, Epochs::kIdle);
        }
        const uint64_t cell = published.load(std::memory_order_acquire);
        ATOLL_STEP();
        if (cells[cell].value != cell) wrong++;
      }
      epochs.leave(r, Epochs::kIdle);
    });
  }
  Epochs epochs(*segment);
  std::deque<uint64_t> free;
  for (uint64_t c = 1; c < kCells; c++) free.push_back(c);
  std::deque<std::pair<uint64_t, uint64_t>> retired;
  uint64_t current = 0;
  uint32_t reused = 0;
  for (const While time; time.going(reused, 10);) {
    if (!free.empty()) {
      const uint64_t next = free.front();
      free.pop_front();
      cells[next].value = next;
      published.store(next, std::memory_order_release);
      retired.emplace_back(epochs.advance(), current);
      current = next;
    }
    while (!retired.empty() && retired.front().first <= epochs.safe()) {
      const uint64_t cell = retired.front().second;
      retired.pop_front();
      cells[cell].value = UINT64_MAX;
      free.push_back(cell);
      reused++;
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0u);
}

/// A leaf is found in its frame, or not at all, while others move in and out around it.
void test_leaf_hash() {
  constexpr uint32_t kReaders = 2, kLeaves = 12;
  const auto segment = segment_for(kReaders);
  LeafHash hash(*segment);
  std::atomic<uint32_t> wrong{0};
  std::atomic<uint64_t> found{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint32_t r = 0; r < kReaders; r++) {
    threads.emplace_back([&, r] {
      std::mt19937_64 random(seed + r);
      while (!stop.load(std::memory_order_relaxed)) {
        const uint64_t leaf = random() % kLeaves;
        const uint32_t frame = hash.find(1, leaf);
        if (frame == LeafHash::kNone) continue;
        found.fetch_add(1, std::memory_order_relaxed);
        if (frame != leaf + 1) wrong++;
      }
    });
  }
  std::mt19937_64 random(seed);
  uint32_t changes = 0;
  for (const While time; time.going(std::min<uint64_t>(changes, found.load(std::memory_order_relaxed)), 100);
       changes++) {
    const uint64_t leaf = random() % kLeaves;
    if (random() % 2 == 0) {
      if (!hash.insert(1, leaf, static_cast<uint32_t>(leaf) + 1)) wrong++;
    } else {
      hash.remove(1, leaf);
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0u);
}

/// One record at a time to a consumer that sleeps in between: a wake-up that is lost costs the whole timeout.
void test_rings_and_doorbells() {
  constexpr int64_t kTimeoutNs = 20'000'000'000;
  const auto segment = segment_for(1);
  alignas(64) static uint8_t there[sizeof(RingMemory)], back[sizeof(RingMemory)];
  uint32_t asleep = 0, asleep_back = 0;
  Doorbell bell(asleep), bell_back(asleep_back);
  constexpr uint32_t kLast = UINT32_MAX;
  std::atomic<uint32_t> late{0}, wrong{0};
  const auto next = [&](RingConsumer<RequestRecord>& ring, Doorbell& own) {
    RequestRecord record;
    while (ring.take(&record, 1) == 0) {
      own.arm();
      const auto start = Clock::now();
      if (ring.empty()) own.wait(kTimeoutNs);
      own.disarm();
      if (Clock::now() - start > std::chrono::nanoseconds(kTimeoutNs / 2)) late++;
    }
    return record.ticket;
  };
  std::thread echo([&] {
    RingConsumer<RequestRecord> in(there);
    RingProducer<RequestRecord> out(back);
    for (uint32_t ticket = 0; ticket != kLast;) {
      ticket = next(in, bell);
      RequestRecord record;
      record.ticket = ticket;
      if (!out.put(record)) wrong++;
      bell_back.ring();
    }
  });
  RingProducer<RequestRecord> out(there);
  RingConsumer<RequestRecord> in(back);
  uint32_t ticket = 0;
  const auto once = [&](uint32_t number) {
    RequestRecord record;
    record.ticket = number;
    if (!out.put(record)) wrong++;
    bell.ring();
    if (next(in, bell_back) != number) wrong++;
  };
  for (const While time; time.going(ticket, 10);) once(++ticket);
  once(kLast);
  echo.join();
  CHECK_EQ(late.load(), 0u);
  CHECK_EQ(wrong.load(), 0u);
}

/// Every write that was marked and acknowledged before a sync began is in the files that the sync, or one before it,
/// took after it was written.
void test_dirty_files() {
  constexpr uint32_t kWriters = 2, kFiles = 70, kVolume = 3;
  const auto segment = segment_for(kWriters);
  const DirtyFiles dirty(*segment);
  // Each writer's own bytes in each file: the number of its last write.
  std::vector<std::array<std::atomic<uint32_t>, kFiles>> written(kWriters), told(kWriters);
  std::vector<std::array<uint32_t, kFiles>> durable(kWriters);
  for (auto& files : durable) files.fill(0);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint32_t w = 0; w < kWriters; w++) {
    threads.emplace_back([&, w] {
      std::mt19937_64 random(seed + w);
      while (!stop.load(std::memory_order_relaxed)) {
        const uint32_t file = static_cast<uint32_t>(random() % 4 * 23);  // in two words
        const uint32_t number = written[w][file].load(std::memory_order_relaxed) + 1;
        written[w][file].store(number, std::memory_order_relaxed);
        ATOLL_STEP();
        dirty.mark(kVolume, file);
        ATOLL_STEP();
        told[w][file].store(number, std::memory_order_release);
      }
    });
  }
  uint32_t lost = 0, syncs = 0;
  std::vector<uint32_t> files;
  for (const While time; time.going(syncs, 10); syncs++) {
    std::vector<std::array<uint32_t, kFiles>> due(kWriters);
    for (uint32_t w = 0; w < kWriters; w++) {
      for (uint32_t f = 0; f < kFiles; f++) due[w][f] = told[w][f].load(std::memory_order_acquire);
    }
    files.clear();
    dirty.take(kVolume, &files);
    for (const uint32_t file : files) {
      for (uint32_t w = 0; w < kWriters; w++) durable[w][file] = written[w][file].load(std::memory_order_relaxed);
    }
    for (uint32_t w = 0; w < kWriters; w++) {
      for (uint32_t f = 0; f < kFiles; f++) lost += durable[w][f] < due[w][f];
    }
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(lost, 0u);
}

void test_volumes() {
  {
    Bench bench(2, 64, 20);
    bench.mapper->shift_of_all = 12;
    bench.mapper->dirty_slots = true;
    bench.mapper->grant_blocks_max = 40;
    bench.mapper->open_volume(1, 64 << 20, 12, bench.memory_pool({}, 1 << 20));
    run_load(
        bench,
        {{.volume = 1, .reactor = 0, .bytes = (2 << 20) + 2048, .requests = 800, .seed = seed},
         {.volume = 1, .reactor = 1, .start = (2 << 20) + 2048, .bytes = 2 << 20, .requests = 800, .seed = seed + 1}});
  }
  {
    Bench bench(2, 6, 0);
    bench.mapper->shift_of_all = 12;
    bench.mapper->open_volume(1, 64 << 20, 12, bench.memory_pool());
    run_load(bench, {{.volume = 1, .reactor = 0, .bytes = 32 << 20, .depth = 8, .requests = 300, .seed = seed},
                     {.volume = 1,
                      .reactor = 1,
                      .start = 32 << 20,
                      .bytes = 32 << 20,
                      .depth = 8,
                      .requests = 300,
                      .seed = seed + 1}});
  }
  run_snapshots(0, 12);
  run_snapshots(1, 6);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  seed = from_environment("STEPS_SEED", static_cast<uint64_t>(Clock::now().time_since_epoch().count()) % 1'000'000);
#if defined(ATOLL_STEPS)
  constexpr uint64_t kMilliseconds = 1500;
#else
  constexpr uint64_t kMilliseconds = 200;
#endif
  time_each = std::chrono::milliseconds(from_environment("STEPS_SECONDS", 0) * 1000);
  if (time_each.count() == 0) time_each = std::chrono::milliseconds(kMilliseconds);
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  delays(5);
  test_admission();
  test_epochs();
  test_leaf_hash();
  test_rings_and_doorbells();
  test_dirty_files();
  delays(200);
  test_volumes();
  return check_summary();
}
