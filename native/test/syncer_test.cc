// Data syncs of volumes: what is marked is synced, group commit, failures for good.
#include "volume/syncer.h"

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <fstream>

#include "test/volume_fixture.h"

namespace atoll_native {
namespace {

constexpr uint64_t kSpan = 1 << 20;

/// Waits for one sync.
struct Wait {
  std::mutex mutex;
  std::condition_variable done;
  bool ended = false;
  int error = -1;
  void end(int e) {
    const std::lock_guard lock(mutex);
    error = e;
    ended = true;
    done.notify_all();
  }
  int get() {
    std::unique_lock lock(mutex);
    done.wait(lock, [this] { return ended; });
    return error;
  }
};

int sync(Bench& bench, uint32_t volume) {
  Wait wait;
  bench.core->syncer().sync(volume, [&wait](int error) { wait.end(error); });
  return wait.get();
}

void test_dirty_files() {
  Bench bench;
  const DirtyFiles dirty(bench.core->segment());
  CHECK(dirty.none(3));
  const std::vector<uint32_t> marked = {0, 1, 63, 64, 4095, 4096, kFilesMax - 1};
  for (const uint32_t file : marked) dirty.mark(3, file);
  dirty.mark(3, 64);
  CHECK(!dirty.none(3));
  CHECK(dirty.none(2));
  CHECK(dirty.none(4));
  CHECK_EQ(dirty.count(3, 100), marked.size());
  std::vector<uint32_t> taken;
  dirty.take(3, &taken);
  CHECK(taken == marked);
  CHECK(dirty.none(3));
  // A bit whose summary another thread has not set yet: who finds the bit set completes it.
  bench.core->segment().dirty_files(3)[2].fetch_or(1);
  CHECK(dirty.none(3));
  dirty.mark(3, 128);
  CHECK(!dirty.none(3));
}

/// Marks from many threads while syncs take: nothing is lost.
void test_marks_race_with_takes() {
  Bench bench;
  const DirtyFiles dirty(bench.core->segment());
  constexpr uint32_t kThreads = 3;
  constexpr uint32_t kRounds = 20000;
  std::vector<std::atomic<uint32_t>> written(kThreads);  // by each thread: its writes to its own file
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      for (uint32_t i = 1; i <= kRounds; i++) {
        written[t].store(i);
        dirty.mark(1, t * 70);
      }
    });
  }
  std::vector<uint32_t> synced(kThreads, 0);
  const auto take = [&] {
    std::vector<uint32_t> files;
    dirty.take(1, &files);
    for (const uint32_t file : files) synced[file / 70] = written[file / 70].load();
  };
  std::thread taker([&] {
    while (!stop) take();
  });
  for (std::thread& thread : threads) thread.join();
  stop = true;
  taker.join();
  take();  // a flush after the last write was acknowledged
  for (uint32_t t = 0; t < kThreads; t++) CHECK_EQ(synced[t], kRounds);
}

