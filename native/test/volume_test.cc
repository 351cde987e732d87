// The volume peer over the real reactor, rings and segment, with the test mapper.
#include "test/snapshot_chains.h"
#include "test/volume_fixture.h"

namespace atoll_native {
namespace {

constexpr uint64_t kBlock = 64 << 10;
constexpr uint64_t kSize = 64 << 20;

void test_reads_zeroes_and_what_was_written() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  CHECK(bench.read(1, 0, 200000) == std::vector<uint8_t>(200000, 0));
  const std::vector<uint8_t> a = pattern(3 * kBlock + 1000, 1);
  CHECK_EQ(bench.write(1, kBlock / 2, a), 0);
  CHECK(bench.read(1, kBlock / 2, a.size()) == a);
  const std::vector<uint8_t> head = bench.read(1, 0, kBlock / 2);
  CHECK(head == std::vector<uint8_t>(kBlock / 2, 0));
  // Again in place: no grant.
  const uint64_t grants = bench.mapper->grants_made;
  const std::vector<uint8_t> b = pattern(2 * kBlock, 2);
  CHECK_EQ(bench.write(1, kBlock / 2 + 17, b), 0);
  CHECK_EQ(bench.mapper->grants_made.load(), grants);
  CHECK(bench.read(1, kBlock / 2 + 17, b.size()) == b);
  CHECK_EQ(bench.mapper->grants_open(), 0u);
}

void test_refusals() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  bench.mapper->open_volume(2, kSize, 16, 0, true);
  CHECK_EQ(bench.simple(Op::kFlush, 3, 0, 0), ESHUTDOWN);
  CHECK_EQ(bench.simple(Op::kFlush, kVolumesMax, 0, 0), EINVAL);
  CHECK_EQ(bench.write(2, 0, pattern(512, 1)), EROFS);
  CHECK_EQ(bench.simple(Op::kTrim, 2, 0, kBlock), EROFS);
  CHECK_EQ(bench.write(1, kSize - 1, pattern(2, 1)), ENOSPC);
  CHECK_EQ(bench.simple(Op::kTrim, 1, UINT64_MAX - 10, 20), ENOSPC);
  uint8_t byte;
  Request beyond{.op = Op::kRead, .volume = 1, .offset = kSize, .length = 1, .buffer = &byte};
  CHECK_EQ(bench.call(&beyond), EINVAL);
  // What the volume record says was lost stays lost, for who writes.
  store_release(bench.core->segment().volume(1).failed, uint32_t{EIO});
  CHECK_EQ(bench.write(1, 0, pattern(512, 1)), EIO);
  CHECK_EQ(bench.flush(1), EIO);
  CHECK_EQ(bench.read(1, 0, 512).size(), 512u);
}

/// What the mapper has marked is read by nobody and in no part; what lies beside it is.
void test_marked_entries_answer_an_error() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  const std::vector<uint8_t> a = pattern(4 * kBlock, 1);
  CHECK_EQ(bench.write(1, 0, a), 0);
  const uint32_t frame = bench.core->leaf_hash().find(1, 0);
  std::atomic<uint64_t>& entry = bench.core->segment().frame(frame)[1];
  entry.fetch_or(kEntryBad, std::memory_order_release);
  std::vector<uint8_t> bytes(a.size());
  const auto read = [&](uint64_t offset, uint64_t length) {
    Request request{.op = Op::kRead, .volume = 1, .offset = offset, .length = length, .buffer = bytes.data()};
    return bench.call(&request);
  };
  CHECK_EQ(read(kBlock, 1), EIO);
  CHECK_EQ(read(2 * kBlock - 1, 1), EIO);
  CHECK_EQ(read(0, kBlock + 1), EIO);
  CHECK_EQ(read(2 * kBlock - 1, 2), EIO);
  CHECK_EQ(read(0, kBlock), 0);
  CHECK(std::equal(a.begin(), a.begin() + kBlock, bytes.begin()));
  CHECK_EQ(read(2 * kBlock, 2 * kBlock), 0);
  CHECK(std::equal(a.begin() + 2 * kBlock, a.end(), bytes.begin()));
  entry.fetch_and(~kEntryBad, std::memory_order_release);
  CHECK_EQ(read(0, 4 * kBlock), 0);
  CHECK(bytes == a);
}

