// Epochs: when things are safe, and a stress test in which a "frame" is reused the moment epochs allow it.
#include "ring/epoch.h"

#include <array>
#include <atomic>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "test/check.h"
#include "test/rendezvous.h"

namespace atoll_native {
namespace {

std::unique_ptr<Segment> make(uint32_t reactors) {
  int error = 0;
  std::unique_ptr<Segment> segment = Segment::create({reactors, 16}, &error);
  REQUIRE(segment != nullptr);
  return segment;
}

void idle_reactors_hold_nothing() {
  const auto segment = make(3);
  Epochs epochs(*segment);
  const uint64_t g = epochs.advance();
  CHECK(epochs.safe() >= g);
}

void a_reactor_at_work_holds_until_its_next_turn() {
  const auto segment = make(2);
  Epochs epochs(*segment);
  const uint64_t e = epochs.enter(0, Epochs::kIdle);
  const uint64_t g = epochs.advance();
  CHECK_EQ(g, e + 1);
  CHECK(epochs.safe() < g);
  CHECK_EQ(epochs.publish(0, Epochs::kIdle), g);
  CHECK(epochs.safe() >= g);
  const uint64_t later = epochs.advance();
  CHECK(epochs.safe() < later);
  epochs.leave(0, Epochs::kIdle);
  CHECK(epochs.safe() >= later);
}

void an_asynchronous_request_holds_across_turns_and_sleep() {
  const auto segment = make(1);
  Epochs epochs(*segment);
  const uint64_t request = epochs.enter(0, Epochs::kIdle);
  const uint64_t g = epochs.advance();
  epochs.publish(0, request);
  CHECK(epochs.safe() < g);
  epochs.leave(0, request);  // sleeps with the request on its way
  CHECK(epochs.safe() < g);
  CHECK_EQ(epochs.enter(0, request), g);
  CHECK(epochs.safe() < g);
  epochs.publish(0, Epochs::kIdle);
  CHECK(epochs.safe() >= g);
}

void only_this_segments_reactors_count() {
  const auto segment = make(1);
  segment->header().reactor_epoch[1].value = 0;  // beyond reactor_count
  Epochs epochs(*segment);
  const uint64_t g = epochs.advance();
  CHECK(epochs.safe() >= g);
}

/// A reactor wakes and looks something up at the moment at which the mapper unpublishes it and asks whether it is safe.
/// (Without the fence in enter() this fails within some rounds.)
void waking_is_seen_or_sees() {
  const auto segment = make(1);
  std::atomic<uint64_t> published{0};
  Rendezvous rendezvous;
  std::atomic<uint64_t> found{0};
  std::thread other([&] {
    Epochs epochs(*segment);
    while (rendezvous.begin(false)) {
      epochs.enter(0, Epochs::kIdle);
      found.store(published.load(std::memory_order_acquire), std::memory_order_relaxed);
      rendezvous.meet();
      epochs.leave(0, Epochs::kIdle);
      rendezvous.meet();
    }
  });
  Epochs epochs(*segment);
  uint32_t held_but_safe = 0;
  published.store(1, std::memory_order_relaxed);
  while (rendezvous.begin(true)) {
    published.store(0, std::memory_order_relaxed);
    const uint64_t g = epochs.advance();
    const bool safe = epochs.safe() >= g;
    rendezvous.meet();
    if (safe && found.load(std::memory_order_relaxed) == 1) held_but_safe++;
    published.store(1, std::memory_order_relaxed);
    rendezvous.meet();
  }
  other.join();
  CHECK_EQ(held_but_safe, 0u);
}

constexpr uint32_t kReaders = 2;
constexpr uint32_t kFrames = 8;
constexpr uint64_t kReuses = 10'000;
constexpr uint64_t kLookups = 100'000;

/// The world of the stress test: one published place that names a frame, and frames that say whether they are in use.
struct World {
  std::unique_ptr<Segment> segment = make(kReaders);
  std::atomic<uint64_t> published{0};
  std::array<std::atomic<uint64_t>, kFrames> poisoned{};  // 1 once reused: whoever still holds the frame sees it
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> violations{0}, lookups{0};
};

/// A reactor: turns with lookups, some of which go on asynchronously for a few turns; sleeps now and then.
void reactor(World* world, uint32_t id) {
  Epochs epochs(*world->segment);
  struct Pending {
    uint64_t epoch;
    uint64_t frame;
    uint64_t until;  // turn
  };
  std::deque<Pending> pending;
  std::mt19937 random(id);
  uint64_t turn = 0;
  bool asleep = true;
  const auto oldest = [&] { return pending.empty() ? Epochs::kIdle : pending.front().epoch; };
  const auto use = [&](uint64_t frame) {
    if (world->poisoned[frame].load(std::memory_order_relaxed) != 0) world->violations.fetch_add(1);
  };
  while (!world->stop.load(std::memory_order_relaxed)) {
    const uint64_t epoch = asleep ? epochs.enter(id, oldest()) : epochs.publish(id, oldest());
    asleep = false;
    for (uint32_t i = 0; i < 4; i++) {
      const uint64_t frame = world->published.load(std::memory_order_acquire);
      use(frame);
      if (random() % 4 == 0) pending.push_back({epoch, frame, turn + random() % 8});
    }
    world->lookups.fetch_add(4, std::memory_order_relaxed);
    for (Pending& one : pending) use(one.frame);
    // In order, so that one that stays long keeps those behind it, as an old request keeps an epoch.
    while (!pending.empty() && pending.front().until <= turn) pending.pop_front();
    turn++;
    if (random() % 4 == 0) {
      epochs.leave(id, oldest());
      asleep = true;
      if (random() % 16 == 0) std::this_thread::yield();
    }
  }
  epochs.leave(id, Epochs::kIdle);
}

/// The mapper: publishes another frame, and poisons the old one as soon as its epoch is safe.
void reuse_frames(World* world) {
  Epochs epochs(*world->segment);
  struct Retired {
    uint64_t frame;
    uint64_t epoch;
  };
  std::deque<Retired> retired;
  std::deque<uint64_t> free;
  for (uint64_t f = 1; f < kFrames; f++) free.push_back(f);
  // Until both sides have done their part, whoever the scheduler lets run.
  for (uint64_t reused = 0; reused < kReuses || world->lookups.load(std::memory_order_relaxed) < kLookups;) {
    if (!free.empty()) {
      const uint64_t frame = free.front();
      free.pop_front();
      world->poisoned[frame].store(0, std::memory_order_relaxed);
      const uint64_t old = world->published.exchange(frame, std::memory_order_release);
      retired.push_back({old, epochs.advance()});
    }
    const uint64_t safe = epochs.safe();
    while (!retired.empty() && retired.front().epoch <= safe) {
      const uint64_t frame = retired.front().frame;
      world->poisoned[frame].store(1, std::memory_order_relaxed);
      free.push_back(frame);
      retired.pop_front();
      reused++;
    }
    if (free.empty()) std::this_thread::yield();
  }
}

void nobody_holds_what_is_reused() {
  World world;
  std::vector<std::thread> readers;
  for (uint32_t r = 0; r < kReaders; r++) readers.emplace_back(reactor, &world, r);
  reuse_frames(&world);
  world.stop.store(true);
  for (std::thread& reader : readers) reader.join();
  CHECK_EQ(world.violations.load(), 0u);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  idle_reactors_hold_nothing();
  a_reactor_at_work_holds_until_its_next_turn();
  an_asynchronous_request_holds_across_turns_and_sleep();
  only_this_segments_reactors_count();
  waking_is_seen_or_sees();
  nobody_holds_what_is_reused();
  return check_summary();
}
