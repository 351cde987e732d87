// The NBD frontend as a whole: listeners on the first reactor, connections on all of them. Start here; a request's way
// is server -> connection -> negotiation, then transmission -> the reactor's RequestSink, and back through completion.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nbd/directory.h"
#include "nbd/place.h"
#include "reactor/reactor.h"
#include "volume/request.h"

namespace atoll_native::nbd {

class Listener;

class Server {
 public:
  // How long a stop waits for requests on their way, and then for sockets to close.
  static constexpr uint32_t kStopMs = 5'000;
  static constexpr uint32_t kKillMs = 1'000;

  struct Seat {
    Reactor* reactor;
    RequestSink* sink;
  };

  /// Seats: all reactors, in order. They and the directory outlive stop(); the Server outlives the reactors' threads.
  Server(std::vector<Seat> seats, Directory& directory, const Limits& limits);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // ---- any thread but the reactors'
  /// Listener id (> 0) and the bound address, or -errno and a message.
  int listen(const std::string& address, uint32_t mode, std::string* bound, std::string* message);
  /// False when there is no such listener.
  bool close_listener(int id);
  /// Ends every connection that uses the handle; they are gone some time after.
  void disconnect(uint32_t handle);
  std::vector<ConnectionFacts> connections() const { return registry_.facts(); }
  /// Closes listeners, answers what is on its way, ends all connections. False when some still had requests on their
  /// way after kStopMs + kKillMs: they stay in memory, without their sockets. Idempotent.
  bool stop();

 private:
  struct Listening {
    Listener* listener;
    std::string path;  // unix: to be removed
    uint64_t inode;
  };

  void accepted(int fd);
  void end(Listening listening);

  const Limits limits_;
  Registry registry_;
  std::vector<std::unique_ptr<Place>> places_;
  std::mutex mutex_;  // listeners
  bool stopped_ = false;
  int next_listener_ = 1;
  std::map<int, Listening> listeners_;
};

}  // namespace atoll_native::nbd