/// They lie between slots in a row.
void test_entries_of_zeroes_read_as_zeroes() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  std::vector<uint8_t> a = pattern(6 * kBlock, 1);
  CHECK_EQ(bench.write(1, 0, a), 0);
  std::atomic<uint64_t>* const entries = bench.core->segment().frame(bench.core->leaf_hash().find(1, 0));
  uint64_t kept[3];
  for (const uint32_t i : {0, 1, 2}) kept[i] = entries[2 + i].exchange(kEntryZeroes);
  std::fill(a.begin() + 2 * kBlock, a.begin() + 5 * kBlock, 0);
  CHECK(bench.read(1, 0, a.size()) == a);
  CHECK(bench.read(1, 3 * kBlock + 5, 100) == std::vector<uint8_t>(100, 0));
  CHECK(bench.read(1, 5 * kBlock - 1, 2) == std::vector<uint8_t>({0, a[5 * kBlock]}));
  for (const uint32_t i : {0, 1, 2}) entries[2 + i].store(kept[i]);
}

void test_runs_granted_in_parts() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool({}, kBlock * 4));
  bench.mapper->grant_blocks_max = 3;
  const std::vector<uint8_t> a = pattern(40 * kBlock + 5, 3);
  CHECK_EQ(bench.write(1, 7, a), 0);
  CHECK(bench.read(1, 7, a.size()) == a);
  CHECK(bench.mapper->grants_made >= 40 / 3);
  CHECK_EQ(bench.mapper->slots_used(), 41u);
}

void test_errors_of_grants_and_full_pool() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  bench.mapper->fail_grants = EDQUOT;
  CHECK_EQ(bench.write(1, 100, pattern(3 * kBlock, 1)), EDQUOT);
  bench.mapper->fail_grants = 0;
  bench.mapper->slots_max = 4;
  CHECK_EQ(bench.write(1, 0, pattern(4 * kBlock, 2)), 0);
  CHECK_EQ(bench.write(1, 8 * kBlock, pattern(4 * kBlock, 3)), ENOSPC);
  CHECK(bench.read(1, 0, 4 * kBlock) == pattern(4 * kBlock, 2));
  CHECK_EQ(bench.write(1, 5, pattern(kBlock, 4)), 0);  // in place goes on
  // Giving up blocks makes room.
  CHECK_EQ(bench.simple(Op::kTrim, 1, 0, 2 * kBlock), 0);
  int error = ENOSPC;
  for (int i = 0; i < 1000 && error == ENOSPC; i++) {  // reclaiming waits for the epoch
    error = bench.write(1, 8 * kBlock, pattern(kBlock, 5));
  }
  CHECK_EQ(error, 0);
  bench.mapper->fail_loads = EIO;
  bench.mapper->evict_all();
  std::vector<uint8_t> bytes(10);
  Request read{.op = Op::kRead, .volume = 1, .offset = 3 * kBlock, .length = 10, .buffer = bytes.data()};
  CHECK_EQ(bench.call(&read), EIO);
  bench.mapper->fail_loads = 0;
  CHECK_EQ(bench.mapper->grants_open(), 0u);
}

void test_block_errors_answer_the_grant() {
  Bench bench;
  FaultSpec fault{
      .kind = FaultSpec::Kind::kError, .write = true, .error_number = ENOSPC, .after = 2, .times = 1, .path = {}};
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool({fault}));
  CHECK_EQ(bench.write(1, 0, pattern(100, 1)), 0);
  CHECK_EQ(bench.write(1, 0, pattern(100, 2)), 0);
  CHECK_EQ(bench.write(1, 3 * kBlock, pattern(kBlock, 3)), ENOSPC);
  CHECK_EQ(bench.mapper->grants_open(), 0u);
  CHECK_EQ(bench.write(1, 3 * kBlock, pattern(kBlock, 3)), 0);
  CHECK(bench.read(1, 3 * kBlock, kBlock) == pattern(kBlock, 3));
  CHECK(bench.read(1, 0, 100) == pattern(100, 2));
}

