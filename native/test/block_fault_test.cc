// The layers that break things, and invariant 1 in the block peer: a failed sync fails the pool for good.
#include <fcntl.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <sstream>

#include "test/block_device_fixture.h"
#include "test/block_fixture.h"

namespace atoll_native {
namespace {

constexpr uint64_t kSpan = 4 * kMiB;

PoolSpec directory(const std::string& path) {
  PoolSpec spec;
  spec.kind = PoolSpec::Kind::kDirectory;
  spec.path = path;
  spec.file_span = kSpan;
  return spec;
}

FaultSpec error_layer(int error_number, uint64_t after, uint64_t times) {
  FaultSpec fault;
  fault.kind = FaultSpec::Kind::kError;
  fault.error_number = error_number;
  fault.after = after;
  fault.times = times;
  return fault;
}

/// Everything that writes or syncs answers EIO, reads go on, and it stays so.
void is_failed_for_good(BlockPeer& peer, TestLoop& loop) {
  uint8_t bytes[512] = {};
  for (int round = 0; round < 3; round++) {
    CHECK(peer.failed());
    CHECK_EQ(peer.sync_now(0), -EIO);
    CHECK_EQ(peer.write_now(0, bytes, sizeof bytes), -EIO);
    CHECK_EQ(async_write(peer, loop, 0, bytes, sizeof bytes), EIO);
    CHECK_EQ(async_write(peer, loop, 0, bytes, sizeof bytes, BlockOp::kWriteDurable), EIO);
    BlockIo sync{.op = BlockOp::kSync, .file = 0};
    CHECK_EQ(run_op(peer, loop, sync), EIO);
    BlockIo zero{.op = BlockOp::kZero, .address = 0, .length = 4096};
    CHECK_EQ(run_op(peer, loop, zero), EIO);
    BlockIo copy{.op = BlockOp::kCopy, .address = 0, .source = 8192, .length = 4096};
    CHECK_EQ(run_op(peer, loop, copy), EIO);
    CHECK_EQ(peer.zero_now(0, 4096), -EIO);
    CHECK_EQ(any_read(peer, loop, 0, bytes, sizeof bytes), 0);
  }
}

void one_failed_sync_fails_for_good(ThreadPool& pool, bool asynchronous) {
  TempFolder folder;
  PoolSpec spec = directory(folder.folder("pool"));
  FaultSpec fault = error_layer(EIO, 1, 1);
  fault.sync = true;
  spec.faults = {fault};
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  TestLoop loop(pool);
  CHECK_EQ(peer->ensure_file(0), 0);
  uint8_t bytes[512] = {1};
  CHECK_EQ(any_write(*peer, loop, 0, bytes, sizeof bytes), 0);
  CHECK_EQ(peer->sync_now(0), 0);  // let through
  CHECK(!peer->failed());
  if (asynchronous) {
    BlockIo sync{.op = BlockOp::kSync, .file = 0};
    CHECK_EQ(run_op(*peer, loop, sync), EIO);
  } else {
    CHECK_EQ(peer->sync_now(0), -EIO);
  }
  is_failed_for_good(*peer, loop);  // though the layer's errors are used up
}

void a_failed_sync_of_any_errno_counts(ThreadPool& pool) {
  TempFolder folder;
  PoolSpec spec = directory(folder.folder("pool"));
  FaultSpec fault = error_layer(ENOSPC, 0, 1);  // as NFS and thin volumes say it at fsync
  fault.sync = true;
  spec.faults = {fault};
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  TestLoop loop(pool);
  CHECK_EQ(peer->ensure_file(0), 0);
  CHECK_EQ(peer->sync_now(0), -ENOSPC);
  is_failed_for_good(*peer, loop);
}

void write_errors_pass_but_eio(ThreadPool& pool) {
  TempFolder folder;
  PoolSpec spec = directory(folder.folder("pool"));
  FaultSpec full = error_layer(ENOSPC, 0, 2), broken = error_layer(EIO, 3, 1);
  full.write = broken.write = true;
  spec.faults = {full, broken};
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  TestLoop loop(pool);
  CHECK_EQ(peer->ensure_file(0), 0);
  uint8_t bytes[512] = {};
  CHECK_EQ(peer->write_now(0, bytes, sizeof bytes), -ENOSPC);
  CHECK_EQ(async_write(*peer, loop, 0, bytes, sizeof bytes), ENOSPC);
  CHECK(!peer->failed());
  CHECK_EQ(any_write(*peer, loop, 0, bytes, sizeof bytes), 0);  // the third passes both
  CHECK_EQ(peer->sync_now(0), 0);
  CHECK_EQ(peer->write_now(0, bytes, sizeof bytes), -EIO);
  is_failed_for_good(*peer, loop);
}

void errors_begin_and_end_where_told(ThreadPool& pool) {
  TempFolder folder;
  PoolSpec spec = directory(folder.folder("pool"));
  FaultSpec fault = error_layer(EREMOTEIO, 2, 3);
  fault.read = true;
  spec.faults = {fault};
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  TestLoop loop(pool);
  CHECK_EQ(peer->ensure_file(0), 0);
  uint8_t bytes[512] = {};
  std::vector<int> seen;
  // A read that is first tried inline and then submitted is one operation.
  for (int i = 0; i < 7; i++) seen.push_back(any_read(*peer, loop, static_cast<uint64_t>(i) * 65536, bytes, 512));
  CHECK(seen == (std::vector<int>{0, 0, EREMOTEIO, EREMOTEIO, EREMOTEIO, 0, 0}));
  CHECK_EQ(any_write(*peer, loop, 0, bytes, sizeof bytes), 0);  // other operations are not touched
  CHECK(!peer->failed());
}

void a_layer_without_choice_touches_all(ThreadPool& pool) {
  PoolSpec spec;
  spec.driver = PoolSpec::Driver::kNull;
  spec.file_span = kSpan;
  spec.faults = {error_layer(EPERM, 0, 0)};
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  TestLoop loop(pool);
  uint8_t byte = 0;
  CHECK_EQ(peer->read_now(0, &byte, 1), -EPERM);
  CHECK_EQ(peer->write_now(0, &byte, 1), -EPERM);
  CHECK_EQ(peer->zero_now(0, 1), -EPERM);
  CHECK_EQ(peer->sync_now(0), -EPERM);
}

void delays_delay(ThreadPool& pool) {
  PoolSpec spec;
  spec.driver = PoolSpec::Driver::kMemory;
  spec.file_span = kSpan;
  spec.capacity_bytes = kSpan;
  FaultSpec delay;
  delay.kind = FaultSpec::Kind::kDelay;
  delay.delay_ms = 30;
  delay.read = delay.sync = true;
  spec.faults = {delay};
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  TestLoop loop(pool);
  uint8_t byte = 9;
  using std::chrono::steady_clock;
  auto start = steady_clock::now();
  auto elapsed_ms = [&] {
    return std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - start).count();
  };
  CHECK_EQ(peer->write_now(0, &byte, 1), 0);  // not touched
  byte = 0;
  CHECK_EQ(peer->read_now(0, &byte, 1), -EAGAIN);
  start = steady_clock::now();
  CHECK_EQ(async_read(*peer, loop, 0, &byte, 1), 0);
  CHECK(elapsed_ms() >= 30);
  CHECK_EQ(byte, 9);
  start = steady_clock::now();
  CHECK_EQ(peer->sync_now(0), 0);
  CHECK(elapsed_ms() >= 30);
}

void log_tells(ThreadPool& pool) {
  TempFolder folder;
  PoolSpec spec = directory(folder.folder("pool"));
  FaultSpec log;
  log.kind = FaultSpec::Kind::kLog;
  log.path = folder.file("log");
  spec.faults = {log};
  {
    std::shared_ptr<BlockPeer> peer = open_peer(spec);
    TestLoop loop(pool);
    CHECK_EQ(peer->ensure_file(0), 0);
    uint8_t bytes[512] = {};
    CHECK_EQ(async_write(*peer, loop, 4096, bytes, sizeof bytes), 0);
    CHECK_EQ(peer->write_now(kSpan - 1, bytes, 2), -EINVAL);
    CHECK_EQ(peer->sync_now(0), 0);
    CHECK_EQ(peer->zero_now(0, 8192), 0);
  }
  std::ifstream in(log.path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line.substr(line.find(' ') + 1));
  const std::vector<std::string> expected = {"ensure-file 0 0 0 0", "write 4096 512 0 -", "write-now 4194303 2 0 22",
                                             "sync-now 0 0 0 0", "zero-now 0 8192 0 0"};
  CHECK(lines == expected);
}

void bad_layers_are_refused() {
  PoolSpec spec;
  spec.driver = PoolSpec::Driver::kNull;
  spec.file_span = kSpan;
  std::string message;
  spec.faults = {error_layer(0, 0, 0)};
  CHECK_EQ(open_error(spec, &message), EINVAL);
  FaultSpec log;
  log.kind = FaultSpec::Kind::kLog;
  log.path = "/nonexistent/folder/log";
  spec.faults = {log};
  CHECK_EQ(open_error(spec, &message), ENOENT);
  CHECK(message.find(log.path) != std::string::npos);
}

/// The real thing: dirty pages that cannot be written back. The device's file lies in a full file system.
void lost_pages_fail_the_pool(ThreadPool& pool) {
  TempFolder folder;
  const std::string small = folder.folder("small");
  SmallFileSystem file_system(small, 4 * kMiB);
  LoopDevice device(small + "/disk", 64 * kMiB);
  if (!file_system.mounted() || device.path().empty()) {
    std::printf("skipped: a device that loses pages needs root, tmpfs and loop devices\n");
    return;
  }
  PoolSpec spec;
  spec.kind = PoolSpec::Kind::kDevice;
  spec.path = device.path();
  spec.file_span = 1ull << 52;
  spec.data_offset = kMiB;
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  TestLoop loop(pool);
  std::vector<uint8_t> data(kMiB, 3);
  int written = 0;
  for (uint64_t at = 0; at < 32 * kMiB; at += kMiB) {
    written += any_write(*peer, loop, at, data.data(), static_cast<uint32_t>(data.size())) == 0;
  }
  CHECK(written > 8);  // the page cache took more than there is room for
  CHECK_EQ(peer->sync_now(0), -EIO);
  is_failed_for_good(*peer, loop);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  ThreadPool pool(4);
  one_failed_sync_fails_for_good(pool, false);
  one_failed_sync_fails_for_good(pool, true);
  a_failed_sync_of_any_errno_counts(pool);
  write_errors_pass_but_eio(pool);
  errors_begin_and_end_where_told(pool);
  a_layer_without_choice_touches_all(pool);
  delays_delay(pool);
  log_tells(pool);
  bad_layers_are_refused();
  lost_pages_fail_the_pool(pool);
  return check_summary();
}
