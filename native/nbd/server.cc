#include "nbd/server.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "nbd/connection.h"
#include "nbd/listener.h"
#include "reactor/run_on.h"

namespace atoll_native::nbd {
namespace {

/// Connections may end while they are told something.
std::vector<Connection*> all_of(const Place& place) {
  std::vector<Connection*> all;
  for (const auto& [id, connection] : place.connections) all.push_back(connection);
  return all;
}

}  // namespace

Server::Server(std::vector<Seat> seats, Directory& directory, const Limits& limits) : limits_(limits) {
  for (const Seat& seat : seats) {
    places_.push_back(std::make_unique<Place>(*seat.reactor, *seat.sink, directory, registry_, limits_));
  }
}

Server::~Server() = default;

int Server::listen(const std::string& address, uint32_t mode, std::string* bound, std::string* message) {
  std::lock_guard lock(mutex_);
  if (stopped_) {
    *message = "server is shutting down";
    return -ESHUTDOWN;
  }
  const int fd = listen_at(address, mode, bound, message);
  if (fd < 0) return fd;
  Listening listening = {nullptr, {}, 0};
  struct stat facts;
  if (address.starts_with("unix:") && lstat(address.c_str() + 5, &facts) == 0) {
    listening.path = address.substr(5);
    listening.inode = facts.st_ino;
  }
  Reactor& reactor = places_.front()->reactor;
  listening.listener = new Listener(reactor, fd, [this](int client) { accepted(client); });
  int error = 0;
  run_on(reactor, [&] { error = listening.listener->start(); });
  if (error != 0) {
    delete listening.listener;
    *message = "cannot watch the socket";
    return error;
  }
  const int id = next_listener_++;
  listeners_[id] = listening;
  return id;
}

void Server::end(Listening listening) {
  // Only our own: another may have taken the place of a socket that was removed from outside.
  struct stat facts;
  if (!listening.path.empty() && lstat(listening.path.c_str(), &facts) == 0 && facts.st_ino == listening.inode) {
    unlink(listening.path.c_str());
  }
  run_on(places_.front()->reactor, [&] { listening.listener->stop(); });
}

bool Server::close_listener(int id) {
  std::lock_guard lock(mutex_);
  auto found = listeners_.find(id);
  if (found == listeners_.end()) return false;
  Listening listening = found->second;
  listeners_.erase(found);
  end(listening);
  return true;
}

/// On the first reactor. The connection goes to the reactor with the fewest.
void Server::accepted(int fd) {
  Place* best = nullptr;
  uint32_t total = 0;
  for (const auto& place : places_) {
    const uint32_t count = place->count.load(std::memory_order_relaxed);
    total += count;
    if (best == nullptr || count < best->count.load(std::memory_order_relaxed)) best = place.get();
  }
  if (total >= limits_.connections_max) {
    close(fd);
    return;
  }
  best->count.fetch_add(1, std::memory_order_relaxed);
  best->reactor.post([best, fd] { Connection::start(*best, fd); });
}

void Server::disconnect(uint32_t handle) {
  for (const auto& place : places_) {
    Place* here = place.get();
    here->reactor.post([here, handle] {
      for (Connection* connection : all_of(*here)) {
        if (connection->uses(handle)) connection->kill();
      }
    });
  }
}

bool Server::stop() {
  {
    std::lock_guard lock(mutex_);
    if (!stopped_) {
      stopped_ = true;
      for (auto& [id, listening] : listeners_) end(listening);
      listeners_.clear();
      for (const auto& place : places_) {
        Place* here = place.get();
        // The turn after this one knows of every connection that was accepted before.
        run_on(here->reactor, [here] {
          here->shutting_down = true;
          for (Connection* connection : all_of(*here)) connection->shut_down();
        });
      }
    }
  }
  if (registry_.wait_empty(kStopMs)) return true;
  for (const auto& place : places_) {
    Place* here = place.get();
    run_on(here->reactor, [here] {
      for (Connection* connection : all_of(*here)) connection->kill();
    });
  }
  return registry_.wait_empty(kKillMs);
}

}  // namespace atoll_native::nbd