void test_old_bytes_never_show() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  bench.mapper->dirty_slots = true;
  CHECK_EQ(bench.write(1, 0, std::vector<uint8_t>(8 * kBlock, 0x77)), 0);
  CHECK_EQ(bench.simple(Op::kTrim, 1, 0, 8 * kBlock), 0);
  for (uint32_t i = 0; i < 200; i++) {
    const uint64_t at = 16 * kBlock + i % 20 * kBlock;
    CHECK_EQ(bench.write(1, at + 1000, pattern(100, i)), 0);
    std::vector<uint8_t> expected(kBlock, 0);
    const std::vector<uint8_t> part = pattern(100, i);
    std::copy(part.begin(), part.end(), expected.begin() + 1000);
    if (!CHECK(bench.read(1, at, kBlock) == expected)) break;
    CHECK_EQ(bench.simple(Op::kTrim, 1, at, kBlock), 0);
    CHECK(bench.read(1, at, kBlock) == std::vector<uint8_t>(kBlock, 0));
  }
  CHECK(bench.mapper->reused > 10);
}

void test_discard() {
  Bench bench;
  const uint64_t size = kSize - kBlock / 2;  // the last block is cut
  bench.mapper->open_volume(1, size, 16, bench.memory_pool());
  const std::vector<uint8_t> a = pattern(10 * kBlock, 1);
  CHECK_EQ(bench.write(1, 0, a), 0);
  CHECK_EQ(bench.simple(Op::kTrim, 1, kBlock / 2, 3 * kBlock), 0);
  std::vector<uint8_t> expected = a;
  std::fill_n(expected.begin() + kBlock / 2, 3 * kBlock, 0);
  CHECK(bench.read(1, 0, a.size()) == expected);
  CHECK_EQ(bench.mapper->slots_used(), 8u);  // blocks 1 and 2 went whole
  // Edges in blocks that are not mapped need nothing.
  const uint64_t grants = bench.mapper->grants_made;
  CHECK_EQ(bench.simple(Op::kTrim, 1, 20 * kBlock + 5, 2 * kBlock), 0);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 20 * kBlock + 5, 100), 0);
  CHECK_EQ(bench.mapper->grants_made.load(), grants);
  // ... unless slots are to be kept.
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 20 * kBlock + 5, 100, kNoHole), 0);
  CHECK_EQ(bench.mapper->slots_used(), 9u);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 30 * kBlock, 2 * kBlock, kNoHole), 0);
  CHECK_EQ(bench.mapper->slots_used(), 11u);
  CHECK(bench.read(1, 20 * kBlock, 20 * kBlock) == std::vector<uint8_t>(20 * kBlock, 0));
  // FAST_ZERO: refused, and nothing done, when data would be written.
  const std::vector<uint8_t> before = bench.read(1, 0, 10 * kBlock);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 4 * kBlock, 2 * kBlock + 7, kFastZero), ENOTSUP);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 5 * kBlock - 1, 2 * kBlock + 1, kFastZero), ENOTSUP);
  CHECK(bench.read(1, 0, 10 * kBlock) == before);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 4 * kBlock, 2 * kBlock, kFastZero), 0);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 40 * kBlock + 3, 2 * kBlock, kFastZero), 0);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 50 * kBlock, 5, kFastZero | kNoHole), ENOTSUP);
  bench.mapper->evict_all();
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 6 * kBlock + 1, kBlock, kFastZero), ENOTSUP);
  // To the volume's end: the cut block is unmapped, not written.
  CHECK_EQ(bench.write(1, size - 100, pattern(100, 9)), 0);
  const uint64_t used = bench.mapper->slots_used();
  CHECK_EQ(bench.simple(Op::kTrim, 1, size - kBlock / 2, kBlock / 2), 0);
  CHECK_EQ(bench.mapper->slots_used(), used - 1);
  // FAST_ZERO of one byte, the first of its block.
  CHECK_EQ(bench.write(1, 5 * kBlock, pattern(kBlock, 3)), 0);
  CHECK_EQ(bench.simple(Op::kWriteZeroes, 1, 5 * kBlock, 1, kFastZero), ENOTSUP);
}

/// The volume grows while its last block, which its end cut, is on its way to be unmapped: what is behind that end
/// stays.
void test_discard_while_it_grows() {
  for (const Op op : {Op::kTrim, Op::kWriteZeroes}) {
    Bench bench;
    const uint64_t last = kSize - kBlock;
    bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
    const std::vector<uint8_t> a = pattern(3 * kBlock, 1);
    CHECK_EQ(bench.write(1, last - 2 * kBlock, a), 0);
    bench.mapper->resize(1, last + kBlock / 2);
    bench.mapper->grows_before_unmap = kSize;
    CHECK_EQ(bench.simple(op, 1, last - kBlock, kBlock + kBlock / 2), 0);
    std::vector<uint8_t> expected = a;
    std::fill_n(expected.begin() + kBlock, kBlock + kBlock / 2, 0);
    CHECK(bench.read(1, last - 2 * kBlock, a.size()) == expected);
    CHECK_EQ(bench.mapper->slots_used(), 2u);
  }
}

