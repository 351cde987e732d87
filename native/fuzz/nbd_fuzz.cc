// Feeds a connection of the NBD server with whatever the fuzzer makes up: raw bytes, options and requests that are
// nearly right, in pieces of any size, while the sink and the directory answer now or later, and hang up anywhere.
//
// Checked beside memory errors: replies of structured and extended sessions are well formed; the frontend passes on
// only what lies within the export; in the end every handle came back, every buffer is in the pool and no request is
// left.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

#include "nbd/connection.h"
#include "nbd/place.h"
#include "nbd/protocol.h"
#include "test/memory_directory.h"
#include "test/memory_sink.h"
#include "test/simple_reactor.h"

namespace {

using namespace atoll_native;
using namespace atoll_native::nbd;

constexpr uint64_t kVolumeBytes = 1u << 20;
constexpr uint32_t kBlockBytes = 4096;
constexpr uint32_t kTurnsMax = 64;         // of the reactor per action: an action is small
constexpr size_t kPayloadMade = 1u << 19;  // longest payload made up for one request

void require(bool holds) {
  if (!holds) std::abort();
}

/// Takes the fuzzer's bytes.
class Source {
 public:
  Source(const uint8_t* at, size_t bytes) : at_(at), end_(at + bytes) {}
  bool empty() const { return at_ == end_; }
  uint8_t byte() { return at_ == end_ ? 0 : *at_++; }
  uint32_t number(uint32_t bytes) {
    uint32_t value = 0;
    while (bytes-- != 0) value = value << 8 | byte();
    return value;
  }
  std::vector<uint8_t> some(size_t bytes) {
    bytes = std::min<size_t>(bytes, static_cast<size_t>(end_ - at_));
    std::vector<uint8_t> taken(at_, at_ + bytes);
    at_ += bytes;
    return taken;
  }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

template <typename T>
void put(std::vector<uint8_t>& to, T value) {
  uint8_t bytes[sizeof(T)];
  store<T>(bytes, value);
  to.insert(to.end(), bytes, bytes + sizeof(T));
}

/// What outlives one input, so that most of the time goes to the code under test; begin() makes it as new.
struct World {
  World() : sink(volume), place(reactor, sink, directory, registry, limits) {
    directory.exports["d"] = {kVolumeBytes, kBlockBytes, false, "disk", {"s", "t"}};
    directory.exports["r"] = {kVolumeBytes, kBlockBytes, true, "", {}};
    limits.connection_bytes_max = 2u << 20;
  }

  void begin() {
    std::memset(volume.bytes.data(), 0, volume.bytes.size());  // not std::fill, which is instrumented per byte
    std::memset(volume.mapped.data(), 0, volume.mapped.size());
    sink.hold = directory.hold = false;
    sink.fail = nullptr;
    listening = true;
    received.clear();
  }

  void turn() {
    for (uint32_t i = 0; i < kTurnsMax; ++i) {
      const uint64_t before = sink.submitted + received.size();
      reactor.turn(0);
      if (listening) receive();
      if (sink.submitted + received.size() == before && i > 1) break;
    }
  }

  void receive() {
    uint8_t bytes[65536];
    for (;;) {
      const ssize_t got = recv(client, bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got <= 0) return;
      received.insert(received.end(), bytes, bytes + got);
    }
  }

  void send_all(const std::vector<uint8_t>& bytes) {
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t sent = send(client, bytes.data() + at, bytes.size() - at, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) {
        at += static_cast<size_t>(sent);
      } else if (errno != EAGAIN) {
        return;
      }
      const uint64_t before = sink.submitted;
      turn();
      // A server that does not read is waiting for us.
      if (sent <= 0 && sink.submitted == before && !sink.answer_held(3) && directory.answer_held() == 0) {
        if (!listening) return;
      }
    }
  }

