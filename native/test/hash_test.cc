// The leaf hash: against a plain map, under removal and rebuilding, and with readers that must never find a wrong
// frame.
#include <atomic>
#include <map>
#include <random>
#include <thread>
#include <utility>

#include "map/leaf_hash.h"
#include "test/check.h"

namespace atoll_native {
namespace {

std::unique_ptr<Segment> make(uint32_t frames) {
  int error = 0;
  std::unique_ptr<Segment> segment = Segment::create({1, frames}, &error);
  REQUIRE(segment != nullptr);
  return segment;
}

void finds_what_was_inserted() {
  const auto segment = make(64);
  LeafHash hash(*segment);
  CHECK_EQ(hash.find(0, 0), LeafHash::kNone);
  CHECK(hash.insert(0, 0, kFrameEmpty));  // the entry closest to the two reserved values
  CHECK_EQ(hash.find(0, 0), kFrameEmpty);
  CHECK_EQ(hash.find(0, 1), LeafHash::kNone);
  CHECK_EQ(hash.find(1, 0), LeafHash::kNone);
  CHECK(hash.insert(kVolumesMax - 1, LeafHash::kLeafMax, Segment::kFramesMax - 1));
  CHECK_EQ(hash.find(kVolumesMax - 1, LeafHash::kLeafMax), Segment::kFramesMax - 1);
  CHECK(hash.insert(0, 0, 5));
  CHECK_EQ(hash.find(0, 0), 5u);
  CHECK_EQ(hash.live(), 2u);
  CHECK(hash.remove(0, 0));
  CHECK(!hash.remove(0, 0));
  CHECK_EQ(hash.find(0, 0), LeafHash::kNone);
  CHECK_EQ(hash.live(), 1u);
}

void tombstones_are_not_an_entry() {
  // Key 0 with every frame: a tombstone (value 1) has key bits 0 too.
  const auto segment = make(64);
  LeafHash hash(*segment);
  for (uint32_t leaf = 0; leaf < 100; leaf++) REQUIRE(hash.insert(0, leaf, 1));
  for (uint32_t leaf = 0; leaf < 100; leaf++) CHECK(hash.remove(0, leaf));
  CHECK_EQ(hash.find(0, 0), LeafHash::kNone);
  CHECK_EQ(hash.live(), 0u);
}

void says_when_full_and_recovers() {
  const auto segment = make(64);
  LeafHash hash(*segment);
  uint32_t inserted = 0;
  while (inserted < 10'000 && hash.insert(3, inserted, inserted % 64)) inserted++;
  CHECK_EQ(inserted, hash.live_max());
  for (uint32_t leaf = 0; leaf < inserted; leaf++) CHECK_EQ(hash.find(3, leaf), leaf % 64);
  CHECK(hash.insert(3, 0, 9));  // a change of frame needs no room
  CHECK_EQ(hash.find(3, 0), 9u);
  CHECK(hash.remove(3, 1));
  CHECK(hash.insert(4, 1, 7));
  CHECK_EQ(hash.find(4, 1), 7u);
}

/// Steps by a Fibonacci number are close to each other in a table that multiplies by the golden ratio and nothing else.
void leaves_that_somebody_chose_do_not_meet() {
  const auto segment = make(4096);
  LeafHash hash(*segment);
  for (uint32_t step : {1u, 2584u, 17'711u, 46'368u}) {
    for (uint32_t i = 0; i < 2000; i++) CHECK(hash.insert(5, uint64_t{i} * step, 1));
    for (uint32_t i = 0; i < 2000; i++) CHECK(hash.remove(5, uint64_t{i} * step));
  }
}

void behaves_as_a_map() {
  const auto segment = make(1000);
  LeafHash hash(*segment);
  std::map<std::pair<uint32_t, uint64_t>, uint32_t> model;
  std::mt19937_64 random(20);
  for (uint32_t step = 0; step < 400'000; step++) {
    const uint32_t volume = static_cast<uint32_t>(random() % 8);
    const uint64_t leaf = random() % 512;
    const uint32_t frame = static_cast<uint32_t>(random() % 1000);
    if (random() % 2 == 0) {
      const bool is_new = !model.contains({volume, leaf});
      const bool done = hash.insert(volume, leaf, frame);
      if (done) model[{volume, leaf}] = frame;
      // Inserting is what pays for too many removals.
      if (done && is_new) REQUIRE(hash.tombstones() <= hash.capacity() / LeafHash::kTombstoneShare);
      REQUIRE(done || model.size() >= hash.live_max());
    } else {
      REQUIRE(hash.remove(volume, leaf) == (model.erase({volume, leaf}) == 1));
    }
    REQUIRE(hash.live() == model.size());
    const uint64_t probe = random() % 512;
    const auto found = model.find({volume, probe});
    REQUIRE(hash.find(volume, probe) == (found == model.end() ? LeafHash::kNone : found->second));
  }
  for (const auto& [key, frame] : model) CHECK_EQ(hash.find(key.first, key.second), frame);
}

/// A sequential scan with eviction: each leaf is used once. Tombstones must not pile up, and short clusters must stay
/// short.
void survives_a_scan() {
  const auto segment = make(4096);
  LeafHash hash(*segment);
  constexpr uint64_t kLeaves = 1'000'000;
  constexpr uint64_t kResident = 4095;
  for (uint64_t leaf = 0; leaf < kLeaves; leaf++) {
    if (leaf >= kResident) REQUIRE(hash.remove(1, leaf - kResident));
    REQUIRE(hash.insert(1, leaf, static_cast<uint32_t>(1 + leaf % kResident)));
  }
  CHECK_EQ(hash.live(), kResident);
  for (uint64_t leaf = kLeaves - kResident; leaf < kLeaves; leaf++) REQUIRE(hash.find(1, leaf) == 1 + leaf % kResident);
}

/// One writer inserts, moves, removes and rebuilds; readers check that every frame they find was one of that very leaf.
void readers_never_find_a_wrong_frame() {
  constexpr uint32_t kVolumes = 4;
  constexpr uint64_t kLeaves = 700;
  const auto segment = make(1024);
  LeafHash hash(*segment);
  // A leaf's frames are those with its number in the low bits: frame % 16 == (volume * 7 + leaf) % 16.
  const auto tag = [](uint32_t volume, uint64_t leaf) { return static_cast<uint32_t>((volume * 7 + leaf) % 16); };
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0}, hits{0};
  const auto read = [&](uint64_t seed) {
    std::mt19937_64 random(seed);
    uint64_t found = 0;
    do {
      for (uint32_t i = 0; i < 1000; i++) {
        const uint32_t volume = static_cast<uint32_t>(random() % kVolumes);
        const uint64_t leaf = random() % kLeaves;
        const uint32_t frame = hash.find(volume, leaf);
        if (frame == LeafHash::kNone) continue;
        found++;
        if (frame % 16 != tag(volume, leaf)) wrong.fetch_add(1);
      }
    } while (!stop.load());
    hits.fetch_add(found);
  };
  std::thread first(read, 1), second(read, 2);
  std::mt19937_64 random(3);
  for (uint32_t step = 0; step < 300'000; step++) {
    const uint32_t volume = static_cast<uint32_t>(random() % kVolumes);
    const uint64_t leaf = random() % kLeaves;
    if (random() % 2 == 0) {
      (void)hash.insert(volume, leaf, static_cast<uint32_t>(random() % 60) * 16 + tag(volume, leaf));
    } else {
      hash.remove(volume, leaf);
    }
  }
  stop.store(true);
  first.join();
  second.join();
  CHECK_EQ(wrong.load(), 0u);
  CHECK(hits.load() > 0);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  finds_what_was_inserted();
  tombstones_are_not_an_entry();
  says_when_full_and_recovers();
  leaves_that_somebody_chose_do_not_meet();
  behaves_as_a_map();
  survives_a_scan();
  readers_never_find_a_wrong_frame();
  return check_summary();
}
