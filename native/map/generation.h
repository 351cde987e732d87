// The mapper's side of write admission. A reactor that writes in place counts itself in under the generation it read
// and reads the generation again (volume peer); after advance() no new write is admitted under the old one, and
// drained() says when those that were have left.
#pragma once
#include <cstdint>

#include "segment/atomic.h"
#include "segment/segment.h"
#include "segment/step.h"

namespace atoll_native {

/// Advances the volume's generation and returns the new one. There are two counters per reactor, so before the next
/// advance drained() must have been true once.
inline uint32_t advance_generation(const Segment& segment, uint32_t volume) {
  const uint32_t next =
      std::atomic_ref<uint32_t>(segment.volume(volume).generation).fetch_add(1, std::memory_order_seq_cst) + 1;
  ATOLL_STEP();
  // Pairs with the fence between a reactor's count and its second look at the generation: either it sees the new
  // generation and counts itself out, or drained() sees the count.
  full_fence();
  return next;
}

/// True when no write admitted under the generation before the current one is on its way.
inline bool writers_drained(const Segment& segment, uint32_t volume) {
  const uint32_t old_parity = (load_relaxed(segment.volume(volume).generation) + 1) & 1;
  for (uint32_t r = 0; r < segment.reactors(); r++) {
    ATOLL_STEP();
    // Acquire: the writes that were counted out are complete.
    if (segment.inflight(volume, r).count[old_parity].load(std::memory_order_acquire) != 0) return false;
  }
  return true;
}

}  // namespace atoll_native
