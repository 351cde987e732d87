// Core: the mapper's end of the rings (fairness, order, sleeping, waking), messages from any thread, pools by number,
// background work, and a stop that ends everybody.
#include "core.h"

#include <chrono>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "block/block.h"
#include "block/factory.h"
#include "reactor/reactor.h"
#include "test/check.h"

namespace atoll_native {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint32_t kLongMs = 20'000;  // a lost wake-up sleeps this long
constexpr milliseconds kSoon{5'000};

std::shared_ptr<Core> make(uint32_t reactors) {
  Core::Options options;
  options.reactors = reactors;
  options.frames = 64;
  options.spin_us_max = 0;
  std::string message;
  int error = 0;
  std::shared_ptr<Core> core = Core::create(options, &message, &error);
  REQUIRE(core != nullptr);
  return core;
}

RequestRecord numbered(uint32_t ticket, uint32_t reactor) {
  RequestRecord record;
  record.op = kOpLoad;
  record.ticket = ticket;
  record.reactor = reactor;
  return record;
}

std::vector<RequestRecord> take(Core& core, uint32_t max, uint32_t timeout_ms) {
  std::vector<RequestRecord> records(max);
  records.resize(core.take(records.data(), max, timeout_ms));
  return records;
}

uint32_t open_memory(Core& core, std::vector<FaultSpec> faults = {}) {
  PoolSpec spec;
  spec.driver = PoolSpec::Driver::kMemory;
  spec.file_span = 1 << 20;
  spec.capacity_bytes = 16 << 20;
  spec.faults = std::move(faults);
  uint32_t handle = UINT32_MAX;
  std::string message;
  REQUIRE(core.open_pool(spec, &handle, &message) == 0);
  return handle;
}

void refuses_bad_options() {
  for (const uint32_t reactors : {0u, kReactorsMax + 1}) {
    Core::Options options;
    options.reactors = reactors;
    std::string message;
    int error = 0;
    CHECK(Core::create(options, &message, &error) == nullptr);
    CHECK_EQ(error, EINVAL);
    CHECK(!message.empty());
  }
}

/// The test plays the reactors' side of the request rings: real reactors put nothing before they serve somebody.
void takes_fairly() {
  const auto core = make(3);
  for (uint32_t i = 0; i < 1000; i++) core->request_ring(0).put(numbered(i, 0));
  for (uint32_t i = 0; i < 10; i++) core->request_ring(1).put(numbered(i, 1));
  for (uint32_t i = 0; i < 10; i++) core->request_ring(2).put(numbered(i, 2));
  const auto records = take(*core, 128, 0);
  uint32_t seen[3] = {};
  for (const RequestRecord& record : records) {
    CHECK_EQ(record.ticket, seen[record.reactor]);  // in order per ring
    seen[record.reactor]++;
  }
  CHECK_EQ(records.size(), 128u);
  CHECK_EQ(seen[1], 10u);
  CHECK_EQ(seen[2], 10u);
  uint32_t rest = 0;
  for (auto more = take(*core, 128, 0); !more.empty(); more = take(*core, 128, 0)) rest += more.size();
  CHECK_EQ(rest, 1000u - seen[0]);
  CHECK_EQ(take(*core, 0, kLongMs).size(), 0u);  // no room: no wait
}

void take_sleeps_until_rung_or_timeout() {
  const auto core = make(1);
  auto start = Clock::now();
  CHECK(take(*core, 8, 30).empty());
  CHECK(Clock::now() - start >= milliseconds(29));
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(50));
    core->request_ring(0).put(numbered(1, 0));
    core->ring_mapper();
  });
  start = Clock::now();
  CHECK_EQ(take(*core, 8, kLongMs).size(), 1u);
  CHECK(Clock::now() - start < kSoon);
  other.join();
}

void wakes_coalesce_and_come_again() {
  const auto core = make(1);
  for (int i = 0; i < 100; i++) core->wake_mapper();
  auto records = take(*core, 128, 0);
  REQUIRE(records.size() == 1);
  CHECK_EQ(records[0].op, kOpWake);
  core->wake_mapper();
  CHECK_EQ(take(*core, 128, 0).size(), 1u);
  std::thread other([&] {
    std::this_thread::sleep_for(milliseconds(20));
    core->wake_mapper();
  });
  const auto start = Clock::now();
  CHECK_EQ(take(*core, 128, kLongMs).size(), 1u);
  CHECK(Clock::now() - start < kSoon);
  other.join();
}

