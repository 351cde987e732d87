// What the NBD server has on each reactor, and what its threads share.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "nbd/buffer_pool.h"
#include "nbd/directory.h"
#include "reactor/reactor.h"
#include "volume/request.h"

namespace atoll_native::nbd {

class Connection;

struct Limits {
  uint32_t connections_max = 1024;
  uint32_t negotiation_ms = 10'000;
  uint64_t connection_bytes_max = 64u << 20;  // buffers of one connection; two it always has
};

/// Facts of one connection for people to look at; the numbers are written by its reactor, now and then.
struct ConnectionStatus {
  uint32_t id = 0;
  uint32_t reactor = 0;
  std::string name;  // under the registry's mutex; empty while negotiating
  std::atomic<uint32_t> handle{UINT32_MAX};
  std::atomic<uint32_t> in_flight{0};
  std::atomic<uint64_t> bytes_held{0};
};

struct ConnectionFacts {
  uint32_t id;
  uint32_t reactor;
  std::string name;
  uint32_t handle;
  uint32_t in_flight;
  uint64_t bytes_held;
};

/// All connections of the server, whichever reactor they live on. Not on the data path.
class Registry {
 public:
  std::shared_ptr<ConnectionStatus> enter(uint32_t reactor);
  void name(ConnectionStatus& status, const std::string& name, uint32_t handle);
  void leave(uint32_t id);
  uint32_t count() const;
  std::vector<ConnectionFacts> facts() const;
  /// False when connections are left after `ms`.
  bool wait_empty(uint32_t ms);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  uint32_t next_id_ = 1;
  std::map<uint32_t, std::shared_ptr<ConnectionStatus>> all_;
};

/// The server's part on one reactor; touched by its thread, but for the counter.
struct Place {
  Place(Reactor& reactor_in, RequestSink& sink_in, Directory& directory_in, Registry& registry_in,
        const Limits& limits_in)
      : reactor(reactor_in), sink(sink_in), directory(directory_in), registry(registry_in), limits(limits_in) {}

  Reactor& reactor;
  RequestSink& sink;
  Directory& directory;
  Registry& registry;
  const Limits& limits;
  BufferPool pool;
  std::unordered_map<uint32_t, Connection*> connections;
  bool shutting_down = false;
  std::atomic<uint32_t> count{0};  // connections that live or are about to live here
};

}  // namespace atoll_native::nbd