std::vector<std::string> log_lines(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

void test_syncs_the_files_that_were_written() {
  Bench bench;
  char name[] = "/tmp/atoll-syncer-XXXXXX";
  const int fd = mkstemp(name);
  REQUIRE(fd >= 0);
  close(fd);
  FaultSpec log;
  log.kind = FaultSpec::Kind::kLog;
  log.sync = true;
  log.path = name;
  bench.mapper->open_volume(1, 64 << 20, 16, bench.memory_pool({log}, kSpan));
  bench.core->syncer().mark_file(1, 3);
  bench.core->syncer().mark_file(1, 9);
  CHECK_EQ(sync(bench, 1), 0);
  CHECK_EQ(log_lines(name).size(), 2u);
  CHECK_EQ(sync(bench, 1), 0);
  CHECK_EQ(log_lines(name).size(), 2u);  // nothing was written since
  int error = -1;
  bench.core->syncer().mark_file(1, 4);
  CHECK(!bench.core->syncer().try_sync_inline(1, 0, &error));
  CHECK(bench.core->syncer().try_sync_inline(1, 1, &error));
  CHECK_EQ(error, 0);
  CHECK_EQ(log_lines(name).size(), 3u);
  CHECK(bench.core->syncer().try_sync_inline(1, 0, &error));
  // Each is timed, wherever it ran.
  uint64_t timed = 0;
  for (const uint64_t count : bench.core->data_syncs().counts) timed += count;
  CHECK_EQ(timed, 3u);
  CHECK_EQ(bench.core->data_sync_errors(), 0u);
  // Through the volume peer: a flush syncs each file that the writes touched, once.
  const std::vector<uint8_t> bytes = pattern(3 * kSpan, 1);
  CHECK_EQ(bench.write(1, 0, bytes), 0);
  CHECK_EQ(bench.flush(1), 0);
  const size_t after_first = log_lines(name).size();
  CHECK(after_first >= 6u && after_first <= 7u);
  CHECK_EQ(bench.write(1, 100, pattern(5, 2)), 0);
  CHECK_EQ(bench.flush(1), 0);
  CHECK_EQ(log_lines(name).size(), after_first + 1);
  unlink(name);
}

void test_group_commit() {
  Bench bench;
  char name[] = "/tmp/atoll-syncer-XXXXXX";
  const int fd = mkstemp(name);
  REQUIRE(fd >= 0);
  close(fd);
  FaultSpec log;
  log.kind = FaultSpec::Kind::kLog;
  log.sync = true;
  log.path = name;
  FaultSpec delay;
  delay.kind = FaultSpec::Kind::kDelay;
  delay.sync = true;
  delay.delay_ms = 200;
  bench.mapper->open_volume(1, 64 << 20, 16, bench.memory_pool({log, delay}, kSpan));
  bench.core->syncer().mark_file(1, 0);
  constexpr uint32_t kWaiters = 50;
  std::vector<Wait> waits(kWaiters);
  const auto begin = std::chrono::steady_clock::now();
  for (Wait& wait : waits) {
    bench.core->syncer().sync(1, [&wait](int error) { wait.end(error); });
    bench.core->syncer().mark_file(1, 1);
  }
  int error = -1;
  CHECK(!bench.core->syncer().try_sync_inline(1, 10, &error));  // one runs
  for (Wait& wait : waits) CHECK_EQ(wait.get(), 0);
  // One for the first, which may not count for those who came later, and one for all of these.
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(400));
  CHECK_EQ(log_lines(name).size(), 2u);
  CHECK(DirtyFiles(bench.core->segment()).none(1));
  // Files of one sync go side by side.
  const bool side_by_side = in_some_try([&] {
    bench.core->syncer().mark_file(1, 0);
    bench.core->syncer().mark_file(1, 1);
    const auto again = std::chrono::steady_clock::now();
    CHECK_EQ(sync(bench, 1), 0);
    return std::chrono::steady_clock::now() - again < std::chrono::milliseconds(390);
  });
  CHECK(side_by_side);
  unlink(name);
}

void test_failure() {
  Bench bench;
  FaultSpec fault;
  fault.kind = FaultSpec::Kind::kError;
  fault.sync = true;
  fault.error_number = ENOSPC;
  fault.times = 1;
  bench.mapper->open_volume(1, 64 << 20, 16, bench.memory_pool({fault}, kSpan));
  bench.core->syncer().mark_file(1, 0);
  bench.core->syncer().mark_file(1, 8);
  CHECK_EQ(sync(bench, 1), EIO);
  CHECK_EQ(load_relaxed(bench.core->segment().volume(1).failed), uint32_t{EIO});
  CHECK(!DirtyFiles(bench.core->segment()).none(1));  // what is not durable stays marked
  CHECK_EQ(sync(bench, 1), EIO);
  int error = 0;
  CHECK(bench.core->syncer().try_sync_inline(1, 10, &error));
  CHECK_EQ(error, EIO);
  CHECK(bench.core->data_sync_errors() >= 1);
  // An operator may look at `failed`; clearing it does not bring the pool back.
  store_relaxed(bench.core->segment().volume(1).failed, 0u);
  CHECK_EQ(sync(bench, 1), EIO);
  // No pool: an error, not a success.
  store_relaxed(bench.core->segment().volume(2).pool, 77u);
  bench.core->syncer().mark_file(2, 0);
  CHECK_EQ(sync(bench, 2), EIO);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  test_dirty_files();
  test_marks_race_with_takes();
  test_syncs_the_files_that_were_written();
  test_group_commit();
  test_failure();
  return check_summary();
}
