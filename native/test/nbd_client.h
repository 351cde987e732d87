// A blocking NBD client that does exactly what it is told, right or wrong; and a server of memory to aim it at.
#pragma once
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "memory_directory.h"
#include "memory_sink.h"
#include "nbd/protocol.h"
#include "nbd/server.h"
#include "simple_reactor.h"

namespace atoll_native::nbd {

using Bytes = std::vector<uint8_t>;

template <typename T>
void put(Bytes& to, T value) {
  uint8_t bytes[sizeof(T)];
  store<T>(bytes, value);
  to.insert(to.end(), bytes, bytes + sizeof(T));
}
inline void put_text(Bytes& to, const std::string& text) { to.insert(to.end(), text.begin(), text.end()); }

inline Bytes option_bytes(uint32_t option, const Bytes& data) {
  Bytes bytes;
  put<uint64_t>(bytes, kMagicOption);
  put<uint32_t>(bytes, option);
  put<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

/// Data of INFO and GO.
inline Bytes info_bytes(const std::string& name, const std::vector<uint16_t>& infos = {}) {
  Bytes data;
  put<uint32_t>(data, static_cast<uint32_t>(name.size()));
  put_text(data, name);
  put<uint16_t>(data, static_cast<uint16_t>(infos.size()));
  for (uint16_t info : infos) put<uint16_t>(data, info);
  return data;
}

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
inline Bytes context_bytes(const std::string& name, const std::vector<std::string>& queries) {
  Bytes data;
  put<uint32_t>(data, static_cast<uint32_t>(name.size()));
  put_text(data, name);
  put<uint32_t>(data, static_cast<uint32_t>(queries.size()));
  for (const std::string& query : queries) {
    put<uint32_t>(data, static_cast<uint32_t>(query.size()));
    put_text(data, query);
  }
  return data;
}

struct OptionReplyMessage {
  uint32_t option = 0;
  uint32_t type = 0;
  Bytes data;
  std::string text() const { return std::string(data.begin(), data.end()); }
};

/// One message of the transmission phase.
struct ReplyMessage {
  bool simple = false;
  bool extended = false;
  uint16_t flags = 0;
  uint16_t type = 0;
  uint32_t error = 0;  // simple, or of an error chunk
  uint64_t cookie = 0;
  uint64_t offset = 0;  // extended
  Bytes payload;
  bool done() const { return simple || (flags & kReplyFlagDone) != 0; }
};

/// All of a reply put together.
struct Answer {
  uint32_t error = 0;
  Bytes data;           // read
  uint64_t holes = 0;   // bytes told as holes
  uint32_t chunks = 0;  // content chunks
  struct ContextExtents {
    uint32_t id;
    std::vector<std::pair<uint64_t, uint64_t>> extents;  // length, flags
  };
  std::vector<ContextExtents> contexts;
};

class Client {
 public:
  static constexpr int kTimeoutMs = 20'000;  // nothing here takes long but on a machine that is very busy

  Client() = default;
  explicit Client(const std::string& path) { connect_to(path); }
  ~Client() { hang_up(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connect_to(const std::string& path) {
    fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    return connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  void hang_up() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
  }
  void stop_sending() { shutdown(fd_, SHUT_WR); }
  int fd() const { return fd_; }

  /// Takes a reply that comes while a request is being sent. False: to be sent no further.
  using Meanwhile = std::function<bool()>;
  /// False when the server closed, or takes nothing for kTimeoutMs. A server may wait until the replies it has sent are
  /// taken before it takes more: with large ones outstanding, `meanwhile` has to take them.
  bool send_bytes(const Bytes& bytes, const Meanwhile& meanwhile = {}) {
    return send_bytes(bytes.data(), bytes.size(), meanwhile);
  }
  bool send_bytes(const uint8_t* at, size_t bytes, const Meanwhile& meanwhile = {}) {
    while (bytes != 0) {
      const ssize_t sent = send(fd_, at, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent > 0) {
        at += sent;
        bytes -= static_cast<size_t>(sent);
        continue;
      }
      if (sent == 0 || (errno != EAGAIN && errno != EINTR)) return false;
      pollfd wait = {fd_, static_cast<short>(POLLOUT | (meanwhile ? POLLIN : 0)), 0};
      if (::poll(&wait, 1, kTimeoutMs) == 0) return false;
      if ((wait.revents & POLLIN) != 0 && !meanwhile()) return false;
    }
    return true;
  }
  /// False at the end of the stream, or when nothing comes for kTimeoutMs.
  bool receive(uint8_t* at, size_t bytes) {
    while (bytes != 0) {
      if (!readable(kTimeoutMs)) return false;
      ssize_t got = recv(fd_, at, bytes, 0);
      if (got <= 0) return false;
      at += got;
      bytes -= static_cast<size_t>(got);
    }
    return true;
  }
  bool readable(int wait_ms) {
    pollfd wait = {fd_, POLLIN, 0};
    return ::poll(&wait, 1, wait_ms) == 1;
  }
  /// The server closed, and sent nothing before.
  bool closed() {
    uint8_t byte;
    if (!readable(kTimeoutMs)) return false;
    return recv(fd_, &byte, 1, 0) <= 0;
  }
  template <typename T>
  T number() {
    uint8_t bytes[sizeof(T)] = {};
    alive_ = receive(bytes, sizeof(bytes)) && alive_;
    return load<T>(bytes);
  }
  bool alive() const { return alive_; }

  // ---- negotiation
  /// Takes the greeting and answers with flags.
  bool greet(uint32_t flags = kFlagFixedNewstyle | kFlagNoZeroes) {
    const bool fine = number<uint64_t>() == kMagicServer && number<uint64_t>() == kMagicOption &&
                      number<uint16_t>() == (kFlagFixedNewstyle | kFlagNoZeroes);
    Bytes bytes;
    put<uint32_t>(bytes, flags);
    return send_bytes(bytes) && fine;
  }
  bool option(uint32_t option, const Bytes& data = {}) { return send_bytes(option_bytes(option, data)); }
  OptionReplyMessage option_reply() {
    OptionReplyMessage reply;
    if (number<uint64_t>() != kMagicOptionReply) alive_ = false;
    reply.option = number<uint32_t>();
    reply.type = number<uint32_t>();
    const uint32_t bytes = number<uint32_t>();
    if (alive_ && bytes < (64u << 20)) {
      reply.data.resize(bytes);
      alive_ = receive(reply.data.data(), bytes);
    }
    return reply;
  }
  /// Sends an option and returns its last reply; those before it go to `all`.
  OptionReplyMessage ask(uint32_t what, const Bytes& data = {}, std::vector<OptionReplyMessage>* all = nullptr) {
    option(what, data);
    for (;;) {
      OptionReplyMessage reply = option_reply();
      if (reply.type == kRepAck && what == kOptStructuredReply) structured_ = true;
      if (reply.type == kRepAck && what == kOptExtendedHeaders) structured_ = extended_ = true;
      if (!alive_ || reply.type == kRepAck || (reply.type & 0x80000000) != 0) return reply;
      if (all != nullptr) all->push_back(reply);
    }
  }
  struct Wishes {
    bool structured = true;
    bool extended = false;
    std::vector<std::string> contexts;
  };
  /// Negotiates until transmission. False when something was refused.
  bool go(const std::string& name, const Wishes& wishes) {
    if (!greet()) return false;
    if (wishes.structured && ask(kOptStructuredReply).type != kRepAck) return false;
    if (wishes.extended && ask(kOptExtendedHeaders).type != kRepAck) return false;
    if (!wishes.contexts.empty()) {
      std::vector<OptionReplyMessage> all;
      if (ask(kOptSetMetaContext, context_bytes(name, wishes.contexts), &all).type != kRepAck) return false;
      if (all.size() != wishes.contexts.size()) return false;
    }
    return go_on(name);
  }
  bool go_on(const std::string& name) {
    std::vector<OptionReplyMessage> all;
    if (ask(kOptGo, info_bytes(name), &all).type != kRepAck) return false;
    for (const OptionReplyMessage& reply : all) {
      if (load<uint16_t>(reply.data.data()) != kInfoExport) continue;
      size = load<uint64_t>(reply.data.data() + 2);
      flags = load<uint16_t>(reply.data.data() + 10);
    }
    return true;
  }
  uint64_t size = 0;
  uint16_t flags = 0;

  // ---- transmission
  Bytes request_bytes(uint16_t type, uint64_t cookie, uint64_t offset, uint64_t length,
                      uint16_t command_flags = 0) const {
    Bytes bytes;
    put<uint32_t>(bytes, extended_ ? kMagicExtendedRequest : kMagicRequest);
    put<uint16_t>(bytes, command_flags);
    put<uint16_t>(bytes, type);
    put<uint64_t>(bytes, cookie);
    put<uint64_t>(bytes, offset);
    if (extended_) {
      put<uint64_t>(bytes, length);
    } else {
      put<uint32_t>(bytes, static_cast<uint32_t>(length));
    }
    return bytes;
  }
  bool request(uint16_t type, uint64_t cookie, uint64_t offset, uint64_t length, uint16_t command_flags = 0) {
    return send_bytes(request_bytes(type, cookie, offset, length, command_flags));
  }
  bool write_request(uint64_t cookie, uint64_t offset, const Bytes& data, uint16_t command_flags = 0,
                     const Meanwhile& meanwhile = {}) {
    if (extended_) command_flags |= kCmdFlagPayloadLen;
    Bytes bytes = request_bytes(kCmdWrite, cookie, offset, data.size(), command_flags);
    bytes.insert(bytes.end(), data.begin(), data.end());
    return send_bytes(bytes, meanwhile);
  }
  /// Next message. `read_bytes`: data of a simple reply to a read, by cookie.
  ReplyMessage reply(const std::function<uint64_t(uint64_t cookie)>& read_bytes = {}) {
    ReplyMessage reply;
    const uint32_t magic = number<uint32_t>();
    uint64_t bytes = 0;
    if (magic == kMagicSimpleReply) {
      reply.simple = true;
      reply.error = number<uint32_t>();
      reply.cookie = number<uint64_t>();
      if (reply.error == 0 && read_bytes) bytes = read_bytes(reply.cookie);
    } else if (magic == kMagicStructuredReply || magic == kMagicExtendedReply) {
      reply.extended = magic == kMagicExtendedReply;
      reply.flags = number<uint16_t>();
      reply.type = number<uint16_t>();
      reply.cookie = number<uint64_t>();
      if (reply.extended) reply.offset = number<uint64_t>();
      bytes = reply.extended ? number<uint64_t>() : number<uint32_t>();
    } else {
      alive_ = false;
    }
    if (!alive_ || bytes > kPayloadMax + 64) {
      alive_ = false;
      return reply;
    }
    reply.payload.resize(bytes);
    alive_ = receive(reply.payload.data(), bytes);
    if (alive_ && !reply.simple && (reply.type & 0x8000) != 0 && bytes >= 6)
      reply.error = load<uint32_t>(reply.payload.data());
    return reply;
  }
  /// Sends one request and puts its whole reply together; nothing else may be in flight.
  Answer call(uint16_t type, uint64_t offset, uint64_t length, uint16_t command_flags = 0,
              const Bytes* data = nullptr) {
    const uint64_t cookie = next_cookie_++;
    if (data != nullptr) {
      write_request(cookie, offset, *data, command_flags);
    } else {
      request(type, cookie, offset, length, command_flags);
    }
    Answer answer;
    if (type == kCmdRead && length <= 2 * kPayloadMax) answer.data.assign(length, 0xEE);
    for (;;) {
      ReplyMessage message = reply([&](uint64_t) { return type == kCmdRead ? length : 0; });
      if (!alive_ || message.cookie != cookie || !add(answer, message, offset)) {
        alive_ = false;
        answer.error = UINT32_MAX;
        return answer;
      }
      if (message.done()) return answer;
    }
  }
  /// Adds a message to an answer; false when it breaks the protocol.
  bool add(Answer& answer, const ReplyMessage& message, uint64_t offset) {
    if (message.simple) {
      answer.error = message.error;
      if (!message.payload.empty()) {
        answer.data = message.payload;
        answer.chunks++;
      }
      return !extended_;
    }
    if (message.extended != extended_ || !structured_ || (extended_ && message.offset != offset)) return false;
    const Bytes& payload = message.payload;
    switch (message.type) {
      case kReplyNone:
        return payload.empty() && message.done();
      case kReplyOffsetData: {
        if (payload.size() < 9) return false;
        const uint64_t at = load<uint64_t>(payload.data());
        const uint64_t bytes = payload.size() - 8;
        if (at < offset || at - offset > answer.data.size() || bytes > answer.data.size() - (at - offset)) return false;
        std::memcpy(answer.data.data() + (at - offset), payload.data() + 8, bytes);
        answer.chunks++;
        return true;
      }
      case kReplyOffsetHole: {
        if (payload.size() != 12) return false;
        const uint64_t at = load<uint64_t>(payload.data());
        const uint32_t bytes = load<uint32_t>(payload.data() + 8);
        if (bytes == 0 || at < offset || at - offset > answer.data.size() || bytes > answer.data.size() - (at - offset))
          return false;
        std::memset(answer.data.data() + (at - offset), 0, bytes);
        answer.holes += bytes;
        answer.chunks++;
        return true;
      }
      case kReplyBlockStatus:
      case kReplyBlockStatusExt: {
        const bool wide = message.type == kReplyBlockStatusExt;
        const size_t head = wide ? 8 : 4;
        const size_t each = wide ? 16 : 8;
        if (wide != extended_ || payload.size() < head + each || (payload.size() - head) % each != 0) return false;
        if (wide && load<uint32_t>(payload.data() + 4) != (payload.size() - head) / each) return false;
        Answer::ContextExtents context = {load<uint32_t>(payload.data()), {}};
        for (size_t at = head; at < payload.size(); at += each) {
          const uint8_t* extent = payload.data() + at;
          if (wide) {
            context.extents.emplace_back(load<uint64_t>(extent), load<uint64_t>(extent + 8));
          } else {
            context.extents.emplace_back(load<uint32_t>(extent), load<uint32_t>(extent + 4));
          }
        }
        answer.contexts.push_back(context);
        return true;
      }
      case kReplyError:
      case kReplyErrorOffset:
        if (payload.size() < (message.type == kReplyError ? 6u : 14u) || message.error == 0) return false;
        answer.error = message.error;
        return true;
      default:
        return false;
    }
  }

 private:
  int fd_ = -1;
  bool alive_ = true;
  bool structured_ = false;
  bool extended_ = false;
  uint64_t next_cookie_ = 0x1122334400000001;
};

/// A server of memory on its own reactors and socket.
class Fixture {
 public:
  struct Plan {
    uint64_t size = 8u << 20;
    uint32_t block = 65536;
    uint32_t reactors = 1;
    Limits limits = {};
  };
  Fixture() : Fixture(Plan()) {}
  explicit Fixture(const Plan& plan) : volume(plan.size, plan.block) {
    std::string pattern = (std::filesystem::temp_directory_path() / "atoll-nbd-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    folder_ = pattern;
    path = folder_ + "/nbd.sock";
    directory.exports["disk"] = {plan.size, plan.block, false, "a disk", {"monday", "tuesday"}};
    directory.exports["disk@monday"] = {plan.size, plan.block, true, "", {}};
    volume.locked = plan.reactors > 1;
    std::vector<Server::Seat> seats;
    for (uint32_t i = 0; i < plan.reactors; ++i) {
      reactors.push_back(std::make_unique<SimpleReactor>(Reactor::Options{i, 0}));
      sinks.push_back(std::make_unique<MemorySink>(volume));
      seats.push_back({reactors.back().get(), sinks.back().get()});
      reactors.back()->start();
    }
    server = std::make_unique<Server>(seats, directory, plan.limits);
    std::string bound, message;
    REQUIRE(server->listen("unix:" + path, 0600, &bound, &message) > 0);
  }
  ~Fixture() {
    on_reactor([this] {
      sink().hold = false;
      while (sink().answer_held()) {
      }
    });
    directory.hold = false;
    directory.answer_held();
    CHECK(server->stop());
    // Every handle that was opened came back, once.
    CHECK_EQ(directory.open_handles(), 0u);
    CHECK_EQ(directory.wrong_closes(), 0u);
    for (auto& reactor : reactors) reactor->stop();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  MemorySink& sink(size_t i = 0) { return *sinks[i]; }
  /// Runs on a reactor's thread and waits.
  void on_reactor(const std::function<void()>& task, size_t i = 0) {
    std::promise<void> done;
    reactors[i]->post([&] {
      task();
      done.set_value();
    });
    done.get_future().wait();
  }
  /// Waits until `holds` on the reactor's thread. False after a while.
  bool soon(const std::function<bool()>& holds) {
    for (int i = 0; i < Client::kTimeoutMs / 2; ++i) {
      bool now = false;
      on_reactor([&] { now = holds(); });
      if (now) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }
  bool serves() {
    Client client(path);
    return client.go("disk", {}) && client.call(kCmdRead, 0, 512).error == 0;
  }

  std::string path;
  MemoryVolume volume;
  MemoryDirectory directory;
  std::vector<std::unique_ptr<SimpleReactor>> reactors;
  std::vector<std::unique_ptr<MemorySink>> sinks;
  std::unique_ptr<Server> server;

 private:
  std::string folder_;
};

}  // namespace atoll_native::nbd
