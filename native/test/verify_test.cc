// Verify on read: the volume peer over the real reactor, rings and segment, with the test mapper.
#include "test/volume_fixture.h"

namespace atoll_native {
namespace {

constexpr uint64_t kBlock = 64 << 10;
constexpr uint64_t kSize = 64 << 20;

int try_read(Bench& bench, uint32_t volume, uint64_t offset, std::vector<uint8_t>* bytes) {
  std::fill(bytes->begin(), bytes->end(), 0x5A);
  Request request{
      .op = Op::kRead, .volume = volume, .offset = offset, .length = bytes->size(), .buffer = bytes->data()};
  return bench.call(&request);
}

/// `faults`: what the pool does; with a delay no read is answered inline, as when nothing is cached.
void test_what_is_rotten_is_not_returned(std::vector<FaultSpec> faults) {
  Bench bench;
  const uint32_t pool = bench.memory_pool(std::move(faults));
  bench.mapper->open_volume(1, kSize, 16, pool);
  const std::vector<uint8_t> a = pattern(8 * kBlock, 1);
  CHECK_EQ(bench.write(1, 0, a), 0);
  bench.mapper->snapshot(1, 2);
  // Written after the snapshot: in no index.
  const std::vector<uint8_t> b = pattern(kBlock, 2);
  CHECK_EQ(bench.write(1, 7 * kBlock, b), 0);
  CHECK_EQ(bench.mapper->seal(), 8u);
  bench.mapper->verify(1, true);
  bench.mapper->verify(2, true);

  CHECK(bench.read(2, 0, a.size()) == a);
  CHECK_EQ(bench.mapper->hashes.load(), 8u);
  CHECK(bench.read(2, kBlock - 3, 7) == std::vector<uint8_t>(a.begin() + kBlock - 3, a.begin() + kBlock + 4));
  const uint64_t asked = bench.mapper->hashes;
  CHECK(bench.read(1, 7 * kBlock + 5, 100) == std::vector<uint8_t>(b.begin() + 5, b.begin() + 105));
  CHECK_EQ(bench.mapper->hashes.load(), asked);  // what is written in place is not asked for
  CHECK(bench.read(2, 20 * kBlock, 3 * kBlock) == std::vector<uint8_t>(3 * kBlock, 0));
  FileRange range;
  uint64_t length = 4096;
  CHECK(!bench.reactor().volumes().lend(2, 0, &length, &range));

  bench.mapper->rot(bench.mapper->slot_of(2, 3), pool, 60000);
  std::vector<uint8_t> one(1), run(3 * kBlock);
  for (const uint32_t volume : {1u, 2u}) {
    CHECK_EQ(try_read(bench, volume, 3 * kBlock, &one), EIO);
    CHECK(one[0] == 0x5A);
    CHECK_EQ(try_read(bench, volume, 2 * kBlock, &run), EIO);
    // Not in what an answer could be made of either.
    CHECK(std::equal(run.begin() + kBlock, run.begin() + 2 * kBlock, std::vector<uint8_t>(kBlock, 0x5A).begin()));
    CHECK(bench.read(volume, 4 * kBlock, 3 * kBlock) ==
          std::vector<uint8_t>(a.begin() + 4 * kBlock, a.begin() + 7 * kBlock));
  }
  CHECK(bench.mapper->condemned.load() >= 4u);
  // Nor is it copied to where no hash would tell; the whole block can be written.
  CHECK_EQ(bench.write(1, 3 * kBlock + 10, pattern(10, 3)), EIO);
  CHECK_EQ(bench.mapper->grants_open(), 0u);
  CHECK_EQ(bench.write(1, 4 * kBlock + 10, std::vector<uint8_t>(10, 9)), 0);
  std::vector<uint8_t> copied(a.begin() + 4 * kBlock, a.begin() + 5 * kBlock);
  std::fill(copied.begin() + 10, copied.begin() + 20, 9);
  CHECK(bench.read(1, 4 * kBlock, kBlock) == copied);
  CHECK_EQ(bench.write(1, 3 * kBlock, b), 0);
  CHECK(bench.read(1, 3 * kBlock, kBlock) == b);

  // Switched off: as if there were no hashes.
  bench.mapper->verify(2, false);
  CHECK_EQ(try_read(bench, 2, 3 * kBlock, &one), 0);
  CHECK(one[0] == a[3 * kBlock]);
}

/// A hash that the slot had in an earlier life: the mapper finds nothing wrong, and the reader looks again.
void test_a_stale_hash_is_no_rot() {
  Bench bench;
  const uint32_t pool = bench.memory_pool();
  bench.mapper->open_volume(1, kSize, 16, pool);
  const std::vector<uint8_t> a = pattern(16 * kBlock, 4);
  CHECK_EQ(bench.write(1, 0, a), 0);
  bench.mapper->snapshot(1, 2);
  bench.mapper->seal();
  bench.mapper->verify(1, true);
  bench.mapper->verify(2, true);
  bench.mapper->stale_hashes = true;
  for (uint64_t block = 0; block < 16; block++) {
    CHECK(bench.read(2, block * kBlock, kBlock) ==
          std::vector<uint8_t>(a.begin() + static_cast<ptrdiff_t>(block * kBlock),
                               a.begin() + static_cast<ptrdiff_t>((block + 1) * kBlock)));
  }
  CHECK_EQ(bench.write(1, 10, std::vector<uint8_t>(5, 1)), 0);
  CHECK(bench.mapper->doubts.load() > 0u);
  CHECK_EQ(bench.mapper->condemned.load(), 0u);
}

/// Reads wait for buffers to verify a block in, and find when they are woken that it was written meanwhile and needs
/// none: nobody waits for a buffer that nobody will give back.
void test_who_needs_no_buffer_any_more_holds_nobody_up() {
  constexpr uint32_t kShift = BlockBuffers::kShiftMax;
  constexpr uint32_t kReads = 10 * (BlockBuffers::kBytesMax >> kShift);
  constexpr uint64_t kPage = 4096;
  Bench bench;
  const uint32_t pool = bench.memory_pool({delay_of(true, false, 0)});
  bench.mapper->shift_of_all = kShift;
  bench.mapper->open_volume(1, uint64_t{1} << 30, kShift, pool);
  const std::vector<uint8_t> a = pattern(uint64_t{1} << kShift, 7);
  CHECK_EQ(bench.write(1, 0, a), 0);
  bench.mapper->snapshot(1, 2);
  CHECK_EQ(bench.mapper->seal(), 1u);
  bench.mapper->verify(1, true);
  const std::vector<uint8_t> written(kPage, 9);
  std::vector<std::vector<uint8_t>> bytes(kReads, std::vector<uint8_t>(kPage));
  std::vector<Request> requests(kReads + 1);
  std::atomic<uint32_t> ended{0};
  for (uint32_t i = 0; i <= kReads; i++) {
    const bool read = i != 0;
    requests[i] = {.op = read ? Op::kRead : Op::kWrite, .volume = 1, .offset = i * kPage, .length = kPage};
    requests[i].buffer = read ? bytes[i - 1].data() : const_cast<uint8_t*>(written.data());
    requests[i].owner = &ended;
    requests[i].done = [](Request* r) { static_cast<std::atomic<uint32_t>*>(r->owner)->fetch_add(1); };
  }
  bench.reactor().post([&] {
    for (Request& request : requests) bench.reactor().volumes().submit(&request);
  });
  for (int i = 0; i < 20'000 && ended.load() <= kReads; i++) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  REQUIRE(ended.load() == kReads + 1);
  for (uint32_t i = 0; i <= kReads; i++) CHECK_EQ(requests[i].error, 0);
  for (uint32_t i = 1; i <= kReads; i++) {
    const auto from = a.begin() + static_cast<ptrdiff_t>(i * kPage);
    CHECK(bytes[i - 1] == std::vector<uint8_t>(from, from + kPage));
  }
  CHECK(bench.read(1, 0, kPage) == written);
}

/// Random requests while snapshots are made, sealed and dropped: slots are freed, filled with garbage and used again
/// under the readers, leaves come and go; every byte is the right one, and nothing is called rotten.
void test_under_load(std::vector<FaultSpec> faults, uint32_t requests) {
  Bench bench(2, 24);
  const uint32_t pool = bench.memory_pool(std::move(faults));
  bench.mapper->dirty_slots = true;
  bench.mapper->open_volume(1, uint64_t{4} << 30, 16, pool);
  bench.mapper->verify(1, true);
  Load::Options one{.volume = 1, .reactor = 0, .bytes = 8 << 20, .requests = requests, .seed = 5};
  Load::Options two{.volume = 1, .reactor = 1, .start = 1 << 30, .bytes = 8 << 20, .requests = requests, .seed = 6};
  std::atomic<bool> stop{false};
  std::thread sealing([&] {
    while (!stop.load()) {
      bench.mapper->snapshot(1, 2);
      bench.mapper->seal();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      bench.mapper->drop(2);
    }
  });
  run_load(bench, {one, two});
  stop.store(true);
  sealing.join();
  CHECK(bench.mapper->hashes.load() > 0u);
  CHECK_EQ(bench.mapper->condemned.load(), 0u);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  test_what_is_rotten_is_not_returned({});
  test_what_is_rotten_is_not_returned({delay_of(true, false, 1)});
  test_a_stale_hash_is_no_rot();
  test_who_needs_no_buffer_any_more_holds_nobody_up();
  test_under_load({}, 3000);
  test_under_load({delay_of(true, false, 0)}, 1500);
  return check_summary();
}
