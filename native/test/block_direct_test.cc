// Direct pools: sub-sector writes never lose each other's bytes, whatever their buffers, threads and order.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <deque>
#include <thread>

#include "block/aligned_buffer.h"
#include "block/range_lock.h"
#include "test/block_device_fixture.h"
#include "test/block_fixture.h"

namespace atoll_native {
namespace {

constexpr uint64_t kSpan = 4 * kMiB;

// ---------------------------------------------------------------- the lock alone

struct Recorded : RangeHold {
  bool was_granted = false;
};

Recorded hold_of(uint64_t begin, uint64_t end, bool exclusive) {
  Recorded hold;
  hold.begin = begin;
  hold.end = end;
  hold.exclusive = exclusive;
  hold.granted = [](RangeHold* granted) { static_cast<Recorded*>(granted)->was_granted = true; };
  return hold;
}

void shared_holds_overlap_exclusive_ones_wait() {
  RangeLock lock;
  Recorded a = hold_of(0, 4096, false), b = hold_of(0, 8192, false), c = hold_of(4096, 4608, true);
  Recorded d = hold_of(8192, 8704, true);
  CHECK(lock.acquire(&a));
  CHECK(lock.acquire(&b));
  CHECK(!lock.acquire(&c));
  CHECK(lock.acquire(&d));  // elsewhere
  lock.release(&a);         // not in c's way
  CHECK(!c.was_granted);
  lock.release(&b);
  CHECK(c.was_granted);
  lock.release(&c);
  lock.release(&d);
}

void nobody_overtakes() {
  RangeLock lock;
  Recorded reader = hold_of(0, 512, false), writer = hold_of(0, 512, true), late = hold_of(0, 512, false);
  CHECK(lock.acquire(&reader));
  CHECK(!lock.acquire(&writer));
  CHECK(!lock.acquire(&late));  // it could share with the first, but the second came before
  lock.release(&reader);
  CHECK(writer.was_granted && !late.was_granted);
  lock.release(&writer);
  CHECK(late.was_granted);
  lock.release(&late);
}

void one_release_grants_many() {
  RangeLock lock;
  Recorded writer = hold_of(0, 4096, true);
  Recorded readers[4] = {hold_of(0, 512, false), hold_of(512, 1024, false), hold_of(0, 4096, false),
                         hold_of(0, 1024, true)};
  CHECK(lock.acquire(&writer));
  for (Recorded& reader : readers) CHECK(!lock.acquire(&reader));
  lock.release(&writer);
  CHECK(readers[0].was_granted && readers[1].was_granted && readers[2].was_granted);
  CHECK(!readers[3].was_granted);
  for (int i = 0; i < 3; i++) lock.release(&readers[i]);
  CHECK(readers[3].was_granted);
  lock.release(&readers[3]);
}

void blocking_holds_exclude() {
  constexpr int kThreads = 4, kRounds = 20000;
  RangeLock lock;
  uint64_t plain = 0;  // only the lock guards it
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; i++) {
        RangeHold hold;
        hold.begin = 0;
        hold.end = 512;
        hold.exclusive = true;
        lock.acquire_blocking(&hold);
        plain++;
        lock.release(&hold);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(plain, uint64_t{kThreads} * kRounds);
}

// ---------------------------------------------------------------- through the peer

PoolSpec direct_spec(const std::string& path, PoolSpec::Kind kind) {
  PoolSpec spec;
  spec.kind = kind;
  spec.path = path;
  spec.direct = true;
  spec.file_span = kind == PoolSpec::Kind::kDirectory ? kSpan : 1ull << 52;
  spec.data_offset = kind == PoolSpec::Kind::kDirectory ? 0 : kMiB;
  spec.capacity_bytes = kSpan;
  return spec;
}

/// Each writer owns every kWriters-th stripe of a small area and writes it again and again, many at once; neighbours'
/// bytes lie in the same sectors. What a writer wrote last must be there in the end.
class Writer {
 public:
  static constexpr int kWriters = 3;
  static constexpr uint64_t kStripe = 100;  // five owners and more in each sector
  static constexpr uint64_t kStripes = 120;
  static constexpr int kWritesEach = 1500;
  static constexpr int kDepth = 24;

