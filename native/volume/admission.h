// Admission of in-place writes: the reactor's side of what map/generation.h is the mapper's side of.
//
// A write in place changes bytes that a snapshot may be about to share. So it counts itself in under the volume's
// generation, and out when the write is complete; a snapshot advances the generation and waits until the writes of the
// old one are out.
//
// No write slips through: the reactor stores its count, makes a full fence, and reads the generation again; the mapper
// stores the generation, makes a full fence, and reads the counts. Of the two at least one sees the other's store.
// Either the mapper waits for this write, or the reactor sees the new generation and counts itself out again before it
// has written anything.
//
// The consistent cut (invariant 5): if B was issued after A was acknowledged, B's reactor reads a generation at least
// as new as A's (A's answer happened before B's request). So B in the old generation implies A in it.
//
// What is never done while counted in: waiting for the mapper, which may itself be waiting for the count. In-place I/O
// that is on its way ends by itself.
#pragma once
#include <cstdint>

#include "segment/atomic.h"
#include "segment/segment.h"
#include "segment/step.h"

namespace atoll_native {

class Admission {
 public:
  Admission(const Segment& segment, uint32_t reactor) : segment_(&segment), reactor_(reactor) {}

  /// Counts a write in and returns the generation it is admitted under. The loop ends unless a snapshot is made in
  /// every turn of it, and each takes a round trip through the mapper.
  uint32_t enter(uint32_t volume) {
    const VolumeRecord& record = segment_->volume(volume);
    for (;;) {
      const uint32_t generation = load_acquire(record.generation);
      ATOLL_STEP();
      add(volume, generation, 1);
      full_fence();
      ATOLL_STEP();
      if (load_acquire(record.generation) == generation) return generation;
      leave(volume, generation);
    }
  }
  /// One more write under a generation that the caller is admitted under already.
  void hold(uint32_t volume, uint32_t generation) { add(volume, generation, 1); }
  /// Release: the write, and the dirty bit of its file, are seen by who sees the count.
  void leave(uint32_t volume, uint32_t generation) {
    std::atomic<uint32_t>& count = segment_->inflight(volume, reactor_).count[generation & 1];
    ATOLL_STEP();
    count.store(count.load(std::memory_order_relaxed) - 1, std::memory_order_release);
  }

 private:
  // Only this reactor's thread writes its counters, so load and store do; no locked instruction.
  void add(uint32_t volume, uint32_t generation, uint32_t n) {
    std::atomic<uint32_t>& count = segment_->inflight(volume, reactor_).count[generation & 1];
    count.store(count.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }

  const Segment* segment_;
  uint32_t reactor_;
};

}  // namespace atoll_native