void test_status_and_cache() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  CHECK_EQ(bench.write(1, 2 * kBlock, pattern(kBlock, 1)), 0);
  CHECK_EQ(bench.write(1, 5 * kBlock, pattern(kBlock, 1)), 0);
  std::vector<Extent> extents(16);
  Request status{.op = Op::kStatus, .volume = 1, .offset = 100, .length = 10 * kBlock};
  status.extents = extents.data();
  status.extent_max = 16;
  CHECK_EQ(bench.call(&status), 0);
  CHECK_EQ(status.extent_count, 5u);
  CHECK_EQ(extents[0].length, 2 * kBlock - 100);
  CHECK_EQ(extents[0].flags, kExtentHole | kExtentZero);
  CHECK_EQ(extents[1].length, kBlock);
  CHECK_EQ(extents[1].flags, 0u);
  status.flags = kReqOne;
  CHECK_EQ(bench.call(&status), 0);
  CHECK_EQ(status.extent_count, 1u);
  // More at once than there is scratch room.
  struct Many {
    Request request;
    std::vector<Extent> extents = std::vector<Extent>(16);
  };
  std::vector<Many> many(kScratchSlots * 4);
  static std::atomic<uint32_t> ended;
  ended = 0;
  bench.on(0, [&] {
    for (Many& one : many) {
      one.request = Request{.op = Op::kStatus, .volume = 1, .offset = 0, .length = kSize};
      one.request.extents = one.extents.data();
      one.request.extent_max = 16;
      one.request.done = [](Request*) { ended++; };
      bench.reactor().volumes().submit(&one.request);
    }
  });
  while (ended < many.size()) std::this_thread::yield();
  for (const Many& one : many) CHECK(one.request.error == 0 && one.request.extent_count == 5);
  bench.mapper->evict_all();
  const uint64_t loads = bench.mapper->loads;
  CHECK_EQ(bench.simple(Op::kCache, 1, 0, kSize), 0);
  CHECK(bench.mapper->loads > loads);
  const uint64_t loaded = bench.mapper->loads;
  CHECK(bench.read(1, 2 * kBlock, kBlock) == pattern(kBlock, 1));
  CHECK_EQ(bench.mapper->loads.load(), loaded);
}

void test_flush_covers_all_connections() {
  Bench bench(2);
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool());
  CHECK_EQ(bench.flush(1), 0);
  CHECK_EQ(bench.mapper->flushes.load(), 0u);  // nothing to commit
  CHECK_EQ(bench.write(1, 0, pattern(kBlock, 1), 0, 0), 0);
  CHECK_EQ(bench.flush(1, 1), 0);  // from the other reactor: the map has changed
  CHECK_EQ(bench.mapper->flushes.load(), 1u);
  CHECK_EQ(bench.write(1, 0, pattern(kBlock, 2), 0, 0), 0);
  CHECK_EQ(bench.flush(1, 1), 0);  // in place: a data sync is enough
  CHECK_EQ(bench.mapper->flushes.load(), 1u);
  CHECK_EQ(bench.write(1, 0, pattern(100, 3), kFua, 0), 0);
  CHECK_EQ(bench.mapper->flushes.load(), 1u);
  CHECK_EQ(bench.write(1, 9 * kBlock, pattern(100, 3), kFua, 0), 0);
  CHECK_EQ(bench.mapper->flushes.load(), 2u);
  CHECK_EQ(bench.simple(Op::kTrim, 1, 9 * kBlock, kBlock, kFua, 1), 0);
  CHECK_EQ(bench.mapper->flushes.load(), 3u);
}

