// A mount without a kernel: libfuse takes /dev/fd/N for a /dev/fuse that is open already, and here that is one end of a
// socket pair. `FakeKernel` sends requests as the kernel does, a packet each, and reads the answers; `ScriptedNames`
// answers what the control side is asked.
#pragma once
#include <linux/fuse.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "fuse/mount.h"
#include "test/volume_fixture.h"

namespace atoll_native::fuse {

/// Answers at once by `rule`; what it does not answer waits in `asked`.
class ScriptedNames final : public Names {
 public:
  std::function<std::optional<Answer>(const Question&)> rule;
  Mount* mount = nullptr;

  void ask(Question question) override {
    {
      const std::lock_guard lock(mutex_);
      counts_[question.ask]++;
    }
    if (question.ask == Ask::kRelease) return;
    std::optional<Answer> answer = rule ? rule(question) : std::nullopt;
    if (answer.has_value()) {
      mount->answer(question.token, std::move(*answer));
      return;
    }
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(question));
    changed_.notify_all();
  }
  void live() override {
    const std::lock_guard lock(mutex_);
    live_ = true;
    changed_.notify_all();
  }
  void ended() override {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  void until_live() {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, std::chrono::seconds(10), [this] { return live_; }));
  }
  Question next() {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, std::chrono::seconds(10), [this] { return !waiting_.empty(); }));
    Question question = std::move(waiting_.front());
    waiting_.pop_front();
    return question;
  }
  uint32_t count(Ask ask) {
    const std::lock_guard lock(mutex_);
    return counts_[ask];
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Question> waiting_;
  std::map<Ask, uint32_t> counts_;
  bool live_ = false;
  bool ended_ = false;
};

struct Reply {
  int error = 0;
  std::vector<uint8_t> body;
  template <typename T>
  T as() const {
    T value = {};
    if (CHECK(body.size() >= sizeof(T))) std::memcpy(&value, body.data(), sizeof(T));
    return value;
  }
};

class FakeKernel {
 public:
  static constexpr uint32_t kWaitMs = 10'000;

  explicit FakeKernel(int fd) : fd_(fd) {}
  ~FakeKernel() { close(fd_); }

  uint64_t send(uint32_t opcode, uint64_t node, const void* body, size_t bytes, const void* more = nullptr,
                size_t more_bytes = 0) {
    fuse_in_header head = {};
    head.len = static_cast<uint32_t>(sizeof head + bytes + more_bytes);
    head.opcode = opcode;
    head.unique = next_ += 2;
    head.nodeid = node;
    std::vector<uint8_t> packet(head.len);
    std::memcpy(packet.data(), &head, sizeof head);
    if (bytes != 0) std::memcpy(packet.data() + sizeof head, body, bytes);
    if (more_bytes != 0) std::memcpy(packet.data() + sizeof head + bytes, more, more_bytes);
    raw(packet.data(), packet.size());
    return head.unique;
  }
  template <typename T>
  uint64_t send(uint32_t opcode, uint64_t node, const T& body) {
    return send(opcode, node, &body, sizeof body);
  }
  void raw(const void* packet, size_t bytes) {
    CHECK_EQ(::send(fd_, packet, bytes, MSG_NOSIGNAL), static_cast<ssize_t>(bytes));
  }
  /// The answer to a request; others are kept.
  Reply reply(uint64_t unique) {
    while (!replies_.contains(unique)) REQUIRE(receive(kWaitMs));
    Reply reply = std::move(replies_[unique]);
    replies_.erase(unique);
    return reply;
  }
  template <typename T>
  Reply call(uint32_t opcode, uint64_t node, const T& body) {
    return reply(send(opcode, node, body));
  }
  Reply call(uint32_t opcode, uint64_t node, const std::string& name) {
    return reply(send(opcode, node, name.c_str(), name.size() + 1));
  }
  /// Whether there is no answer to be read, nor will be for a moment.
  bool silent() { return replies_.empty() && !receive(50); }

