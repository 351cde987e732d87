// What the tests of block peers and asynchronous I/O share: a folder of their own, a loop that waits for completions as
// a reactor does, and a random sequence.
#pragma once
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "block/block.h"
#include "block/factory.h"
#include "io/async_io.h"
#include "test/check.h"

namespace atoll_native {

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;

/// A folder that goes when the test does.
class TempFolder {
 public:
  TempFolder() {
    const char* base = getenv("TMPDIR");
    std::string pattern = std::string(base != nullptr ? base : "/tmp") + "/atoll-block-XXXXXX";
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const char* name) const { return path_ + "/" + name; }
  std::string folder(const char* name) const {
    const std::string path = file(name);
    mkdir(path.c_str(), 0700);
    return path;
  }

 private:
  std::string path_;
};

/// An AsyncIo with the loop around it that a reactor has: sleeps in epoll (edge triggered), reaps, flushes.
class TestLoop {
 public:
  static constexpr int kStuckMs = 20000;  // a completion that does not come is a failed test, not a hung one

  explicit TestLoop(ThreadPool& pool, AsyncIo::Options options = {}) : io(pool, options) {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    epoll_event event = {};
    event.events = EPOLLIN | EPOLLET;
    REQUIRE(epoll_ctl(epoll_, EPOLL_CTL_ADD, io.event_fd(), &event) == 0);
  }
  ~TestLoop() {
    io.drain();
    close(epoll_);
  }
  /// Turns until `over()` says so; false when nothing came for kStuckMs.
  template <typename Over>
  bool run_until(Over over) {
    for (;;) {
      io.reap();
      if (over()) return true;
      io.flush_submissions();
      epoll_event event;
      if (epoll_wait(epoll_, &event, 1, kStuckMs) == 0) return false;
    }
  }

  AsyncIo io;

 private:
  int epoll_ = -1;
};

/// Runs one operation to its end; errno or 0.
inline int run_op(BlockPeer& peer, TestLoop& loop, BlockIo& io) {
  struct State {
    bool done = false;
    bool submitting = true;
    bool inside = false;
  } state;
  io.owner = &state;
  io.done = [](BlockIo* ended) {
    auto* s = static_cast<State*>(ended->owner);
    s->done = true;
    s->inside = s->submitting;
  };
  peer.submit(&io, loop.io);
  state.submitting = false;
  REQUIRE(loop.run_until([&] { return state.done; }));
  CHECK(!state.inside);  // never inside submit
  return io.error;
}

inline int async_read(BlockPeer& peer, TestLoop& loop, uint64_t address, uint8_t* buffer, uint64_t length) {
  BlockIo io{.op = BlockOp::kRead, .address = address, .length = length, .buffer = buffer};
  return run_op(peer, loop, io);
}

inline int async_write(BlockPeer& peer, TestLoop& loop, uint64_t address, const uint8_t* buffer, uint64_t length,
                       BlockOp op = BlockOp::kWrite) {
  BlockIo io{.op = op, .address = address, .length = length, .buffer = const_cast<uint8_t*>(buffer)};
  return run_op(peer, loop, io);
}

/// As the volume peer does: inline when that works, else asynchronously.
inline int any_read(BlockPeer& peer, TestLoop& loop, uint64_t address, uint8_t* buffer, uint32_t length) {
  const int result = peer.read_now(address, buffer, length);
  return result == -EAGAIN ? async_read(peer, loop, address, buffer, length) : -result;
}

inline int any_write(BlockPeer& peer, TestLoop& loop, uint64_t address, const uint8_t* buffer, uint32_t length) {
  const int result = peer.write_now(address, buffer, length);
  return result == -EAGAIN ? async_write(peer, loop, address, buffer, length) : -result;
}

/// xorshift64*: the same sequence each run.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435769u + 88172645463325252u) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 2685821657736338717u;
  }
  uint64_t below(uint64_t limit) { return next() % limit; }
  void fill(uint8_t* bytes, uint64_t length) {
    for (; length >= sizeof(uint64_t); bytes += sizeof(uint64_t), length -= sizeof(uint64_t)) {
      const uint64_t value = next();
      memcpy(bytes, &value, sizeof value);
    }
    for (; length > 0; length--) *bytes++ = static_cast<uint8_t>(next() >> 32);
  }

 private:
  uint64_t state_;
};

inline bool all_zero(const uint8_t* bytes, uint64_t length) {
  return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

inline std::shared_ptr<BlockPeer> open_peer(const PoolSpec& spec) {
  std::string message;
  int error = 0;
  std::shared_ptr<BlockPeer> peer = make_block_peer(spec, &message, &error);
  if (peer == nullptr) std::printf("%s (errno %d)\n", message.c_str(), error);
  REQUIRE(peer != nullptr);
  return peer;
}

/// Of a spec that must not open: its errno.
inline int open_error(const PoolSpec& spec, std::string* message) {
  int error = 0;
  return make_block_peer(spec, message, &error) == nullptr ? error : 0;
}

}  // namespace atoll_native