void test_sync_failure_is_for_good() {
  Bench bench;
  FaultSpec fault{
      .kind = FaultSpec::Kind::kError, .sync = true, .error_number = EIO, .after = 1, .times = 1, .path = {}};
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool({fault}));
  CHECK_EQ(bench.write(1, 0, pattern(kBlock, 1)), 0);
  CHECK_EQ(bench.flush(1), 0);
  CHECK_EQ(bench.write(1, 0, pattern(kBlock, 2)), 0);
  CHECK_EQ(bench.flush(1), EIO);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(bench.flush(1), EIO);
    CHECK_EQ(bench.write(1, 0, pattern(kBlock, 3)), EIO);
    CHECK_EQ(bench.write(1, 0, pattern(100, 3), kFua), EIO);
    CHECK_EQ(bench.simple(Op::kTrim, 1, 0, kBlock), EIO);
  }
  CHECK(bench.read(1, 0, kBlock) == pattern(kBlock, 2));
  // Another volume of the pool hears of it at its next flush.
  bench.mapper->open_volume(2, kSize, 16, 0);
  CHECK_EQ(bench.flush(2), EIO);
}

void test_random_load_inline() {
  for (const uint32_t shift : {12u, 16u}) {
    Bench bench(2, 64, 20);
    bench.mapper->shift_of_all = shift;
    bench.mapper->open_volume(1, kSize, shift, bench.memory_pool({}, 1 << 20));
    bench.mapper->grant_blocks_max = 40;
    bench.mapper->dirty_slots = true;
    // Neighbouring regions share blocks: their borders lie inside one.
    run_load(bench,
             {{.volume = 1, .reactor = 0, .start = 0, .bytes = (4 << 20) + 2048, .requests = 4000, .seed = shift},
              {.volume = 1,
               .reactor = 1,
               .start = (4 << 20) + 2048,
               .bytes = 4 << 20,
               .requests = 4000,
               .seed = shift + 1}});
    CHECK(bench.mapper->in_place_answers + bench.mapper->copies > 0);
  }
}

void test_random_load_with_few_frames() {
  Bench bench(2, 6, 0);
  bench.mapper->shift_of_all = 12;
  bench.mapper->open_volume(1, kSize, 12, bench.memory_pool());
  // 16 leaves and five frames: everything is evicted all the time.
  run_load(bench, {{.volume = 1, .reactor = 0, .bytes = kSize / 2, .depth = 8, .requests = 1500},
                   {.volume = 1, .reactor = 1, .start = kSize / 2, .bytes = kSize / 2, .depth = 8, .requests = 1500}});
  CHECK(bench.mapper->evictions > 100);
}

void test_random_load_asynchronous() {
  Bench bench(2, 64, 0);
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool({delay_of(true, true, 1)}));
  bench.mapper->grant_blocks_max = 5;
  run_load(bench, {{.volume = 1, .reactor = 0, .bytes = (4 << 20) + 512, .requests = 600},
                   {.volume = 1, .reactor = 1, .start = (4 << 20) + 512, .bytes = 4 << 20, .requests = 600}});
}

/// Many requests sent at once, counted as they end.
struct Crowd {
  std::vector<Request> requests;
  std::vector<uint8_t> bytes;
  std::atomic<uint32_t> ended{0};
  std::atomic<uint32_t> failed{0};

