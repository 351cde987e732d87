// A native thread with an event loop. Peers and connections live on one reactor and are touched by its thread only.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "latency.h"

namespace atoll_native {

class AsyncIo;
class VolumePeer;

/// Something with a file descriptor on a reactor (a connection, a listener, a doorbell).
class EventHandler {
 public:
  virtual ~EventHandler() = default;
  /// `events` are EPOLL* bits. Runs on the reactor's thread.
  virtual void on_events(uint32_t events) = 0;
  /// Busy poll: tries to do work without waiting; true when there was some. Called only while the reactor spins.
  virtual bool poll() { return false; }
  /// The end of a loop turn for which Reactor::at_turn_end was asked: what the turn's completions collected is sent at
  /// once.
  virtual void on_turn_end() {}
};

/// What requests that had to wait are told apart by.
enum class WaitKind : uint8_t { kRead, kWrite, kFlush, kOther };
constexpr uint32_t kWaitKinds = 4;

/// What a reactor did since it began; counters only grow.
struct ReactorStats {
  uint64_t loops = 0;
  uint64_t spins = 0;        // times it polled before sleeping
  uint64_t spin_hits = 0;    // of these: work came while it did
  uint64_t requests = 0;     // client requests
  uint64_t inline_done = 0;  // of these: complete before submit() returned
  uint64_t async_done = 0;   // of these: complete later
  uint64_t faults = 0;       // records sent to the mapper
  uint64_t errors = 0;       // requests that failed
  // Of volumes; handed over when the reactor sleeps, or every kStatisticsTurns.
  uint64_t reads = 0;
  uint64_t writes = 0;
  uint64_t read_bytes = 0;
  uint64_t write_bytes = 0;
  // By WaitKind: from the turn a request came in to the turn it was complete, of those not complete at once.
  std::array<LatencyCounts, kWaitKinds> waits;
};

class Reactor {
 public:
  struct Options {
    uint32_t id = 0;
    uint32_t spin_us_max = 50;  // longest busy poll after the last work; 0 never spins
  };
  virtual ~Reactor() = default;
  virtual uint32_t id() const = 0;
  /// Thread safe: runs `task` on the reactor's thread soon. For control work (accept, close), not per request.
  virtual void post(std::function<void()> task) = 0;
  /// The rest: on the reactor's thread only.
  virtual int add(int fd, uint32_t epoll_events, EventHandler* handler) = 0;  // 0 or -errno
  virtual void modify(int fd, uint32_t epoll_events, EventHandler* handler) = 0;
  virtual void remove(int fd, EventHandler* handler) = 0;  // no callbacks after it, on_turn_end neither
  /// Calls handler->on_turn_end() once, after everything else of this turn and before the reactor may sleep. No
  /// allocation beyond a vector that keeps its size; asked at most once per handler and turn (the handler keeps a
  /// flag). Asked from within on_turn_end, it means the next turn, which then begins without sleeping (how a handler
  /// with much to do lets others in).
  virtual void at_turn_end(EventHandler* handler) = 0;
  /// Destroys `handler` (by `delete`) after the current batch of events, so that it may ask for this in its own
  /// callback.
  virtual void destroy_later(EventHandler* handler) = 0;
  /// Runs `task` once after `delay_ms`; returns an id for cancel_timer.
  virtual uint64_t add_timer(uint64_t delay_ms, std::function<void()> task) = 0;
  virtual void cancel_timer(uint64_t id) = 0;
  virtual uint64_t now_ns() const = 0;  // monotonic, cached per loop turn
  /// How many connections live here: a lone connection's flush may run inline.
  virtual uint32_t connections() const = 0;
  virtual void connection_count_changed(int delta) = 0;
  virtual AsyncIo& io() = 0;
  virtual VolumePeer& volumes() = 0;
  /// Any thread.
  virtual ReactorStats stats() const { return {}; }
};

}  // namespace atoll_native