  MemoryVolume volume{kVolumeBytes, kBlockBytes};
  SimpleReactor reactor;
  MemorySink sink;
  MemoryDirectory directory;
  Registry registry;
  Limits limits;
  Place place;
  int client = -1;
  bool listening = true;
  std::vector<uint8_t> received;
};

std::vector<uint8_t> option(uint32_t what, const std::vector<uint8_t>& data) {
  std::vector<uint8_t> bytes;
  put<uint64_t>(bytes, kMagicOption);
  put<uint32_t>(bytes, what);
  put<uint32_t>(bytes, static_cast<uint32_t>(data.size()));
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

std::vector<uint8_t> go_data(char name) {
  std::vector<uint8_t> data;
  put<uint32_t>(data, 1);
  data.push_back(static_cast<uint8_t>(name));
  put<uint16_t>(data, 0);
  return data;
}

/// A correct negotiation. `way`: 1 simple, 2 structured with contexts, 3 extended.
void negotiate(World& world, uint32_t way, bool read_only) {
  std::vector<uint8_t> bytes;
  put<uint32_t>(bytes, kFlagFixedNewstyle | kFlagNoZeroes);
  world.send_all(bytes);
  if (way >= 2) world.send_all(option(way == 3 ? kOptExtendedHeaders : kOptStructuredReply, {}));
  if (way >= 2) {
    std::vector<uint8_t> data;
    put<uint32_t>(data, 1);
    data.push_back(read_only ? 'r' : 'd');
    const std::vector<std::string> queries = {"base:allocation", "atoll:changed-since:s"};
    put<uint32_t>(data, static_cast<uint32_t>(queries.size()));
    for (const std::string& query : queries) {
      put<uint32_t>(data, static_cast<uint32_t>(query.size()));
      data.insert(data.end(), query.begin(), query.end());
    }
    world.send_all(option(kOptSetMetaContext, data));
  }
  world.send_all(option(kOptGo, go_data(read_only ? 'r' : 'd')));
  world.turn();
  world.received.clear();
}

std::vector<uint8_t> request(Source& source, bool extended) {
  std::vector<uint8_t> bytes;
  const uint8_t shape = source.byte();
  const uint16_t type = shape & 7;
  uint16_t flags = source.byte() & 0x3f;
  if (extended && type == kCmdWrite && (shape & 8) == 0) flags |= kCmdFlagPayloadLen;
  put<uint32_t>(bytes, extended ? kMagicExtendedRequest : kMagicRequest);
  put<uint16_t>(bytes, flags);
  put<uint16_t>(bytes, (shape & 0xf0) == 0xf0 ? static_cast<uint16_t>(source.number(2)) : type);
  put<uint64_t>(bytes, source.byte());
  put<uint64_t>(bytes, (shape & 16) != 0 ? source.number(4) : uint64_t{source.number(2)} << 5);
  const uint32_t length = (shape & 32) != 0 ? source.number(4) : source.number(2) << ((shape & 64) != 0 ? 5 : 0);
  if (extended) {
    put<uint64_t>(bytes, length);
  } else {
    put<uint32_t>(bytes, length);
  }
  const bool payload = extended ? (flags & kCmdFlagPayloadLen) != 0 : type == kCmdWrite;
  if (payload && length <= kPayloadMade) bytes.resize(bytes.size() + length, shape);
  return bytes;
}

/// Walks all that the server said in transmission; the last message may be cut.
void check_replies(const std::vector<uint8_t>& bytes, bool extended) {
  size_t at = 0;
  while (bytes.size() - at >= (extended ? kExtendedChunkHeaderBytes : kSimpleReplyBytes)) {
    const uint8_t* message = bytes.data() + at;
    const uint32_t magic = load<uint32_t>(message);
    if (magic == kMagicSimpleReply) {
      require(!extended && load<uint32_t>(message + 4) == 0);  // errors come as chunks here
      at += kSimpleReplyBytes;
      continue;
    }
    require(magic == (extended ? kMagicExtendedReply : kMagicStructuredReply));
    const size_t head = extended ? kExtendedChunkHeaderBytes : kChunkHeaderBytes;
    if (bytes.size() - at < head) return;
    const uint16_t flags = load<uint16_t>(message + 4);
    const uint16_t type = load<uint16_t>(message + 6);
    const uint64_t payload = extended ? load<uint64_t>(message + 24) : load<uint32_t>(message + 16);
    require(flags <= 1 && payload <= kPayloadMax + kOffsetBytes);
    switch (type) {
      case kReplyNone:
        require(payload == 0 && flags == 1);
        break;
      case kReplyOffsetData:
        require(payload > kOffsetBytes);
        break;
      case kReplyOffsetHole:
        require(payload == kHolePayloadBytes);
        break;
      case kReplyBlockStatus:
        require(!extended && payload >= 12 && payload % 8 == 4);
        break;
      case kReplyBlockStatusExt:
        require(extended && payload >= 24 && payload % 16 == 8);
        break;
      case kReplyError:
        require(payload >= kErrorPayloadBytes && flags == 1);
        break;
      case kReplyErrorOffset:
        require(payload >= kErrorOffsetPayloadBytes);
        break;
      default:
        require(false);
    }
    if (bytes.size() - at - head < payload) return;
    at += head + payload;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Source source(data, size);
  static World& world = *new World;
  signal(SIGPIPE, SIG_IGN);  // as in the daemon
  world.begin();
  int ends[2];
  require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
  world.client = ends[0];
  const uint8_t way = source.byte() & 3;
  const uint8_t mood = source.byte();
  world.place.count++;
  Connection::start(world.place, ends[1]);
  if (way != 0) negotiate(world, way, (mood & 1) != 0);
  world.sink.hold = (mood & 2) != 0;
  world.directory.hold = (mood & 4) != 0;
  world.listening = (mood & 8) == 0;
  if ((mood & 16) != 0) {
    world.sink.fail = [](const Request& one) { return one.offset / kBlockBytes % 3 == 1 ? EIO : 0; };
  }
  while (!source.empty()) {
    const uint8_t action = source.byte();
    switch (action & 7) {
      case 0:
        world.send_all(source.some(action >> 3));
        break;
      case 1:
        world.send_all(option(source.byte() & 15, source.some(action >> 3)));
        break;
      case 2:
        world.sink.answer_held(action >> 3);
        break;
      case 3:
        world.directory.answer_held();
        break;
      case 4: {
        // Several in one piece.
        std::vector<uint8_t> many;
        for (uint32_t i = 0; i <= (action >> 6); ++i) {
          const std::vector<uint8_t> one = request(source, way == 3);
          many.insert(many.end(), one.begin(), one.end());
        }
        world.send_all(many);
        break;
      }
      case 5:
        if (action == 0xfd) shutdown(world.client, SHUT_WR);
        world.listening = true;
        break;
      default:
        world.send_all(request(source, way == 3));
        break;
    }
    world.turn();
  }
  if ((mood & 32) != 0) {
    for (const auto& [id, connection] : std::unordered_map(world.place.connections)) connection->shut_down();
    world.turn();
  }
  if (world.listening) world.receive();
  if (way >= 2) check_replies(world.received, way == 3);
  close(world.client);
  for (uint32_t i = 0;
       i < 4096 && (!world.place.connections.empty() || world.directory.held() != 0 || world.sink.held() != 0); ++i) {
    world.reactor.turn(0);
    world.sink.answer_held(i);
    world.directory.answer_held();
  }
  world.reactor.turn(0);
  world.reactor.turn(0);
  require(world.place.connections.empty() && world.registry.count() == 0);
  require(world.place.count.load() == 0 && world.place.pool.taken() == 0);
  require(world.sink.in_flight == 0 && world.directory.open_handles() == 0 && world.directory.wrong_closes() == 0);
  return 0;
}