  Crowd(uint32_t count, uint64_t length) : requests(count), bytes(count * length) {}
  void set(size_t i, Op op, uint32_t volume, uint64_t offset, uint64_t length) {
    requests[i] = Request{.op = op, .volume = volume, .offset = offset, .length = length};
    requests[i].buffer = bytes.data() + i * (bytes.size() / requests.size());
    requests[i].owner = this;
    requests[i].done = [](Request* r) {
      Crowd* const crowd = static_cast<Crowd*>(r->owner);
      if (r->error != 0) crowd->failed++;
      crowd->ended++;
    };
  }
  void send(Bench& bench) {
    bench.on(0, [&] {
      for (Request& request : requests) bench.reactor().volumes().submit(&request);
    });
  }
  void wait() {
    while (ended < requests.size()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    CHECK_EQ(failed.load(), 0u);
  }
};

/// Slots of blocks that were unmapped while they were read or written are not used for anything else before that ended.
void test_slots_in_use_are_not_reused() {
  for (const bool reads : {true, false}) {
    Bench bench;
    bench.mapper->dirty_slots = true;
    const uint32_t pool = bench.memory_pool({delay_of(reads, !reads, 600)});
    bench.mapper->open_volume(1, kSize, 16, pool);
    bench.mapper->open_volume(2, kSize, 16, pool);
    CHECK_EQ(bench.write(1, 0, std::vector<uint8_t>(4 * kBlock, 0x11)), 0);
    Crowd crowd(4, kBlock);
    std::fill(crowd.bytes.begin(), crowd.bytes.end(), 0x22);
    for (uint32_t i = 0; i < 4; i++) crowd.set(i, reads ? Op::kRead : Op::kWrite, 1, i * kBlock, kBlock);
    crowd.send(bench);
    CHECK_EQ(bench.simple(Op::kTrim, 1, 0, 4 * kBlock), 0);
    CHECK_EQ(crowd.ended.load(), 0u);
    if (!reads) {
      // Whoever gets one of the slots now would find the old writes in it.
      bench.mapper->slots_max = 4;
      int error = ENOSPC;
      while (error == ENOSPC) error = bench.write(2, 0, std::vector<uint8_t>(kBlock, 0x33));
      CHECK_EQ(error, 0);
      CHECK_EQ(crowd.ended.load(), 4u);
      CHECK(bench.read(2, 0, kBlock) == std::vector<uint8_t>(kBlock, 0x33));
    }
    crowd.wait();
    if (reads) CHECK(crowd.bytes == std::vector<uint8_t>(4 * kBlock, 0x11));
  }
}

/// A pool that answers late, with more requests than there are Works, holds up nobody else on its reactor.
void test_a_slow_pool_holds_up_its_own() {
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool({delay_of(true, false, 800)}));
  bench.mapper->open_volume(2, kSize, 16, bench.memory_pool());
  CHECK_EQ(bench.write(1, 0, pattern(16 * kBlock, 1)), 0);
  Crowd slow(3 * VolumePeer::kWorksPerVolume, 512);
  for (size_t i = 0; i < slow.requests.size(); i++) slow.set(i, Op::kRead, 1, i * 512, 512);
  slow.send(bench);
  CHECK_EQ(bench.write(2, 5, pattern(20 * kBlock, 2)), 0);
  CHECK(bench.read(2, 5, 20 * kBlock) == pattern(20 * kBlock, 2));
  CHECK(slow.ended.load() < slow.requests.size());
  slow.wait();
  const std::vector<uint8_t> expected = pattern(16 * kBlock, 1);
  CHECK(std::equal(slow.bytes.begin(), slow.bytes.end(), expected.begin()));
}

void test_snapshots_are_consistent_cuts() {
  run_snapshots(0, 40);
  run_snapshots(1, 20);
}

/// 8192 blocks to be granted for one request, while others ask too: nobody waits for the large one to end.
void test_large_requests_and_many_small_ones() {
  Bench bench(1, 64, 0);
  bench.mapper->shift_of_all = 12;
  bench.mapper->open_volume(1, 256 << 20, 12, bench.memory_pool());
  bench.mapper->grant_blocks_max = 16;
  const std::vector<uint8_t> large = pattern(32 << 20, 4);
  Crowd small(4000, 512);
  std::fill(small.bytes.begin(), small.bytes.end(), 9);
  for (size_t i = 0; i < small.requests.size(); i++) small.set(i, Op::kWrite, 1, (64 << 20) + i * 8192, 512);
  struct Big : Request {
    Crowd* small;
    uint32_t small_before;
    std::atomic<bool> ended{false};
  } big;
  static_cast<Request&>(big) = Request{.op = Op::kWrite, .volume = 1, .offset = 3, .length = large.size()};
  big.small = &small;
  big.buffer = const_cast<uint8_t*>(large.data());
  big.done = [](Request* r) {
    Big* const b = static_cast<Big*>(r);
    b->small_before = b->small->ended;
    b->ended = true;
  };
  bench.on(0, [&] { bench.reactor().volumes().submit(&big); });
  small.send(bench);
  small.wait();
  while (!big.ended) std::this_thread::yield();
  CHECK_EQ(big.error, 0);
  CHECK(big.small_before > 1000);
  CHECK(bench.read(1, 3, large.size()) == large);
  for (size_t i = 0; i < small.requests.size(); i += 97) {
    CHECK(bench.read(1, (64 << 20) + i * 8192, 512) == std::vector<uint8_t>(512, 9));
  }
  const ReactorStats stats = bench.reactor().stats();
  CHECK_EQ(stats.inline_done + stats.async_done, stats.requests);
}

