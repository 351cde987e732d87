// limit-probe SOCKET BYTES [FILE]
//
// Shows what the client and its unix socket allow, to be read beside the numbers of a storage server, which it is not:
// one thread per connection receives as much as there is, answers every complete request in it by pread and pwrite on
// one plain file, and sends the answers together. No map, no snapshots, no other thread that could be asked.
// Without FILE nothing is stored either: writes are dropped, reads answered with what the buffer holds.
//
// A request that it cannot answer ends its connection: who measures sends none, and the measurement then fails.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>

#include "nbd/protocol.h"

namespace {
using namespace atoll_native::nbd;

constexpr size_t kSendBytes = 64 << 10;        // of one send: the client works on it while the next is filled
constexpr size_t kOptionBytesMax = 8 << 10;    // of one option: GO with the longest name there may be, and its list
constexpr size_t kConsumedBytesMax = 1 << 20;  // of the input before the rest moves to its start: seldom, and in cache
constexpr size_t kInputBytes = kConsumedBytesMax + kRequestBytes + kPayloadMax;
constexpr int kBacklog = 16;
constexpr uint16_t kExportFlags = kFlagHasFlags | kFlagSendFlush | kFlagSendFua | kFlagCanMultiConn;

struct Store {
  uint64_t bytes;
  int fd;  // -1: nothing is stored

  bool read(uint8_t* to, size_t length, uint64_t offset) const { return whole(pread, to, length, offset); }
  bool write(const uint8_t* from, size_t length, uint64_t offset) const { return whole(pwrite, from, length, offset); }
  bool sync() const { return fd < 0 || fdatasync(fd) == 0 || failed("fdatasync"); }

