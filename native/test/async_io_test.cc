// AsyncIo, with io_uring and with threads: data arrives, more than fits waits, steps chain, wake-ups are never lost.
#include "io/async_io.h"

#include <fcntl.h>
#include <pthread.h>

#include <atomic>
#include <thread>

#include "test/block_fixture.h"

namespace atoll_native {
namespace {

const int kLane = 0;

struct Counter {
  int done = 0;
  int errors = 0;
};

void count_done(BlockIo* io) {
  auto* counter = static_cast<Counter*>(io->owner);
  counter->done++;
  if (io->error != 0) counter->errors++;
}

int temp_file(const TempFolder& folder) {
  const int fd = open(folder.file("data").c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  return fd;
}

void reads_what_was_written(ThreadPool& pool, AsyncIo::Options options) {
  // Many more than the ring and the held bound take at once.
  constexpr uint32_t kOps = 3 * AsyncIo::kHeldMax;
  constexpr uint32_t kBytes = 1000;  // not aligned to anything
  TempFolder folder;
  const int fd = temp_file(folder);
  TestLoop loop(pool, options);
  std::vector<std::vector<uint8_t>> data(kOps, std::vector<uint8_t>(kBytes));
  std::vector<BlockIo> ios(kOps);
  Random random(1);
  Counter counter;
  for (uint32_t i = 0; i < kOps; i++) {
    random.fill(data[i].data(), kBytes);
    ios[i].owner = &counter;
    ios[i].done = count_done;
    const uint64_t offset = uint64_t{i} * kBytes;
    switch (i % 3) {
      case 0:
        loop.io.write(&kLane, fd, offset, data[i].data(), kBytes, &ios[i]);
        break;
      case 1:
        loop.io.write_durable(&kLane, fd, offset, data[i].data(), kBytes, &ios[i]);
        break;
      default:
        loop.io.write_on_thread(&kLane, fd, offset, data[i].data(), kBytes, &ios[i]);
    }
  }
  CHECK_EQ(loop.io.in_flight(), kOps);
  CHECK_EQ(counter.done, 0);  // never inside the call
  CHECK(loop.run_until([&] { return counter.done == static_cast<int>(kOps); }));
  CHECK_EQ(counter.errors, 0);
  std::vector<std::vector<uint8_t>> back(kOps, std::vector<uint8_t>(kBytes));
  counter = {};
  for (uint32_t i = 0; i < kOps; i++) {
    loop.io.read(&kLane, fd, uint64_t{i} * kBytes, back[i].data(), kBytes, &ios[i]);
  }
  CHECK(loop.run_until([&] { return counter.done == static_cast<int>(kOps); }));
  CHECK_EQ(counter.errors, 0);
  CHECK(data == back);
  CHECK_EQ(loop.io.in_flight(), 0u);
  close(fd);
}

void beyond_the_end_is_zero(ThreadPool& pool, AsyncIo::Options options) {
  TempFolder folder;
  const int fd = temp_file(folder);
  REQUIRE(pwrite(fd, "abc", 3, 0) == 3);
  TestLoop loop(pool, options);
  uint8_t buffer[4096];
  memset(buffer, 0xff, sizeof buffer);
  Counter counter;
  BlockIo io{.op = BlockOp::kRead, .done = count_done, .owner = &counter};
  loop.io.read(&kLane, fd, 0, buffer, sizeof buffer, &io);
  CHECK(loop.run_until([&] { return counter.done == 1; }));
  CHECK_EQ(counter.errors, 0);
  CHECK(memcmp(buffer, "abc", 3) == 0);
  CHECK(all_zero(buffer + 3, sizeof buffer - 3));
  close(fd);
}

void errors_arrive(ThreadPool& pool, AsyncIo::Options options) {
  TempFolder folder;
  const int fd = temp_file(folder);
  const int read_only = open(folder.file("data").c_str(), O_RDONLY | O_CLOEXEC);
  TestLoop loop(pool, options);
  uint8_t buffer[16] = {};
  Counter counter;
  BlockIo io{.op = BlockOp::kWrite, .done = count_done, .owner = &counter};
  loop.io.write(&kLane, read_only, 0, buffer, sizeof buffer, &io);
  CHECK(loop.run_until([&] { return counter.done == 1; }));
  CHECK_EQ(io.error, EBADF);
  loop.io.run_blocking(&kLane, IoClass::kZero, &io, [](BlockIo*) { return -ENOSPC; });
  CHECK(loop.run_until([&] { return counter.done == 2; }));
  CHECK_EQ(io.error, ENOSPC);
  loop.io.complete(&io, EROFS);
  CHECK_EQ(counter.done, 2);
  CHECK(loop.run_until([&] { return counter.done == 3; }));
  CHECK_EQ(io.error, EROFS);
  close(read_only);
  close(fd);
}

/// A chain of steps on one BlockIo, each of another kind.
struct Chain {
  int fd;
  int stage = 0;
  uint8_t buffer[512] = {};
  Counter counter = {};
};

Chain* chain_of(BlockIo* io) { return static_cast<Chain*>(io->peer_data); }

void chain_step(BlockIo* io, AsyncIo& async) {
  Chain* chain = chain_of(io);
  switch (chain->stage++) {
    case 0:
      return async.read(&kLane, chain->fd, 0, chain->buffer, sizeof chain->buffer, io, chain_step);
    case 1:
      return async.run_blocking(
          &kLane, IoClass::kIo, io,
          [](BlockIo* working) {
            memset(chain_of(working)->buffer + 256, 7, 256);
            return 0;
          },
          chain_step);
    case 2:
      return async.after(&kLane, 1'000'000, io, chain_step);
    case 3:
      return async.write(&kLane, chain->fd, 0, chain->buffer, sizeof chain->buffer, io, chain_step);
    default:
      async.finish(io, io->error == 0 ? ECANCELED : io->error);
  }
}

void steps_chain(ThreadPool& pool, AsyncIo::Options options) {
  TempFolder folder;
  Chain chain{.fd = temp_file(folder)};
  uint8_t first[256];
  memset(first, 5, sizeof first);
  REQUIRE(pwrite(chain.fd, first, sizeof first, 0) == sizeof first);
  TestLoop loop(pool, options);
  BlockIo io{.op = BlockOp::kRead, .done = count_done, .owner = &chain.counter};
  io.peer_data = &chain;
  loop.io.complete(&io, 0, chain_step);
  CHECK(loop.run_until([&] { return chain.counter.done == 1; }));
  CHECK_EQ(io.error, ECANCELED);  // what finish() said
  CHECK_EQ(loop.io.in_flight(), 0u);
  uint8_t back[512];
  CHECK_EQ(pread(chain.fd, back, sizeof back, 0), static_cast<ssize_t>(sizeof back));
  CHECK(back[0] == 5 && back[255] == 5 && back[256] == 7 && back[511] == 7);
  close(chain.fd);
}

void resumed_from_other_threads(ThreadPool& pool, AsyncIo::Options options) {
  // The lost wake-up: another thread completes just when the owner goes to sleep. Many rounds with nothing else going
  // on.
  constexpr int kRounds = 20000;
  TestLoop loop(pool, options);
  std::atomic<BlockIo*> parked{nullptr};
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop.load()) {
      if (BlockIo* io = parked.exchange(nullptr)) loop.io.resume(io);
    }
  });
  Counter counter;
  BlockIo io{.op = BlockOp::kRead, .done = count_done, .owner = &counter};
  bool stuck = false;
  for (int i = 0; i < kRounds && !stuck; i++) {
    loop.io.park(&io, [](BlockIo* resumed, AsyncIo& async) { async.finish(resumed, 0); });
    parked.store(&io);
    stuck = !loop.run_until([&] { return counter.done == i + 1; });
  }
  CHECK(!stuck);
  stop = true;
  other.join();
}

