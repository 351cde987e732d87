// Epochs: when may a slot or frame that was unpublished be used for something else? Reactors look up the map without
// locks and may hold what they found across asynchronous I/O, so the mapper waits until none of them can.
//
// The mapper unpublishes X, then G = advance(). X is free once safe() >= G.
//
// A reactor publishes p = min(epoch of its oldest asynchronous request, e) where e is the global epoch it read at the
// start of its loop turn; every request it begins in that turn has epoch e. A sleeping reactor without requests
// publishes kIdle. Why X is free then, for one reactor whose p the mapper reads:
//
// 1. p is a number >= G. Requests on their way have epochs >= p >= G, so the reactor had read a global epoch >= G
// before
//    they looked anything up. advance() is a release that follows the unpublishing, the reactor's read is an acquire:
//    the lookups cannot have found X. What the reactor did in earlier turns without leaving a request behind was
//    complete when it published p (release), and the mapper reads p with acquire. Later turns read global epochs >= p.
// 2. p is kIdle. What came before it is complete as in 1. A reactor that wakes stores a number, makes a full fence,
// then
//    looks up; the mapper unpublished X, made a full fence in safe(), then read p. Of two threads that each store,
//    fence and load, one at least sees the other's store: the mapper did not see the number, so the lookups see X
//    unpublished.
// 3. p < G: safe() < G, the mapper waits. A reactor that sleeps in epoll with requests on their way does not publish
//    kIdle; completions wake it, and it publishes again.
//
// Plain turns need no fence: a lookup that the machine does before the store of p is seen still comes after the acquire
// of e, and while the mapper sees the older p it only waits longer.
#pragma once
#include <algorithm>
#include <cstdint>

#include "segment/atomic.h"
#include "segment/segment.h"
#include "segment/step.h"

namespace atoll_native {

class Epochs {
 public:
  static constexpr uint64_t kIdle = UINT64_MAX;

  explicit Epochs(const Segment& segment) : header_(&segment.header()), reactors_(segment.reactors()) {}

  // ---- reactors, each for itself
  /// At the start of each loop turn. `oldest`: epoch of the oldest asynchronous request, kIdle when there is none.
  /// Returns the epoch of requests that begin in this turn.
  uint64_t publish(uint32_t reactor, uint64_t oldest) {
    const uint64_t now = load_acquire(header_->global_epoch);
    ATOLL_STEP();
    store_release(header_->reactor_epoch[reactor].value, std::min(oldest, now));
    return now;
  }
  /// Before sleeping. Same argument; without requests the reactor holds nobody up while it sleeps.
  void leave(uint32_t reactor, uint64_t oldest) { store_release(header_->reactor_epoch[reactor].value, oldest); }
  /// After sleeping, before any lookup; returns what publish() returns.
  uint64_t enter(uint32_t reactor, uint64_t oldest) {
    const uint64_t now = publish(reactor, oldest);
    full_fence();  // case 2
    ATOLL_STEP();
    return now;
  }

  // ---- the mapper
  /// Ends an epoch and returns the new one, G.
  uint64_t advance() {
    ATOLL_STEP();
    return std::atomic_ref<uint64_t>(header_->global_epoch).fetch_add(1, std::memory_order_seq_cst) + 1;
  }
  /// What was unpublished before advance() returned G is held by nobody once this is >= G.
  uint64_t safe() const {
    full_fence();  // case 2
    uint64_t oldest = load_relaxed(header_->global_epoch);
    ATOLL_STEP();
    for (uint32_t r = 0; r < reactors_; r++) oldest = std::min(oldest, load_acquire(header_->reactor_epoch[r].value));
    return oldest;
  }

 private:
  SegmentHeader* header_;
  uint32_t reactors_;
};

}  // namespace atoll_native