  void shake_hands() {
    fuse_init_in in = {};
    in.major = FUSE_KERNEL_VERSION;
    in.minor = FUSE_KERNEL_MINOR_VERSION;
    in.max_readahead = 128 << 10;
    in.flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_MAX_PAGES;
    CHECK_EQ(call(FUSE_INIT, 0, in).error, 0);
  }
  uint64_t open(uint64_t node) {
    const Reply reply = call(FUSE_OPEN, node, fuse_open_in{.flags = O_RDWR, .open_flags = 0});
    CHECK_EQ(reply.error, 0);
    return reply.as<fuse_open_out>().fh;
  }
  Reply read(uint64_t node, uint64_t fh, uint64_t offset, uint32_t size) {
    fuse_read_in in = {};
    in.fh = fh;
    in.offset = offset;
    in.size = size;
    return call(FUSE_READ, node, in);
  }
  uint64_t send_write(uint64_t node, uint64_t fh, uint64_t offset, const std::vector<uint8_t>& bytes,
                      uint32_t write_flags = 0) {
    fuse_write_in in = {};
    in.write_flags = write_flags;
    in.fh = fh;
    in.offset = offset;
    in.size = static_cast<uint32_t>(bytes.size());
    return send(FUSE_WRITE, node, &in, sizeof in, bytes.data(), bytes.size());
  }
  Reply write(uint64_t node, uint64_t fh, uint64_t offset, const std::vector<uint8_t>& bytes) {
    return reply(send_write(node, fh, offset, bytes));
  }

 private:
  bool receive(uint32_t wait_ms) {
    pollfd poll_for = {.fd = fd_, .events = POLLIN, .revents = 0};
    if (poll(&poll_for, 1, static_cast<int>(wait_ms)) != 1) return false;
    std::vector<uint8_t> packet(2 << 20);
    const ssize_t got = recv(fd_, packet.data(), packet.size(), 0);
    if (got < static_cast<ssize_t>(sizeof(fuse_out_header))) return false;
    fuse_out_header head;
    std::memcpy(&head, packet.data(), sizeof head);
    CHECK_EQ(static_cast<size_t>(head.len), static_cast<size_t>(got));
    Reply& reply = replies_[head.unique];
    reply.error = -head.error;
    reply.body.assign(packet.begin() + sizeof head, packet.begin() + got);
    return true;
  }

  const int fd_;
  uint64_t next_ = 0;
  std::map<uint64_t, Reply> replies_;
};

/// A core with one volume of 1 MiB, node kNode, that is mounted.
struct MountFixture {
  static constexpr uint64_t kNode = 10;
  static constexpr uint32_t kHandle = 1;
  static constexpr uint64_t kSize = 1 << 20;

  explicit MountFixture(uint32_t reactors = 1) : bench(reactors) {
    bench.mapper->open_volume(kHandle, kSize, 16, bench.memory_pool());
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    kernel = std::make_unique<FakeKernel>(ends[0]);
    std::vector<Mount::Place> places;
    for (uint32_t i = 0; i < reactors; i++) places.push_back({&bench.reactor(i), &bench.reactor(i).volumes()});
    MountOptions options;
    options.path = "/dev/fd/" + std::to_string(ends[1]);
    mount = std::make_unique<Mount>(bench.core->segment(), std::move(places), names, options);
    names.mount = mount.get();
    names.rule = [this](const Question& question) { return usual(question); };
    std::string message;
    if (!CHECK_EQ(mount->start(&message), 0)) std::printf("  %s\n", message.c_str());
    kernel->shake_hands();
    names.until_live();
  }
  ~MountFixture() {
    mount->stop();
    mount.reset();
  }
  static std::optional<Answer> usual(const Question& question) {
    Answer answer;
    if (question.ask == Ask::kOpen) {
      answer.handle = kHandle;
      return answer;
    }
    return std::nullopt;
  }

  Bench bench;
  ScriptedNames names;
  std::unique_ptr<FakeKernel> kernel;
  std::unique_ptr<Mount> mount;
};

}  // namespace atoll_native::fuse