 private:
  template <typename Call, typename Byte>
  bool whole(Call call, Byte* data, size_t length, uint64_t offset) const {
    while (fd >= 0 && length > 0) {
      const ssize_t done = call(fd, data, length, static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return failed("a transfer");
      data += done, length -= done, offset += done;
    }
    return true;
  }

  static bool failed(const char* what) {
    std::perror(what);
    return false;
  }
};

class Connection {
 public:
  Connection(int socket, const Store& store) : socket_(socket), store_(store) {}
  ~Connection() { close(socket_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void run() {
    if (!negotiate()) return;
    while (answer_all() && send_all() && receive()) {
    }
  }

 private:
  bool negotiate() {
    store_be(out(kServerHelloBytes), kMagicServer, kMagicOption, uint16_t{kFlagFixedNewstyle | kFlagNoZeroes});
    if (!send_all() || !take(kClientFlagsBytes)) return false;
    for (;;) {
      const uint8_t* header = take(kOptionHeaderBytes);
      if (!header || load<uint64_t>(header) != kMagicOption) return false;
      const auto option = load<uint32_t>(header + 8), bytes = load<uint32_t>(header + 12);
      if (bytes > kOptionBytesMax || !take(bytes) || option == kOptExportName || option == kOptAbort) return false;
      const bool known = option == kOptGo || option == kOptInfo || option == kOptStructuredReply;
      if (option == kOptGo || option == kOptInfo) {
        reply_option(option, kRepInfo, uint16_t{kInfoExport}, store_.bytes, kExportFlags);
      }
      reply_option(option, known ? kRepAck : kRepErrUnsup);
      structured_ |= option == kOptStructuredReply;
      if (!send_all()) return false;
      if (option == kOptGo) return true;
    }
  }

  template <typename... Fields>
  void reply_option(uint32_t option, uint32_t type, Fields... fields) {
    constexpr uint32_t kBytes = (0 + ... + sizeof(Fields));
    store_be(out(20 + kBytes), kMagicOptionReply, option, type, kBytes, fields...);
  }

  // Answers every request that is there as a whole. False ends the connection.
  bool answer_all() {
    while (end_ - begin_ >= kRequestBytes) {
      const uint8_t* request = in_.get() + begin_;
      const auto flags = load<uint16_t>(request + 4), command = load<uint16_t>(request + 6);
      const auto offset = load<uint64_t>(request + 16);
      const auto length = load<uint32_t>(request + 24);
      if (load<uint32_t>(request) != kMagicRequest || length > kPayloadMax) return false;
      if (offset > store_.bytes || length > store_.bytes - offset) return false;
      const size_t bytes = kRequestBytes + (command == kCmdWrite ? length : 0);
      if (end_ - begin_ < bytes) return true;
      if (command == kCmdRead) {
        if (!answer_read(request, length, offset)) return false;
      } else {
        if (command != kCmdWrite && command != kCmdFlush) return false;
        if (command == kCmdWrite && !store_.write(request + kRequestBytes, length, offset)) return false;
        if ((command == kCmdFlush || (flags & kCmdFlagFua)) && !store_.sync()) return false;
        if (!room(kSimpleReplyBytes)) return false;
        store_be(out(kSimpleReplyBytes), kMagicSimpleReply, uint32_t{0}, load<uint64_t>(request + 8));
      }
      begin_ += bytes;
    }
    return true;
  }

  // The data goes from the file straight behind its header, in pieces where it is longer than one send.
  bool answer_read(const uint8_t* request, uint32_t length, uint64_t offset) {
    const auto cookie = load<uint64_t>(request + 8);
    const uint32_t header = structured_ ? kChunkHeaderBytes + kOffsetBytes : kSimpleReplyBytes;
    if (!room(header + length <= kSendBytes ? header + length : header)) return false;
    if (structured_) {
      store_be(out(header), kMagicStructuredReply, kReplyFlagDone, uint16_t{kReplyOffsetData}, cookie,
               length + kOffsetBytes, offset);
    } else {
      store_be(out(header), kMagicSimpleReply, uint32_t{0}, cookie);
    }
    while (length > 0) {
      if (!room(1)) return false;
      const auto piece = static_cast<uint32_t>(std::min<size_t>(length, kSendBytes - out_bytes_));
      if (!store_.read(out(piece), piece, offset)) return false;
      length -= piece, offset += piece;
    }
    return true;
  }

  // The next `bytes` bytes of the negotiation; null when the client is gone.
  const uint8_t* take(size_t bytes) {
    while (end_ - begin_ < bytes) {
      if (!receive()) return nullptr;
    }
    begin_ += bytes;
    return in_.get() + begin_ - bytes;
  }

  bool receive() {
    if (begin_ == end_ || begin_ > kConsumedBytesMax) {
      std::memmove(in_.get(), in_.get() + begin_, end_ - begin_);
      end_ -= begin_;
      begin_ = 0;
    }
    ssize_t got;
    do {
      got = recv(socket_, in_.get() + end_, kInputBytes - end_, 0);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) return false;
    end_ += got;
    return true;
  }

  // Sends what there is unless `bytes` more have room beside it.
  bool room(size_t bytes) { return out_bytes_ + bytes <= kSendBytes || send_all(); }

  uint8_t* out(size_t bytes) {
    out_bytes_ += bytes;
    return out_.get() + out_bytes_ - bytes;
  }

  bool send_all() {
    for (size_t sent = 0; sent < out_bytes_;) {
      const ssize_t done = send(socket_, out_.get() + sent, out_bytes_ - sent, MSG_NOSIGNAL);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) return false;
      sent += done;
    }
    out_bytes_ = 0;
    return true;
  }

  template <typename... Fields>
  static void store_be(uint8_t* to, Fields... fields) {
    ((to = atoll_native::nbd::store(to, fields)), ...);
  }

  const int socket_;
  const Store& store_;
  bool structured_ = false;
  // Not touched before it is used: most of the input is room for a request of the largest size.
  const std::unique_ptr<uint8_t[]> in_ = std::make_unique_for_overwrite<uint8_t[]>(kInputBytes);
  const std::unique_ptr<uint8_t[]> out_ = std::make_unique<uint8_t[]>(kSendBytes);
  size_t begin_ = 0, end_ = 0, out_bytes_ = 0;
};

int failed(const char* what) {
  std::perror(what);
  return 1;
}
}  // namespace

int main(int argc, char** argv) {
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  if (argc < 3 || argc > 4 || std::strlen(argv[1]) >= sizeof(address.sun_path)) {
    std::fputs("usage: limit-probe SOCKET BYTES [FILE]\n", stderr);
    return 2;
  }
  Store store = {.bytes = std::strtoull(argv[2], nullptr, 10), .fd = -1};
  if (argc == 4) {
    store.fd = open(argv[3], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (store.fd < 0 || ftruncate(store.fd, static_cast<off_t>(store.bytes)) != 0) return failed(argv[3]);
  }
  std::strcpy(address.sun_path, argv[1]);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(listener, kBacklog) != 0) {
    return failed(argv[1]);
  }
  for (;;) {
    const int socket = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    if (socket < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (socket < 0) return failed("accept");
    std::thread([socket, &store] { Connection(socket, store).run(); }).detach();
  }
}