void background_ends_on_pool_threads(ThreadPool& pool) {
  TempFolder folder;
  const int fd = temp_file(folder);
  AsyncIo async(pool, {.background = true});
  constexpr int kOps = 1000;
  struct Shared {
    std::atomic<int> done{0};
    std::atomic<int> here{0};
    pthread_t caller = pthread_self();
  } shared;
  std::vector<BlockIo> ios(kOps);
  uint8_t byte = 1;
  for (int i = 0; i < kOps; i++) {
    ios[i].owner = &shared;
    ios[i].done = [](BlockIo* io) {
      auto* s = static_cast<Shared*>(io->owner);
      if (pthread_equal(pthread_self(), s->caller) != 0) s->here++;
      s->done++;
    };
    switch (i % 4) {
      case 0:
        async.write(&kLane, fd, i, &byte, 1, &ios[i]);
        break;
      case 1:
        async.complete(&ios[i], 0);
        break;
      case 2:
        async.after(&kLane, 1000, &ios[i]);
        break;
      default:
        async.run_blocking(&kLane, IoClass::kSync, &ios[i], [](BlockIo*) { return 0; });
    }
  }
  async.drain();
  CHECK_EQ(shared.done.load(), kOps);
  CHECK_EQ(shared.here.load(), 0);
  CHECK_EQ(async.in_flight(), 0u);
  close(fd);
}

void says_what_it_uses(ThreadPool& pool) {
  AsyncIo threads(pool, {.io_uring = false});
  CHECK(!threads.uses_io_uring());
  CHECK(threads.event_fd() >= 0);
  AsyncIo ring(pool, {});
  if (!ring.uses_io_uring()) std::printf("io_uring is not available here: its tests ran on threads\n");
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  ThreadPool pool(4);
  for (const bool ring : {true, false}) {
    const AsyncIo::Options options{.io_uring = ring};
    reads_what_was_written(pool, options);
    beyond_the_end_is_zero(pool, options);
    errors_arrive(pool, options);
    steps_chain(pool, options);
    resumed_from_other_threads(pool, options);
  }
  background_ends_on_pool_threads(pool);
  says_what_it_uses(pool);
  return check_summary();
}
