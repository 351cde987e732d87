#include "nbd/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace atoll_native::nbd {

OwnPages& Connection::memory() {
  // never destroyed: when the process exits, reactors may still close connections
  static OwnPages& memory = *new OwnPages(sizeof(Connection));
  return memory;
}

void Connection::start(Place& place, int fd) {
  if (place.shutting_down) {
    close(fd);
    place.count.fetch_sub(1, std::memory_order_relaxed);
    return;
  }
  Connection* connection = new Connection(place, fd);
  place.connections[connection->status_->id] = connection;
  place.reactor.connection_count_changed(1);
  if (place.reactor.add(fd, EPOLLIN, connection) != 0) {
    close(fd);
    connection->fd_ = -1;
    connection->end_when_finished();
    return;
  }
  connection->events_ = EPOLLIN;
  connection->timer_ = place.reactor.add_timer(place.limits.negotiation_ms, [connection] {
    connection->timer_ = 0;
    connection->kill();
  });
  connection->negotiate(Negotiation::Progress::kReply);
}

Connection::Connection(Place& place, int fd)
    : place_(place),
      fd_(fd),
      status_(place.registry.enter(place.reactor.id())),
      account_(place.pool, place.limits.connection_bytes_max),
      input_(account_),
      output_(account_),
      negotiation_(*this) {}

Connection::~Connection() = default;

bool Connection::uses(uint32_t handle) const {
  if (transmission_ != nullptr ? transmission_->session().volume == handle : negotiation_.has_open(handle)) return true;
  for (const StatusContext& context : negotiation_.contexts()) {
    if (context.handle == handle) return true;
  }
  return false;
}

void Connection::shut_down() {
  if (fd_ < 0) return;
  if (transmission_ == nullptr) {
    kill();  // nothing was promised yet
    return;
  }
  transmission_->shut_down();
  transmission_->run(false);
  after_run();
}

void Connection::kill() {
  if (fd_ < 0) return;
  if (transmission_ != nullptr) transmission_->die();
  close_socket();
  end_when_finished();
}