  Writer(BlockPeer& peer, ThreadPool& pool, int number, bool ring)
      : peer_(peer), number_(number), ring_(ring), pool_(pool), last_(kStripes, 0) {}

  void run() {
    TestLoop loop(pool_, {.io_uring = ring_});
    std::deque<Slot> slots(kDepth);
    int started = 0;
    Random random(static_cast<uint64_t>(number_) + 5);
    auto idle = [&] { return std::all_of(slots.begin(), slots.end(), [](const Slot& s) { return !s.busy; }); };
    while (started < kWritesEach) {
      for (Slot& slot : slots) {
        if (slot.busy || started == kWritesEach) continue;
        const uint64_t stripe = random.below(kStripes / kWriters) * kWriters + static_cast<uint64_t>(number_);
        // One write at a time on a stripe: then the last one started is the last one done.
        if (std::any_of(slots.begin(), slots.end(), [&](const Slot& s) { return s.busy && s.stripe == stripe; })) break;
        start(loop, slot, stripe, static_cast<uint8_t>(random.below(255) + 1), started++);
      }
      CHECK(loop.run_until(
          [&] { return std::any_of(slots.begin(), slots.end(), [](const Slot& s) { return !s.busy; }); }));
    }
    CHECK(loop.run_until(idle));
    CHECK_EQ(errors_, 0);
  }
  int wrong_stripes(const std::vector<uint8_t>& area) const {
    int wrong = 0;
    for (uint64_t stripe = static_cast<uint64_t>(number_); stripe < kStripes; stripe += kWriters) {
      for (uint64_t i = 0; i < kStripe; i++) {
        if (area[stripe * kStripe + i] != last_[stripe]) {
          wrong++;
          break;
        }
      }
    }
    return wrong;
  }

 private:
  struct Slot {
    BlockIo io = {.op = BlockOp::kWrite};
    Writer* writer = nullptr;
    bool busy = false;
    uint64_t stripe = 0;
    uint8_t data[kStripe] = {};
  };

  void start(TestLoop& loop, Slot& slot, uint64_t stripe, uint8_t value, int number) {
    slot.writer = this;
    slot.busy = true;
    slot.stripe = stripe;
    memset(slot.data, value, kStripe);
    last_[stripe] = value;
    slot.io.op = number % 16 == 0 ? BlockOp::kWriteDurable : BlockOp::kWrite;
    slot.io.address = stripe * kStripe;
    slot.io.length = kStripe;
    slot.io.buffer = slot.data;
    slot.io.owner = &slot;
    slot.io.done = [](BlockIo* io) {
      auto* ended = static_cast<Slot*>(io->owner);
      ended->busy = false;
      ended->writer->errors_ += io->error != 0;
    };
    peer_.submit(&slot.io, loop.io);
  }

