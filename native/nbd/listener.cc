#include "nbd/listener.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

namespace atoll_native::nbd {
namespace {

constexpr int kBacklog = 128;
// Replies of one turn fit the socket even when the client is slow to take them.
constexpr int kSendBufferBytes = 4 << 20;

int fail(int fd, int error, std::string* message, const std::string& text) {
  if (fd >= 0) close(fd);
  *message = text;
  return -error;
}

/// Whether somebody listens at a unix socket. Nobody does at one that was left behind by a process that died.
bool answers(const sockaddr_un& address) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return true;
  const bool refused =
      connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 && errno == ECONNREFUSED;
  close(fd);
  return !refused;
}

int listen_unix(const std::string& path, uint32_t mode, std::string* message) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return fail(-1, ENAMETOOLONG, message,
                "socket path must have 1 to " + std::to_string(sizeof(address.sun_path) - 1) + " bytes: " + path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(-1, errno, message, "cannot make a socket");
  // The file is created with the socket's own mode: there is no moment at which more may connect than should.
  if (fchmod(fd, mode) != 0) return fail(fd, errno, message, "cannot set the mode of a socket");
  const sockaddr* generic = reinterpret_cast<const sockaddr*>(&address);
  int bound = bind(fd, generic, sizeof(address));
  if (bound != 0 && errno == EADDRINUSE) {
    struct stat facts;
    if (lstat(path.c_str(), &facts) == 0 && !S_ISSOCK(facts.st_mode)) {
      return fail(fd, EEXIST, message, "is there and not a socket: " + path);
    }
    if (answers(address)) return fail(fd, EADDRINUSE, message, "another process serves " + path);
    unlink(path.c_str());
    bound = bind(fd, generic, sizeof(address));
  }
  if (bound != 0) {
    const int error = errno;
    return fail(fd, error, message, "cannot create " + path + ": " + std::strerror(error));
  }
  if (chmod(path.c_str(), mode) != 0 || listen(fd, kBacklog) != 0) {  // what the umask took away is given back
    const int error = errno;
    unlink(path.c_str());
    return fail(fd, error, message, "cannot listen at " + path + ": " + std::strerror(error));
  }
  return fd;
}

/// HOST:PORT, HOST a number, IPv6 in brackets. Loopback only: this server knows neither TLS nor passwords.
bool parse_tcp(std::string_view text, sockaddr_storage* address, socklen_t* length, std::string* message) {
  const size_t colon = text.rfind(':');
  uint16_t port = 0;
  bool fine = colon != std::string_view::npos;
  if (fine) {
    const std::string_view digits = text.substr(colon + 1);
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    fine = error == std::errc() && end == digits.data() + digits.size() && !digits.empty();
  }
  if (!fine) {
    *message = "address is not tcp:HOST:PORT: tcp:" + std::string(text);
    return false;
  }
  std::string host(text.substr(0, colon));
  *address = {};
  auto* v4 = reinterpret_cast<sockaddr_in*>(address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(address);
  bool loopback;
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    *length = sizeof(*v4);
    loopback = ntohl(v4->sin_addr.s_addr) >> 24 == 127;
  } else if (host.size() > 2 && host.front() == '[' && host.back() == ']' &&
             inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    *length = sizeof(*v6);
    loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
  } else {
    *message = "host must be a number such as 127.0.0.1 or [::1]: tcp:" + std::string(text);
    return false;
  }
  if (!loopback) *message = "NBD without TLS is served on loopback addresses only: tcp:" + std::string(text);
  return loopback;
}

int listen_tcp(std::string_view text, std::string* bound, std::string* message) {
  sockaddr_storage address;
  socklen_t length = 0;
  if (!parse_tcp(text, &address, &length, message)) return -EINVAL;
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return fail(-1, errno, message, "cannot make a socket");
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr* generic = reinterpret_cast<sockaddr*>(&address);
  if (bind(fd, generic, length) != 0 || listen(fd, kBacklog) != 0 || getsockname(fd, generic, &length) != 0) {
    const int error = errno;
    return fail(fd, error, message, "cannot listen at tcp:" + std::string(text) + ": " + std::strerror(error));
  }
  const uint16_t port = ntohs(address.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&address)->sin_port
                                                           : reinterpret_cast<sockaddr_in6*>(&address)->sin6_port);
  *bound = "tcp:" + std::string(text.substr(0, text.rfind(':') + 1)) + std::to_string(port);
  return fd;
}

void prepare(int fd) {
  const int on = 1;
  // Fails on unix sockets, where there is nothing to delay and no peer to lose.
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  // Beyond the system's limit where this process may, up to it else.
  const int bytes = kSendBufferBytes;
  if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0) {
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
  }
}

}  // namespace

int listen_at(const std::string& address, uint32_t mode, std::string* bound, std::string* message) {
  *bound = address;
  if (address.starts_with("unix:")) return listen_unix(address.substr(5), mode, message);
  if (address.starts_with("tcp:")) return listen_tcp(std::string_view(address).substr(4), bound, message);
  *message = "address is neither unix:/PATH nor tcp:HOST:PORT: " + address;
  return -EINVAL;
}

Listener::Listener(Reactor& reactor, int fd, std::function<void(int)> accepted)
    : reactor_(reactor), fd_(fd), accepted_(std::move(accepted)) {}

Listener::~Listener() {
  if (fd_ >= 0) close(fd_);
}

int Listener::start() { return reactor_.add(fd_, EPOLLIN, this); }

void Listener::stop() {
  if (timer_ != 0) reactor_.cancel_timer(timer_);
  timer_ = 0;
  reactor_.remove(fd_, this);
  close(fd_);
  fd_ = -1;
  reactor_.destroy_later(this);
}

void Listener::on_events(uint32_t) {
  for (uint32_t i = 0; i < kAcceptBatch; ++i) {
    const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
      prepare(fd);
      accepted_(fd);
      continue;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EAGAIN) return;
    // No descriptors or memory: the waiting connection would wake us at once again, so look away for a while.
    reactor_.modify(fd_, 0, this);
    timer_ = reactor_.add_timer(kRetryMs, [this] {
      timer_ = 0;
      reactor_.modify(fd_, EPOLLIN, this);
    });
    return;
  }
}

}  // namespace atoll_native::nbd