/// More messages than the misc ring holds, from several threads, before the mapper takes one.
void messages_are_not_lost() {
  const auto core = make(1);
  constexpr uint32_t kThreads = 3, kEach = 3000;
  static_assert(kThreads * kEach > 2 * kRingRecords);
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < kThreads; t++) {
    threads.emplace_back([&core, t] {
      for (uint32_t i = 0; i < kEach; i++) {
        RequestRecord record = numbered(i, t);
        record.op = kOpSyncDone;
        core->post_misc(record);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  uint32_t next[kThreads] = {};
  uint32_t wrong = 0;
  for (auto records = take(*core, 100, 0); !records.empty(); records = take(*core, 100, 0)) {
    for (const RequestRecord& record : records) wrong += record.ticket != next[record.reactor]++;
  }
  CHECK_EQ(wrong, 0u);
  for (const uint32_t count : next) CHECK_EQ(count, kEach);
}

void replies_go_to_their_reactor_or_are_refused() {
  const auto core = make(2);
  ReplyRecord reply;
  reply.reactor = 2;
  CHECK_EQ(core->reply(&reply, 1), -EINVAL);
  reply.reactor = UINT32_MAX;
  CHECK_EQ(core->reply(&reply, 1), -EINVAL);
  CHECK_EQ(core->reply(&reply, 0), 0);
}

void pools_have_numbers() {
  const auto core = make(1);
  CHECK(core->pool(0) == nullptr);
  CHECK(core->pool(kPoolsMax) == nullptr);
  CHECK_EQ(core->close_pool(0), -EBADF);
  CHECK_EQ(core->close_pool(kPoolsMax), -EBADF);
  const uint32_t first = open_memory(*core), second = open_memory(*core);
  CHECK(first != second);
  CHECK(core->pool(first) != nullptr && core->pool(first) != core->pool(second));
  VolumeRecord& volume = core->segment().volume(9);
  volume.pool = first;
  volume.state = kVolumeOpen;
  CHECK_EQ(core->close_pool(first), -EBUSY);
  CHECK(core->pool(first) != nullptr);
  CHECK_EQ(core->close_pool(second), 0);
  volume.state = kVolumeFree;
  CHECK_EQ(core->close_pool(first), 0);
  CHECK(core->pool(first) == nullptr);
  CHECK_EQ(open_memory(*core), first);  // numbers are used again
  PoolSpec nowhere;
  nowhere.path = "/nonexistent/pool";
  nowhere.file_span = 1 << 20;
  uint32_t handle = 0;
  std::string message;
  CHECK_EQ(core->open_pool(nowhere, &handle, &message), -ENOENT);
  CHECK(!message.empty());
}

void pools_are_bounded() {
  const auto core = make(1);
  for (uint32_t i = 0; i < kPoolsMax; i++) CHECK_EQ(open_memory(*core), i);
  PoolSpec spec;
  spec.driver = PoolSpec::Driver::kNull;
  spec.file_span = 1 << 20;
  uint32_t handle = 0;
  std::string message;
  CHECK_EQ(core->open_pool(spec, &handle, &message), -EMFILE);
}

/// Waits for the one message that a piece of background work ends with.
RequestRecord ended(Core& core) {
  const auto records = take(core, 8, kLongMs);
  REQUIRE(records.size() == 1);
  return records[0];
}

void background_work_ends_with_a_message() {
  const auto core = make(1);
  const uint32_t pool = open_memory(*core);
  uint8_t bytes[4096];
  std::memset(bytes, 0xAA, sizeof bytes);
  REQUIRE(core->pool(pool)->write_now(8192, bytes, sizeof bytes) == 0);
  core->zero_runs(pool, {{0, 4096}, {8192, 4096}}, 7);
  RequestRecord record = ended(*core);
  CHECK_EQ(record.op, kOpZeroDone);
  CHECK_EQ(record.ticket, 7u);
  CHECK_EQ(record.error, 0u);
  REQUIRE(core->pool(pool)->read_now(8192, bytes, sizeof bytes) == 0);
  CHECK_EQ(bytes[0] | bytes[4095], 0);
  core->sync_file(pool, 0, 8);
  record = ended(*core);
  CHECK_EQ(record.op, kOpSyncDone);
  CHECK_EQ(record.ticket, 8u);
  CHECK_EQ(record.error, 0u);
  core->sync_file(kPoolsMax, 0, 9);
  record = ended(*core);
  CHECK_EQ(record.ticket, 9u);
  CHECK_EQ(record.error, static_cast<uint32_t>(EBADF));
  core->zero_runs(pool + 1, {{0, 4096}}, 10);
  CHECK_EQ(ended(*core).error, static_cast<uint32_t>(EBADF));
  VolumeRecord& volume = core->segment().volume(3);
  volume.pool = pool;
  volume.state = kVolumeOpen;
  core->sync_volume(3, 11);
  record = ended(*core);
  CHECK_EQ(record.op, kOpSyncDone);
  CHECK_EQ(record.ticket, 11u);
  CHECK_EQ(record.error, 0u);
}

void background_errors_keep_their_cause() {
  const auto core = make(1);
  FaultSpec fault;
  fault.zero = true;
  fault.error_number = ENOSPC;
  const uint32_t pool = open_memory(*core, {fault});
  core->zero_runs(pool, {{0, 4096}}, 1);
  CHECK_EQ(ended(*core).error, static_cast<uint32_t>(ENOSPC));
  fault.zero = false;
  fault.sync = true;
  fault.error_number = EIO;
  const uint32_t broken = open_memory(*core, {fault});
  core->sync_file(broken, 0, 2);
  CHECK_EQ(ended(*core).error, static_cast<uint32_t>(EIO));
}

void stop_ends_everybody() {
  auto core = make(2);
  std::vector<int> order;
  core->on_stop([&] { order.push_back(1); });
  core->on_stop([&] { order.push_back(2); });
  const uint32_t pool = open_memory(*core);
  const auto start = Clock::now();
  std::thread mapper([&core] {
    while (!take(*core, 8, kLongMs).empty()) {
    }
  });
  std::this_thread::sleep_for(milliseconds(20));
  core->stop();
  mapper.join();
  CHECK(Clock::now() - start < kSoon);
  CHECK(order == std::vector<int>({2, 1}));
  core->stop();
  CHECK_EQ(order.size(), 2u);
  CHECK(core->pool(pool) == nullptr);
  // What comes late is answered, not lost and not run.
  core->sync_file(pool, 0, 5);
  core->zero_runs(pool, {{0, 4096}}, 6);
  core->sync_volume(0, 7);
  const auto records = take(*core, 8, kLongMs);
  REQUIRE(records.size() == 3);
  for (const RequestRecord& record : records) CHECK_EQ(record.error, static_cast<uint32_t>(ESHUTDOWN));
  PoolSpec spec;
  spec.driver = PoolSpec::Driver::kNull;
  uint32_t handle = 0;
  std::string message;
  CHECK_EQ(core->open_pool(spec, &handle, &message), -ESHUTDOWN);
  CHECK(Clock::now() - start < kSoon);
}

void reactors_run_what_is_posted() {
  const auto core = make(2);
  for (uint32_t r = 0; r < 2; r++) {
    CHECK_EQ(core->reactor(r).id(), r);
    std::atomic<bool> ran{false};
    core->reactor(r).post([&] {
      ran.store(true);
      ran.notify_one();
    });
    ran.wait(false);
    CHECK(ran.load());
  }
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  refuses_bad_options();
  takes_fairly();
  take_sleeps_until_rung_or_timeout();
  wakes_coalesce_and_come_again();
  messages_are_not_lost();
  replies_go_to_their_reactor_or_are_refused();
  pools_have_numbers();
  pools_are_bounded();
  background_work_ends_with_a_message();
  background_errors_keep_their_cause();
  stop_ends_everybody();
  reactors_run_what_is_posted();
  return check_summary();
}