  BlockPeer& peer_;
  const int number_;
  const bool ring_;
  ThreadPool& pool_;
  std::vector<uint8_t> last_;
  int errors_ = 0;
};

void sub_sector_writes_never_lose_each_other(BlockPeer& peer, ThreadPool& pool) {
  TestLoop loop(pool);
  CHECK_EQ(peer.zero_now(0, kSpan), 0);
  std::vector<Writer> writers;
  for (int i = 0; i < Writer::kWriters; i++) writers.emplace_back(peer, pool, i, i % 2 == 0);
  std::vector<std::thread> threads;
  for (Writer& writer : writers) threads.emplace_back([&writer] { writer.run(); });
  for (std::thread& thread : threads) thread.join();
  std::vector<uint8_t> area(Writer::kStripes * Writer::kStripe);
  CHECK_EQ(async_read(peer, loop, 0, area.data(), area.size()), 0);
  for (const Writer& writer : writers) CHECK_EQ(writer.wrong_stripes(area), 0);
}

void whole_and_part_of_a_sector(BlockPeer& peer, ThreadPool& pool) {
  // A write of whole sectors that ends while a part of one of them is being changed: its other bytes must stay.
  constexpr int kRounds = 300;
  constexpr uint64_t kPart = 7;
  TestLoop loop(pool);
  AlignedBuffer aligned(4096);
  std::vector<uint8_t> part(kPart), back(4096);
  int wrong = 0;
  for (int round = 0; round < kRounds; round++) {
    const auto whole_value = static_cast<uint8_t>(round + 1);
    memset(aligned.data(), whole_value, 4096);
    memset(part.data(), 0xf0, kPart);
    struct {
      int done = 0, errors = 0;
    } counter;
    BlockIo ios[2] = {{.op = BlockOp::kWrite, .address = 1000, .length = kPart, .buffer = part.data()},
                      {.op = BlockOp::kWrite, .address = 0, .length = 4096, .buffer = aligned.data()}};
    for (BlockIo& io : ios) {
      io.owner = &counter;
      io.done = [](BlockIo* ended) {
        auto* c = static_cast<decltype(counter)*>(ended->owner);
        c->done++;
        c->errors += ended->error != 0;
      };
      peer.submit(&io, loop.io);
    }
    CHECK(loop.run_until([&] { return counter.done == 2; }));
    CHECK_EQ(counter.errors, 0);
    CHECK_EQ(async_read(peer, loop, 0, back.data(), back.size()), 0);
    for (uint64_t i = 0; i < back.size(); i++) {
      const bool contested = i >= 1000 && i < 1000 + kPart;
      wrong += !contested && back[i] != whole_value;
    }
  }
  CHECK_EQ(wrong, 0);
}

void bounce_buffers_run_out(BlockPeer& peer, ThreadPool& pool) {
  // More misaligned operations at once than there are bounce buffers, and each longer than one.
  constexpr int kOps = 2 * BouncePool::kBuffersMax;
  constexpr uint64_t kLength = 2 * BouncePool::kBufferBytes + 4096;
  TestLoop loop(pool);
  std::vector<uint8_t> source(kLength + 1), back(kLength + 1);
  Random random(3);
  random.fill(source.data(), source.size());
  CHECK_EQ(async_write(peer, loop, 4096, source.data() + 1, kLength), 0);
  std::vector<std::vector<uint8_t>> buffers(kOps, std::vector<uint8_t>(kLength + 1));
  std::vector<BlockIo> ios(kOps);
  struct {
    int done = 0, errors = 0;
  } counter;
  for (int i = 0; i < kOps; i++) {
    ios[i] = {.op = i % 2 == 0 ? BlockOp::kRead : BlockOp::kWrite, .address = 4096, .length = kLength};
    ios[i].buffer = i % 2 == 0 ? buffers[i].data() + 1 : source.data() + 1;
    ios[i].owner = &counter;
    ios[i].done = [](BlockIo* ended) {
      auto* c = static_cast<decltype(counter)*>(ended->owner);
      c->done++;
      c->errors += ended->error != 0;
    };
    peer.submit(&ios[i], loop.io);
  }
  CHECK(loop.run_until([&] { return counter.done == kOps; }));
  CHECK_EQ(counter.errors, 0);
  for (int i = 0; i < kOps; i += 2) CHECK(memcmp(buffers[i].data() + 1, source.data() + 1, kLength) == 0);
}

void run_all(const PoolSpec& spec, ThreadPool& pool) {
  std::string message;
  if (open_error(spec, &message) == EINVAL) {
    std::printf("skipped, no O_DIRECT: %s\n", message.c_str());
    return;
  }
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  CHECK_EQ(peer->ensure_file(0), 0);
  CHECK(peer->capabilities().direct);
  std::printf("%s: alignment %u\n", spec.path.c_str(), peer->capabilities().alignment);
  uint8_t byte = 0;
  CHECK_EQ(peer->read_now(0, &byte, 1), -EAGAIN);
  CHECK_EQ(peer->write_now(0, &byte, 1), -EAGAIN);
  sub_sector_writes_never_lose_each_other(*peer, pool);
  whole_and_part_of_a_sector(*peer, pool);
  bounce_buffers_run_out(*peer, pool);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  shared_holds_overlap_exclusive_ones_wait();
  nobody_overtakes();
  one_release_grants_many();
  blocking_holds_exclude();
  TempFolder folder;
  ThreadPool pool(4);
  run_all(direct_spec(folder.folder("pool"), PoolSpec::Kind::kDirectory), pool);
  LoopDevice device(folder.file("device"), kSpan + kMiB);
  if (device.path().empty()) {
    std::printf("skipped: the device needs root and loop devices\n");
  } else {
    run_all(direct_spec(device.path(), PoolSpec::Kind::kDevice), pool);
  }
  return check_summary();
}