void Connection::on_events(uint32_t events) {
  if (fd_ < 0) return;
  if (transmission_ == nullptr) {
    // A client that goes while an answer is awaited is forgotten now; the answer's handle is given back when it comes.
    if ((events & (EPOLLHUP | EPOLLERR)) != 0 && (events & EPOLLIN) == 0) {
      kill();
    } else {
      negotiate(progress_);
    }
    return;
  }
  transmission_->run((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0);
  // Nobody is there to take replies. What it asked before it went is done as long as it can still be read.
  if ((events & (EPOLLHUP | EPOLLERR)) != 0 && !transmission_->reading()) transmission_->die();
  after_run();
}

bool Connection::poll() {
  if (fd_ < 0 || transmission_ == nullptr || !transmission_->poll()) return false;
  after_run();
  return true;
}

void Connection::on_turn_end() {
  if (fd_ < 0 || transmission_ == nullptr) return;
  transmission_->run(false);
  place_.pool.age(place_.reactor.now_ns());
  after_run();
}

void Connection::wake() {
  if (fd_ >= 0) {
    place_.reactor.at_turn_end(this);
  } else {
    end_when_finished();
  }
}

void Connection::after_run() {
  output_.serve_alone(place_.reactor.connections() <= 1);
  status_->in_flight.store(transmission_->in_flight(), std::memory_order_relaxed);
  status_->bytes_held.store(account_.held_bytes(), std::memory_order_relaxed);
  if (transmission_->dead() || transmission_->finished()) {
    close_socket();
    end_when_finished();
    return;
  }
  if (!transmission_->open() && !lingering_) {
    lingering_ = true;
    timer_ = place_.reactor.add_timer(kLingerMs, [this] {
      timer_ = 0;
      kill();
    });
  }
  want(transmission_->events());
}

void Connection::want(uint32_t events) {
  if (events == events_ || fd_ < 0) return;
  events_ = events;
  place_.reactor.modify(fd_, events, this);
}

void Connection::close_socket() {
  if (fd_ < 0) return;
  place_.reactor.remove(fd_, this);
  close(fd_);
  fd_ = -1;
}

/// Once nothing of the sink's points here any more: handles go back, and this object goes.
void Connection::end_when_finished() {
  if (retired_ || fd_ >= 0) return;
  if (transmission_ != nullptr && transmission_->in_flight() != 0) {
    transmission_->die();
    if (transmission_->in_flight() != 0) return;  // wake() comes with the last one
  }
  retired_ = true;
  if (timer_ != 0) place_.reactor.cancel_timer(timer_);
  negotiation_.release_handles();
  input_.clear();  // from here on nothing of the Place is used
  output_.clear();
  place_.connections.erase(status_->id);
  place_.reactor.connection_count_changed(-1);
  place_.count.fetch_sub(1, std::memory_order_relaxed);
  place_.reactor.destroy_later(this);
  place_.registry.leave(status_->id);
}

/// Goes on from `progress` until bytes, an answer or room in the socket is missing.
void Connection::negotiate(Negotiation::Progress progress) {
  using Progress = Negotiation::Progress;
  progress_ = progress;
  for (;;) {
    if (!send_reply()) return;  // waits for EPOLLOUT, or ended
    switch (progress_) {
      case Progress::kClose:
        kill();
        return;
      case Progress::kTransmission:
        begin_transmission();
        return;
      case Progress::kWaiting:
        want(0);
        return;
      case Progress::kReply:
      case Progress::kNeedBytes:
        break;
    }
    uint32_t used = 0;
    progress_ = negotiation_.consume({input_.data(), input_.size()}, &used);
    if (used != 0) input_.consume(used);
    if (progress_ != Progress::kNeedBytes) continue;
    bool drained = false;
    const int got = input_.receive(fd_, 0, &drained);
    if (got == -EAGAIN) {
      input_.release_when_empty();
      want(EPOLLIN);
      return;
    }
    if (got <= 0) {
      kill();
      return;
    }
  }
}

bool Connection::send_reply() {
  std::string& reply = negotiation_.output();
  while (reply_sent_ < reply.size()) {
    const ssize_t sent = send(fd_, reply.data() + reply_sent_, reply.size() - reply_sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) {
      want(EPOLLOUT);
      return false;
    }
    if (sent < 0) {
      kill();
      return false;
    }
    reply_sent_ += static_cast<size_t>(sent);
  }
  reply.clear();
  reply.shrink_to_fit();
  reply_sent_ = 0;
  return true;
}

void Connection::begin_transmission() {
  place_.reactor.cancel_timer(timer_);
  timer_ = 0;
  place_.registry.name(*status_, negotiation_.export_name(), negotiation_.session().volume);
  transmission_ = std::make_unique<Transmission>(fd_, input_, output_, place_.sink, *this, negotiation_.session(),
                                                 negotiation_.contexts());
  transmission_->run(true);
  after_run();
}

// ---- questions to the Directory. The answers come on any thread and are carried to this connection's reactor, where
// it is looked up by its id: it may be gone.

template <typename Answer>
std::function<void(Answer)> Connection::answer_here(void (Connection::*then)(Answer),
                                                    void (*orphan)(Place&, uint32_t, const Answer&)) {
  Place* place = &place_;
  const uint32_t id = status_->id;
  return [place, id, then, orphan](Answer answer) {
    place->reactor.post([place, id, then, orphan, answer = std::move(answer)]() mutable {
      auto found = place->connections.find(id);
      if (found == place->connections.end() || found->second->fd_ < 0) {
        orphan(*place, id, answer);
      } else {
        (found->second->*then)(std::move(answer));
      }
    });
  };
}

void Connection::ask_open(const std::string& name) {
  place_.directory.open(
      name, status_->id,
      answer_here<OpenAnswer>(&Connection::open_answered, [](Place& place, uint32_t id, const OpenAnswer& answer) {
        if (answer.error == 0) place.directory.closed(id, answer.handle, answer.read_only);
      }));
}

void Connection::ask_list() {
  place_.directory.list(
      answer_here<ListAnswer>(&Connection::list_answered, [](Place&, uint32_t, const ListAnswer&) {}));
}

void Connection::ask_contexts(const std::string& name, const std::vector<std::string>& queries, bool listing) {
  auto orphan = [](Place& place, uint32_t id, const ContextsAnswer& answer) {
    for (const ContextEntry& entry : answer.contexts) {
      if (entry.handle != ContextEntry::kBaseAllocation) place.directory.closed(id, entry.handle, true);
    }
  };
  // Listing opens nothing, so that there is nothing to give back.
  auto nothing = [](Place&, uint32_t, const ContextsAnswer&) {};
  place_.directory.contexts(name, queries, listing,
                            listing ? answer_here<ContextsAnswer>(&Connection::contexts_answered, nothing)
                                    : answer_here<ContextsAnswer>(&Connection::contexts_answered, orphan));
}

void Connection::release(uint32_t handle, bool read_only) { place_.directory.closed(status_->id, handle, read_only); }

void Connection::open_answered(OpenAnswer answer) { negotiate(negotiation_.answer_open(std::move(answer))); }
void Connection::list_answered(ListAnswer answer) { negotiate(negotiation_.answer_list(answer)); }
void Connection::contexts_answered(ContextsAnswer answer) { negotiate(negotiation_.answer_contexts(answer)); }

}  // namespace atoll_native::nbd
