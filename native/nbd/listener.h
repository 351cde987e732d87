// A listening socket on a reactor: accepts, and hands each connection to the server.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "reactor/reactor.h"

namespace atoll_native::nbd {

/// `unix:/path` or `tcp:HOST:PORT` with a numeric loopback HOST. A listening, non-blocking socket, or -errno and a
/// `*message` for people. `*bound`: the address with the port that was chosen for port 0. A unix socket is created with
/// `mode`; a stale one, which nobody answers at, is replaced.
int listen_at(const std::string& address, uint32_t mode, std::string* bound, std::string* message);

class Listener final : public EventHandler {
 public:
  // Connections accepted per turn, so that a flood of them leaves time for those that are there.
  static constexpr uint32_t kAcceptBatch = 16;
  // Without file descriptors, accepting is tried again after this.
  static constexpr uint32_t kRetryMs = 100;

  /// Takes over `fd`. `accepted` gets connected, non-blocking sockets.
  Listener(Reactor& reactor, int fd, std::function<void(int)> accepted);
  ~Listener() override;

  /// On the reactor's thread. 0 or -errno.
  int start();
  /// Ends; destroys itself.
  void stop();
  void on_events(uint32_t events) override;

 private:
  Reactor& reactor_;
  int fd_;
  std::function<void(int)> accepted_;
  uint64_t timer_ = 0;
};

}  // namespace atoll_native::nbd