void test_latency_buckets() {
  CHECK_EQ(Latency::bucket_of(0), 0u);
  CHECK_EQ(Latency::bucket_of(1), 0u);
  for (uint32_t i = 1; i + 1 < kLatencyBuckets; i++) {
    CHECK_EQ(Latency::bucket_of(uint64_t{1} << i), i);
    CHECK_EQ(Latency::bucket_of((uint64_t{1} << i) + 1), i + 1);
  }
  CHECK_EQ(Latency::bucket_of(UINT64_MAX), kLatencyBuckets - 1);
  Latency latency;
  latency.count(3);
  latency.count_alone(4);
  latency.count_alone(0);
  const LatencyCounts seen = latency.read();
  CHECK_EQ(seen.counts[0], 1u);
  CHECK_EQ(seen.counts[2], 2u);
  CHECK_EQ(seen.sum_us, 7u);
}

void test_what_waits_is_counted() {
  constexpr uint32_t kDelayMs = 20;
  Bench bench;
  bench.mapper->open_volume(1, kSize, 16, bench.memory_pool({delay_of(true, false, kDelayMs)}));
  const auto waited = [&](WaitKind kind) {
    const LatencyCounts counts = bench.reactor().stats().waits[static_cast<size_t>(kind)];
    uint64_t all = 0;
    for (const uint64_t count : counts.counts) all += count;
    return std::pair(all, counts.sum_us);
  };
  CHECK_EQ(bench.write(1, 0, pattern(kBlock, 1)), 0);     // a fault: it waits
  CHECK_EQ(bench.write(1, 0, pattern(kBlock, 2)), 0);     // in place: it does not
  CHECK_EQ(bench.read(1, 0, 4096).size(), 4096u);         // the pool is slow
  CHECK_EQ(bench.read(1, kBlock * 5, 512).size(), 512u);  // a load at most
  CHECK_EQ(bench.read(1, kBlock * 5, 512).size(), 512u);  // a hole that is known
  CHECK_EQ(bench.simple(Op::kTrim, 1, 0, kBlock), 0);     // a fault
  CHECK_EQ(bench.write(1, kSize, pattern(512, 1)), ENOSPC);
  CHECK_EQ(waited(WaitKind::kWrite).first, 1u);
  CHECK(waited(WaitKind::kRead).first >= 1);
  CHECK(waited(WaitKind::kRead).second >= kDelayMs * 1000 / 2);
  CHECK_EQ(waited(WaitKind::kOther).first, 1u);
  const ReactorStats stats = bench.reactor().stats();
  CHECK_EQ(stats.errors, 1u);
  CHECK_EQ(stats.requests, 7u);
  uint64_t all = 0;
  for (uint32_t kind = 0; kind < kWaitKinds; kind++) all += waited(static_cast<WaitKind>(kind)).first;
  CHECK_EQ(all, stats.async_done);
  CHECK_EQ(stats.inline_done + stats.async_done, stats.requests);
  // Bytes are handed over when the reactor sleeps.
  while (bench.reactor().stats().reads < 3) std::this_thread::yield();
  const ReactorStats slept = bench.reactor().stats();
  CHECK_EQ(slept.read_bytes, 4096u + 512 + 512);
  CHECK_EQ(slept.writes, 2u);  // the one that was refused moved nothing
  CHECK_EQ(slept.write_bytes, 2 * kBlock);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  test_reads_zeroes_and_what_was_written();
  test_refusals();
  test_marked_entries_answer_an_error();
  test_entries_of_zeroes_read_as_zeroes();
  test_runs_granted_in_parts();
  test_errors_of_grants_and_full_pool();
  test_block_errors_answer_the_grant();
  test_old_bytes_never_show();
  test_discard();
  test_discard_while_it_grows();
  test_status_and_cache();
  test_flush_covers_all_connections();
  test_sync_failure_is_for_good();
  test_random_load_inline();
  test_random_load_with_few_frames();
  test_random_load_asynchronous();
  test_slots_in_use_are_not_reused();
  test_a_slow_pool_holds_up_its_own();
  test_snapshots_are_consistent_cuts();
  test_large_requests_and_many_small_ones();
  test_latency_buckets();
  test_what_waits_is_counted();
  return check_summary();
}
