// The files of local pools: one daemon at a time, creation that leaves nothing behind, sizes, descriptors, slow writes.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "block/file_sync.h"
#include "block/pool_files.h"
#include "block/slow_gate.h"
#include "test/block_device_fixture.h"
#include "test/block_fixture.h"

namespace atoll_native {
namespace {

constexpr uint64_t kSpan = 4 * kMiB;

PoolSpec local(PoolSpec::Kind kind, const std::string& path, uint64_t capacity) {
  PoolSpec spec;
  spec.kind = kind;
  spec.path = path;
  spec.file_span = kind == PoolSpec::Kind::kDirectory ? kSpan : 1ull << 52;
  spec.data_offset = kind == PoolSpec::Kind::kDirectory ? 0 : kMiB;
  spec.capacity_bytes = capacity;
  return spec;
}

void a_pool_has_one_daemon(const PoolSpec& spec) {
  std::string message;
  {
    std::shared_ptr<BlockPeer> held = open_peer(spec);
    CHECK_EQ(open_error(spec, &message), EBUSY);
    CHECK(message.find(spec.path) != std::string::npos);
    CHECK(message.find("daemon") != std::string::npos);
    // Another process, too.
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      std::string ignored;
      int error = 0;
      _exit(make_block_peer(spec, &ignored, &error) == nullptr && error == EBUSY ? 0 : 1);
    }
    int status = -1;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
  }
  CHECK_EQ(open_error(spec, &message), 0);  // free again
}

void what_does_not_fit_is_refused(const TempFolder& folder) {
  std::string message;
  PoolSpec spec = local(PoolSpec::Kind::kDirectory, folder.file("missing"), 0);
  CHECK_EQ(open_error(spec, &message), ENOENT);
  CHECK(message.find(spec.path) != std::string::npos);
  spec.path = folder.folder("here");
  spec.file_span = 3 * kMiB;  // no power of two
  CHECK_EQ(open_error(spec, &message), EINVAL);
  CHECK_EQ(open_error(local(PoolSpec::Kind::kDevice, folder.folder("here"), 0), &message), EISDIR);
  PoolSpec file = local(PoolSpec::Kind::kFile, folder.folder("here"), 0);
  CHECK_EQ(open_error(file, &message), EISDIR);
  std::fclose(fopen(folder.file("plain").c_str(), "w"));
  CHECK_EQ(open_error(local(PoolSpec::Kind::kDevice, folder.file("plain"), 0), &message), EINVAL);
  CHECK(message.find("not a block device") != std::string::npos);
}

void missing_files_say_so(const TempFolder& folder, ThreadPool& pool) {
  TestLoop loop(pool);
  std::shared_ptr<BlockPeer> peer = open_peer(local(PoolSpec::Kind::kDirectory, folder.folder("empty"), 0));
  uint8_t byte = 0;
  CHECK_EQ(peer->read_now(0, &byte, 1), -EAGAIN);  // whether it is there is not asked on a reactor
  CHECK_EQ(any_read(*peer, loop, 0, &byte, 1), ENOENT);
  CHECK_EQ(any_write(*peer, loop, 0, &byte, 1), ENOENT);
  CHECK_EQ(async_write(*peer, loop, 0, &byte, 1, BlockOp::kWriteDurable), ENOENT);
  CHECK_EQ(peer->zero_now(0, 1), -ENOENT);
  CHECK_EQ(peer->ensure_file(1), 0);
  CHECK_EQ(peer->write_now(kSpan, &byte, 1), 0);
  CHECK_EQ(any_write(*peer, loop, 0, &byte, 1), ENOENT);
  struct stat info;
  const std::string made = folder.file("empty") + "/s00000001";
  CHECK_EQ(stat(made.c_str(), &info), 0);
  CHECK_EQ(static_cast<uint64_t>(info.st_size), kSpan);
  CHECK_EQ(info.st_mode & 07777, 0600u);
  CHECK(!peer->failed());
  CHECK_EQ(peer->sync_now(0), -ENOENT);  // what is not there is not durable
  CHECK(peer->failed());
}

void ensuring_an_old_file_hides_nothing(const TempFolder& folder) {
  // After a start: the mapper makes sure of a file while a client already reads from it.
  constexpr uint32_t kFiles = 16;
  const PoolSpec spec = local(PoolSpec::Kind::kDirectory, folder.folder("old"), 0);
  {
    std::shared_ptr<BlockPeer> peer = open_peer(spec);
    for (uint32_t file = 0; file < kFiles; file++) CHECK_EQ(peer->ensure_file(file), 0);
  }
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  std::atomic<uint32_t> wrong{0};
  std::thread reader([&] {
    for (uint32_t file = 0; file < kFiles; file++) wrong += peer->zero_now(file * kSpan, 1) != 0;
  });
  for (uint32_t file = 0; file < kFiles; file++) CHECK_EQ(peer->ensure_file(file), 0);
  reader.join();
  CHECK_EQ(wrong.load(), 0u);
}

void a_creation_cut_short_is_finished(const TempFolder& folder) {
  const std::string path = folder.folder("cut");
  std::fclose(fopen((path + "/s00000002").c_str(), "w"));  // created, then the power went
  PoolSpec spec = local(PoolSpec::Kind::kDirectory, path, 0);
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  CHECK_EQ(peer->ensure_file(2), 0);
  struct stat info;
  CHECK_EQ(stat((path + "/s00000002").c_str(), &info), 0);
  CHECK_EQ(static_cast<uint64_t>(info.st_size), kSpan);
  peer.reset();
  spec.preallocate = true;  // allocated only in part
  peer = open_peer(spec);
  CHECK_EQ(peer->ensure_file(2), 0);
  CHECK_EQ(stat((path + "/s00000002").c_str(), &info), 0);
  CHECK(static_cast<uint64_t>(info.st_blocks) * 512 >= kSpan);
}

void a_full_file_system_leaves_nothing(const TempFolder& folder) {
  const std::string path = folder.folder("small");
  SmallFileSystem file_system(path, kSpan + kSpan / 2);
  if (!file_system.mounted()) {
    std::printf("skipped: a full file system needs root\n");
    return;
  }
  PoolSpec spec = local(PoolSpec::Kind::kDirectory, path, 0);
  spec.preallocate = true;
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  CHECK_EQ(peer->ensure_file(0), 0);
  const BlockUsage before = peer->usage();
  CHECK_EQ(peer->ensure_file(1), -ENOSPC);
  struct stat info;
  CHECK_EQ(stat((path + "/s00000001").c_str(), &info), -1);
  CHECK(!peer->failed());
  CHECK_EQ(peer->sync_now(0), 0);
  CHECK(before.physical_bytes >= kSpan && before.physical_bytes < kSpan + kSpan / 2);
  CHECK(before.capacity_bytes <= kSpan + kSpan / 2);
  CHECK(before.capacity_bytes >= kSpan + kSpan / 4);
}

void a_full_sparse_pool_says_enospc(const TempFolder& folder, ThreadPool& pool) {
  const std::string path = folder.folder("sparse-small");
  SmallFileSystem file_system(path, 2 * kMiB);
  if (!file_system.mounted()) return;  // said above
  std::shared_ptr<BlockPeer> peer = open_peer(local(PoolSpec::Kind::kDirectory, path, 0));
  CHECK_EQ(peer->ensure_file(0), 0);  // sparse: fits
  TestLoop loop(pool);
  std::vector<uint8_t> data(kMiB, 1);
  int error = 0;
  for (uint64_t at = 0; at < kSpan && error == 0; at += kMiB) {
    error = any_write(*peer, loop, at, data.data(), static_cast<uint32_t>(kMiB));
  }
  CHECK_EQ(error, ENOSPC);
  CHECK(!peer->failed());  // it may get room again:
  CHECK_EQ(peer->zero_now(0, kMiB), 0);
  CHECK_EQ(any_write(*peer, loop, 0, data.data(), 4096), 0);
}

void out_of_descriptors_is_an_errno(const TempFolder& folder) {
  std::shared_ptr<BlockPeer> peer = open_peer(local(PoolSpec::Kind::kDirectory, folder.folder("many"), 0));
  CHECK_EQ(peer->ensure_file(0), 0);
  rlimit limit, low;
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK_EQ(limit.rlim_cur, limit.rlim_max);  // opening a pool raised it
  const int next = dup(0);
  close(next);
  low = limit;
  low.rlim_cur = static_cast<rlim_t>(next);
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  const int result = peer->ensure_file(1);
  REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  CHECK_EQ(result, -EMFILE);
  uint8_t byte = 0;
  CHECK_EQ(peer->write_now(0, &byte, 1), 0);  // what is open stays open
  CHECK_EQ(peer->ensure_file(1), 0);
}

/// What was sent from the page cache stays what it was, whoever gets the slot afterwards.
void lent_pages_are_nobody_elses(const TempFolder& folder) {
  PoolSpec spec = local(PoolSpec::Kind::kDirectory, folder.folder("lent"), 0);
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  constexpr uint32_t kBytes = 64 * kKiB;
  const std::vector<uint8_t> first(kBytes, 0x11), second(kBytes, 0x22);
  CHECK_EQ(peer->ensure_file(0), 0);
  FileRange range;
  CHECK(!peer->lend(kBytes, kBytes, &range));  // nothing there that could be cached
  CHECK_EQ(peer->write_now(kBytes, first.data(), kBytes), 0);
  if (!peer->lend(kBytes, kBytes, &range)) {
    std::printf("  (this kernel or file system cannot lend; copied instead)\n");
    return;
  }
  CHECK(!peer->lend(kBytes, kBytes + 4096, &range));
  CHECK(!peer->lend(kSpan - 4096, 8192, &range));
  CHECK(peer->lend(kBytes + 1000, 5000, &range));
  CHECK_EQ(range.offset, kBytes + 1000);
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  CHECK(peer->lend(kBytes, kBytes, &range));
  off_t at = static_cast<off_t>(range.offset);
  CHECK_EQ(sendfile(ends[0], range.fd, &at, kBytes), static_cast<ssize_t>(kBytes));
  CHECK_EQ(peer->zero_now(kBytes, kBytes), 0);
  CHECK(!peer->lend(kBytes, kBytes, &range));
  CHECK_EQ(peer->write_now(kBytes, second.data(), kBytes), 0);
  std::vector<uint8_t> got(kBytes);
  CHECK_EQ(recv(ends[1], got.data(), kBytes, MSG_WAITALL), static_cast<ssize_t>(kBytes));
  CHECK(got == first);
  close(ends[0]);
  close(ends[1]);
  peer.reset();
  spec.preallocate = true;
  peer = open_peer(spec);
  CHECK_EQ(peer->write_now(kBytes, second.data(), kBytes), -EAGAIN);  // not open yet
  CHECK_EQ(peer->ensure_file(0), 0);
  CHECK_EQ(peer->write_now(kBytes, second.data(), kBytes), 0);
  CHECK(!peer->lend(kBytes, kBytes, &range));
}

void sizes_are_told(const TempFolder& folder) {
  std::shared_ptr<BlockPeer> declared = open_peer(local(PoolSpec::Kind::kDirectory, folder.folder("d"), 7 * kSpan));
  CHECK_EQ(declared->usage().capacity_bytes, 7 * kSpan);
  CHECK_EQ(declared->usage().physical_bytes, 0u);
  PoolSpec spec = local(PoolSpec::Kind::kFile, folder.file("f"), kSpan);
  std::shared_ptr<BlockPeer> file = open_peer(spec);
  CHECK_EQ(file->ensure_file(0), 0);
  struct stat info;
  CHECK_EQ(stat(spec.path.c_str(), &info), 0);
  CHECK_EQ(static_cast<uint64_t>(info.st_size), kSpan + kMiB);
  CHECK_EQ(file->usage().capacity_bytes, kSpan);
  CHECK_EQ(truncate(spec.path.c_str(), static_cast<off_t>(3 * kSpan + kMiB)), 0);  // the operator grows it
  CHECK_EQ(file->usage().capacity_bytes, 3 * kSpan);
}

void existing_files_are_counted(const TempFolder& folder) {
  PoolSpec spec = local(PoolSpec::Kind::kDirectory, folder.folder("counted"), 0);
  spec.preallocate = true;
  {
    std::shared_ptr<BlockPeer> peer = open_peer(spec);
    CHECK_EQ(peer->ensure_file(3), 0);
  }
  std::shared_ptr<BlockPeer> peer = open_peer(spec);
  CHECK(peer->usage().physical_bytes >= kSpan);  // without anybody having opened it
}

constexpr uint64_t kMs = 1'000'000;

void one_slow_write_is_chance() {
  SlowGate gate;
  uint64_t now = kMs;
  for (int round = 0; round < 5; round++) {
    gate.report(now, now + 3 * kMs, 4096);
    now += 3 * kMs;
    CHECK(gate.open(now));
    for (uint32_t i = 0; i < SlowGate::kSuspectWrites; i++) gate.report(now, now + 1000, 4096);
  }
  gate.report(now, now + 3 * kMs, 2 * kMiB);  // long, not slow
  gate.report(now, now + 3 * kMs, 2 * kMiB);
  CHECK(gate.open(now + 3 * kMs));
}

void the_gate_closes_and_backs_off() {
  SlowGate gate;
  uint64_t now = kMs;
  gate.report(now, now + 3 * kMs, 4096);
  gate.report(now, now + 1000, 4096);
  gate.report(now, now + 3 * kMs, 4096);  // again so soon
  now += 3 * kMs;
  uint64_t closed = SlowGate::kOffloadNsMin;
  for (int round = 0; round < 10; round++) {
    CHECK(!gate.open(now));
    CHECK(!gate.open(now + closed - 1));
    CHECK(gate.open(now + closed));
    now += closed;
    gate.report(now, now + 5 * kMs, 4096);  // the one that is tried is slow again: longer
    now += 5 * kMs;
    closed = std::min<uint64_t>(closed * 2, SlowGate::kOffloadNsMax);
  }
  CHECK_EQ(closed, SlowGate::kOffloadNsMax);
  CHECK(!gate.open(now + closed - 1));
  for (uint32_t i = 0; i < SlowGate::kSuspectWrites; i++) gate.report(now, now + 1000, 4096);
  now += closed;
  gate.report(now, now + SlowGate::kStalledWriteNs, 4096);  // good since, but this one is beyond chance
  now += SlowGate::kStalledWriteNs;
  CHECK(!gate.open(now + SlowGate::kOffloadNsMin - 1));
  CHECK(gate.open(now + SlowGate::kOffloadNsMin));
}

void syncs_are_shared_and_begin_after_asked() {
  constexpr int kThreads = 8, kRounds = 200;
  FileSync sync;
  FailureLatch latch;
  std::atomic<int> running{0}, runs{0}, overlaps{0}, stale{0};
  std::atomic<uint64_t> written{0}, durable{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRounds; i++) {
        const uint64_t mine = ++written;
        const int result = sync.run(latch, [&] {
          overlaps += running++ != 0;
          runs++;
          const uint64_t covered = written;
          usleep(50);
          durable = covered;
          running--;
          return 0;
        });
        CHECK_EQ(result, 0);
        stale += durable < mine;  // answered by a sync that began before it was asked for
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(overlaps.load(), 0);
  CHECK_EQ(stale.load(), 0);
  CHECK(runs < kThreads * kRounds);  // shared
}

/// Making a file durable that is in use: not beside a sync of it, and not by another's.
void a_sync_of_its_own_runs_itself_and_alone() {
  FileSync sync;
  FailureLatch latch;
  std::atomic<bool> inside{false}, go{false}, own{false}, overlap{false};
  std::thread other([&] {
    sync.run(latch, [&] {
      inside = true;
      while (!go) usleep(100);
      return 0;
    });
  });
  while (!inside) usleep(100);
  std::thread maker([&] {
    CHECK_EQ(sync.run_this(latch,
                           [&] {
                             overlap = !go;
                             own = true;
                             return 0;
                           }),
             0);
  });
  usleep(20'000);
  go = true;
  other.join();
  maker.join();
  CHECK(own && !overlap);
  CHECK_EQ(sync.run_this(latch, [] { return -EIO; }), -EIO);
  CHECK_EQ(sync.run_this(latch, [] { return 0; }), -EIO);  // nothing is durable any more
}

/// The kernel tells of a lost page once per open file: no two durable writes may share one.
void durable_writes_have_open_files_of_their_own(const TempFolder& folder) {
  std::string message;
  int error = 0;
  PoolSpec spec = local(PoolSpec::Kind::kDirectory, folder.folder("durable"), 0);
  std::unique_ptr<PoolFiles> files = PoolFiles::open(spec, &message, &error);
  REQUIRE(files != nullptr);
  CHECK_EQ(files->take_durable(0), -ENOENT);
  CHECK_EQ(files->ensure(0, [](int fd) { return fsync(fd) == 0 ? 0 : -errno; }), 0);
  const int first = files->take_durable(0), second = files->take_durable(0);
  CHECK(first >= 0 && second >= 0 && first != second && first != files->descriptor(0) &&
        second != files->descriptor(0));
  struct stat one, two;
  CHECK(fstat(first, &one) == 0 && fstat(second, &two) == 0 && one.st_ino == two.st_ino);
  files->give_durable(0, second);
  files->give_durable(0, first);
  CHECK_EQ(fcntl(first, F_GETFD), -1);  // one is kept
  CHECK_EQ(files->take_durable(0), second);
  files->give_durable(0, second);
  CHECK_EQ(files->ensure(1, [](int) { return -EIO; }), -EIO);
  CHECK_EQ(files->descriptor(1), -ENOENT);
}

void one_failed_sync_fails_all_waiters() {
  FileSync sync;
  FailureLatch latch;
  std::atomic<bool> inside{false}, go{false};
  std::atomic<int> good{0}, runs{0};
  auto body = [&] {
    inside = true;
    while (!go) usleep(100);
    return runs++ == 0 ? -EIO : 0;  // the kernel tells only the first
  };
  std::vector<std::thread> threads;
  threads.emplace_back([&] { good += sync.run(latch, body) == 0; });
  while (!inside) usleep(100);
  for (int i = 0; i < 4; i++) threads.emplace_back([&] { good += sync.run(latch, body) == 0; });
  usleep(20'000);
  go = true;
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(good.load(), 0);
}

}  // namespace
}  // namespace atoll_native

int main() {
  using namespace atoll_native;
  TempFolder folder;
  ThreadPool pool(4);
  a_pool_has_one_daemon(local(PoolSpec::Kind::kDirectory, folder.folder("held"), 0));
  a_pool_has_one_daemon(local(PoolSpec::Kind::kFile, folder.file("held-file"), kSpan));
  {
    LoopDevice device(folder.file("device"), 2 * kSpan);
    if (device.path().empty()) {
      std::printf("skipped: device locking needs root and loop devices\n");
    } else {
      const PoolSpec spec = local(PoolSpec::Kind::kDevice, device.path(), 0);
      a_pool_has_one_daemon(spec);
      CHECK_EQ(open_peer(spec)->usage().capacity_bytes, 2 * kSpan - kMiB);
    }
  }
  what_does_not_fit_is_refused(folder);
  missing_files_say_so(folder, pool);
  ensuring_an_old_file_hides_nothing(folder);
  a_creation_cut_short_is_finished(folder);
  a_full_file_system_leaves_nothing(folder);
  a_full_sparse_pool_says_enospc(folder, pool);
  out_of_descriptors_is_an_errno(folder);
  lent_pages_are_nobody_elses(folder);
  sizes_are_told(folder);
  existing_files_are_counted(folder);
  one_slow_write_is_chance();
  the_gate_closes_and_backs_off();
  syncs_are_shared_and_begin_after_asked();
  a_sync_of_its_own_runs_itself_and_alone();
  durable_writes_have_open_files_of_their_own(folder);
  one_failed_sync_fails_all_waiters();
  return check_summary();
}
