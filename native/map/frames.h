// Changes to map pages in memory. The mapper is the only writer; reactors read entries and stamps without locks, so
// each change that they may see is one 64-bit store.
#pragma once
#include <cstdint>

#include "segment/atomic.h"
#include "segment/segment.h"
#include "segment/step.h"

namespace atoll_native {

/// Bits of a map entry (layout.json "entry").
inline constexpr uint64_t kEntryValueMask = (uint64_t{1} << 48) - 1;
/// A leaf's entry of a block of zeroes that was folded away: reads as an empty one, and counts as mapped.
inline constexpr uint64_t kEntryZeroes = kEntryValueMask;
inline constexpr uint64_t kEntryBad = uint64_t{1} << 61;
inline constexpr uint64_t kEntryOwned = uint64_t{1} << 62;
inline constexpr uint64_t kEntryExclusive = uint64_t{1} << 63;

class Frames {
 public:
  explicit Frames(const Segment& segment) : segment_(&segment) {}

  /// True for a frame that may be written: it exists and is not the shared empty page.
  bool writable(uint32_t frame) const { return frame != kFrameEmpty && frame < segment_->frames(); }

  /// Release: who sees the entry sees what the mapper did before (the slot's file exists, old bytes are zeroed).
  void publish(uint32_t frame, uint32_t index, uint64_t entry) {
    segment_->frame(frame)[index].store(entry, std::memory_order_release);
  }
  /// Entries [index, index+count) name consecutive slots from `slot` on, with `bits` (kEntryOwned, kEntryExclusive).
  void publish_run(uint32_t frame, uint32_t index, uint32_t count, uint64_t slot, uint64_t bits) {
    for (uint32_t i = 0; i < count; i++) {
      ATOLL_STEP();
      publish(frame, index + i, bits | (slot + 1 + i));
    }
  }
  void clear_run(uint32_t frame, uint32_t index, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) publish(frame, index + i, 0);
  }
  /// target = source, every entry borrowed (docs/format.md "Who holds what"). The target is not in the leaf hash yet.
  void copy_shared(uint32_t source, uint32_t target) {
    const std::atomic<uint64_t>* from = segment_->frame(source);
    std::atomic<uint64_t>* to = segment_->frame(target);
    for (uint32_t i = 0; i < kPageEntries; i++) {
      to[i].store(from[i].load(std::memory_order_relaxed) & kEntryValueMask, std::memory_order_relaxed);
    }
  }
  void clear(uint32_t frame) { clear_run(frame, 0, kPageEntries); }
  /// Who may write the page's exclusive slots in place. One store, so that a reactor never sees half of it.
  void stamp(uint32_t frame, uint32_t volume, uint32_t generation) {
    ATOLL_STEP();
    segment_->frame_stamp(frame).store(Segment::stamp_of(volume, generation), std::memory_order_release);
  }

 private:
  const Segment* segment_;
};

}  // namespace atoll_native
